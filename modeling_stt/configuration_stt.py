"""Configuration of STT. Travels with every checkpoint: nothing of this project may be imported here."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2CLS
from transformers.configuration_utils import PreTrainedConfig

ATTENTION_ORDERS = ("space_time", "time_space", "joint", "space_only", "time_only")

# DFEW's classes in DFEW's order (its CSV labels 1..7, less one).
DFEW_CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


@strict
class STTConfig(PreTrainedConfig):
    r"""
    Configuration of the Spatio-Temporal Transformer for dynamic facial expression recognition (arXiv 2205.04749).

    Only the paper's abstract could be read. The defaults are those of the authors' next model (LOGO-Former), as a
    third party's port of its code shows them; each line says where its value comes from: **paper** (abstract, or the
    first author in public), **authors** (that code), **ours** (a gap that we filled).

    Args:
        image_size: Height and width of a frame in pixels. 112 (authors).
        num_channels: Channels of a frame, 3 = RGB (authors).
        num_frames: Frames of a clip. 16 (paper: the "dynamic sampling" of 8 segments × 2 frames).
        backbone_stem_width: Output channels of the backbone's 7×7 stem convolution. 64 as ResNet-18 (authors).
        backbone_widths: Output channels of each residual stage. `(64, 128, 256)` is ResNet-18 cut after `layer3`
            (authors); every stage after the first halves the map, so 112 px give 7×7 positions.
        backbone_depths: Basic blocks in each residual stage, as many entries as `backbone_widths`.
        hidden_size: Width D of a token. 512 (authors, medium: LOGO-Former's published FLOPs fit no exact D and N).
        num_hidden_layers: Number N of blocks. 4 (authors, medium).
        num_attention_heads: Heads of either attention; must divide `hidden_size`. 8 (authors).
        intermediate_size: Width of the block's MLP. 4 × 512 (authors, medium).
        hidden_act: The MLP's activation (authors: GELU).
        hidden_dropout_prob: Dropout after either attention's output projection and in the MLP. 0.2 (authors, for
            LOGO-Former; unknown for STT).
        attention_probs_dropout_prob: Dropout on attention weights. 0 (ours; LOGO-Former has 0.2).
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 in the first (authors).
        attention_order: What a block does before its MLP. `"space_time"`: spatial, then temporal attention (paper:
            both "within each block"; the order is the authors'); `"time_space"`: the other way round, as TimeSformer;
            `"joint"`: one attention over all tokens of the clip; `"space_only"` and `"time_only"`: for ablations.
            `"space_only"` has no temporal positions and so cannot tell the order of frames.
        qkv_bias: Whether queries and values have a bias (on in the code that the authors' builds on). Keys never have
            one: softmax cancels it (ours).
        layer_norm_eps: Epsilon of the layer norms (ours).
        initializer_range: Standard deviation of the truncated normal that initialises tokens, tables and linear
            layers (authors: 0.02). None is 0.02 for tokens and tables, and 1 / √fan-in for linear layers, which keeps
            the variance of what they read (ours): with 0.02, too little of what tells clips apart reaches the class
            token of a narrow model, and it does not learn (see `benchmarks/initialisation.py`).
        temperature: Divisor of the logits in evaluation mode, above 0, so that their softmax is calibrated. Fitted on
            validation clips after training; 1 leaves the logits as they are, as training always does (ours).
        min_score: Least probability of an answer to rely on, in [0, 1]; below it an answer counts as unsure. Chosen on
            validation clips; None where no threshold was found. The model itself does not read it (ours).

    `id2label` names DFEW's seven classes unless labels are given.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, heads that don't divide the width, an unknown
            attention order, stages and depths that don't pair, sizes and rates out of range; the values are quoted.

    Example:

    ```python
    >>> from modeling_stt import STTConfig, STTForVideoClassification

    >>> model = STTForVideoClassification(STTConfig())
    >>> round(model.num_parameters() / 1e6, 1)
    19.8
    ```
    """

    model_type = "stt"
    # Not gathered by a Trainer's evaluation. `pooler_output` is: the distances of the compact loss are its features'.
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

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in DFEW's class names where no labels are given."""
        self.backbone_widths = list(self.backbone_widths)
        self.backbone_depths = list(self.backbone_depths)
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(DFEW_CLASSES))
        if self.label2id is None and self.id2label is not None:
            self.label2id = {name: int(i) for i, name in self.id2label.items()}
        kwargs.pop("face_crop", None)  # of folders saved before it moved to the processor, which reads it from there
        super().__post_init__(**kwargs)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the logits."""
        return [name for _, name in sorted((int(i), name) for i, name in (self.id2label or {}).items())]

    @property
    def backbone_stride(self) -> int:
        """Pixels of a frame that one position of the feature map stands for, along either side."""
        return 2 ** (len(self.backbone_widths) + 1)

    def feature_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the backbone's feature map for a frame of `height` × `width` pixels."""
        stride = self.backbone_stride
        return -(-height // stride), -(-width // stride)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is written to `config.json`: what differs from the defaults, and the class names always.

        transformers leaves out the labels of a two-class model as its own default; read back here, they would be
        DFEW's seven.
        """
        return super().to_diff_dict() | {"id2label": self.id2label, "label2id": self.label2id}

    def validate_architecture(self) -> None:
        """Refuse what cannot be built, quoting the values. Runs whenever a configuration is made.

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

    def _validate_counts(self) -> None:
        names = ("image_size", "num_channels", "num_frames", "backbone_stem_width", "hidden_size")
        for name in (*names, "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")

    def _validate_backbone(self) -> None:
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


STTConfig.register_for_auto_class()

__all__ = ["ATTENTION_ORDERS", "DFEW_CLASSES", "STTConfig"]
