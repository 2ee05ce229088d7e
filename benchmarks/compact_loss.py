"""Compare readings of the compact loss: what they do to the features' distances, the scores and the calibration.

    python benchmarks/compact_loss.py --output benchmarks/results/compact_loss.json

Renders faces, and trains one small STT with plain cross entropy and with every reading of the compact loss, in two
conditions: equal classes, and DFEW's imbalance. Training, validation and test show different people. All runs start
from one backbone, pre-trained on single frames of the training people; the runs of one seed also share the first
weights of everything else, and the order and augmentation of the clips. λ is chosen for each reading on validation
clips, with the first seed and equal classes; at the chosen λ every seed is then trained in both conditions, and
compared with plain cross entropy on the test clips, seed by seed.

Every finished run is kept in the work folder, so that the same command resumes where it was interrupted. At the end it
prints the tables of docs/results.md.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from scipy.stats import ttest_rel
from tqdm import tqdm

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import add_truth, write_rendered_dfew
from dataset_scripts.rendered_faces.motion import HIDDEN, SHOWN
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.training import (
    COMPACT_LOSSES,
    ClipAugment,
    ClipDataset,
    ClipDraw,
    STTTrainer,
    STTTrainingArguments,
    expected_calibration_error,
    load_backbone_weights,
    score,
)
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.frames import WEIGHTS_FILE, FrameRecipe, load_frames, pretrain_backbone
from modeling_stt.training.results import write_results

FACES: dict[str, Any] = {
    "num_clips": 10_000,
    "clips_per_person": 4,
    "num_frames": 8,
    "image_size": 96,
    "frames_per_second": 4,
    "seed": 42,
}
MODEL: dict[str, Any] = {
    "image_size": 48,
    "num_frames": 8,
    "backbone_stem_width": 16,
    "backbone_widths": [16, 32, 64],
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
}
RECIPE: dict[str, Any] = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
    "optim": "adamw_torch",
    "optim_args": None,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,  # as a share of all steps
    "max_grad_norm": 1.0,
    "bf16": True,
}
AUGMENT = ClipAugment(scale=(0.8, 1.0))
FRAME_EPOCHS = 4
# Training clips a class, in the order of the classes. The imbalanced ones are a quarter of DFEW's.
CONDITIONS = {"equal": (430,) * 7, "imbalanced": (611, 473, 667, 543, 367, 36, 225)}
HELD_OUT = {"validation": (250,) * 7, "test": (250,) * 7}
VIEWS = 4  # augmentations of each training clip, of which every epoch takes one
WEIGHTS = (0.1, 1.0, 10.0)  # λ, two decades
PLAIN = "plain"
TOLERANCE = 0.01  # of UAR: a reading that is further below plain cross entropy loses
COLUMNS = {  # in a run's file → in the tables
    "intra_cosine": "intra, cosine",
    "inter_cosine": "inter, cosine",
    "ratio_cosine": "ratio",
    "intra_euclidean": "intra, Euclidean",
    "inter_euclidean": "inter, Euclidean",
    "ratio_euclidean": "ratio, Euclidean",
    "uar": "UAR, %",
    "war": "WAR, %",
    "rarest_recall": "rarest, %",
    "calibration_error": "calibration error, %",
    "train_cpu_seconds": "CPU seconds",
}

Row: TypeAlias = dict[str, Any]  # what one run is measured by
RunOne: TypeAlias = Callable[[str, str, float, int], Row]  # of condition, reading, λ and seed


class MapClips(ClipDataset):
    """Clips as feature maps of the frozen backbone, in place of their frames; each draw takes one view of its clip.

    Args:
        rows: Rows of a data set.
        processor: Of the clips.
        maps: `(N, views, T, C, h, w)` float16, of the rows in their order.
        labels: Class names in the model's order.
    """

    def __init__(self, rows: Dataset, processor: STTVideoProcessor, maps: np.ndarray, labels: Sequence[str]) -> None:
        super().__init__(rows, processor, labels=labels)
        self.maps = maps

    def __getitem__(self, draw: ClipDraw | int) -> dict[str, Any]:
        """A view of a clip."""
        draw = draw if isinstance(draw, ClipDraw) else ClipDraw(draw, (draw,))
        view = np.random.default_rng(draw.seed).integers(self.maps.shape[1])
        maps = torch.from_numpy(self.maps[draw.row, view]).float()
        return {"feature_maps": maps, "labels": int(self.label_ids[draw.row])}


@dataclass
class Study:
    """Data and first weights that all runs share.

    Args:
        config: Of the model.
        clips: Training clips of each condition, and those of `validation` and `test`.
        backbone: File of the pre-trained backbone.
        work_dir: Folder for the files of the runs.
        deadline: When to stop, as `time.monotonic` counts.
    """

    config: STTConfig
    clips: dict[str, MapClips]
    backbone: Path
    work_dir: Path
    deadline: float


def choose_clips(rows: Dataset, counts: Sequence[int]) -> list[int]:
    """Indices of as many clips of each class as `counts` says; fewer are some of those that more would be."""
    random, labels = np.random.default_rng(0), np.array(rows["label"])
    chosen: list[int] = []
    for label, count in enumerate(counts):
        own = random.permutation(np.flatnonzero(labels == label))
        if len(own) < count:
            raise SystemExit(f"{count} clips of class {label} are needed, and these people have {len(own)}.")
        chosen += own[:count].tolist()
    return chosen


def prepare(data_dir: Path, work_dir: Path, deadline: float) -> Study:
    """Render the people unless that has been done, pre-train the backbone, and compute all feature maps."""
    if not (data_dir / "Annotation" / "annotation.xlsx").is_file():
        write_rendered_dfew(data_dir, videos=False, **FACES)
    config = STTConfig(**MODEL)
    rows = read_rows(data_dir)
    backbone = work_dir / "backbone" / WEIGHTS_FILE
    if not backbone.is_file():
        known = add_truth(rows["train"], data_dir, ["expression", "level", "action_units"])
        frames = load_frames(known, config.class_names, config.image_size, HIDDEN, SHOWN)
        pretrain_backbone(config, frames, backbone.parent, AUGMENT, FrameRecipe(epochs=FRAME_EPOCHS, bf16=True))
    model = STTForVideoClassification(config).eval()
    load_backbone_weights(model, backbone)
    side = {"height": config.image_size, "width": config.image_size}
    processor = STTVideoProcessor(num_frames=config.num_frames, frames_per_segment=1, size=side)
    largest = [max(counts) for counts in zip(*CONDITIONS.values(), strict=True)]
    clips = {}
    for part, counts in {"train": largest, **HELD_OUT}.items():
        rows[part] = rows[part].select(choose_clips(rows[part], counts))
        augment, views = (AUGMENT, VIEWS) if part == "train" else (None, 1)
        seen = ClipDataset(rows[part], processor, augment=augment, labels=config.class_names)
        maps = read_maps(model, seen, views, work_dir / f"{part}.npy")
        for name, wanted in (CONDITIONS if part == "train" else {part: counts}).items():
            chosen = choose_clips(rows[part], wanted)
            clips[name] = MapClips(rows[part].select(chosen), processor, maps[chosen], config.class_names)
    return Study(config, clips, backbone, work_dir, deadline)


def read_rows(data_dir: Path) -> dict[str, Dataset]:
    """Clips of different people for training, validation and test: DFEW's folds 3 to 5, 2 and 1."""
    rows = {
        "validation": load_dataset("dfew", "fold_2", data_dir=data_dir, split="test"),
        "test": load_dataset("dfew", "fold_1", data_dir=data_dir, split="test"),
    }
    others = load_dataset("dfew", "fold_1", data_dir=data_dir, split="train")
    known = set(rows["validation"]["clip_id"])
    rows["train"] = others.select([i for i, clip in enumerate(others["clip_id"]) if clip not in known])
    return rows


def read_maps(model: STTForVideoClassification, clips: ClipDataset, views: int, file: Path) -> np.ndarray:
    """Feature maps of several views of each clip, computed once and kept in a file."""
    if not file.is_file():
        maps = []
        for i in tqdm(range(len(clips)), desc=f"feature maps, {file.stem}", unit="clip"):
            seen = [clips[ClipDraw(i, (i, view))]["pixel_values"] for view in range(views)]
            with torch.inference_mode():
                maps.append(model.stt.encode_frames(torch.stack(seen)).half().numpy())
        with file.with_suffix(".partial").open("wb") as partly:
            np.save(partly, np.stack(maps))
        file.with_suffix(".partial").replace(file)
    return np.load(file)


def run(study: Study, condition: str, name: str, weight: float, seed: int) -> Row:
    """Train and measure one model, unless its file is there."""
    file = study.work_dir / condition / f"{name}_{weight:g}_seed_{seed}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    if time.monotonic() > study.deadline:
        raise SystemExit("The time given is up: start the same command again to go on.")
    options = RECIPE | ({} if name == PLAIN else {"compact_loss": name})
    arguments = STTTrainingArguments(
        str(file.with_suffix("")),
        seed=seed,
        compact_weight=weight,
        **options,
        freeze_backbone=True,
        per_device_eval_batch_size=64,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    torch.manual_seed(seed)
    model = STTForVideoClassification(study.config)
    load_backbone_weights(model, study.backbone)
    trainer = STTTrainer(model, arguments, study.clips[condition])
    began = time.process_time()
    trainer.train()
    row: Row = {"train_cpu_seconds": time.process_time() - began}
    row["validation"] = measure(trainer, study.clips["validation"], condition)
    row |= measure(trainer, study.clips["test"], condition)
    write_results(file, row)
    print(f"{condition}, {name} {weight:g}, seed {seed}: " + describe(row), flush=True)
    return row


def describe(row: Row) -> str:
    """The measurements of a run in a line."""
    return ", ".join(f"{column} {row[column]:.3f}" for column in COLUMNS)


def measure(trainer: STTTrainer, clips: ClipDataset, condition: str) -> Row:
    """Scores, calibration and distances on held-out clips, equally many of each class.

    WAR weighs the classes' recalls by their shares of the training clips.
    """
    prediction = trainer.predict(clips)
    logits, features = (np.asarray(each, dtype=np.float64) for each in prediction.predictions[:2])
    labels, counts = np.asarray(prediction.label_ids), CONDITIONS[condition]
    scores = score(labels, logits.argmax(axis=1), clips.class_names or [])
    return {
        "uar": scores.uar,
        "war": float(np.average(np.array(scores.recalls, dtype=float), weights=counts)),
        "recalls": scores.recalls,
        "rarest_recall": scores.recalls[int(np.argmin(counts))],
        "calibration_error": expected_calibration_error(softmax(logits, axis=1), labels),
        **feature_distances(features, labels),
    }


def feature_distances(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute mean distances between clips of one class and of two, each class or pair of classes weighing the same.

    Cosine distances are 1 − cos. Euclidean ones are in units of the features' mean length, so that they compare
    between models. A ratio is intra over inter.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units, scaled = features / lengths, torch.from_numpy(features / lengths.mean())
    distances = {"cosine": 1 - units @ units.T, "euclidean": torch.cdist(scaled, scaled).numpy()}
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    row = {}
    for kind, between in distances.items():
        # Without each clip's distance from itself, which is zero.
        intra = [between[np.ix_(own, own)].sum() / (len(own) * (len(own) - 1)) for own in members]
        inter = [between[np.ix_(a, b)].mean() for i, a in enumerate(members) for b in members[:i]]
        row |= {f"intra_{kind}": float(np.mean(intra)), f"inter_{kind}": float(np.mean(inter))}
        row[f"ratio_{kind}"] = row[f"intra_{kind}"] / row[f"inter_{kind}"]
    return row


def choose_weight(sweep: dict[float, Row], plain: Row) -> float:
    """λ of the lowest ratio of distances on validation, among those whose UAR there is not lost.

    If UAR is lost with all of them, λ of the highest UAR.
    """
    validation = {weight: row["validation"] for weight, row in sweep.items()}
    kept = [w for w, row in validation.items() if row["uar"] >= plain["validation"]["uar"] - TOLERANCE]
    if not kept:
        return max(validation, key=lambda weight: validation[weight]["uar"])
    return min(kept, key=lambda weight: validation[weight]["ratio_cosine"])


def compare(rows: Sequence[Row], plain: Sequence[Row]) -> dict[str, Any]:
    """Difference of each column from plain cross entropy, seed by seed."""
    found = {}
    for column in COLUMNS:
        values, others = [row[column] for row in rows], [row[column] for row in plain]
        differences = [a - b for a, b in zip(values, others, strict=True)]
        several = len(values) > 1
        found[column] = {
            "mean": mean(values),
            "spread": stdev(values) if several else None,
            "mean_difference": mean(differences),
            "lower_in": sum(each < 0 for each in differences),
            "higher_in": sum(each > 0 for each in differences),
            "p_value": float(ttest_rel(values, others).pvalue) if several and stdev(differences) > 0 else None,
        }
    return found


def does_what_is_asked(found: dict[str, Any], num_seeds: int) -> bool:
    """Intra-class distance lower and inter-class distance higher in all seeds, and no UAR lost in the mean."""
    closer, farther = found["intra_cosine"]["lower_in"], found["inter_cosine"]["higher_in"]
    return closer == farther == num_seeds and found["uar"]["mean_difference"] >= -TOLERANCE


def choose_weights(run_one: RunOne, options: argparse.Namespace) -> tuple[dict[str, float], dict[str, Any]]:
    """Train each reading at each λ with the first seed; λ of each reading, and what was measured."""
    first = options.seeds[0]
    plain = run_one("equal", PLAIN, 0.0, first)
    sweeps = {
        name: {weight: run_one("equal", name, weight, first) for weight in options.weights}
        for name in options.readings
    }
    chosen = {name: choose_weight(sweep, plain) for name, sweep in sweeps.items()}
    return {PLAIN: 0.0} | chosen, {name: {f"{w:g}": row for w, row in sweep.items()} for name, sweep in sweeps.items()}


def compare_in(condition: str, chosen: dict[str, float], run_one: RunOne, seeds: Sequence[int]) -> dict[str, Any]:
    """Train every seed at the chosen λ, and compare each reading with plain cross entropy."""
    rows: dict[str, list[Row]] = {name: [] for name in chosen}
    for seed in seeds:
        for name, weight in chosen.items():
            rows[name].append(run_one(condition, name, weight, seed))
    found = {name: compare(each, rows[PLAIN]) for name, each in rows.items()}
    passed = [name for name in chosen if name != PLAIN and does_what_is_asked(found[name], len(seeds))]
    return {"compared": found, "does_what_is_asked": passed, "runs": rows}


def print_table(condition: str, chosen: dict[str, float], compared: dict[str, Any]) -> None:
    """Print a condition's table in Markdown.

    Cells are mean ± spread over the seeds, in brackets the number of seeds in which a reading is above plain cross
    entropy; a star stands where a paired t-test gives p < 0.05.
    """
    print(f"\n{condition}\n\n| | λ | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (2 + len(COLUMNS)) + "|")
    for name, found in compared.items():
        cells = []
        for column, title in COLUMNS.items():
            factor, digits = (100, 1) if "%" in title else (1, 1 if "seconds" in title else 3)
            values = [factor * found[column][key] for key in ("mean", "spread") if found[column][key] is not None]
            star = "*" if (found[column]["p_value"] or 1) < 0.05 else ""
            above = "" if name == PLAIN else f" ({found[column]['higher_in']}){star}"
            cells.append(" ± ".join(f"{value:.{digits}f}" for value in values) + above)
        print(f"| {name} | {chosen[name]:g} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="rendered faces (default: in the work folder, rendered there)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--readings", nargs="+", choices=COMPACT_LOSSES, default=list(COMPACT_LOSSES))
    parser.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), help="values of λ")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further run after this time")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/compact_loss"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.work_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    study = prepare(options.data_dir or options.work_dir / "faces", options.work_dir, deadline)
    run_one = partial(run, study)
    chosen, sweeps = choose_weights(run_one, options)
    settings = {"model": MODEL, "recipe": RECIPE, "frame_epochs": FRAME_EPOCHS, "views": VIEWS, "clips": CONDITIONS}
    settings |= {"held_out_clips": HELD_OUT, "seeds": options.seeds, "weights": options.weights}
    conditions: dict[str, Any] = {}
    for condition in CONDITIONS:
        conditions[condition] = compare_in(condition, chosen, run_one, options.seeds)
        print_table(condition, chosen, conditions[condition]["compared"])
        print(f"\nDoes what the abstract says: {', '.join(conditions[condition]['does_what_is_asked']) or 'none'}")
        if options.output:
            found = {"data": "rendered faces", "settings": settings, "chosen": chosen, "conditions": conditions}
            write_results(options.output, found | {"sweeps": sweeps, "environment": describe_environment()})


if __name__ == "__main__":
    main()
