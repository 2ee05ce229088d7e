"""A page on which anybody can try a trained STT on a video of their own: a Gradio app, run here or as a Space.

    python examples/app.py --model runs/dfew_fold_1

Without `--model`, it is the model that the environment's STT_MODEL names, or else `space.json` beside this file:
`{"model": "user/stt-dfew"}`.
"""

import argparse
import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pandas as pd
import torch

from dataset_scripts.rendered_faces import FRAMES_PER_SECOND, render_film
from modeling_stt import STTForVideoClassification, STTVideoProcessor
from modeling_stt.timeline import (
    DamagedVideoError,
    Face,
    Row,
    TimedFrame,
    Timeline,
    columns,
    draw_explanation,
    draw_timeline,
    explain_window,
    read_frames,
)
from modeling_stt.timeline.segments import stretches
from modeling_stt.timeline.video import video_duration
from modeling_stt.timeline.windows import Window

try:
    import gradio as gr
except ImportError:
    raise SystemExit("The page needs Gradio: pip install 'modeling-stt[app]'") from None

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_MEGABYTES, MAX_SECONDS, MAX_SIDE, MAX_FRAMES = 50, 60, 1920, 60 * 60
VISITORS_AT_ONCE, VISITORS_IN_LINE = 1, 20
KEEP_S = 3600  # how long files and results of a visitor are kept

INTRODUCTION = f"""
# Facial expressions in a video, second by second

Who shows which expression when: a chart, a table to download, and what the model looked at.

**Expressions are not emotions:** what a face shows is not what a person feels. Not for judging anybody – at work, in
hiring, at school, in health care, by the police – and not for people who have not agreed to it. The model errs, more
often on faces unlike those it was trained on.

**Limits:** {MAX_SECONDS} seconds, {MAX_MEGABYTES} MB, {MAX_SIDE} pixels on the longer side. One video is read at a
time, others wait in line. Yours is used for nothing else, and deleted after about an hour. A video that your browser
cannot play (avi, mkv, HEVC, …) is read all the same.
"""

# What is wide scrolls in a box of its own, so that the page never does on a phone.
CSS = """
.scroll {overflow-x: auto} .scroll img {min-width: 760px; width: 100%; max-width: none}
.scroll table {border-collapse: collapse; white-space: nowrap}
.scroll th, .scroll td {padding: 2px 12px; text-align: right}
.problem, .note {border-left: 4px solid #1d4ed8; padding: 8px 12px; margin: 0} .problem {border-color: #b91c1c}
#video video {max-height: 360px}
@media (max-width: 800px) {.scroll::before {content: "wide: scroll sideways →"; position: sticky; left: 0}}
"""


class WholeFrame:
    """The detector for videos that are already cropped to one face: the crop will be the frame."""

    name = "whole frame"

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """One face a frame, so large that it is the frame once the crop's margin is added."""
        return [[self._face(*frame.shape[:2])] for frame in frames]

    def _face(self, height: int, width: int) -> Face:
        half = max(height, width) / (1 + 2 * self.margin) / 2
        return Face((width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half), 1.0)


def limited_frames(video: str, report: Callable[[float, str], Any]) -> Iterator[TimedFrame]:
    """The frames of an upload; `report(share done, text)` hears of progress. Nothing is decoded of what is too large.

    Raises:
        ValueError: For what is no video, or exceeds the limits; containers may lie, so frames are counted as well.
    """
    if (size := Path(video).stat().st_size) > MAX_MEGABYTES * 2**20:
        raise ValueError(f"The file has {size / 2**20:.0f} MB. The limit is {MAX_MEGABYTES} MB.")
    if (duration_s := video_duration(video)) > MAX_SECONDS:
        raise ValueError(
            f"The video has {duration_s:.0f} seconds. The limit is {MAX_SECONDS} seconds: cut a part out."
        )
    first_s = None
    for index, frame in enumerate(read_frames(video)):
        first_s = frame.time_s if first_s is None else first_s
        height, width = frame.image.shape[:2]
        if max(height, width) > MAX_SIDE:
            raise ValueError(f"The video has {width} × {height} pixels. The limit is {MAX_SIDE} on the longer side.")
        if frame.time_s - first_s > MAX_SECONDS or index >= MAX_FRAMES:
            raise ValueError(f"The video has more than {MAX_SECONDS} seconds or {MAX_FRAMES} frames: cut a part out.")
        if index % 10 == 0:
            done_s = frame.time_s - first_s
            report(
                done_s / (duration_s or MAX_SECONDS),
                f"Reading: second {done_s:.0f}" + (f" of {duration_s:.0f}" if duration_s else ""),
            )
        yield frame


def in_words(rows: Sequence[Row]) -> list[str]:
    """What the chart shows, a sentence for each track: `Track 0: happy 0.0–4.0 s, sad 4.0–9.0 s`."""
    spans = stretches((row.start_s, row.end_s) for row in rows)
    sentences: dict[int | None, list[tuple[str, float, float]]] = {}
    for row in rows:
        (start_s, end_s), parts = spans[row.start_s, row.end_s], sentences.setdefault(row.track, [])
        name = row.label or row.state
        if parts and parts[-1][0] == name and parts[-1][2] >= start_s:
            start_s = parts.pop()[1]
        parts.append((name, start_s, end_s))
    return [
        ("Nobody" if track is None else f"Track {track}")
        + ": "
        + ", ".join(f"{name} {start_s:.1f}–{end_s:.1f} s" for name, start_s, end_s in parts)
        for track, parts in sentences.items()
    ]


def model_in_words(model: str) -> str:
    """Which model answers, and where it says what it was trained on."""
    if not Path(model).is_dir():
        return f"**Model:** [{model}](https://huggingface.co/{model}). What it was trained on, its card says."
    results = Path(model) / "results.json"
    synthetic = results.is_file() and json.loads(results.read_text()).get("synthetic")
    drawings = " – **trained on rendered faces: what it says of real ones means nothing**" if synthetic else ""
    return f"**Model:** `{model}`{drawings}."


def outcome(rows: Sequence[Row]) -> str:
    """What the visitor should know first."""
    tracks = {row.track for row in rows if row.label is not None}
    if tracks:
        faces = "one face" if len(tracks) == 1 else f"{len(tracks)} faces (one person seen again later counts anew)"
        return f"Done: {faces} in {rows[-1].end_s - rows[0].start_s:.1f} seconds."
    if any(row.state == "face too small" for row in rows):
        return "The faces in this video are too small to be read: come closer, or give a larger picture."
    return (
        "No face was found in this video for long enough. Is the face seen from the front and in light? If the video "
        "is cropped closely to one face, say so below it and read it again."
    )


def notice(text: str, kind: str = "note") -> str:
    """A message on the page."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def picture(figure: "Figure", alternative: str) -> str:
    """A figure as HTML that needs no file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(alternative)}">'
        f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}"></div>'
    )


def chart(rows: Sequence[Row], class_names: Sequence[str]) -> str:
    """The chart of all rows and, for who can't see it, what it shows in words."""
    figure = draw_timeline(rows, class_names)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in in_words(rows))
    return (
        f"{picture(figure, 'Chart of expressions over time. The list below says what it shows.')}<ul>{sentences}</ul>"
    )


def table(rows: Sequence[Row], class_names: Sequence[str]) -> str:
    """The rows in short to be seen, and in full to be downloaded as CSV; no file lies about for it."""
    full = pd.DataFrame([row.to_dict(class_names) for row in rows], columns=list(columns(class_names)), dtype=object)
    data = base64.b64encode(full.to_csv(index=False).encode()).decode()
    name = escape(f"{Path(rows[0].video).stem}.csv")
    short = [
        {
            "track": "" if row.track is None else row.track,
            "from (s)": row.start_s,
            "to (s)": row.end_s,
            "expression": row.label or row.state,
            "probability": max(row.scores.values()) if row.scores else "",
            "margin": "" if row.margin is None else row.margin,
        }
        for row in rows
    ]
    shown = pd.DataFrame(short, dtype=object).to_html(index=False, border=0, float_format="{:.2f}".format)
    return (
        f'<p><a download="{name}" href="data:text/csv;base64,{data}">Download the table with all scores (CSV)</a></p>'
        "<p>A row is a window of the video; windows overlap. Margin: probability less that of the second expression."
        f'</p><div class="scroll" tabindex="0" role="group" aria-label="Table of windows">{shown}</div>'
    )


# A row with a label and its window, of which no more is kept than the frames that the model saw.
Scored = tuple[Row, Window]


def slim(window: Window, timeline: Timeline) -> Window:
    """The window with the frames that were sampled; its neighbours have most of them in common."""
    clip = timeline.scorer.sample(window)
    return replace(window, sightings=[replace(sighting, memo=None) for sighting in clip])


class Page:
    """The page: what happens when a visitor clicks. What belongs to a visitor is in the arguments, never in here."""

    def __init__(self, model: str) -> None:
        # Only eager attention gives its weights.
        self.model = model
        loaded = STTForVideoClassification.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
        processor = STTVideoProcessor.from_pretrained(model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.timeline = Timeline(loaded, processor, device=device, thumbnails=True)
        whole = WholeFrame(self.timeline.crop.margin)
        self.timeline_of_crops = Timeline(loaded, processor, whole, device=device, thumbnails=True)
        self.class_names = self.timeline.class_names

    def read(self, video: str | None, is_cropped: bool, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        """Read a video; gives what `blocks` shows of it, in that order."""
        if video is None:
            return self._shown("Give a video first: upload one, record one, or take an example.", "problem")
        timeline = self.timeline_of_crops if is_cropped else self.timeline
        # The timeline decodes in a thread of its own, in which Gradio would not know whose progress this is.
        report: Callable[[float, str], Any] = partial(copy_context().run, progress)  # type: ignore[call-arg]
        rows: list[Row] = []
        scored: list[Scored] = []
        damage = ""
        try:
            for row, window in timeline.windows(limited_frames(video, report), Path(video).name):
                rows.append(row)
                if row.label is not None:
                    scored.append((replace(row, thumbnail=None), slim(window, timeline)))
        except (ValueError, OSError) as error:
            damage = str(error).replace(video, Path(video).name)
            if not (rows and isinstance(error, DamagedVideoError)):
                return self._shown(damage, "problem")
        scored.sort(key=lambda pair: (pair[1].track, pair[1].start_s))
        return self._shown(f"{outcome(rows)} {damage}", "problem" if damage else "note", rows, scored)

    def _shown(self, message: str, kind: str, rows: Sequence[Row] = (), scored: Sequence[Scored] = ()) -> list[Any]:
        """Message, whether results are seen, chart, table, whether attention is seen, slider, what is kept."""
        return [
            notice(message, kind),
            gr.Column(visible=bool(rows)),
            chart(rows, self.class_names) if rows else "",
            table(rows, self.class_names) if rows else "",
            gr.Column(visible=bool(scored)),
            gr.Slider(1, max(2, len(scored)), 1, visible=len(scored) > 1),
            scored,
        ]

    def attention(self, scored: Sequence[Scored], number: float) -> str:
        """What the model looked at in the scored window of this number, from 1: in words, and as a picture."""
        if not scored:
            return ""
        row, window = scored[min(int(number), len(scored)) - 1]
        explanation = explain_window(window, self.timeline, row.video)
        most = int(explanation.temporal.argmax())
        words = (
            f"Track {row.track}, {row.start_s:.1f}–{row.end_s:.1f} s: {row.label}. Of {len(window.sightings)} frames, "
            f"the one at {window.sightings[most].time_s:.2f} s has most of the model's attention, "
            f"{explanation.temporal[most]:.0%}. Where it looks is not why it answers so."
        )
        return notice(words) + picture(draw_explanation(explanation), words)

    def blocks(self, examples: Sequence[tuple[str, str, bool]]) -> gr.Blocks:
        """The page's parts, from top to bottom, and what they do; examples are `(name, video, is cropped)`."""
        with gr.Blocks(
            title="Expressions in a video", analytics_enabled=False, delete_cache=(KEEP_S // 6 + 1, KEEP_S)
        ) as blocks:
            gr.Markdown(INTRODUCTION)
            gr.Markdown(model_in_words(self.model))
            # Unasked, a camera gives its largest pictures, which are beyond the limits.
            camera = gr.WebcamOptions(constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}})
            video = gr.Video(
                label="Your video", sources=["upload", "webcam"], webcam_options=camera, buttons=[], elem_id="video"
            )
            is_cropped = gr.Checkbox(label="The video is already cropped to one face, as DFEW's clips are")
            gr.Markdown(
                "No video at hand? Faces rendered by a program show how the page works, not how good the model is:"
            )
            with gr.Row(elem_id="examples"):
                for name, path, cropped in examples:
                    choose = partial(lambda *chosen: chosen, path, cropped)
                    gr.Button(name, size="md").click(
                        choose, None, [video, is_cropped], show_progress="hidden", api_visibility="private"
                    )
            button = gr.Button("Read the expressions", variant="primary", elem_id="read")
            message = gr.HTML(html_template='<div role="status" aria-live="polite">${value}</div>', elem_id="message")
            kept = gr.State([], time_to_live=KEEP_S)
            with gr.Column(visible=False, elem_id="results") as results:
                gr.Markdown("## Expressions over time")
                pictures = gr.HTML(elem_id="chart")
                with gr.Column() as explained:
                    gr.Markdown("## What the model looked at")
                    number = gr.Slider(1, 2, 1, step=1, label="Window", elem_id="window")
                    attention = gr.HTML(elem_id="attention")
                gr.Markdown("## The table")
                numbers = gr.HTML(elem_id="table")
            shown = [message, results, pictures, numbers, explained, number, kept]
            button.click(
                self.read,
                [video, is_cropped],
                shown,
                show_progress_on=message,
                concurrency_limit=VISITORS_AT_ONCE,
                api_visibility="private",
            ).then(self.attention, [kept, number], attention, api_visibility="private")
            number.change(
                self.attention, [kept, number], attention, trigger_mode="always_last", api_visibility="private"
            )
        return blocks.queue(max_size=VISITORS_IN_LINE)


def render_examples(folder: Path) -> list[tuple[str, str, bool]]:
    """Short videos of rendered faces, free to show: name, path, whether the video is cropped to one face."""
    changing, sad = (11, ("neutral", "happy", "surprise")), (17, ("sad", "neutral"))
    two = render_film([changing, sad], seconds=4, image_size=160)
    one = render_film([changing], seconds=4, image_size=160, margin=0.1)
    return [
        ("Two rendered faces", write_video(folder / "two_rendered_faces.mp4", two), False),
        ("One rendered face, cropped", write_video(folder / "one_rendered_face.mp4", one), True),
    ]


def write_video(path: Path, frames: np.ndarray, fps: int = FRAMES_PER_SECOND) -> str:
    """Write frames `(T, H, W, 3)` uint8 RGB as H.264, which every browser plays."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def chosen_model() -> str:
    """The model that the command line, the environment or `space.json` names."""
    beside = Path(__file__).with_name("space.json")
    default = os.environ.get("STT_MODEL") or (json.loads(beside.read_text())["model"] if beside.is_file() else None)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=default, help="folder of a trained model, or its name on the Hub")
    model = parser.parse_args().model
    if model is None:
        parser.error("no model: give --model, or set STT_MODEL")
    return model


def main() -> int:
    """Serve the page; address and port as Gradio's GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say."""
    page = Page(chosen_model())
    # Gradio's own fonts come from the internet, and its own buttons are too pale for weak eyes.
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    with tempfile.TemporaryDirectory() as folder:
        page.blocks(render_examples(Path(folder))).launch(
            theme=theme,
            css=CSS,
            max_file_size=MAX_MEGABYTES * 2**20,
            footer_links=[],
            run_history=False,  # or videos and results would stay in the visitor's browser
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
