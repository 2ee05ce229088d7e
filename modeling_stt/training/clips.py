"""Clips for training and testing: rows of a data set to tensors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..video_processing_stt import STTVideoProcessor

IGNORED = -100  # the label that losses pass over

FRAME_ORDERS = ("true", "shuffled", "reversed", "repeated")


class ClipDraw(NamedTuple):
    """Request of a [`ClipSampler`] to a [`ClipDataset`].

    Args:
        row: Index of the clip's row.
        seed: Seeds everything random about this clip, this time.
        counted: False for padding, which only fills up a batch and gets the ignored label.
    """

    row: int
    seed: tuple[int, ...]
    counted: bool = True


@dataclass(frozen=True)
class ClipPhotometry:
    """Random changes of a clip's picture quality: one draw for all frames of a clip. All off by default.

    Every field is the probability, in [0, 1], that a clip undergoes the change; the changes come in this order. Sides
    are shares of the picture's side, so that a clip of any size is changed alike.

    Args:
        color: Brightness, contrast, saturation and hue change, by up to 0.4, 0.4, 0.5 and 0.05.
        gray: Colours become shades of grey.
        gamma: Mid-tones become darker or brighter: a gamma of 0.6 to 1.7.
        erasing: A rectangle of 2 to 15 % of the area is painted over in one colour, at one place in all frames.
        resolution: The picture is shrunk to 25 to 80 % of its side and enlarged again.
        blur: Gaussian blur with a standard deviation of 0.5 to 3 % of the side.
        noise: Gaussian noise, drawn anew for every pixel and frame, with a standard deviation of 2 to 15 of 255.
        jpeg: Every frame is compressed as JPEG, all at one quality of 15 to 90.

    Raises:
        ValueError: For a probability outside of [0, 1].
    """

    color: float = 0.0
    gray: float = 0.0
    gamma: float = 0.0
    erasing: float = 0.0
    resolution: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0

    def __post_init__(self) -> None:
        """Refuse probabilities outside of [0, 1]."""
        for name, probability in asdict(self).items():
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability} is the probability of a change: expected a number in [0, 1].")

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Change a clip `(T, 3, H, W)` uint8 by torch's random state; the result has the same shape and type."""
        for name, probability in asdict(self).items():
            # Drawn even if the change is off or certain, so that its probability does not affect the other changes.
            if torch.rand(()) < probability:
                frames = getattr(self, f"_change_{name}")(frames)
        return frames

    @staticmethod
    def _change_color(frames: torch.Tensor) -> torch.Tensor:
        return v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.5, hue=0.05)(frames)

    @staticmethod
    def _change_gray(frames: torch.Tensor) -> torch.Tensor:
        return v2.functional.rgb_to_grayscale(frames, num_output_channels=3)

    @staticmethod
    def _change_gamma(frames: torch.Tensor) -> torch.Tensor:
        return v2.functional.adjust_gamma(frames, gamma=math.exp(_uniform(math.log(0.6), math.log(1.7))))

    @staticmethod
    def _change_erasing(frames: torch.Tensor) -> torch.Tensor:
        color = torch.randint(0, 256, (3,)).tolist()
        return v2.RandomErasing(p=1.0, scale=(0.02, 0.15), value=color)(frames)

    @staticmethod
    def _change_resolution(frames: torch.Tensor) -> torch.Tensor:
        size, share = frames.shape[-2:], _uniform(0.25, 0.8)
        small = [max(1, round(share * side)) for side in size]
        return v2.functional.resize(v2.functional.resize(frames, small, antialias=True), list(size), antialias=True)

    @staticmethod
    def _change_blur(frames: torch.Tensor) -> torch.Tensor:
        deviation = _uniform(0.005, 0.03) * max(frames.shape[-2:])
        return v2.functional.gaussian_blur(frames, 2 * math.ceil(3 * deviation) + 1, deviation)

    @staticmethod
    def _change_noise(frames: torch.Tensor) -> torch.Tensor:
        noisy = frames + _uniform(2, 15) * torch.randn(frames.shape)
        return noisy.round_().clamp_(0, 255).to(torch.uint8)

    @staticmethod
    def _change_jpeg(frames: torch.Tensor) -> torch.Tensor:
        return v2.JPEG(quality=(15, 90))(frames)


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


@dataclass(frozen=True)
class ClipAugment:
    """One random-resized crop and one flip for all frames of a clip; the defaults are those of Former-DFER's code.

    Args:
        scale: Range of the crop's share of the frame's area.
        ratio: Range of the crop's width / height.
        flip_probability: Probability of a horizontal flip.
        photometry: Changes of picture quality after the crop; none by default.

    Raises:
        ValueError: For ranges that no crop has.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    photometry: ClipPhotometry = ClipPhotometry()

    def __post_init__(self) -> None:
        """Refuse ranges that no crop has."""
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"scale={self.scale} must be a range within (0, 1], and ratio={self.ratio} one above 0.")

    def __call__(self, frames: torch.Tensor, size: tuple[int, int], seed: int) -> torch.Tensor:
        """Augment a clip.

        Args:
            frames: `(T, 3, H, W)` uint8.
            size: Height and width of the result.
            seed: Decides on crop, flip and picture quality. The global random state stays as it is.

        Returns:
            `(T, 3, *size)` uint8.
        """
        crop = v2.RandomResizedCrop(size, scale=self.scale, ratio=self.ratio, antialias=True)
        flip = v2.RandomHorizontalFlip(self.flip_probability)
        # torch.manual_seed would reseed every GPU too, and with it the model's dropout.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.photometry(flip(crop(frames)))


class ClipDataset(Dataset):
    """Clips as the model reads them.

    An item is `{"pixel_values": (T, 3, H, W) float32, "labels": int}`, asked for by a row's index or, in training, by
    the [`ClipDraw`] of a [`ClipSampler`]. All randomness comes from the seed in the draw: it depends neither on the
    number of loader workers and processes nor on what was drawn before. A plain index always gives the same
    augmentation.

    Args:
        rows: A `datasets.Dataset` or a list of mappings with the columns `clip_id`, `label` (class index or name) and
            either `frames` (image files in time order) or `video` (path, or `{"path", "bytes"}`).
        processor: Samples, resizes and rescales.
        augment: Augmentation for training: frames are drawn at random within their segments, and the augmentation
            replaces the processor's resizing. None for testing: the segments' centres are taken and resized.
        seed: Seed of items requested by plain index, and of shuffled frames.
        labels: Class names in the model's order; the rows' labels are brought into it by name. None keeps the rows'
            own.
        votes: Make an item's `labels` the distribution `(K,)` float32 of the annotators' votes, in column `votes`: K
            numbers in the order of the rows' class names.
        frame_order: Order of the sampled frames of every clip, to test a model's use of time: `"true"`,
            `"shuffled"`, `"reversed"`, or `"repeated"` for the middle one in all places.

    Raises:
        ValueError: For rows without these columns, or a label that is not a class; the clip is named. For an unknown
            order.
    """

    def __init__(
        self,
        rows: datasets.Dataset | Sequence[Mapping[str, Any]],
        processor: STTVideoProcessor,
        *,
        augment: ClipAugment | None = None,
        seed: int = 0,
        labels: Sequence[str] | None = None,
        votes: bool = False,
        frame_order: str = "true",
    ) -> None:
        self.rows = rows
        self.processor = processor
        self.augment = augment
        self.seed = seed
        self.votes = votes
        if frame_order not in FRAME_ORDERS:
            raise ValueError(f"frame_order={frame_order!r} is unknown: choose one of {FRAME_ORDERS}.")
        self.frame_order = frame_order
        row_names = _row_class_names(rows)
        self.class_names = list(labels) if labels is not None else row_names
        self.row_class_names = row_names or self.class_names
        self.label_ids = self._label_ids()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: ClipDraw | int) -> dict[str, Any]:
        """One clip.

        Raises:
            FileNotFoundError: For a missing file or folder.
            ValueError: For a clip that cannot be read. Both name clip and file.
        """
        if not isinstance(draw, ClipDraw):
            number = range(len(self))[draw]
            draw = ClipDraw(number, (self.seed, 0, 1 + number))
        row = self.rows[draw.row]
        try:
            pixel_values = self._pixel_values(row, np.random.default_rng(draw.seed))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"Clip {row['clip_id']}: {error}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"Clip {row['clip_id']}: {error}") from error
        return {"pixel_values": pixel_values, "labels": self._item_label(draw, row)}

    def _pixel_values(self, row: Mapping[str, Any], rng: np.random.Generator) -> torch.Tensor:
        crop_seed = int(rng.integers(2**63))
        frames = self.processor.read_clip(_source(row), rng if self.augment else None)
        if self.frame_order != "true":
            frames = frames[self._order(len(frames), rng)]
        if self.augment:
            size = self.processor.crop_size if self.processor.do_center_crop else self.processor.size
            frames = self.augment(frames, (size["height"], size["width"]), crop_seed)
        resize = {"do_resize": False, "do_center_crop": False} if self.augment else {}
        return self.processor([frames], do_sample_frames=False, return_tensors="pt", **resize)["pixel_values"][0]

    def _order(self, num_frames: int, rng: np.random.Generator) -> torch.Tensor:
        order = torch.arange(num_frames)
        if self.frame_order == "shuffled":
            return torch.from_numpy(rng.permutation(num_frames))
        if self.frame_order == "repeated":
            return torch.full_like(order, num_frames // 2)
        return order.flip(0)

    def _item_label(self, draw: ClipDraw, row: Mapping[str, Any]) -> int | torch.Tensor:
        if not self.votes:
            return int(self.label_ids[draw.row]) if draw.counted else IGNORED
        names = self.row_class_names or []
        if len(row["votes"]) != len(names) or min(row["votes"]) < 0 or not any(row["votes"]):
            raise ValueError(
                f"Clip {row['clip_id']} has votes {row['votes']}: expected one number, not negative, for each class "
                f"of {names}, and at least one vote."
            )
        votes = dict(zip(names, row["votes"], strict=True))
        counts = torch.tensor([votes[name] for name in self.class_names or []], dtype=torch.float32)
        return counts / counts.sum() if draw.counted else torch.full_like(counts, IGNORED)

    def _label_ids(self) -> np.ndarray:
        """`(N,)` int64: every row's class in the order of `class_names`."""
        if len(self.rows) == 0:
            raise ValueError("These rows hold no clip.")
        wanted = ("clip_id", "label") + (("votes",) if self.votes else ())
        missing = [column for column in wanted if column not in self.rows[0]]
        if missing or not {"frames", "video"} & set(self.rows[0]):
            raise ValueError(
                f"Rows have the columns {sorted(self.rows[0])}; expected {', '.join(wanted)} and frames or video."
            )
        columns = [_column(self.rows, "clip_id"), _column(self.rows, "label")]
        return np.array([self._label_id(*values) for values in zip(*columns, strict=True)], dtype=np.int64)

    def _label_id(self, clip_id: str, label: int | str) -> int:
        known, wanted = self.row_class_names, self.class_names
        if isinstance(label, str):
            name = label
        elif known is None and label >= 0:
            return int(label)
        elif known is not None and 0 <= label < len(known):
            name = known[label]
        else:
            raise ValueError(f"Clip {clip_id} has label {label}, which is none of the classes {known}.")
        if wanted is None or name not in wanted:
            raise ValueError(
                f"Clip {clip_id} has the class {name!r}, which is not among {wanted}. Give them as `labels`."
            )
        return wanted.index(name)


def _column(rows: datasets.Dataset | Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return list(rows[name]) if isinstance(rows, datasets.Dataset) else [row[name] for row in rows]


def _row_class_names(rows: datasets.Dataset | Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The names that the rows' integer labels stand for, if the data set knows them."""
    feature = rows.features.get("label") if isinstance(rows, datasets.Dataset) else None
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _source(row: Mapping[str, Any]) -> Any:
    """Source of a clip for `STTVideoProcessor.read_clip`: its frame files, or the path or bytes of its video."""
    if row.get("frames") is not None:
        return list(row["frames"])
    video = row["video"]
    return (video.get("bytes") or video["path"]) if isinstance(video, Mapping) else video
