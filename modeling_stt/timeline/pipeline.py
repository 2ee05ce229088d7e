"""From a video to rows: who shows which expression from which second to which."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from .. import pretrained
from ..loading import ModelError, refuse_non_finite_scores
from .baseline import relative_to_rest
from .detection import find_faces, load_detector
from .faces import Face, FaceCrop, FaceDetector
from .rows import FACE, LOST, NO_FACE, NO_FRAMES, TOO_SMALL, Row, answered, rows_to_frame
from .scorers import Function, Scorer, canonical_names, load_scorer, trained_on_synthetic
from .tracks import FaceTracker, follow_faces
from .video import DamagedVideoError, Footage, Source, in_thread, is_live
from .windows import MAX_FRAMES, Window, WindowCutter, cut_windows

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC = "trained on synthetic faces"

FRAMES_AHEAD = 3  # decoded in advance; each frame of a large video takes much memory

logger = logging.getLogger(__name__)


def model_note(name: str) -> str:
    """Name a model, of the Hub or a folder, for a picture; say if it was trained on synthetic faces."""
    return " · ".join([f"model {_public_name(name)}", *([SYNTHETIC] if trained_on_synthetic(name) else [])])


def _public_name(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


@dataclass
class Timeline:
    """Reads videos with one model: `Timeline(model)(video)` gives the video's rows.

    Args:
        model: Folder or name on the Hub of a trained STT, or of another classifier of videos or images; one that is
            loaded; or a function from the crops of a window `(T, S, S, 3)` uint8 RGB to probabilities, or its name as
            `"module:function"`. By default the weights that come with the package, see `modeling_stt.pretrained`.
        processor: The processor of a loaded model; needed, and only taken, with one.
        detector: Name or function for [`load_detector`], or a detector.
        detect_fps: Search only this many frames a second for faces. In the frames between, a face that was seen before
            and after is interpolated linearly. By default every frame is searched.
        tracker: Makes the tracker of a video.
        window_s: Seconds of a window.
        stride_s: Seconds from one window's start to the next's, at most `window_s`.
        min_face_share: Smallest share of a window's frames that must have the face for it to be scored.
        batch_size: Windows that go through the model at once. Live sources don't wait for others.
        device: Where the model runs, such as `"cuda"`; by default a GPU if there is one, or where a loaded model is.
        dtype: Precision of a model to load, such as `"bfloat16"`; by default float32.
        thumbnails: Give rows a picture of the face; 38 kB each where faces are cut to 112 px.
        min_score: Answers whose highest probability is below this are "unsure". By default the model's own threshold,
            if its calibration gave one; 0 to answer always.
        face_crop: How faces are cut out; by default as the model says.
        class_names: Names of a function's classes, if it has no attribute `class_names`; only taken with a function as
            model. For models, their own once they are loaded.
        labels: `"canonical"` renames the classes to one spelling, see `canonical_names`.
        baseline: Give scores relative to a person's own resting face, see `relative_to_rest`: from which to which
            second it rests, or `"auto"` for the median of each track. Rows then come when the video is over.
        revision: Branch, tag or commit of a model on the Hub.
        trust_remote_code: Run Python code that the model's repository carries, see `load_model`.

    Raises:
        ModelError: For a model that cannot be loaded as a whole.
        ValueError: For windows that leave out seconds, numbers out of range, a device that this machine lacks, and a
            loaded model without processor.
    """

    model: str | PathLike | PreTrainedModel | Function | None = None
    processor: Any = None
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
    min_score: float | None = None
    face_crop: FaceCrop | None = None
    class_names: list[str] = field(default_factory=list)
    labels: Literal["own", "canonical"] = "own"
    baseline: tuple[float, float] | Literal["auto"] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    scorer: Scorer = field(init=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.model is None:
            self.model = pretrained.folder()
            logger.warning(
                "No model was given, so the package's own weights answer. They were trained on rendered faces alone "
                "and are weak on real ones (docs/real_faces.md): check them with 'stt score', or give another model."
            )
        loading = {"dtype": self.dtype, "revision": self.revision, "trust_remote_code": self.trust_remote_code}
        self.scorer = load_scorer(
            self.model,
            self.processor,
            class_names=self.class_names,
            face_crop=self.face_crop,
            device=self.device,
            **loading,
        )
        self.class_names = self.scorer.class_names
        if self.labels == "canonical":
            self.class_names, unmapped = canonical_names(self.scorer.class_names)
            if unmapped:
                logger.warning("These classes keep the model's names, as none fits: %s.", ", ".join(unmapped))
        if self.min_score is None:
            self.min_score = self.scorer.min_score
        if not isinstance(self.detector, FaceDetector):
            self.detector = load_detector(self.detector)

    def _check_numbers(self) -> None:
        WindowCutter(self.window_s, self.stride_s)  # refuses invalid values
        if not 0 < self.min_face_share <= 1 or self.batch_size < 1:
            raise ValueError(
                f"min_face_share={self.min_face_share} must lie in (0, 1], batch_size={self.batch_size} be at least 1."
            )
        if self.detect_fps is not None and not self.detect_fps > 0:
            raise ValueError(f"detect_fps={self.detect_fps} must be more than 0, or None for every frame.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score} must lie in [0, 1].")
        if self.labels not in ("own", "canonical"):
            raise ValueError(f"labels={self.labels!r} must be 'own' or 'canonical'.")
        if self.baseline not in (None, "auto") and not self.baseline[0] < self.baseline[1]:  # type: ignore[operator]
            raise ValueError(f"baseline={self.baseline} must be 'auto', or seconds (start, end) with start < end.")

    @property
    def crop(self) -> FaceCrop:
        """Convention by which faces are cut out of their frames."""
        return self.scorer.crop

    @property
    def is_synthetic(self) -> bool:
        """True if the model's folder says that it was trained on synthetic faces."""
        return trained_on_synthetic(self.scorer.name)

    @property
    def model_name(self) -> str:
        """Name of the model for other people: of a folder its own name, for its path is of this machine alone."""
        return _public_name(self.scorer.name)

    def note(self) -> str:
        """Say in a line which model answers, and how: for pictures and reports."""
        parts = [f"model {self.model_name}", f"windows of {self.window_s:g} s every {self.stride_s:g} s"]
        if self.min_score:
            parts.append(f"unsure below {self.min_score:.2f}")
        if self.baseline is not None:
            parts.append("relative to each person's resting face")
        if self.is_synthetic:
            parts.append(SYNTHETIC)
        return " · ".join(parts)

    def settings(self) -> dict[str, Any]:
        """Return what decides the contents of rows: model, classes, crop, detector, windows and thresholds."""
        return {
            "model": self.scorer.name,
            "revision": self.revision,
            "classes": self.class_names,
            "face_crop": self.crop.to_dict(),
            "detector": getattr(self.detector, "name", self.detector),
            "detect_fps": self.detect_fps,
            "dtype": self.scorer.dtype,
            "window_s": self.window_s,
            "stride_s": self.stride_s,
            "min_face_share": self.min_face_share,
            "min_score": self.min_score,
            "baseline": list(self.baseline) if isinstance(self.baseline, tuple) else self.baseline,
        }

    def __call__(
        self, video: Source, name: str | None = None, live: bool | None = None, stop: Event | None = None
    ) -> Iterator[Row]:
        """Give the rows of a video in time order, as it is read. See `timeline` for arguments and errors."""
        for row, _ in self.windows(video, name, live, stop):
            yield row

    def windows(
        self, video: Source, name: str | None = None, live: bool | None = None, stop: Event | None = None
    ) -> Iterator[tuple[Row, Window]]:
        """Give the rows of a video, each with its window. See `timeline` for arguments and errors."""
        rows = self.read(video, name, live, stop)
        return rows if self.baseline is None else relative_to_rest(rows, self.baseline, self.min_score)

    def read(
        self,
        video: Source,
        name: str | None = None,
        live: bool | None = None,
        stop: Event | None = None,
        score: bool = True,
    ) -> Iterator[tuple[Row, Window]]:
        """Read a video from its frames to its rows, a window at a time; see `timeline` for arguments and errors.

        Frames are decoded in one thread, faces are found and followed in others, and the model scores earlier windows
        in this one. Damage is raised after everything before it has been given.

        Args:
            video: See `timeline`, as for `live` and `stop`.
            name: Name of the video in its rows.
            live: See `timeline`.
            stop: See `timeline`.
            score: Run the model; if false, rows have only a state.
        """
        name = name or (fspath(video) if isinstance(video, str | PathLike) else "frames")
        at_once = 1 if (is_live(video) if live is None else live) else self.batch_size
        detector = self.detector
        assert isinstance(detector, FaceDetector)

        footage = Footage(video, live, stop, ahead=FRAMES_AHEAD, min_step_s=self.window_s / MAX_FRAMES)
        searched = find_faces(footage, detector, self.detect_fps)
        followed = follow_faces(searched, self.tracker())
        windows = cut_windows(followed, self.crop, WindowCutter(self.window_s, self.stride_s))
        windows = in_thread(windows, 2 * at_once)
        while batch := list(islice(windows, at_once)):
            states = [self._state(window) for window in batch]
            faces = [window for window, state in zip(batch, states, strict=True) if state == FACE]
            scores = iter(self._score(faces) if score and faces else [None] * len(faces))
            for window, state in zip(batch, states, strict=True):
                yield self._row(window, name, state, next(scores) if state == FACE else None), window
        footage.finish(name)

    def _state(self, window: Window) -> str:
        if not window.num_frames:
            return NO_FRAMES
        if window.track is None:
            return NO_FACE
        if not window.sightings or window.face_share < self.min_face_share:
            return LOST
        num_small = sum(sighting.crop is None for sighting in window.sightings)
        return TOO_SMALL if 2 * num_small > len(window.sightings) else FACE

    def _score(self, windows: Sequence[Window]) -> list[dict[str, float]]:
        """Probabilities by class of each window, checked; at most a batch goes through the model at once."""
        parts = [windows[i : i + self.batch_size] for i in range(0, len(windows), self.batch_size)]
        scores = np.concatenate([self.scorer.scores(part) for part in parts])
        refuse_non_finite_scores(scores, f"The model {self.scorer.name}", self.scorer.dtype)
        if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > 0.01:
            raise ModelError(
                f"The model {self.scorer.name} gives {scores[0].tolist()} as scores: expected probabilities that sum "
                "to 1."
            )
        return [dict(zip(self.class_names, each.tolist(), strict=True)) for each in scores]

    def _row(self, window: Window, name: str, state: str, scores: dict[str, float] | None) -> Row:
        pictures = [sighting.crop for sighting in window.sightings if sighting.crop is not None]
        row = Row(
            name,
            window.track,
            round(window.start_s, 6),
            round(window.end_s, 6),
            state,
            box=window.box,
            face_share=round(window.face_share, 4),
            frames_dropped=window.dropped,
            faces_left_out=window.left_out,
            thumbnail=pictures[len(pictures) // 2] if self.thumbnails and pictures else None,
        )
        return row if scores is None else answered(row, scores, self.min_score)


def timeline(
    video: Source,
    model: str | PathLike | PreTrainedModel | Function | None = None,
    live: bool | None = None,
    stop: Event | None = None,
    **options: Any,
) -> Iterator[Row]:
    """Find out who shows which expression when: give the rows of a video as it is read, in constant memory.

    Every second of the video lies in a row. Whatever keeps a face from being judged is a state, not an error.

    Args:
        video: File, http(s) address, camera (`/dev/video0`), live address (`rtsp://…`), or an iterable of
            `(seconds, frame)`, frames `(H, W, 3)` uint8 RGB.
        model: See [`Timeline`].
        live: Frames come at their own pace and are dropped, and counted, where they can't be kept up with. By default,
            cameras and live addresses are live.
        stop: Once this event is set, the video ends with the frame at hand: rows up to there follow.
        options: As for [`Timeline`], which is what to use for several videos.

    Yields:
        Rows in the order of their windows, then of their tracks.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For what is not a video, or has no frame; it is named.
        ModelError: For a model that cannot be loaded as a whole, or whose scores are not probabilities.
        DamagedVideoError: For a video that is cut short or breaks off, after the rows of what could be read.
    """
    return Timeline(model, **options)(video, live=live, stop=stop)


def timeline_frame(
    video: Source,
    model: str | PathLike | PreTrainedModel | Function | None = None,
    live: bool | None = None,
    **options: Any,
) -> "pd.DataFrame":
    """Return the rows of a video as one data frame, see `timeline` and `rows_to_frame`; damage becomes a warning."""
    reader = Timeline(model, **options)
    rows: list[Row] = []
    try:
        rows.extend(reader(video, live=live))  # what came before an error is kept
    except DamagedVideoError as error:
        warnings.warn(f"The rows end where the video does: {error}", stacklevel=2)
    return rows_to_frame(rows, reader.class_names)
