"""results.json is whole or absent, pictures are drawn, and folds are put together only if they belong together."""

import copy
import json
import subprocess
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

from modeling_stt.training import CrossValidation, environment, score, summarize_folds
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.plots import plot_confusion_matrix
from modeling_stt.training.results import differences, write_results

NAMES = ["happy", "sad", "disappointment"]


def test_numbers_that_json_cannot_hold_leave_the_old_file(tmp_path: Path) -> None:
    path = write_results(tmp_path / "run" / "results.json", {"war": 0.5, "names": ["é"]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, {"war": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"war": 0.5, "names": ["é"]}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_environment_names_versions_and_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_environment()
    assert found["torch"] and found["num_cpus"] >= 1 and found["num_processes"] == 1
    monkeypatch.setattr(
        environment, "__file__", str(Path(environment.__file__).parents[2] / "venv/lib/stt/training/results.py")
    )
    assert describe_environment()["git_sha"] is None, "the sha of a repository around an installed copy is not ours"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert describe_environment()["git_sha"] is None, "a machine without git has no sha, and no crash"


def test_secrets_of_the_command_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_" + 20 * "a"
    words = ["train.py", f"--hub_token={secret}", "--hub_token", secret, "--api_key", "abc", "--model", f"x/{secret}"]
    monkeypatch.setattr("sys.argv", [*words, "--push_to_hub", "--seed=1"])
    command = describe_environment()["command"]
    assert command == ("train.py --hub_token=*** --hub_token *** --api_key *** --model x/*** --push_to_hub --seed=1")


def test_confusion_matrix_is_drawn_also_with_an_absent_class(tmp_path: Path) -> None:
    path = plot_confusion_matrix([[3, 1], [0, 0]], ["happy", "sad"], tmp_path / "pictures" / "c.png", "WAR 75")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_long_titles_are_wrapped_into_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The end of a title says how the epoch was chosen.
    import matplotlib.figure

    drawn = []
    savefig = matplotlib.figure.Figure.savefig

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        savefig(self, *args, **kwargs)
        drawn.append((self._suptitle.get_text(), self._suptitle.get_window_extent().width, self.bbox.width))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    title = "synthetic faces as dfew, 3 of 5 folds, missing: 4, 5\n" + "best epoch on the test fold itself " * 4
    plot_confusion_matrix([[3, 1], [0, 0]], ["happy", "sad"], tmp_path / "c.png", title)
    ((text, width, room),) = drawn
    assert text.split() == title.split()
    assert width < room


def fold_results(fold: int) -> dict[str, Any]:
    """A results.json of one fold of five, of made-up predictions of twelve clips, in fold 5 of eight."""
    rng = np.random.default_rng(fold)
    happy = 3 if fold == 5 else 7
    labels = [0] * happy + [1, 1, 1, 1, 2]
    scores = score(labels, [k if rng.random() < 0.5 else 0 for k in labels], NAMES).to_dict()
    counts = {"happy": happy, "sad": 4, "disappointment": 1}
    clips = {"train": {"happy": 31 - happy, "sad": 16, "disappointment": 4}, "test": counts}
    return {
        "format": 1,
        "dataset": "dfew",
        "synthetic": False,
        "fold": fold,
        "classes": NAMES,
        "clips": {name: {"per_class": counts, "sha256_of_ids": f"{name} {fold}"} for name, counts in clips.items()},
        "protocol": {
            "selection": "test",
            "selection_means": "best epoch on the test fold: optimistic",
            "select_by": "war",
        },
        "recipe": {"learning_rate": 0.01, "seed": 42, "augment": {"scale": [0.08, 1.0]}},
        "test": scores,
        "selected": {"epoch": 3.0},
        "last": {"epoch": 5.0},
        "train_seconds": 1.0 + fold,
        "environment": {"torch": "2.6", "git_sha": "abc", "sha256_of_code": "0123", "processor": "slow", "gpus": []},
        "history": [],
    }


def summary_of(*folds: int) -> CrossValidation:
    return summarize_folds({fold: fold_results(fold) for fold in folds}, range(1, 6))


def test_mean_and_spread_are_of_the_folds_scores_and_the_rest_is_pooled() -> None:
    summary = summary_of(3, 1, 2, 5, 4)
    wars = [fold_results(fold)["test"]["war"] for fold in range(1, 6)]
    assert (summary.war.mean, summary.war.standard_deviation, summary.war.num_folds) == (mean(wars), stdev(wars), 5)
    matrices = [fold_results(fold)["test"]["confusion_matrix"] for fold in range(1, 6)]
    assert summary.pooled.confusion_matrix == np.sum(matrices, axis=0).tolist()
    assert summary.pooled.num_clips == 56
    assert summary.pooled.war == np.trace(np.sum(matrices, axis=0)) / 56 != summary.war.mean
    assert summary.coverage == "5 of 5 folds"
    assert list(summary.fold_results) == [1, 2, 3, 4, 5]


def test_missing_folds_are_named_in_every_output() -> None:
    summary = summary_of(1, 3)
    for output in (str(summary), summary.title, json.dumps(summary.to_dict())):
        assert "2 of 5 folds, missing: 2, 4, 5" in output
        assert "optimistic" in output, "and how epochs were chosen"
    assert summary.to_dict()["missing_folds"] == [2, 4, 5]
    assert "mean of 2" in str(summary)


def test_one_fold_has_no_spread() -> None:
    summary = summary_of(2)
    assert summary.war.standard_deviation is None
    assert str(summary.war).endswith("± ?")
    assert "± sample s.d.  " in str(summary)


def test_an_audit_of_the_folds_is_averaged_and_printed() -> None:
    folds = {fold: fold_results(fold) for fold in (1, 2, 3)}
    for fold, war in ((1, 0.25), (2, 0.5)):  # fold 3 was run without one
        folds[fold]["audit"] = {"shuffled": {"war": war, "uar": 0.125}}
    summary = summarize_folds(folds, range(1, 6))
    expected = {"mean": 0.375, "standard_deviation": stdev([0.25, 0.5]), "num_folds": 2}
    assert summary.to_dict()["audit"]["shuffled"]["war"] == expected
    line = next(line for line in str(summary).splitlines() if line.startswith("frames shuffled"))
    assert line.split()[2:] == ["37.50", "12.50"]
    assert summary_of(1, 2).to_dict()["audit"] == {} and "shuffled" not in str(summary_of(1, 2))


def test_synthetic_faces_are_called_so() -> None:
    folds = {1: fold_results(1) | {"synthetic": True}}
    summary = summarize_folds(folds, [1])
    assert summary.name == "synthetic faces as dfew, 1 of 1 folds"
    assert "synthetic" in str(summary) and "synthetic" in summary.title


def test_what_a_cross_validation_writes(tmp_path: Path) -> None:
    verified = {"verification": {"comparable": True, "failed": []}}
    folds = {fold: fold_results(fold) | verified for fold in (1, 2)}
    folds[2]["environment"] |= {"processor": "fast"}
    written = json.loads(write_results(tmp_path / "r.json", summarize_folds(folds, [1, 2]).to_dict()).read_text())
    assert written["seed"] == 42
    assert written["dataset"] == "dfew" and written["synthetic"] is False
    assert written["verification"] == {"comparable": True}
    assert written["environment"] == {"torch": "2.6", "git_sha": "abc", "sha256_of_code": "0123", "gpus": []}
    assert [row["environment"] for row in written["per_fold"]] == [{"processor": "slow"}, {"processor": "fast"}]
    first = folds[1]["test"]
    assert written["per_fold"][0] == {
        "fold": 1,
        "war": first["war"],
        "uar": first["uar"],
        "recalls": first["recalls"],
        "num_clips": 12,
        "selected_epoch": 3.0,
        "last_epoch": 5.0,
        "verification": {"comparable": True, "failed": []},
        "train_seconds": 2.0,
        "environment": {"processor": "slow"},
    }
    assert "history" not in written and "clips" not in written


@pytest.mark.parametrize(
    ("found", "comparable", "words"),
    [
        ([True, True], True, "data: as papers report on"),
        ([True, False], False, "data: not those that papers report on"),
        ([True, "not verified"], None, "data: not verified"),
        ([False, "not verified"], False, "data: not those that papers report on"),
        ([None, None], None, "data: nothing is published to compare with"),  # one's own clips
    ],
)
def test_whether_scores_can_be_compared_with_papers_is_said(
    found: list[Any], comparable: bool | None, words: str
) -> None:
    verified = [None if told == "not verified" else {"comparable": told, "failed": []} for told in found]
    folds = {fold: fold_results(fold) | {"verification": v} for fold, v in enumerate(verified, 1)}
    summary = summarize_folds(folds, [1, 2])
    assert summary.to_dict()["verification"] == {"comparable": comparable}
    assert words in str(summary).splitlines()


def test_columns_of_the_table_are_aligned() -> None:
    head, *rows = str(summary_of(1, 2)).split("\n\n")[1].splitlines()
    ends = [head.index(name) + len(name) for name in ("WAR", "UAR", "disappointment")]
    pooled = rows[-1]
    assert all(pooled[end - 1].isdigit() and not pooled[end].strip() for end in ends)


def changed(fold: int, path: str, value: Any) -> dict[str, Any]:
    told = copy.deepcopy(fold_results(fold))
    part = told
    *way, last = path.split("/")
    for key in way:
        part = part[key]
    part[last] = value
    return told


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("recipe/learning_rate", 0.1, r"Folds 1 \(there\) and 2 .* recipe.learning_rate \(0.01 there, 0.1 here\)"),
        ("recipe/seed", 7, "recipe.seed"),
        ("protocol/selection", "last", "protocol.selection"),
        ("classes", ["sad", "happy", "disappointment"], "classes"),
        ("environment/torch", "2.7", "environment.torch"),
        ("environment/sha256_of_code", "4567", "environment.sha256_of_code"),
        (
            "clips/train/per_class",
            {"happy": 23, "sad": 16, "disappointment": 4},
            r"clips of the whole set.happy \(31 there, 30",
        ),
        ("clips/test/sha256_of_ids", "test 1", "Folds 1 and 2 were tested on the same clips"),
        ("fold", 3, "Results of fold 3 came as fold 2"),
    ],
)
def test_folds_that_were_not_run_alike_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize_folds({1: fold_results(1), 2: changed(2, path, value)}, range(1, 6))


def test_folds_that_the_set_does_not_have_and_none_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fold 6 of \[1, 2\]"):
        summarize_folds({6: fold_results(6)}, [1, 2])
    with pytest.raises(ValueError, match=r"None of the folds \[1, 2\] is finished"):
        summarize_folds({}, [1, 2])


def test_runs_differ_by_what_decides_their_outcome_and_not_by_the_machine() -> None:
    # A tuple is a list once it was written.
    there = fold_results(1)
    here = copy.deepcopy(there) | {"environment": there["environment"] | {"processor": "fast", "git_sha": "def"}}
    here["recipe"]["augment"]["scale"] = (0.08, 1.0)
    assert differences(there, here) == []
    here["recipe"]["augment"]["scale"] = (0.7, 1.0)
    here["new"] = None  # as if it were not told
    assert differences(there, here) == ["recipe.augment.scale ([0.08, 1.0] there, [0.7, 1.0] here)"]


def test_long_facts_are_cut_so_that_the_difference_can_be_read() -> None:
    (told,) = differences({"environment": {"sha256_of_code": 64 * "a"}}, {"environment": {"sha256_of_code": 64 * "b"}})
    assert "aaaaaa" in told and "bbbbbb" in told and len(told) < 180
