"""Folds run as if alone, survive a kill, are never mixed with others and say what they are; recipes can be read."""

import contextlib
import io
import json
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_scripts import BUILDERS, folds
from dataset_scripts.rendered_faces import write_rendered_dfew
from helpers import mafw_trees
from helpers.models import TINY_MODEL
from helpers.programs import ROOT, run
from modeling_stt.hub import publish

EXAMPLES = ROOT / "examples"
FOLDS = ["--folds", "1", "2"]

# The command, in a process that dies within the second epoch of fold 2 (three steps each).
KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from cross_validate import cross_validate
from modeling_stt.training import STTTrainer

step = STTTrainer.training_step
def killed(self, *arguments, **options):
    if str(self.args.output_dir).endswith("fold_2") and self.state.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments, **options)
STTTrainer.training_step = killed
cross_validate(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def options(home: Path) -> list[str]:
    """A tiny model for two epochs on a tiny tree of five folds."""
    tree = write_rendered_dfew(
        home / "DFEW",
        num_clips=35,
        num_frames=8,
        image_size=40,
        num_workers=1,
        videos=False,
        progress=False,
    )
    return [
        *("--dataset=dfew", f"--data_dir={tree}", f"--model_config={json.dumps(TINY_MODEL)}", "--use_cpu=True"),
        *("--num_train_epochs=2", "--per_device_train_batch_size=8", "--learning_rate=0.05", "--disable_tqdm=True"),
        "--audit=True",
    ]


@pytest.fixture(scope="module")
def examples() -> Iterator[pytest.MonkeyPatch]:
    """Makes the modules in examples/ importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield patch


@pytest.fixture(scope="module")
def unbroken(home: Path, options: list[str], examples: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Folder and printed text of folds 1 and 2, run one after the other in this process."""
    import cross_validate

    models: list[weakref.ref[Any]] = []

    def watched(arguments: list[str]) -> Any:
        assert not any(model() for model in models), "the model of the fold before takes up memory still"
        finished = train(arguments)
        models.append(weakref.ref(finished.trainer.model))
        return finished

    with examples.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        train = cross_validate.train
        patch.setattr(cross_validate, "train", watched)
        cross_validate.cross_validate([*options, *FOLDS, f"--output_dir={home / 'unbroken'}"])
    assert len(models) == 2
    return home / "unbroken", printed.getvalue()


def numbers(path: Path) -> Any:
    """A results.json less its times and the facts of machine and command."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: stripped(v) for k, v in value.items() if k not in ("environment", "train_seconds")}
        return [stripped(part) for part in value] if isinstance(value, list) else value

    return stripped(json.loads(path.read_text()))


def assert_same_run(first: Path, second: Path) -> None:
    assert numbers(first / "results.json") == numbers(second / "results.json")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_folds_are_put_together_and_the_missing_ones_named(unbroken: tuple[Path, str]) -> None:
    folder, printed = unbroken
    results = json.loads((folder / "results.json").read_text())
    assert (results["dataset"], results["synthetic"], results["seed"]) == ("dfew", True, 42)
    assert (results["finished_folds"], results["missing_folds"]) == ([1, 2], [3, 4, 5])
    alone = [json.loads((folder / f"fold_{fold}" / "results.json").read_text())["test"] for fold in (1, 2)]
    assert [row["war"] for row in results["per_fold"]] == [test["war"] for test in alone]
    assert results["mean_of_folds"]["uar"]["mean"] == pytest.approx((alone[0]["uar"] + alone[1]["uar"]) / 2)
    assert results["pooled"]["num_clips"] == alone[0]["num_clips"] + alone[1]["num_clips"]
    assert list(results["audit"]) == ["shuffled", "reversed", "repeated"]
    assert results["audit"]["repeated"]["war"]["num_folds"] == 2
    assert "synthetic faces as dfew, 2 of 5 folds, missing: 3, 4, 5" in printed and "frames repeated" in printed
    assert "validation set cut from the training fold" in printed.split("2 of 5 folds")[1]
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_leaves_can_be_published(unbroken: tuple[Path, str]) -> None:
    files = publish(unbroken[0], "user/stt", fold=2, dry_run=True).files
    assert files["model.safetensors"] == unbroken[0] / "fold_2" / "model.safetensors"
    assert b"2 of 5 folds, missing: 3, 4, 5" in files["README.md"]


def test_a_fold_after_another_is_as_if_run_alone(unbroken: tuple[Path, str], options: list[str], home: Path) -> None:
    # Random state, and what Accelerate keeps for a whole process, must not leak from fold to fold.
    done = run("examples/train.py", *options, "--fold=2", f"--output_dir={home / 'alone'}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(unbroken[0] / "fold_2", home / "alone")


def test_a_killed_run_resumes_to_the_numbers_of_an_unbroken_one(
    unbroken: tuple[Path, str], options: list[str], home: Path
) -> None:
    command = [*options, *FOLDS, f"--output_dir={home / 'killed'}"]
    done = run("-c", KILLED, *command)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert [path.name for path in (home / "killed").glob("fold_*/results.json")] == ["results.json"]
    assert (home / "killed" / "fold_2" / "checkpoint-3").is_dir()
    finished = (home / "killed" / "fold_1" / "model.safetensors").stat().st_mtime_ns
    # As if it had died while it wrote its next checkpoint.
    half = home / "killed" / "fold_2" / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    from cross_validate import cross_validate

    cross_validate(command)
    assert (home / "killed" / "fold_1" / "model.safetensors").stat().st_mtime_ns == finished, "fold 1 was not redone"
    for fold in ("fold_1", "fold_2"):
        assert_same_run(home / "killed" / fold, unbroken[0] / fold)
    assert numbers(home / "killed" / "results.json") == numbers(unbroken[0] / "results.json")


def test_folds_run_otherwise_are_refused_by_name_before_any_training(
    unbroken: tuple[Path, str], options: list[str]
) -> None:
    from cross_validate import cross_validate

    folder = unbroken[0]
    before = (folder / "results.json").read_bytes()
    with pytest.raises(ValueError, match=r"fold_1 .*recipe.learning_rate \(0.05 there, 0.04 here\)"):
        cross_validate([*options, "--folds", "3", f"--output_dir={folder}", "--learning_rate=0.04"])
    assert not (folder / "fold_3").exists()
    assert (folder / "results.json").read_bytes() == before


def test_folds_finished_before_are_taken_in(unbroken: tuple[Path, str], options: list[str]) -> None:
    from cross_validate import cross_validate

    before = numbers(unbroken[0] / "results.json")
    summary = cross_validate([*options, "--folds", "1", f"--output_dir={unbroken[0]}"])
    assert summary is not None and list(summary.fold_results) == [1, 2]
    assert numbers(unbroken[0] / "results.json") == before


def test_two_processes_count_each_clip_once_and_one_of_them_writes(options: list[str], home: Path) -> None:
    flags = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    command = ["examples/cross_validate.py", *options, *FOLDS, f"--output_dir={home / 'two'}"]
    launch = ["-m", "accelerate.commands.launch", *flags, "--main_process_port=0"]
    done = run(*launch, *command, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 of 5 folds, missing: 3, 4, 5") == 1
    results = json.loads((home / "two" / "results.json").read_text())
    assert results["environment"]["num_processes"] == 2
    counted = [numbers(home / "two" / f"fold_{fold}" / "results.json")["clips"]["test"] for fold in (1, 2)]
    assert results["pooled"]["num_clips"] == sum(sum(part["per_class"].values()) for part in counted)


def test_mafws_compound_folds_are_run_and_called_so(
    options: list[str], home: Path, examples: pytest.MonkeyPatch
) -> None:
    from cross_validate import cross_validate

    mafw = ["--dataset=mafw", f"--data_dir={mafw_trees.write_mafw(home / 'MAFW')}", "--configuration=compound"]
    summary = cross_validate([*options, *mafw, *FOLDS, f"--output_dir={home / 'compound'}"])
    assert summary is not None and summary.name == "mafw compound, 2 of 5 folds, missing: 3, 4, 5"
    results = json.loads((home / "compound" / "results.json").read_text())
    assert results["subset"] == "compound" and set(mafw_trees.COMPOUNDS) < set(results["classes"])
    assert (
        "On a copy of MAFW compound"
        in publish(home / "compound", "user/stt", dry_run=True).files["README.md"].decode()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--dataset=dfwe"], "--dataset dfwe is unknown: choose one of .*dfew"),
        (["--dataset=afew"], "afew has no folds .*examples/train.py"),
        (["--folds", "6"], "--folds 6: this data set has the folds 1, 2, 3, 4, 5"),
        (["--fold=1"], "--fold is train.py's"),
        (["--configuration=compound"], "no folds compound_fold_1, … of dfew, which comes as fold_1, fold_2"),
        (["--resume_from_checkpoint=runs/checkpoint-3"], "--resume_from_checkpoint is not needed"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    changes: list[str], message: str, options: list[str], tmp_path: Path, examples: pytest.MonkeyPatch
) -> None:
    from cross_validate import cross_validate

    with pytest.raises(SystemExit, match=message):
        cross_validate([*options, *changes, f"--output_dir={tmp_path}"])


def test_the_folder_of_a_single_run_is_not_written_over(unbroken: tuple[Path, str], options: list[str]) -> None:
    from cross_validate import cross_validate

    with pytest.raises(SystemExit, match=r"fold_1 holds a run of train\.py"):
        cross_validate([*options, f"--output_dir={unbroken[0] / 'fold_1'}"])


@pytest.mark.parametrize("recipe", sorted((EXAMPLES / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_can_be_read_and_tell_the_source_of_each_line(
    recipe: Path, tmp_path: Path, examples: pytest.MonkeyPatch
) -> None:
    from modeling_stt.training.options import parse_arguments

    chosen, _ = parse_arguments([f"--recipe={recipe}", "--data_dir=x", f"--output_dir={tmp_path}", "--use_cpu=True"])
    assert chosen.dataset in BUILDERS
    assert chosen.model is None, "a trained model is the user's to name"
    if recipe.stem not in ("demo", "rendered"):  # which are all ours
        assert chosen.dataset == recipe.stem.split("_")[0]
        lines = [line for line in recipe.read_text().splitlines() if line and not line.startswith("#")]
        assert [line for line in lines if "[" not in line and not line.startswith("dataset:")] == []
        assert folds(chosen.dataset) or "cross_validate.py" not in recipe.read_text()
