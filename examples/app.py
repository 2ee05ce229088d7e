"""A page on which anybody can try a model on a video of their own: a Gradio app, run here or as a Space.

    python examples/app.py --model runs/dfew_fold_1

The model is a folder or a name on the Hub, of any kind that `stt timeline` takes. Without `--model`, the environment
variable STT_MODEL names it, or else `space.json` beside this file: `{"model": "user/stt-dfew"}`; else it is that of
`modeling_stt.pretrained`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch

from modeling_stt import STTConfig, pretrained
from modeling_stt.loading import load_model
from modeling_stt.timeline import DamagedVideoError, Face, Row, TimedFrame, Timeline, draw_explanation, explain_window
from modeling_stt.timeline.limits import VideoLimits
from modeling_stt.timeline.segments import person
from modeling_stt.timeline.web_chart import CSS as WEB_CHART_CSS
from modeling_stt.timeline.web_chart import WebChart, as_image, scrolled
from modeling_stt.timeline.windows import Window

try:
    import gradio as gr
except ImportError:
    raise SystemExit("The page needs Gradio: pip install 'modeling-stt[app]'") from None

LIMITS = VideoLimits(megabytes=50, seconds=60, frames=60 * 60, side=1920)
VISITORS_AT_ONCE, VISITORS_IN_LINE = 1, 20
KEEP_S = 3600  # seconds until the files and results of a visitor are deleted
PROGRESS_S = 0.5  # seconds between messages; a visitor who left is noticed at the next one
EXAMPLES = Path(__file__).with_name("videos")

INTRODUCTION = f"""
# Facial expressions in a video

Give a video of up to {LIMITS.seconds:g} seconds and see who shows which expression when.

**Expressions are not emotions.** Do not judge anybody by the answers, and only use videos of people who have agreed.
"""
DETAILS = f"""
The limits are {LIMITS.seconds:g} seconds, {LIMITS.megabytes:g} MB, and {LIMITS.side} pixels on the longer side. One
video is read at a time; others wait in line. Your video is used for nothing else and deleted after about an hour.
Videos that your browser cannot play (avi, mkv, HEVC, …) are read, too.

A face does not show what a person feels, nor intent, honesty or health. The page is not for work, hiring, schools,
health care or the police. The model makes mistakes, more often on faces unlike those that it was trained on.
"""

# What is wide scrolls in a box of its own, so that the page never does on a phone.
CSS = f"""
{WEB_CHART_CSS}
.problem, .note {{border-left: 4px solid #1d4ed8; padding: 8px 12px; margin: 0}} .problem {{border-color: #b91c1c}}
#video video {{max-height: 360px}}
"""


class WholeFrame:
    """Detector for videos that are already cropped to one face: the crop becomes the frame."""

    name = "whole frame"

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        """Give one face per frame, so large that with the crop's margin it is the frame."""
        return [[self._face(*frame.shape[:2])] for frame in frames]

    def _face(self, height: int, width: int) -> Face:
        half = max(height, width) / (1 + 2 * self.margin) / 2
        return Face((width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half), 1.0)


def outcome(rows: Sequence[Row]) -> str:
    """Message above the results."""
    tracks = {row.track for row in rows if row.scores is not None}
    if tracks:
        found = "one face" if len(tracks) == 1 else f"{len(tracks)} faces"
        return f"Done: {found} in {rows[-1].end_s - rows[0].start_s:.1f} seconds."
    if any(row.state == "face too small" for row in rows):
        return "The faces in this video are too small: film from closer, or give a larger picture."
    return (
        "No face was found in this video for long enough. Is the face lit, and seen from the front? If the video is "
        "cropped closely to one face, tick the box below it."
    )


def notice(text: str, kind: str = "note") -> str:
    """A message on the page as HTML."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


# A row with scores and its window, which keeps only the frames that the model saw.
Scored = tuple[Row, Window]


def slim(window: Window, timeline: Timeline) -> Window:
    """The window with the sampled frames only, without what the model computed of them."""
    clip = timeline.scorer.sample(window)  # type: ignore[attr-defined]
    return replace(window, sightings=[replace(sighting, memo=None) for sighting in clip])


@dataclass
class Reading:
    """One video while it is read in a thread of its own.

    Args:
        timeline: Timeline that reads it.
        video: Path of the file.
        keep_windows: Keep the windows for their attention.
    """

    timeline: Timeline
    video: str
    keep_windows: bool
    rows: list[Row] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    damage: str = ""
    length_s: float = 0.0
    read_s: float = 0.0
    stop: Event = field(default_factory=Event)

    @property
    def progress(self) -> str:
        """Message while the video is read."""
        return f"Reading: second {self.read_s:.0f}" + (f" of {self.length_s:.0f}" if self.length_s else "")

    def run(self) -> None:
        """Read the video; what goes wrong is in `damage`, beside the rows until then."""
        name = Path(self.video).name
        try:
            self.length_s = LIMITS.check(self.video, name)
            for row, window in self.timeline.windows(self._frames(name), name, live=False, stop=self.stop):
                self.rows.append(row)
                if self.keep_windows and row.scores is not None:
                    self.scored.append((replace(row, thumbnail=None), slim(window, self.timeline)))
        except (ValueError, OSError) as error:
            self.damage = str(error).replace(self.video, name)
            if not isinstance(error, DamagedVideoError):
                self.rows, self.scored = [], []
        self.scored.sort(key=lambda pair: (pair[1].track, pair[1].start_s))

    def _frames(self, name: str) -> Iterator[TimedFrame]:
        first_s = None
        for frame in LIMITS.read(self.video, name):
            if self.stop.is_set():
                return
            first_s = frame.time_s if first_s is None else first_s
            self.read_s = frame.time_s - first_s
            yield frame


class Page:
    """The page and its reactions to clicks. The state of a visitor is in the arguments, never in this object."""

    def __init__(self, model: str) -> None:
        self.model = model
        # Only eager attention returns its weights; other models than STT have no picture of it.
        loaded, processor = load_model(
            model, attn_implementation="eager", device="cuda" if torch.cuda.is_available() else "cpu"
        )
        self.explains = isinstance(loaded.config, STTConfig)
        self.timeline = Timeline(loaded, processor, thumbnails=True)
        whole = WholeFrame(self.timeline.crop.margin)
        self.timeline_of_crops = Timeline(loaded, processor, whole, thumbnails=True)
        self.class_names: list[str] = self.timeline.class_names or []

    def read(self, video: str | None, is_cropped: bool) -> Iterator[list[Any]]:
        """Read a video; yields what `blocks` shows of it, in that order: messages, then the results.

        When the visitor leaves, Gradio closes this generator, which stops the reading.
        """
        if video is None:
            yield self._shown("Give a video first: upload one, record one, or take an example.", "problem")
            return
        reading = Reading(self.timeline_of_crops if is_cropped else self.timeline, video, self.explains)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(reading.run)
            try:
                while not future.done():
                    yield [notice(reading.progress), *[gr.update()] * 6]
                    wait([future], PROGRESS_S)
            finally:
                reading.stop.set()
        future.result()
        if reading.damage and not reading.rows:
            yield self._shown(reading.damage, "problem")
            return
        kind = "problem" if reading.damage else "note"
        yield self._shown(f"{outcome(reading.rows)} {reading.damage}", kind, reading.rows, reading.scored)

    def _shown(self, message: str, kind: str, rows: Sequence[Row] = (), scored: Sequence[Scored] = ()) -> list[Any]:
        """Message, visibility of the results, chart, table, visibility of the attention, slider, state."""
        chart = WebChart(rows, self.class_names, "#video video") if rows else None
        return [
            notice(message, kind),
            gr.Column(visible=bool(rows)),
            str(chart) if chart else "",
            chart.table() if chart else "",
            gr.Column(visible=bool(scored)),
            gr.Slider(1, max(2, len(scored)), 1, visible=len(scored) > 1),
            list(scored),
        ]

    def attention(self, scored: Sequence[Scored], number: float) -> str:
        """Attention of the model in the scored window of this number, from 1: in words, and as a picture."""
        if not scored:
            return ""
        row, window = scored[min(int(number), len(scored)) - 1]
        explanation = explain_window(window, self.timeline, row.video)
        most = int(explanation.temporal.argmax())
        words = (
            f"{person(row.track)}, {row.start_s:.1f}–{row.end_s:.1f} s: {row.likeliest}. Of {len(window.sightings)} "
            f"frames, the one at {window.sightings[most].time_s:.2f} s has most of the model's attention, "
            f"{explanation.temporal[most]:.0%}. Attention is not the reason of an answer."
        )
        return notice(words) + scrolled(as_image(draw_explanation(explanation), words), words)

    def blocks(self, examples: Sequence[tuple[str, str, bool]]) -> gr.Blocks:
        """Build the page from top to bottom; examples are `(name, video, is cropped)`."""
        with gr.Blocks(
            title="Expressions in a video", analytics_enabled=False, delete_cache=(KEEP_S // 6 + 1, KEEP_S)
        ) as blocks:
            card = "" if Path(self.model).is_dir() else f" ([card](https://huggingface.co/{self.model}))"
            gr.Markdown(f"{INTRODUCTION}\n{self.timeline.note()}{card}")
            # By default a camera records its largest pictures, which exceed the limits.
            camera = gr.WebcamOptions(constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}})
            video = gr.Video(
                label="Your video", sources=["upload", "webcam"], webcam_options=camera, buttons=[], elem_id="video"
            )
            is_cropped = gr.Checkbox(label="The video is already cropped to one face, as DFEW's clips are")
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
                chart = gr.HTML(elem_id="chart")
                table = gr.HTML(elem_id="table")
                with gr.Column() as explained:
                    gr.Markdown("## Attention of the model")
                    number = gr.Slider(1, 2, 1, step=1, label="Window", elem_id="window")
                    attention = gr.HTML(elem_id="attention")
            with gr.Accordion("Limits, privacy and misuse", open=False):
                gr.Markdown(DETAILS)
            button.click(
                self.read,
                [video, is_cropped],
                [message, results, chart, table, explained, number, kept],
                show_progress_on=message,
                concurrency_limit=VISITORS_AT_ONCE,
                api_visibility="private",
            ).then(self.attention, [kept, number], attention, api_visibility="private")
            number.change(
                self.attention, [kept, number], attention, trigger_mode="always_last", api_visibility="private"
            )
        return blocks.queue(max_size=VISITORS_IN_LINE)


def find_examples(folder: Path = EXAMPLES) -> list[tuple[str, str, bool]]:
    """Example videos beside this file: name, path, and whether the video is cropped to one face."""
    names = {"two_people.mp4": ("Two rendered people", False), "one_face.mp4": ("One rendered face, cropped", True)}
    return [(name, str(folder / file), crop) for file, (name, crop) in names.items() if (folder / file).is_file()]


def chosen_model() -> str:
    """The model that the command line, the environment or `space.json` names; else the package's own weights."""
    beside = Path(__file__).with_name("space.json")
    default = os.environ.get("STT_MODEL") or (json.loads(beside.read_text())["model"] if beside.is_file() else None)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=default, help="folder of a trained model, or its name on the Hub")
    return parser.parse_args().model or str(pretrained.folder())


def main() -> int:
    """Serve the page, at the address and port of GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""
    page = Page(chosen_model())
    # The default fonts are loaded from the internet, and the default buttons have too little contrast.
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    page.blocks(find_examples()).launch(
        theme=theme,
        css=CSS,
        max_file_size=int(LIMITS.megabytes * 10**6),
        footer_links=[],
        allowed_paths=[str(EXAMPLES)],
        run_history=False,  # otherwise videos and results would stay in the visitor's browser
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
