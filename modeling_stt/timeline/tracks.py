"""Tracking of faces: matches the faces of each frame with those of the frames before."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from .detection import INSTALL, Searched
from .faces import Face, place_between, rescale
from .video import TimedFrame

try:
    from scipy.optimize import linear_sum_assignment
except ImportError as error:
    raise ImportError(f"Following faces needs scipy: {INSTALL}") from error

# A frame begins a new shot if its thumbnail has changed by more than `CUT_CHANGE` of its contrast and the correlation
# of its edges is below `CUT_EDGES`, so that a flash or a fade does not count. Measured in 13 real videos at 24 to
# 30 fps: nine cuts change by 0.92 and more, the other 4,632 pairs of frames by 0.56 at most; 3,000 pairs of frames of
# different videos change by 0.82 and more, and their edges agree by 0.32 at most.
CUT_CHANGE = 0.7
CUT_EDGES = 0.5

# Distance (Hellinger, in [0, 1]) beyond which two faces don't look like one person. Measured: one person a second
# apart 0.29 (99th percentile) and 0.37 (most), persons of different videos 0.45 and more, but five persons in one
# photograph 0.39 and more: looks distinguish some people, not all.
LOOK_GATE = 0.45

# A face that fits a track worse than this (see `FaceTracker._cost`) is another one. A person hidden for a while must
# look alike as well.
MAX_COST = 1.2

# Tracks that are kept, those seen last; otherwise faces that jump about would leave ever more of them to be compared.
MAX_TRACKS = 128

VELOCITY_MEMORY_S = 0.15  # Single frames' boxes jitter.
LOOK_MEMORY_S = 1.0  # Long, so that an object passing in front of a face is not learnt as its look.
MAX_COAST_S = 0.5  # The motion of an unseen face is extrapolated for at most this long.


@dataclass(eq=False)
class _Track:
    track_id: int
    face: Face
    time_s: float
    velocity: np.ndarray
    look: np.ndarray

    def expected_center(self, time_s: float) -> np.ndarray:
        """Return the expected place of the face at this time if it moves on as it did, x and y in pixels."""
        return np.array(self.face.center) + self.velocity * min(time_s - self.time_s, MAX_COAST_S)

    def see(self, time_s: float, face: Face, look: np.ndarray) -> None:
        elapsed = time_s - self.time_s
        velocity = (np.array(face.center) - self.face.center) / elapsed
        self.velocity += (1 - math.exp(-elapsed / VELOCITY_MEMORY_S)) * (velocity - self.velocity)
        self.look += (1 - math.exp(-elapsed / LOOK_MEMORY_S)) * (look - self.look)
        self.face, self.time_s = face, time_s


class FaceTracker:
    """Follows the faces of a video frame by frame, by ids that stay with the person, in constant memory.

    A face belongs to the track whose motion leads to it and that looks alike (colours of head and neck), all faces and
    tracks of a frame being matched at once. A track survives while its face is hidden or missed for up to `max_gap_s`.
    It ends at a cut: nobody is recognised across shots. Frames may come at any rate above one in `max_gap_s`.

    Args:
        max_gap_s: Seconds that a face may be unseen before its track ends.
        start_score: Lowest score of a face that begins a track. Faces with lower scores only continue a track: a hand
            in front of a face does not end its track, and a doubtful face does not begin one.

    Attributes:
        ended: Ids that ended with the last update. Ids count from 1 and are never given twice; people who are first
            seen in the same frame are numbered from left to right.
        is_cut: True if the last frame was the first of a new shot.
    """

    def __init__(self, *, max_gap_s: float = 2.0, start_score: float = 0.8) -> None:
        self.max_gap_s = max_gap_s
        self.start_score = start_score
        self.ended: list[int] = []
        self.is_cut = False
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._size: tuple[int, int] | None = None  # width and height of the frames
        self._time_s = -math.inf
        self._thumbnail: np.ndarray | None = None

    def update(self, time_s: float, frame: np.ndarray, faces: Sequence[Face]) -> list[tuple[int, Face]]:
        """Take in the next frame.

        Args:
            time_s: When the frame is shown, in seconds, later than the one before.
            frame: `(H, W, 3)` uint8 RGB.
            faces: The faces found in it.

        Returns:
            Id and face of each that belongs to a track, in the order of `faces`.

        Raises:
            ValueError: For a time that is not later than the last frame's.
        """
        if not time_s > self._time_s:
            raise ValueError(f"Frames must come in order of time: {time_s} s came after {self._time_s} s.")
        self._rescale(frame.shape[1], frame.shape[0])
        thumbnail = _thumbnail(frame)
        self.is_cut = self._thumbnail is not None and _differ(self._thumbnail, thumbnail)
        over = [t for t in self._tracks if self.is_cut or time_s - t.time_s > self.max_gap_s]
        self.ended = [track.track_id for track in over]
        self._tracks = [track for track in self._tracks if track not in over]
        looks = [_look(frame, face) for face in faces]
        owners = self._match(time_s, faces, looks)
        # From left to right, so that people who are first seen together are numbered as they stand.
        for i in sorted(range(len(faces)), key=lambda i: faces[i].center[0]):
            track = owners[i]
            if track is not None:
                track.see(time_s, faces[i], looks[i])
            elif faces[i].score >= self.start_score:
                owners[i] = self._begin(time_s, faces[i], looks[i])
        if len(self._tracks) > MAX_TRACKS:
            self._tracks.sort(key=lambda track: -track.time_s)
            self.ended += [track.track_id for track in self._tracks[MAX_TRACKS:]]
            del self._tracks[MAX_TRACKS:]
        self._time_s, self._thumbnail = time_s, thumbnail
        return [(track.track_id, face) for track, face in zip(owners, faces, strict=True) if track is not None]

    def _rescale(self, width: int, height: int) -> None:
        """Bring what is known of the tracks to the size of this frame, where the video changes it."""
        if self._size is not None and self._size != (width, height):
            scale = width / self._size[0], height / self._size[1]
            for track in self._tracks:
                track.face, track.velocity = rescale(track.face, *scale), track.velocity * scale
        self._size = (width, height)

    def _begin(self, time_s: float, face: Face, look: np.ndarray) -> _Track:
        track = _Track(self._next_id, face, time_s, np.zeros(2), look)
        self._tracks.append(track)
        self._next_id += 1
        return track

    def _match(self, time_s: float, faces: Sequence[Face], looks: Sequence[np.ndarray]) -> list[_Track | None]:
        """The track that each face continues."""
        cost = [
            [self._cost(track, time_s, face, look) for face, look in zip(faces, looks, strict=True)]
            for track in self._tracks
        ]
        owners: list[_Track | None] = [None] * len(faces)
        for row, column in assign(np.array(cost).reshape(len(self._tracks), len(faces)), MAX_COST):
            owners[column] = self._tracks[row]
        return owners

    def _cost(self, track: _Track, time_s: float, face: Face, look: np.ndarray) -> float:
        """Return the misfit of face and track, from 0 to 2; infinite if they cannot be the same."""
        unseen_s = time_s - track.time_s
        small, large = sorted([face.side, track.face.side])
        reach = min(0.6 + unseen_s, 2.0) * (small + large) / 2
        distance = math.dist(face.center, track.expected_center(time_s))
        if distance > reach or large > (1.5 + unseen_s) * small:
            return math.inf
        unlike = _unlike(track.look, look)
        was_hidden = track.time_s < self._time_s
        return math.inf if was_hidden and unlike > LOOK_GATE else distance / reach + unlike


class Followed(NamedTuple):
    """A frame of a video with the faces in it by track.

    Attributes:
        frame: The frame.
        faces: Its faces by id of their track.
        ended: Ids of the tracks that ended with it.
        left_out: Faces of the frame beyond those that are followed.
    """

    frame: TimedFrame
    faces: dict[int, Face]
    ended: Sequence[int] = ()
    left_out: int = 0


def follow_faces(searched: Iterable[Searched], tracker: FaceTracker) -> Iterator[Followed]:
    """Follow the faces that `find_faces` gives from frame to frame.

    In frames that were not searched, a face that was seen before and after is interpolated linearly.

    Yields:
        Each frame with its faces by track.
    """
    last: TimedFrame | None = None  # that was searched
    before: dict[int, Face] = {}
    between: list[TimedFrame] = []
    for frame, found, left_out in searched:
        if found is None:
            between.append(frame)
            continue
        faces = dict(tracker.update(frame.time_s, frame.image, found))
        for each in between:
            assert last is not None
            share = (each.time_s - last.time_s) / (frame.time_s - last.time_s)
            pairs = {
                id: (_in_frame(before[id], last, each), _in_frame(faces[id], frame, each))
                for id in faces
                if id in before
            }
            yield Followed(each, {id: place_between(*pair, share) for id, pair in pairs.items()})
        yield Followed(frame, faces, list(tracker.ended), left_out)
        last, before, between = frame, faces, []
    for each in between:  # where their faces went is not known
        yield Followed(each, {})


def _in_frame(face: Face, frame: TimedFrame, other: TimedFrame) -> Face:
    """A face of one frame in the pixels of another, which may be of another size."""
    (height, width, _), (other_height, other_width, _) = frame.image.shape, other.image.shape
    return rescale(face, other_width / width, other_height / height)


def assign(cost: np.ndarray, alone: float) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, at the least total cost.

    Args:
        cost: `(N, M)` costs of pairs, at least 0; infinite for forbidden pairs.
        alone: Cost of a row without a column.

    Returns:
        Row and column of each pair, in the order of rows.
    """
    num_rows, num_columns = cost.shape
    # Each row gets a column of its own for staying alone, which is always cheaper than a forbidden pair.
    padded = np.full((num_rows, num_columns + num_rows), 2 * alone)
    padded[:, :num_columns] = np.minimum(cost, 2 * alone)
    padded[np.arange(num_rows), num_columns + np.arange(num_rows)] = alone
    pairs = zip(*linear_sum_assignment(padded), strict=True)
    return [(int(row), int(column)) for row, column in pairs if column < num_columns]


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """The frame's picture `(3, 18, 32)` float32 in [0, 1]."""
    step = max(1, min(frame.shape[0] // 90, frame.shape[1] // 160))  # what remains is enough to average over
    pixels = torch.from_numpy(np.ascontiguousarray(frame[::step, ::step])).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=(18, 32), mode="bilinear", antialias=True)[0].float().numpy() / 255


def _differ(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether two thumbnails, one after the other, are of different shots."""
    contrast = max(np.abs(t - t.mean(axis=(1, 2), keepdims=True)).mean() for t in (before, after))
    change = np.abs(after - before).mean() / (contrast + 0.02)  # noise in a black picture is not contrast
    first, second = (np.concatenate([edges.ravel() for edges in np.gradient(t.mean(axis=0))]) for t in (before, after))
    agreement = first @ second / (np.linalg.norm(first) * np.linalg.norm(second) + 1e-9)
    return bool(change > CUT_CHANGE and agreement < CUT_EDGES)


def _look(frame: np.ndarray, face: Face) -> np.ndarray:
    """Colours of the face with hair and neck: shares of 216 colours in its upper and lower half, `(432,)`, sum 1."""
    height, width = frame.shape[:2]
    left, top, right, bottom = face.box
    spare_x, spare_y = 0.3 * (right - left), 0.3 * (bottom - top)
    x = np.linspace(left - spare_x, right + spare_x, 32).clip(0, width - 1).astype(int)
    y = np.linspace(top - spare_y, bottom + spare_y, 32).clip(0, height - 1).astype(int)
    levels = frame[np.ix_(y, x)].astype(int) * 6 // 256
    colors = levels @ (36, 6, 1)
    return np.concatenate([np.bincount(half.ravel(), minlength=216) for half in (colors[:16], colors[16:])]) / 1024


def _unlike(look: np.ndarray, other: np.ndarray) -> float:
    """Hellinger distance of two looks, in [0, 1]."""
    return math.sqrt(max(0.0, 1 - np.sqrt(look * other).sum()))
