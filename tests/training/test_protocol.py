"""One fold: validation without leakage, one evaluation of the test fold, resumed runs that end like unbroken ones."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification, TrainerCallback

from helpers.tiny import NAMES, make_arguments, make_model, make_processor, make_rows
from modeling_stt.training import (
    FoldProtocol,
    FoldRows,
    STTTrainer,
    expected_calibration_error,
    run_fold,
    split_validation,
)
from modeling_stt.training.calibration import softmax
from modeling_stt.training.results import RESULTS_FILE


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    features = datasets.Features(
        {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=NAMES),
            "num_frames": datasets.Value("int32"),
            "frames": datasets.List(datasets.Value("string")),
        }
    )
    clips = make_rows(tmp_path_factory.mktemp("clips"), num_clips=18)
    return datasets.Dataset.from_list(clips, features=features)


def _run(
    rows: datasets.Dataset,
    output_dir: Path,
    selection: str = "validation",
    soft_labels: bool = False,
    validation_rows: datasets.Dataset | None = None,
    audit: bool = False,
    expected_shares: dict[str, float] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3} | arguments
    run = run_fold(
        make_model(),
        make_processor(),
        FoldRows(rows.select(range(12)), rows.select(range(12, 18)), validation_rows),
        make_arguments(output_dir, **arguments),
        FoldProtocol(selection, "war", 0.25, soft_labels, audit, expected_shares),
        about={"dataset": "noise"},
    )
    return run.results


def test_validation_is_the_last_block_of_ids_of_each_class() -> None:
    ids = ["10", "9", "1", "2", "100", "3", "4", "20"]
    kept, cut = split_validation(ids, [0, 0, 0, 0, 1, 1, 1, 1], fraction=0.5)
    assert [ids[i] for i in cut] == ["10", "9", "100", "20"]
    assert [ids[i] for i in kept] == ["1", "2", "3", "4"]


def test_every_class_keeps_training_clips_and_gets_validation_clips() -> None:
    labels = [0] * 20 + [1] * 2 + [2]
    kept, cut = split_validation([str(i) for i in range(23)], labels, fraction=0.1)
    assert sorted(labels[i] for i in cut) == [0, 0, 1], "a class of one clip stays in training"
    assert sorted(kept + cut) == list(range(23))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="validation_fraction"):
        split_validation(["1", "2"], [0, 0], fraction)


def test_results_tell_protocol_scores_and_epochs(rows: datasets.Dataset, tmp_path: Path) -> None:
    results = _run(rows, tmp_path / "run")
    written = json.loads((tmp_path / "run" / RESULTS_FILE).read_text())
    assert written == json.loads(json.dumps(results))
    assert {name: clips["per_class"] for name, clips in written["clips"].items()} == {
        "train": {"happy": 3, "sad": 3, "angry": 3},
        "validation": {"happy": 1, "sad": 1, "angry": 1},
        "test": {"happy": 2, "sad": 2, "angry": 2},
    }
    assert written["protocol"]["selection"] == "validation"
    assert written["test"]["num_clips"] == 6
    assert written["last"]["epoch"] == 3
    best = max(entry["eval_war"] for entry in written["history"] if "eval_war" in entry)
    assert written["selected"]["evaluation"]["war"] == best
    assert written["dataset"] == "noise"
    assert {"torch", "git_sha", "processor", "num_processes"} <= written["environment"].keys()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "video_preprocessor_config.json").is_file()


def test_test_fold_is_scored_once_by_the_selected_model(
    rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = []
    predict = STTTrainer.predict
    monkeypatch.setattr(STTTrainer, "predict", lambda self, *a, **k: scored.append(self) or predict(self, *a, **k))
    evaluated = []
    evaluate = STTTrainer.evaluate
    monkeypatch.setattr(
        STTTrainer,
        "evaluate",
        lambda self, *a, **k: evaluated.append(len(self.eval_dataset)) or evaluate(self, *a, **k),
    )
    _run(rows, tmp_path / "run")
    assert len(scored) == 1
    assert set(evaluated) == {3}, "every evaluation in training is of the three validation clips"


def test_selection_test_uses_the_test_fold_and_says_so(rows: datasets.Dataset, tmp_path: Path) -> None:
    results = _run(rows, tmp_path / "run", selection="test")
    assert sum(results["clips"]["train"]["per_class"].values()) == 12
    assert "optimistic" in results["protocol"]["selection_means"]
    assert results["test"]["war"] == results["selected"]["evaluation"]["war"]


def test_soft_labels_are_for_training_only(rows: datasets.Dataset, tmp_path: Path) -> None:
    # Votes that all speak for class 0: who trains on them calls everything so, and is scored by the labels.
    votes = rows.add_column("votes", [[1.0, 0.0, 0.0]] * len(rows))
    results = _run(votes, tmp_path / "run", soft_labels=True, learning_rate=0.5)
    assert results["recipe"]["soft_labels"] is True
    assert results["test"]["recalls"] == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="expected clip_id, label, votes"):
        _run(rows, tmp_path / "without", soft_labels=True)


def test_a_validation_set_of_its_own_is_taken(rows: datasets.Dataset, tmp_path: Path) -> None:
    own = rows.select(range(3)).map(lambda row: {"clip_id": f"own {row['clip_id']}"})
    results = _run(rows, tmp_path / "run", validation_rows=own)
    counts = {name: sum(part["per_class"].values()) for name, part in results["clips"].items()}
    assert counts == {"train": 12, "validation": 3, "test": 6}
    assert results["protocol"]["selection_means"] == "best epoch on the data set's own validation set"
    assert results["protocol"]["validation_fraction"] is None


def test_selection_last_trains_on_the_whole_fold(rows: datasets.Dataset, tmp_path: Path) -> None:
    results = _run(rows, tmp_path / "run", selection="last")
    assert "validation" not in results["clips"]
    assert results["selected"]["epoch"] == results["last"]["epoch"] == 3
    assert results["protocol"]["select_by"] is None


class _Interrupt(TrainerCallback):
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch >= 1:
            raise KeyboardInterrupt


def test_interrupted_run_resumes_to_the_same_results(
    rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = _run(rows, tmp_path / "unbroken")
    _interrupted(rows, tmp_path / "broken", monkeypatch)
    with pytest.raises(FileExistsError, match='resume_from_checkpoint="last"'):
        _run(rows, tmp_path / "broken")
    resumed = _run(rows, tmp_path / "broken", resume_from_checkpoint="last")
    for part in ("test", "selected", "last", "history", "clips", "recipe"):
        assert resumed[part] == unbroken[part], part


def _interrupted(rows: datasets.Dataset, output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = STTTrainer.__init__
    with monkeypatch.context() as patch:
        patch.setattr(STTTrainer, "__init__", lambda self, *a, **k: init(self, *a, callbacks=[_Interrupt()], **k))
        with pytest.raises(KeyboardInterrupt):
            _run(rows, output_dir)


def test_an_interrupted_run_resumes_only_with_its_own_settings(
    rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Resumed on another fold, a model would be tested on clips that it was trained on.
    _interrupted(rows, tmp_path, monkeypatch)
    other_fold = rows.select([*range(6, 18), *range(6)])
    with pytest.raises(ValueError, match="differs from this one in clips"):
        _run(other_fold, tmp_path, resume_from_checkpoint="last")
    with pytest.raises(ValueError, match="differs from this one in recipe"):
        _run(rows, tmp_path, resume_from_checkpoint="last", compact_weight=0.9)
    with pytest.raises(ValueError, match="clips_per_step"):
        _run(rows, tmp_path, resume_from_checkpoint="last", per_device_train_batch_size=2)
    with pytest.raises(FileNotFoundError, match=r"no run\.json lies beside"):
        _run(rows, tmp_path, resume_from_checkpoint="True")


def test_an_interrupted_run_may_resume_with_its_batches_split_otherwise(
    rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On another number of GPUs, say: as many clips make a step.
    _interrupted(rows, tmp_path, monkeypatch)
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    results = _run(rows, tmp_path, resume_from_checkpoint="last", **halves)
    assert results["recipe"]["clips_per_step"] == 4
    assert results["last"]["epoch"] == 3


def test_a_run_of_other_length_is_neither_resumed_nor_taken_as_finished(
    rows: datasets.Dataset, tmp_path: Path
) -> None:
    # 30 steps, then 60 with "last": nothing was trained, and the old score was reported as that of 60.
    first = _run(rows, tmp_path, max_steps=3)
    assert (first["recipe"]["max_steps"], first["recipe"]["num_train_epochs"]) == (3, None)
    with pytest.raises(ValueError, match=r"recipe.max_steps \(3 there, 6 here\)"):
        _run(rows, tmp_path, max_steps=6, resume_from_checkpoint="last")
    assert _run(rows, tmp_path, max_steps=3, resume_from_checkpoint="last")["history"] == first["history"]


@pytest.mark.parametrize("options", [{}, {"class_balanced_sampler": True}, {"class_weighting": "inverse"}])
def test_the_chosen_model_is_calibrated_on_validation_and_its_scores_are_of_raw_logits(
    options: dict[str, Any], rows: datasets.Dataset, tmp_path: Path
) -> None:
    own = datasets.concatenate_datasets(
        [rows.map(lambda row, n=n: {"clip_id": f"own {n} {row['clip_id']}"}) for n in range(2)]
    )
    results = _run(rows, tmp_path / "run", validation_rows=own, expected_shares={"happy": 0.6}, **options)
    fitted = results["calibration"]["fitted"]
    assert fitted["num_clips"] == 36 and fitted["temperature"] != 1
    assert fitted["logit_bias"] == pytest.approx(np.log([1.8, 0.6, 0.6]), abs=1e-4)
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "run")
    for name in ("temperature", "min_score", "logit_bias"):
        assert getattr(model.config, name) == fitted[name]
    # The logits of the saved model are calibrated and shifted; without that, they are what the scores are of.
    test, processor = rows.select(range(12, 18)), make_processor()
    with torch.no_grad():
        logits = model(**processor([row["frames"] for row in test], return_tensors="pt")).logits
    logits = logits - torch.tensor(fitted["logit_bias"])
    labels = np.array(test["label"])
    errors = [expected_calibration_error(softmax(z.numpy()), labels) for z in (logits * fitted["temperature"], logits)]
    assert list(results["calibration"]["expected_calibration_error"].values()) == pytest.approx(errors, abs=1e-5)
    assert results["calibration"]["accuracy_at_coverage"]["1"] == results["test"]["war"]


@pytest.mark.parametrize("selection", ["validation", "last", "test"])
def test_nothing_is_calibrated_on_test_or_training_clips_or_on_few(
    selection: str, rows: datasets.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = _run(rows, tmp_path / "run", selection=selection)
    assert results["calibration"]["fitted"] is None
    assert results["calibration"]["expected_calibration_error"]["after"] is None
    assert AutoConfig.from_pretrained(tmp_path / "run").temperature == 1
    assert ("Validation has 3 clips" in caplog.text) == (selection == "validation")


def test_expected_shares_need_no_calibration(rows: datasets.Dataset, tmp_path: Path) -> None:
    # Three validation clips fit no temperature; the shares were forgotten with it, without a word.
    results = _run(rows, tmp_path / "run", expected_shares={"happy": 0.6})
    assert results["calibration"]["fitted"] is None
    config = AutoConfig.from_pretrained(tmp_path / "run")
    assert (config.temperature, config.min_score) == (1, None)
    assert config.logit_bias[0] > 0 > config.logit_bias[1]


def test_an_audit_scores_other_orders_of_the_frames(rows: datasets.Dataset, tmp_path: Path) -> None:
    results = _run(rows, tmp_path / "run", audit=True)
    assert list(results["audit"]) == ["shuffled", "reversed", "repeated"]
    assert results["audit"]["reversed"]["num_clips"] == 6
    assert results["audit"]["repeated"]["loss"] != results["test"]["loss"]
    assert "audit" not in _run(rows, tmp_path / "without")


def test_the_precision_given_to_accelerate_is_recorded_in_the_recipe(
    rows: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    results = _run(rows, tmp_path / "run", num_train_epochs=1)
    assert (results["recipe"]["bf16"], results["recipe"]["fp16"]) == (True, False)


@pytest.mark.parametrize("strategies", [{"save_strategy": "no"}, {"eval_strategy": "steps", "eval_steps": 2}])
def test_best_epoch_needs_every_epoch_evaluated_and_saved(
    strategies: dict[str, Any], rows: datasets.Dataset, tmp_path: Path
) -> None:
    # The results would name an epoch whose model was not kept.
    with pytest.raises(ValueError, match="Set both to 'epoch'"):
        _run(rows, tmp_path / "run", **strategies)


def test_without_an_epoch_there_is_no_result(rows: datasets.Dataset, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="none can be selected"):
        _run(rows, tmp_path / "run", num_train_epochs=0)
    assert not (tmp_path / "run" / RESULTS_FILE).exists()


def test_same_seed_same_numbers(rows: datasets.Dataset, tmp_path: Path) -> None:
    first, second = (_run(rows, tmp_path / name) for name in ("first", "second"))
    assert first["history"] == second["history"]
    assert first["test"] == second["test"]


def test_finished_run_is_not_written_over(rows: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_text("{}")
    with pytest.raises(FileExistsError, match="finished run"):
        _run(rows, tmp_path)
    assert (tmp_path / RESULTS_FILE).read_text() == "{}"


def test_unknown_selection_is_refused(rows: datasets.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="selection='best'"):
        _run(rows, tmp_path / "run", selection="best")
