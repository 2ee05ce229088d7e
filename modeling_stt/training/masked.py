"""Pre-training of a frame encoder without labels: the model reconstructs the pixels of hidden patches of clips.

The same patches are hidden in all frames of a clip (tubes, as in VideoMAE), so that no frame shows what another hides.
As in SimMIM, the encoder reads all patches, and a linear layer reconstructs the pixels of the hidden ones; the loss is
their mean absolute error. Hidden pixels are set to zero, the mean of normalised frames, which works for every vision
model: a ViT's embedding of such a patch is the bias of its projection, in place of SimMIM's learned token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, Trainer

from ..configuration_stt import STTConfig
from ..modeling_stt import STTFrameEncoder
from ..video_reading_stt import IMAGE_SUFFIXES
from .clips import ClipDataset, ClipDraw
from .sampler import ClipSampler, SamplerEpoch


def list_clips(folder: Path) -> list[dict[str, Any]]:
    """List every folder of pictures below `folder` as a clip without a label, as rows of a `ClipDataset`.

    Raises:
        ValueError: For a folder without a picture.
    """
    rows = []
    for clip in sorted({path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}):
        rows.append({"clip_id": clip.relative_to(folder).as_posix(), "label": 0, "video": str(clip)})
    if not rows:
        raise ValueError(f"{folder} holds no folder of pictures: expected what `stt crop` writes.")
    return rows


class MaskedEncoder(nn.Module):
    """A vision model of transformers with random weights that reconstructs hidden patches of frames.

    A patch is the square of pixels that belongs to one position of the encoder's output: a ViT's own patch, or 32 px
    of a ConvNeXt.

    Args:
        config: Configuration of a vision model, as `STTConfig(backbone_config=…)` takes it, with `image_size`.

    Attributes:
        side: Height and width of a frame in pixels.
        grid: Patches along either side.

    Raises:
        ValueError: For a model that cannot encode frames, or whose positions don't cover a frame in whole squares.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        side = getattr(config, "image_size", None)
        if not isinstance(side, int):
            raise ValueError(
                f"The {config.model_type} configuration has image_size={side}: expected a number of pixels."
            )
        # No position is pooled.
        stt = STTConfig(backbone_config=config, image_size=side, max_positions=side**2)
        output = stt.encoder_output(side, side)
        self.side, self.grid = side, output.grid[0]
        if output.grid[0] != output.grid[1] or side % self.grid:
            raise ValueError(
                f"A {config.model_type} makes {output.grid[0]} × {output.grid[1]} positions of frames of {side} px: "
                "expected a square grid whose side divides image_size."
            )
        self.frame_encoder = STTFrameEncoder(stt)
        self.head = nn.Conv2d(output.channels, stt.num_channels * (side // self.grid) ** 2, 1)

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor) -> dict[str, torch.Tensor]:
        """Reconstruct frames.

        Args:
            pixel_values: `(N, 3, S, S)` normalised frames.
            bool_masked_pos: `(N, P)`, True for hidden patches, row by row.

        Returns:
            `loss`, the mean absolute error of the hidden pixels, and `reconstruction`, `(N, 3, S, S)`.
        """
        hidden = bool_masked_pos.unflatten(1, (self.grid, self.grid)).unsqueeze(1)
        hidden = F.interpolate(hidden.float(), size=pixel_values.shape[-2:]).bool()  # nearest: whole patches
        maps = self.frame_encoder(pixel_values.masked_fill(hidden, 0.0))
        reconstruction = F.pixel_shuffle(self.head(maps), self.side // self.grid).float()
        error = (reconstruction - pixel_values).abs().mean(dim=1, keepdim=True)
        return {"loss": error[hidden].mean(), "reconstruction": reconstruction}


class TubeClips(Dataset):
    """Clips with hidden tubes, `{"pixel_values": (T, 3, H, W), "bool_masked_pos": (T, P)}`.

    Args:
        clips: Augmented clips of T frames.
        num_patches: Number P of patches of a frame.
        share: Share of the patches to hide, in (0, 1).
    """

    def __init__(self, clips: ClipDataset, num_patches: int, share: float = 0.9) -> None:
        self.clips = clips
        self.num_patches = num_patches
        self.num_hidden = round(share * num_patches)
        if not 0 < self.num_hidden < num_patches:
            raise ValueError(
                f"share={share} hides {self.num_hidden} of {num_patches} patches: expected some, but not all."
            )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: ClipDraw) -> dict[str, torch.Tensor]:
        """One clip; the draw decides its augmentation and what is hidden."""
        frames = self.clips[draw]["pixel_values"]
        hidden = np.zeros(self.num_patches, bool)
        hidden[np.random.default_rng((*draw.seed, 1)).permutation(self.num_patches)[: self.num_hidden]] = True
        return {"pixel_values": frames, "bool_masked_pos": torch.from_numpy(hidden).expand(len(frames), -1)}


def collate_tubes(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put clips `(T, …)` together as frames `(B·T, …)`, which is what an encoder of images reads."""
    return {name: torch.cat([item[name] for item in items]) for name in items[0]}


class MaskedTrainer(Trainer):
    """transformers' Trainer on [`TubeClips`], drawn by a [`ClipSampler`].

    All clips hide the same number of patches, so the mean over micro-batches is the mean over the batch. The Trainer
    divides by the number of accumulation steps, because the model's loss is a mean.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, model: MaskedEncoder, args: Any, train_dataset: TubeClips, **kwargs: Any) -> None:
        super().__init__(model, args, collate_tubes, train_dataset, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> ClipSampler:
        tubes: Any = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        sampler = ClipSampler(
            tubes.clips.label_ids, seed=args.seed, multiple_of=self._train_batch_size * args.world_size
        )
        self.callback_handler.pop_callback(SamplerEpoch)
        self.add_callback(SamplerEpoch(sampler))
        return sampler


def save_encoder(model: MaskedEncoder, image_processor: Any, folder: Path) -> None:
    """Save the encoder without the head that reconstructs, and its image processor: what `--backbone` loads."""
    encoder: Any = model.frame_encoder.encoder
    encoder.save_pretrained(folder)
    image_processor.save_pretrained(folder)
