"""One fold, honestly: validation is cut from the training fold, the test fold is read once, by the model so chosen."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, PredictionOutput

from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor
from .arguments import STTTrainingArguments
from .clips import ClipAugment, ClipDataset
from .environment import describe_environment
from .metrics import score
from .results import differences, write_results
from .trainer import STTTrainer
from .weights import hash_weights, read_weights

RESULTS_FILE = "results.json"
RUN_FILE = "run.json"  # what a run was started with; an interrupted one goes on only with the same

# The arguments that decide what a run comes to.
RECIPE_FIELDS = (
    "compact_weight",
    "class_weighting",
    "class_balanced_sampler",
    "label_smoothing_factor",
    "batch_norm",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "optim_args",
    "learning_rate",
    "lr_scheduler_type",
    "lr_decay_epochs",
    "lr_decay_factor",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
)

# How the clips of a step are cut up: their product decides, and how they are cut for moving batch norms only.
CUTTING = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")

# How the epoch is chosen whose model is scored on the test fold, as every output says it.
SELECTIONS = {
    "validation": "best epoch on a validation set cut from the training fold",
    "last": "last epoch, on the whole training fold",
    "test": "best epoch on the test fold itself, as most papers do: optimistic, for comparison with them only",
}


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
    train_rows: Dataset,
    test_rows: Dataset,
    args: STTTrainingArguments,
    *,
    validation_rows: Dataset | None = None,
    augment: ClipAugment | None = None,
    selection: str = "validation",
    select_by: str = "war",
    validation_fraction: float = 0.1,
    soft_labels: bool = False,
    verification: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> FoldRun:
    """Train on one fold, select an epoch, score it on the test fold, and write the model and `results.json`.

    Args:
        model: The model to train.
        processor: Makes its clips.
        train_rows: The training fold, with the columns `clip_id`, `label`, and `frames` or `video`.
        test_rows: The test fold, likewise.
        args: Recipe and output folder. `resume_from_checkpoint="last"` goes on where an interrupted run stopped, and
            takes a finished one as it is.
        validation_rows: The data set's own validation set, taken instead of one cut from the training fold.
        augment: Augmentation of training clips; None for the recipe's.
        selection: How the epoch is chosen, a key of `SELECTIONS`.
        select_by: The score that the best epoch has the highest of, `"war"` or `"uar"`; the first of equals.
        validation_fraction: Share of each class of the training fold cut for validation, see `split_validation`;
            without meaning where there are `validation_rows`.
        soft_labels: Train on the distribution of the annotators' votes, which `train_rows` then has in its column
            `votes`. Validation and test are by label.
        verification: What a check of the data found, for results.json; the main process's is written.
        about: Facts that go into results.json as they are, such as the data set's name and fold.

    Returns:
        The trainer with the selected model, and the results.

    Raises:
        FileExistsError: For an output folder with a finished run, or with an interrupted one that is not resumed.
        RuntimeError: When no epoch was trained.
        ValueError: For an unknown selection or score, classes that are not the model's, epochs that are not all
            evaluated and saved, or a run that is resumed with other data, options or code than it was started with.
    """
    if selection not in SELECTIONS or select_by not in ("war", "uar"):
        raise ValueError(
            f"selection={selection!r}, select_by={select_by!r}: choose of {tuple(SELECTIONS)} and ('war', 'uar')."
        )
    augment, classes = augment or ClipAugment(), model.config.class_names
    fraction = validation_fraction if validation_rows is None else None
    folds = _cut_folds(train_rows, validation_rows, test_rows, selection, validation_fraction)
    _select_by(args, selection, select_by)
    run = {
        "format": 1,
        **(about or {}),
        **_describe_run(model, processor, folds),
        "protocol": _describe_protocol(selection, select_by, fraction),
        "recipe": _recipe(args, augment) | {"soft_labels": soft_labels},
        "environment": describe_environment(),
    }
    if (finished := _finished_before(args, run)) is not None:
        return FoldRun(None, finished)
    checkpoint = _checkpoint_to_resume(args, run)
    trainer = STTTrainer(
        model=model,
        args=args,
        train_dataset=ClipDataset(
            folds["train"], processor, augment=augment, seed=args.seed, labels=classes, votes=soft_labels
        ),
        eval_dataset=None if selection == "last" else ClipDataset(folds[selection], processor, labels=classes),
    )
    if trainer.is_world_process_zero():
        write_results(Path(str(args.output_dir)) / RUN_FILE, run)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    results = run | {
        "verification": verification,
        **_selected_and_last_epoch(trainer, selection),  # before the test fold is touched
        "test": _score_test(trainer, ClipDataset(test_rows, processor, labels=classes), classes),
        # Of a resumed run only the last part's time is known.
        "train_seconds": None if checkpoint else round(trained.metrics["train_runtime"], 1),
        "history": _history(trainer),
    }
    trainer.save_model(args.output_dir)
    if trainer.is_world_process_zero():
        saved = read_weights(str(args.output_dir))
        results["sha256_of_weights"] = hash_weights(saved) if saved else None  # which weights the scores are of
        write_results(Path(str(args.output_dir)) / RESULTS_FILE, results)
    return FoldRun(trainer, results)


def _score_test(trainer: STTTrainer, clips: ClipDataset, classes: Sequence[str]) -> dict[str, Any]:
    return test_scores(trainer.predict(clips, metric_key_prefix="test"), classes)


def _describe_protocol(selection: str, select_by: str, validation_fraction: float | None) -> dict[str, Any]:
    """How the epoch is chosen; without a fraction, on the data set's own validation set."""
    by_validation = selection == "validation"
    own = by_validation and validation_fraction is None
    return {
        "selection": selection,
        "selection_means": "best epoch on the data set's own validation set" if own else SELECTIONS[selection],
        "select_by": None if selection == "last" else select_by,
        "validation_fraction": validation_fraction if by_validation else None,
    }


def _describe_run(
    model: STTForVideoClassification, processor: STTVideoProcessor, folds: dict[str, Dataset]
) -> dict[str, Any]:
    """What is trained, on what."""
    classes = model.config.class_names
    return {
        "classes": classes,
        "clips": {name: _describe_clips(rows, classes) for name, rows in folds.items()},
        "model": model.config.to_diff_dict() | {"num_parameters": model.num_parameters()},
        "processor": json.loads(processor.to_json_string()),
    }


def _select_by(args: STTTrainingArguments, selection: str, select_by: str) -> None:
    """Make the Trainer keep the best epoch by this score, or none but the last."""
    if selection == "last":
        args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
        return
    strategies = tuple(getattr(kind, "value", kind) for kind in (args.eval_strategy, args.save_strategy))
    if strategies != ("epoch", "epoch"):
        raise ValueError(
            f"eval_strategy={strategies[0]!r} and save_strategy={strategies[1]!r}: the best epoch can be chosen only "
            "if every epoch is evaluated and saved. Set both to 'epoch', or choose selection='last'."
        )
    args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better = True, select_by, True


def test_scores(prediction: PredictionOutput, classes: Sequence[str]) -> dict[str, Any]:
    """The scores of `Trainer.predict` on a test fold as results.json holds them: `Scores`, loss and both distances."""
    logits = prediction.predictions[0]
    scores = score(prediction.label_ids, logits.argmax(axis=-1), classes).to_dict()
    metrics = prediction.metrics or {}
    return scores | {name: metrics.get(f"test_{name}") for name in ("loss", "intra_distance", "inter_distance")}


def _cut_folds(
    train_rows: Dataset, validation_rows: Dataset | None, test_rows: Dataset, selection: str, fraction: float
) -> dict[str, Dataset]:
    if selection != "validation":
        return {"train": train_rows, "test": test_rows}
    if validation_rows is not None:
        return {"train": train_rows, "validation": validation_rows, "test": test_rows}
    kept, cut = split_validation(train_rows["clip_id"], train_rows["label"], fraction)
    return {"train": train_rows.select(kept), "validation": train_rows.select(cut), "test": test_rows}


def _finished_before(args: STTTrainingArguments, run: dict[str, Any]) -> dict[str, Any] | None:
    """The results of this very run, if it was finished before and "last" asks to go on with it."""
    path = Path(str(args.output_dir)) / RESULTS_FILE
    if not path.is_file():
        return None
    if args.resume_from_checkpoint != "last":
        raise FileExistsError(f"{path.parent} holds a finished run ({path.name}): choose another output_dir.")
    results = json.loads(path.read_text(encoding="utf-8"))
    if differing := differences({key: results.get(key) for key in run}, run):
        raise ValueError(
            f"The finished run in {path.parent} is another one: it differs in {'; '.join(differing)}. Choose another "
            "output_dir, or move that one away."
        )
    return results


def _checkpoint_to_resume(args: STTTrainingArguments, run: dict[str, Any]) -> str | None:
    """The checkpoint to go on from; refuses to write over an interrupted run, or to go on with a different one."""
    output_dir, resume = Path(str(args.output_dir)), args.resume_from_checkpoint
    last = _last_checkpoint(output_dir)
    if resume is None and last is not None:
        raise FileExistsError(
            f"{output_dir} holds an interrupted run ({last.name}): go on with it by resume_from_checkpoint="
            '"last", or choose another output_dir.'
        )
    # "last" without a checkpoint starts anew: a run may be interrupted before its first.
    checkpoint = last if resume == "last" else resume and Path(resume)
    if not checkpoint:
        return None
    told = checkpoint.parent / RUN_FILE
    if not told.is_file():
        raise FileNotFoundError(
            f'resume_from_checkpoint={resume!r}: no {RUN_FILE} lies beside that. Give "last", or the path of a '
            "checkpoint in the folder of a run."
        )
    before, now = json.loads(told.read_text(encoding="utf-8")), json.loads(json.dumps(run))
    for name in CUTTING:  # which may change, so long as as many clips make a step
        before["recipe"].pop(name), now["recipe"].pop(name)
    if differing := differences(before, now):
        raise ValueError(
            f"The interrupted run in {told.parent} differs from this one in {'; '.join(differing)}. Resume it with "
            "the options, data and code that it was started with."
        )
    best = (_trainer_state(checkpoint) or {}).get("best_model_checkpoint")
    if best is not None and not Path(best).is_dir():
        # transformers would only warn, and the last epoch's model would be scored as the selected one.
        raise FileNotFoundError(
            f"The best epoch's model, {best}, is gone from there. Resume the run in the folder that it was started in."
        )
    return str(checkpoint)


def _last_checkpoint(output_dir: Path) -> Path | None:
    """The last whole checkpoint: one that a killed run was still writing has no readable state, which comes last."""
    numbered = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.glob("checkpoint-*")}
    found = {int(number[1]): path for path, number in numbered.items() if number and _trainer_state(path)}
    return found[max(found)] if found else None


def _trainer_state(checkpoint: Path) -> dict[str, Any] | None:
    try:
        return json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _describe_clips(rows: Dataset, classes: Sequence[str]) -> dict[str, Any]:
    """Number of clips of each class, and a fingerprint of which clips they are."""
    names = rows.features["label"].names
    counts = np.bincount(rows["label"], minlength=len(names))
    told = {name: int(counts[names.index(name)]) for name in classes if name in names}
    ids = hashlib.sha256("\n".join(rows["clip_id"]).encode()).hexdigest()
    return {"per_class": told, "sha256_of_ids": ids}


def _history(trainer: STTTrainer) -> list[dict[str, Any]]:
    """The log, less timings, and less the summary at its end, which after an interruption tells of a part only."""
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

    def told(entry: dict[str, Any]) -> dict[str, Any]:
        entry = _without_speed(entry)
        scores = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
        return {"epoch": entry["epoch"], "step": entry["step"], "evaluation": scores}

    selected = next(entry for entry in evaluations if entry["step"] == state.best_global_step)
    return {"selected": told(selected), "last": told(evaluations[-1])}


def _without_speed(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry less its timings, which differ from run to run."""
    return {key: value for key, value in entry.items() if not key.endswith(("_runtime", "_per_second"))}


def _recipe(args: STTTrainingArguments, augment: ClipAugment) -> dict[str, Any]:
    """The settings that decide a run's outcome, as plain values."""
    recipe = {name: getattr(args, name) for name in RECIPE_FIELDS}
    recipe = {name: getattr(value, "value", value) for name, value in recipe.items()}  # enumerations to their text
    recipe |= {"num_processes": args.world_size, "augment": asdict(augment)}
    return recipe | {"clips_per_step": math.prod(recipe[name] for name in CUTTING)}
