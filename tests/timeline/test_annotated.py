"""The annotated video: the source's frames at the source's times, drawn upon where faces are and nowhere else."""

import logging
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from helpers.face_videos import NAMES, HalvesDetector, grey, make_timeline, scene, write_video
from modeling_stt.timeline import annotated
from modeling_stt.timeline.annotated import draw_boxes, write_annotated_video
from modeling_stt.timeline.pictures import CLASS_COLORS, STATE_EDGE, class_colors
from modeling_stt.timeline.rows import Row
from modeling_stt.timeline.video import DamagedVideoError, read_frames

UNEVEN = [0.0, 0.1, 0.9, 1.0, 1.04, 2.7, 2.71, 3.0, 3.5, 3.54]


def annotate(path, output, **options):
    """The rows, and the frames of source and output."""
    rows = list(write_annotated_video(path, make_timeline(**options), output))
    return rows, list(read_frames(path)), list(read_frames(output))


def share_of(image, color):
    """Share of the pixels that have about this colour."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(image.astype(int) - rgb).max(axis=2) < 40).mean()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("times", [None, UNEVEN, [5 + t for t in UNEVEN]], ids=["even", "uneven", "late start"])
def test_frames_keep_their_number_and_times(tmp_path, suffix, times):
    images = scene("happy", "", seconds=3)
    path = write_video(tmp_path / "v.mkv", images[: len(times)] if times else images, times, bf=0)
    _, source, written = annotate(path, tmp_path / f"w{suffix}")
    assert len(written) == len(source) == (len(times) if times else 75)
    tolerance = 0.00051 if suffix == ".mkv" else 1 / 60_000
    assert [f.time_s for f in written] == pytest.approx([f.time_s for f in source], abs=tolerance)
    assert [f.image.shape for f in written] == [f.image.shape for f in source]


def test_rows_are_those_of_the_timeline(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene("happy", "sad", seconds=4))
    rows, _, _ = annotate(path, tmp_path / "w.mp4")
    assert rows == list(make_timeline()(path))


def test_pixels_change_where_the_face_is_and_nowhere_else(tmp_path):
    """A face in the left half: the right one stays what it was, but for what encoding costs."""
    large = [image.repeat(3, axis=0).repeat(3, axis=1) for image in scene("happy", "", seconds=3)]
    path = write_video(tmp_path / "v.mp4", large)
    rows, source, written = annotate(path, tmp_path / "w.mp4")
    color = class_colors(NAMES)[rows[0].label]
    for before, after in zip(source, written, strict=True):
        difference = np.abs(before.image.astype(int) - after.image).mean(axis=2)
        assert difference[:, 208:].max() < 12  # 192 and what encoding spreads
        assert difference[:, :192].max() > 60
        assert share_of(after.image[:, :192], color) > share_of(before.image[:, :192], color) + 0.03


def test_a_frame_shows_what_the_chart_shows_at_its_time(tmp_path, monkeypatch):
    shown = []

    def spy(image, found, colors):
        shown.append([(row.track, row.start_s, row.state) for row, _ in found])
        return image

    monkeypatch.setattr(annotated, "draw_boxes", spy)
    frames = scene("happy", "", seconds=4) + scene("happy", "sad", seconds=2) + scene("", "", seconds=3)
    path = write_video(tmp_path / "v.mp4", frames)
    _, source, _ = annotate(path, tmp_path / "w.mp4")
    assert len(shown) == len(source)
    at = {round(frame.time_s, 2): found for frame, found in zip(source, shown, strict=True)}
    assert at[0.0] == at[1.48] == [(1, 0, "face")]
    assert at[1.52] == at[2.48] == [(1, 1, "face")]
    assert at[4.52] == at[5.48] == [(1, 4, "face"), (2, 4, "face")]
    assert at[5.52] == at[5.96] == [(1, 5, "lost"), (2, 5, "lost")]  # until 6.5, but the faces go at 6
    assert at[6.04] == at[8.0] == []


def test_memory_is_constant(tmp_path):
    """The peak of a video four times as long is the same; what FFmpeg holds is bounded by its encoder."""
    people = scene("happy", "", seconds=3) + scene("", "", seconds=3)

    def peak(turns):
        path = write_video(tmp_path / f"{turns}.mp4", people * turns)
        tracemalloc.start()
        for _ in write_annotated_video(path, make_timeline(batch_size=1), tmp_path / "w.mp4"):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)
    assert peak(4) < 1.5 * peak(1)  # how far the detector runs ahead varies; kept frames would make it 20 times


def test_the_file_appears_when_it_is_complete(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=8))
    rows = write_annotated_video(path, make_timeline(batch_size=1), tmp_path / "w.mp4")
    next(rows)
    assert not (tmp_path / "w.mp4").exists()
    rows.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v.mp4"]


def test_of_a_video_cut_short_what_is_there_is_written(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=6), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    rows = []
    with pytest.raises(DamagedVideoError, match=r"v\.mp4"):
        rows.extend(write_annotated_video(path, make_timeline(), tmp_path / "w.mp4"))
    times = []
    with pytest.raises(DamagedVideoError):
        times.extend(frame.time_s for frame in read_frames(path))
    assert [frame.time_s for frame in read_frames(tmp_path / "w.mp4")] == pytest.approx(times, abs=1 / 60_000)
    assert rows[-1].end_s >= times[-1]


def with_sound(path, video, codec="aac", rate=44100):
    """A video with a tone of the same length."""
    with av.open(video) as source, av.open(path, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream(codec, rate=rate, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
        for start in range(0, 3 * rate, 1024):
            tone = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def heard(path):
    with av.open(path) as container:
        return [(p.pts * float(p.time_base), bytes(p)) for p in container.demux(audio=0) if p.dts is not None]


def test_the_sound_is_copied_in_time(tmp_path):
    path = with_sound(tmp_path / "s.mp4", write_video(tmp_path / "v.mp4", scene("happy", "", seconds=3), bf=0))
    _, source, written = annotate(path, tmp_path / "w.mkv")
    assert [f.time_s for f in written] == pytest.approx([f.time_s for f in source], abs=0.00051)
    before = [(time_s, data) for time_s, data in heard(path) if time_s >= 0]
    after = heard(tmp_path / "w.mkv")
    assert len(after) > 100
    assert [data for _, data in after] == [data for _, data in before]
    assert [time_s for time_s, _ in after] == pytest.approx([time_s for time_s, _ in before], abs=0.0011)


def test_sound_that_does_not_fit_is_left_out_with_a_warning(tmp_path, caplog):
    video = write_video(tmp_path / "v.mkv", scene("happy", "", seconds=1), bf=0)
    path = with_sound(tmp_path / "s.mkv", video, codec="libopus", rate=48000)
    with caplog.at_level(logging.WARNING):
        _, source, written = annotate(path, tmp_path / "w.mov")
    assert len(written) == len(source)
    assert "s.mkv is left out: .mov cannot hold it" in caplog.text
    with av.open(tmp_path / "w.mov") as container:
        assert not container.streams.audio


@pytest.mark.parametrize("size", [(63, 127), (62, 128)])
def test_odd_sizes_grow_by_a_pixel(tmp_path, size):
    images = [grey(90 + n, *size) for n in range(5)]
    path = write_video(tmp_path / "v.mkv", images, codec="ffv1")
    _, source, written = annotate(path, tmp_path / "w.mp4", detector=HalvesDetector(0.5))
    assert source[0].image.shape[:2] == size
    assert written[0].image.shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)


def test_without_x264_it_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated.av, "codecs_available", {"mpeg4"})
    path = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=1))
    _, source, written = annotate(path, tmp_path / "w.mp4")
    with av.open(tmp_path / "w.mp4") as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert [f.time_s for f in written] == pytest.approx([f.time_s for f in source], abs=1 / 60_000)


def test_colors_survive(tmp_path):
    """A matrix of one standard read as another's would shift colours by tens."""
    for height, width in ((64, 128), (720, 1280)):
        image = np.full((height, width, 3), (200, 60, 30), np.uint8)
        path = write_video(tmp_path / "v.mp4", [image] * 3)
        _, source, written = annotate(path, tmp_path / "w.mp4", detector=lambda frame: [])
        difference = written[1].image.astype(int) - source[1].image
        assert np.abs(difference).max() < 6


def test_what_is_written_beside_a_face():
    image = np.zeros((100, 200, 3), np.uint8)
    colors = class_colors(NAMES)
    scored = Row("v", 3, 0, 2, "face", "sad", dict(zip(NAMES, (0.2, 0.7, 0.1), strict=True)), 0.5)
    assert annotated._words(scored) == "person 3: sad 0.70, margin 0.50"
    assert annotated._words(Row("v", 3, 0, 2, "lost")) == "person 3: lost"
    unsure = replace(scored, state="unsure", label=None)
    assert annotated._words(unsure) == "person 3: unsure (sad 0.70?)"
    for box in ((20, 40, 60, 90), (-10, -10, 30, 50), (150, 60, 260, 140)):
        drawn = draw_boxes(image, [(scored, box)], colors)
        assert drawn.shape == image.shape
        assert share_of(drawn, CLASS_COLORS[1]) > 0.03
    assert share_of(draw_boxes(image, [(Row("v", 3, 0, 2, "lost"), (20, 40, 60, 90))], colors), STATE_EDGE) > 0.02
    assert not image.any()


@pytest.mark.parametrize(
    ("video", "output", "error", "message"),
    [
        (iter([]), "w.mp4", ValueError, "can be read only once"),
        ("rtsp://camera/1", "w.mp4", ValueError, "record it to a file"),
        ("v.mp4", "w.avi", ValueError, r"\.mp4, \.mov, \.mkv"),
        ("v.mp4", "v.mp4", ValueError, "the video itself"),
        ("v.mp4", "nowhere/w.mp4", FileNotFoundError, "no folder nowhere"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_read(video, output, error, message):
    with pytest.raises(error, match=message):
        write_annotated_video(video, make_timeline(), output)


def test_a_file_that_is_not_a_video_leaves_nothing_behind(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"v\.mp4"):
        list(write_annotated_video(tmp_path / "v.mp4", make_timeline(), tmp_path / "w.mp4"))
    with pytest.raises(FileNotFoundError, match=r"x\.mp4"):
        list(write_annotated_video(tmp_path / "x.mp4", make_timeline(), tmp_path / "w.mp4"))
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_times_beyond_what_the_file_can_hold_are_refused_by_name(tmp_path):
    """A spoilt header made frames days apart; FFmpeg's error named the new file only."""
    path = write_video(tmp_path / "v.mkv", scene("happy", "", seconds=1)[:3], [0.0, 1.0, 200_000.0], bf=0)
    with pytest.raises(ValueError, match=r"v\.mkv cannot be written as w\.mp4 .*its times or sizes may be more"):
        list(write_annotated_video(path, make_timeline(), tmp_path / "w.mp4"))
    assert [p.name for p in tmp_path.iterdir()] == ["v.mkv"]


def test_a_colon_in_the_name_is_not_a_protocol(tmp_path):
    path = write_video(tmp_path / "take:1.mp4", scene("happy", "", seconds=2))
    _, source, written = annotate(path, tmp_path / "drawn:1.mp4")
    assert len(written) == len(source)


def test_a_broadcast_that_starts_at_25_hours_does_not_make_25_hours_of_video(tmp_path):
    path = tmp_path / "v.ts"
    with av.open(path, "w", container_options={"muxdelay": "0"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p"
        for n, image in enumerate(scene("happy", "", seconds=3)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = n + 25 * 90_000, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rows, source, written = annotate(path, tmp_path / "w.mp4")
    assert source[0].time_s == pytest.approx(90_000, abs=5)
    assert rows[0].start_s == pytest.approx(source[0].time_s)
    assert written[0].time_s == 0
    steps = [frame.time_s - source[0].time_s for frame in source]
    assert [frame.time_s for frame in written] == pytest.approx(steps, abs=1e-3)
