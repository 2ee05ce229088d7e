"""Train STT on one fold of a data set, choose an epoch on validation, score it once on the test fold.

    accelerate launch examples/train.py --dataset dfew --data_dir DFEW --fold 1 --output_dir runs/dfew_fold_1

All options have defaults (`--help`), those of the recipe of the paper's authors as far as it is known, written out in
recipes/dfew.yaml. `--recipe FILE` reads others from such a file; what stands on the command line goes before it. Works
in one process or many; `--bf16` saves memory; `--resume_from_checkpoint last` goes on after an interruption. Writes
the model, its checkpoints, results.json and confusion.png.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, HfArgumentParser, set_seed

from dataset_scripts import BUILDERS, configurations, load_dataset
from dataset_scripts.synthetic_faces import MARKER as SYNTHETIC_MARKER
from dataset_scripts.verify import config_class, own_options, verify
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.processes import end_with_launcher
from modeling_stt.timeline import FaceCrop
from modeling_stt.timeline.crops import CONVENTION
from modeling_stt.training import (
    SELECTIONS,
    ClipAugment,
    FoldRun,
    STTTrainingArguments,
    hash_weights,
    load_backbone_weights,
    run_fold,
    set_classes,
)
from modeling_stt.training.plots import plot_confusion_matrix

logger = logging.getLogger("train")


@dataclass
class RunArguments:
    """What to train on, from what, and how the epoch is chosen."""

    data_dir: str = field(metadata={"help": "Folder of the data set, as its owners lay it out."})
    dataset: str = field(default="dfew", metadata={"help": "Name of a builder in dataset_scripts."})
    fold: int | None = field(default=None, metadata={"help": "Fold that is held out, for sets that have folds."})
    configuration: str | None = field(
        default=None,
        metadata={
            "help": "Configuration of the data set where it is neither a fold nor the default; with --fold, what "
            "stands before the fold's name: compound, for MAFW's compound_fold_1."
        },
    )
    data_options: str = field(
        default="{}", metadata={"help": """Options of the data set's builder: '{"frames": "16f"}'."""}
    )
    verify_data: bool = field(
        default=True, metadata={"help": "Look at every clip first, as `stt verify` does, and note what is wrong."}
    )
    soft_labels: bool = field(
        default=False,
        metadata={"help": "Train on the distribution of the annotators' votes; scores are against the labels."},
    )
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
    face_crop: str | None = field(
        default=None,
        metadata={
            "help": "JSON file that tells how the clips were cut from their videos, for the model's configuration. "
            "Default: face_crop.json in the data's folder, which `stt crop` writes, if it is there."
        },
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
    from_recipe = read_recipe(named.recipe) if named.recipe else []
    kinds: Any = (RunArguments, STTTrainingArguments)
    parser = HfArgumentParser(kinds, parents=[first], description=__doc__)
    run, args, _ = parser.parse_args_into_dataclasses([*from_recipe, *rest])
    return run, args


def read_recipe(path: Path) -> list[str]:
    """The options of a recipe as words of a command line."""
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SystemExit(f"--recipe {path} is not YAML: {error}") from error
    if not isinstance(options, dict):
        raise SystemExit(f"--recipe {path} must hold lines of 'option: value'.")
    values = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in options.items()}
    return [f"--{key}={value}" for key, value in values.items() if value is not None]


def read_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option holds."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SystemExit(f"--{option} is not JSON ({error}): {text}") from error
    if not isinstance(value, dict):
        raise SystemExit(f"--{option} must be a JSON object, such as '{{\"name\": 1}}', not {text}.")
    return value


def read_model_config(text: str) -> dict[str, Any]:
    """The fields of a new model's configuration that are not at their defaults."""
    values = read_object("model_config", text)
    if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(STTConfig)}):
        raise SystemExit(f"--model_config must hold fields of STTConfig; it has no {', '.join(unknown)}.")
    return values


def build_model(run: RunArguments, classes: list[str]) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """A new model, or a trained one answering in these classes, and its video processor."""
    if run.model is not None:
        if run.backbone_weights is not None or run.do_normalize or run.model_config != "{}":
            raise SystemExit(
                "--model brings its own: leave out --model_config, --backbone_weights and --do_normalize."
            )
        model = AutoModelForVideoClassification.from_pretrained(run.model)
        set_classes(model, classes)
        return model, AutoVideoProcessor.from_pretrained(run.model)
    config = STTConfig(id2label=dict(enumerate(classes)), **read_model_config(run.model_config))
    size = {"height": config.image_size, "width": config.image_size}
    processor = STTVideoProcessor(num_frames=config.num_frames, size=size, do_normalize=run.do_normalize)
    model = STTForVideoClassification(config)
    if run.backbone_weights is not None:
        if "_Weights." in run.backbone_weights and not run.do_normalize:
            raise SystemExit(f"{run.backbone_weights} was trained on normalised frames: add --do_normalize True.")
        logger.info("Backbone weights: %s", load_backbone_weights(model, run.backbone_weights))
    return model, processor


def note_face_crop(run: RunArguments, processor: STTVideoProcessor) -> None:
    """Note in the processor how the faces that the model is trained on were cut out, where that is known."""
    file = Path(run.data_dir).expanduser() / CONVENTION if run.face_crop is None else Path(run.face_crop)
    if run.face_crop is not None or file.is_file():
        processor.face_crop = FaceCrop.from_dict(read_object("face_crop", file.read_text())).to_dict()
    elif processor.face_crop is not None:
        logger.warning("The clips are taken to be cut as the model's were, %s: give --face_crop.", processor.face_crop)


def builder_options(run: RunArguments) -> dict[str, Any]:
    """What the data set's builder is asked for, besides its configuration and folder."""
    options, known = read_object("data_options", run.data_options), own_options(config_class(run.dataset))
    if unknown := sorted(set(options) - set(known)):
        raise SystemExit(f"--data_options: {run.dataset} has no {', '.join(unknown)}, only {', '.join(known)}.")
    if run.soft_labels and "votes" not in known:
        raise SystemExit(f"--soft_labels True needs the annotators' votes, which {run.dataset} does not come with.")
    return options | {"votes": True} if run.soft_labels else options


def check_dataset(name: str) -> None:
    """Refuse a data set that there is no builder of."""
    if name not in BUILDERS:
        raise SystemExit(f"--dataset {name} is unknown: choose one of {', '.join(sorted(BUILDERS))}.")


def configuration(run: RunArguments) -> str:
    """The configuration of the data set that is trained on, such as fold_1."""
    check_dataset(run.dataset)
    fold = None if run.fold is None else f"fold_{run.fold}"
    name = "_".join(filter(None, [run.configuration, fold])) or "default"
    known = configurations(run.dataset)
    if name not in known:
        raise SystemExit(
            f"{run.dataset} comes as {', '.join(known)}, not as {name}: choose one by --fold 1 or --configuration."
        )
    return name


def load_rows(run: RunArguments) -> dict[str, Any]:
    """The training and the test fold, and the validation set of a data set that has both."""
    try:
        rows: Any = load_dataset(run.dataset, configuration(run), data_dir=run.data_dir, **builder_options(run))
    except (OSError, ValueError) as error:  # of the copy on disk: the builders say what is wrong with it
        raise SystemExit(str(error)) from error
    counted = [clip for part in rows.values() for clip in zip(part["clip_id"], part["num_frames"], strict=True)]
    if empty := [clip_id for clip_id, num_frames in counted if not num_frames]:
        raise SystemExit(
            f"{len(empty)} clips of {run.dataset} have no frame ({', '.join(empty[:5])}{' …' * (len(empty) > 5)}): go "
            """without them by --data_options '{"missing": "skip"}', beside what else stands there."""
        )
    if "test" not in rows:  # AFEW's test labels were never published: its validation set is what papers test on
        return {"train_rows": rows["train"], "test_rows": rows["validation"]}
    return {"train_rows": rows["train"], "test_rows": rows["test"], "validation_rows": rows.get("validation")}


def verify_data(run: RunArguments) -> dict[str, Any]:
    """Whether scores of this copy of the data can be compared with papers, and why not, for results.json."""
    report = verify(run.dataset, run.data_dir, configurations=[configuration(run)], **builder_options(run))
    found = {
        outcome: [f"{check.name}: {check.text}" for check in report.checks if check.outcome == outcome]
        for outcome in ("failed", "warning")
    }
    for text in found["failed"]:
        logger.warning("Data not as published: %s", text)
    return {"comparable": report.comparable, **found}


def is_synthetic(row: dict[str, Any]) -> bool:
    """Whether a clip lies in a tree of synthetic faces."""
    clip = Path(row["frames"][0] if "frames" in row else row["video"]["path"])
    return any((folder / SYNTHETIC_MARKER).is_file() for folder in clip.parents)


def train(arguments: Sequence[str]) -> FoldRun:
    """Run one fold as the command line says."""
    run, args = parse_arguments(arguments)
    set_seed(args.seed)
    with args.main_process_first(desc="preparing the data set"):
        rows = load_rows(run)
        verification = verify_data(run) if run.verify_data and args.process_index == 0 else None
    model, processor = build_model(run, rows["train_rows"].features["label"].names)
    note_face_crop(run, processor)
    finished = run_fold(
        model,
        processor,
        args=args,
        **rows,
        augment=ClipAugment(scale=(run.smallest_crop, 1.0)),
        selection=run.selection,
        select_by=run.select_by,
        validation_fraction=run.validation_fraction,
        soft_labels=run.soft_labels,
        verification=verification,
        about={
            "dataset": run.dataset,
            "data_options": builder_options(run),
            "face_crop": processor.face_crop,
            "synthetic": is_synthetic(rows["train_rows"][0]),
            "fold": run.fold,
            "subset": None if run.fold is None else run.configuration,
            "configuration": configuration(run),
            "data_dir": str(Path(run.data_dir).expanduser().resolve()),
            "start": {
                "model": run.model,
                "backbone_weights": run.backbone_weights,
                "sha256_of_weights": hash_weights(model) if run.model or run.backbone_weights else None,
            },
        },
    )
    if args.process_index == 0:
        report(finished.results, Path(str(args.output_dir)))
    return finished


def report(results: dict[str, Any], output_dir: Path) -> None:
    """Print the scores and draw the confusion matrix."""
    scores = results["test"]
    part = "" if results["configuration"] == "default" else f" {results['configuration'].replace('_', ' ')}"
    name = f"{'synthetic faces as ' if results['synthetic'] else ''}{results['dataset']}{part}"
    title = f"{name}: WAR {100 * scores['war']:.2f}, UAR {100 * scores['uar']:.2f}"
    title = f"{title} ({results['protocol']['selection_means']})"
    print(title)
    draw(scores["confusion_matrix"], results["classes"], output_dir, title)


def draw(matrix: Sequence[Sequence[int]], classes: Sequence[str], output_dir: Path, title: str) -> None:
    """Draw a confusion matrix as confusion.png, where matplotlib is installed."""
    try:
        plot_confusion_matrix(matrix, classes, output_dir / "confusion.png", title)
    except ImportError as error:
        print(f"No picture of the confusion matrix was drawn. {error}")


def run_program(program: Callable[[Sequence[str]], object]) -> None:
    """Run a function of the command line's words as a program, in one process or in one of many."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    end_with_launcher()
    program(sys.argv[1:])
    if torch.distributed.is_initialized():
        # Without a farewell, gloo's threads now and then abort a process that has done its work.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_program(train)
