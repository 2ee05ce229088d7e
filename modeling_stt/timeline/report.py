"""Results in words: lines for a terminal, a self-contained HTML page for a video, and an index of such pages."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from PIL import Image

from .chart import draw_timeline
from .pictures import class_colors, ink_on
from .pipeline import Timeline
from .rows import UNSURE, Row
from .segments import SMOOTH_S, Segment, TrackSummary, person, segments, summarize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSS = """
body {font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1em; max-width: 1100px; color: #1a1a1a;
 overflow-wrap: anywhere}
table {border-collapse: collapse} .wide {overflow-x: auto} .wide > img {width: 100%; min-width: 760px}
th, td {padding: 2px 12px 2px 0; text-align: left; font-variant-numeric: tabular-nums; vertical-align: middle}
.wide td, .wide th {white-space: nowrap} .settings th {white-space: nowrap; vertical-align: top}
.chip {border-radius: 3px; padding: 0 6px} .note {color: #555}
.warning {border-left: 4px solid #b91c1c; padding: 4px 12px}
@media (max-width: 600px) {th, td {padding-right: 8px; font-size: 14px} h1 {font-size: 24px} h2 {font-size: 20px}}
"""
LIMITS = """An expression is not an emotion: what a face shows is not what a person feels. The model judges one face in
windows of time and errs, more often on faces, light and angles unlike those it was trained on, and on people who talk.
Probabilities are the model's own; where it has no calibration on such footage, they are not chances of being right. Do
not judge anybody by this page: at work, in hiring, at school, in health care or by the police. Persons are numbered by
place and look within a shot; somebody who is seen again after a cut has another number."""


def row_line(row: Row) -> str:
    """Describe a row in a line: seconds, track, and the two likeliest expressions or why there are none."""
    scores = sorted((row.scores or {}).items(), key=lambda score: -score[1])[:2]
    text = ", ".join(f"{name} {score:.2f}" for name, score in scores) or row.state
    text = f"{UNSURE}: {text}" if row.state == UNSURE else text
    text += f" ({count(row.frames_dropped, 'frame')} dropped)" if row.frames_dropped else ""
    text += f" ({count(row.faces_left_out, 'face')} left out)" if row.faces_left_out else ""
    return f"{row.start_s:10.2f}{row.end_s:10.2f}{'–' if row.track is None else row.track:>6}  {text}"


def segment_line(segment: Segment) -> str:
    """Describe a segment in a line: seconds, track, name, mean score and the time of its peak."""
    text = segment.name
    if segment.mean_score is not None:
        text += f" {segment.mean_score:.2f}, most at {segment.peak_s:.1f} s"
    track = "–" if segment.track is None else segment.track
    return f"{segment.start_s:10.2f}{segment.end_s:10.2f}{track:>6}  {text}"


def summary_line(summary: TrackSummary) -> str:
    """Describe what a track adds up to in a line."""
    shares = summary.shares
    parts = [f"{name} {shares[name]:.0%} ({seconds:.1f} s)" for name, seconds in summary.seconds.items()]
    parts += [f"unsure {summary.unsure_s:.1f} s"] if summary.unsure_s else []
    parts += [f"not seen {summary.unseen_s:.1f} s"] if summary.unseen_s else []
    when = f"{summary.start_s:.1f} to {summary.end_s:.1f} s"
    return f"{person(summary.track)}, {when}: {', '.join(parts)}"


def write_report(
    path: str | PathLike, rows: Sequence[Row], timeline: Timeline, *, damage: str = "", smooth_s: float = SMOOTH_S
) -> None:
    """Write one HTML page without any other file: chart, summary, segments, how it was made, and its limits.

    Args:
        path: File to write.
        rows: Of one video; with `Timeline(thumbnails=True)` the page shows the faces.
        timeline: The timeline that gave them.
        damage: What was wrong with the video, if anything.
        smooth_s: See `segments`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: For no row, or rows of several videos.
    """
    name = Path(rows[0].video).name if rows else ""
    figure = draw_timeline(rows, timeline.class_names, note=timeline.note(), smooth_s=smooth_s)
    parts = segments(rows, smooth_s)
    colors = class_colors(timeline.class_names)
    body = [f"<h1>{escape(name)}</h1>", f'<p class="note">{escape(timeline.note())}</p>']
    if timeline.is_synthetic:
        body.append(
            '<p class="warning">This model was trained on synthetic faces only. On real faces its answers show how '
            "the page works, not what a person expresses.</p>"
        )
    if damage:
        shown = damage.replace(rows[0].video, name)  # for other people, who have not this folder
        body.append(f'<p class="warning">The rows end where the video does: {escape(shown)}</p>')
    body += [f'<div class="wide">{_picture(figure)}</div>', "<h2>Who shows what for how long</h2>"]
    body += [_summary_table(summarize(parts), rows, colors), "<h2>Segments</h2>"]
    body += [_segment_table([part for part in parts if part.track is not None], colors)]
    body += [
        "<h2>How this was made</h2>",
        _settings_table(timeline.settings() | {"model": timeline.model_name}),
        f"<p>{escape(LIMITS)}</p>",
    ]
    _write_page(Path(path), name, body)


class Files(Protocol):
    """The files made of one video, None for those that were not asked for."""

    @property
    def chart(self) -> Path | None:
        """Picture of the chart."""

    @property
    def annotate(self) -> Path | None:
        """Video with boxes and labels."""

    @property
    def report(self) -> Path | None:
        """HTML page."""


def write_index(
    path: str | PathLike,
    files: Mapping[str, Files],
    rows: Iterable[Row],
    errors: Mapping[str, str],
    note: str = "",
    smooth_s: float = SMOOTH_S,
) -> None:
    """Write an HTML page that lists videos, each with its summary, its chart, and links to its files.

    Args:
        path: File to write, in the folder of the other files.
        files: What was made of each video, by the video's name.
        rows: Rows of these videos.
        errors: Why videos could not be read, or not to the end, by their names.
        note: Note on all of them, such as `Timeline.note()`.
        smooth_s: See `segments`.
    """
    by_video: dict[str, list[Row]] = {video: [] for video in files}
    for row in rows:
        if row.video in by_video:
            by_video[row.video].append(row)
    body = ["<h1>Videos</h1>", f'<p class="note">{escape(note)}</p>']
    for video, made in files.items():
        body += _index_entry(video, made, summarize(segments(by_video[video], smooth_s)), errors.get(video, ""))
    _write_page(Path(path), "Videos", [*body, f"<p>{escape(LIMITS)}</p>"])


def _index_entry(video: str, made: Files, summaries: Sequence[TrackSummary], error: str) -> list[str]:
    """Describe one video."""

    def link(file: Path | None, text: str) -> str:
        return f'<a href="{quote(file.name)}">{text}</a>' if file is not None and file.is_file() else ""

    name = escape(Path(video).name)
    entry = [f"<h2>{link(made.report, name) or name}</h2>"]
    if error:
        entry.append(f'<p class="warning">{escape(error).replace(escape(video), name)}</p>')
    lines = [f"<li>{escape(summary_line(each))}</li>" for each in summaries]
    if lines:
        entry.append(f"<ul>{''.join(lines)}</ul>")
    elif not error:
        entry.append("<p>Nobody is seen.</p>")
    if made.chart is not None and made.chart.is_file():
        entry.append(
            f'<div class="wide"><img loading="lazy" alt="Chart of {name}" src="{quote(made.chart.name)}"></div>'
        )
    links = [link(made.report, "report"), link(made.chart, "chart"), link(made.annotate, "annotated video")]
    return [*entry, f'<p class="note">{" · ".join(filter(None, links))}</p>']


def count(number: int, thing: str) -> str:
    """Write a number with its noun: `1 frame`, `2 frames`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _write_page(path: Path, title: str, body: Sequence[str]) -> None:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{CSS}</style></head><body>\n'
    text = page + "\n".join(body) + "\n</body></html>\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _picture(figure: "Figure") -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    alternative = "Chart of expressions over time; the tables below say what it shows."
    return f'<img alt="{alternative}" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'


def _face(rows: Sequence[Row], track: int) -> str:
    """The picture of a track from the middle of its rows that have one."""
    pictures = [row.thumbnail for row in rows if row.track == track and row.thumbnail is not None]
    if not pictures:
        return ""
    content = io.BytesIO()
    Image.fromarray(pictures[len(pictures) // 2]).resize((72, 72)).save(content, format="JPEG", quality=85)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="face of {person(track)}" width="72" height="72" src="data:image/jpeg;base64,{data}">'


def _chip(name: str, colors: Mapping[str, str]) -> str:
    color = colors.get(name, "#F2F2F2")
    return f'<span class="chip" style="background:{color};color:{ink_on(color)}">{escape(name)}</span>'


def _summary_table(summaries: Sequence[TrackSummary], rows: Sequence[Row], colors: Mapping[str, str]) -> str:
    lines = []
    for each in summaries:
        labels = [f"{_chip(n, colors)} {s:.1f} s ({each.shares[n]:.0%})" for n, s in each.seconds.items()]
        cells = [_face(rows, each.track), person(each.track), f"{each.start_s:.1f} to {each.end_s:.1f} s"]
        cells += [" ".join(labels) or "–", f"{each.unsure_s:.1f} s", f"{each.unseen_s:.1f} s"]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th>{each}</th>" for each in ("", "", "seen", "expressions (share of what is sure)", "unsure", "not seen")
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _segment_table(parts: Sequence[Segment], colors: Mapping[str, str]) -> str:
    lines = []
    for part in parts:
        score = "" if part.mean_score is None else f"{part.mean_score:.2f}"
        peak = "" if part.peak_s is None else f"{part.peak_s:.1f} s"
        cells = [person(part.track), f"{part.start_s:.1f} s", f"{part.end_s:.1f} s", _chip(part.name, colors)]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, score, peak)) + "</tr>")
    head = "".join(f"<th>{each}</th>" for each in ("", "from", "to", "shows", "mean score", "most at"))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _settings_table(settings: Mapping[str, object]) -> str:
    home = str(Path.home())
    rows = [(name, _setting(value).replace(home, "~")) for name, value in settings.items() if value is not None]
    lines = "".join(f"<tr><th>{name.replace('_', ' ')}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f'<table class="settings">{lines}</table>'


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
