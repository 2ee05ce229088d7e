"""`STTVideoProcessor` on real files. Every frame written here shows its number, so that frames can be identified."""

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from PIL import ExifTags, Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from transformers import AutoVideoProcessor, pipeline
from transformers.video_utils import VideoMetadata

from modeling_stt import (
    STTConfig,
    STTForVideoClassification,
    STTVideoProcessor,
    sample_frame_indices,
    video_reading_stt,
)
from modeling_stt.timeline import read_frames
from modeling_stt.video_reading_stt import VideoReader, list_frame_files, read_frame_files, read_video_frames

NUM_BITS = 8
HEIGHT, WIDTH = 48, 80


def number_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame `(H, W, 3)` that shows its number as black and white columns, the lowest bit at the left."""
    columns = np.arange(width) * NUM_BITS // width
    bits = (number >> columns & 1).astype(np.uint8)
    return np.tile(255 * bits[None, :, None], (height, 1, 3))


def number_of(frame: Any) -> int:
    """Read the number off a frame `(3, H, W)`, of values to 255 or to 1."""
    pixels = np.asarray(frame, dtype=np.float64)
    columns = pixels.mean(axis=(0, 1)) / (255 if pixels.max() > 1 else 1)
    width = len(columns)
    centres = [
        columns[(4 * bit + 1) * width // (4 * NUM_BITS) : (4 * bit + 3) * width // (4 * NUM_BITS)]
        for bit in range(NUM_BITS)
    ]
    return sum(int(centre.mean() > 0.5) << bit for bit, centre in enumerate(centres))


def numbers_of(clip: Any) -> list[int]:
    return [number_of(frame) for frame in clip]


def write_video(
    path: Path,
    frames: int | list[np.ndarray] = 60,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    ticks: list[int] | None = None,
    options: dict[str, str] | None = None,
    **container_options: Any,
) -> Path:
    """Write numbered (or given) frames at 25 fps, or at the given ticks of 1/100 s."""
    images = [number_frame(i) for i in range(frames)] if isinstance(frames, int) else frames
    with av.open(path, "w", **container_options) as container:
        stream = container.add_stream(codec, rate=100 if ticks else 25, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, gop
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (ticks[i], Fraction(1, 100)) if ticks else (i, Fraction(1, 25))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> torch.Tensor:
    """All frames, decoded in the plainest way: `(T, 3, H, W)`."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def choose(*indices: int) -> Any:
    return lambda metadata: np.array(indices)


B_FRAMES = {"bf": "2", "b_strategy": "0"}
ENCODINGS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"options": {"bf": "3", "b_strategy": "0"}},
    "h264_open_gops.mp4": {"options": {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:scenecut=0"}},
    "h264_no_keyframes_but_the_first.mp4": {"gop": 600},
    "h264_only_keyframes.mp4": {"gop": 1},
    "h264_keyframe_every_second.mp4": {"gop": 2, "options": {"bf": "1", "b_strategy": "0"}},
    "h264_refreshed_by_columns.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "h264_in_fragments.mp4": {"options": B_FRAMES, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc_open_gops.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"},
    },
    "hevc_sub_layers.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "temporal-layers=3:bframes=8:b-pyramid=1:log-level=none"},
    },
    "h264_pyramid_of_b_frames.mp4": {"options": {"x264-params": "bframes=8:b-pyramid=normal:b-adapt=0"}},
    "mpeg4_b_frames.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264_b_frames.mov": {"options": B_FRAMES},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264_b_frames.avi": {"options": B_FRAMES},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264_b_frames.mkv": {"options": B_FRAMES},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp9_hidden_frames.webm": {
        "codec": "libvpx-vp9",
        "gop": 30,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "h264_b_frames.ts": {"options": B_FRAMES},
    "mpeg2_b_frames.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "without_container.h264": {"options": B_FRAMES},
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip(media: Path) -> Path:
    """An H.264 video of 60 frames with B-frames, moov at its end."""
    return write_video(media / "clip.mp4", options=B_FRAMES)


@pytest.fixture
def frame_folder(tmp_path: Path) -> Path:
    """The frames 1.jpg … 40.jpg of a clip, unpadded, which show the numbers 1 … 40."""
    folder = tmp_path / "00001"
    folder.mkdir()
    for number in range(1, 41):
        Image.fromarray(number_frame(number)).save(folder / f"{number}.jpg")
    return folder


# Which frames: sample_frame_indices.


@pytest.mark.parametrize("frames_per_segment", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("num_frames", [1, 2, 15, 16])
@pytest.mark.parametrize("training", [False, True])
def test_indices_are_in_range_and_in_time_order_for_every_clip_length(num_frames, frames_per_segment, training):
    rng = np.random.default_rng(0) if training else None
    for num_available in [*range(1, 201), 847]:
        indices = sample_frame_indices(num_available, num_frames, frames_per_segment, rng)
        assert indices.shape == (num_frames,) and indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < num_available
        assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize(
    ("num_available", "expected"),
    [
        (1, [0] * 16),
        (2, [0] * 8 + [1] * 8),
        (8, np.arange(16) // 2),
        (11, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10]),
        (16, range(16)),
        (17, range(1, 17)),
        (40, [2, 3, 7, 8, 12, 13, 17, 18, 21, 22, 26, 27, 31, 32, 36, 37]),
    ],
)
def test_testing_takes_the_segments_centres(num_available, expected):
    assert sample_frame_indices(num_available).tolist() == list(expected)


def test_testing_takes_the_frames_that_former_dfer_takes():
    """Its rule for clips that are long enough: `int(tick / 2 + segment * tick)` with `tick = (n - 2 + 1) / 8`."""
    for num_available in range(16, 1000):
        tick = (num_available - 1) / 8
        starts = [int(tick / 2 + segment * tick) for segment in range(8)]
        assert sample_frame_indices(num_available).tolist() == [start + i for start in starts for i in range(2)]


@pytest.mark.parametrize("training", [False, True])
def test_short_clips_repeat_all_their_frames_evenly(training):
    rng = np.random.default_rng(0) if training else None
    for num_available in range(1, 16):
        for _ in range(20):
            counts = np.bincount(sample_frame_indices(num_available, rng=rng), minlength=num_available)
            assert len(counts) == num_available and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("num_available", [16, 17, 18, 40, 847])
def test_training_draws_every_frame_each_from_its_segment(num_available):
    rng = np.random.default_rng(0)
    draws = np.stack([sample_frame_indices(num_available, rng=rng) for _ in range(6000)])
    assert set(draws.flatten().tolist()) == set(range(num_available))
    starts = draws[:, ::2]
    assert (draws[:, 1::2] == starts + 1).all()
    bounds = np.arange(9) * (num_available - 1) // 8
    assert (starts >= bounds[:-1]).all() and (starts < bounds[1:]).all()


def test_training_draws_repeat_under_a_seed():
    draws = [sample_frame_indices(100, rng=np.random.default_rng(seed)).tolist() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_segments_have_one_frame_where_segments_do_not_divide_the_clip():
    assert sample_frame_indices(100, 5, 2).tolist() == [10, 30, 50, 70, 90]


@pytest.mark.parametrize("numbers", [(0, 16, 2), (-1, 16, 2), (10, 0, 2), (10, 16, 0)])
def test_impossible_sampling_is_refused(numbers):
    with pytest.raises(ValueError, match=r"at least (one|1)"):
        sample_frame_indices(*numbers)


# Video files: the right frames.


@pytest.mark.parametrize("name", ENCODINGS)
def test_chosen_frames_are_those_of_decoding_everything(media, name):
    settings = dict(ENCODINGS[name])
    path = write_video(media / name, **settings)
    everything = decode_all(path)
    assert numbers_of(everything) == list(range(60))
    for indices in ([0], [5], [59], [11, 12, 13, 23, 24, 25], [59, 3, 30, 3], [0, 1, 30, 31, 58, 59], range(60)):
        frames, metadata = read_video_frames(path, choose(*indices))
        assert torch.equal(frames, everything[list(indices)])
        assert (metadata.total_num_frames, metadata.height, metadata.width) == (60, HEIGHT, WIDTH)
        assert metadata.frames_indices == list(indices)
        assert metadata.fps == pytest.approx(25)
        assert metadata.duration == pytest.approx(2.4)


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709])
def test_colors_are_read_by_the_matrix_that_the_file_names(tmp_path, matrix):
    """PyAV 16 took BT.601 for every file: up to 13 of 255 off in HD video, and no word of it."""
    path = tmp_path / "v.mp4"
    color = (200, 60, 30)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.colorspace = {Colorspace.ITU601: 6, Colorspace.ITU709: 1}[matrix]
        image = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), color, np.uint8), format="rgb24")
        container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode())
    frames, _ = read_video_frames(path)
    assert np.abs(frames[0].permute(1, 2, 0).numpy().astype(int) - color).max() <= 3


def test_a_video_that_changes_its_size_gets_the_commonest_or_the_smaller_one(tmp_path):
    """Raw H.264 can be joined end to end: 10 frames of one size, then 10 of another."""
    path = tmp_path / "joined.h264"
    parts = [(range(10), (HEIGHT, WIDTH)), (range(10, 20), (2 * HEIGHT, 2 * WIDTH))]
    for number, (numbers, size) in enumerate(parts):
        part = write_video(tmp_path / f"{number}.h264", [number_frame(n, *size) for n in numbers])
        path.write_bytes(path.read_bytes() + part.read_bytes() if number else part.read_bytes())
    for indices, part in (([2, 12, 5, 19], 0), ([12, 2, 19, 5], 0), ([12, 2, 19], 1), ([2, 5], 0), ([12, 19], 1)):
        frames, metadata = read_video_frames(path, choose(*indices))
        assert numbers_of(frames) == indices
        assert frames.shape[-2:] == (metadata.height, metadata.width) == parts[part][1]


@pytest.mark.parametrize("num_frames", [1, 2, 6])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("mkv", "libx264"), ("webm", "libvpx")]
)
def test_very_short_videos_give_whole_clips(tmp_path, num_frames, suffix, codec):
    path = write_video(tmp_path / f"short.{suffix}", num_frames, codec=codec)
    clip = STTVideoProcessor(num_frames=12)(path, return_tensors="np")["pixel_values"][0]
    assert numbers_of(clip) == np.repeat(np.arange(num_frames), 12 // num_frames).tolist()


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx")])
def test_uneven_frame_times_and_a_late_start_change_nothing(tmp_path, suffix, codec):
    ticks = [500, 501, 502, 510, 511, 530, 531, 532, 550, 590, 591, 592, 593, 594, 600, 620]
    path = write_video(tmp_path / f"uneven.{suffix}", 16, codec=codec, ticks=ticks)
    frames, metadata = read_video_frames(path)
    assert numbers_of(frames) == list(range(16))
    assert numbers_of(read_video_frames(path, choose(3, 15))[0]) == [3, 15]
    assert metadata.fps == pytest.approx(15 / 1.2)


def test_frames_cut_off_by_an_edit_list_are_not_shown(tmp_path, clip):
    """What `ffmpeg -ss 0.28 -c copy` and the trimming on phones do: the frames stay in the file, but hidden."""
    path = tmp_path / "trimmed.mp4"
    with av.open(clip) as source, av.open(path, "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (time - round(0.28 / packet.time_base) for time in (packet.pts, packet.dts))
                packet.stream = stream
                target.mux(packet)
    frames, metadata = read_video_frames(path, choose(0, 4, 5, 52))
    assert numbers_of(frames) == [7, 11, 12, 59]
    assert metadata.total_num_frames == 53


def test_non_reference_frames_that_are_not_chosen_are_not_decoded(tmp_path, monkeypatch):
    """Frame 9 is predicted from 0, 3 and 6 only, and 59 from those of its group: decoding all before costs time."""
    decoded = []
    accept = video_reading_stt._ExpectedFrames.accept
    monkeypatch.setattr(
        video_reading_stt._ExpectedFrames, "accept", lambda self, index: decoded.append(index) or accept(self, index)
    )
    for suffix in ("mp4", "mov", "mkv"):
        path = write_video(
            tmp_path / f"b_frames.{suffix}", options={**B_FRAMES, "x264-params": "b-pyramid=0:scenecut=0"}
        )
        everything = decode_all(path)
        with monkeypatch.context() as patch:
            patch.setattr(VideoReader, "_decode_all", None)
            for index, expected in ((9, [0, 3, 6, 9]), (59, [48, 51, 54, 57, 59])):
                decoded.clear()
                assert torch.equal(read_video_frames(path, choose(index))[0][0], everything[index])
                assert decoded == expected, suffix


def test_a_stray_packet_of_another_stream_does_not_end_the_reading(tmp_path):
    """PyAV answered the bare IndexError of a stream that the file's beginning does not announce."""
    path = write_video(tmp_path / "stray.ts", options=B_FRAMES)
    data = bytearray(path.read_bytes())
    picture = b"\x00\x00\x01\xe0"
    last = max(start for start in range(0, len(data), 188) if picture in data[start : start + 188])
    data[last + 1] ^= 4  # the number of its stream, in a packet where a picture begins
    path.write_bytes(data)
    assert numbers_of(read_video_frames(path, choose(3, 30))[0]) == [3, 30]
    assert len(list(read_frames(path))) > 50


def test_a_skipping_decoder_cannot_mislead(tmp_path):
    """Two videos in one stream: times come twice, and the size changes. The clip gets the first frame's size."""
    parts = [
        write_video(
            tmp_path / f"{height}.ts", [number_frame(n, height, 2 * height) for n in range(20)], options={"bf": "0"}
        )
        for height in (48, 64)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, metadata = read_video_frames(path, choose(0, 19, 20, 39))
    assert numbers_of(frames) == [0, 19, 0, 19]
    assert (frames.shape, metadata.total_num_frames) == ((4, 3, 48, 96), 40)


# Orientation of the picture by quarter turn, as ffmpeg turns it: the colours' places, row by row.
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
DISPLAY_MATRICES = {
    "upright": ((1, 0), (0, 1), "RGBW"),
    "rotated left": ((0, -1), (1, 0), "GWRB"),
    "upside down": ((-1, 0), (0, -1), "WBGR"),
    "rotated right": ((0, 1), (-1, 0), "BRWG"),
    "mirrored": ((-1, 0), (0, 1), "GRWB"),
    "flipped": ((1, 0), (0, -1), "BWRG"),
    "transposed": ((0, 1), (1, 0), "RBGW"),
    "transposed the other way": ((0, -1), (-1, 0), "WGBR"),
}


@pytest.mark.parametrize("name", DISPLAY_MATRICES)
def test_display_matrices_are_obeyed_as_ffmpeg_does(tmp_path, name):
    """The expected places were read off `ffmpeg -display_rotation/-display_hflip/-display_vflip` and its output."""
    x_row, y_row, expected = DISPLAY_MATRICES[name]
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48], image[32:, 48:] = RED, GREEN, BLUE, WHITE
    path = write_video(tmp_path / "turned.mp4", [image] * 4)
    data = bytearray(path.read_bytes())
    matrix = np.array([[*x_row, 0], [*y_row, 0], [0, 0, 2**14]]) * [[2**16], [2**16], [2**16]]
    place = data.index(b"tkhd") + 44  # after flags, dates, id, duration, layer and volume
    data[place : place + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(data)
    frames, metadata = read_video_frames(path)
    height, width = (96, 64) if x_row[0] == 0 else (64, 96)
    assert (metadata.height, metadata.width) == frames.shape[-2:] == (height, width)
    seen = [frames[0, :, y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    for colour, pixel in zip(expected, seen, strict=True):
        assert (pixel - torch.tensor(COLOURS[colour])).abs().max() < 40


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("ffv1", "gray", "mkv"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "rgb48le", "mkv"),
        ("libx264", "yuv420p10le", "mp4"),
        ("libx264", "yuv444p", "mp4"),
        ("libx264", "yuvj420p", "mp4"),
        ("mjpeg", "yuvj420p", "avi"),
        ("qtrle", "argb", "mov"),
        ("png", "rgba", "mov"),
        ("libx264rgb", "bgr24", "mkv"),
    ],
)
def test_colours_survive_in_every_pixel_format(tmp_path, codec, pix_fmt, suffix):
    colour = (128, 128, 128) if pix_fmt.startswith("gray") else (60, 128, 195)
    images = [number_frame(number) for number in range(8)]
    for image in images:
        image[:8] = colour
    frames, _ = read_video_frames(write_video(tmp_path / f"colours.{suffix}", images, codec=codec, pix_fmt=pix_fmt))
    assert numbers_of(frames[:, :, 16:]) == list(range(8))
    assert (frames[3, :, 3, 40].int() - torch.tensor(colour)).abs().max() <= 8


@pytest.mark.parametrize(("height", "width"), [(47, 81), (83, 45), (17, 19)])
@pytest.mark.parametrize(("codec", "pix_fmt", "suffix"), [("ffv1", "bgr0", "mkv"), ("libvpx", "yuv420p", "webm")])
def test_odd_sizes_keep_every_row_and_column(tmp_path, height, width, codec, pix_fmt, suffix):
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None].repeat(3, -1).astype(np.uint8)
    frames, _ = read_video_frames(write_video(tmp_path / f"odd.{suffix}", [ramp] * 3, codec=codec, pix_fmt=pix_fmt))
    assert frames.shape == (3, 3, height, width)
    assert (frames[2].int() - torch.from_numpy(ramp).permute(2, 0, 1).int()).abs().float().mean() < 4


def test_cover_pictures_are_not_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=25)
        cover = container.add_stream("mjpeg", rate=1)
        cover.disposition = av.stream.Disposition.attached_pic.value
        for stream, pix_fmt in ((cover, "yuvj420p"), (video, "yuv420p")):
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pix_fmt
        for stream, numbers in ((cover, [255]), (video, range(20))):
            for number in numbers:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
            container.mux(stream.encode())
    assert numbers_of(read_video_frames(path)[0]) == list(range(20))


def test_of_several_videos_in_a_file_the_first_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(path, "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(10):
            for stream, shown in zip(streams, (number, 200 + number), strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(number_frame(shown), format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert numbers_of(read_video_frames(path)[0]) == list(range(10))


def test_audio_that_outlasts_the_video_is_not_missed_video(tmp_path):
    for suffix in ("mp4", "mkv", "avi"):
        path = tmp_path / f"sound.{suffix}"
        with av.open(path, "w") as container:
            video = container.add_stream("mpeg4", rate=25)
            video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
            add_silence(container, seconds=4)
            for number in range(10):
                container.mux(video.encode(av.VideoFrame.from_ndarray(number_frame(number), format="rgb24")))
            container.mux(video.encode())
        assert numbers_of(read_video_frames(path)[0]) == list(range(10))


def add_silence(container: av.container.OutputContainer, seconds: int) -> None:
    audio = container.add_stream("mp2", rate=44100, layout="stereo")
    for start in range(0, seconds * 44100, 1152):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def test_titles_in_any_encoding_are_passed_over(tmp_path):
    path = write_video(tmp_path / "titled.avi", 4, codec="mpeg4")
    with av.open(path) as source, av.open(tmp_path / "named.avi", "w") as target:
        target.metadata["title"] = "XXXX"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "named.avi").read_bytes()
    assert data.count(b"XXXX") == 1
    path.write_bytes(data.replace(b"XXXX", "电影".encode("gbk")))
    assert numbers_of(read_video_frames(path)[0]) == list(range(4))


def test_paths_that_look_like_addresses_are_paths(tmp_path, clip):
    path = shutil.copy(clip, tmp_path / "take:1 %03d été.mp4")
    assert numbers_of(read_video_frames(str(path), choose(7))[0]) == [7]


# Video files: no more work than needed.


class Counting:
    """Stands in for a PyAV container or packet and counts the frames that its packets decode."""

    def __init__(self, wrapped: Any, counts: list[int]) -> None:
        self.wrapped, self.counts = wrapped, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.wrapped.close()

    def __bytes__(self) -> bytes:
        return bytes(self.wrapped)

    def demux(self, *streams: Any) -> Iterator["Counting"]:
        for packet in self.wrapped.demux(*streams):
            yield Counting(packet, self.counts)

    def decode(self, *streams: Any, **named: Any) -> Any:
        frames = list(self.wrapped.decode(*streams, **named))
        self.counts.append(len(frames))
        return frames


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of frames decoded, a packet or pass each."""
    counts: list[int] = []
    av_open = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: Counting(av_open(*args, **kwargs), counts))
    return counts


@pytest.fixture(scope="module")
def long_video(media: Path) -> Path:
    return write_video(media / "long.mp4", [number_frame(n % 256) for n in range(1000)], gop=25, options=B_FRAMES)


def test_a_window_of_a_long_video_costs_its_window(long_video, decoded):
    frames, _ = read_video_frames(long_video, choose(*range(510, 526)))
    assert numbers_of(frames) == [n % 256 for n in range(510, 526)]
    assert sum(decoded) <= 30  # from the keyframe at 500 on, plus those on their way through the decoder


def test_a_sampled_long_video_costs_at_most_a_group_of_pictures_each_segment(long_video, decoded, monkeypatch):
    converted = []
    reader = video_reading_stt.VideoReader
    to_rgb = reader.to_rgb
    monkeypatch.setattr(reader, "to_rgb", lambda self, frame: converted.append(frame.pts) or to_rgb(self, frame))
    frames, metadata = read_video_frames(long_video, lambda metadata: sample_frame_indices(metadata.total_num_frames))
    assert numbers_of(frames) == [n % 256 for n in metadata.frames_indices]
    assert sum(decoded) <= 8 * 27
    assert len(converted) == len(set(converted)) == 16


@pytest.mark.parametrize(
    "name", ["h264_open_gops.mp4", "hevc_open_gops.mp4", "h264_b_frames.ts", "vp9_hidden_frames.webm"]
)
def test_open_groups_of_pictures_need_no_full_decoding(media, decoded, name):
    path = media / name
    if not path.exists():
        write_video(path, **ENCODINGS[name])
    assert numbers_of(read_video_frames(path, choose(50))[0]) == [50]
    assert sum(decoded) < 30


H264_BY_SHARE_OF_LEAVES = {
    "no_b_frames.mp4": ({"bf": "0"}, 0),
    "b_frames.mp4": ({"bf": "2", "b_strategy": "0"}, 2 / 3),
    "b_frames.mov": ({"bf": "2", "b_strategy": "0"}, 2 / 3),
    "b_frames.mkv": ({"bf": "2", "b_strategy": "0"}, 2 / 3),
    "b_frames_as_references.mp4": ({"bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=normal"}, 1 / 2),
    "b_frames_in_open_gops.mkv": ({"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=40:scenecut=0"}, 1 / 2),
    "b_frames_by_fields.mp4": ({"x264-params": "tff=1:bframes=2:b-adapt=0"}, 1 / 2),
    "many_slices.mp4": ({"x264-params": "slices=4:bframes=2:b-adapt=0:aud=1"}, 1 / 2),
}


@pytest.mark.parametrize("name", H264_BY_SHARE_OF_LEAVES)
def test_frames_that_no_other_needs_are_not_decoded_and_not_missed(tmp_path, decoded, name):
    """Moving noise with a long group of pictures: a wrongly left out frame would spread to all that follow."""
    options, share = H264_BY_SHARE_OF_LEAVES[name]
    noise = np.random.default_rng(0).integers(0, 255, (48, 200, 3), dtype=np.uint8)
    images = [np.maximum(noise[:, n : n + WIDTH], number_frame(n) // 2) for n in range(60)]
    path = write_video(tmp_path / name, images, gop=250, options=options)
    everything, _ = read_video_frames(path)
    assert torch.equal(everything, decode_all(path)) or name == "b_frames_by_fields.mp4"  # which are deinterlaced
    decoded.clear()
    frames, _ = read_video_frames(path, choose(59))
    assert torch.equal(frames[0], everything[59])
    assert sum(decoded) <= (1 - share) * 60 + 5
    for index in range(0, 60, 3):
        assert torch.equal(read_video_frames(path, choose(index, 30))[0], everything[[index, 30]])


def test_unchosen_frame_files_are_not_opened(frame_folder):
    for number in set(range(1, 41)) - {n + 1 for n in sample_frame_indices(40)}:
        (frame_folder / f"{number}.jpg").write_bytes(b"never read")
    assert numbers_of(STTVideoProcessor().read_clip(frame_folder)) == (sample_frame_indices(40) + 1).tolist()


# Folders and lists of images.


def test_frame_files_are_ordered_by_number_and_debris_is_passed_over(frame_folder):
    for debris in ("._1.jpg", "Thumbs.db", ".DS_Store", "notes.txt"):
        (frame_folder / debris).write_bytes(b"debris")
    (frame_folder / "41").mkdir()
    files = list_frame_files(frame_folder)
    assert [file.name for file in files] == [f"{number}.jpg" for number in range(1, 41)]
    assert numbers_of(read_frame_files(files[8:11])) == [9, 10, 11]


def test_the_last_number_in_the_name_counts(tmp_path):
    for name in ("s2_clip10_frame-0009.JPG", "s2_clip10_frame-0010.jpeg", "s2_clip10_frame-0002.png"):
        Image.fromarray(number_frame(1)).save(tmp_path / name)
    assert [file.name[-8:] for file in list_frame_files(str(tmp_path))] == ["0002.png", "0009.JPG", "010.jpeg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no frames"),
        (["readme.txt"], "has no frames"),
        (["1.jpg", "cover.jpg"], r"cover\.jpg has no number"),
        (["1.jpg", "01.jpg"], "the same frame number"),
    ],
)
def test_folders_without_a_clear_order_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message) as error:
        STTVideoProcessor().read_clip(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.fixture(params=["torchvision", "pillow"])
def decoders(request, monkeypatch):
    """With torchvision's image decoders, and without, as future releases of it will be."""
    assert video_reading_stt.DECODE_IMAGE is not None
    if request.param == "pillow":
        monkeypatch.setattr(video_reading_stt, "DECODE_IMAGE", None)


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_images_of_every_kind_come_out_as_rgb_bytes(tmp_path, mode):
    image = Image.fromarray(number_frame(5))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    image = image if mode == "I;16" else image.convert(mode)
    file = tmp_path / ("1.jpg" if mode == "CMYK" else "1.png")
    image.save(file)
    frames = read_frame_files([file])
    assert (frames.dtype, frames.shape) == (torch.uint8, (1, 3, HEIGHT, WIDTH))
    assert numbers_of(frames) == [5]


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_come_out_upright_with_the_pixels_of_pillow(tmp_path, suffix, orientation):
    noise = np.random.default_rng(orientation).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"1.{suffix}"
    Image.fromarray(noise).resize((80, 48)).save(file, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    assert np.array_equal(read_frame_files([file])[0].permute(1, 2, 0), upright)


def test_a_frame_file_that_comes_again_is_read_once(frame_folder, monkeypatch):
    read, read_file = [], video_reading_stt._read_file
    monkeypatch.setattr(video_reading_stt, "_read_file", lambda name: read.append(name) or read_file(name))
    files = [frame_folder / f"{number}.jpg" for number in (7, 2, 7, 9, 2)]
    assert numbers_of(read_frame_files(files)) == [7, 2, 7, 9, 2]
    assert read == [str(file) for file in (files[0], files[1], files[3])]


def test_frames_of_other_sizes_get_the_commonest_one(tmp_path, frame_folder):
    Image.fromarray(number_frame(2, 96, 160)).save(frame_folder / "2.jpg")
    for first in (0, 1):
        frames = read_frame_files(list_frame_files(frame_folder)[first : first + 3])
        assert frames.shape == (3, 3, HEIGHT, WIDTH)
        assert numbers_of(frames) == [first + 1, first + 2, first + 3]


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "unknown format"])
def test_a_damaged_frame_file_is_named(frame_folder, damage):
    file = frame_folder / "3.jpg"
    data = {
        "truncated": file.read_bytes()[:500],
        "empty": b"",
        "text": b"not a picture",
        "unknown format": b"BM" + bytes(60),
    }
    file.write_bytes(data[damage])
    with pytest.raises(ValueError, match=r"3\.jpg \(\d+ bytes\) is not a readable image"):
        STTVideoProcessor(num_frames=40).read_clip(frame_folder)


def test_a_missing_frame_file_is_named(frame_folder):
    with pytest.raises(FileNotFoundError, match=r"44\.jpg"):
        STTVideoProcessor().read_clip([frame_folder / "1.jpg", frame_folder / "44.jpg"])


# Bad video files.


def cut(path: Path, share: float, target: Path) -> Path:
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def refusal(video: Any) -> str:
    """The one clear error that a video is refused with, in good time."""
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        STTVideoProcessor()(video, return_tensors="pt")
    assert time.monotonic() - start < 20
    assert type(error.value) is ValueError
    return str(error.value)


def test_a_missing_path_is_named():
    with pytest.raises(FileNotFoundError, match=r"no video file or folder of frames /nowhere/clip\.mp4"):
        STTVideoProcessor()("/nowhere/clip.mp4")


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    """It was said to be damaged, cut short, or not a video at all."""
    (tmp_path / "clip.mp4").touch()
    assert (
        refusal(tmp_path / "clip.mp4") == f"{tmp_path / 'clip.mp4'} is empty (0 bytes): copy it again from its source."
    )
    assert "not a video at all" in refusal(b"")


def test_a_file_that_may_not_be_read_is_not_said_to_be_damaged(clip, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read all
    with pytest.raises(PermissionError, match=f"You may not read {clip}"):
        STTVideoProcessor()(clip)


@pytest.mark.parametrize("data", [b"This is a text, not a video.\n" * 200, bytes(5000), b"\x00\x00\x00\x18ftypmp42"])
def test_files_that_are_not_videos_are_refused(tmp_path, data):
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    assert str(path) in (message := refusal(path)) and "not a video at all" in message
    assert "the video given as bytes" in refusal(data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("subject.txt", "a happy face\n" * 100),
        ("clip.mp4", "ffconcat version 1.0\nfile CLIP\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nCLIP\n#EXT-X-ENDLIST\n"),
        ("subtitles.srt", "1\n00:00:00,000 --> 00:00:02,000\nhappy\n"),
    ],
)
def test_texts_are_neither_drawn_nor_followed_to_other_files(tmp_path, media, name, text):
    """FFmpeg would do both: show the text on a black screen, and read the file that a playlist names."""
    target = media / "in_playlist.ts"
    if not target.exists():
        write_video(target, 10)
    shutil.copy(target, tmp_path)
    path = tmp_path / name
    path.write_text(text.replace("CLIP", target.name))
    assert str(path) in refusal(path)


def test_sound_without_video_is_refused(tmp_path):
    path = tmp_path / "voice.mp4"
    with av.open(path, "w") as container:
        add_silence(container, seconds=1)
    assert f"{path} has no video stream (found: audio)" in refusal(path)


def test_a_song_with_a_cover_is_refused(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(path, "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "rgb24"
        audio = container.add_stream("libmp3lame", rate=44100)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(number_frame(3), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    assert "has no video stream (found: audio, cover picture)" in refusal(path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("index_at_the_end.mp4", {}),
        ("index_in_front.mp4", {"options": B_FRAMES, "container_options": {"movflags": "faststart"}}),
        ("index_in_front.mov", {"container_options": {"movflags": "faststart"}}),
        ("cut.mkv", {}),
        ("cut.webm", {"codec": "libvpx"}),
        ("cut.avi", {"codec": "mpeg4"}),
    ],
)
def test_videos_cut_short_are_refused(tmp_path, name, settings):
    whole = write_video(tmp_path / f"whole_{name}", **settings)
    for share in (0.5, 0.8):
        path = cut(whole, share, tmp_path / name)
        message = refusal(path)
        assert str(path) in message and "cut short" in message


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx")])
def test_of_a_recording_that_broke_off_the_rest_is_read(tmp_path, suffix, codec):
    """Its header does not know the length, so what is there is all that can be known."""
    stream = io.BytesIO()
    stream.seekable = lambda: False  # type: ignore[method-assign] # so the length is not filled in at the end
    write_video(stream, codec=codec, format="webm" if suffix == "webm" else "matroska")
    path = tmp_path / f"broken_off.{suffix}"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) * 6 // 10])
    frames, metadata = read_video_frames(path)
    assert 20 < metadata.total_num_frames < 50
    assert numbers_of(frames) == list(range(metadata.total_num_frames))


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mp4", "mpeg4"), ("avi", "mpeg4"), ("mkv", "libx264")]
)
def test_damage_is_refused_where_it_spreads_and_only_there(tmp_path, suffix, codec):
    """Decoders patch what is missing and mark that frame only, not those predicted from it."""
    noise = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    images = [np.roll(noise[n // 20], 2 * n, axis=1) for n in range(60)]
    path = write_video(
        tmp_path / f"damaged.{suffix}", images, codec=codec, gop=20, options={"bf": "0", "sc_threshold": "0"}
    )
    with av.open(path) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[22:25]:
        data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)
    for index in (0, 19, 40, 59):
        read_video_frames(path, choose(index))
    for index in (22, 30, 39):
        with pytest.raises(ValueError, match="damaged") as error:
            read_video_frames(path, choose(index))
        assert str(path) in str(error.value)


def test_a_video_of_no_frames_is_refused(tmp_path):
    for suffix in ("mp4", "avi", "mkv"):
        path = tmp_path / f"empty.{suffix}"
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
            container.start_encoding()
        assert str(path) in refusal(path)


def test_an_unreachable_address_is_refused(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "http://127.0.0.1:9/clip.mp4 cannot be fetched" in refusal("http://127.0.0.1:9/clip.mp4")


def test_addresses_are_fetched(clip, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(clip.read_bytes())

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        frames, _ = read_video_frames(f"http://127.0.0.1:{server.server_port}/clip.mp4", choose(7))
    assert numbers_of(frames) == [7]


def test_a_choice_outside_the_video_is_refused(clip):
    for indices in ([60], [-1], []):
        with pytest.raises(ValueError, match=r"clip\.mp4 has frames 0 to 59"):
            read_video_frames(clip, choose(*indices))


def test_open_files_of_every_kind_are_read_or_refused(clip):
    with clip.open("rb") as file:
        pipe = io.BufferedReader(file)
        pipe.seekable = lambda: False  # type: ignore[method-assign]
        assert numbers_of(read_video_frames(pipe, choose(7))[0]) == [7]
    with clip.open(encoding="latin-1") as text, pytest.raises(ValueError, match="is open as text"):
        read_video_frames(text)


# All forms of a video, at the processor.


@pytest.fixture
def clip_forms(clip: Path, tmp_path: Path) -> dict[str, Any]:
    """The same 60 frames in every form of the processor's docstring."""
    frames = decode_all(clip)
    folder = tmp_path / "frames"
    folder.mkdir()
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    array = np.stack([np.asarray(image) for image in images])
    return {
        "path": str(clip),
        "Path": clip,
        "bytes": clip.read_bytes(),
        "BytesIO": io.BytesIO(clip.read_bytes()),
        "open file": clip.open("rb"),
        "folder": folder,
        "folder's path": str(folder),
        "image paths": sorted(folder.iterdir(), key=lambda file: int(file.stem)),
        "tuple of image paths": tuple(str(folder / f"{number}.png") for number in range(60)),
        "PIL images": images,
        "arrays": list(array),
        "channels first arrays": list(frames.numpy()),
        "array": array,
        "reversed view": np.ascontiguousarray(array[..., ::-1])[..., ::-1],
        "channels first array": frames.numpy(),
        "tensor": torch.from_numpy(array),
        "channels first tensor": frames,
        "list of tensors": list(frames),
        "int64": array.astype(np.int64),
        "uint16": array.astype(np.uint16),
        "floats to 255": array.astype(np.float32),
        "doubles to 255": torch.from_numpy(array).double(),
    }


def test_every_form_of_a_video_gives_the_same_clip(clip_forms):
    processor = STTVideoProcessor()
    expected = processor(clip_forms["path"], return_tensors="pt")["pixel_values"]
    assert expected.shape == (1, 16, 3, 112, 112) and expected.dtype == torch.float32
    assert numbers_of(expected[0]) == sample_frame_indices(60).tolist()
    assert expected.min() >= 0 and expected.max() <= 1 and expected.max() > 0.9
    for form, video in clip_forms.items():
        got = processor(video, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(
            got, expected, atol=1.01 / 255, rtol=0, msg=lambda text, form=form: f"{form}: {text}"
        )
        assert torch.equal(processor.read_clip(video).round().byte(), processor.read_clip(clip_forms["path"])), form


def test_forms_can_be_mixed_in_a_batch_and_nested(clip_forms):
    processor = STTVideoProcessor()
    one = processor(clip_forms["path"], return_tensors="pt")["pixel_values"]
    batch = list(clip_forms.values())
    for videos in (batch, tuple(batch), [[video] for video in batch], [batch[:4], [batch[4:]]]):
        got = processor(videos, return_tensors="pt")["pixel_values"]
        assert got.shape == (len(batch), 16, 3, 112, 112)
        assert (got - one).abs().max() <= 1.01 / 255
    five_dimensional = np.stack([clip_forms["array"]] * 2)
    for videos in (five_dimensional, torch.from_numpy(five_dimensional)):
        assert processor(videos, return_tensors="pt")["pixel_values"].shape == (2, 16, 3, 112, 112)


def test_fetch_videos_reads_one_or_a_list(clip, frame_folder):
    """The hook by which transformers' own code, chat templates for one, reads videos."""
    processor = STTVideoProcessor()
    frames, metadata = processor.fetch_videos(str(clip), sample_indices_fn=processor.sample_frames)
    assert numbers_of(frames) == metadata.frames_indices == sample_frame_indices(60).tolist()
    (first, second), (_, metadata) = processor.fetch_videos([str(clip), frame_folder])
    assert (len(first), len(second), metadata.total_num_frames) == (60, 40, 40)


def test_one_image_is_a_clip_of_one_frame(frame_folder):
    processor = STTVideoProcessor(num_frames=4)
    image = Image.open(frame_folder / "9.jpg")
    for video in (image, np.asarray(image), str(frame_folder / "9.jpg"), [image], [frame_folder / "9.jpg"]):
        assert numbers_of(processor(video, return_tensors="np")["pixel_values"][0]) == [9] * 4


def test_an_open_file_can_be_read_again(clip):
    with clip.open("rb") as file:
        first, second = (read_video_frames(file, choose(40))[0] for _ in range(2))
        assert torch.equal(first, second)
        assert not file.closed


def test_palette_grey_and_transparent_pictures_become_rgb():
    processor = STTVideoProcessor(num_frames=1)
    frame = Image.fromarray(number_frame(9))
    for mode in ("L", "P", "1", "RGBA", "CMYK"):
        clip = processor([frame.convert(mode)], return_tensors="np")["pixel_values"][0]
        assert clip.shape == (1, 3, 112, 112) and numbers_of(clip) == [9]
    grey = np.asarray(frame.convert("L"))[None, ..., None]
    assert numbers_of(processor(grey, return_tensors="np")["pixel_values"][0]) == [9]


def test_frames_of_a_list_may_differ_in_size():
    """Face crops do. They get the first one's size, as frame files do."""
    frames = [Image.fromarray(number_frame(1)), Image.fromarray(number_frame(2, 60, 96))]
    assert numbers_of(STTVideoProcessor(num_frames=2).read_clip(frames)) == [1, 2]


def test_input_data_format_settles_what_the_shape_leaves_open():
    processor = STTVideoProcessor(num_frames=1, do_resize=False, do_rescale=False)
    video = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    first = processor(video, return_tensors="np")["pixel_values"][0]
    last = processor(video, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
    assert (first == video).all() and (last == video.transpose(0, 3, 1, 2)).all()


def test_without_sampling_all_frames_come(clip, frame_folder):
    processor = STTVideoProcessor()
    for video, numbers in ((clip, range(60)), (frame_folder, range(1, 41)), (decode_all(clip), range(60))):
        clips = processor(video, do_sample_frames=False, return_tensors="np")["pixel_values"]
        assert numbers_of(clips[0]) == list(numbers)


def test_fps_takes_frames_by_time(clip, frame_folder):
    processor = STTVideoProcessor()
    assert processor(clip, fps=5, return_tensors="pt")["pixel_values"].shape[1] == 12
    with pytest.raises(ValueError, match="fps=5 asks for frames by time"):
        processor(frame_folder, fps=5)
    known = {"total_num_frames": 40, "fps": 25.0}
    assert processor(frame_folder, fps=5, video_metadata=known, return_tensors="pt")["pixel_values"].shape[1] == 8
    with pytest.raises(ValueError, match="metadata says 39 frames, the video has 40"):
        processor(frame_folder, video_metadata={"total_num_frames": 39})


def test_other_numbers_of_frames_and_returned_metadata(clip):
    processor = STTVideoProcessor()
    output = processor(clip, num_frames=5, return_tensors="pt", return_metadata=True)
    assert numbers_of(output["pixel_values"][0]) == sample_frame_indices(60, 5).tolist()
    assert output["video_metadata"][0].frames_indices == sample_frame_indices(60, 5).tolist()
    single = processor(clip, num_frames=8, frames_per_segment=1, return_tensors="pt")
    assert numbers_of(single["pixel_values"][0]) == sample_frame_indices(60, 8, 1).tolist()
    every = STTVideoProcessor(num_frames=None)(clip, return_tensors="pt")
    assert numbers_of(every["pixel_values"][0]) == list(range(60))
    for kwargs in ({"num_frames": 0}, {"frames_per_segment": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            processor(clip, **kwargs)


def test_return_tensors(clip):
    processor = STTVideoProcessor()
    assert isinstance(processor([clip, clip], return_tensors="np")["pixel_values"], np.ndarray)
    clips = processor([clip, clip])["pixel_values"]
    assert isinstance(clips, list) and [tuple(one.shape) for one in clips] == [(16, 3, 112, 112)] * 2
    unequal = [number_frame(1)[None].repeat(3, 0), number_frame(1)[None].repeat(4, 0)]
    assert [len(one) for one in processor(unequal, do_sample_frames=False)["pixel_values"]] == [3, 4]
    with pytest.raises(ValueError, match="different shapes"):
        processor(unequal, do_sample_frames=False, return_tensors="pt")


def test_training_reads_other_frames_of_the_same_clip(clip):
    processor = STTVideoProcessor()
    read = [numbers_of(processor.read_clip(clip, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert read[0] == read[1] != read[2]
    assert read[0] == sample_frame_indices(60, rng=np.random.default_rng(1)).tolist()


BLACK = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (None, "Expected a video.*NoneType|Expected a video.*None"),
        ([], r"Expected a video.*\[\]"),
        ([BLACK, []], "Expected a video"),
        ([BLACK, None], "Expected a video"),
        ([Image.new("RGB", (8, 8)), "frame.jpg"], "Expected a video"),
        ({"path": "clip.mp4", "bytes": None}, "Expected a video"),
        (7, "Expected a video"),
        (np.zeros((40, 112), np.uint8), r"Expected a video.*\(40, 112\)"),
        (np.zeros((2, 2, 2, 8, 8, 3), np.uint8), "Expected a video"),
        (np.zeros((40, 112, 112), np.uint8), r"\(40, 112, 112\)"),
        (np.zeros((16, 112, 112, 2), np.uint8), r"\(16, 112, 112, 2\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no frame|at least one"),
        (np.zeros((16, 0, 8, 3), np.uint8), r"\(16, 0, 8, 3\)"),
        (BLACK.astype(bool), "bool"),
        (BLACK.astype(complex), "complex"),
        (BLACK.astype(object), "object"),
        (BLACK.astype(np.int16) - 1, "int16"),
        (BLACK.astype(np.uint16) + 1023, "uint16"),
        (BLACK + 0.5, r"0\.5 to 0\.5 cannot be divided by 255"),
        (BLACK - 2.1, r"-2\.1 to -2\.1 cannot be divided by 255"),
        (BLACK + 1000.0, "cannot be divided by 255"),
        (BLACK + np.nan, "nan to nan cannot be divided by 255"),
        (np.zeros((4, 8, 8, 4)), "RGBA and must be uint8, got float64"),
        ([Image.new("RGB", (8, 8)), Image.new("RGBA", (8, 8))], "differ in channels"),
        ([Image.new("I;16", (8, 8))] * 4, r"\(8, 8\), uint16"),
        ([np.zeros((8, 8), np.uint8)] * 4, "Expected a video"),
    ],
)
def test_other_things_than_videos_are_refused(video, message):
    with pytest.raises(ValueError, match=message):
        STTVideoProcessor()(video, return_tensors="pt")


def test_floats_that_are_scaled_already_are_taken_on_request():
    video = np.stack([number_frame(n) for n in range(16)]) / 255.0
    clip = STTVideoProcessor()(video, do_rescale=False, return_tensors="pt")["pixel_values"]
    assert clip.dtype == torch.float32 and numbers_of(clip[0]) == list(range(16))
    assert torch.equal(
        STTVideoProcessor()(BLACK * 0.0, return_tensors="pt")["pixel_values"], torch.zeros(1, 16, 3, 112, 112)
    )


# The class.


def test_saving_and_loading_keeps_every_setting(tmp_path):
    processor = STTVideoProcessor(num_frames=12, frames_per_segment=3, size=96, do_normalize=True)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "video_preprocessor_config.json").read_text())["frames_per_segment"] == 3
    for loaded in (STTVideoProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is STTVideoProcessor
        assert loaded.to_dict() == processor.to_dict()
        assert (
            loaded.sample_frames(VideoMetadata(total_num_frames=100)).tolist()
            == sample_frame_indices(100, 12, 3).tolist()
        )


def test_the_face_crop_of_an_older_folder_is_read_from_its_model_configuration(tmp_path):
    crop = {"margin": 0.2, "align": True, "size": 40, "min_side": 24}
    STTVideoProcessor().save_pretrained(tmp_path)
    assert STTVideoProcessor.from_pretrained(tmp_path).face_crop is None  # alone in its folder
    STTConfig().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"face_crop": crop}))
    for loaded in (STTVideoProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert loaded.face_crop == crop
    STTConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)
    assert "face_crop" not in json.loads((tmp_path / "config.json").read_text())
    assert STTVideoProcessor.from_pretrained(tmp_path).face_crop == crop
    STTVideoProcessor(face_crop=crop | {"margin": 0.0}).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings | {"face_crop": crop}))
    assert STTVideoProcessor.from_pretrained(tmp_path).face_crop["margin"] == 0.0  # its own setting counts


def test_clips_are_scaled_to_one_and_normalised_on_request(clip):
    plain = STTVideoProcessor()(clip, return_tensors="pt")["pixel_values"]
    normalised = STTVideoProcessor(do_normalize=True)(clip, return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(normalised, (plain - mean) / std, atol=1e-5, rtol=1e-5)


class Videos(Dataset):
    def __init__(self, path: Path) -> None:
        self.path, self.processor = path, STTVideoProcessor()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.processor(self.path, return_tensors="pt")["pixel_values"][0]


def test_forked_workers_decode_after_their_parent_has(clip):
    """In a process of its own: what other tests have left running in threads must not be forked."""
    done = subprocess.run([sys.executable, __file__, clip], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def decode_in_forked_workers(clip: str) -> None:
    videos = Videos(clip)
    expected = videos[0]
    loader = DataLoader(videos, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    for batch in loader:
        assert torch.equal(batch, torch.stack([expected, expected]))


def test_the_pipeline_takes_paths_of_every_container_and_of_folders(media, frame_folder):
    config = STTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        num_frames=4,
        backbone_stem_width=4,
        backbone_widths=(4, 4, 4),
        backbone_depths=(1, 1, 1),
    )
    classify = pipeline(
        "video-classification", model=STTForVideoClassification(config), video_processor=STTVideoProcessor(size=32)
    )
    paths = [str(frame_folder)]
    for name in ("h264.mp4", "mpeg4.avi", "h264_b_frames.mkv", "vp8.webm", "h264_b_frames.mov"):
        path = media / name
        paths.append(str(path if path.exists() else write_video(path, **ENCODINGS[name])))
    for path, answers in zip(paths, classify(paths, top_k=7), strict=True):
        assert {answer["label"] for answer in answers} == set(config.id2label.values()), path
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-3)


if __name__ == "__main__":
    decode_in_forked_workers(sys.argv[1])
