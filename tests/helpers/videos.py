"""Small videos, written by PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def grey(level: int, height: int = 48, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    fps: int = 25,
    codec: str = "libx264",
    gop: int = 12,
    bf: int = 2,
    container_options: dict[str, str] | None = None,
    aspect: Fraction = Fraction(1),
    sound: bool = False,
) -> Path:
    """Write images at `fps`, or at times in seconds, which are kept to the thousandth; pixels are `aspect` wide.

    With `sound`, there is a second of silence beside them.
    """
    with av.open(path, "w", container_options=container_options or {}) as container:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=fps, options={"bf": str(bf), "sc_threshold": "0"} | quiet)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        if aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("aac", rate=8000) if sound else None
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(times[i] * 1000) if times else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux([*audio.encode(silence), *audio.encode()])
    return path


def write_sound(path: Path, seconds: int = 1) -> Path:
    with av.open(path, "w") as container:
        audio = container.add_stream("mp2", rate=44100, layout="stereo")
        for start in range(0, seconds * 44100, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path
