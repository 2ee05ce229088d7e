"""The model that a training starts from: a new one, or a trained one that answers in the classes of the data."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig

from ..configuration_stt import STTConfig
from ..loading import load_model
from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor
from .arguments import STTTrainingArguments
from .backbone_weights import load_backbone_weights
from .lora import add_lora
from .options import RunArguments, read_object
from .weights import hash_weights

logger = logging.getLogger(__name__)


def build_model(run: RunArguments, classes: Sequence[str]) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """Make a new model, or load a trained one and let it answer in these classes; with its video processor.

    Raises:
        SystemExit: For options that contradict each other.
        ModelError: For a trained model that cannot be loaded whole.
    """
    if run.model is not None:
        return _trained_model(run, classes)
    if run.frames_per_segment < 1:
        raise SystemExit(f"--frames_per_segment {run.frames_per_segment} must be at least 1.")
    settings = {"id2label": dict(enumerate(classes)), **_model_config(run.model_config)}
    if run.backbone is not None:
        return _model_on_encoder(run, settings)
    if run.lora_rank is not None:
        raise SystemExit("--lora_rank needs a frame encoder with linear layers: name one by --backbone.")
    config = _make_config(run, settings)
    options: dict[str, Any] = {
        "num_frames": config.num_frames,
        "frames_per_segment": run.frames_per_segment,
        "size": {"height": config.image_size, "width": config.image_size},
        "do_normalize": run.do_normalize,
    }
    processor = STTVideoProcessor(**options)
    model = STTForVideoClassification(config)
    if run.backbone_weights is not None:
        if "_Weights." in run.backbone_weights and not run.do_normalize:
            raise SystemExit(f"{run.backbone_weights} was trained on normalised frames: add --do_normalize True.")
        logger.info("Backbone weights: %s", load_backbone_weights(model, run.backbone_weights))
    return model, processor


def _model_on_encoder(
    run: RunArguments, settings: dict[str, Any]
) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """Make a new model on a pretrained frame encoder, with a processor of the encoder's size, mean and spread."""
    if run.backbone_weights is not None or run.do_normalize:
        raise SystemExit("--backbone has its own weights: leave out --backbone_weights and --do_normalize.")
    assert run.backbone is not None
    sampling: dict[str, Any] = {"frames_per_segment": run.frames_per_segment}
    if "image_size" in settings:
        sampling["size"] = {"height": settings["image_size"], "width": settings["image_size"]}
    try:
        processor = STTVideoProcessor.from_encoder(run.backbone, **sampling)
        encoder = AutoConfig.from_pretrained(run.backbone)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"--backbone {run.backbone}: expected a folder, or a name on the Hub, of a vision model of transformers "
            f"with its image processor ({error})"
        ) from error
    config = _make_config(run, {"image_size": processor.size["height"], "backbone_config": encoder} | settings)
    processor.num_frames = config.num_frames
    model = STTForVideoClassification(config)
    logger.info("Frame encoder: %s", load_backbone_weights(model, run.backbone))
    if run.lora_rank is not None:
        add_lora(model, run.lora_rank)
    return model, processor


def _trained_model(run: RunArguments, classes: Sequence[str]) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    if run.backbone_weights or run.backbone or run.do_normalize or run.model_config != "{}":
        raise SystemExit(
            "--model has its own settings: leave out --model_config, --backbone, --backbone_weights, --do_normalize."
        )
    assert run.model is not None
    model, processor = load_model(run.model, new_head=True)
    if not isinstance(model, STTForVideoClassification):
        raise SystemExit(f"--model {run.model} is a {type(model).__name__}; only an STT can be trained on.")
    if run.lora_rank is not None:
        add_lora(model, run.lora_rank)
    before = model.config.class_names
    if not set_classes(model, classes):
        logger.warning(
            "%s has the classes %s, the data has %s: its head is replaced by a new one with random weights.",
            run.model,
            ", ".join(before),
            ", ".join(classes),
        )
    return model, processor


def _model_config(text: str) -> dict[str, Any]:
    """Read the fields of a new model's configuration that are not at their defaults."""
    values = read_object("model_config", text)
    if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(STTConfig)}):
        raise SystemExit(f"--model_config must hold fields of STTConfig; it has no {', '.join(unknown)}.")
    return values


def _make_config(run: RunArguments, settings: dict[str, Any]) -> STTConfig:
    try:
        return STTConfig(**settings)
    except StrictDataclassError as error:
        encoder = "" if run.backbone is None else f" with --backbone {run.backbone}"
        raise SystemExit(f"--model_config {run.model_config}{encoder}: {error}") from error


def warn_of_learning_rate(run: RunArguments, args: STTTrainingArguments) -> None:
    """Warn when a trained model is trained on with the learning rate that the recipe has for training from scratch."""
    if run.model is not None and args.learning_rate == STTTrainingArguments.learning_rate:
        logger.warning(
            "Fine-tuning %s with learning_rate=%g, the recipe's for training from scratch, may destroy what it knows: "
            "a tenth of it, --learning_rate=0.001, is the usual start.",
            run.model,
            args.learning_rate,
        )


def note_face_crop(processor: STTVideoProcessor, crop: Mapping[str, Any] | None) -> None:
    """Note in the processor how the faces that the model is trained on were cut out.

    Args:
        processor: Saved with the model.
        crop: The cut of the training clips, as `FaceCrop.to_dict()`; None where it is not known. A trained model then
            keeps its own, and a warning says so.
    """
    if crop is not None:
        processor.face_crop = dict(crop)
    elif processor.face_crop is not None:
        logger.warning("The clips are taken to be cropped as %s: if not, give --face_crop.", processor.face_crop)


def describe_start(run: RunArguments, model: STTForVideoClassification) -> dict[str, Any]:
    """Describe what the training starts from, for results.json; the hash distinguishes weights of the same name."""
    return {
        "model": run.model,
        "backbone_weights": run.backbone_weights or run.backbone,
        "sha256_of_weights": hash_weights(model) if run.model or run.backbone or run.backbone_weights else None,
    }


def set_classes(model: STTForVideoClassification, classes: Sequence[str]) -> bool:
    """Make a trained model answer in these classes, in this order.

    The same names in another order reorder the head, so that every class keeps what it learned. Any other names get a
    new head, to be trained.

    Args:
        model: Changed in place, its configuration's labels too.
        classes: Names of the classes, by label index.

    Returns:
        True where the head was kept, False where it is new.

    Raises:
        ValueError: For a name given twice, or none.
    """
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"Classes must be named once each, got {list(classes)}.")
    old_head, old_classes = model.classifier, model.config.class_names
    head = nn.Linear(old_head.in_features, len(classes)).to(old_head.weight.device, old_head.weight.dtype)
    is_kept = sorted(old_classes) == sorted(classes)
    if is_kept:
        order = [old_classes.index(name) for name in classes]
        with torch.no_grad():
            head.weight.copy_(old_head.weight[order])
            head.bias.copy_(old_head.bias[order])
    else:
        model._init_weights(head)
    model.classifier, model.num_labels = head, len(classes)
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: i for i, name in enumerate(classes)}
    return is_kept
