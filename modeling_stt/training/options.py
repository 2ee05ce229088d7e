"""Command line of a training: data, model, protocol and recipe; recipes in YAML."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .arguments import STTTrainingArguments
from .clips import ClipAugment, ClipPhotometry
from .protocol import SELECTIONS, FoldProtocol

PHOTOMETRY = tuple(change.name for change in fields(ClipPhotometry))


@dataclass
class RunArguments:
    """Options of a run: data, model and protocol."""

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
        default="{}",
        metadata={
            "help": """Fields of a new model's STTConfig that differ from the defaults: '{"hidden_size": 256}'."""
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "Frame encoder of a new model in place of ResNet-18, with its image processor: folder or name on "
            "the Hub of a vision model of transformers."
        },
    )
    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Train the frame encoder by low-rank adapters of this rank, such as 8; needs peft."},
    )
    backbone_weights: str | None = field(
        default=None,
        metadata={"help": "ResNet-18 weights for a new model: a file, or ResNet18_Weights.IMAGENET1K_V1."},
    )
    do_normalize: bool = field(
        default=False,
        metadata={"help": "Normalise frames by ImageNet's mean and spread, as torchvision's weights ask."},
    )
    frames_per_segment: int = field(
        default=2, metadata={"help": "Consecutive frames that a new model reads of each segment of a clip."}
    )
    face_crop: str | None = field(
        default=None,
        metadata={
            "help": "JSON file that describes how the clips were cut from their videos, for the model's processor. "
            "Default: face_crop.json in the data's folder, which `stt crop` writes, if it is there."
        },
    )
    image_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of class-named folders of images, or of train and test with these, to train on beside the "
            "clips; their own head is not kept."
        },
    )
    image_classes: str | None = field(
        default=None,
        metadata={
            "help": "The clips' names for folders of images that are called otherwise, all folders of them: "
            "1=surprise,2=fear,3=disgust,4=happy,5=sad,6=angry,7=neutral for RAF-DB."
        },
    )
    image_share: float = field(default=0.25, metadata={"help": "Share of every batch that images make up."})
    smallest_crop: float = field(
        default=0.08, metadata={"help": "Smallest share of a frame that the random crop keeps in training."}
    )
    photometry: str = field(
        default="{}",
        metadata={
            "help": "Random changes of picture quality in training, each with the probability that a clip undergoes "
            f"""it: '{{"gray": 0.2, "jpeg": 0.3}}'. One draw a clip. Known: {", ".join(PHOTOMETRY)}."""
        },
    )
    selection: str = field(
        default="validation",
        metadata={"help": "How the epoch is chosen: " + "; ".join(f"{k}: {v}" for k, v in SELECTIONS.items())},
    )
    select_by: str = field(default="war", metadata={"help": "Score by which the epoch is chosen: war or uar."})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training fold cut for validation."}
    )
    audit: bool = field(
        default=False,
        metadata={"help": "Score the test clips also with their frames shuffled, reversed, and one frame repeated."},
    )
    expected_shares: str = field(
        default="{}",
        metadata={
            "help": "Shares of classes in the videos that the model is for, where they differ from the training "
            """clips': '{"neutral": 0.6}'; other classes have equal parts of the rest. Shifts the saved model's """
            "answers, not the scores."
        },
    )


# Groups of --help, in its order; the rest of transformers' TrainingArguments comes last.
_DATA = (
    *("data_dir", "dataset", "fold", "configuration", "data_options", "verify_data", "soft_labels"),
    *("image_dir", "image_classes", "image_share", "face_crop", "smallest_crop", "photometry"),
)
_MODEL = ("model", "model_config", "backbone", "lora_rank", "backbone_weights", "do_normalize", "frames_per_segment")
_PROTOCOL = ("selection", "select_by", "validation_fraction", "audit", "expected_shares")
_GROUPS = {
    "data": _DATA,
    "model": _MODEL,
    "protocol": _PROTOCOL,
    "training (the defaults are the recipe)": tuple(STTTrainingArguments.__annotations__),
}
_OTHERS = "all other arguments of transformers' Trainer"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, and the description as it was written."""


class _GroupedParser(HfArgumentParser):
    """transformers' parser of dataclasses, whose help shows the options of STT first, in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._titled: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: str, **kwargs: Any) -> argparse.Action:
        """Add an option to the group that its name belongs to."""
        if not self._titled:
            if "-h" in names:
                return super().add_argument(*names, **kwargs)
            self._titled = {title: self.add_argument_group(title) for title in (*_GROUPS, _OTHERS)}
        option = names[0].lstrip("-").removeprefix("no_")
        title = next((title for title, options in _GROUPS.items() if option in options), _OTHERS)
        return self._titled[title].add_argument(*names, **kwargs)


def parse_arguments(
    arguments: Sequence[str], description: str | None = None
) -> tuple[RunArguments, STTTrainingArguments]:
    """Read a command line, and the recipe that it names; options on the command line win.

    Args:
        arguments: Words of the command line.
        description: Text above the options in `--help`.

    Raises:
        SystemExit: For `--help`, unknown options, values of another type and a recipe that cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--recipe", type=Path, help="YAML file of options, by their names here.")
    named, rest = first.parse_known_args(arguments)
    from_recipe = read_recipe(named.recipe) if named.recipe else []
    kinds: Any = (RunArguments, STTTrainingArguments)
    usage = "%(prog)s --data_dir DIR --output_dir DIR [--recipe FILE] [--option VALUE …]"
    parser = _GroupedParser(kinds, parents=[first], usage=usage, description=description, formatter_class=_Help)
    run, args, *_ = parser.parse_args_into_dataclasses([*from_recipe, *rest])
    return run, args


def fold_protocol(run: RunArguments) -> FoldProtocol:
    """Make the protocol that the options describe; unknown names end the program."""
    expected = read_object("expected_shares", run.expected_shares) or None
    try:
        return FoldProtocol(
            run.selection, run.select_by, run.validation_fraction, run.soft_labels, run.audit, expected
        )
    except ValueError as error:
        raise SystemExit(f"--selection, --select_by or --expected_shares: {error}") from error


def read_recipe(path: Path) -> list[str]:
    """Read the options of a recipe as words of a command line."""
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SystemExit(f"--recipe {path} is not YAML: {error}") from error
    except OSError as error:
        raise SystemExit(f"--recipe {path} cannot be read: {error}") from error
    if not isinstance(options, dict):
        raise SystemExit(f"--recipe {path} must hold lines of 'option: value'.")
    values = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in options.items()}
    return [f"--{key}={value}" for key, value in values.items() if value is not None]


def read_object(option: str, text: str) -> dict[str, Any]:
    """Read the JSON object that an option holds."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SystemExit(f"--{option} is not JSON ({error}): {text}") from error
    if not isinstance(value, dict):
        raise SystemExit(f"--{option} must be a JSON object, such as '{{\"name\": 1}}', not {text}.")
    return value


def read_augment(run: RunArguments) -> ClipAugment:
    """Read the augmentation of the training clips.

    Raises:
        SystemExit: For unknown changes of picture quality, and for values out of range.
    """
    values = read_object("photometry", run.photometry)
    if unknown := sorted(set(values) - set(PHOTOMETRY)):
        raise SystemExit(f"--photometry has no {', '.join(unknown)}, only {', '.join(PHOTOMETRY)}.")
    try:
        return ClipAugment(scale=(run.smallest_crop, 1.0), photometry=ClipPhotometry(**values))
    except (TypeError, ValueError) as error:
        raise SystemExit(f"--smallest_crop or --photometry: {error}") from error
