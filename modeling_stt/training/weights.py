"""Weights of a saved model: their files, their values and a hash of them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def weight_files(folder: str | os.PathLike) -> list[Path]:
    """List the safetensors files of a saved model: one, or those that an index names; none of other formats."""
    folder = Path(folder)
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    return [folder / SAFE_WEIGHTS_NAME] if (folder / SAFE_WEIGHTS_NAME).is_file() else []


def read_weights(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the weights of a saved model, see `weight_files`.

    Raises:
        ValueError: For a damaged file, and where one of several is missing.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is missing or damaged ({error}): save the model again.") from error
    return weights


def hash_weights(weights: nn.Module | Mapping[str, torch.Tensor]) -> str:
    """Hash a model's weights, independent of where they are stored: weights can change under the same name.

    Args:
        weights: A model, or its state dict.

    Returns:
        SHA-256 over names, shapes and bytes of all parameters and buffers, in hexadecimal.
    """
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
