"""STT, the Spatio-Temporal Transformer for dynamic facial expression recognition (arXiv 2205.04749), in PyTorch.

This file travels with every checkpoint and imports nothing of this project but the configuration beside it.

    pixel_values (B, T, 3, H, W)
      └ STTBackbone     ResNet-18 to layer3, every frame by itself       (B·T, 256, h, w)
        or STTFrameEncoder, any vision model of transformers             (B·T, C, h, w)
      └ STTEmbeddings   1×1 convolution, class token, position tables    (B, 1 + T·P, D),  P = h·w
      └ STTLayer × N    spatial attention, temporal attention, MLP       (B, 1 + T·P, D)
      └ layer norm, class token                                          (B, D)   the feature f of the loss
      └ STTForVideoClassification: linear                                (B, K)   logits

The paper's full text and code are not public. `STTConfig` gives the source of each setting: the paper, its authors'
later code, or ours.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_stt import STTConfig, build_frame_encoder, encode

INITIALIZER_RANGE, AUTHORS_WIDTH = 0.02, 512  # the authors' standard deviation of new weights, and `hidden_size`


@dataclass
class STTModelOutput(ModelOutput):
    """Output of [`STTModel`] for B clips of T frames of P positions, in width D.

    Args:
        last_hidden_state: `(B, 1 + T·P, D)`, class token first, then the frames' positions in time order, normed.
        pooler_output: `(B, D)`, the class token of `last_hidden_state`: the feature f of the compact loss.
        hidden_states: With `output_hidden_states=True`: the input of the first block and the output of each,
            `(B, 1 + T·P, D)`.
        spatial_attentions: With `output_attentions=True`, one a block: `(B, T, heads, P, P)`. In `"time_space"` and
            `"space_only"` the class token takes part as position 0: `(B, T, heads, 1 + P, 1 + P)`.
        temporal_attentions: With `output_attentions=True`, one a block: `(B, P, heads, 1 + T, 1 + T)`, class token as
            time 0. In `"time_space"`, where it takes no part: `(B, P, heads, T, T)`.
        joint_attentions: With `output_attentions=True` and `"joint"`: `(B, heads, 1 + T·P, 1 + T·P)`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    spatial_attentions: tuple[torch.FloatTensor, ...] | None = None
    temporal_attentions: tuple[torch.FloatTensor, ...] | None = None
    joint_attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class STTVideoClassifierOutput(ModelOutput):
    """Output of [`STTForVideoClassification`]; all other fields are those of [`STTModelOutput`].

    Args:
        loss: Scalar, plain cross entropy, if `labels` were given. (The Trainer computes the compact loss.)
        logits: `(B, K)` before softmax, in the order of `config.id2label`.
        pooler_output: `(B, D)`, the feature that the logits are a linear function of.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    spatial_attentions: tuple[torch.FloatTensor, ...] | None = None
    temporal_attentions: tuple[torch.FloatTensor, ...] | None = None
    joint_attentions: tuple[torch.FloatTensor, ...] | None = None


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Run without updating the running statistics of batch norms; they normalise as before."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches


@dataclass
class STTBlockCall:
    """One call of a block. Gradient checkpointing runs the block again in the backward pass, on the same frames.

    Args:
        has_run: The block has run, so the frames are in its running statistics.
    """

    has_run: bool = False


class STTBasicBlock(GradientCheckpointingLayer):
    """ResNet's basic block: two 3×3 convolutions around a shortcut. `(N, C_in, H, W)` to `(N, C_out, H/s, W/s)`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: torch.Tensor, call: STTBlockCall | None = None) -> torch.Tensor:
        with statistics_kept(self) if call and call.has_run else nullcontext():
            if call:
                call.has_run = True
            shortcut = features if self.downsample is None else self.downsample(features)
            features = F.relu(self.bn1(self.conv1(features)), inplace=True)
            return F.relu(self.bn2(self.conv2(features)).add_(shortcut), inplace=True)


class STTBackbone(nn.Module):
    """ResNet-18 cut after its third stage, `(N, 3, H, W)` to `(N, 256, ⌈H/16⌉, ⌈W/16⌉)`.

    A plain module with torchvision's key names (`conv1`, `bn1`, `layer1.0.conv1`, …), so that state dicts of
    torchvision and of MS-Celeb-1M face recognition load as they are. (transformers' own ResNetBackbone inside a model
    makes `set_attn_implementation("sdpa")` raise for the whole model.)
    """

    def __init__(self, config: STTConfig) -> None:
        super().__init__()
        stem_width = config.backbone_stem_width
        self.conv1 = nn.Conv2d(config.num_channels, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage_names = []
        in_channels = stem_width
        for stage, (width, depth) in enumerate(zip(config.backbone_widths, config.backbone_depths, strict=True)):
            blocks = [STTBasicBlock(in_channels, width, stride=1 if stage == 0 else 2)]
            blocks += [STTBasicBlock(width, width, stride=1) for _ in range(depth - 1)]
            self.stage_names.append(f"layer{stage + 1}")
            self.add_module(self.stage_names[-1], nn.Sequential(*blocks))
            in_channels = width

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        # In this layout CPUs pool 16 times as fast in bfloat16, and feature maps become tokens without a copy.
        # Exported programs choose their own layouts: with this one, ExecuTorch silently gave wrong answers.
        if not torch.compiler.is_exporting():
            frames = frames.contiguous(memory_format=torch.channels_last)
        # ReLU commutes with max-pooling, so pool first: ReLU then reads a quarter of the values.
        features = F.relu(self.maxpool(self.bn1(self.conv1(frames))), inplace=True)
        for name in self.stage_names:
            for block in getattr(self, name):
                # Compilers recompute single values instead of running a block again.
                features = block(features, call=None if torch.compiler.is_compiling() else STTBlockCall())
        return features


class STTFrameEncoder(nn.Module):
    """A vision model of transformers as frame encoder, `(N, 3, H, W)` to `(N, C, h, w)` with h·w ≤ `max_positions`.

    Patch tokens become a map; class and register tokens are dropped. Parameters that the patch tokens don't depend on,
    such as those of a pooling head, become buffers: they keep their names in checkpoints and are not trained.
    """

    def __init__(self, config: STTConfig) -> None:
        super().__init__()
        self.config = config
        output = config.encoder_output(config.image_size, config.image_size)
        self.num_special = output.num_special
        # For the model's own size. Other sizes are looked up in `forward`, which compilers cannot trace.
        self.own_grids = output.grid, config.feature_grid(config.image_size, config.image_size)
        self.encoder = build_frame_encoder(config.backbone_config)
        for name in output.unused:
            module_name, _, leaf = name.rpartition(".")
            module = self.encoder.get_submodule(module_name)
            values = getattr(module, leaf).detach()
            delattr(module, leaf)
            module.register_buffer(leaf, values)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        grid, pooled = self.own_grids
        height, width = frames.shape[-2:]
        if (height, width) != (self.config.image_size, self.config.image_size):
            grid = self.config.encoder_output(height, width).grid
            pooled = self.config.feature_grid(height, width)
        output = encode(self.encoder, frames)
        if output.ndim == 3:
            output = output[:, self.num_special :].transpose(1, 2).unflatten(2, grid)
        return output if pooled == grid else F.adaptive_avg_pool2d(output, pooled)


class STTEmbeddings(nn.Module):
    """Turns the feature maps of frames into the tokens of a clip, with class token and position embeddings.

    `(B·T, C, h, w)` to `(B, 1 + T·P, D)` with P = h·w. There is one table of spatial positions, shared by all frames,
    and one of temporal positions, shared by all places. The class token has a row of its own in the table of whichever
    attention it takes part in: row 0 of the temporal table in `"space_time"`, of the spatial table in `"time_space"`.
    """

    def __init__(self, config: STTConfig) -> None:
        super().__init__()
        self.grid = config.feature_grid(config.image_size, config.image_size)
        self.num_frames = config.num_frames
        self.class_token_in_space = config.attention_order in ("time_space", "space_only")
        num_positions = self.grid[0] * self.grid[1]
        self.projection = nn.Conv2d(config.backbone_channels, config.hidden_size, 1)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.spatial_positions = nn.Parameter(
            torch.empty(1, self.class_token_in_space + num_positions, config.hidden_size)
        )
        self.temporal_positions = None
        if config.attention_order != "space_only":
            temporal_rows = (not self.class_token_in_space) + config.num_frames
            self.temporal_positions = nn.Parameter(torch.empty(1, temporal_rows, config.hidden_size))

    def forward(self, feature_maps: torch.Tensor, num_frames: int) -> torch.Tensor:
        grid = (feature_maps.shape[-2], feature_maps.shape[-1])
        # (B·T, D, h, w) -> (B, T, P, D)
        tokens = self.projection(feature_maps).flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames))
        class_token: torch.Tensor = self.class_token
        space: torch.Tensor = self.spatial_positions
        if self.class_token_in_space:
            class_token = class_token + space[:, :1]
            space = space[:, 1:]
        positions = self._resized_space(space, grid).unsqueeze(1)
        if self.temporal_positions is not None:
            time: torch.Tensor = self.temporal_positions
            if not self.class_token_in_space:
                class_token = class_token + time[:, :1]
                time = time[:, 1:]
            positions = positions + self._resized_time(time, num_frames).unsqueeze(2)
        tokens = tokens + positions
        return torch.cat((class_token.expand(tokens.shape[0], -1, -1), tokens.flatten(1, 2)), dim=1)

    def _resized_space(self, table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Resize the spatial table `(1, P, D)` to a grid by bicubic interpolation; unchanged for its own grid."""
        if grid == self.grid:
            return table
        image = table.transpose(1, 2).unflatten(2, self.grid).float()
        image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False)
        return image.flatten(2).transpose(1, 2).to(table.dtype)

    def _resized_time(self, table: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Resize the temporal table `(1, T, D)` to a number of frames linearly; unchanged for its own number."""
        if num_frames == self.num_frames:
            return table
        series = F.interpolate(table.transpose(1, 2).float(), size=num_frames, mode="linear", align_corners=False)
        return series.transpose(1, 2).to(table.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    batch_shape: tuple[int, ...] = (-1,),
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eager attention: plain matrix products, and the only back-end that can return its weights.

    Args:
        module: The calling attention; its training flag decides on dropout.
        query: `(N, heads, L, D / heads)`, as `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Always None in STT: every token of a clip is real.
        scaling: Factor on the products of queries and keys.
        dropout: Probability of dropping a weight.
        batch_shape: The axes that were flattened into N.
        kwargs: Ignored; the interface requires them.

    Returns:
        The result `(N, L, heads, D / heads)` and the weights `(*batch_shape, heads, L, L)`.
    """
    weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) * scaling, dim=-1)
    weights = F.dropout(weights, p=dropout, training=module.training)
    # Reshaped before use: a view made afterwards would not be part of the graph and would get no gradient.
    weights = weights.unflatten(0, batch_shape)
    return torch.matmul(weights.flatten(0, -4), value).transpose(1, 2).contiguous(), weights


# SDPA's CPU kernel is made for long sequences: at 17 to 256 tokens in bfloat16, eager attention is 1.2 to 2 times as
# fast forward and 2 to 7 times as fast forward and backward. From 400 tokens on, and in float32, the kernel is faster.
PLAIN_PRODUCTS_UP_TO = 256


class STTAttention(nn.Module):
    """Multi-head self-attention over the tokens of a sequence, `(*, L, D)` to `(*, L, D)`.

    All leading axes are batch: a clip's frames for spatial attention, its positions for temporal attention. Returns
    the result and, with eager attention, the weights `(*, heads, L, L)`, otherwise None. With `num_queries` only the
    first `num_queries` tokens are used as queries, and the result is `(*, num_queries, D)`.

    On CPU in bfloat16, `"sdpa"` uses eager attention for short sequences (see `PLAIN_PRODUCTS_UP_TO`). The results are
    the same up to rounding.
    """

    is_causal = False

    def __init__(self, config: STTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.head_dim = width // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = nn.Linear(width, width, bias=config.qkv_bias)
        # A bias on the keys adds the same number to all scores of a query, which softmax cancels.
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, tokens: torch.Tensor, num_queries: int | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_shape = tokens.shape[:-2]
        tokens = tokens.flatten(0, -3)
        # (N, L, D) -> (N, heads, L, D / heads)
        query = self._heads(self.q_proj(tokens[:, :num_queries]))
        key = self._heads(self.k_proj(tokens))
        value = self._heads(self.v_proj(tokens))
        context, weights = self._attention_interface(query, key)(
            self,
            query,
            key,
            value,
            None,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            batch_shape=batch_shape,
            **kwargs,
        )
        return self.dropout(self.o_proj(context.flatten(2).unflatten(0, batch_shape))), weights

    def _attention_interface(self, query: torch.Tensor, key: torch.Tensor) -> Callable:
        implementation = self.config._attn_implementation
        plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[2] <= PLAIN_PRODUCTS_UP_TO
        if implementation == "sdpa" and plain:
            implementation = "eager"
        return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)

    def _heads(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (-1, self.head_dim)).transpose(1, 2)


# Three names for one layer, so that each kind of attention can be recorded by its name.
class STTSpatialAttention(STTAttention):
    """Attention among the positions of a frame."""


class STTTemporalAttention(STTAttention):
    """Attention among the frames at a position."""


class STTJointAttention(STTAttention):
    """Attention among all tokens of a clip."""


class STTTemporalProjection(nn.Linear):
    """Follows the temporal attention in `"time_space"`. It starts at zero, as in TimeSformer, so that a block begins
    as purely spatial.
    """


class STTMLP(nn.Module):
    """The block's two-layer perceptron, `(*, D)` to `(*, D)`."""

    def __init__(self, config: STTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc2(self.dropout(self.activation(self.fc1(tokens)))))


class STTDropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole clips and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return branch
        kept = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(1.0 - self.rate)
        return branch * kept / (1.0 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class STTLayer(GradientCheckpointingLayer):
    """One block: the attentions in the configuration's order, then the MLP, each pre-normed and residual.

    Takes and returns `(B, 1 + T·P, D)`. The attention just before the MLP includes the class token: it is copied to
    every position (or frame), and the mean of the results is added to it. The other attention does not change it.
    With `class_token_only` the last attention and the MLP are computed for the class token alone, and the result is
    `(B, 1, D)`.
    """

    def __init__(self, config: STTConfig, drop_path_rate: float) -> None:
        super().__init__()
        order = config.attention_order
        self.order = order
        self.drop_path = STTDropPath(drop_path_rate)
        if order == "joint":
            self.joint_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.joint_attention = STTJointAttention(config)
        if order in ("space_time", "time_space", "space_only"):
            self.spatial_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.spatial_attention = STTSpatialAttention(config)
        if order in ("space_time", "time_space", "time_only"):
            self.temporal_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.temporal_attention = STTTemporalAttention(config)
        if order == "time_space":
            self.temporal_projection = STTTemporalProjection(config.hidden_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = STTMLP(config)

    def forward(
        self, hidden_states: torch.Tensor, num_frames: int, class_token_only: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        num_queries = 1 if class_token_only else None
        if self.order == "joint":
            update, _ = self.joint_attention(self.joint_norm(hidden_states), num_queries=num_queries, **kwargs)
            hidden_states = hidden_states[:, :num_queries] + self.drop_path(update)
        else:
            hidden_states = self._divided_attention(hidden_states, num_frames, num_queries, **kwargs)
        return hidden_states + self.drop_path(self.mlp(self.mlp_norm(hidden_states)))

    def _divided_attention(
        self, hidden_states: torch.Tensor, num_frames: int, num_queries: int | None, **kwargs: Any
    ) -> torch.Tensor:
        # (B, 1, D) and (B, T, P, D)
        class_token, frames = hidden_states[:, :1], hidden_states[:, 1:].unflatten(1, (num_frames, -1))
        if self.order == "space_time":
            update, _ = self.spatial_attention(self.spatial_norm(frames), **kwargs)
            frames = frames + self.drop_path(update)
        elif self.order == "time_space":
            update, _ = self.temporal_attention(self.temporal_norm(frames.transpose(1, 2)), **kwargs)
            frames = frames + self.drop_path(self.temporal_projection(update).transpose(1, 2))
        along_time = self.order in ("space_time", "time_only")
        norm, attention = (
            (self.temporal_norm, self.temporal_attention)
            if along_time
            else (self.spatial_norm, self.spatial_attention)
        )
        groups = frames.transpose(1, 2) if along_time else frames
        # The class token is every group's first.
        copies = class_token.unsqueeze(1).expand(-1, groups.shape[1], -1, -1)
        update, _ = attention(norm(torch.cat((copies, groups), dim=2)), num_queries=num_queries, **kwargs)
        update = self.drop_path(update)
        class_token = class_token + update[:, :, 0].mean(dim=1, keepdim=True)
        if num_queries == 1:
            return class_token
        groups = groups + update[:, :, 1:]
        frames = groups.transpose(1, 2) if along_time else groups
        return torch.cat((class_token, frames.flatten(1, 2)), dim=1)


class STTPreTrainedModel(PreTrainedModel):
    """Base of all STT models: initialisation, recording of outputs, and checkpoints that carry their code."""

    config: STTConfig
    config_class = STTConfig
    base_model_prefix = "stt"
    main_input_name = "pixel_values"
    input_modalities = ("video",)  # type: ignore[assignment]  # as transformers' own video models
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012 (transformers' own form)
        "STTBackbone",
        "STTFrameEncoder",
        "STTEmbeddings",
        "STTLayer",
    ]
    _input_embed_layer = "projection"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": STTLayer,
        "spatial_attentions": OutputRecorder(STTSpatialAttention, index=1),
        "temporal_attentions": OutputRecorder(STTTemporalAttention, index=1),
        "joint_attentions": OutputRecorder(STTJointAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = INITIALIZER_RANGE if self.config.initializer_range is None else self.config.initializer_range
        if isinstance(module, STTEmbeddings):
            init.kaiming_normal_(module.projection.weight, mode="fan_in")
            init.zeros_(module.projection.bias)  # type: ignore[arg-type]
            for table in (module.class_token, module.spatial_positions, module.temporal_positions):
                if table is not None:
                    init.trunc_normal_(table, std=std)
        elif isinstance(module, STTTemporalProjection):
            # Not in STTLayer's branch: outside its own tree, transformers skips modules without direct parameters.
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            if self.config.initializer_range is None and self.config.hidden_size < AUTHORS_WIDTH:
                std = module.in_features**-0.5
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False) -> None:
        """Switch the attention back-end of STT's blocks, and of the frame encoder if it has that back-end.

        Arguments and errors are those of [`~transformers.PreTrainedModel.set_attn_implementation`].
        """
        encoders: list[Any] = [module.encoder for module in self.modules() if isinstance(module, STTFrameEncoder)]
        if not encoders:
            super().set_attn_implementation(attn_implementation, allow_all_kernels)
            return
        # The inherited method would raise for the whole model if the encoder does not support the back-end.
        own = (
            attn_implementation.get("", self.config._attn_implementation)
            if isinstance(attn_implementation, dict)
            else attn_implementation
        )
        self.config._attn_implementation_internal = self._check_and_adjust_attn_implementation(
            own, is_init_check=False, allow_all_kernels=allow_all_kernels
        )
        for encoder in encoders:
            with suppress(ValueError):
                encoder.set_attn_implementation(own, allow_all_kernels)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save weights, configuration and the code that a process without this package needs to load them.

        `save_pretrained` alone names only the saved class in `auto_map`, and `AutoModel` would then refuse a saved
        classifier; so all classes are named here. Arguments are those of `PreTrainedModel.save_pretrained`.
        """
        self.config.auto_map = {
            "AutoConfig": "configuration_stt.STTConfig",
            "AutoModel": "modeling_stt.STTModel",
            "AutoModelForVideoClassification": "modeling_stt.STTForVideoClassification",
        }
        super().save_pretrained(save_directory, *args, **kwargs)


class STTModel(STTPreTrainedModel):
    """Backbone and transformer without a head: turns a clip into its tokens and its feature."""

    def __init__(self, config: STTConfig) -> None:
        super().__init__(config)
        self.backbone = STTBackbone(config) if config.backbone_config is None else STTFrameEncoder(config)
        self.embeddings = STTEmbeddings(config)
        # Evenly from 0 in the first block to drop_path_rate in the last.
        steps = max(config.num_hidden_layers - 1, 1)
        self.layers = nn.ModuleList(
            [STTLayer(config, config.drop_path_rate * i / steps) for i in range(config.num_hidden_layers)]
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The 1×1 convolution that makes tokens of feature maps."""
        return self.embeddings.projection

    def set_input_embeddings(self, value: nn.Conv2d) -> None:
        """Replace the 1×1 convolution that makes tokens of feature maps."""
        self.embeddings.projection = value

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turn frames into feature maps, each frame by itself: the first half of the model.

        Args:
            pixel_values: `(*, 3, H, W)`, single frames or clips, as [`STTVideoProcessor`] makes them.

        Returns:
            `(*, C, h, w)` in the model's dtype. `forward(feature_maps=…)` takes the maps of clips, `(B, T, C, h, w)`.
        """
        # The processor gives float32; the model may be loaded in bfloat16.
        frames = pixel_values.flatten(0, -4).to(self.embeddings.projection.weight.dtype)
        return self.backbone(frames).unflatten(0, pixel_values.shape[:-3])

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        class_token_only: bool = False,
        feature_maps: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> STTModelOutput:
        """Encode clips.

        Args:
            pixel_values: `(B, T, 3, H, W)` as [`STTVideoProcessor`] makes them: RGB in [0, 1], or normalised where the
                processor says so.
            interpolate_pos_encoding: Accept clips of another T, H or W than the configuration's by interpolating the
                position tables (linear in time, bicubic in space).
            output_attentions: Return the weights of both attentions; only under `attn_implementation="eager"`.
            class_token_only: Skip what only the other tokens' last states need: the last block's MLP and the queries
                of its last attention. `pooler_output` stays the same; `last_hidden_state` and the last of
                `hidden_states` are `(B, 1, D)`. With attentions requested, nothing is skipped.
            feature_maps: `(B, T, C, h, w)` as `encode_frames` makes them, in place of `pixel_values`. Frames that
                several clips share are then encoded once.
            kwargs: `output_hidden_states` and `return_dict` as everywhere in transformers; others go to the attention.

        Returns:
            [`STTModelOutput`].

        Raises:
            ValueError: For a tensor that is not such a clip, for both or neither of `pixel_values` and `feature_maps`,
                and for attentions requested from a back-end that does not return them.
        """
        if (pixel_values is None) == (feature_maps is None):
            raise ValueError("Expected either pixel_values or feature_maps, got both or neither.")
        attentions = self._attentions_to_record(output_attentions)
        class_token_only = class_token_only and not attentions
        if pixel_values is not None:
            self._check_clip(pixel_values, interpolate_pos_encoding)
        elif feature_maps is not None:
            self._check_feature_maps(feature_maps, interpolate_pos_encoding)
        return self._encode(pixel_values, feature_maps, class_token_only=class_token_only, **attentions, **kwargs)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def _encode(
        self,
        pixel_values: torch.Tensor | None,
        feature_maps: torch.Tensor | None,
        class_token_only: bool,
        **kwargs: Any,
    ) -> STTModelOutput:
        kwargs = {key: value for key, value in kwargs.items() if not key.startswith("output_")}
        if feature_maps is None:
            assert pixel_values is not None  # forward has checked that one of the two is given
            feature_maps = self.encode_frames(pixel_values)
        num_frames = feature_maps.shape[1]
        hidden_states = self.embeddings(feature_maps.flatten(0, 1), num_frames)
        for depth, layer in enumerate(self.layers, start=1):
            is_last = depth == len(self.layers)
            hidden_states = layer(hidden_states, num_frames, class_token_only=class_token_only and is_last, **kwargs)
        hidden_states = self.norm(hidden_states)
        return STTModelOutput(last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0])

    def _attentions_to_record(self, output_attentions: bool | None) -> dict[str, bool]:
        if not (self.config.output_attentions if output_attentions is None else output_attentions):
            return {}
        implementation = self.config._attn_implementation
        if implementation != "eager":
            raise ValueError(
                f"output_attentions=True needs the attention weights, and attn_implementation={implementation!r} does "
                'not give them. Load the model with attn_implementation="eager" or call '
                'model.set_attn_implementation("eager").'
            )
        order = self.config.attention_order
        return {
            "output_spatial_attentions": order in ("space_time", "time_space", "space_only"),
            "output_temporal_attentions": order in ("space_time", "time_space", "time_only"),
            "output_joint_attentions": order == "joint",
        }

    def _check_clip(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool) -> None:
        config = self.config
        if pixel_values.ndim != 5 or pixel_values.shape[2] != config.num_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; expected (clips, frames, {config.num_channels}, "
                "height, width). STTVideoProcessor makes that shape of files, arrays and lists of frames."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values has dtype {pixel_values.dtype}; expected floating-point numbers, 0 to 1. Let "
                "STTVideoProcessor rescale, or divide bytes by 255."
            )
        num_frames, height, width = pixel_values.shape[1], pixel_values.shape[3], pixel_values.shape[4]
        if 0 in pixel_values.shape:
            raise ValueError(f"pixel_values has shape {tuple(pixel_values.shape)}: an axis is empty.")
        if interpolate_pos_encoding:
            return
        # Sizes with the same feature grid use the position table as it is.
        own_size = (config.image_size, config.image_size)
        fits = (height, width) == own_size or config.feature_grid(height, width) == config.feature_grid(*own_size)
        if num_frames != config.num_frames or not fits:
            raise ValueError(
                f"Clips of {num_frames} frames of {height}×{width} px don't fit this model, which was made for "
                f"{config.num_frames} frames of {config.image_size}×{config.image_size} px. Let STTVideoProcessor "
                "sample and resize, or pass interpolate_pos_encoding=True to stretch the position tables."
            )

    def _check_feature_maps(self, feature_maps: torch.Tensor, interpolate_pos_encoding: bool) -> None:
        config = self.config
        expected = (config.num_frames, self.embeddings.projection.in_channels, *self.embeddings.grid)
        got = tuple(feature_maps.shape[1:])
        fits = feature_maps.ndim == 5 and (got[1] == expected[1] if interpolate_pos_encoding else got == expected)
        if not fits or 0 in feature_maps.shape:
            shape = ", ".join(map(str, expected))
            raise ValueError(
                f"feature_maps has shape {tuple(feature_maps.shape)}; expected (clips, {shape}) "
                "as STTModel.encode_frames makes them of clips, or other numbers of frames and positions with "
                "interpolate_pos_encoding=True."
            )


class STTForVideoClassification(STTPreTrainedModel):
    """STT with a linear head on the class token: gives each expression a score."""

    def __init__(self, config: STTConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels or 0
        self.stt = STTModel(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        feature_maps: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> STTVideoClassifierOutput:
        """Classify clips.

        Args:
            pixel_values: `(B, T, 3, H, W)`, see [`STTModel.forward`], as for the other arguments.
            labels: `(B,)` class indices in the order of `config.id2label`; -100 leaves a clip out of the loss.
            interpolate_pos_encoding: See [`STTModel.forward`].
            output_attentions: See [`STTModel.forward`].
            feature_maps: `(B, T, C, h, w)` in place of `pixel_values`, see [`STTModel.forward`].
            kwargs: See [`STTModel.forward`]; `num_items_in_batch` goes to the loss.

        Returns:
            [`STTVideoClassifierOutput`]; `logits` as [`classify`] gives them, `loss` is their plain cross entropy
            (softmax over K classes).

        Raises:
            ValueError: As [`STTModel.forward`].
        """
        loss_kwargs = {key: kwargs.pop(key) for key in ("num_items_in_batch",) if key in kwargs}
        states_asked_for = kwargs.get("output_hidden_states")
        if states_asked_for is None:
            states_asked_for = self.config.output_hidden_states
        outputs = self.stt(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_attentions=output_attentions,
            feature_maps=feature_maps,
            # The head reads the class token only.
            class_token_only=states_asked_for is False,
            **kwargs,
        )
        logits: Any = self.classify(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **loss_kwargs)
        return STTVideoClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            spatial_attentions=outputs.spatial_attentions,
            temporal_attentions=outputs.temporal_attentions,
            joint_attentions=outputs.joint_attentions,
        )

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Turn the features of clips, `(B, D)` as in `pooler_output`, into logits `(B, K)`.

        In evaluation mode they are divided by `config.temperature`, so that their softmax is calibrated, and
        `config.logit_bias` is added for the frequencies of the classes in use.
        """
        logits = self.classifier(features)
        if self.training:
            return logits
        if self.config.temperature != 1:
            logits = logits / self.config.temperature
        if self.config.logit_bias is not None:
            logits = logits + torch.tensor(self.config.logit_bias, dtype=logits.dtype, device=logits.device)
        return logits


STTModel.register_for_auto_class("AutoModel")
STTForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")

__all__ = ["STTForVideoClassification", "STTModel", "STTModelOutput", "STTPreTrainedModel", "STTVideoClassifierOutput"]
