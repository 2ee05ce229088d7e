"""Windows leave no second out, keep tracks apart and memory small; shared backbone maps change no logit."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.face_videos import face_clip, make_model, make_processor, make_timeline, scene
from modeling_stt.timeline.scorers import STTScorer
from modeling_stt.timeline.video import TimedFrame
from modeling_stt.timeline.windows import MAX_FRAMES, Sighting, Window, WindowCutter

NO_IMAGE = np.empty(0)
BOX = (0.0, 0.0, 9.0, 9.0)


def cut(times, tracks=None, length_s=2.0, stride_s=1.0, ended=None, duration_s=0.0, dropped=None) -> list[Window]:
    """The windows of frames at these times; `tracks` tells from when to when each is seen, `ended` when it ends."""
    cutter = WindowCutter(length_s, stride_s)
    windows = []
    for time_s in times:
        seen = {
            track: Sighting(time_s, BOX, np.zeros((4, 4, 3), np.uint8))
            for track, spans in (tracks or {}).items()
            if any(first <= time_s <= last for first, last in spans)
        }
        over = [track for track, end_s in (ended or {}).items() if end_s == time_s]
        frame = TimedFrame(time_s, NO_IMAGE, duration_s, (dropped or {}).get(time_s, 0))
        windows += cutter.add(frame, seen, over)
    return windows + cutter.finish()


def spans(windows, track=None):
    return [(round(w.start_s, 3), round(w.end_s, 3)) for w in windows if track is None or w.track == track]


def frames(seconds, fps=25, first=0.0):
    return [first + n / fps for n in range(round(seconds * fps))]


def test_windows_of_a_regular_video():
    windows = cut(frames(5), duration_s=0.04)
    assert spans(windows) == [(0, 2), (1, 3), (2, 4), (3, 5)]
    assert [w.num_frames for w in windows] == [51, 51, 51, 50]


@pytest.mark.parametrize("seed", range(30))
def test_every_second_lies_in_a_window(seed):
    """Whatever the times of the frames: uneven, late, with gaps, fewer than one a window."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.01, 0.04, 0.5, 3.0, 17.0], size=rng.integers(1, 60), p=[0.2, 0.5, 0.2, 0.08, 0.02])
    times = (rng.uniform(-5, 5000) + np.cumsum(steps)).tolist()
    length_s = rng.choice([0.5, 1.0, 2.0, 3.3])
    windows = cut(times, length_s=length_s, stride_s=length_s * rng.choice([0.3, 0.5, 1.0]), duration_s=0.04)
    assert windows[0].start_s == times[0]
    assert windows[-1].end_s == pytest.approx(times[-1] + 0.04, abs=1e-5)
    for before, after in pairwise(windows):
        assert before.start_s < after.start_s <= before.end_s + 1e-6
        assert before.end_s < after.end_s + 1e-6
    for w in windows:
        inside = sum(w.start_s - 1e-6 <= t <= w.end_s + 1e-6 for t in times)
        assert w.num_frames == inside


def test_a_gap_is_one_window_however_long():
    """A clock that jumps by a day must not make 86,400 rows."""
    windows = cut([*frames(2), *frames(2, first=90000.0)], duration_s=0.04)
    assert len(windows) < 10
    [gap] = [w for w in windows if w.num_frames == 0]
    assert gap.end_s - gap.start_s > 89000


def test_a_short_video_is_one_window():
    assert spans(cut([3.0], duration_s=0.04)) == [(3, 3.04)]
    assert spans(cut([3.0, 3.1])) == [(3, 3.2)]
    assert cut([]) == []


def test_windows_that_leave_out_seconds_are_refused():
    for length_s, stride_s in ((1.0, 2.0), (1.0, 0.0), (-1.0, -1.0), (float("inf"), 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="cannot be cut"):
            WindowCutter(length_s, stride_s)


def test_each_track_has_windows_of_its_own_while_it_lives():
    windows = cut(frames(8), tracks={1: [(0, 8)], 2: [(2.5, 4.5)]}, ended={2: 5.0}, duration_s=0.04)
    assert spans(windows, 1) == [(n, n + 2) for n in range(7)]
    assert spans(windows, 2) == [(1, 3), (2, 4), (3, 5), (4, 6)]
    assert [round(w.face_share, 2) for w in windows if w.track == 2] == [0.25, 0.75, 0.75, 0.25]


def test_a_hidden_face_keeps_its_windows_until_its_track_ends():
    windows = cut(frames(9), tracks={1: [(0, 2), (6, 6.4)]}, ended={1: 7.4}, duration_s=0.04)
    assert spans(windows, 1) == [(n, n + 2) for n in range(7)]
    assert [bool(w.sightings) for w in windows if w.track == 1] == [True, True, True, False, True, True, True]
    assert spans([w for w in windows if w.track is None]) == [(7, 9)]


def test_a_track_does_not_begin_in_a_window_that_ends_as_it_comes():
    windows = cut(frames(4), tracks={1: [(2, 4)]}, duration_s=0.04)
    assert spans(windows, 1) == [(1, 3), (2, 4)]


def test_dropped_frames_are_counted_in_their_windows():
    windows = cut(frames(4), dropped={0.0: 1, 1.0: 5, 3.0: 2}, duration_s=0.04)
    assert [w.dropped for w in windows] == [6, 5 + 2, 2]


def test_nothing_is_kept_that_no_window_needs():
    """Constant memory in the length of the video and in the number of people who come and go."""
    cutter = WindowCutter(2.0, 1.0)
    crops: list[weakref.ref] = []
    most = 0
    for n in range(3000):
        track = n // 50
        crop = np.zeros((4, 4, 3), np.uint8)
        crops.append(weakref.ref(crop))
        seen = {track: Sighting(n / 25, BOX, crop)}
        del crop
        cutter.add(TimedFrame(n / 25, NO_IMAGE), seen, [track - 1] if n % 50 == 0 else [])
        del seen
        if n % 250 == 0:
            gc.collect()
            most = max(most, sum(ref() is not None for ref in crops))
            assert len(cutter._tracks) <= 4
    assert 25 <= most <= 76


@pytest.fixture(scope="module")
def seen() -> list[Sighting]:
    crops = face_clip(num_frames=60, image_size=40)
    return [Sighting(n / 25, BOX, np.ascontiguousarray(crop)) for n, crop in enumerate(crops)]


def windows_of(seen: list[Sighting], length: int = 21, stride: int = 10) -> list[Window]:
    starts = range(0, len(seen) - length + 1, stride)
    fresh = [Sighting(s.time_s, s.box, s.crop) for s in seen]
    return [Window(n / 25, (n + length) / 25, 1, fresh[n : n + length], length) for n in starts]


@pytest.mark.parametrize("order", ["space_time", "time_space", "joint", "space_only", "time_only"])
def test_shared_maps_give_the_logits_of_the_whole_model(seen, order):
    """The clip of each window, read by the processor and the model in the ordinary way, is what must come out."""
    model, processor = make_model(attention_order=order, temperature=1.7), make_processor()
    windows = windows_of(seen)
    clips = [np.stack([s.crop for s in w.sightings]) for w in windows]
    with torch.no_grad():
        expected = model(**processor(clips, return_tensors="pt")).logits
    assert expected.std(dim=0).min() > 1e-4  # or any logits would do
    shared = STTScorer(model, processor)
    one_by_one = torch.cat([shared.logits([window]) for window in windows])
    together = STTScorer(model, processor).logits(windows_of(seen))
    alone = STTScorer(model, processor, share_maps=False).logits(windows_of(seen))
    for got in (one_by_one, together, alone):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_each_face_goes_through_the_backbone_once(seen, monkeypatch):
    model, processor = make_model(), make_processor()
    num_faces = []
    model.stt.backbone.register_forward_hook(lambda module, args, output: num_faces.append(len(args[0])))
    windows = windows_of(seen, length=21, stride=10)
    scorer = STTScorer(model, processor)
    for window in windows:
        scorer.logits([window])
    looked_at = {id(s) for window in windows for s in scorer.sample(window)}
    assert sum(num_faces) == len(looked_at) < 4 * len(windows)


def test_sampled_frames_coincide_where_windows_overlap(seen):
    """Half a window apart, half of the frames are shared: the reason for a window to include its last frame."""
    scorer = STTScorer(make_model(num_frames=16), make_processor())
    many = seen * 3
    first = {id(s) for s in scorer.sample(Window(0, 2, 1, many[:51], 51))}
    second = {id(s) for s in scorer.sample(Window(1, 3, 1, many[25:76], 51))}
    assert len(first & second) == 8


def test_faces_too_small_to_be_cut_are_not_sampled(seen):
    mixed = [Sighting(0.0, BOX, None), *seen[:3]]
    clip = STTScorer(make_model(), make_processor()).sample(Window(0, 1, 1, mixed, 4))
    assert len(clip) == 4
    assert all(s.crop is not None for s in clip)


def test_no_windows_give_no_logits_and_another_size_is_refused():
    assert STTScorer(make_model(), make_processor()).logits([]).shape == (0, 3)
    processor = make_processor()
    processor.size = {"height": 64, "width": 64}
    with pytest.raises(ValueError, match="64×64 px, the model was made for 32×32"):
        STTScorer(make_model(), processor)


def test_of_a_very_fast_video_a_window_keeps_a_bounded_number_of_frames():
    """At 1000 frames a second, the memory that "does not grow" grew with the rate."""
    image = scene("happy", "")[0]
    pairs = list(make_timeline(batch_size=1).windows((n / 2000, image) for n in range(6000)))
    assert [row.state for row, _ in pairs] == ["face", "face"]
    for row, window in pairs:
        assert MAX_FRAMES / 2 < window.num_frames <= MAX_FRAMES + 1
        assert row.frames_dropped > 2000, "what is passed over is counted"


def test_the_box_of_a_window_is_in_pixels_of_its_last_frame():
    """Boxes of two sizes of the picture were mixed."""
    crop = np.zeros((4, 4, 3), np.uint8)
    large = [Sighting(n / 25, (100.0, 40.0, 200.0, 140.0), crop, (640, 360)) for n in range(30)]
    small = [Sighting(1.2 + n / 25, (50.0, 20.0, 100.0, 70.0), crop, (320, 180)) for n in range(10)]
    assert Window(0, 2, 1, large + small, 40).box == (50, 20, 100, 70)
