"""Segments: stretches of one track and one label, and what they add up to for each track.

Windows overlap, but time must not be counted twice. Each window stands for the stretch from the middle of its overlap
with the window before to the middle of its overlap with the next; the first and the last reach to their own ends.

Smoothing. The answer of a window for segments is the class with the highest mean score over the windows of its track
whose middles are within `smooth_s / 2` of its own; it is "unsure" if most of these are. States in which nothing is
scored are not smoothed, and smoothing does not reach across them. Neighbours of one answer that touch are one segment.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from .rows import UNSURE, Row
from .windows import TICK_S

SMOOTH_S = 2.0


@dataclass(frozen=True)
class Segment:
    """A stretch of one track with one answer, or of nobody.

    Args:
        track: Id of the track; None where nobody is seen.
        start_s: Begin in seconds.
        end_s: End in seconds.
        name: Label, "unsure", or the state in which nothing is scored.
        is_label: True if the name is a label.
        mean_score: Mean probability of the label over the segment's windows, in [0, 1]; None without a label.
        peak_s: Middle of the window with the label's highest probability, in seconds; None without a label.
    """

    track: int | None
    start_s: float
    end_s: float
    name: str
    is_label: bool = False
    mean_score: float | None = None
    peak_s: float | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class TrackSummary:
    """Summary of a track.

    Args:
        track: Its id.
        start_s: Begin of its first segment in seconds.
        end_s: End of its last segment.
        seconds: Seconds of each label by name, the most first.
        unsure_s: Seconds in which it is judged without a sure answer.
        unseen_s: Seconds between its begin and end in which its face is hidden, lost or too small.
    """

    track: int
    start_s: float
    end_s: float
    seconds: dict[str, float]
    unsure_s: float
    unseen_s: float

    @property
    def shares(self) -> dict[str, float]:
        """Share of each label in the time with a sure answer; they sum to 1 if there is any."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()}


def segments(rows: Iterable[Row], smooth_s: float = SMOOTH_S) -> list[Segment]:
    """Join rows into segments by the rule that the module states.

    Args:
        rows: Of one video, in any order.
        smooth_s: Seconds over which scores are averaged; 0 to take each window's own answer.

    Returns:
        Segments by track, those of nobody last, each in time order.

    Raises:
        ValueError: For a negative `smooth_s`.
    """
    if not smooth_s >= 0:
        raise ValueError(f"smooth_s={smooth_s} must be at least 0 seconds.")
    rows = list(rows)
    spans = stretches((row.start_s, row.end_s) for row in rows)
    tracks: dict[int | None, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=_middle):
        tracks[row.track].append(row)
    ordered = sorted(tracks, key=lambda track: (track is None, track))
    return [segment for track in ordered for segment in _segments_of(tracks[track], spans, smooth_s)]


def summarize(segments: Iterable[Segment]) -> list[TrackSummary]:
    """Add up the segments of each track, in the order of tracks."""
    tracks: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        if segment.track is not None:
            tracks[segment.track].append(segment)
    summaries = []
    for track, parts in sorted(tracks.items()):
        seconds: dict[str, float] = defaultdict(float)
        for part in parts:
            seconds[part.name if part.is_label or part.name == UNSURE else ""] += part.duration_s
        unsure_s, unseen_s = seconds.pop(UNSURE, 0.0), seconds.pop("", 0.0)
        labels = dict(sorted(seconds.items(), key=lambda item: -item[1]))
        start_s, end_s = min(part.start_s for part in parts), max(part.end_s for part in parts)
        summaries.append(TrackSummary(track, start_s, end_s, labels, unsure_s, unseen_s))
    return summaries


def stretches(windows: Iterable[tuple[float, float]]) -> dict[tuple[float, float], tuple[float, float]]:
    """Map each window, `(start_s, end_s)`, to the stretch that it stands for, without overlap and within it."""
    ordered = sorted(set(windows))
    starts, ends = [start for start, _ in ordered], [end for _, end in ordered]
    for i, (before, after) in enumerate(pairwise(ordered)):
        if (cut := middle_of_overlap(before, after)) is not None:
            ends[i] = starts[i + 1] = max(cut, starts[i])
    return dict(zip(ordered, zip(starts, ends, strict=True), strict=True))


def middle_of_overlap(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    """Second at which one window gives way to the next; None if there is a gap between them."""
    (_, end), (next_start, next_end) = before, after
    return (next_start + min(end, next_end)) / 2 if next_start <= end else None


def end_of_stretch(window: tuple[float, float], following: tuple[float, float]) -> float:
    """Second until which a window stands, given the next one."""
    cut = middle_of_overlap(window, following)
    return following[0] if cut is None else cut


def people(rows: Iterable[Row]) -> list[int]:
    """Ids of the tracks in the order in which they are first seen; those of one time from left to right."""
    firsts: dict[int, tuple[float, float]] = {}
    for row in rows:
        if row.track is not None:
            left = row.box[0] if row.box else 0.0
            firsts[row.track] = min((row.start_s, left), firsts.get(row.track, (row.start_s, left)))
    return sorted(firsts, key=lambda track: (*firsts[track], track))


def person(track: int | None) -> str:
    """Name of a track for people."""
    return "nobody" if track is None else f"person {track}"


def _segments_of(
    rows: Sequence[Row], spans: dict[tuple[float, float], tuple[float, float]], smooth_s: float
) -> list[Segment]:
    """Segments of one track, whose rows are in time order."""
    groups: list[list[Row]] = []
    names: list[str] = []
    for row, name in zip(rows, _smoothed(rows, smooth_s), strict=True):
        touches = groups and spans[row.start_s, row.end_s][0] <= spans[_times(groups[-1][-1])][1] + TICK_S
        if touches and names[-1] == name:
            groups[-1].append(row)
        else:
            groups.append([row])
            names.append(name)
    return [_segment(group, name, spans) for group, name in zip(groups, names, strict=True)]


def _smoothed(rows: Sequence[Row], smooth_s: float) -> list[str]:
    """The answer of each row of one track, in time order."""
    names: list[str] = []
    first = 0
    for i, row in enumerate(rows):
        if row.scores is None:
            names.append(row.state)
            first = i + 1
            continue
        while _middle(row) - _middle(rows[first]) > smooth_s / 2 + TICK_S:
            first += 1
        last = i
        while (
            last + 1 < len(rows)
            and rows[last + 1].scores
            and (_middle(rows[last + 1]) - _middle(row) <= smooth_s / 2 + TICK_S)
        ):
            last += 1
        near = rows[first : last + 1]
        if 2 * sum(each.state == UNSURE for each in near) > len(near):
            names.append(UNSURE)
        else:
            names.append(max(row.scores, key=lambda name: fmean((r.scores or {})[name] for r in near)))
    return names


def _segment(rows: Sequence[Row], name: str, spans: dict[tuple[float, float], tuple[float, float]]) -> Segment:
    start_s, end_s = spans[_times(rows[0])][0], spans[_times(rows[-1])][1]
    track = rows[0].track
    if rows[0].scores is None or name == UNSURE:
        return Segment(track, start_s, end_s, name)
    scores = [(row.scores or {})[name] for row in rows]
    peak = rows[scores.index(max(scores))]
    return Segment(track, start_s, end_s, name, True, fmean(scores), _middle(peak))


def _times(row: Row) -> tuple[float, float]:
    return row.start_s, row.end_s


def _middle(row: Row) -> float:
    return (row.start_s + row.end_s) / 2
