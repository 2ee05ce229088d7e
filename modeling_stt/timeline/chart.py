"""The chart of a video's rows over time.

Windows overlap, but a chart of time must not: each window is drawn as the stretch that it stands for (`segments`).
So every row is drawn once, with its own scores, around the middle of its window, and what is drawn adds up to the time
that the rows account for. Only if there are more windows than columns are neighbours averaged, and the chart says so.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fonts import literal, readable
from .pictures import STATE_COLOR, STATE_EDGE, STATE_HATCHES, Page, class_colors, ink_on
from .rows import FACE, UNSURE, Row
from .segments import Segment, person, segments, stretches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TRACKS = 8
MAX_COLUMNS = 360  # three pixels each at matplotlib's 100 dots an inch

# Inches.
FIGURE_WIDTH, LEFT, RIGHT = 12.0, 0.8, 0.2
THUMBNAIL, SCORES, BAND, PANEL_GAP = 0.62, 1.0, 0.24, 0.16
LINE, AXIS = 0.24, 0.45
LETTER = 0.075
LEGEND_LETTERS = 130  # of size 9, in one line; a patch and its spaces take six

TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)


def draw_timeline(
    rows: Iterable[Row],
    class_names: Sequence[str],
    *,
    title: str | None = None,
    note: str | None = None,
    smooth_s: float = 0.0,
) -> "Figure":
    """Draw the rows of a video as a chart over time.

    There is a panel for each track, in the order in which they appear: the scores stacked to 1, below them the
    segments, above them pictures of the face if rows have them (`Timeline(thumbnails=True)`). Unscored time is grey
    with the hatch and the name of its state; time without rows stays white. Of more than eight tracks the longest are
    drawn. More than 360 windows are drawn as columns of several: the mean of their scores, or the state that most of
    them have; their segments are smoothed over three columns. The chart states both reductions and the smoothing.

    Args:
        rows: Of one video, in any order.
        class_names: Names of the classes in the model's order, as `Timeline.class_names`; it decides the colours.
        title: Line above; by default the name of the video's file.
        note: Small line below the title, such as `Timeline.note()`: which model answers, and how.
        smooth_s: Seconds over which segments are smoothed, see `segments`; 0 to draw each window's own answer.

    Returns:
        The figure: `figure.savefig("chart.png")`, or `.svg`. The x-axis has the seconds of the container's clock.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: For no row, rows of several videos, and scores of other classes.
    """
    rows = list(rows)
    _check_rows(rows, class_names)
    title = Path(rows[0].video).name if title is None else title
    spans = stretches((row.start_s, row.end_s) for row in rows)
    times = list(spans.values())
    tracks, num_tracks = _longest_tracks(rows, spans)
    if len(tracks) < num_tracks:
        title += f"\n{num_tracks - len(tracks)} of {num_tracks} tracks left out, the shortest"
    size = -(-len(spans) // MAX_COLUMNS)
    if size > 1:
        title += f"\n{len(spans)} windows; each column is the mean of {size}"
        smooth_s = max(smooth_s, 3 * (times[-1][1] - times[0][0]) / MAX_COLUMNS)
    parts = segments(rows, smooth_s)
    if size > 1:
        rows = _averaged(rows, spans, size)
        spans = {(row.start_s, row.end_s): (row.start_s, row.end_s) for row in rows}
    if smooth_s > 0:
        note = f"{note} · " * bool(note) + f"answers smoothed over {smooth_s:.3g} s"
    unscored = [part for part in segments(rows, 0) if not part.is_label and part.name != UNSURE]
    with readable(title, note or "", *class_names):
        chart = _Chart(rows, class_names, spans, title, note, max(1, len(tracks)))
        chart.draw_legend({part.name for part in (*parts, *unscored) if part.track in (None, *tracks)})
        for number, track in enumerate(tracks or [None]):
            own = [row for row in rows if row.track == track]
            seen, grey = ([part for part in each if part.track in (track, None)] for each in (parts, unscored))
            chart.draw_panel(number, person(track), own, seen, grey)
    return chart.page.figure


def _check_rows(rows: Sequence[Row], class_names: Sequence[str]) -> None:
    if not rows:
        raise ValueError("There are no rows to draw: the video had no frame, or its rows were taken already.")
    if len(videos := sorted({row.video for row in rows})) > 1:
        raise ValueError(f"The rows are of {len(videos)} videos ({videos[0]}, {videos[1]}, …): draw one at a time.")
    for row in rows:
        if row.scores is not None and set(row.scores) != set(class_names):
            raise ValueError(f"The rows have scores of {list(row.scores)}, class_names are {list(class_names)}.")


def _longest_tracks(rows: Sequence[Row], spans: dict[Any, tuple[float, float]]) -> tuple[list[int], int]:
    """The tracks to be drawn, in the order of their first windows, and the number of all."""
    lengths: dict[int, float] = defaultdict(float)
    firsts: dict[int, float] = {}
    for row in rows:
        if row.track is not None:
            start_s, end_s = spans[row.start_s, row.end_s]
            lengths[row.track] += end_s - start_s
            firsts[row.track] = min(start_s, firsts.get(row.track, start_s))
    longest = sorted(lengths, key=lambda track: (-lengths[track], track))[:MAX_TRACKS]
    return sorted(longest, key=lambda track: (firsts[track], track)), len(lengths)


def _averaged(rows: Sequence[Row], spans: dict[tuple[float, float], tuple[float, float]], size: int) -> list[Row]:
    """Rows of columns, each of up to `size` windows that follow each other without a gap."""
    columns: list[list[tuple[float, float]]] = []
    for window, (start_s, _) in spans.items():
        if not columns or len(columns[-1]) == size or start_s > spans[columns[-1][-1]][1]:
            columns.append([])
        columns[-1].append(window)
    column_of = {window: i for i, column in enumerate(columns) for window in column}
    groups: dict[tuple[int, int | None], list[Row]] = defaultdict(list)
    for row in rows:
        groups[column_of[row.start_s, row.end_s], row.track].append(row)
    with_somebody = {i for i, track in groups if track is not None}
    return [
        _mean_row(group, spans[columns[i][0]][0], spans[columns[i][-1]][1])
        for (i, track), group in groups.items()
        if track is not None or i not in with_somebody
    ]


def _mean_row(rows: Sequence[Row], start_s: float, end_s: float) -> Row:
    """One row for several of one track: their mean scores if most are scored, else the commonest state."""
    state = Counter(row.state for row in rows).most_common(1)[0][0]
    alike = [row for row in rows if row.state == state]
    mean = replace(alike[len(alike) // 2], start_s=start_s, end_s=end_s)
    scored = [row.scores for row in alike if row.scores]
    if not scored:
        return mean
    scores = {name: fmean(each[name] for each in scored) for name in scored[0]}
    return replace(mean, scores=scores, label=max(scores, key=lambda name: scores[name]) if state == FACE else None)


class _Chart:
    """The page of a timeline's chart."""

    def __init__(
        self,
        rows: Sequence[Row],
        class_names: Sequence[str],
        spans: dict[tuple[float, float], tuple[float, float]],
        title: str,
        note: str | None,
        num_panels: int,
    ) -> None:
        self.colors, self.spans = class_colors(class_names), spans
        self.start_s, self.end_s = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
        self.end_s = max(self.end_s, self.start_s + 0.04)  # the duration of a single frame may be unknown
        self.thumbnail = THUMBNAIL if any(row.thumbnail is not None for row in rows) else 0.0
        self.num_panels = num_panels
        self.panel = self.thumbnail + SCORES + BAND
        self.top = 0.15 + LINE * (title.count("\n") + 1 + (note is not None))
        height = self.top + num_panels * (self.panel + PANEL_GAP) + AXIS + LINE
        self.page = Page(FIGURE_WIDTH, height)
        self.page.write(LEFT, 0.1, title)
        if note is not None:
            self.page.write(LEFT, self.top - LINE, note, fontsize=8)

    @property
    def inches_per_second(self) -> float:
        return (FIGURE_WIDTH - LEFT - RIGHT) / (self.end_s - self.start_s)

    def draw_panel(
        self, number: int, name: str, rows: Sequence[Row], parts: Sequence[Segment], unscored: Sequence[Segment]
    ) -> None:
        """Draw one track: its rows, its segments with those of nobody, and where nothing is scored."""
        top = self.top + number * (self.panel + PANEL_GAP)
        if self.thumbnail:
            self._draw_thumbnails(self._axes(top, self.thumbnail), rows)
        axes = self._axes(top + self.thumbnail, SCORES)
        axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        axes.set_ylabel(f"{name}\nscores", fontsize=8)
        axes.tick_params(labelsize=7, labelbottom=False)
        self._draw_scores(axes, [row for row in rows if row.scores is not None])
        band = self._axes(top + self.thumbnail + SCORES, BAND)
        band.set(ylim=(0, 1), yticks=())
        band.set_ylabel("answer", fontsize=8, rotation=0, ha="right", va="center")
        for label, color in self.colors.items():
            self._draw_stretches(band, [part for part in parts if part.is_label and part.name == label], color)
        for state, hatch in STATE_HATCHES.items():
            style: dict[str, Any] = {"hatch": hatch, "edgecolor": STATE_EDGE, "linewidth": 0}
            grey = [part for part in unscored if part.name == state]
            self._draw_stretches(axes, grey, STATE_COLOR, names=False, **style)
            self._draw_stretches(band, [p for p in parts if not p.is_label and p.name == state], STATE_COLOR, **style)
        if number == self.num_panels - 1:
            self._draw_time_axis(band)
        else:
            band.tick_params(labelbottom=False)

    def draw_legend(self, shown: Container[str]) -> None:
        """List all classes, and those of the states that are shown."""
        from matplotlib.patches import Patch

        states = [state for state in STATE_HATCHES if state in shown]
        handles = [Patch(facecolor=color, label=literal(name)) for name, color in self.colors.items()]
        style: dict[str, Any] = {"facecolor": STATE_COLOR, "edgecolor": STATE_EDGE}
        handles += [Patch(hatch=STATE_HATCHES[state], label=state, **style) for state in states]
        # On one line. It identifies segments that are too narrow for their name.
        size = min(9.0, 9 * LEGEND_LETTERS / sum(len(name) + 6 for name in (*self.colors, *states)))
        self.page.figure.legend(
            handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=size, columnspacing=1.2
        )

    def _axes(self, top: float, height: float) -> "Axes":
        """Add axes of this height, `top` inches below the figure's top; x is in seconds."""
        axes = self.page.axes(LEFT, top, FIGURE_WIDTH - LEFT - RIGHT, height)
        axes.set_xlim(self.start_s, self.end_s)
        axes.margins(0)
        return axes

    def _span(self, row: Row) -> tuple[float, float]:
        start_s, end_s = self.spans[row.start_s, row.end_s]
        return start_s, self.end_s if len(self.spans) == 1 else end_s

    def _draw_scores(self, axes: "Axes", rows: Sequence[Row]) -> None:
        edges: list[float] = []
        values: list[list[float]] = []
        for (start_s, end_s), row in sorted(((self._span(row), row) for row in rows), key=lambda pair: pair[0]):
            if edges and start_s > edges[-1]:
                values.append([np.nan] * len(self.colors))  # a gap
            edges += [start_s, end_s] if not edges or start_s > edges[-1] else [end_s]
            assert row.scores is not None
            values.append([row.scores[name] for name in self.colors])
        if not values:
            return
        tops = np.cumsum(values, axis=1)
        bottoms = np.concatenate([np.zeros((len(tops), 1)), tops[:, :-1]], axis=1)
        for k, (name, color) in enumerate(self.colors.items()):
            style: dict[str, Any] = {"fill": True, "color": color, "label": literal(name), "linewidth": 0}
            axes.stairs(tops[:, k], edges, baseline=bottoms[:, k], **style)

    def _draw_stretches(
        self, axes: "Axes", parts: Sequence[Segment], color: str, names: bool = True, **style: Any
    ) -> None:
        """Draw boxes of the axes' full height, with their names where these fit."""
        if not parts:
            return
        ends = [self.end_s if len(self.spans) == 1 else part.end_s for part in parts]
        places = [(part.start_s, end_s - part.start_s) for part, end_s in zip(parts, ends, strict=True)]
        axes.broken_barh(places, (0, 1), facecolor=color, label=literal(parts[0].name), **({"linewidth": 0} | style))
        for (start_s, width_s), part in zip(places, parts, strict=True):
            if names and len(part.name) * LETTER < width_s * self.inches_per_second:
                ink = ink_on(color)
                # The box keeps hatches away from the name.
                box = {"facecolor": color, "linewidth": 0, "pad": 1.5}
                text: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 8, "color": ink}
                axes.text(start_s + width_s / 2, 0.5, literal(part.name), bbox=box, **text)

    def _draw_thumbnails(self, axes: "Axes", rows: Sequence[Row]) -> None:
        """As many as fit beside each other, each at the middle of its window."""
        axes.set(ylim=(0, 1))
        axes.set_axis_off()
        width_s = min(0.92 * self.thumbnail / self.inches_per_second, self.end_s - self.start_s)
        free_s = self.start_s
        for row in sorted(rows, key=lambda row: row.start_s):
            start_s = max((row.start_s + row.end_s - width_s) / 2, self.start_s)
            if row.thumbnail is None or start_s < free_s - 1e-6 or start_s + width_s > self.end_s + 1e-6:
                continue
            place = (start_s, start_s + width_s, 0.04, 0.96)
            axes.imshow(row.thumbnail, extent=place, aspect="auto", interpolation="antialiased")
            free_s = start_s + 1.08 * width_s

    def _draw_time_axis(self, axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        span_s = self.end_s - self.start_s
        step_s = next((step for step in TIME_STEPS if span_s / step <= 16), span_s / 8)
        in_minutes = self.end_s >= 180 and step_s >= 1
        axes.xaxis.set_major_locator(MultipleLocator(step_s))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: _clock(s) if in_minutes else f"{s:g}"))
        axes.tick_params(labelsize=8)
        unit = "seconds" if not in_minutes else "min:s" if self.end_s < 3600 else "h:min:s"
        axes.set_xlabel(f"time in the video ({unit})", fontsize=9)


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
