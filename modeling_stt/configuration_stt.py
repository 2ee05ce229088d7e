"""Configuration of STT. This file travels with every checkpoint and imports nothing of this project."""

import copy
import inspect
import json
import math
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.activations import ACT2CLS
from transformers.configuration_utils import PreTrainedConfig

ATTENTION_ORDERS = ("space_time", "time_space", "joint", "space_only", "time_only")

# DFEW's classes in DFEW's order (its CSV labels 1..7, less one).
DFEW_CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")

# Tokens before the patch tokens in the output of transformers' vision models: class, distillation or pooled tokens.
# Register tokens are added to these, by the model's configuration. timm's models report the number themselves.
SPECIAL_TOKENS = {
    "beit": 1,
    "clip_vision_model": 1,
    "data2vec-vision": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_convnext": 1,
    "dinov3_vit": 1,
    "ijepa": 0,
    "siglip_vision_model": 0,
    "swin": 0,
    "swinv2": 0,
    "vit": 1,
    "vit_msn": 1,
}


class EncoderOutput(NamedTuple):
    """Shape of a vision model's output for one frame.

    Attributes:
        channels: Width C of a position.
        grid: Rows and columns of positions.
        num_special: Tokens before the positions; 0 for models that return feature maps.
        unused: Names of parameters that the output does not depend on, such as those of a pooled output.
    """

    channels: int
    grid: tuple[int, int]
    num_special: int
    unused: tuple[str, ...]


def build_frame_encoder(config: PreTrainedConfig) -> nn.Module:
    """Build a vision model of transformers with random weights, without its pooling head if that is optional."""
    config = copy.deepcopy(config)
    if getattr(config, "vision_use_head", False):  # SigLIP's
        config.vision_use_head = False
    try:
        return AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:  # raised by models without this option
        return AutoModel.from_config(config)


def encode(encoder: Any, frames: torch.Tensor) -> torch.Tensor:
    """Encode frames `(N, 3, H, W)` with a vision model, as tokens `(N, tokens, C)` or maps `(N, C, h, w)`.

    If the frames differ in size from the model's own, its position embeddings are interpolated.
    """
    own_size = getattr(encoder.config, "image_size", None)
    own_size = own_size if isinstance(own_size, list | tuple) else (own_size, own_size)
    # Models that always interpolate, and those without positions, have no such option.
    encoder_class: Any = type(encoder)
    takes_option = "interpolate_pos_encoding" in _arguments(encoder_class)
    other_size = takes_option and tuple(frames.shape[-2:]) != tuple(own_size)
    options = {"interpolate_pos_encoding": True} if other_size else {}
    return encoder(frames, **options).last_hidden_state


@cache
def _arguments(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


@cache
def _probe(config_json: str, num_channels: int, height: int, width: int) -> EncoderOutput:
    """Run a vision model on a frame without computing anything, on torch's meta device."""
    with torch.device("meta"), torch.enable_grad():
        encoder: Any = build_frame_encoder(AutoConfig.for_model(**json.loads(config_json))).eval()
        output = encode(encoder, torch.empty(1, num_channels, height, width))
        output.sum().backward()
    unused = tuple(name for name, parameter in encoder.named_parameters() if parameter.grad is None)
    timm_model, model_type = getattr(encoder, "timm_model", None), encoder.config.model_type
    if output.ndim == 4:
        if timm_model is not None and output.shape[1] != timm_model.num_features:
            raise ValueError(
                f"{timm_model.default_cfg} gives channels-last maps: expected maps with the channels first."
            )
        return EncoderOutput(output.shape[1], (output.shape[2], output.shape[3]), 0, unused)
    if timm_model is None and model_type not in SPECIAL_TOKENS:
        raise ValueError(
            f"backbone_config is of type {model_type!r}, whose class tokens are not known here. Expected a model that "
            f"gives maps (N, C, h, w), timm_wrapper, or one of {sorted(SPECIAL_TOKENS)}."
        )
    num_special = SPECIAL_TOKENS.get(model_type, getattr(timm_model, "num_prefix_tokens", 0))
    num_special += getattr(encoder.config, "num_register_tokens", 0)
    num_positions = output.shape[1] - num_special
    rows = math.isqrt(num_positions * height // width)
    if rows < 1 or num_positions % rows:
        raise ValueError(f"{model_type} makes {num_positions} positions of {height}×{width} px, which is not a grid.")
    return EncoderOutput(output.shape[2], (rows, num_positions // rows), num_special, unused)


@strict
class STTConfig(PreTrainedConfig):
    r"""
    Configuration of the Spatio-Temporal Transformer for dynamic facial expression recognition (arXiv 2205.04749).

    Only the paper's abstract could be read. The defaults are those of the authors' next model (LOGO-Former), taken
    from a third party's port of its code. Each line names the source of its value: **paper** (the abstract, or a
    public statement of the first author), **authors** (that code), **ours** (a gap that we filled).

    Args:
        image_size: Height and width of a frame in pixels. 112 (authors).
        num_channels: Channels of a frame, 3 = RGB (authors).
        num_frames: Frames of a clip. 16 (paper: the "dynamic sampling" of 8 segments × 2 frames).
        backbone_stem_width: Output channels of the backbone's 7×7 stem convolution. 64 as ResNet-18 (authors).
        backbone_widths: Output channels of each residual stage. `(64, 128, 256)` is ResNet-18 cut after `layer3`
            (authors); every stage after the first halves the map, so 112 px give 7×7 positions.
        backbone_depths: Basic blocks in each residual stage, as many entries as `backbone_widths`.
        backbone_config: Configuration, or its dictionary, of a vision model of transformers that encodes the frames in
            place of ResNet-18: any model that `AutoModel` builds and that returns feature maps, or one of
            `SPECIAL_TOKENS`. For CLIP and SigLIP, the vision tower is used. None for ResNet-18 (ours, as
            `max_positions`).
        max_positions: Maximum number of positions per frame from `backbone_config`; larger grids are average-pooled
            to at most this many, in proportion. 49, the paper's 7×7.
        hidden_size: Width D of a token. 512 (authors, medium: LOGO-Former's published FLOPs fit no exact D and N).
        num_hidden_layers: Number N of blocks. 4 (authors, medium).
        num_attention_heads: Heads of either attention; must divide `hidden_size`. 8 (authors).
        intermediate_size: Width of the block's MLP. 4 × 512 (authors, medium).
        hidden_act: The MLP's activation (authors: GELU).
        hidden_dropout_prob: Dropout after either attention's output projection and in the MLP. 0.2 (authors, for
            LOGO-Former; unknown for STT).
        attention_probs_dropout_prob: Dropout on attention weights. 0 (ours; LOGO-Former has 0.2).
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 in the first (authors).
        attention_order: Attention of a block before its MLP. `"space_time"`: spatial, then temporal attention (paper:
            both "within each block"; the order is the authors'); `"time_space"`: the other way round, as TimeSformer;
            `"joint"`: one attention over all tokens of the clip; `"space_only"` and `"time_only"`: for ablations.
            `"space_only"` has no temporal positions and so cannot distinguish the order of frames.
        qkv_bias: Gives queries and values a bias (on in the code that the authors' builds on). Keys never have one:
            softmax cancels it (ours).
        layer_norm_eps: Epsilon of the layer norms (ours).
        initializer_range: Standard deviation of the truncated normal that initialises tokens, tables and linear
            layers. None is the authors' 0.02, except for linear layers of models narrower than the authors' 512: these
            take 1 / √fan-in, which keeps the variance of their inputs (ours). With 0.02, too little of the difference
            between clips reaches the class token of a narrow model (see `benchmarks/initialisation.py`).
        temperature: Divisor of the logits in evaluation mode, above 0, so that their softmax is calibrated. Fitted on
            validation clips after training; 1 leaves the logits as they are, as training always does (ours).
        min_score: Lowest probability of an answer that is relied on, in [0, 1]; answers below it count as unsure.
            Chosen on validation clips; None if no threshold was found. The model itself does not use it (ours).
        logit_bias: For each class, what is added to its logit in evaluation mode, after the division: the logarithm
            of how much more often the class is expected in use than among the training clips. Most faces in ordinary
            videos are neutral. None adds nothing; training never does (ours; Saerens et al. 2002).

    `id2label` names DFEW's seven classes unless labels are given.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, heads that don't divide the width, an unknown
            attention order, widths and depths that differ in number, sizes and rates out of range; the message quotes
            the values.

    Example:

    ```python
    >>> from modeling_stt import STTConfig, STTForVideoClassification

    >>> model = STTForVideoClassification(STTConfig())
    >>> round(model.num_parameters() / 1e6, 1)
    19.8
    ```
    """

    model_type = "stt"
    # A Trainer's evaluation does not gather these. It gathers `pooler_output`, for the distances of the compact loss.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "hidden_states",
        "spatial_attentions",
        "temporal_attentions",
        "joint_attentions",
    ]

    image_size: int = 112
    num_channels: int = 3
    num_frames: int = 16
    backbone_stem_width: int = 64
    backbone_widths: list[int] | tuple[int, ...] = (64, 128, 256)
    backbone_depths: list[int] | tuple[int, ...] = (2, 2, 2)
    backbone_config: Any = None
    max_positions: int = 49
    hidden_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.2
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    attention_order: str = "space_time"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    initializer_range: float | int | None = None
    temperature: float | int = 1.0
    min_score: float | int | None = None
    logit_bias: list[float | int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in DFEW's class names where no labels are given."""
        self.backbone_widths = list(self.backbone_widths)
        self.backbone_depths = list(self.backbone_depths)
        if isinstance(self.backbone_config, dict):
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        self.backbone_config = getattr(self.backbone_config, "vision_config", self.backbone_config)
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(DFEW_CLASSES))
        if self.label2id is None and self.id2label is not None:
            self.label2id = {name: int(i) for i, name in self.id2label.items()}
        kwargs.pop("face_crop", None)  # in older checkpoints; the processor reads it from their config.json
        super().__post_init__(**kwargs)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the logits."""
        return [name for _, name in sorted((int(i), name) for i, name in (self.id2label or {}).items())]

    @property
    def backbone_stride(self) -> int:
        """Stride of ResNet-18's feature map, in pixels of a frame along either side."""
        return 2 ** (len(self.backbone_widths) + 1)

    @property
    def backbone_channels(self) -> int:
        """Channels of the feature maps."""
        if self.backbone_config is None:
            return self.backbone_widths[-1]
        return self.encoder_output(self.image_size, self.image_size).channels

    def feature_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map for a frame of `height` × `width` pixels."""
        if self.backbone_config is None:
            stride = self.backbone_stride
            return -(-height // stride), -(-width // stride)
        rows, columns = self.encoder_output(height, width).grid
        shrink = max(1.0, (rows * columns / self.max_positions) ** 0.5)
        return max(1, int(rows / shrink + 1e-9)), max(1, int(columns / shrink + 1e-9))

    def encoder_output(self, height: int, width: int) -> EncoderOutput:
        """Shape of the output of `backbone_config`'s vision model for a frame of `height` × `width` pixels."""
        settings = json.dumps(self.backbone_config.to_dict(), sort_keys=True, default=str)
        return _probe(settings, self.num_channels, height, width)

    def to_diff_dict(self) -> dict[str, Any]:
        """Fields for `config.json`: those that differ from the defaults, and always the class names.

        transformers leaves out the labels of a two-class model, which are its own default. Read back here, they would
        become DFEW's seven.
        """
        return super().to_diff_dict() | {"id2label": self.id2label, "label2id": self.label2id}

    def validate_architecture(self) -> None:
        """Refuse a configuration that cannot be built, with its values. Runs whenever a configuration is made.

        Raises:
            ValueError: See the class, whose constructor wraps it.
        """
        super().validate_architecture()
        self._validate_counts()
        self._validate_backbone()
        if self.attention_order not in ATTENTION_ORDERS:
            raise ValueError(f"attention_order={self.attention_order!r} is unknown: choose one of {ATTENTION_ORDERS}.")
        if self.hidden_act not in ACT2CLS:
            raise ValueError(f"hidden_act={self.hidden_act!r} is unknown: choose one of {sorted(ACT2CLS)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads="
                f"{self.num_attention_heads}: every head needs the same whole number of dimensions."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1).")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a finite number above 0.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score} must lie in [0, 1], or be None.")
        if self.logit_bias is not None and (
            len(self.logit_bias) != self.num_labels or not all(map(math.isfinite, self.logit_bias))
        ):
            raise ValueError(f"logit_bias={self.logit_bias} must be {self.num_labels} finite numbers, or None.")

    def _validate_counts(self) -> None:
        names = ("image_size", "num_channels", "num_frames", "backbone_stem_width", "hidden_size", "max_positions")
        for name in (*names, "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")

    def _validate_backbone(self) -> None:
        if self.backbone_config is not None:
            self._validate_encoder()
            return
        widths, depths = list(self.backbone_widths), list(self.backbone_depths)
        if not widths or len(widths) != len(depths) or min(widths + depths) < 1:
            raise ValueError(
                f"backbone_widths={widths} and backbone_depths={depths} must name the same number of stages, at least "
                "one, with positive entries."
            )
        if self.image_size < self.backbone_stride:
            raise ValueError(
                f"image_size={self.image_size} leaves no feature map: {len(widths)} backbone stages shrink a frame "
                f"{self.backbone_stride} times. Use at least {self.backbone_stride} px or fewer stages."
            )

    def _validate_encoder(self) -> None:
        if not isinstance(self.backbone_config, PreTrainedConfig):
            raise ValueError(
                f"backbone_config is a {type(self.backbone_config).__name__}; expected the configuration of a vision "
                "model of transformers, or its dictionary with model_type."
            )
        try:
            self.encoder_output(self.image_size, self.image_size)
        except (ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"A {self.backbone_config.model_type} model cannot encode frames of {self.image_size}×"
                f"{self.image_size} px ({error}): expected a vision model, and an image_size that suits it."
            ) from error


STTConfig.register_for_auto_class()

__all__ = ["ATTENTION_ORDERS", "DFEW_CLASSES", "STTConfig"]
