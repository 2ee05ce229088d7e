"""The tiny model and processor of all tests."""

from typing import Any

import torch

from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor

NAMES = ["happy", "sad", "angry"]

# Settings of a configuration, or of `--model_config`.
TINY_MODEL: dict[str, Any] = {
    "image_size": 32,
    "num_frames": 4,
    "backbone_stem_width": 8,
    "backbone_widths": [8, 16],
    "backbone_depths": [1, 1],
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def make_processor(**settings: Any) -> STTVideoProcessor:
    return STTVideoProcessor(size={"height": 32, "width": 32}, num_frames=4, **settings)


def make_model(seed: int = 0, **changes: Any) -> STTForVideoClassification:
    """A tiny model in evaluation mode with seeded weights; its training draws no random numbers for dropout."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"hidden_dropout_prob": 0.0, "drop_path_rate": 0.0, "id2label": dict(enumerate(NAMES))}
    return STTForVideoClassification(STTConfig(**(TINY_MODEL | settings | changes))).eval()


def make_scorer(seed: int = 0, **changes: Any) -> STTForVideoClassification:
    """A tiny model whose random weights are so large that different clips get different scores."""
    return make_model(seed, **({"num_hidden_layers": 2, "initializer_range": 0.3} | changes))
