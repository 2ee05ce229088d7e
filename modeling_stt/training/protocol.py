"""One fold without test-set leakage: an epoch is chosen on validation clips, and only that one is tested."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.trainer_utils import IntervalStrategy, PredictionOutput

from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor
from .arguments import STTTrainingArguments
from .calibration import (
    LEAST_CLIPS,
    ClassShares,
    calibrate,
    class_shares,
    describe_calibration,
    reset_calibration,
)
from .clips import ClipAugment, ClipDataset
from .environment import describe_environment
from .identity import checkpoint_to_resume, describe_recipe, describe_run, finished_before
from .images import TrainingImages
from .lora import merge_lora, save_adapter
from .metrics import score
from .results import RESULTS_FILE, RUN_FILE, write_results
from .trainer import STTTrainer, freeze_backbone
from .weights import hash_weights, read_weights

logger = logging.getLogger(__name__)

# How the epoch is chosen whose model is evaluated on the test fold, in the words of every output.
SELECTIONS = {
    "validation": "best epoch on a validation set cut from the training fold",
    "last": "last epoch, on the whole training fold",
    "test": "best epoch on the test fold itself, as most papers do: optimistic, for comparison with them only",
}
_OWN_VALIDATION = "best epoch on the data set's own validation set"

# Orders of the sampled frames that an audit scores beside the true one.
AUDITED_ORDERS = ("shuffled", "reversed", "repeated")


@dataclass(frozen=True)
class FoldRows:
    """The rows of one fold, with the columns `clip_id`, `label`, and `frames` or `video`.

    Args:
        train: Training clips.
        test: Test clips.
        validation: The data set's own validation clips; None to cut them from the training clips.
    """

    train: Dataset
    test: Dataset
    validation: Dataset | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the labels."""
        return list(self.train.features["label"].names)


@dataclass(frozen=True)
class FoldProtocol:
    """The protocol of a fold.

    Args:
        selection: How the epoch is chosen, a key of `SELECTIONS`.
        select_by: Score by which the epoch is chosen, `"war"` or `"uar"`; of equally good epochs, the first.
        validation_fraction: Share of each class of the training fold cut for validation, see `split_validation`. Not
            used where the rows come with validation clips.
        soft_labels: Train on the distribution of the annotators' votes, in the column `votes` of the training rows.
            Validation and test are by label.
        audit: Score the test clips also with their sampled frames shuffled, reversed, and with the middle one
            repeated.
        expected_shares: Shares of classes in the videos that the model is for, see `calibration.class_shares`; they
            become `config.logit_bias` after the scores, which are without it. Needs validation clips.

    Raises:
        ValueError: For an unknown selection or score.
    """

    selection: str = "validation"
    select_by: str = "war"
    validation_fraction: float = 0.1
    soft_labels: bool = False
    audit: bool = False
    expected_shares: dict[str, float] | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown selection or score."""
        if self.selection not in SELECTIONS or self.select_by not in ("war", "uar"):
            raise ValueError(
                f"selection={self.selection!r}, select_by={self.select_by!r}: choose of {tuple(SELECTIONS)} and "
                "('war', 'uar')."
            )
        if self.expected_shares and self.selection != "validation":
            raise ValueError(f"expected_shares need selection='validation', not {self.selection!r}.")

    def cut(self, rows: FoldRows) -> dict[str, Dataset]:
        """Name the parts of the fold: `train`, `test` and, where it chooses the epoch, `validation`."""
        if self.selection != "validation":
            return {"train": rows.train, "test": rows.test}
        if rows.validation is not None:
            return {"train": rows.train, "validation": rows.validation, "test": rows.test}
        kept, cut = split_validation(rows.train["clip_id"], rows.train["label"], self.validation_fraction)
        return {"train": rows.train.select(kept), "validation": rows.train.select(cut), "test": rows.test}

    def describe(self, rows: FoldRows) -> dict[str, Any]:
        """Describe for results.json how the epoch is chosen."""
        by_validation = self.selection == "validation"
        own = by_validation and rows.validation is not None
        return {
            "selection": self.selection,
            "selection_means": _OWN_VALIDATION if own else SELECTIONS[self.selection],
            "select_by": None if self.selection == "last" else self.select_by,
            "validation_fraction": self.validation_fraction if by_validation and not own else None,
            "expected_shares": self.expected_shares,
        }

    def shares(self, trainer: STTTrainer) -> ClassShares | None:
        """Make the shares of the classes in use and in training; None where none are expected."""
        clips = trainer.train_dataset
        if not self.expected_shares or not isinstance(clips, ClipDataset):
            return None
        classes = trainer.accelerator.unwrap_model(trainer.model).config.class_names
        trained = np.bincount(clips.label_ids, minlength=len(classes)).astype(np.float64)
        if trainer.class_weight is not None:
            trained *= trainer.class_weight.numpy()
        if trainer.args.class_balanced_sampler:
            trained = np.minimum(trained, 1)  # every class that occurs is drawn equally often
        return class_shares(self.expected_shares, classes, trained)

    def apply_to(self, args: STTTrainingArguments) -> None:
        """Make the Trainer keep the best epoch by this score, or none but the last."""
        if self.selection == "last":
            args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
            return
        strategies = tuple(getattr(kind, "value", kind) for kind in (args.eval_strategy, args.save_strategy))
        if strategies != ("epoch", "epoch"):
            raise ValueError(
                f"eval_strategy={strategies[0]!r} and save_strategy={strategies[1]!r}: the best epoch can be chosen "
                "only if every epoch is evaluated and saved. Set both to 'epoch', or choose selection='last'."
            )
        args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better = True, self.select_by, True


def split_validation(clip_ids: Sequence[str], labels: Sequence[int], fraction: float) -> tuple[list[int], list[int]]:
    """Cut a validation set from a training fold: of each class, the last contiguous block of clips by id.

    Neighbouring ids are mostly cut from the same film (DFEW's own folds are blocks too), so a random cut would show
    the model its validation faces in training.

    Args:
        clip_ids: Ids of the fold's clips, ordered here by the numbers in them.
        labels: Their classes.
        fraction: Share of each class to cut, in (0, 1); at least one clip of each class that has two.

    Returns:
        Indices of the clips that stay and of those cut, each in the order given.

    Raises:
        ValueError: For a fraction out of range, or when no class has two clips.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction={fraction} must lie between 0 and 1.")
    by_class: dict[int, list[int]] = {}
    for i in sorted(range(len(clip_ids)), key=lambda i: _natural_order(clip_ids[i])):
        by_class.setdefault(labels[i], []).append(i)
    held_out: set[int] = set()
    for members in by_class.values():
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out.update(members[len(members) - count :])
    if not held_out:
        raise ValueError(f"{len(clip_ids)} clips, no two of one class: too few to cut a validation set from.")
    return [i for i in range(len(clip_ids)) if i not in held_out], sorted(held_out)


def _natural_order(clip_id: str) -> list[tuple[int, str]]:
    """A sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", clip_id)]


@dataclass(frozen=True)
class FoldRun:
    """A finished fold.

    Args:
        trainer: Holds the selected model; None where the run had been finished before.
        results: What was written to results.json.
    """

    trainer: STTTrainer | None
    results: dict[str, Any]


def run_fold(
    model: STTForVideoClassification,
    processor: STTVideoProcessor,
    rows: FoldRows,
    args: STTTrainingArguments,
    protocol: FoldProtocol = FoldProtocol(),  # frozen
    *,
    augment: ClipAugment | None = None,
    images: TrainingImages | None = None,
    verification: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> FoldRun:
    """Train on one fold, choose an epoch, calibrate and test it, and write the model and `results.json`.

    Args:
        model: The model to train.
        processor: Makes its clips.
        rows: The fold.
        args: Recipe and output folder. `resume_from_checkpoint="last"` resumes an interrupted run, and takes a
            finished one as it is.
        protocol: How the epoch is chosen, and what is scored.
        augment: Augmentation of training clips; None for the recipe's.
        images: Images to train on beside the clips, see [`STTTrainer`].
        verification: Result of a check of the data, for results.json; the main process's is written.
        about: Facts that go into results.json as they are, such as the data set's name and fold.

    Raises:
        FileExistsError: For an output folder with a finished run, or with an interrupted one that is not resumed.
        RuntimeError: When no epoch was trained.
        ValueError: For classes that are not the model's, epochs that are not all evaluated and saved, or a run that
            is resumed with other data, options or code than it was started with.
    """
    augment, folds = augment or ClipAugment(), protocol.cut(rows)
    protocol.apply_to(args)
    reset_calibration(model.config)
    freeze_backbone(model, args)
    run = {
        "format": 1,
        **(about or {}),
        **describe_run(model, processor, folds),
        "images": None if images is None else images.describe(model.config.class_names),
        "protocol": protocol.describe(rows),
        "recipe": describe_recipe(args, augment) | {"soft_labels": protocol.soft_labels},
        "environment": describe_environment(),
    }
    if (finished := finished_before(args, run)) is not None:
        return FoldRun(None, finished)
    checkpoint = checkpoint_to_resume(args, run)
    trainer = _make_trainer(model, processor, folds, args, protocol, augment, images)
    shares = protocol.shares(trainer)
    _announce(trainer, run, folds)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    _merge_adapter(trainer, model)
    results = run | {"verification": verification, **_selected_and_last_epoch(trainer, protocol.selection)}
    results |= _score_selected(trainer, folds, protocol, shares)
    # For a resumed run, only the time of its last part is known.
    seconds = None if checkpoint else round(trained.metrics["train_runtime"], 1)
    results |= {"train_seconds": seconds, "history": _history(trainer)}
    _save(trainer, results)
    return FoldRun(trainer, results)


def _make_trainer(
    model: STTForVideoClassification,
    processor: STTVideoProcessor,
    folds: dict[str, Dataset],
    args: STTTrainingArguments,
    protocol: FoldProtocol,
    augment: ClipAugment,
    images: TrainingImages | None,
) -> STTTrainer:
    classes, votes = model.config.class_names, protocol.soft_labels
    clips = ClipDataset(folds["train"], processor, augment=augment, seed=args.seed, labels=classes, votes=votes)
    judged = (
        None if protocol.selection == "last" else ClipDataset(folds[protocol.selection], processor, labels=classes)
    )
    return STTTrainer(model=model, args=args, train_dataset=clips, eval_dataset=judged, images=images)


def _announce(trainer: STTTrainer, run: dict[str, Any], folds: dict[str, Dataset]) -> None:
    """Log the number of trained parameters, warn of too few validation clips, and write what the run begins with.

    Only the main process does.
    """
    if not trainer.is_world_process_zero():
        return
    trained, parameters = run["num_trained_parameters"], run["model"]["num_parameters"]
    logger.info("Training %s of %s parameters.", f"{trained:,}", f"{parameters:,}")
    if "validation" in folds and len(folds["validation"]) < LEAST_CLIPS:
        logger.warning(
            "Validation has %d clips, too few to choose an epoch reliably or to calibrate on (at least %d). Give more "
            "clips, a larger --validation_fraction, or --selection last.",
            len(folds["validation"]),
            LEAST_CLIPS,
        )
    write_results(Path(str(trainer.args.output_dir)) / RUN_FILE, run)


def _merge_adapter(trainer: STTTrainer, model: STTForVideoClassification) -> None:
    """Write the adapter of LoRA, if there is one, and merge it: what is scored is then what is saved."""
    if trainer.is_world_process_zero():
        save_adapter(model, str(trainer.args.output_dir))
    merge_lora(model)


def _score_selected(
    trainer: STTTrainer, folds: dict[str, Dataset], protocol: FoldProtocol, shares: ClassShares | None
) -> dict[str, Any]:
    """Calibrate the selected model on validation, then score it on the test fold.

    The scores and the loss are those of the uncalibrated logits; the temperature, which changes no answer, and the
    bias, which does, are set at the end. Only held-out validation clips are used for calibration: test or training
    clips would make it optimistic.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    classes, processor = model.config.class_names, _processor_of(trainer)
    fitted = None
    if protocol.selection == "validation":
        judged = trainer.evaluation_loop(trainer.get_eval_dataloader(), description="Calibration")
        fitted = calibrate(judged.predictions[0], np.asarray(judged.label_ids), shares)
    prediction = trainer.predict(ClipDataset(folds["test"], processor, labels=classes), metric_key_prefix="test")
    scored: dict[str, Any] = {"test": test_scores(prediction, classes)}
    scored["calibration"] = describe_calibration(fitted, prediction.predictions[0], np.asarray(prediction.label_ids))
    if protocol.audit:
        scored["audit"] = audit_time(trainer, folds["test"])
    if fitted is not None:
        model.config.temperature, model.config.min_score = fitted.temperature, fitted.min_score
    if shares is not None:
        model.config.logit_bias = shares.logit_bias
    return scored


def _processor_of(trainer: STTTrainer) -> STTVideoProcessor:
    assert isinstance(trainer.processing_class, STTVideoProcessor)
    return trainer.processing_class


def audit_time(trainer: STTTrainer, rows: Dataset) -> dict[str, dict[str, Any]]:
    """Score a model with the sampled frames of every clip in other orders, to test its use of time.

    Args:
        trainer: Holds the model and its processor.
        rows: Test clips.

    Returns:
        Order of the frames, `"shuffled"`, `"reversed"` or `"repeated"` → scores as [`test_scores`] gives them.
    """
    model, processor = trainer.accelerator.unwrap_model(trainer.model), _processor_of(trainer)
    classes = model.config.class_names
    clips = {
        order: ClipDataset(rows, processor, labels=classes, seed=trainer.args.seed, frame_order=order)
        for order in AUDITED_ORDERS
    }
    return {
        order: test_scores(trainer.predict(each, metric_key_prefix="test"), classes) for order, each in clips.items()
    }


def _save(trainer: STTTrainer, results: dict[str, Any]) -> None:
    """Write the model, then its results with the hash of its weights."""
    folder = Path(str(trainer.args.output_dir))
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        saved = read_weights(folder)
        results["sha256_of_weights"] = hash_weights(saved) if saved else None
        write_results(folder / RESULTS_FILE, results)


def test_scores(prediction: PredictionOutput, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of `Trainer.predict` on a test fold, as results.json holds them: `Scores`, loss and both distances."""
    logits = prediction.predictions[0]
    scores = score(prediction.label_ids, logits.argmax(axis=-1), classes).to_dict()
    metrics = prediction.metrics or {}
    return scores | {name: metrics.get(f"test_{name}") for name in ("loss", "intra_distance", "inter_distance")}


def _history(trainer: STTTrainer) -> list[dict[str, Any]]:
    """The log without timings and without its final summary, which covers only the last part of a resumed run."""
    return [_without_speed(entry) for entry in trainer.state.log_history if "train_runtime" not in entry]


def _selected_and_last_epoch(trainer: STTTrainer, selection: str) -> dict[str, Any]:
    """Epoch and scores of the model that was selected and of the last one, from the evaluations after each epoch."""
    state = trainer.state
    if selection == "last":
        last = {"epoch": state.epoch, "step": state.global_step, "evaluation": None}
        return {"selected": last, "last": last}
    evaluations = [entry for entry in state.log_history if "eval_war" in entry]
    if not evaluations or state.best_model_checkpoint is None:
        raise RuntimeError(
            f"{state.epoch or 0:g} epochs were trained and none was evaluated and saved, so none can be selected. "
            "Train for one epoch at least."
        )

    def described(entry: dict[str, Any]) -> dict[str, Any]:
        entry = _without_speed(entry)
        scores = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
        return {"epoch": entry["epoch"], "step": entry["step"], "evaluation": scores}

    selected = next(entry for entry in evaluations if entry["step"] == state.best_global_step)
    return {"selected": described(selected), "last": described(evaluations[-1])}


def _without_speed(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry without its timings, which differ from run to run."""
    return {key: value for key, value in entry.items() if not key.endswith(("_runtime", "_per_second"))}
