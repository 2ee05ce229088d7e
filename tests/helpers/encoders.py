"""Tiny vision models of transformers, of ten families."""

from typing import Any

from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)

VIT: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
VIT |= {"patch_size": 8, "intermediate_size": 64}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32, "patch_size": 4, "window_size": 4}
TIMM_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
# Configurations, the channels and the tokens before the patches that each model's output has.
ENCODERS: dict[str, tuple[PreTrainedConfig, int, int]] = {
    "ViT": (ViTConfig(**VIT), 32, 1),
    "CLIP": (CLIPVisionConfig(**VIT), 32, 1),
    "SigLIP": (SiglipVisionConfig(**VIT), 32, 0),
    "DINOv2": (Dinov2Config(**VIT), 32, 1),
    "DINOv2 with registers": (Dinov2WithRegistersConfig(**VIT, num_register_tokens=3), 32, 4),
    "DINOv3": (DINOv3ViTConfig(**VIT, num_register_tokens=2), 32, 3),
    "DeiT": (DeiTConfig(**VIT), 32, 2),
    "ConvNeXt": (ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32), 16, 0),
    "Swin": (SwinConfig(**SWIN), 32, 0),
    "timm": (TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=TIMM_VIT), 32, 1),
}
