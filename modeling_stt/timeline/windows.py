"""Windows: clips of one face, cut from a longer video by seconds."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median

import numpy as np
import torch

from .faces import FaceCrop
from .tracks import Followed
from .video import TimedFrame

# Times are compared to the microsecond: a container's ticks don't add up exactly in binary seconds.
TICK_S = 1e-6

# Frames of a window that are kept; of a faster video, some are passed over.
MAX_FRAMES = 1024


@dataclass(eq=False)
class Sighting:
    """A tracked face in one frame.

    Args:
        time_s: The frame's time.
        box: Left, top, right, bottom in pixels of the frame.
        crop: The face's picture `(S, S, 3)` uint8 RGB; None for a face too small to be looked at.
        frame_size: Width and height of the frame in pixels.
        memo: What the scorer computed of the crop, kept for the other windows that look at it.
    """

    time_s: float
    box: tuple[float, float, float, float]
    crop: np.ndarray | None
    frame_size: tuple[int, int] = (1, 1)
    memo: torch.Tensor | None = None


@dataclass(frozen=True)
class Window:
    """A stretch of a video with what is seen of one track, or of nobody.

    Args:
        start_s: When it begins, on the clock of the video.
        end_s: When it ends. A frame of exactly that time belongs to it, as well as to the window that begins there.
        track: Id of the track; None where no track is.
        sightings: The track's face in the window's frames, in time order.
        num_frames: Frames of the window, with the face or without.
        dropped: Frames that are missing from it, see `TimedFrame.dropped`.
        left_out: Largest number of faces in one frame that were not followed, because there were too many.
    """

    start_s: float
    end_s: float
    track: int | None = None
    sightings: list[Sighting] = field(default_factory=list)
    num_frames: int = 0
    dropped: int = 0
    left_out: int = 0

    @property
    def face_share(self) -> float:
        """Share of the window's frames that have the track's face, in [0, 1]."""
        return len(self.sightings) / self.num_frames if self.num_frames else 0.0

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Median of the face's boxes in pixels of its last frame, from which others may differ in size."""
        if not self.sightings:
            return None
        width, height = self.sightings[-1].frame_size
        scaled = [
            np.multiply(s.box, np.tile([width / s.frame_size[0], height / s.frame_size[1]], 2)) for s in self.sightings
        ]
        return tuple(round(float(median(edge)), 1) for edge in zip(*scaled, strict=True))  # type: ignore[return-value]


@dataclass
class _Track:
    first_s: float
    sightings: deque[Sighting] = field(default_factory=deque)
    has_ended: bool = False


class WindowCutter:
    """Cuts what is seen, frame by frame, into windows; keeps no more than the longest window's frames.

    Windows begin every `stride_s` from the first frame on, for all tracks alike. A window includes the frame at its
    very end: at 25 fps, windows of 2 s then have 51 frames, and overlapping windows sample the same frames and share
    their backbone maps. With 50 frames, half of the sampled frames would differ by one.

    Args:
        length_s: Seconds of a window.
        stride_s: Seconds from one window's start to the next's; at most `length_s`, so that no second is left out.

    Raises:
        ValueError: For a length or stride that is not positive, and for a stride longer than the length.
    """

    def __init__(self, length_s: float, stride_s: float) -> None:
        if not 0 < stride_s <= length_s < np.inf:
            raise ValueError(
                f"Windows of {length_s} s every {stride_s} s cannot be cut: expected 0 < stride ≤ length, otherwise "
                "parts of the video would be in no window."
            )
        self.length_s, self.stride_s = length_s, stride_s
        self._frames: deque[tuple[float, int, int]] = deque()  # time, frames dropped, faces left out
        self._tracks: dict[int, _Track] = {}
        self._first_s: float | None = None
        self._index = 0
        self._last = TimedFrame(0.0, np.empty(0))
        self._last_step_s = 0.0

    def add(
        self, frame: TimedFrame, sightings: Mapping[int, Sighting], ended: Sequence[int] = (), left_out: int = 0
    ) -> list[Window]:
        """Take a frame's faces by track id, the ids of tracks that ended with it, and the number of faces left out.

        Returns:
            The windows that end before this frame, in the order of their time and track.
        """
        if self._first_s is None:
            self._first_s = frame.time_s
        else:
            self._last_step_s = frame.time_s - self._last.time_s
        windows = list(self._close_before(frame.time_s))
        self._last = frame._replace(image=self._last.image)  # the picture need not be kept
        self._frames.append((frame.time_s, frame.dropped, left_out))
        for track in self._tracks.keys() & set(ended):
            self._tracks[track].has_ended = True
        for track, sighting in sightings.items():
            self._tracks.setdefault(track, _Track(frame.time_s)).sightings.append(sighting)
        return windows

    def finish(self) -> list[Window]:
        """Return the windows that the video's end closes; the last one ends with the video."""
        if self._first_s is None:
            return []
        end_s = self._last.time_s + (self._last.duration_s or self._last_step_s)
        windows = list(self._close_before(end_s))
        if not self._index or self._start_s + self.length_s - self.stride_s < end_s - TICK_S:
            windows += self._cut(end_s, is_last=True)
        return windows

    @property
    def _start_s(self) -> float:
        return (self._first_s or 0.0) + self._index * self.stride_s

    def _close_before(self, time_s: float) -> Iterator[Window]:
        """Give the windows that end before a time, and go on to the first that does not."""
        while self._start_s + self.length_s < time_s - TICK_S:
            if self._frames:
                yield from self._cut(self._start_s + self.length_s)
                self._index += 1
            else:
                yield self._skip_gap(time_s)
            self._forget_before(self._start_s)

    def _skip_gap(self, time_s: float) -> Window:
        """Go on to the first window that does not end before a time; give one window for all before it."""
        start_s = self._start_s
        self._index += ceil((time_s - TICK_S - self.length_s - start_s) / self.stride_s)
        end_of_last_s = self._start_s - self.stride_s + self.length_s
        return Window(start_s, end_of_last_s)

    def _cut(self, end_s: float, is_last: bool = False) -> Iterator[Window]:
        start_s = self._start_s
        frames = [each for each in self._frames if each[0] <= end_s + TICK_S]
        counts = len(frames), sum(dropped for _, dropped, _ in frames), max((out for *_, out in frames), default=0)
        # A track that begins with the last frame begins with the next window. One without a sighting is lost for now.
        tracks = {
            id: [sighting for sighting in track.sightings if sighting.time_s <= end_s + TICK_S]
            for id, track in sorted(self._tracks.items())
            if frames and (is_last or track.first_s < end_s - TICK_S)
        }
        for id, sightings in tracks.items():
            yield Window(start_s, end_s, id, sightings, *counts)
        if not tracks:
            yield Window(start_s, end_s, None, [], *counts)

    def _forget_before(self, time_s: float) -> None:
        while self._frames and self._frames[0][0] < time_s - TICK_S:
            self._frames.popleft()
        for id, track in list(self._tracks.items()):
            while track.sightings and track.sightings[0].time_s < time_s - TICK_S:
                track.sightings.popleft()
            if track.has_ended and not track.sightings:
                del self._tracks[id]


def cut_windows(followed: Iterable[Followed], crop: FaceCrop, cutter: WindowCutter) -> Iterator[Window]:
    """Cut the faces that `follow_faces` gives out of their frames, and the video into windows of them.

    Yields:
        The windows in the order of their time and track, each as soon as it is over.
    """
    for frame, faces, ended, left_out in followed:
        height, width = frame.image.shape[:2]
        sightings = {
            track: Sighting(
                frame.time_s, face.box, None if crop.too_small(face) else crop(frame.image, face), (width, height)
            )
            for track, face in faces.items()
        }
        yield from cutter.add(frame, sightings, ended, left_out)
    yield from cutter.finish()
