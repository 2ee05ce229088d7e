"""Frame encoders on rendered faces: ResNet-18's blocks and a small ViT, from scratch and pre-trained without labels.

    python benchmarks/frame_encoders.py --work_dir runs/frame_encoders
    python benchmarks/frame_encoders.py --work_dir runs/frame_encoders --data_dir RENDERED --runs vit,all,1

The same STT blocks are trained on the encoders below, with all labels of the training fold or a tenth of them. Every
training takes the same number of optimiser steps of the same batch size, recipe and augmentation, so those on a tenth
pass over their clips ten times as often. Pre-training reconstructs 90 % masked tubes of all training clips, without
their labels, and comes on top. Test clips show other people; nothing is chosen on them, the last step's model counts.
A seed decides first weights, the order of clips and which tenth is labelled; all encoders share it.

Every finished run is kept in the output file, so that the same command resumes. `--runs` names some of them, as
encoder,labels,seed.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoConfig, TrainingArguments, ViTConfig, ViTImageProcessor, set_seed

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import write_rendered_dfew
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.training import (
    ClipAugment,
    ClipDataset,
    ClipDraw,
    STTTrainer,
    STTTrainingArguments,
    load_backbone_weights,
)
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.masked import MaskedEncoder, MaskedTrainer, TubeClips, save_encoder
from modeling_stt.training.protocol import test_scores
from modeling_stt.training.results import write_results

SIZE, NUM_FRAMES, PATCH = 48, 4, 12
ENCODERS = ("resnet", "vit", "pretrained_vit")
LABELS = {"all": 1.0, "tenth": 0.1}
# Pre-training sees the clips whose labels are hidden; with all labels there are none.
COMBINATIONS = [
    (encoder, labels) for labels in LABELS for encoder in ENCODERS if (encoder, labels) != (ENCODERS[2], "all")
]
# Plain faces that fill the frame: in this budget no encoder learns the others from scratch. On 2,500 clips cut with
# the usual margin, the ResNet had learned little after 600 steps, and a tenth was 200 clips, too few for any encoder.
RENDERING: dict[str, Any] = {
    **{"num_clips": 8000, "clips_per_person": 4, "num_frames": NUM_FRAMES, "frames_per_second": 2.0, "margin": 0.0},
    **{"image_size": SIZE, "balance": "equal", "plain": True, "seed": 42, "videos": False},
}
AUGMENT = ClipAugment(scale=(0.8, 1.0))
PROCESSOR = STTVideoProcessor(
    size={"height": SIZE, "width": SIZE}, num_frames=NUM_FRAMES, frames_per_segment=1, do_normalize=True
)
# Linear layers start at 1 / √width, as STT's own: with ViT's usual 0.02, a ViT this narrow was at 18 % instead of 26 %
# after 1,000 steps, on people of the training fold that were left out of training.
VIT = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 256}
VIT_INITIALIZER_RANGE = 64**-0.5
RECIPE: dict[str, Any] = {
    **{"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.05, "max_grad_norm": 1.0},
    **{"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "per_device_train_batch_size": 16},
    **{"use_cpu": not torch.cuda.is_available(), "save_strategy": "no", "logging_strategy": "steps"},
    **{"logging_steps": 50, "disable_tqdm": True, "report_to": "none"},
}


def read_frames(rows: Dataset) -> list[torch.Tensor]:
    """Read the frames of all clips, `(T, 3, S, S)` uint8 each, into memory."""
    return [PROCESSOR.read_clip(list(row["frames"])) for row in tqdm(rows, desc="reading clips", unit="clip")]


class KeptClips(ClipDataset):
    """Training clips whose frames are kept in memory; otherwise decoding would take as long as the small models."""

    def __init__(self, rows: Dataset, frames: list[torch.Tensor], seed: int) -> None:
        super().__init__(rows, PROCESSOR, augment=AUGMENT, seed=seed)
        self.frames = frames

    def __getitem__(self, draw: ClipDraw | int) -> dict[str, Any]:
        """One clip, augmented as a draw of the sampler says."""
        assert isinstance(draw, ClipDraw)
        seed = int(np.random.default_rng(draw.seed).integers(2**63))
        frames = AUGMENT(self.frames[draw.row], (SIZE, SIZE), seed).float() / 255
        mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (PROCESSOR.image_mean, PROCESSOR.image_std))
        label = int(self.label_ids[draw.row]) if draw.counted else -100
        return {"pixel_values": (frames - mean) / spread, "labels": label}


def make_vit() -> ViTConfig:
    """Configuration of the small ViT, of 4 × 4 patches a frame."""
    return ViTConfig(**VIT, initializer_range=VIT_INITIALIZER_RANGE, image_size=SIZE, patch_size=PATCH)


def make_model(encoder: str, class_names: Sequence[str], encoder_folder: Path) -> STTForVideoClassification:
    """Make STT's blocks on one of the encoders."""
    front: dict[str, Any] = {"backbone_stem_width": 16, "backbone_widths": (16, 32, 64)}
    if encoder != "resnet":
        front = {"backbone_config": make_vit()}
    if encoder == "pretrained_vit":
        front["backbone_config"] = AutoConfig.from_pretrained(encoder_folder)
    config = STTConfig(
        image_size=SIZE,
        num_frames=NUM_FRAMES,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=dict(enumerate(class_names)),
        **front,
    )
    model = STTForVideoClassification(config)
    if encoder == "pretrained_vit":
        load_backbone_weights(model, encoder_folder)
    return model


def pretrain(rows: Dataset, frames: list[torch.Tensor], folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Pre-train the ViT on clips without their labels, and save it; return its losses."""
    set_seed(seed)
    clips = KeptClips(rows, frames, seed)
    model = MaskedEncoder(make_vit())
    arguments = TrainingArguments(str(folder), max_steps=steps, seed=seed, remove_unused_columns=False, **RECIPE)
    trainer = MaskedTrainer(model, arguments, TubeClips(clips, model.grid**2))
    began = time.process_time()
    trainer.train()
    size = {"height": SIZE, "width": SIZE}
    images = ViTImageProcessor(size=size, image_mean=PROCESSOR.image_mean, image_std=PROCESSOR.image_std)
    save_encoder(model, images, folder)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"cpu_seconds": time.process_time() - began, "losses": losses}


def train(
    rows: dict[str, Dataset],
    frames: list[torch.Tensor],
    encoder: str,
    labels: str,
    seed: int,
    steps: int,
    folder: Path,
) -> dict[str, Any]:
    """Train one model and score it on the test clips."""
    set_seed(seed)
    class_names = rows["train"].features["label"].names
    model = make_model(encoder, class_names, folder)
    labelled = choose_labelled(rows["train"]["label"], LABELS[labels], seed)
    clips = KeptClips(rows["train"].select(labelled), [frames[i] for i in labelled], seed)
    arguments = STTTrainingArguments(
        str(folder), max_steps=steps, seed=seed, eval_strategy="no", optim_args="", **RECIPE
    )
    trainer = STTTrainer(model, arguments, clips)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    scores = test_scores(trainer.predict(rows["test"], metric_key_prefix="test"), class_names)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"clips": len(labelled), "cpu_seconds": seconds, "losses": losses, "test": scores}


def choose_labelled(labels: Sequence[int], share: float, seed: int) -> list[int]:
    """Choose the same share of each class at random."""
    random, classes = np.random.default_rng(seed), np.asarray(labels)
    chosen = [random.permutation(np.flatnonzero(classes == label)) for label in np.unique(classes)]
    return sorted(int(i) for members in chosen for i in members[: round(share * len(members))])


def summarise(runs: dict[str, Any]) -> dict[str, Any]:
    """Compute mean and standard deviation of the scores over the seeds, and of the gain by pre-training, in pairs."""
    table: dict[str, Any] = {}
    for encoder, labels in COMBINATIONS:
        found = [run for key, run in runs.items() if key.split(",")[:2] == [encoder, labels]]
        if found:
            table[f"{encoder},{labels}"] = {
                **{score: _spread([run["test"][score] for run in found]) for score in ("uar", "war")},
                "cpu_seconds": _spread([run["cpu_seconds"] for run in found]),
                "seeds": len(found),
            }
    return table


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


def print_table(table: dict[str, Any]) -> None:
    """Print the summary."""
    for name, row in table.items():
        scores = "  ".join(
            f"{score.upper()} {100 * row[score]['mean']:.1f} ± {100 * (row[score]['deviation'] or 0):.1f}"
            for score in ("uar", "war")
        )
        print(f"{name:24}{scores}  {row['cpu_seconds']['mean']:.0f} CPU seconds, {row['seeds']} seeds", flush=True)


def read_rows(options: argparse.Namespace) -> dict[str, Dataset]:
    """Read the rows of fold 1, of faces rendered first where no folder is given."""
    folder = options.data_dir or options.work_dir / "faces"
    if not (folder / "EmoLabel_DataSplit").is_dir():
        write_rendered_dfew(folder, **RENDERING)
    return {split: load_dataset("dfew", "fold_1", data_dir=folder, split=split) for split in ("train", "test")}


def main() -> None:
    """Run what is not in the output file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="pre-trained encoders, and faces rendered here")
    parser.add_argument("--data_dir", type=Path, help="rendered faces; by default 8,000 plain clips are rendered")
    parser.add_argument("--output", type=Path, help="JSON; by default frame_encoders.json in --work_dir")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--pretraining_steps", type=int, default=1000)
    parser.add_argument("--runs", nargs="+", help="some runs only, such as resnet,tenth,1")
    options = parser.parse_args()
    output = options.output or options.work_dir / "frame_encoders.json"
    found = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {"pretraining": {}, "runs": {}}
    settings = {"steps": options.steps, "pretraining_steps": options.pretraining_steps}
    if found.setdefault("settings", settings) != settings:
        raise SystemExit(f"{output} holds runs of {found['settings']}, not {settings}: name another --output.")
    rows = read_rows(options)
    frames = read_frames(rows["train"])
    for key in options.runs or [f"{e},{labels},{seed}" for seed in options.seeds for e, labels in COMBINATIONS]:
        encoder, labels, seed = key.split(",")
        folder = options.work_dir / f"encoder_{seed}"
        if encoder == "pretrained_vit" and seed not in found["pretraining"]:
            found["pretraining"][seed] = pretrain(rows["train"], frames, folder, options.pretraining_steps, int(seed))
            write_results(output, found)
        if key not in found["runs"]:
            found["runs"][key] = train(rows, frames, encoder, labels, int(seed), options.steps, folder)
            found |= {"table": summarise(found["runs"]), "environment": describe_environment()}
            write_results(output, found)
    print_table(found["table"])


if __name__ == "__main__":
    main()
