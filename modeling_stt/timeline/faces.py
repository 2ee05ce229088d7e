"""A face in a frame, and how it becomes the square picture that a model sees."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn import functional as F

# Positions of the five landmarks of an upright frontal face in the square around it, from the top left corner, in
# units of its side: the reference at 112 px that face recognition commonly uses (SphereFace, ArcFace), made symmetric,
# so that mirrored crops are crops of mirrored faces.
REFERENCE_POINTS = np.array([[0.343, 0.461], [0.657, 0.461], [0.5, 0.64], [0.37, 0.824], [0.63, 0.824]])


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in one frame.

    Args:
        box: Left, top, right, bottom in pixels of the upright frame, 0 being the frame's edge; may reach outside it.
        score: How sure the detector is, in [0, 1].
        landmarks: `(5, 2)` x, y in pixels, left and right as seen in the picture: left eye, right eye, tip of the
            nose, left and right corner of the mouth. None where the detector gives none.

    Raises:
        ValueError: For a box without area, numbers that are not finite, landmarks of another shape.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (np.isfinite(self.box).all() and left < right and top < bottom):
            raise ValueError(f"box={self.box} is not a box: expected left < right and top < bottom, in pixels.")
        if self.landmarks is not None and (self.landmarks.shape != (5, 2) or not np.isfinite(self.landmarks).all()):
            raise ValueError(f"Expected five finite landmarks as an array (5, 2), got {self.landmarks!r}.")

    @property
    def center(self) -> tuple[float, float]:
        """x and y of the box's centre in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def side(self) -> float:
        """The box's longer side in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


def place_between(before: Face, after: Face, share: float) -> Face:
    """Interpolate a face linearly between where it was (`share` 0) and where it will be (1)."""
    box = tuple((1 - share) * start + share * end for start, end in zip(before.box, after.box, strict=True))
    marks = None
    if before.landmarks is not None and after.landmarks is not None:
        marks = (1 - share) * before.landmarks + share * after.landmarks
    return Face(box, min(before.score, after.score), marks)  # type: ignore[arg-type]


def rescale(face: Face, width: float, height: float) -> Face:
    """A face in the pixels of a frame that is larger by these factors."""
    left, top, right, bottom = face.box
    marks = None if face.landmarks is None else face.landmarks * (width, height)
    return Face((left * width, top * height, right * width, bottom * height), face.score, marks)


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces. Anything with a name and this method is a detector."""

    name: str

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of each frame, best first; frames are `(H, W, 3)` uint8 RGB, of any sizes."""
        ...


@dataclass(frozen=True)
class FaceCrop:
    """The convention by which a face becomes a picture, in training and in use; a model's processor stores it.

    It is our own: how the published data sets were cropped is not known exactly. If landmarks are known and wanted,
    the picture is turned, shifted and scaled (never sheared or mirrored) so that the five points come closest to
    `REFERENCE_POINTS`; otherwise it is the upright square around the centre of the face's box. Without margin, both
    are about as large as the box is high (aligned squares measured 0.94 to 1.07 of that, in six real videos).
    Everything beyond the frame's edge is black.

    Args:
        margin: Margin added on each side, as a share of the square's side. 0.1 keeps the chin of an open mouth; -0.05
            cuts closer, so that the face has more of a small picture's pixels.
        align: Use landmarks.
        size: Side of the picture in pixels; what it shows does not depend on it. A model wants its `image_size`.
        min_side: Faces whose box is smaller than this, in pixels of the frame, are too small to be read. Below 32, the
            picture is enlarged more than threefold, and landmarks become inaccurate (see `benchmarks/`).

    Raises:
        ValueError: For numbers out of range.
    """

    margin: float = 0.1
    align: bool = True
    size: int = 112
    min_side: int = 32

    def __post_init__(self) -> None:
        if not -0.25 <= self.margin <= 2 or self.size < 1 or self.min_side < 0:
            raise ValueError(
                "Expected a margin in [-0.25, 2], a size of at least 1 px and a min_side of at least 0 px, got "
                f"{self}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary, for `STTVideoProcessor.face_crop`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FaceCrop":
        """The crop that a model's processor names (`STTVideoProcessor.face_crop`).

        Raises:
            ValueError: For an unknown key: crops would silently differ from those of training.
        """
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ValueError(
                f"face_crop={values} has unknown keys {unknown}: was it made by a later release of this package?"
            )
        return cls(**values)

    def too_small(self, face: Face) -> bool:
        """Return whether the face has too few pixels for its expression to be read."""
        return face.side < self.min_side

    def __call__(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The face's picture, `(size, size, 3)` uint8, cut from a frame `(H, W, 3)` uint8 RGB.

        Raises:
            ValueError: For a frame of another shape or type.
        """
        check_frame(frame)
        return _sample(frame, *self.placement(face), self.size)

    def placement(self, face: Face) -> tuple[complex, complex]:
        """Return the step of a pixel of the picture in the frame, and its left top corner: x + iy in pixels."""
        if self.align and face.landmarks is not None:
            points = face.landmarks @ (1, 1j)
            wanted = (REFERENCE_POINTS + self.margin) @ (1, 1j) * self.size / (1 + 2 * self.margin)
            # Least squares in the picture, not in the frame: for points that fit badly, as in profile, the former cuts
            # too large a square, the latter too small a one.
            centered = points - points.mean()
            turned = np.vdot(centered, wanted - wanted.mean())
            if abs(turned) > 0:
                step = complex(np.vdot(centered, centered).real / turned)
                return step, complex(points.mean() - step * wanted.mean())
        step = complex(face.side * (1 + 2 * self.margin) / self.size)
        return step, complex(*face.center) - step * self.size * (0.5 + 0.5j)


def check_frame(frame: np.ndarray) -> None:
    """Raise a ValueError unless this is a frame `(H, W, 3)` of uint8."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(f"Expected a frame (H, W, 3) of uint8 RGB, got shape {frame.shape}, {frame.dtype}.")


def _sample(frame: np.ndarray, step: complex, corner: complex, size: int) -> np.ndarray:
    """The square of the frame, `(size, size, 3)`, that begins at a corner, a pixel of it going one step to the right.

    Step and corner are x + iy in pixels of the frame. What lies beyond the frame is black.
    """
    ticks = np.arange(size) + 0.5
    x = corner.real + step.real * ticks - step.imag * ticks[:, None]
    y = corner.imag + step.imag * ticks + step.real * ticks[:, None]
    ends = np.ix_([0, -1], [0, -1])
    shrinking = max(1.0, abs(step))
    start = np.array([y[ends].min(), x[ends].min()]) - 2 * shrinking
    end = np.array([y[ends].max(), x[ends].max()]) + 2 * shrinking
    top, left = np.floor(start).clip(0, frame.shape[:2]).astype(int)
    bottom, right = np.ceil(end).clip(0, frame.shape[:2]).astype(int)
    if top >= bottom or left >= right:
        return np.zeros((size, size, 3), np.uint8)
    pixels = torch.from_numpy(np.ascontiguousarray(frame[top:bottom, left:right])).permute(2, 0, 1)[None]
    if shrinking > 1:  # to the picture's resolution first, to avoid aliasing
        shrunk = [max(1, round((bottom - top) / shrinking)), max(1, round((right - left) / shrinking))]
        pixels = F.interpolate(pixels, size=shrunk, mode="bilinear", antialias=True)
    grid = np.stack([2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1], axis=-1)
    colors = F.grid_sample(pixels.float(), torch.from_numpy(grid)[None].float(), mode="bicubic", align_corners=False)[
        0
    ]
    return colors.round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
