"""Videos from strangers are measured before they are decoded, and files that are made to take long are refused."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from transformers.video_utils import VideoMetadata

from helpers.videos import grey, write_video
from modeling_stt.timeline import limits
from modeling_stt.timeline.limits import VideoLimits
from modeling_stt.video_reading_stt import read_packets

LIMITS = VideoLimits(megabytes=50, seconds=60, frames=3600, side=1920)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", [grey(i) for i in range(20)])


def every_frame(metadata: VideoMetadata) -> np.ndarray:
    return np.arange(metadata.total_num_frames)


def write_still(path: Path, num_frames: int) -> Path:
    """A Matroska file whose frames all have the same time."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuvj420p"
        [packet] = stream.encode(av.VideoFrame.from_ndarray(grey(90), format="rgb24"))
        data = bytes(packet)
        for _ in range(num_frames):
            copy = av.Packet(data)
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, 0, 0, Fraction(1, 1000)
            copy.is_keyframe = True
            container.mux(copy)
    return path


def test_a_video_within_the_limits_is_read_whole(clip: Path) -> None:
    assert LIMITS.check(clip) == pytest.approx(19 / 25)
    assert [frame.time_s for frame in LIMITS.read(clip)] == pytest.approx([i / 25 for i in range(20)])


class _GuardedStream:
    """A stream that answers until it is closed; PyAV's own then reads freed memory."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.is_closed = stream, False

    def __getattr__(self, name: str) -> Any:
        assert not self.is_closed, f"{name} of a closed stream"
        return getattr(self._stream, name)


def test_a_closed_file_is_asked_nothing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Space once said of a video of six seconds that it has 2495044858."""
    opened = limits.VideoReader.open

    @contextmanager
    def open_guarded(reader: Any) -> Iterator[Any]:
        with opened(reader) as (container, stream):
            guarded = _GuardedStream(stream)
            yield container, guarded
        guarded.is_closed = True

    monkeypatch.setattr(limits.VideoReader, "open", open_guarded)
    monkeypatch.setattr(limits, "read_packets", lambda container, guarded: read_packets(container, guarded._stream))
    assert LIMITS.check(clip) == pytest.approx(19 / 25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megabytes": 0.001}, "The limit is 0.001 MB"),
        ({"seconds": 0.5}, "has 1 seconds. The limit is 0.5 seconds"),
        ({"frames": 19}, "more than 19 frames"),
        ({"side": 79}, "has 80 × 48 pixels. The limit is 79 pixels"),
        ({"rate": 19}, "more than 19 frames in a second"),
    ],
)
def test_a_video_beyond_a_limit_is_refused_without_being_decoded(
    changes: dict, message: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.VideoReader, "to_rgb", None)
    with pytest.raises(ValueError, match=message):
        replace(LIMITS, **changes).check(clip)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 0.5}, "more than 0.5 seconds or 3600 frames"),
        ({"frames": 19}, "more than 60 seconds or 19 frames"),
        ({"side": 79}, "80 × 48 pixels"),
    ],
)
def test_reading_stops_at_a_limit_whatever_the_packets_said(changes: dict, message: str, clip: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list(replace(LIMITS, **changes).read(clip))


def test_many_frames_of_one_time_are_refused_at_once(tmp_path: Path) -> None:
    """A 2 MB file of 60,000 such frames held the Space for 104 s: its frames never completed a window."""
    many = write_still(tmp_path / "many.mkv", 20_000)
    began = time.monotonic()
    with pytest.raises(ValueError, match="more than 3600 frames"):
        LIMITS.check(many)
    assert time.monotonic() - began < 10
    with pytest.raises(ValueError, match="more than 300 frames in a second"):
        LIMITS.check(write_still(tmp_path / "few.mkv", 301))
    LIMITS.check(write_still(tmp_path / "fewer.mkv", 300))


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_a_file_that_is_not_a_video_is_refused_by_its_given_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"^holiday\.mp4 (has 0.0 MB|cannot be read as a video)") as error:
        LIMITS.check(tmp_path / "v.mp4", "holiday.mp4")
    assert str(tmp_path) not in str(error.value)


def test_a_file_that_changes_its_frames_to_a_larger_size_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "grows.h264"
    parts = [
        write_video(tmp_path / f"{n}.h264", [grey(90, *size)] * 5) for n, size in enumerate([(48, 80), (96, 160)])
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    small = replace(LIMITS, side=100)
    small.check(path)
    for read in (lambda: list(small.read(path, "a.h264")), lambda: small.read_clip(path, every_frame, "a.h264")):
        with pytest.raises(ValueError, match=r"^a\.h264 has a frame of 160×96 px; expected up to 10000 pixels"):
            read()


def test_pixels_that_are_not_square_count_as_what_they_become(tmp_path: Path) -> None:
    """The header states 80 × 48 of them; a small file may so become a wide one."""
    path = write_video(tmp_path / "v.mp4", [grey(90)] * 5, aspect=Fraction(4))
    small = replace(LIMITS, side=100)
    small.check(path)
    for read in (lambda: list(small.read(path)), lambda: small.read_clip(path, every_frame)):
        with pytest.raises(ValueError, match=r"320×48 px; expected up to 10000 pixels"):
            read()


def test_frames_are_those_of_the_reader(clip: Path) -> None:
    frames = np.stack([frame.image for frame in LIMITS.read(clip)])
    assert frames.shape == (20, 48, 80, 3)
    assert (frames == LIMITS.read_clip(clip, every_frame).permute(0, 2, 3, 1).numpy()).all()
