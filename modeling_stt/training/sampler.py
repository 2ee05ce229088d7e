"""The order in which clips are drawn for training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .clips import ClipDraw


class ClipSampler(Sampler[ClipDraw]):
    """Draws an epoch's clips: all of them in random order, or the same number with balanced classes.

    An epoch is decided by seed and epoch number alone, so that every process draws the same one, and a resumed run
    draws what the unbroken run would have drawn. Draws carry their own seed to the [`ClipDataset`], wherever its
    workers are. Padding of the last batches does not count: no clip is used twice.

    Args:
        label_ids: `(N,)` classes of the clips.
        seed: Of the order and of the clips' augmentation, at least 0.
        class_balanced: Draw N clips of which every class that occurs gets the same number, give or take one: the clips
            of a rare class several times (each time with another augmentation), of a frequent one only some.
        multiple_of: Pad the epoch to a multiple of this with draws that don't count. With several processes accelerate
            makes their batches even by repeating clips; padded to whole batches for all, none is repeated.
    """

    def __init__(
        self, label_ids: np.ndarray, *, seed: int, class_balanced: bool = False, multiple_of: int = 1
    ) -> None:
        self.label_ids = label_ids
        self.seed = seed
        self.class_balanced = class_balanced
        self.multiple_of = multiple_of
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is drawn next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.label_ids) // self.multiple_of) * self.multiple_of

    def __iter__(self) -> Iterator[ClipDraw]:
        num_clips = len(self.label_ids)
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self._balanced_order(rng) if self.class_balanced else rng.permutation(num_clips)
        for position in range(len(self)):
            # Counted from 1: numpy takes a seed (s, e, 0) for (s, e), which has drawn the order.
            seed = (self.seed, self.epoch, 1 + position)
            yield ClipDraw(int(order[position % num_clips]), seed, counted=position < num_clips)

    def _balanced_order(self, rng: np.random.Generator) -> np.ndarray:
        classes = rng.permutation(np.unique(self.label_ids))
        # Shares differ by at most one; the classes that get more are drawn anew in each epoch.
        shares = np.diff(np.arange(len(classes) + 1) * len(self.label_ids) // len(classes))
        drawn = [
            self._cycle(np.flatnonzero(self.label_ids == c), n, rng) for c, n in zip(classes, shares, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))

    @staticmethod
    def _cycle(indices: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
        """`length` of these indices, none repeated before all the others were drawn."""
        rounds = -(-length // len(indices))
        return np.concatenate([rng.permutation(indices) for _ in range(rounds)])[:length]


class SamplerEpoch(TrainerCallback):
    """Sets the sampler's epoch, which transformers omits when several processes resume within an epoch.

    Args:
        sampler: Has a method `set_epoch`.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the Trainer."""
        self.sampler.set_epoch(int(state.epoch or 0))
