"""Videos that the benchmarks read. A file that is there already stays as it is."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_h264(path: Path, frames: Iterable[np.ndarray], fps: int, group: int = 12, **options: str) -> Path:
    """Write frames `(H, W, 3)` uint8 RGB as H.264, with a keyframe at least every `group` frames.

    Args:
        path: File to write.
        frames: The frames, all of one size.
        fps: Frames a second.
        group: Most frames from one keyframe to the next.
        **options: Options of x264, for example `crf="23"`.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f"partial_{path.name}")
    frames = iter(frames)
    first = next(frames)
    with av.open(partial_file, "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", group
        for image in chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return partial_file.rename(path)


def repeat_video(path: Path, video: Path, times: int) -> Path:
    """Write a video's packets as they are, so many times over; each time begins with a keyframe."""
    if path.exists():
        return path
    partial_file = path.with_name(f"partial_{path.name}")
    with av.open(partial_file, "w") as target:
        stream: Any = None
        for turn in range(times):
            with av.open(video) as container:
                source = container.streams.video[0]
                stream = stream or target.add_stream_from_template(source)
                length = round(source.duration or 0)
                for packet in container.demux(source):
                    if packet.dts is not None:
                        packet.pts, packet.dts = (packet.pts or 0) + turn * length, packet.dts + turn * length
                        packet.stream = stream
                        target.mux(packet)
    return partial_file.rename(path)
