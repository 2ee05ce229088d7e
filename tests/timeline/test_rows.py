"""Every second of a video is in a row, whatever keeps a face from being judged, and rows come while it is read."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
import torch

from helpers.face_videos import (
    CROP,
    NAMES,
    HalvesDetector,
    make_model,
    make_processor,
    make_timeline,
    scene,
    timed,
    write_sound,
    write_video,
)
from modeling_stt.loading import ModelError
from modeling_stt.timeline.pipeline import Timeline, timeline, timeline_frame
from modeling_stt.timeline.rows import STATES, columns
from modeling_stt.timeline.video import DamagedVideoError, TimedFrame


def spans(rows, state=None, track=None):
    return [
        (r.start_s, r.end_s)
        for r in rows
        if (state is None or r.state == state) and (track is None or r.track == track)
    ]


def test_rows_of_a_face_that_leaves_and_comes_back(tmp_path):
    frames = scene("happy", "", seconds=3) + scene("", "", seconds=4) + scene("sad", "", seconds=2)
    rows = list(make_timeline()(write_video(tmp_path / "v.mp4", frames)))
    assert [(r.start_s, r.end_s, r.track, r.state) for r in rows] == [
        (0, 2, 1, "face"),
        (1, 3, 1, "face"),
        (2, 4, 1, "lost"),  # 25 of 51 frames
        (3, 5, None, "no face"),
        (4, 6, None, "no face"),
        (5, 7, None, "no face"),
        (6, 8, 2, "face"),
        (7, 9, 2, "face"),
    ]
    assert {r.video for r in rows} == {str(tmp_path / "v.mp4")}


def test_a_scored_row_has_the_models_answer():
    rows = list(make_timeline()(timed(scene("happy", "", seconds=2))))
    [row] = rows
    assert (row.state, row.track, row.start_s, row.end_s, row.face_share) == ("face", 1, 0, 2, 1)
    assert list(row.scores) == NAMES
    assert sum(row.scores.values()) == pytest.approx(1, abs=1e-5)
    first, second, _ = sorted(row.scores.values(), reverse=True)
    assert row.scores[row.label] == first
    assert row.margin == pytest.approx(first - second)
    assert row.box == pytest.approx((3.2, 3.2, 60.8, 60.8), abs=0.1)


def test_a_row_that_is_not_scored_has_no_label_and_the_same_columns():
    rows = list(make_timeline()(timed(scene("happy", "", seconds=2) + scene("", "", seconds=4))))
    records = [row.to_dict(NAMES) for row in rows]
    assert {tuple(record) for record in records} == {tuple(columns(NAMES))}
    nobody = records[-1]
    assert nobody["state"] == "no face"
    missing = ["track", "label", "margin", "score_happy", "score_sad", "score_angry", "face_left"]
    assert [nobody[name] for name in missing] == [None] * len(missing)


def test_two_people_are_kept_apart_and_scored_as_if_alone():
    """What happens to one face must not depend on its neighbours."""
    both = list(make_timeline()(timed(scene("happy", "sad", seconds=3))))
    assert [(r.track, r.start_s) for r in both] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    for track, alone in ((1, scene("happy", "", seconds=3)), (2, scene("", "sad", seconds=3))):
        rows = list(make_timeline()(timed(alone)))
        for together, single in zip([r for r in both if r.track == track], rows, strict=True):
            assert list(together.scores.values()) == pytest.approx(list(single.scores.values()), abs=1e-5)
    assert both[0].scores["happy"] != pytest.approx(both[1].scores["happy"], abs=1e-3)


def test_scores_do_not_depend_on_batches():
    frames = timed(scene("happy", "sad", seconds=5))
    rows = [list(make_timeline(batch_size=size)(frames)) for size in (1, 3, 64)]
    for other in rows[1:]:
        assert [(r.track, r.start_s) for r in other] == [(r.track, r.start_s) for r in rows[0]]
        for a, b in zip(rows[0], other, strict=True):
            assert list(a.scores.values()) == pytest.approx(list(b.scores.values()), abs=1e-5)


def test_small_faces_are_a_state():
    rows = list(make_timeline(detector=HalvesDetector(scale=0.2))(timed(scene("happy", "", seconds=2))))
    assert [(r.state, r.label, r.track) for r in rows] == [("face too small", None, 1)]
    assert rows[0].face_share == 1
    assert rows[0].box is not None


def test_a_face_in_too_few_frames_is_lost():
    frames = timed(scene("", "", seconds=1.5) + scene("sad", "", seconds=0.5) + scene("", "", seconds=1))
    assert [r.state for r in make_timeline(stride_s=2.0)(frames)][:1] == ["lost"]
    assert [r.state for r in make_timeline(stride_s=2.0, min_face_share=0.2)(frames)][:1] == ["face"]


@pytest.mark.parametrize(
    ("times", "first", "last"),
    [
        ([5 + n / 25 for n in range(100)], 5.0, 9.0),
        ([n / 25 + (30 if n > 50 else 0) for n in range(100)], 0.0, 34.0),
        ([float(n) for n in range(7)], 0.0, 7.0),
        ([0.0, 0.1, 0.9, 1.0, 3.7, 3.71, 6.0], 0.0, 6.04),
    ],
    ids=["late start", "gap", "one frame a second", "uneven"],
)
def test_every_second_is_accounted_for_by_the_containers_times(tmp_path, times, first, last):
    frames = scene("happy", "", seconds=4)[: len(times)]
    fps = 1 if len(times) == 7 and times[1] == 1 else 25
    path = write_video(tmp_path / "v.mkv", frames, times, fps=fps, bf=0)
    rows = list(make_timeline()(path))
    assert rows[0].start_s == pytest.approx(first, abs=0.002)
    assert rows[-1].end_s >= last - 0.1
    for before, after in itertools.pairwise(rows):
        assert after.start_s <= before.end_s + 1e-6
    assert {r.state for r in rows} <= set(STATES)
    assert ("no frames" in {r.state for r in rows}) == (times[-1] > 30)


def test_rows_come_while_the_video_is_read():
    """Of an endless source, the first rows come after as many frames as they need."""
    taken = itertools.count()
    frame = scene("happy", "", seconds=1)[0]
    source = ((n / 25, frame) for n in itertools.count() if next(taken) >= 0)
    rows = make_timeline(batch_size=1)(source)
    assert next(rows).start_s == 0
    assert next(rows).start_s == 1
    time.sleep(0.3)  # faces are found ahead, but by no more than the windows that may wait
    assert next(taken) <= 25 * (2 + 4 + 1) + 2


def test_a_live_source_that_is_too_fast_loses_frames_that_are_counted():
    class Slow(HalvesDetector):
        def detect(self, frames):
            time.sleep(0.02)
            return super().detect(frames)

    def camera():
        for n, image in enumerate(scene("happy", "", seconds=8)):
            time.sleep(0.002)
            yield n / 25, image

    rows = list(make_timeline(detector=Slow(), stride_s=2.0)(camera(), live=True))
    assert sum(r.frames_dropped for r in rows) > 50
    assert spans(rows)[0] == (0, 2)
    assert rows[-1].end_s >= 7.9


def test_nothing_is_dropped_of_what_waits():
    rows = list(make_timeline()(timed(scene("happy", "", seconds=3))))
    assert [r.frames_dropped for r in rows] == [0, 0]


def test_memory_is_constant_in_length_and_people():
    """Somebody new comes every two seconds; the peak of a video four times as long is the same."""

    def people(seconds):
        shown = {half: scene(*half, seconds=1) for half in (("happy", ""), ("", ""), ("", "sad"))}
        turns = [("happy", ""), ("", ""), ("", ""), ("", "sad"), ("", ""), ("", "")]
        for n in range(seconds * 25):
            yield n / 25, shown[turns[n // 25 % len(turns)]][n % 25]

    def peak(seconds):
        tracemalloc.start()
        num_tracks = max(r.track or 0 for r in make_timeline()(people(seconds)))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used, num_tracks

    peak(6)  # imports and caches
    (short, few), (long, many) = peak(12), peak(48)
    assert many > 3 * few
    assert long < 1.1 * short


def test_of_a_video_cut_short_the_rows_come_first(tmp_path):
    path = write_video(
        tmp_path / "v.mp4", scene("happy", "sad", seconds=6), container_options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    rows = []
    with pytest.raises(DamagedVideoError, match=r"v\.mp4"):
        rows.extend(make_timeline()(path))
    assert len(rows) >= 4
    assert rows[-1].end_s > 2.5
    options = {"processor": make_processor(), "detector": HalvesDetector()}
    with pytest.warns(UserWarning, match=r"The rows end where the video does: .*v\.mp4"):
        frame = timeline_frame(path, make_model(), **options)
    assert len(frame) >= 4


def test_a_file_that_is_not_a_video_is_refused_by_name(tmp_path):
    (tmp_path / "zero.mp4").touch()
    for path, message in ((tmp_path / "zero.mp4", "zero.mp4"), (write_sound(tmp_path / "s.mp4"), "no video stream")):
        with pytest.raises(ValueError, match=message):
            list(make_timeline()(path))


def test_a_data_frame_of_one_call(tmp_path):
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    video = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=3) + scene("", "", seconds=5))
    frame = timeline_frame(video, folder, detector=HalvesDetector())
    assert list(frame.columns) == list(columns(NAMES))
    assert str(frame["track"].dtype) == "Int64"
    assert frame["score_happy"].dtype == np.float64
    assert frame.loc[frame.state == "no face", "track"].isna().all()
    assert frame.loc[frame.state == "face", "label"].isin(NAMES).all()
    rows = list(timeline(video, folder, detector=HalvesDetector()))
    assert [r.start_s for r in rows] == frame["start_s"].tolist()


def test_the_crop_of_the_models_training_is_used_and_its_absence_is_warned_of(caplog):
    assert make_timeline().crop.size == CROP["size"]
    assert not caplog.records
    make_timeline(processor=make_processor(face_crop=None))
    assert "does not say how its training faces were cropped" in caplog.text


def test_no_frame_at_all_gives_no_row():
    assert list(make_timeline()(iter([]))) == []
    assert [r.end_s for r in make_timeline()([TimedFrame(3.0, scene("happy", "")[0], 0.5)])] == [3.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride_s": 3.0}, "cannot be cut"),
        ({"min_face_share": 0.0}, r"min_face_share=0\.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"processor": None}, "needs its processor"),
        ({"model": "no/such/../model", "processor": make_processor()}, "loaded with it"),
        ({"detector": "haar"}, "haar"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_timeline(**options)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        Timeline(tmp_path)


def test_a_model_that_is_nowhere_and_a_gpu_that_is_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"There is no folder .*/absent, and from the Hub it could not be loaded"):
        Timeline(tmp_path / "absent")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='gpu' is unknown to torch"):
        Timeline(tmp_path, device="gpu")
    with pytest.raises(ValueError, match="device='cuda:0': torch finds no GPU here"):
        Timeline(tmp_path, device="cuda:0")


def test_a_folder_without_weights_is_not_said_to_be_missing(tmp_path):
    make_model().config.save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
        Timeline(tmp_path)
