"""From a video to rows: who shows which expression from which second to which."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from statistics import median
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor
from .faces import Face, FaceCrop, FaceDetector, load_detector
from .tracks import FaceTracker, follow_faces
from .video import DamagedVideoError, Source, TimedFrame, in_thread, is_live, read_frames
from .windows import Sighting, Window, WindowCutter, WindowScorer

if TYPE_CHECKING:
    import pandas as pd

FACE, NO_FACE, TOO_SMALL, LOST, NO_FRAMES = "face", "no face", "face too small", "lost", "no frames"
STATES = (FACE, NO_FACE, TOO_SMALL, LOST, NO_FRAMES)

FRAMES_AHEAD = 3  # decoded before they are asked for; of a large video each takes much memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One window of one track; of nobody, where nobody is.

    Args:
        video: What the video was given as.
        track: Id of the track, unique in its video; None in the states "no face" and "no frames".
        start_s: Where the window begins, in seconds on the clock of the video's container.
        end_s: Where it ends.
        state: `"face"`: scored. `"no face"`: nobody is there. `"face too small"`: somebody is, in most of the frames
            too small to be judged. `"lost"`: the track's face is in too few of the frames: it was hidden, came late or
            left early. `"no frames"`: the video has none in this time.
        label: Name of the class of the highest score; None unless the state is "face", as for `scores` and `margin`.
        scores: A probability for each class by name; they sum to 1.
        margin: Highest score less the second, in [0, 1]: how clear the label is.
        box: Where the face is, the median of its boxes: left, top, right, bottom in pixels of the upright frame.
        face_share: Share of the window's frames that have the face, in [0, 1].
        frames_dropped: Frames missing from the window: damaged ones, and of live sources those that came faster than
            they could be looked at.
        thumbnail: With `Timeline(thumbnails=True)`, the face's picture from the middle of the window, `(S, S, 3)`
            uint8 RGB, S that of the processor's `face_crop`; None where no face can be cut out. Not a column of
            tables.
    """

    video: str
    track: int | None
    start_s: float
    end_s: float
    state: str
    label: str | None = None
    scores: dict[str, float] | None = None
    margin: float | None = None
    box: tuple[float, float, float, float] | None = None
    face_share: float = 0.0
    frames_dropped: int = 0
    thumbnail: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """One flat record, the same columns in every state: see `columns`."""
        box = self.box or (None,) * 4
        scores = self.scores or {}
        values = [self.video, self.track, self.start_s, self.end_s, self.state, self.label, self.margin]
        values += [scores.get(name) for name in class_names] + [*box, self.face_share, self.frames_dropped]
        return dict(zip(columns(class_names), values, strict=True))


def columns(class_names: Sequence[str]) -> dict[str, type]:
    """Names and types of a table's columns, in order; all but video, times, state, share and count may be missing."""
    kinds: dict[str, type] = {"video": str, "track": int, "start_s": float, "end_s": float, "state": str}
    kinds |= {"label": str, "margin": float} | {f"score_{name}": float for name in class_names}
    kinds |= {f"face_{side}": float for side in ("left", "top", "right", "bottom")}
    return kinds | {"face_share": float, "frames_dropped": int}


@dataclass
class Timeline:
    """Reads videos with one model: `Timeline(model)(video)` gives the video's rows.

    Args:
        model: Folder or name on the Hub of a saved STT, or one that is loaded.
        processor: The model's processor; needed, and only taken, with a loaded model.
        detector: Name or function for [`load_detector`], or a detector.
        detect_fps: Look for faces in so many frames a second only. In the frames between, a face that was seen before
            and after is taken to be on the straight line. By default every frame is searched.
        tracker: Makes the tracker of a video.
        window_s: Seconds of a window.
        stride_s: Seconds from one window's start to the next's, at most `window_s`.
        min_face_share: Least share of a window's frames that must have the face for it to be scored.
        batch_size: Windows that go through the model at once. Live sources don't wait for others.
        device: Where the model runs, such as `"cuda"`; by default a GPU if there is one, or where a loaded model is.
        dtype: Precision of a model to load, such as `"bfloat16"`; by default float32.
        thumbnails: Whether rows carry a picture of the face; 38 kB each where faces are cut to 112 px.

    Raises:
        ValueError: For windows that leave out seconds, shares or batches out of range, and a loaded model without
            processor.
    """

    model: str | PathLike | STTForVideoClassification
    processor: STTVideoProcessor | None = None
    detector: str | Callable[[np.ndarray], Sequence[Face]] | FaceDetector = "default"
    detect_fps: float | None = None
    tracker: Callable[[], FaceTracker] = FaceTracker
    window_s: float = 2.0
    stride_s: float = 1.0
    min_face_share: float = 0.5
    batch_size: int = 8
    device: str | torch.device | None = None
    dtype: torch.dtype | str | None = None
    thumbnails: bool = False
    crop: FaceCrop = field(init=False)
    scorer: WindowScorer = field(init=False)

    def __post_init__(self) -> None:
        WindowCutter(self.window_s, self.stride_s)  # refuses what cannot be
        if not 0 < self.min_face_share <= 1 or self.batch_size < 1:
            raise ValueError(
                f"min_face_share={self.min_face_share} must lie in (0, 1], batch_size={self.batch_size} be at least 1."
            )
        if self.detect_fps is not None and not self.detect_fps > 0:
            raise ValueError(f"detect_fps={self.detect_fps} must be more than 0, or None for every frame.")
        try:
            device = torch.device(self.device or "cpu")
        except RuntimeError as error:
            raise ValueError(
                f"device={self.device!r} is none that torch knows: expected 'cpu' or 'cuda:1'."
            ) from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={self.device!r}: torch finds no GPU here; leave it out, or say 'cpu'.")
        model, processor = load_model(self.model, self.processor, self.dtype)
        if self.device is not None:
            model = model.to(self.device)  # type: ignore[arg-type]
        elif not isinstance(self.model, STTForVideoClassification) and torch.cuda.is_available():
            model = model.to("cuda")  # type: ignore[arg-type]
        self.scorer = WindowScorer(model, processor)
        self.crop = _crop_of(processor)
        if not isinstance(self.detector, FaceDetector):
            self.detector = load_detector(self.detector)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the score columns."""
        return self.scorer.model.config.class_names

    def settings(self) -> dict[str, Any]:
        """What decides what rows look like: model, classes, crop, detector and windows."""
        config = self.scorer.model.config
        model = config._name_or_path if isinstance(self.model, STTForVideoClassification) else fspath(self.model)
        return {
            "model": model,
            "classes": self.class_names,
            "face_crop": self.crop.to_dict(),
            "detector": getattr(self.detector, "name", self.detector),
            "detect_fps": self.detect_fps,
            "dtype": str(self.scorer.model.dtype).removeprefix("torch."),
            "window_s": self.window_s,
            "stride_s": self.stride_s,
            "min_face_share": self.min_face_share,
        }

    def __call__(
        self, video: Source, name: str | None = None, live: bool | None = None, stop: Event | None = None
    ) -> Iterator[Row]:
        """The rows of a video, in time order, as it is read. See `timeline` for arguments and errors."""
        for row, _ in self.windows(video, name, live, stop):
            yield row

    def windows(
        self, video: Source, name: str | None = None, live: bool | None = None, stop: Event | None = None
    ) -> Iterator[tuple[Row, Window]]:
        """The rows of a video, each with the window that it tells of. See `timeline` for arguments and errors."""
        name = name or (fspath(video) if isinstance(video, str | PathLike) else "frames")
        for windows in self._cut(video, name, live, stop):
            yield from self._rows(windows, name)

    def _cut(
        self, video: Source, name: str, live: bool | None = None, stop: Event | None = None
    ) -> Iterator[list[Window]]:
        """The windows of a video, as many at a time as the model takes at once; they are not scored."""
        live = is_live(video) if live is None else live
        at_once = 1 if live else self.batch_size
        frames = read_frames(video, live)
        if not live:
            frames = in_thread(frames, FRAMES_AHEAD)
        # Frames are decoded in one thread, faces found in a second, while the model reads those before in this one.
        windows = in_thread(self._windows(frames, name, stop or Event()), 2 * at_once)
        waiting: list[Window] = []
        damage: DamagedVideoError | None = None
        try:
            for window in windows:
                waiting.append(window)
                if len(waiting) >= at_once:
                    yield waiting
                    waiting = []
        except DamagedVideoError as error:
            damage = error  # told when all that was seen has been
        yield waiting
        if damage is not None:
            raise damage

    def _windows(self, frames: Iterator[TimedFrame], name: str, stop: Event) -> Iterator[Window]:
        """Find and follow faces until the frames end, break off, or are to stop; cut that into windows."""
        detector = self.detector
        assert isinstance(detector, FaceDetector)
        cutter = WindowCutter(self.window_s, self.stride_s)
        damage: DamagedVideoError | None = None
        num_frames = num_dropped = 0
        try:
            for frame, faces, ended in follow_faces(frames, detector, self.tracker(), self.detect_fps):
                num_frames, num_dropped = num_frames + 1, num_dropped + frame.dropped
                sightings = {track: self._sighting(frame, face) for track, face in faces.items()}
                yield from cutter.add(frame, sightings, ended)
                if stop.is_set():
                    break
        except DamagedVideoError as error:
            damage = error
        yield from cutter.finish()
        if num_dropped:
            logger.warning(
                "%s: dropped frames, damaged or, of a live source, too many to be looked at: %d of %d.",
                *(name, num_dropped, num_frames + num_dropped),
            )
        if damage is not None:
            raise damage

    def _sighting(self, frame: TimedFrame, face: Face) -> Sighting:
        crop = None if self.crop.too_small(face) else self.crop(frame.image, face)
        return Sighting(frame.time_s, face.box, crop)

    def _rows(self, windows: list[Window], name: str) -> Iterator[tuple[Row, Window]]:
        states = [self._state(window) for window in windows]
        scored = [window for window, state in zip(windows, states, strict=True) if state == FACE]
        scores: list[list[float]] = []
        for first in range(0, len(scored), self.batch_size):
            scores += self.scorer.logits(scored[first : first + self.batch_size]).softmax(dim=-1).tolist()
        scores.reverse()
        for window, state in zip(windows, states, strict=True):
            yield self._row(window, name, state, scores.pop() if state == FACE else None), window

    def _state(self, window: Window) -> str:
        if not window.num_frames:
            return NO_FRAMES
        if window.track is None:
            return NO_FACE
        if not window.sightings or window.face_share < self.min_face_share:
            return LOST
        num_small = sum(sighting.crop is None for sighting in window.sightings)
        return TOO_SMALL if 2 * num_small > len(window.sightings) else FACE

    def _row(self, window: Window, name: str, state: str, scores: list[float] | None) -> Row:
        row: dict[str, Any] = {}
        if scores is not None:
            by_name = dict(zip(self.class_names, scores, strict=True))
            label, *others = sorted(by_name, key=lambda each: -by_name[each])
            margin = by_name[label] - max((by_name[other] for other in others), default=0.0)
            row = {"label": label, "scores": by_name, "margin": margin}
        if window.sightings:
            row["box"] = tuple(round(median(edge), 1) for edge in zip(*(s.box for s in window.sightings), strict=True))
        pictures = [sighting.crop for sighting in window.sightings if sighting.crop is not None]
        if self.thumbnails and pictures:
            row["thumbnail"] = pictures[len(pictures) // 2]
        return Row(
            name,
            window.track,
            round(window.start_s, 6),
            round(window.end_s, 6),
            state,
            face_share=round(window.face_share, 4),
            frames_dropped=window.dropped,
            **row,
        )


def timeline(
    video: Source,
    model: str | PathLike | STTForVideoClassification,
    live: bool | None = None,
    stop: Event | None = None,
    **options: Any,
) -> Iterator[Row]:
    """Who shows which expression when: the rows of a video, given as it is read, in constant memory.

    Every second of the video lies in a row. Whatever keeps a face from being judged is a state, not an error.

    Args:
        video: File, http(s) address, camera (`/dev/video0`), live address (`rtsp://…`), or an iterable of
            `(seconds, frame)`, frames `(H, W, 3)` uint8 RGB.
        model: Folder or name on the Hub of a saved STT, or one that is loaded.
        live: Whether frames come at their own pace and are dropped, and counted, where they can't be kept up with. By
            default, cameras and live addresses are live.
        stop: Once this event is set, the video ends with the frame at hand: rows up to there follow.
        options: As for [`Timeline`], which is what to use for several videos.

    Yields:
        Rows in the order of their windows, then of their tracks.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For what is no video, or has no frame; it is named.
        DamagedVideoError: For a video that is cut short or breaks off, after the rows of what could be read.
    """
    return Timeline(model, **options)(video, live=live, stop=stop)


def timeline_frame(video: Source, model: str | PathLike | STTForVideoClassification, **options: Any) -> "pd.DataFrame":
    """The rows of a video as one data frame; arguments as for `timeline`. What was damaged is warned of.

    Returns:
        A row for each window and track; columns as `columns` tells, those that may be missing as nullable types.
    """
    import pandas as pd

    live = options.pop("live", None)
    reader = Timeline(model, **options)
    records: list[dict[str, Any]] = []
    try:
        for row in reader(video, live=live):
            records.append(row.to_dict(reader.class_names))
    except DamagedVideoError as error:
        warnings.warn(f"The rows end where the video does: {error}", stacklevel=2)
    kinds = {str: "string", int: "Int64", float: "float64"}
    types = {name: kinds[kind] for name, kind in columns(reader.class_names).items()}
    return pd.DataFrame(records, columns=list(types)).astype(types)


def load_model(
    model: Any, processor: STTVideoProcessor | None = None, dtype: torch.dtype | str | None = None
) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """A model with its processor: of a folder or a name on the Hub, in float32 if no `dtype` is named; or as given.

    Raises:
        ValueError: For a loaded model without its processor, a folder of something else, and a processor beside either
            a folder or a name.
    """
    if isinstance(model, STTForVideoClassification):
        if processor is None:
            raise ValueError(
                "A loaded model needs its processor: give processor=STTVideoProcessor.from_pretrained(…)."
            )
        return model, processor
    if processor is not None:
        raise ValueError(f"The processor of {model} is loaded with it: give one only with a loaded model.")
    if Path(model).exists() and not (Path(model) / "config.json").is_file():
        raise ValueError(f"{model} has no config.json: expected the folder of a saved STT.")
    try:
        loaded = STTForVideoClassification.from_pretrained(model, dtype=dtype or torch.float32)
        return loaded, STTVideoProcessor.from_pretrained(model)
    except OSError as error:
        if Path(model).exists():
            raise  # what is wrong with the folder, transformers says
        raise ValueError(f"There is no folder {model}, and from the Hub it could not be loaded: {error}") from error


def _crop_of(processor: STTVideoProcessor) -> FaceCrop:
    """The crop of the model's training faces that its processor names, or the default one with a warning."""
    if processor.face_crop is not None:
        return FaceCrop.from_dict(processor.face_crop)
    crop = FaceCrop(size=processor.size["height"])
    logger.warning(
        "The model's processor does not say how its training faces were cropped (face_crop): they are cut as %s. "
        "Where that differs from the training, scores suffer.",
        crop,
    )
    return crop
