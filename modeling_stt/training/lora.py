"""Low-rank adapters of the frame encoder: small trained matrices beside frozen weights, merged into them at the end.

They need the extra `lora` (peft). What is saved at the end is an ordinary STT, with the adapter in a folder beside it.
"""

import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from ..modeling_stt import STTForVideoClassification

ADAPTER_FOLDER = "adapter"  # in the output folder of a run


def add_lora(model: STTForVideoClassification, rank: int, alpha: float | None = None) -> None:
    """Freeze the frame encoder and add adapters to its linear layers; only these are then trained.

    Args:
        model: Changed in place.
        rank: Rank r of the adapters, at least 1.
        alpha: Scale α of their output, which is α/r times their product; 4·r by default, as CLAIP-Emo's code has it.

    Raises:
        ImportError: Where peft is missing.
        ValueError: For a rank below 1, and for ResNet-18, which has no linear layers.
    """
    peft = _peft()
    backbone = model.stt.backbone
    if rank < 1 or not any(isinstance(module, nn.Linear) for module in backbone.modules()):
        raise ValueError(
            f"lora_rank={rank} must be at least 1, and needs a frame encoder with linear layers: choose a transformer "
            "with backbone_config. ResNet-18 has none."
        )
    config = peft.LoraConfig(r=rank, lora_alpha=4 * rank if alpha is None else alpha, target_modules="all-linear")
    peft.inject_adapter_in_model(config, backbone.encoder)


def has_adapters(model: nn.Module) -> bool:
    """Check if a model has adapters that are not merged."""
    return bool(_adapters(model))


def save_adapter(model: STTForVideoClassification, folder: str | os.PathLike) -> Path | None:
    """Save the adapters in peft's format; None for a model without."""
    if not _adapters(model):
        return None
    encoder: Any = model.stt.backbone.encoder
    path = Path(folder) / ADAPTER_FOLDER
    path.mkdir(parents=True, exist_ok=True)
    encoder.peft_config["default"].save_pretrained(path)
    # peft's own function for this takes the encoder for a model that was loaded with converted weights.
    state = {
        f"base_model.model.{name.replace('.default.', '.')}": weight.detach().cpu().contiguous()
        for name, weight in encoder.state_dict().items()
        if ".lora_" in name
    }
    save_file(state, path / "adapter_model.safetensors", metadata={"format": "pt"})
    return path


def merge_lora(model: STTForVideoClassification) -> int:
    """Merge the adapters into the weights beside them, so that the model is an ordinary STT again.

    Returns:
        The number of adapters that were merged.
    """
    adapters = _adapters(model)
    for name, layer in adapters.items():
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    if adapters:
        encoder: Any = model.stt.backbone.encoder
        del encoder.peft_config
    return len(adapters)


def _adapters(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("Low-rank adapters need peft: pip install 'modeling-stt[lora]'") from error
    return peft
