"""The chart of a video as HTML: as wide as the page, readable by screen readers, and a click shows the moment.

Unlike the picture of `chart`, it fits a phone and needs neither matplotlib nor a file.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .pictures import STATE_COLOR, class_colors, ink_on
from .report import summary_line
from .rows import Row, rows_to_frame
from .segments import Segment, person, segments, stretches, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSS = """
.people {--label: 64px} .person {display: flex; gap: 8px; margin: 8px 0} .person img {border-radius: 6px}
.person > :first-child {flex: 0 0 var(--label); font-size: 13px; text-align: center}
.person > :last-child {flex: 1; min-width: 0}
.bar {position: relative; height: 36px} .scores {display: block; width: 100%; height: 56px; cursor: pointer}
.bar button {position: absolute; top: 0; height: 100%; overflow: hidden; white-space: nowrap; padding: 0 2px;
 font-size: 13px}
.axis {display: flex; justify-content: space-between; font-size: 12px; margin-left: calc(var(--label) + 8px)}
.legend span {display: inline-block; margin-right: 14px; font-size: 13px}
.legend i {display: inline-block; width: 12px; height: 12px; margin-right: 4px; border: 1px solid #777}
.scroll {overflow-x: auto} .scroll > img {min-width: 760px; width: 100%; max-width: none}
.scroll table {border-collapse: collapse; white-space: nowrap}
.scroll th, .scroll td {padding: 2px 12px; text-align: right}
"""


def as_image(content: "Figure | np.ndarray", alternative: str, width: int | None = None) -> str:
    """A figure, or an image `(H, W, 3)` uint8 RGB, as HTML that needs no file."""
    data = io.BytesIO()
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(data, "PNG")
    else:
        content.savefig(data, format="png", dpi=130)
    source = base64.b64encode(data.getvalue()).decode()
    size = f' width="{width}"' if width else ""
    return f'<img{size} alt="{escape(alternative)}" src="data:image/png;base64,{source}">'


def scrolled(content: str, name: str) -> str:
    """Content that may be wider than the page, in a box that scrolls sideways."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(name)}">{content}</div>'


@dataclass
class WebChart:
    """The chart of a video as HTML, for a page that has `CSS`.

    Args:
        rows: Rows of one video, at least one.
        class_names: Names of the classes in the model's order.
        player: CSS selector of the page's `<video>`, which shows the moment that is clicked.
    """

    rows: Sequence[Row]
    class_names: Sequence[str]
    player: str = "video"
    segments: list[Segment] = field(init=False)

    def __post_init__(self) -> None:
        self.segments = segments(self.rows)
        self.colors = class_colors(self.class_names)
        self.start_s = min(row.start_s for row in self.rows)
        self.length_s = max(max(row.end_s for row in self.rows) - self.start_s, 0.04)

    def __str__(self) -> str:
        """The chart: for each person a picture, the segments, the scores; below them time and legend."""
        tracks = list(dict.fromkeys(segment.track for segment in self.segments))
        times = "".join(f"<span>{self.start_s + self.length_s * i / 4:.1f} s</span>" for i in range(5))
        colors = self.colors | {segment.name: STATE_COLOR for segment in self.segments if not segment.is_label}
        legend = "".join(f'<span><i style="background:{c}"></i>{escape(name)}</span>' for name, c in colors.items())
        lines = "".join(f"<li>{escape(summary_line(track))}</li>" for track in summarize(self.segments))
        return (
            f'<div class="people">{"".join(map(self._person, tracks))}<div class="axis">{times}</div></div>'
            f'<p class="legend">{legend}</p><ul>{lines}</ul>'
        )

    def _person(self, track: int | None) -> str:
        rows = [row for row in self.rows if row.track == track]
        faces = [row.thumbnail for row in rows if row.thumbnail is not None]
        face = as_image(faces[len(faces) // 2], person(track), 56) if faces else ""
        bar = "".join(self._button(segment) for segment in self.segments if segment.track == track)
        scores = self._scores(track) if any(row.scores for row in rows) else ""
        return (
            f'<div class="person"><div>{face}<br>{person(track)}</div><div><div class="bar" role="group" '
            f'aria-label="{person(track)}">{bar}</div>{scores}</div></div>'
        )

    def _button(self, segment: Segment) -> str:
        left = 100 * (segment.start_s - self.start_s) / self.length_s
        color = self.colors[segment.name] if segment.is_label else STATE_COLOR
        text = escape(f"{segment.name}, {segment.start_s:.1f} to {segment.end_s:.1f} s")
        style = f"left:{left:.2f}%;width:{100 * segment.duration_s / self.length_s:.2f}%;background:{color}"
        return (
            f'<button style="{style};color:{ink_on(color)}" title="{text}" aria-label="{text}" '
            f'onclick="{self._seek(segment.start_s)}">{escape(segment.name)}</button>'
        )

    def _scores(self, track: int | None) -> str:
        """Stacked probabilities over time; of overlapping windows each is drawn around its middle."""
        spans = stretches((row.start_s, row.end_s) for row in self.rows)
        boxes = []
        for row in self.rows:
            start_s, end_s = spans[row.start_s, row.end_s]
            below = 0.0
            for name, color in self.colors.items() if row.track == track and row.scores else ():
                share = (row.scores or {})[name]
                boxes.append(
                    f'<rect x="{start_s - self.start_s:.3f}" y="{1 - below - share:.4f}" fill="{color}" '
                    f'width="{end_s - start_s:.3f}" height="{share:.4f}"/>'
                )
                below += share
        moment = f"{self.start_s} + event.offsetX / this.clientWidth * {self.length_s}"
        return (
            f'<svg class="scores" viewBox="0 0 {self.length_s:.3f} 1" preserveAspectRatio="none" role="img" '
            f'aria-label="Probabilities of {person(track)} over time" onclick="{self._seek(moment)}">'
            f"{''.join(boxes)}</svg>"
        )

    def _seek(self, moment: float | str) -> str:
        """Script that shows a moment in the player; seconds, or an expression for them."""
        return escape(
            f"const v = document.querySelector('{self.player}'); "
            f"if (v) {{ v.currentTime = {moment}; v.scrollIntoView({{block: 'nearest'}}) }}"
        )

    def table(self) -> str:
        """The segments as a table, and a link to download all rows as CSV; no file is left for it."""
        data = base64.b64encode(rows_to_frame(self.rows, self.class_names).to_csv(index=False).encode()).decode()
        name = escape(f"{Path(self.rows[0].video).stem}.csv")
        lines = [
            f"<tr><td>{person(s.track)}</td><td>{s.start_s:.1f}</td><td>{s.end_s:.1f}</td><td>{escape(s.name)}</td>"
            f"<td>{f'{s.mean_score:.2f}' if s.mean_score is not None else ''}</td></tr>"
            for s in self.segments
        ]
        head = "<tr><th></th><th>from (s)</th><th>to (s)</th><th>expression</th><th>mean probability</th></tr>"
        table = scrolled(f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>", "Table of segments")
        link = f'<a download="{name}" href="data:text/csv;base64,{data}">Download all windows and scores (CSV)</a>'
        return f"{table}<p>{link}</p>"
