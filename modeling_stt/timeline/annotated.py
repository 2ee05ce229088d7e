"""A video with what was found in it burnt into its frames.

What a face shows at a moment is known when the window around it is over. So the video is decoded twice, side by side:
the frames that are drawn on are some windows behind those that are searched, and none has to be kept meanwhile.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw, ImageFont

from ..fonts import font_file
from ..video_reading_stt import ONE_THREAD, read_packets
from .pictures import STATE_EDGE, class_colors, ink_on
from .pipeline import SYNTHETIC, Timeline
from .rows import UNSURE, Row
from .segments import end_of_stretch, person
from .video import DamagedVideoError, FrameReader, TimedFrame, is_live, read_frames
from .windows import Window

SUFFIXES = (".mp4", ".mov", ".mkv")
BROADCASTS = ("mpegts", "mpeg")  # FFmpeg's names of their containers

# Ticks per second of written times: frames at 24, 25, 29.97 and 30 fps last a whole number of ticks, and MPEG-4 takes
# no finer ones. Matroska itself rounds to milliseconds.
TICKS = 60_000

logger = logging.getLogger(__name__)


def write_annotated_video(video: str | PathLike, timeline: Timeline, output: str | PathLike) -> Iterator[Row]:
    """Give the rows of a video, and meanwhile write the video with boxes, persons and labels burnt into it.

    It is written while the rows are taken, in constant memory, and is complete when all have been: `for row in …`, or
    `rows = list(…)`. A frame shows what the chart of `draw_timeline` shows at its time: the label, score and margin of
    the window around it, or the state. Frames keep their times to 1/60,000 s (in .mkv to 1/1,000 s) and stand upright;
    those that are damaged are missing, as in the rows. Odd widths and heights grow by a pixel. The picture
    is encoded anew, by x264 or, where PyAV has none, as MPEG-4. The sound is copied; where the new container cannot
    hold it, a warning says that it is left out.

    Args:
        video: File, or http(s) address of one. It is read twice, so that no camera will do.
        timeline: Reads it.
        output: File to write, `.mp4`, `.mov` or `.mkv`. It appears when it is complete.

    Yields:
        The rows, as `timeline(video)` does.

    Raises:
        ValueError: For a live source, frames instead of a file, another suffix, or an output that is the video itself;
            and as `timeline`.
        FileNotFoundError: For a missing video, or a missing folder to write to.
        PermissionError: For a folder that may not be written to.
        DamagedVideoError: As `timeline`, when all that could be read is written.
    """
    output = Path(output)
    if is_live(video) or not isinstance(video, str | PathLike):
        what = video if isinstance(video, str) else "What is given as frames"
        raise ValueError(f"{what} can be read only once: record it to a file, and annotate that.")
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{output} must end in one of {', '.join(SUFFIXES)}: the suffix gives the format.")
    if output.resolve() == Path(video).resolve():
        raise ValueError(f"{output} is the video itself: name another file to write.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {output.parent} to write {output.name} to.")
    if not os.access(output.parent, os.W_OK):
        raise PermissionError(f"You may not write {output.name} to the folder {output.parent}.")
    return _annotate(video, timeline, output)


def _annotate(video: str | PathLike, timeline: Timeline, output: Path) -> Iterator[Row]:
    unfinished = output.with_name(f"{output.stem}.unfinished{output.suffix}")
    found: list[tuple[Row, Window]] = []  # all of one window of time
    damage: DamagedVideoError | None = None
    try:
        with _AnnotatedVideo(video, timeline, unfinished) as annotated:
            try:
                for row, window in timeline.windows(video):
                    if found and found[0][1].start_s < window.start_s:
                        before = found[0][1].start_s, found[0][1].end_s
                        annotated.draw_until(end_of_stretch(before, (window.start_s, window.end_s)), found)
                        found = []
                    found.append((row, window))
                    yield row
            except DamagedVideoError as error:
                damage = error
            annotated.draw_until(np.inf, found)
        unfinished.replace(output)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{fspath(video)} cannot be written as {output.name} ({error.strerror}): its times or sizes may be more "
            f"than {output.suffix} can hold."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    if damage is not None:
        raise damage


class _AnnotatedVideo:
    """A file being written: frames of the source, drawn upon and encoded, and its sound."""

    def __init__(self, video: str | PathLike, timeline: Timeline, path: Path) -> None:
        self.colors = class_colors(timeline.class_names)
        self.note, self.caption = timeline.note(), SYNTHETIC if timeline.is_synthetic else ""
        self.frames = read_frames(video, live=False)
        self.frame: TimedFrame | None = next(self.frames)
        self.opened = ExitStack()
        source, stream = self.opened.enter_context(FrameReader(fspath(video)).open())
        # Broadcasts have a clock of their own, on which a recording may begin at 25 hours. Players of other containers
        # would show 25 hours of nothing.
        self.offset_s = self.frame.time_s if self.frame and source.format.name in BROADCASTS else 0.0
        rate = stream.average_rate or Fraction(25)
        sound = next(iter(source.streams.audio), None)
        target = None
        if sound is not None:
            try:
                target = self._begin(path, rate, sound)
            except (av.error.FFmpegError, ValueError) as error:
                logger.warning(
                    "The sound of %s is left out: %s cannot hold it (%s).", fspath(video), path.suffix, error
                )
        if target is None:
            self._begin(path, rate)
        self.durations: dict[int | None, int] = {}  # of frames that the encoder has, by their time
        self.sound: Iterator[tuple[float, av.Packet]] = iter(())
        if sound is not None and target is not None:
            self.sound = _packets(source, sound, target, self.offset_s)
        self.sound_packet = next(self.sound, None)

    def __enter__(self) -> "_AnnotatedVideo":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.opened:
            if kind is None:
                self._write_packets(self.stream.encode())
                self._write_sound_until(np.inf)

    def draw_until(self, time_s: float, found: Sequence[tuple[Row, Window]]) -> None:
        """Write the frames before this time, which show what was found in the windows around them."""
        boxes = [(row, {sighting.time_s: sighting.box for sighting in window.sightings}) for row, window in found]
        while self.frame is not None and self.frame.time_s < time_s:
            frame = self.frame
            self._write_sound_until(frame.time_s - self.offset_s)
            here = [(row, box[frame.time_s]) for row, box in boxes if frame.time_s in box]
            image = draw_boxes(frame.image, here, self.colors)
            self._write(draw_caption(image, self.caption) if self.caption else image, frame)
            self.frame = None
            with suppress(DamagedVideoError):  # which the timeline raises
                self.frame = next(self.frames, None)

    def _begin(self, path: Path, rate: Fraction, sound: av.AudioStream | None = None) -> av.AudioStream | None:
        """Open the new file and write its header; return the stream for the sound, if there is to be one."""
        with ExitStack() as opened:
            self.container = opened.enter_context(av.open(f"file:{path}", "w"))  # or "take:1.mp4" is an address
            self.container.metadata["comment"] = self.note
            self.stream = self._add_picture(rate)
            target = None if sound is None else self.container.add_stream_from_template(sound)
            self.container.start_encoding()
            self.opened.push(opened.pop_all())
        return target

    def _add_picture(self, rate: Fraction) -> av.VideoStream:
        assert self.frame is not None
        has_x264 = "libx264" in av.codecs_available
        options = {"crf": "20", "preset": "veryfast"} if has_x264 else {"qscale": "4"}
        stream = self.container.add_stream("libx264" if has_x264 else "mpeg4", rate=rate, options=options)
        height, width = self.frame.image.shape[:2]
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        coder = stream.codec_context
        coder.time_base = Fraction(1, TICKS)
        # Stated, because players would otherwise guess by the size.
        self.colorspace = Colorspace.ITU709 if height >= 720 else Colorspace.ITU601
        coder.colorspace = coder.color_primaries = coder.color_trc = 1 if height >= 720 else 6
        coder.color_range = ColorRange.MPEG
        return stream

    def _write(self, image: np.ndarray, frame: TimedFrame) -> None:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            self.stream.width, self.stream.height, "yuv420p", dst_colorspace=self.colorspace, **ONE_THREAD
        )
        picture.time_base = Fraction(1, TICKS)
        picture.pts = round((frame.time_s - self.offset_s) * TICKS)
        self.durations[picture.pts] = round(frame.duration_s * TICKS)
        self._write_packets(self.stream.encode(picture))

    def _write_packets(self, packets: Sequence[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self.durations.pop(packet.pts, 0)  # x264 guesses the last one's
            self.container.mux(packet)

    def _write_sound_until(self, time_s: float) -> None:
        while self.sound_packet is not None and self.sound_packet[0] <= time_s:
            self.container.mux(self.sound_packet[1])
            self.sound_packet = next(self.sound, None)


def _packets(
    source: av.container.InputContainer, stream: av.AudioStream, target: av.AudioStream, offset_s: float
) -> Iterator[tuple[float, av.Packet]]:
    """Packets of the sound, each with its time, on a clock that begins at `offset_s` of the source's."""
    tick = float(stream.time_base or 0)
    offset = round(offset_s / tick) if tick else 0
    with suppress(av.error.FFmpegError):  # where the source breaks off, as the picture does
        for packet in read_packets(source, stream):
            # Packets before 0 only prime the decoder, and would make Matroska shift all times.
            if packet.dts is not None and packet.pts is not None and packet.pts >= offset:
                packet.dts, packet.pts = packet.dts - offset, packet.pts - offset
                packet.stream = target
                yield packet.dts * tick, packet


def draw_boxes(
    image: np.ndarray, found: Sequence[tuple[Row, tuple[float, float, float, float]]], colors: dict[str, str]
) -> np.ndarray:
    """Draw faces and what their rows say.

    Args:
        image: `(H, W, 3)` uint8 RGB; it is left as it is.
        found: Rows, and where their faces are in this frame: left, top, right, bottom in pixels.
        colors: By class.

    Returns:
        A new picture of that shape.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 180))
    size = max(11, round(min(picture.size) / 26))
    font = _font(size, "".join(colors))
    for row, box in found:
        color = colors[row.label] if row.label is not None else STATE_EDGE
        draw.rectangle([round(edge) for edge in box], outline=color, width=line)
        _draw_words(draw, picture.size, box, _words(row), color, font)
    return np.array(picture)


def draw_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Write text into the lower left corner of a picture `(H, W, 3)` uint8; returns a new one."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    font = _font(max(9, round(min(picture.size) / 36)), text)
    _draw_words(draw, picture.size, (0, picture.size[1], 0, 0), text, "#FFFFFF", font)
    return np.array(picture)


def _words(row: Row) -> str:
    if row.likeliest is None or row.scores is None:
        return f"{person(row.track)}: {row.state}"
    score = f"{row.likeliest} {row.scores[row.likeliest]:.2f}"
    return f"{person(row.track)}: " + (f"{score}, margin {row.margin:.2f}" if row.label else f"{UNSURE} ({score}?)")


def _draw_words(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: Sequence[float], words: str, color: str, font: "_Font"
) -> None:
    """Write on a background of the box's colour, above the box or, at the frame's edge, inside it."""
    _, _, width, height = (round(edge) for edge in draw.textbbox((0, 0), words, font=font))
    width, height = width + 6, height + 4
    left = max(0, min(round(box[0]), size[0] - width))
    top = round(box[1]) - height
    top = top if top >= 0 else max(0, min(round(box[1]), size[1] - height))
    draw.rectangle([left, top, left + width - 1, top + height - 1], fill=color)
    draw.text((left + 3, top + 1), words, fill=ink_on(color), font=font)


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=4)
def _font(size: int, text: str) -> _Font:
    """Pillow's own font, which needs no file of the system's, or an installed one that has the text's characters."""
    file = None if text.isascii() else font_file(text)
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(str(file), size)
