"""Identity of a run: what decides its outcome. Only the very same run is resumed or taken as finished."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.trainer import TRAINER_STATE_NAME

from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor
from .arguments import STTTrainingArguments
from .clips import ClipAugment
from .results import RESULTS_FILE, RUN_FILE, differences

# The arguments that decide the outcome of a run.
RECIPE_FIELDS = (
    "compact_weight",
    "compact_loss",
    "class_weighting",
    "class_balanced_sampler",
    "label_smoothing_factor",
    "batch_norm",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "learning_rate",
    "backbone_learning_rate",
    "freeze_backbone",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
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

# How the clips of a step are split. Only the product decides the outcome, unless batch norms use batch statistics.
CUTTING = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")


def describe_run(
    model: STTForVideoClassification, processor: STTVideoProcessor, folds: dict[str, Dataset]
) -> dict[str, Any]:
    """Describe what is trained, and on which clips."""
    classes = model.config.class_names
    return {
        "classes": classes,
        "clips": {name: _describe_clips(rows, classes) for name, rows in folds.items()},
        "model": model.config.to_diff_dict() | {"num_parameters": _num_parameters(model)},
        "num_trained_parameters": model.num_parameters(only_trainable=True),
        "processor": json.loads(processor.to_json_string()),
    }


def _num_parameters(model: STTForVideoClassification) -> int:
    """Count the parameters less those of adapters, which are merged in the end."""
    return sum(weight.numel() for name, weight in model.named_parameters() if ".lora_" not in name)


def _describe_clips(rows: Dataset, classes: Sequence[str]) -> dict[str, Any]:
    """Count the clips of each class, and hash their ids."""
    names = rows.features["label"].names
    counts = np.bincount(rows["label"], minlength=len(names))
    per_class = {name: int(counts[names.index(name)]) for name in classes if name in names}
    ids = hashlib.sha256("\n".join(rows["clip_id"]).encode()).hexdigest()
    return {"per_class": per_class, "sha256_of_ids": ids}


def describe_recipe(args: STTTrainingArguments, augment: ClipAugment) -> dict[str, Any]:
    """Describe the settings that decide a run's outcome, as plain values.

    A number of steps overrides that of epochs, so only one of them is given; the other is None.
    """
    recipe = {name: getattr(args, name) for name in RECIPE_FIELDS}
    recipe = {name: getattr(value, "value", value) for name, value in recipe.items()}  # enumerations to their text
    recipe["num_train_epochs" if args.max_steps > 0 else "max_steps"] = None
    recipe |= {"num_processes": args.world_size, "augment": asdict(augment)}
    return recipe | {"clips_per_step": math.prod(recipe[name] for name in CUTTING)}


def finished_before(args: STTTrainingArguments, run: dict[str, Any]) -> dict[str, Any] | None:
    """Read the results of this very run, if it was finished before and is to be resumed."""
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


def checkpoint_to_resume(args: STTTrainingArguments, run: dict[str, Any]) -> str | None:
    """Find the checkpoint to resume; refuse to overwrite an interrupted run, or to resume a different one."""
    output_dir, resume = Path(str(args.output_dir)), args.resume_from_checkpoint
    last = _last_checkpoint(output_dir)
    if resume is None and last is not None:
        raise FileExistsError(
            f"{output_dir} holds an interrupted run ({last.name}): resume it by resume_from_checkpoint="
            '"last", or choose another output_dir.'
        )
    # "last" without a checkpoint starts anew: a run may be interrupted before its first.
    checkpoint = last if resume == "last" else resume and Path(resume)
    if not checkpoint:
        return None
    started = checkpoint.parent / RUN_FILE
    if not started.is_file():
        raise FileNotFoundError(
            f'resume_from_checkpoint={resume!r}: no {RUN_FILE} lies beside that. Give "last", or the path of a '
            "checkpoint in the folder of a run."
        )
    before, now = json.loads(started.read_text(encoding="utf-8")), json.loads(json.dumps(run))
    for name in CUTTING:  # these may change if the number of clips per step stays the same
        before["recipe"].pop(name), now["recipe"].pop(name)
    if differing := differences(before, now):
        raise ValueError(
            f"The interrupted run in {started.parent} differs from this one in {'; '.join(differing)}. Resume it with "
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
    """Find the last whole checkpoint: one without a readable state, which is written last, is not whole."""
    numbered = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.glob("checkpoint-*")}
    found = {int(number[1]): path for path, number in numbered.items() if number and _trainer_state(path)}
    return found[max(found)] if found else None


def _trainer_state(checkpoint: Path) -> dict[str, Any] | None:
    try:
        return json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
