"""Whatever comes as a video is answered: with rows whose states and times are right, or with a clear reason."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers.drawn_faces import draw_faces
from helpers.face_videos import (
    CROP,
    HalvesDetector,
    HalvesTracker,
    grey,
    make_model,
    make_processor,
    make_timeline,
    scene,
    timed,
    write_sound,
    write_video,
)
from helpers.real_videos import read_real
from modeling_stt.timeline import explain, video, write_annotated_video
from modeling_stt.timeline.batch import find_videos, write_timelines
from modeling_stt.timeline.detection import find_faces
from modeling_stt.timeline.pipeline import Timeline
from modeling_stt.timeline.tables import read_table
from modeling_stt.timeline.tracks import follow_faces
from modeling_stt.timeline.video import DamagedVideoError, TimedFrame, read_frames


@pytest.fixture(scope="module")
def real() -> Timeline:
    """A timeline with the real detector and tracker, and a model of random weights."""
    return Timeline(make_model(), processor=make_processor(CROP | {"align": True}))


def drawn(shape: tuple[int, int] = (180, 320), num_frames: int = 50, **options) -> list[np.ndarray]:
    """A face that sways in a room with a window, so that the picture has a shot's contrast."""
    return [
        draw_faces(shape, [(shape[1] / 2 + 10 * np.sin(n / 8), shape[0] / 2, shape[0] / 180)], **options)
        for n in range(num_frames)
    ]


def test_a_good_beginning_of_corrupt_or_truncated_videos_is_kept(real, tmp_path):
    """All kinds of damage in one table: each has its reason, the whole one and the damaged ones have rows."""
    whole = write_video(tmp_path / "whole.mp4", drawn(), container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(data[: len(data) * 7 // 10])
    (tmp_path / "headless.mp4").write_bytes(data[5000:])
    (tmp_path / "zero.mp4").touch()
    write_sound(tmp_path / "sound.mp4")
    noise = np.random.default_rng(0).integers(0, 256, len(data) // 4, dtype=np.uint8).tobytes()
    (tmp_path / "scrambled.mp4").write_bytes(data[: len(data) // 2] + noise + data[len(data) * 3 // 4 :])
    summary = write_timelines(find_videos([tmp_path]), real, tmp_path / "rows.csv")
    errors = {Path(e["video"]).name: e["reason"] for e in read_table(tmp_path / "rows.errors.csv")}
    # FFmpeg's threads don't always conceal the same frames of the scrambled one: it may end well or not.
    badly = "scrambled.mp4" in errors
    assert (summary.num_videos, summary.num_errors) == (6, 4 + badly)
    assert "cut short" in errors["truncated.mp4"] or "damaged" in errors["truncated.mp4"]
    assert "cannot be read as a video" in errors["headless.mp4"]
    assert "no video stream" in errors["sound.mp4"]
    rows = {Path(r["video"]).name: r for r in read_table(tmp_path / "rows.csv")}
    assert set(rows) == {"whole.mp4", "truncated.mp4", "scrambled.mp4"}
    assert 0.5 < float(rows["truncated.mp4"]["end_s"]) < 2 == float(rows["whole.mp4"]["end_s"])
    # Where it ends well, what is missing from its middle is counted.
    end_s, num_dropped = float(rows["scrambled.mp4"]["end_s"]), int(rows["scrambled.mp4"]["frames_dropped"])
    assert badly or (end_s == 2 and num_dropped > 5)


def test_an_8k_video_is_read(real, tmp_path):
    frame = draw_faces((4320, 7680), [(3000, 2000, 20.0)])
    [row] = real(write_video(tmp_path / "8k.mp4", [frame] * 2, fps=1, codec="mpeg4"))
    assert (row.state, row.start_s, row.end_s) == ("face", 0, 2)
    left, top, right, bottom = row.box
    assert left < 3000 < right and top < 2000 < bottom
    assert 1200 < right - left < 2400


@pytest.mark.parametrize("turned", [False, True])
def test_portrait_and_rotated_videos_are_upright(real, tmp_path, turned):
    """A phone writes portrait either as it is or lying, with a note that it is to be turned."""
    frames = drawn((320, 180), num_frames=25)
    lying = [np.rot90(frame) for frame in frames]
    path = write_video(tmp_path / "v.mp4", lying if turned else frames)
    if turned:
        data = bytearray(path.read_bytes())
        matrix = np.array([[0, 1, 0], [-1, 0, 0], [180, 0, 2**14]]) * 2**16
        place = data.index(b"tkhd") + 44
        data[place : place + 36] = matrix.astype(">i4").tobytes()
        path.write_bytes(data)
    [row] = real(path)
    assert (row.state, row.face_share) == ("face", 1)
    assert (row.box[0] + row.box[2]) / 2 == pytest.approx(90, abs=15)
    assert (row.box[1] + row.box[3]) / 2 == pytest.approx(160, abs=25)


def test_one_frame_a_second(real, tmp_path):
    rows = list(real(write_video(tmp_path / "v.mp4", drawn(num_frames=6), fps=1)))
    assert [(r.start_s, r.end_s, r.state, r.track) for r in rows] == [(n, n + 2, "face", 1) for n in range(5)]


def test_a_single_frame_of_unknown_duration():
    """It was taken for a frame without anybody."""
    [row] = make_timeline()(timed(scene("happy", ""))[:1])
    assert (row.start_s, row.end_s, row.state, row.face_share) == (0, 0, "face", 1)


@pytest.mark.parametrize("fps", [25, 1])
def test_faces_may_be_looked_for_in_fewer_frames(fps):
    """The frames between have the face where it must be; where frames are few, each is looked at."""
    looked: list[float] = []

    class Sparse(HalvesDetector):
        def detect(self, frames):
            looked.append(frames[0].mean())
            return super().detect(frames)

    frames = timed(scene("happy", "", seconds=3), fps)[: 3 * fps]
    every, sparse = make_timeline(), make_timeline(detector=Sparse(), detect_fps=12.5)
    assert sparse.settings()["detect_fps"] == 12.5
    rows = [list(reader(frames)) for reader in (every, sparse)]
    assert len(looked) == (38 if fps == 25 else 3)
    for one, other in zip(*rows, strict=True):
        assert (one.state, one.start_s, one.end_s, one.box) == (other.state, other.start_s, other.end_s, other.box)
        assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), abs=1e-5)


def test_between_two_looks_a_face_is_on_the_straight_line():
    class Moving(HalvesDetector):
        def detect(self, frames):
            [[face, _]] = super().detect(frames)
            x = float(frames[0][0, 0, 0])
            return [[face.__class__((x, 0, x + 20, 20), 0.9, np.full((5, 2), x))]]

    frames = [TimedFrame(n / 25, grey(20 + n)) for n in range(9)]
    followed = list(follow_faces(find_faces(frames, Moving(), detect_fps=6.25), HalvesTracker()))
    seen = [(face.box[0], face.landmarks[0, 0]) for each in followed for face in each.faces.values()]
    assert seen == [(20 + n, 20 + n) for n in range(9)]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Stalling(BaseHTTPRequestHandler):
    """Promises a whole file, sends half of it, and then nothing."""

    data = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data[: len(self.data) // 2])
        time.sleep(6)

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(handler) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_http_address_is_read_as_a_file(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=3), container_options={"movflags": "faststart"})
    with serving(partial(Quiet, directory=tmp_path)) as address:
        rows = list(make_timeline()(f"{address}/v.mp4"))
        with pytest.raises(
            ValueError, match=rf"{address}/none\.mp4 cannot be read as a video .*404.*Check the address"
        ):
            list(make_timeline()(f"{address}/none.mp4"))
    expected = list(make_timeline()(path))
    assert [(r.start_s, r.end_s, r.scores) for r in rows] == [(r.start_s, r.end_s, r.scores) for r in expected]


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    """It was waited for without end."""
    monkeypatch.setattr(video, "SILENCE_S", 1.0)
    noise = np.random.default_rng(0).integers(0, 255, (75, 96, 160, 3), dtype=np.uint8)
    path = write_video(tmp_path / "v.mkv", list(noise))
    Stalling.data = path.read_bytes()
    started = time.monotonic()
    seen = []
    with serving(Stalling) as address, pytest.raises(DamagedVideoError, match=r"broke off at|cut short"):
        seen.extend(read_frames(f"{address}/v.mkv"))
    assert 5 < len(seen) < 75
    assert time.monotonic() - started < 5.5


def send_live(server: socket.socket, images: list[np.ndarray], pace_s: float, aspect: Fraction = Fraction(1)) -> None:
    """Send images as MPEG-TS to who connects, its clock at 1000 s, as a camera would that has long been on."""
    connection, _ = server.accept()
    with connection, connection.makefile("wb") as out, av.open(out, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 12
        stream.codec_context.sample_aspect_ratio = aspect
        for n, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = 25000 + n, Fraction(1, 25)
            container.mux(stream.encode(frame))
            time.sleep(pace_s)
        container.mux(stream.encode())


@pytest.mark.parametrize("slow", [False, True])
def test_a_live_address_gives_rows_while_it_sends(slow, caplog):
    """A reader that is too slow drops frames, counts them, and stays with the present."""

    class Slow(HalvesDetector):
        def detect(self, frames):
            time.sleep(0.03 if slow else 0)
            return super().detect(frames)

    images = scene("happy", "", seconds=6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=send_live, args=(server, images, 0.01 if slow else 0.03), daemon=True)
        sender.start()
        rows, sending = [], []
        for row in make_timeline(detector=Slow(), stride_s=2.0)(f"tcp://127.0.0.1:{server.getsockname()[1]}"):
            rows.append(row)
            sending.append(sender.is_alive())
    assert sending[0], "the first row came while frames were being sent"
    first_s = rows[0].start_s  # on a busy machine, the first frames may be late already
    assert first_s < 1
    assert [r.start_s for r in rows] == pytest.approx([first_s, first_s + 2, first_s + 4])
    assert rows[-1].end_s == pytest.approx(6, abs=0.3)
    assert {(r.state, r.track) for r in rows} == {("face", 1)}
    dropped = sum(r.frames_dropped for r in rows)
    assert dropped > 50 or not slow
    assert ("frames dropped: damaged ones" in caplog.text) == (dropped > 0)


def test_the_pixels_of_a_live_address_become_square():
    """A broadcast of 1440 × 1080 or 720 × 576 was read as if its pixels were square."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        images = scene("happy", "", seconds=1)
        threading.Thread(target=send_live, args=(server, images, 0.005, Fraction(2)), daemon=True).start()
        frames = list(read_frames(f"tcp://127.0.0.1:{server.getsockname()[1]}"))
    assert {frame.image.shape for frame in frames} == {(64, 256, 3)}


def resized(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((32, 32)))


def test_pixels_are_square_before_a_face_is_sought_and_in_the_annotated_video(tmp_path):
    path = write_video(tmp_path / "dvd.mp4", scene("happy", "", seconds=2), aspect=Fraction(2))
    timeline = make_timeline(thumbnails=True)
    [row] = write_annotated_video(path, timeline, tmp_path / "drawn.mp4")
    assert row.box[2] - row.box[0] == pytest.approx(0.9 * 128)  # the face fills a half of 256 px
    with av.open(tmp_path / "drawn.mp4") as container:
        [stream] = container.streams.video
        assert (stream.width, stream.height, stream.sample_aspect_ratio or 1) == (256, 64, 1)
    model = make_model()
    model.set_attn_implementation("eager")
    shown = explain(path, make_timeline(model=model)).frames
    assert shown.shape[1:3] == (32, 32)
    assert np.abs(shown[0].astype(int) - resized(row.thumbnail)).mean() < 12


def test_an_event_stops_an_endless_source():
    stop = threading.Event()
    image = scene("happy", "")[0]

    def camera():
        n = 0
        while True:
            if n == 60:
                stop.set()
            yield n / 25, image
            n += 1

    rows = list(make_timeline()(camera(), stop=stop))
    assert 2.0 <= rows[-1].end_s <= 2.44 + 1e-6, "a few frames may be on their way"


def test_threads_end_with_the_rows():
    """Taking the first row of a camera and no more leaves nothing running."""
    before = threading.active_count()

    def camera():
        for n, image in enumerate(scene("happy", "") * 400):
            time.sleep(0.001)
            yield n / 25, image

    for live in (False, True):
        rows = make_timeline()(camera(), live=live)
        next(rows)
        rows.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def real_rows(real: Timeline, name: str, **options) -> list[tuple[float, int | None, str]]:
    read_real(name)  # skips where it is absent
    return [(r.start_s, r.track, r.state) for r in real(Path(os.environ["STT_FACE_VIDEOS"]) / name)]


def test_real_videos_have_the_states_and_tracks_that_one_sees(real):
    """One man all the time; nobody; a man who comes, or goes, with a cut."""
    assert real_rows(real, "single_face.mp4") == [(0, 1, "face"), (1, 1, "face")]
    assert set(real_rows(real, "no_face.mp4")) == {(n, None, "no face") for n in range(4)}
    # Cuts at 3.2 s and 3 s.
    states = ["no face", "no face", "lost", "face", "face", "face"]
    assert [state for _, _, state in real_rows(real, "noface_face.mov")] == states
    states = ["face", "face", "lost", "no face", "no face", "no face"]
    assert [state for _, _, state in real_rows(real, "face_noface.mov")] == states


def test_two_shots_of_real_people_are_two_tracks(real):
    """A cut from one man to another: nobody's window holds both."""
    shots = read_real("single_face.mp4")[:60], read_real("WolfgangLanger_Pexels.mp4")[:60]
    rows = list(real([(n / 30, image) for n, image in enumerate([*shots[0], *shots[1]])]))
    assert [(r.start_s, r.track, r.state) for r in rows] == [
        *((0, 1, "face"), (1, 1, "lost"), (1, 2, "face"), (2, 2, "face")),
    ]
    assert [round(r.face_share, 2) for r in rows] == [0.98, 0.49, 0.51, 1.0]
