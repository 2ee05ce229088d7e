"""Following faces: on moving boxes in drawn frames, and on real videos where STT_FACE_VIDEOS names their folder."""

import itertools
import math
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from helpers.drawn_faces import draw_faces, face_at
from helpers.real_videos import read_real
from modeling_stt.timeline.detection import MAX_FACES, Searched, find_faces, load_detector
from modeling_stt.timeline.faces import Face
from modeling_stt.timeline.tracks import MAX_TRACKS, FaceTracker, assign, follow_faces
from modeling_stt.timeline.video import TimedFrame

SHAPE = (180, 320)
PALE, DARK = (240, 200, 180), (110, 70, 50)
BLOND, BLACK = (220, 190, 110), (20, 20, 25)
SKINS, HAIRS = (PALE, DARK), (BLOND, BLACK)
FPS = 25


def scene(*faces: tuple[float, float]) -> np.ndarray:
    """A frame with the faces at these places, the first pale and blond, the second dark."""
    return draw_faces(SHAPE, [(x, y, 0.5) for x, y in faces], SKINS, HAIRS)


def follow(
    tracker: FaceTracker, moments: Iterable[float], where: Callable[[float], list[tuple[float, float] | None]]
) -> list[list[int | None]]:
    """The ids of the persons at each moment, in seconds; `where` gives their places, None for one who is hidden."""
    rows = []
    for moment in moments:
        places = where(moment)
        seen = {i: face_at(*place, 0.5) for i, place in enumerate(places) if place is not None}
        frame = draw_faces(
            SHAPE, [(*places[i], 0.5) for i in seen], [SKINS[i] for i in seen], [HAIRS[i] for i in seen]
        )
        ids = {id(face): track for track, face in tracker.update(moment, frame, list(seen.values()))}
        rows.append([ids[id(seen[i])] if i in seen else None for i in range(len(places))])
    return rows


def seconds(start: float, stop: float, fps: float = FPS) -> np.ndarray:
    return start + np.arange(round((stop - start) * fps)) / fps


def ids_of(rows: list[list[int | None]], person: int) -> set[int]:
    return {row[person] for row in rows if row[person] is not None}


# Motion


@pytest.mark.parametrize("fps", [1, 5, 25, 60])
def test_a_moving_face_keeps_its_id_at_any_frame_rate(fps):
    rows = follow(FaceTracker(), seconds(0, 4, fps), lambda t: [(60 + 40 * t, 90 + 10 * math.sin(t))])
    assert ids_of(rows, 0) == {1}


def test_a_face_that_comes_nearer_keeps_its_id():
    tracker, ids = FaceTracker(), set()
    for t in seconds(0, 2):
        face = face_at(160, 90, 0.3 + 0.4 * t)
        ids |= {track for track, _ in tracker.update(t, draw_faces(SHAPE, [(160, 90, 0.3 + 0.4 * t)]), [face])}
    assert ids == {1}


def test_times_may_be_uneven():
    """Variable frame rate: the motion is per second, not per frame."""
    moments = np.cumsum(np.random.default_rng(0).choice([0.01, 0.04, 0.3], 40))
    rows = follow(FaceTracker(), moments, lambda t: [(40 + 30 * t, 60), (250 - 30 * t, 130)])
    assert (ids_of(rows, 0), ids_of(rows, 1)) == ({1}, {2})


def test_several_people_stay_apart_whatever_the_order_of_detections():
    rng, tracker = np.random.default_rng(0), FaceTracker()
    ids: list[set[int]] = [set(), set(), set()]
    for t in seconds(0, 2):
        places = [(50 + 10 * t, 90), (130 + 3 * rng.normal(), 90), (230 - 10 * t, 90)]
        order = rng.permutation(3)
        faces = [face_at(*places[i], 0.5) for i in order]
        for person, (track, face) in zip(order, tracker.update(t, scene(*places), faces), strict=True):
            ids[person].add(track)
            assert face.center == pytest.approx(places[person])
    assert [len(one) for one in ids] == [1, 1, 1]
    assert len(set.union(*ids)) == 3


# Occlusion


@pytest.mark.parametrize("hidden_s", [0.2, 1.0, 1.8])
def test_a_short_occlusion_keeps_the_id(hidden_s):
    tracker = FaceTracker()
    rows = follow(tracker, seconds(0, 4), lambda t: [(100 + 10 * t, 90) if not 1 <= t < 1 + hidden_s else None])
    assert ids_of(rows, 0) == {1}
    assert tracker.ended == []


def test_a_long_occlusion_ends_the_track_once_and_its_id_is_not_used_again():
    tracker, ended = FaceTracker(max_gap_s=1.0), []
    for t in seconds(0, 4):
        follow(tracker, [t], lambda t: [(100, 90) if not 1 <= t < 2.5 else None])
        ended += [(round(t, 2), track) for track in tracker.ended]
    assert ended == [(2.0, 1)]  # last seen at 0.96 s
    assert follow(tracker, [4.0], lambda t: [(100, 90)]) == [[2]]


def test_after_a_hole_in_the_stream_faces_are_new():
    """Two minutes without a frame: nobody knows who sits there now."""
    tracker = FaceTracker()
    follow(tracker, seconds(0, 1), lambda t: [(100, 90)])
    assert follow(tracker, [120.0], lambda t: [(100, 90)]) == [[2]]
    assert tracker.ended == [1]


def test_another_person_at_the_place_of_a_hidden_one_is_new():
    tracker = FaceTracker()
    follow(tracker, seconds(0, 1), lambda t: [(100, 90), None])
    follow(tracker, seconds(1, 1.5), lambda t: [None, None])
    assert follow(tracker, [1.5], lambda t: [None, (100, 90)]) == [[None, 2]]


# Crossing


def crossing(t: float) -> list[tuple[float, float] | None]:
    """Two people pass each other; the one behind, the dark one, is not seen for as long as the faces overlap."""
    left, right = 60 + 100 * t, 260 - 100 * t
    return [(left, 90), (right, 94) if abs(left - right) > 30 else None]


def test_people_who_cross_keep_their_ids():
    rows = follow(FaceTracker(), seconds(0, 2), crossing)
    assert (ids_of(rows, 0), ids_of(rows, 1)) == ({1}, {2})
    assert sum(row[1] is None for row in rows) > 5


def bouncing(t: float) -> list[tuple[float, float] | None]:
    """Two people meet, both out of sight for a moment, and each goes back: motion alone exchanges them."""
    half = abs(1 - t) * 100
    return [(160 - half, 90), (160 + half, 90)] if half > 25 else [None, None]


def test_people_who_meet_and_turn_back_keep_their_ids_by_their_looks():
    rows = follow(FaceTracker(), seconds(0, 2), bouncing)
    assert (ids_of(rows, 0), ids_of(rows, 1)) == ({1}, {2})


def test_without_looks_people_who_turn_back_would_be_exchanged(monkeypatch):
    """Shows that the test above tests the looks."""
    monkeypatch.setattr("modeling_stt.timeline.tracks._unlike", lambda look, other: 0.0)
    rows = follow(FaceTracker(), seconds(0, 2), bouncing)
    assert rows[0] == [1, 2]
    assert rows[-1] == [2, 1]


# Cuts


def room(seed: int) -> np.ndarray:
    """Another background of large patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    return patches.repeat(30, axis=0).repeat(32, axis=1)


def test_a_cut_ends_all_tracks_though_a_face_is_at_the_same_place():
    tracker, face = FaceTracker(), face_at(160, 90, 0.5)
    for i in range(5):
        assert tracker.update(i / FPS, room(1), [face]) == [(1, face)]
        assert (tracker.is_cut, tracker.ended) == (False, [])
    assert tracker.update(5 / FPS, room(2), [face]) == [(2, face)]
    assert (tracker.is_cut, tracker.ended) == (True, [1])
    tracker.update(6 / FPS, room(2), [face])
    assert (tracker.is_cut, tracker.ended) == (False, [])


@pytest.mark.parametrize("gain", [0.1, 0.3, 1.0])
def test_cuts_are_seen_in_dark_films_too(gain):
    tracker = FaceTracker()
    tracker.update(0.0, (gain * room(1)).astype(np.uint8), [])
    tracker.update(0.1, (gain * room(2)).astype(np.uint8), [])
    assert tracker.is_cut


def test_black_appears_and_goes_as_a_cut_and_stays_without():
    tracker, cuts = FaceTracker(), []
    noise = np.random.default_rng(0)
    black = [noise.integers(0, 3, room(1).shape, np.uint8) for _ in range(3)]
    for i, frame in enumerate([room(1), *black, room(1)]):
        tracker.update(i / FPS, frame, [])
        cuts.append(tracker.is_cut)
    assert cuts == [False, True, False, False, True]


@pytest.mark.parametrize(
    "changed",
    [
        np.clip(room(1) * 2.5, 0, 255).astype(np.uint8),  # a flash
        (room(1) * 0.2).astype(np.uint8),  # the light goes out
        np.roll(room(1), 8, axis=1),  # the camera turns
        np.clip(room(1) + np.random.default_rng(0).normal(0, 30, room(1).shape), 0, 255).astype(np.uint8),  # noise
    ],
    ids=["flash", "dimming", "pan", "noise"],
)
def test_changes_that_only_look_like_a_cut_are_not_one(changed):
    tracker = FaceTracker()
    tracker.update(0.0, room(1), [])
    tracker.update(0.04, changed, [])
    assert not tracker.is_cut


def test_a_change_of_resolution_alone_is_not_a_cut():
    """As a stream may do when the line gets slow."""
    tracker = FaceTracker()
    tracker.update(0.0, room(1), [])
    tracker.update(0.04, room(1)[::2, ::2], [])
    assert not tracker.is_cut


# What begins a track, memory, errors


def test_doubtful_faces_continue_a_track_and_begin_none():
    tracker = FaceTracker(start_score=0.8)
    frame = scene((160, 90))
    assert tracker.update(0.0, frame, [face_at(160, 90, 0.5, score=0.6)]) == []
    assert [track for track, _ in tracker.update(0.1, frame, [face_at(160, 90, 0.5, score=0.9)])] == [1]
    assert [track for track, _ in tracker.update(0.2, frame, [face_at(160, 90, 0.5, score=0.6)])] == [1]


def test_a_face_outside_the_frame_is_not_an_error():
    tracker = FaceTracker()
    face = Face((-80.0, -90.0, -10.0, -5.0), 0.9)
    assert tracker.update(0.0, scene(), [face]) == [(1, face)]


def test_nothing_is_kept_of_people_who_are_gone():
    """Constant memory: a thousand people, one after the other."""
    tracker = FaceTracker(max_gap_s=0.5)
    frame, ended = scene(), []
    for i in range(1000):
        tracker.update(float(i), frame, [face_at(160, 90, 0.5)])
        ended += tracker.ended
    assert ended == list(range(1, 1000))
    assert len(tracker._tracks) == 1
    assert len(tracker.ended) == 1


@pytest.mark.parametrize("time_s", [1.0, 0.9, math.nan])
def test_times_that_do_not_increase_are_refused(time_s):
    tracker = FaceTracker()
    tracker.update(1.0, scene(), [])
    with pytest.raises(ValueError, match=r"in order of time: .* came after 1\.0 s"):
        tracker.update(time_s, scene(), [])


# Assignment


def least_cost(cost: np.ndarray, alone: float) -> float:
    """By trying every choice."""
    rows, columns = cost.shape
    choices = itertools.product(range(-1, columns), repeat=rows)
    return min(
        sum(alone if j < 0 else cost[i, j] for i, j in enumerate(choice))
        for choice in choices
        if len({j for j in choice if j >= 0}) == sum(j >= 0 for j in choice)
    )


def test_the_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(300):
        cost = 2 * rng.random(rng.integers(0, 5, 2))
        cost[rng.random(cost.shape) < rng.random()] = np.inf
        pairs = assign(cost, 1.2)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        total = sum(cost[i, j] for i, j in pairs) + 1.2 * (len(cost) - len(pairs))
        assert total == pytest.approx(least_cost(cost, 1.2))


def test_a_perfect_pair_is_not_torn_apart_to_make_two_bad_ones():
    assert assign(np.array([[0.05, 0.9], [0.9, np.inf]]), 0.8) == [(0, 0)]


# Real videos


@pytest.mark.parametrize(
    ("name", "tracks", "cuts"),
    [
        ("single_face.mp4", [(0, 71)], []),
        ("WolfgangLanger_Pexels.mp4", [(0, 471)], []),  # a hand over the face, a head that tilts
        ("noface_face.mov", [(96, 167)], [96, 168]),
        ("face_noface.mov", [(0, 71)], [72, 73]),  # one black frame between
        ("no_face.mp4", [], []),
    ],
)
def test_real_videos_have_the_tracks_and_cuts_that_one_sees(name, tracks, cuts):
    pytest.importorskip("onnxruntime")
    frames, detector, tracker = read_real(name), load_detector(), FaceTracker()
    seen: dict[int, list[int]] = {}
    found = []
    for index, frame in enumerate(frames):
        [faces] = detector.detect([frame])
        for track, _ in tracker.update(index / FPS, frame, faces):
            seen.setdefault(track, []).append(index)
        found += [index] if tracker.is_cut else []
    assert [(frames[0], frames[-1]) for frames in seen.values()] == tracks
    assert all(len(frames) == frames[-1] - frames[0] + 1 for frames in seen.values())
    assert found == cuts


def test_people_are_numbered_from_one_and_from_left_to_right():
    frame = draw_faces((180, 640), [(500, 90, 1), (100, 90, 1), (300, 90, 1)])
    faces = [face_at(500, 90, 1, 0.99), face_at(100, 90, 1, 0.98), face_at(300, 90, 1, 0.97)]
    assert [track for track, _ in FaceTracker().update(0.0, frame, faces)] == [3, 1, 2]


def test_a_person_stays_one_when_the_picture_changes_its_size():
    """A stream that goes to another resolution made two tracks of one person."""
    tracker = FaceTracker()
    ids = []
    for n in range(20):
        scale = 1.0 if n < 10 else 0.5
        frame = draw_faces((int(360 * scale), int(640 * scale)), [(400 * scale, 180 * scale, 1.5 * scale)])
        face = face_at(400 * scale, 180 * scale, 1.5 * scale)
        ids += [track for track, _ in tracker.update(n / 25, frame, [face])]
    assert ids == [1] * 20


def test_between_two_looks_a_face_is_in_the_pixels_of_each_frame():
    """A phone that is turned, or a stream that changes its size, between two searched frames."""
    large, small = np.zeros((360, 640, 3), np.uint8), np.zeros((180, 320, 3), np.uint8)
    frames = [TimedFrame(n / 25, large if n < 3 else small) for n in range(5)]
    found = [[face_at(400, 180, 1.5)], None, None, None, [face_at(200, 90, 0.75)]]
    searched = [Searched(frame, faces) for frame, faces in zip(frames, found, strict=True)]
    followed = list(follow_faces(searched, FaceTracker()))
    centers = [face.center for each in followed for face in each.faces.values()]
    assert (
        centers
        == [pytest.approx(face_at(400, 180, 1.5).center)] * 3 + [pytest.approx(face_at(200, 90, 0.75).center)] * 2
    )


def test_a_crowd_that_jumps_about_leaves_a_bounded_number_of_tracks():
    """Every frame began up to 32 tracks that were compared for two seconds: 0.4 s a frame, and ever more."""
    rng = np.random.default_rng(0)
    frame, tracker, ended = np.zeros((720, 1280, 3), np.uint8), FaceTracker(), []
    for n in range(12):
        faces = [face_at(x, y, 0.2) for x, y in rng.uniform((20, 20), (1260, 700), (32, 2))]
        ids = [track for track, _ in tracker.update(n / 25, frame, faces)]
        ended += tracker.ended
        assert len(ids) == 32 and len(tracker._tracks) <= MAX_TRACKS
    assert len(set(ended)) == len(ended) > 100 and not set(ended) & set(ids)


def test_a_crowd_is_followed_in_time():
    """100 faces a frame took 0.6 s, 400 did not end."""
    rng = np.random.default_rng(0)
    places = rng.uniform((20, 20), (1900, 1060), (400, 2))
    frame = np.zeros((1080, 1920, 3), np.uint8)
    found = [face_at(x, y, rng.uniform(0.2, 0.4)) for x, y in places]

    class Crowd:
        name = "crowd"

        def detect(self, frames):
            return [found for _ in frames]

    started = time.process_time()
    searched = find_faces([TimedFrame(n / 25, frame) for n in range(5)], Crowd())
    followed = list(follow_faces(searched, FaceTracker()))
    assert time.process_time() - started < 10
    largest = sorted((face.side for face in found), reverse=True)[:MAX_FACES]
    for each in followed:
        assert each.left_out == 400 - MAX_FACES
        assert sorted((face.side for face in each.faces.values()), reverse=True) == largest
