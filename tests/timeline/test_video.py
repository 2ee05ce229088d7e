"""Times of frames are the container's, damage is survived and told, and nothing waits for ever."""

import contextlib
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from helpers.face_videos import grey, write_sound, write_video
from modeling_stt.timeline.video import DamagedVideoError, TimedFrame, drop_late, is_live, read_frames, video_duration


def times_of(path: Path) -> list[float]:
    return [round(frame.time_s, 3) for frame in read_frames(path)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
def test_uneven_times_a_late_start_and_gaps_are_the_containers(tmp_path, suffix):
    times = [5.0, 5.04, 5.08, 5.5, 5.54, 9.0, 9.04, 9.5]
    path = write_video(tmp_path / f"v.{suffix}", [grey(20 * n) for n in range(8)], times, bf=0)
    # MPEG-TS starts its clock at the delay of its muxer.
    shift = times_of(path)[0] - 5.0 if suffix == "ts" else 0.0
    assert times_of(path) == pytest.approx([t + shift for t in times], abs=0.002)


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "libx264"), ("avi", "mpeg4"), ("mp4", "libx264")])
def test_frames_come_in_order_with_growing_times_where_b_frames_change_the_order(tmp_path, suffix, codec):
    """AVI stores no times, and those that FFmpeg makes up for B-frames are out of order."""
    path = write_video(tmp_path / f"v.{suffix}", [grey(8 * n) for n in range(30)], codec=codec)
    frames = list(read_frames(path))
    levels = [frame.image.mean() for frame in frames]
    assert levels == sorted(levels)
    steps = np.diff([frame.time_s for frame in frames])
    assert steps == pytest.approx(np.full(29, 0.04), abs=0.001)
    assert sum(frame.dropped for frame in frames) == 0


def test_one_frame_a_second_and_portrait(tmp_path):
    path = write_video(tmp_path / "v.mp4", [grey(9, 96, 54)] * 4, fps=1)
    frames = list(read_frames(path))
    assert [frame.time_s for frame in frames] == [0, 1, 2, 3]
    assert frames[-1].duration_s == 1
    assert frames[0].image.shape == (96, 54, 3)


def test_rotated_frames_come_upright(tmp_path):
    image = grey(0, 64, 96)
    image[:, :48] = 255  # left half white
    path = write_video(tmp_path / "turned.mp4", [image] * 3)
    data = bytearray(path.read_bytes())
    matrix = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 2**14]]) * 2**16  # as phones write it: turn to the right
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(data)
    frame = next(read_frames(path)).image
    assert frame.shape == (96, 64, 3)
    assert frame[:40].mean() > 230
    assert frame[56:].mean() < 25


def test_times_continue_when_the_clock_restarts(tmp_path):
    """Two recordings copied into one file: the second begins at 0 again."""
    parts = [write_video(tmp_path / f"{n}.ts", [grey(9)] * 50) for n in range(2)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    times = times_of(path)
    assert len(times) == 100
    assert np.diff(times) == pytest.approx(np.full(99, 0.04), abs=0.002)


def damage(path: Path, first: int, last: int) -> None:
    """Overwrite the later halves of some packets, so that the decoder notices."""
    with av.open(path) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[first:last]:
        data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)


def noise_frames(num_frames: int) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 255, (3, 48, 80, 3), dtype=np.uint8)
    return [np.roll(noise[n // 20], 2 * n, axis=1) for n in range(num_frames)]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4")])
def test_damaged_frames_are_left_out_counted_and_outlived(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"damaged.{suffix}", noise_frames(60), codec=codec, gop=20, bf=0)
    damage(path, 22, 25)
    frames = list(read_frames(path))
    assert [round(frame.time_s * 25) for frame in frames] == [*range(22), *range(40, 60)]
    assert {frame.dropped for frame in frames} == {0, 18}
    assert frames[22].dropped == 18


def test_damage_at_the_end_is_reported_after_the_frames(tmp_path):
    path = write_video(tmp_path / "damaged.mp4", noise_frames(40), gop=20, bf=0)
    damage(path, 30, 33)
    frames = read_frames(path)
    assert [round(next(frames).time_s * 25) for _ in range(30)] == list(range(30))
    with pytest.raises(DamagedVideoError, match=r"damaged\.mp4 is damaged: its last 10 frames"):
        next(frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_of_a_video_cut_short_the_frames_come_and_then_the_reason(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    codec = "mpeg4" if suffix == "avi" else "libx264"
    whole = write_video(tmp_path / f"whole.{suffix}", noise_frames(60), codec=codec, container_options=options)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    seen = []
    with pytest.raises(DamagedVideoError, match=rf"cut\.{suffix}"):
        seen.extend(read_frames(path))  # extend keeps what came before the error
    assert 8 < len(seen) < 50


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(b"no video" * 99), "cannot be read as a video"),
        (lambda path: write_sound(path), "no video stream"),
        (lambda path: None, "There is no video"),
    ],
    ids=["zero length", "no video", "only sound", "missing"],
)
def test_what_gives_no_frame_is_refused_by_name(tmp_path, write, message):
    path = tmp_path / "v.mp4"
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        next(read_frames(path))
    assert "v.mp4" in str(caught.value)
    assert video_duration(path) in (0, pytest.approx(1, abs=0.1))


def test_a_folder_is_not_a_video(tmp_path):
    """It was said to be damaged, cut short, or no video at all."""
    with pytest.raises(ValueError, match=rf"^{tmp_path} is a folder: expected one video"):
        list(read_frames(tmp_path))


def test_a_file_without_its_index_is_refused(tmp_path):
    """An MP4 whose end, where the index lies, is missing."""
    path = write_video(tmp_path / "v.mp4", noise_frames(30))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cannot be read as a video"):
        next(read_frames(path))


def test_durations_are_read_without_decoding(tmp_path):
    assert video_duration(write_video(tmp_path / "v.mp4", [grey(0)] * 50)) == pytest.approx(2, abs=0.05)
    assert video_duration("rtsp://nowhere") == video_duration(tmp_path / "missing.mp4") == 0


def test_frames_of_an_iterator():
    frames = list(read_frames((n / 10, grey(n)) for n in range(3)))
    assert [(frame.time_s, frame.dropped) for frame in frames] == [(0, 0), (0.1, 0), (0.2, 0)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(0.0, grey(0).astype(np.float32))], "Frame 0 should be .* float32"),
        ([(0.0, grey(0)), (1.0, grey(0)[..., 0])], r"Frame 1 should be .*\(48, 80\)"),
        ([(0.0, grey(0)), (0.0, grey(0))], "Frame 1 is timed 0.0 s, after one of 0.0 s"),
        ([(float("nan"), grey(0))], "timed nan"),
        ([grey(0)], "timed nan"),
    ],
)
def test_items_that_are_not_timed_frames_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        list(read_frames(items))


def test_frames_are_given_away_one_by_one():
    """Whatever the length, only the frame at hand is kept."""
    kept: list[weakref.ref] = []

    def make() -> Iterator[Any]:
        for n in range(40):
            image = grey(n)
            kept.append(weakref.ref(image))
            yield n / 10, image

    for frame in read_frames(make()):
        alive = sum(ref() is not None for ref in kept)
        assert alive <= 3, frame.time_s


def test_memory_does_not_grow_with_a_files_length(tmp_path):
    images = [grey(0, 240, 320)] * 20 + [grey(200, 240, 320)] * 180
    path = write_video(tmp_path / "v.mp4", images)
    tracemalloc.start()
    frames = read_frames(path)
    for _ in range(20):
        next(frames)
    early = tracemalloc.get_traced_memory()[0]
    for _ in range(170):
        next(frames)
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late - early < images[0].nbytes


def test_cameras_and_streams_are_live_and_files_are_not(tmp_path):
    assert [is_live(a) for a in ("/dev/video0", "rtsp://c/1", "RTSP://c", "udp://@:1")] == [True] * 4
    assert not any(is_live(a) for a in ("a.mp4", "http://c/a.mp4", tmp_path / "rtsp", "video0.mp4"))
    with pytest.raises(FileNotFoundError, match="no camera /dev/video987"):
        next(read_frames("/dev/video987"))


def test_an_address_where_nobody_answers_is_given_up():
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"rtsp://127\.0\.0\.1:9/x"):
        list(read_frames("rtsp://127.0.0.1:9/x"))
    assert time.monotonic() - started < 20


def test_late_frames_are_dropped_oldest_first_and_counted():
    first_taken, all_in = threading.Event(), threading.Event()

    def make() -> Iterator[Any]:
        for n in range(20):
            if n == 1:
                first_taken.wait(10)
            yield TimedFrame(float(n), grey(n), dropped=1 if n == 3 else 0)
        all_in.set()

    frames = drop_late(make(), max_waiting=4)
    first = next(frames)
    first_taken.set()
    assert all_in.wait(10)
    rest = list(frames)
    assert [frame.time_s for frame in rest] == [16, 17, 18, 19]
    assert first.dropped + sum(frame.dropped for frame in rest) + 5 == 20 + 1  # the one was lost before


def test_a_source_that_fails_fails_here_after_its_frames():
    def make() -> Iterator[Any]:
        yield TimedFrame(0.0, grey(0))
        raise RuntimeError("the cable")

    frames = drop_late(make())
    assert next(frames).time_s == 0
    with pytest.raises(RuntimeError, match="the cable"):
        next(frames)


def test_the_thread_of_a_live_source_ends_with_its_reader():
    def make() -> Iterator[Any]:
        n = 0
        while True:
            n += 1
            yield TimedFrame(float(n), grey(0))
            time.sleep(0.001)

    before = threading.active_count()
    frames = drop_late(make())
    next(frames)
    frames.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_avi_with_b_frames_keeps_the_gap_of_dropped_frames(tmp_path):
    """Frames were counted, so that every time after the gap came 2 s early, and the last 2 s lay in no row."""
    path = tmp_path / "v.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        for n in range(50):
            frame = av.VideoFrame.from_ndarray(grey(4 * n + 20), format="rgb24")
            frame.pts, frame.time_base = n + (50 if n >= 25 else 0), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(read_frames(path))
    assert len(frames) == 50
    assert frames[25].time_s - frames[24].time_s == pytest.approx(2.04, abs=0.001)
    assert frames[-1].time_s - frames[0].time_s == pytest.approx(3.96, abs=0.001)
    levels = [frame.image.mean() for frame in frames]
    assert levels == sorted(levels), "frames and times belong together"


def test_an_iterator_may_give_the_same_array_again():
    """A camera writes the next picture into the array of the last one: rows were those of other frames."""
    buffer = np.zeros((8, 8, 3), np.uint8)

    def camera():
        for n in range(5):
            buffer[:] = n
            yield n / 25, buffer

    assert [frame.image[0, 0, 0] for frame in list(read_frames(camera(), live=False))] == [0, 1, 2, 3, 4]


def test_a_picture_is_refused_with_what_to_do(tmp_path):
    Image.fromarray(grey(99)).save(tmp_path / "face.jpg")
    with pytest.raises(ValueError, match=r"face\.jpg is a picture: a timeline needs a video.*ffmpeg"):
        list(read_frames(tmp_path / "face.jpg"))


def test_a_video_cut_short_is_called_so_however_its_last_frames_are(tmp_path):
    """Of a video of 30 s cut after 5, it was said that its last 3 frames cannot be shown."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 80, 3), dtype=np.uint8) for _ in range(100)]
    path = write_video(tmp_path / "v.mp4", images, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    for share in (0.4, 0.5, 0.6):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DamagedVideoError, match=r"cut short: its header promises 4\.00 s"):
            list(read_frames(path))


def test_a_stream_that_turns_into_another_one_is_damage(tmp_path):
    """PyAV answered an AttributeError: 'DataStream' object has no attribute 'decode'."""
    images = [grey(4 * n) for n in range(50)]
    data = bytearray(write_video(tmp_path / "v.flv", images, gop=10).read_bytes())
    tags = [
        place for place in range(13, len(data) - 11) if data[place] == 9 and data[place + 8 : place + 11] == bytes(3)
    ]
    data[tags[len(tags) // 2]] = 18  # the type of a tag: a script in place of a picture
    (tmp_path / "v.flv").write_bytes(data)
    frames = []
    with contextlib.suppress(DamagedVideoError):
        frames.extend(read_frames(str(tmp_path / "v.flv")))
    assert 10 < len(frames) < 50


def test_the_end_of_the_sound_is_not_damage_of_the_picture(tmp_path):
    """PyAV gives the mark of every stream's end the index 0, which is mostly the picture's."""
    for suffix in ("mp4", "ts", "mkv"):
        path = write_video(tmp_path / f"v.{suffix}", [grey(8 * n) for n in range(30)], sound=True)
        assert len(list(read_frames(path))) == 30
