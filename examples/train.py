"""Train STT on one fold of a data set, choose an epoch on validation, score it once on the test fold.

    accelerate launch examples/train.py --dataset dfew --data_dir DFEW --fold 1 --output_dir runs/dfew_fold_1

All options have defaults (`--help`), those of the recipe of the paper's authors as far as it is known, written out in
recipes/dfew.yaml. `--recipe FILE` reads others from such a file; what stands on the command line goes before it. Works
in one process or many; `--bf16` saves memory; `--resume_from_checkpoint last` goes on after an interruption. Writes
the model, its checkpoints, results.json and confusion.png.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, HfArgumentParser, set_seed

from dataset_scripts import load_dataset
from dataset_scripts.synthetic_faces import MARKER as SYNTHETIC_MARKER
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.training import (
    SELECTIONS,
    ClipAugment,
    FoldRun,
    STTTrainingArguments,
    load_backbone_weights,
    run_fold,
    set_classes,
)
from modeling_stt.training.results import plot_confusion_matrix

logger = logging.getLogger("train")


@dataclass
class RunArguments:
    """What to train on, from what, and how the epoch is chosen."""

    data_dir: str = field(metadata={"help": "Folder of the data set, as its owners lay it out."})
    dataset: str = field(default="dfew", metadata={"help": "Name of a builder in dataset_scripts."})
    fold: int | None = field(default=None, metadata={"help": "Fold that is held out, for sets that have folds."})
    model: str | None = field(
        default=None,
        metadata={"help": "Trained STT to start from: a folder or a name on the Hub. Default: a new one."},
    )
    model_config: str = field(
        default="{}", metadata={"help": """Where a new model's STTConfig differs: '{"hidden_size": 256}'."""}
    )
    backbone_weights: str | None = field(
        default=None,
        metadata={"help": "ResNet-18 weights for a new model: a file, or ResNet18_Weights.IMAGENET1K_V1."},
    )
    do_normalize: bool = field(
        default=False,
        metadata={"help": "Normalise frames by ImageNet's mean and spread, as torchvision's weights ask."},
    )
    smallest_crop: float = field(
        default=0.08, metadata={"help": "Smallest share of a frame that the random crop keeps in training."}
    )
    selection: str = field(
        default="validation",
        metadata={"help": "How the epoch is chosen: " + "; ".join(f"{k}: {v}" for k, v in SELECTIONS.items())},
    )
    select_by: str = field(default="war", metadata={"help": "Score that the chosen epoch is best in: war or uar."})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training fold cut for validation."}
    )


def parse_arguments(arguments: Sequence[str]) -> tuple[RunArguments, STTTrainingArguments]:
    """Read the command line, and the recipe that it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--recipe", type=Path, help="YAML file of options, by their names here.")
    named, rest = first.parse_known_args(arguments)
    options = yaml.safe_load(named.recipe.read_text(encoding="utf-8")) if named.recipe else {}
    from_recipe = [
        f"--{key}={json.dumps(value) if isinstance(value, dict) else value}" for key, value in options.items()
    ]
    kinds: Any = (RunArguments, STTTrainingArguments)
    parser = HfArgumentParser(kinds, parents=[first], description=__doc__)
    run, args, _ = parser.parse_args_into_dataclasses([*from_recipe, *rest])
    return run, args


def build_model(run: RunArguments, classes: list[str]) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """A new model, or a trained one answering in these classes, and its video processor."""
    if run.model is not None:
        model = AutoModelForVideoClassification.from_pretrained(run.model)
        set_classes(model, classes)
        return model, AutoVideoProcessor.from_pretrained(run.model)
    config = STTConfig(id2label=dict(enumerate(classes)), **json.loads(run.model_config))
    size = {"height": config.image_size, "width": config.image_size}
    processor = STTVideoProcessor(num_frames=config.num_frames, size=size, do_normalize=run.do_normalize)
    model = STTForVideoClassification(config)
    if run.backbone_weights is not None:
        logger.info("Backbone weights: %s", load_backbone_weights(model, run.backbone_weights))
    return model, processor


def train(arguments: Sequence[str]) -> FoldRun:
    """Run one fold as the command line says."""
    run, args = parse_arguments(arguments)
    set_seed(args.seed)
    fold = None if run.fold is None else f"fold_{run.fold}"
    with args.main_process_first(desc="preparing the data set"):
        rows: Any = load_dataset(run.dataset, fold, data_dir=run.data_dir)
    model, processor = build_model(run, rows["train"].features["label"].names)
    # AFEW's test labels were never published: its validation set is what papers test on.
    test_rows = rows["test"] if "test" in rows else rows["validation"]
    finished = run_fold(
        model,
        processor,
        rows["train"],
        test_rows,
        args,
        augment=ClipAugment(scale=(run.smallest_crop, 1.0)),
        selection=run.selection,
        select_by=run.select_by,
        validation_fraction=run.validation_fraction,
        about={
            "dataset": run.dataset,
            "synthetic": (Path(run.data_dir) / SYNTHETIC_MARKER).is_file(),
            "fold": run.fold,
            "data_dir": str(Path(run.data_dir).resolve()),
        },
    )
    if finished.trainer.is_world_process_zero():
        report(finished.results, Path(str(args.output_dir)))
    return finished


def report(results: dict[str, Any], output_dir: Path) -> None:
    """Print the scores and draw the confusion matrix."""
    scores = results["test"]
    name = f"{'synthetic faces as ' if results['synthetic'] else ''}{results['dataset']} fold {results['fold']}"
    title = f"{name}: WAR {100 * scores['war']:.2f}, UAR {100 * scores['uar']:.2f}"
    print(f"{title} ({results['protocol']['selection_means']})")
    try:
        plot_confusion_matrix(scores["confusion_matrix"], results["classes"], output_dir / "confusion.png", title)
    except ImportError as error:
        print(f"No picture of the confusion matrix was drawn. {error}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(sys.argv[1:])
