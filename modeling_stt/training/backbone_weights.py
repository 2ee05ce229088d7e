"""Pretrained weights for the frame encoder: ResNet-18, or a vision model of transformers."""

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_weight
from transformers import AutoModel

from ..modeling_stt import STTBackbone, STTFrameEncoder

# Where files of face recognition networks keep their state dict, and what they prefix its keys with.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_EXAMPLE = "such as ResNet18_Weights.IMAGENET1K_V1"
_PREFIXES = ("module.", "backbone.", "encoder.", "model.")


@dataclass(frozen=True)
class BackboneReport:
    """Keys of a weight file that were loaded into the backbone, and those that were not.

    Args:
        source: The file or weight name.
        used: Keys that were loaded, as the backbone calls them.
        left: Keys of the file that the backbone has no place for, such as `layer4` and `fc`.
    """

    source: str
    used: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        groups = sorted({key.split(".")[0] for key in self.left})
        return f"{self.source}: {len(self.used)} keys used, {len(self.left)} left ({', '.join(groups) or 'none'})"


def load_backbone_weights(model: nn.Module, source: str | os.PathLike) -> BackboneReport:
    """Load pretrained weights into the model's frame encoder.

    A model with `backbone_config` takes the folder of such a model of transformers, as `save_pretrained` writes it, or
    its name on the Hub. One with ResNet-18 takes a state dict, as follows.

    Key names are torchvision's, which face recognition networks trained on MS-Celeb-1M keep, with or without a
    wrapping `state_dict` and a `module.` prefix. Networks of other depths or widths are refused, never loaded in part.

    Args:
        model: An STT model, with or without a head.
        source: A `.pt`, `.pth`, `.tar` or `.safetensors` file, or a name of torchvision's weight enums such as
            `ResNet18_Weights.IMAGENET1K_V1` (downloaded by torchvision; expects normalised frames, so set the video
            processor's `do_normalize=True` with it). With `backbone_config`: a folder or name on the Hub, for which
            `STTVideoProcessor.from_encoder` makes the processor.

    Returns:
        Which keys were used and which left.

    Raises:
        FileNotFoundError: For a source that is neither a file nor such a name.
        ValueError: For a file that holds no state dict, or one that is not the backbone's; the keys are named.
    """
    backbone = next((module for module in model.modules() if isinstance(module, STTBackbone | STTFrameEncoder)), None)
    if backbone is None:
        raise ValueError(f"{type(model).__name__} has no frame encoder to load weights into.")
    if isinstance(backbone, STTFrameEncoder):
        return _load_encoder(backbone, os.fspath(source))
    found = _plain_keys(_read_state_dict(source))
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    unlike = [
        f"{key} {tuple(found[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    parts = {key.split(".")[0] for key in wanted}
    beyond = [key for key in found if key not in wanted and key.split(".")[0] in parts]
    if missing or unlike or beyond:
        raise ValueError(
            f"{source} does not fit the backbone, nothing was loaded. Missing: {_first(missing)}. Other shapes: "
            f"{_first(unlike)}. Without a place: {_first(beyond)}. The file has: {_first(list(found))}. Expected a "
            "ResNet-18 with torchvision's key names, in the widths and depths of the model's configuration."
        )
    used = tuple(key for key in wanted if key in found)
    backbone.load_state_dict({key: found[key] for key in used}, strict=False)
    return BackboneReport(str(source), used, tuple(key for key in found if key not in wanted))


def _load_encoder(backbone: STTFrameEncoder, source: str) -> BackboneReport:
    """Load a folder or name on the Hub of a vision model of transformers, whole or not at all."""
    pretrained, loading = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    tower = "vision_model" if hasattr(pretrained, "vision_model") else ""  # of CLIP and SigLIP
    # What the files lack, transformers fills with random weights.
    random = {key.removeprefix(f"{tower}.") for key in loading["missing_keys"]}
    random -= set(backbone.config.encoder_output(*[backbone.config.image_size] * 2).unused)
    found = pretrained.get_submodule(tower).state_dict()
    wanted = backbone.encoder.state_dict()
    missing = [key for key in wanted if key not in found or key in random]
    unlike = [
        f"{key} {tuple(found[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    if missing or unlike:
        raise ValueError(
            f"{source} holds a {type(pretrained).__name__} that does not fit the model's backbone_config, nothing was "
            f"loaded. Missing: {_first(missing)}. Other shapes: {_first(unlike)}. Make the model with "
            f"backbone_config=AutoConfig.from_pretrained({source!r})."
        )
    backbone.encoder.load_state_dict({key: found[key] for key in wanted})
    return BackboneReport(source, tuple(wanted), tuple(key for key in found if key not in wanted))


def _read_state_dict(source: str | os.PathLike) -> Mapping[str, Any]:
    path = Path(source)
    if path.is_file():
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
            raise ValueError(
                f"{path} is not a file of weights alone ({type(error).__name__}): it is damaged, or holds other "
                "Python objects too. If you trust it, load it yourself, save its state dict with torch.save, and give "
                "that file."
            ) from error
    if not re.fullmatch(r"\w+_Weights\.\w+", str(source)):  # get_weight stumbles over any other text
        raise FileNotFoundError(f"{source} is neither a file nor a name of torchvision's weights, {_EXAMPLE}.")
    try:
        weights = get_weight(str(source))
    except (ValueError, KeyError) as error:
        raise FileNotFoundError(f"torchvision knows no weights named {source}; {_EXAMPLE}.") from error
    return weights.get_state_dict(progress=True, check_hash=True)


def _plain_keys(weights: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state dict by torchvision's names, wrappers and prefixes taken off."""
    for wrapper in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
    tensors = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _first(names: list[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more if names else "none"
