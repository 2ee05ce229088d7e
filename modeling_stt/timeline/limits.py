"""Limits on videos from strangers. A file is measured by its packets before any of it is decoded."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import torch

from ..video_reading_stt import ChooseFrames, VideoReader, open_source, read_packets
from .video import FrameReader, TimedFrame


@dataclass(frozen=True)
class VideoLimits:
    """Largest video that is read.

    Args:
        megabytes: Size of the file, in 10^6 bytes.
        seconds: Length.
        frames: Number of frames.
        side: Longer side of a frame, in pixels.
        rate: Frames within one second. It bounds the work on a file whose frames have the same time: all are decoded,
            and none completes a window.
    """

    megabytes: float
    seconds: float
    frames: int
    side: int
    rate: int = 300

    def check(self, video: str | os.PathLike, name: str = "The video") -> float:
        """Measure a file by its size, header and packets.

        Args:
            video: Path of the file.
            name: Name of the video in error messages.

        Returns:
            Its length in seconds.

        Raises:
            ValueError: For a file that exceeds a limit or is not a video.
        """
        self.check_size(Path(video).stat().st_size, name)
        try:
            with VideoReader(f"file:{os.fspath(video)}", name).open() as (container, stream):
                self._check_side(stream.width, stream.height, name)
                packets = (packet for packet in read_packets(container, stream) if packet.size)
                times = [packet.pts for packet in islice(packets, self.frames + 1)]
                unit = stream.time_base or 0  # read here: of a closed file, it is whatever lies in memory
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"{name} cannot be read as a video ({error.strerror}).") from error
        if len(times) > self.frames:
            raise ValueError(f"{name} has more than {self.frames} frames, the limit: cut a part out.")
        clock = sorted(float(pts * unit) for pts in times if pts is not None)
        if any(later - time < 1 for time, later in zip(clock, clock[self.rate :], strict=False)):
            raise ValueError(f"{name} has more than {self.rate} frames in a second, the limit: convert it first.")
        seconds = clock[-1] - clock[0] if clock else 0.0
        if seconds > self.seconds:
            raise ValueError(
                f"{name} has {seconds:.0f} seconds. The limit is {self.seconds:g} seconds: cut a part out."
            )
        return seconds

    def check_size(self, num_bytes: int, name: str = "The video") -> None:
        """Refuse an empty or too large file by its number of bytes."""
        if not 0 < num_bytes <= self.megabytes * 10**6:
            raise ValueError(
                f"{name} has {num_bytes / 1e6:.1f} MB. The limit is {self.megabytes:g} MB, and an empty file is not a "
                "video."
            )

    def read(self, video: str | os.PathLike, name: str = "The video") -> Iterator[TimedFrame]:
        """Read the frames of a file that passed `check`.

        Its header and packets may be wrong, so frames are counted, and each is measured before it is converted.

        Raises:
            ValueError: As soon as a limit is exceeded; for other errors see `read_frames`.
        """
        first_s = None
        reader = FrameReader(os.fspath(video))
        reader.name, reader.max_pixels = name, self.side**2
        for index, frame in enumerate(reader.frames()):
            first_s = frame.time_s if first_s is None else first_s
            height, width = frame.image.shape[:2]
            self._check_side(width, height, name)
            if frame.time_s - first_s > self.seconds or index >= self.frames:
                raise ValueError(
                    f"{name} has more than {self.seconds:g} seconds or {self.frames} frames: cut a part out."
                )
            yield frame

    def read_clip(self, video: str | os.PathLike, choose: ChooseFrames, name: str = "The video") -> torch.Tensor:
        """Read the chosen frames of a file that passed `check`, see `read_video_frames`.

        Returns:
            `(T, 3, H, W)` uint8 RGB.

        Raises:
            ValueError: For a frame beyond the limits, and a file that cannot be read to its end.
        """
        reader = VideoReader(open_source(video), name)
        reader.max_pixels = self.side**2
        try:
            frames, _ = reader.read(choose)
        except av.error.FFmpegError as error:
            raise ValueError(f"{name} cannot be read as a video ({error.strerror}).") from error
        self._check_side(frames.shape[-1], frames.shape[-2], name)
        return frames

    def _check_side(self, width: int, height: int, name: str) -> None:
        if max(width, height) > self.side:
            raise ValueError(
                f"{name} has {width} × {height} pixels. The limit is {self.side} pixels on the longer side: scale it "
                "down."
            )
