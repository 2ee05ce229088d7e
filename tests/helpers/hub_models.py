"""Tiny, randomly initialised models of transformers, saved as the Hub's expression models are."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
    VivitConfig,
    VivitForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
)

HUB_NAMES = ["anger", "happiness", "neutral"]
_SIZE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_PATCHES: dict[str, Any] = {"intermediate_size": 32, "image_size": 32, "patch_size": 8}
_JEPA: dict[str, Any] = {"crop_size": 32, "patch_size": 8, "mlp_ratio": 2, "num_pooler_layers": 1}
_JEPA |= {"pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
_CROP = {"height": 32, "width": 32}
_MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "vit": (ViTForImageClassification, ViTConfig, _PATCHES),
    "videomae": (VideoMAEForVideoClassification, VideoMAEConfig, _PATCHES | {"num_frames": 8, "tubelet_size": 2}),
    "timesformer": (TimesformerForVideoClassification, TimesformerConfig, _PATCHES | {"num_frames": 4}),
    "vivit": (
        VivitForVideoClassification,
        VivitConfig,
        {"intermediate_size": 32, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 8, 8]},
    ),
    "vjepa2": (VJEPA2ForVideoClassification, VJEPA2Config, _JEPA | {"frames_per_clip": 4}),
}
# The processors' files as the Hub has them; the old ones name classes of earlier releases of transformers.
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": _CROP},
    "vit_old": {"image_processor_type": "ViTFeatureExtractor", "size": 32},
    "vit_older": {"feature_extractor_type": "ViTFeatureExtractor", "size": 32},
    "videomae": {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 32}, "crop_size": _CROP},
    "videomae_old": {
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "image_processor_type": "VideoMAEFeatureExtractor",
        "size": {"shortest_edge": 32},
        "crop_size": _CROP,
    },
    "timesformer": {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": _CROP,
    },
    "vivit": {"image_processor_type": "VivitImageProcessor", "size": {"shortest_edge": 36}, "crop_size": _CROP},
    "vjepa2": {"video_processor_type": "VJEPA2VideoProcessor", "size": {"shortest_edge": 36}, "crop_size": _CROP},
}


def save_hub_model(folder: Path, kind: str, names: list[str] = HUB_NAMES) -> Path:
    """Save a model and the processor file of this kind, see `PROCESSORS`."""
    model_class, config_class, settings = _MODELS[kind.partition("_")[0]]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    torch.manual_seed(0)
    model = model_class(config_class(**(_SIZE | settings | labels), initializer_range=0.3))
    model.save_pretrained(folder)
    file = "video_preprocessor_config.json" if kind == "vjepa2" else "preprocessor_config.json"
    (folder / file).write_text(json.dumps(PROCESSORS[kind]))
    return folder
