"""Tiny clips and arguments to train the tiny model with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.models import NAMES, make_model, make_processor
from modeling_stt.training import ClipAugment, ClipDataset, STTTrainer, STTTrainingArguments, TrainingImages


def make_rows(folder: Path, num_clips: int = 11, num_frames: int = 9, size: int = 40) -> list[dict[str, Any]]:
    """Clips of coloured noise as folders of JPEGs; the frames grow lighter with time, the classes differ in colour."""
    rows = []
    for clip in range(num_clips):
        rng = np.random.default_rng(clip)
        (folder / f"{clip:03}").mkdir(parents=True, exist_ok=True)
        frames = []
        for t in range(num_frames):
            pixels = rng.integers(0, 100, (size, size, 3))
            pixels[:, :, clip % 3] += 60
            pixels += 10 * t
            frames.append(str(folder / f"{clip:03}" / f"{t}.jpg"))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(frames[-1])
        rows.append({"clip_id": f"{clip:03}", "label": clip % 3, "num_frames": num_frames, "frames": frames})
    return rows


def make_arguments(output_dir: Path, **changes: Any) -> STTTrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "num_train_epochs": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    return STTTrainingArguments(**(settings | changes))


def make_images(rows: list[dict[str, Any]], share: float = 0.25) -> TrainingImages:
    """The last frame of every clip but the first, as an image."""
    return TrainingImages(
        [{**row, "label": NAMES[row["label"]], "frames": row["frames"][-1:]} for row in rows[1:]], share
    )


def make_trainer(
    rows: list[dict[str, Any]],
    output_dir: Path,
    model: dict[str, Any] | None = None,
    images: TrainingImages | None = None,
    **arguments: Any,
) -> STTTrainer:
    """A trainer on augmented clips that evaluates on the same clips without augmentation."""
    processor = make_processor()
    return STTTrainer(
        make_model(**(model or {})),
        make_arguments(output_dir, **arguments),
        ClipDataset(rows, processor, augment=ClipAugment(), labels=NAMES),
        ClipDataset(rows, processor, labels=NAMES),
        images=images,
    )


def outcome(trainer: STTTrainer) -> dict[str, Any]:
    """Outcome of a training: losses step by step, scores and predictions of the evaluation clips, weights."""
    predicted = trainer.predict(trainer.eval_dataset)
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "scores": {k: v for k, v in predicted.metrics.items() if not k.endswith(("runtime", "second", "time"))},
        "logits": torch.from_numpy(predicted.predictions[0]),
        "weights": {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()},
    }
