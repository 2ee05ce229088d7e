"""Images with labels beside clips: a share of every batch, answered by a head of their own that is not kept.

Sets of still faces are larger and cleaner than sets of clips, but plain mixing lowers the scores on clips: pictures
show the height of posed expressions. So images train the frame encoder and the blocks, through a second linear head,
and the model's own head learns from clips alone. An image is a clip of one frame, which the processor repeats.

In a batch the classes of images follow those of clips: of K classes, label k + K is an image of class k.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset, Sampler

from .clips import IGNORED, ClipDataset, ClipDraw
from .sampler import ClipSampler

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingImages:
    """Images to train on beside the clips.

    Args:
        rows: Images as rows of clips of one frame, with the columns `clip_id`, `label` (name of the class) and
            `frames`; see `match_images`.
        share: Share of every batch that images make up, in (0, 1).
        source: Where they are from, for results.json.

    Raises:
        ValueError: For a share out of range.
    """

    rows: datasets.Dataset | Sequence[Mapping[str, Any]]
    share: float = 0.25
    source: str | None = None

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        if not 0 < self.share < 1 or self.exact_share in (0, 1):
            raise ValueError(f"share={self.share} of images must lie between 0 and 1, such as 0.25.")

    @property
    def exact_share(self) -> Fraction:
        """The share as a fraction of small numbers, so that 0.1 is one in ten."""
        return Fraction(self.share).limit_denominator(1000)

    def describe(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Describe the images for results.json: their share, the number of each class, and a hash of their ids."""
        counts = Counter(row["label"] for row in self.rows)
        ids = hashlib.sha256("\n".join(row["clip_id"] for row in self.rows).encode()).hexdigest()
        per_class = {name: counts[name] for name in class_names if counts[name]}
        return {"source": self.source, "share": self.share, "per_class": per_class, "sha256_of_ids": ids}


def match_images(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Keep the images of classes that the clips have too, by name; a warning names the others.

    Args:
        rows: Images, whose `label` is the name of a class.
        class_names: The clips' classes.

    Raises:
        ValueError: For fewer than two classes in common.
    """
    kept = [row for row in rows if row["label"] in class_names]
    found, known = Counter(row["label"] for row in rows), list(class_names)
    other = {name: number for name, number in sorted(found.items()) if name not in known}
    if len(found) - len(other) < 2:
        raise ValueError(
            f"The images have the classes {', '.join(sorted(found))}, the clips {', '.join(known)}: expected at least "
            "two of the same name. Name the images' folders as the clips' classes by image_classes, such as "
            "'1=surprise,2=fear'."
        )
    if other:
        left = ", ".join(f"{number} of {name}" for name, number in other.items())
        logger.warning("Images of classes that the clips lack are left out: %s. The clips have %s.", left, known)
    if missing := [name for name in known if name not in found]:
        logger.warning("There are no images of %s.", ", ".join(missing))
    return kept


class ClipsAndImages(Dataset):
    """Training clips and, numbered after them, images, whose labels follow those of the clips.

    Args:
        clips: Training clips of K classes; their soft labels `(K,)` become `(2·K,)`.
        images: Images of the same classes, without votes.
    """

    def __init__(self, clips: ClipDataset, images: ClipDataset) -> None:
        self.clips = clips
        self.images = images
        self.num_classes = len(clips.class_names or [])

    def __len__(self) -> int:
        return len(self.clips) + len(self.images)

    def __getitem__(self, draw: ClipDraw) -> dict[str, Any]:
        """One clip or image."""
        is_image = draw.row >= len(self.clips)
        item = self.images[draw._replace(row=draw.row - len(self.clips))] if is_image else self.clips[draw]
        return item | {"labels": self._label(item["labels"], is_image, draw.counted)}

    def _label(self, label: Any, is_image: bool, counted: bool) -> Any:
        if not self.clips.votes:
            return label + self.num_classes if is_image and counted else label
        if not counted:
            return torch.full((2 * self.num_classes,), float(IGNORED))
        both = torch.zeros(2 * self.num_classes)
        if is_image:
            both[self.num_classes + label] = 1.0
        else:
            both[: self.num_classes] = label
        return both


class MixedSampler(Sampler[ClipDraw]):
    """Draws an epoch of clips, and images in between, evenly: any batch has their share, give or take one.

    As [`ClipSampler`], an epoch is decided by seed and number alone. All clips are drawn once in an epoch. Images are
    drawn without repetition until all of them have been.

    Args:
        clips: Draws the clips; it does not pad.
        images: Draws the images; likewise.
        share: Share of the images among all draws, in (0, 1).
        multiple_of: As in [`ClipSampler`].
    """

    def __init__(self, clips: ClipSampler, images: ClipSampler, share: Fraction, multiple_of: int = 1) -> None:
        self.clips = clips
        self.images = images
        self.ratio = share / (1 - share)  # images per clip
        self.multiple_of = multiple_of
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is drawn next, counted from 0."""
        self.epoch = epoch

    @property
    def num_images(self) -> int:
        """Number of images in an epoch."""
        return int(len(self.clips) * self.ratio)

    def __len__(self) -> int:
        return -(-(len(self.clips) + self.num_images) // self.multiple_of) * self.multiple_of

    def __iter__(self) -> Iterator[ClipDraw]:
        rows = list(self._rows())
        for position in range(len(self)):
            seed = (self.clips.seed, self.epoch, 1 + position)  # as ClipSampler's
            yield ClipDraw(rows[position % len(rows)], seed, counted=position < len(rows))

    def _rows(self) -> Iterator[int]:
        self.clips.set_epoch(self.epoch)
        images, drawn = self._images(), 0
        for number, draw in enumerate(self.clips, start=1):
            yield draw.row
            while drawn < int(number * self.ratio):
                yield len(self.clips) + next(images)
                drawn += 1

    def _images(self) -> Iterator[int]:
        """Rows of the images in the order of all epochs so far, from this epoch's first on."""
        first = self.epoch * self.num_images
        while True:
            self.images.set_epoch(first // len(self.images))
            order = [draw.row for draw in self.images]
            yield from order[first % len(self.images) :]
            first += len(self.images) - first % len(self.images)


def is_image(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Find the images of a batch by their labels, `(B,)` or `(B, 2·K)`; `(B,)` bool."""
    return labels >= num_classes if labels.ndim == 1 else labels[:, num_classes:].sum(dim=1) > 0


def image_classes(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Classes in [0, K) of the labels of images; other labels give others."""
    return labels - num_classes if labels.ndim == 1 else labels[:, num_classes:].argmax(dim=1)
