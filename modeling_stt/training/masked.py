"""Pre-training of a frame encoder without labels: the model reconstructs the pixels of hidden patches of clips.

The same patches are hidden in all frames of a clip (tubes, as in VideoMAE), so that no frame shows what another hides.
Encoder and loss are those of transformers' masked image models (SimMIM: mean absolute error of the hidden pixels).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, Trainer
from transformers.models.auto.modeling_auto import AutoModelForMaskedImageModeling

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


def make_masked_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Make a masked image model with random weights.

    Raises:
        ValueError: For a type of encoder that has no masked image model in transformers.
    """
    return AutoModelForMaskedImageModeling.from_config(config)


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

    def __init__(self, model: PreTrainedModel, args: Any, train_dataset: TubeClips, **kwargs: Any) -> None:
        super().__init__(model, args, collate_tubes, train_dataset, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load by `from_pretrained`: files have older names of weights, which transformers' own would pass over."""
        model = self.model if model is None else model
        model.load_state_dict(type(model).from_pretrained(resume_from_checkpoint).state_dict())

    def _get_train_sampler(self, train_dataset: Any = None) -> ClipSampler:
        tubes: Any = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        sampler = ClipSampler(
            tubes.clips.label_ids, seed=args.seed, multiple_of=self._train_batch_size * args.world_size
        )
        self.callback_handler.pop_callback(SamplerEpoch)
        self.add_callback(SamplerEpoch(sampler))
        return sampler


def save_encoder(model: PreTrainedModel, image_processor: Any, folder: Path) -> None:
    """Save the encoder without the head that reconstructs, and its image processor: what `--backbone` loads."""
    encoder: Any = model.base_model
    encoder.save_pretrained(folder)
    image_processor.save_pretrained(folder)
