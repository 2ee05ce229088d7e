"""Segments and summaries add up to the time of their rows; scores relative to rest; agreement with labels."""

import json

import numpy as np
import pytest

from helpers.face_videos import NAMES
from modeling_stt.timeline.agreement import LabelledStretch, compare, read_labels
from modeling_stt.timeline.baseline import relative_to_rest
from modeling_stt.timeline.rows import Row, answered
from modeling_stt.timeline.segments import people, segments, summarize


def row(start_s, scores=None, track=1, state="face", left=0.0, min_score=None):
    named = None if scores is None else dict(zip(NAMES, scores, strict=True))
    base = Row("v.mp4", track, start_s, start_s + 2, state, box=(left, 0, left + 9, 9) if track else None)
    return base if named is None else answered(base, named, min_score)


HAPPY, SAD, FLICKER = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.4, 0.5, 0.1)


def test_segments_are_stretches_of_one_label():
    rows = [row(0, HAPPY), row(1, (0.9, 0.05, 0.05)), row(2, SAD), row(3, SAD), row(4, state="lost")]
    found = segments(rows, smooth_s=0)
    assert [(s.name, s.start_s, s.end_s, s.is_label) for s in found] == [
        ("happy", 0, 2.5, True),
        ("sad", 2.5, 4.5, True),
        ("lost", 4.5, 6, False),
    ]
    assert found[0].mean_score == pytest.approx(0.85)
    assert found[0].peak_s == 2  # the middle of its second window
    assert found[2].mean_score is None


def test_a_flicker_is_smoothed_and_a_clear_answer_is_not():
    flicker = [row(n, FLICKER if n == 3 else HAPPY) for n in range(7)]
    assert [s.name for s in segments(flicker, smooth_s=0)] == ["happy", "sad", "happy"]
    assert [s.name for s in segments(flicker)] == ["happy"]
    clear = [row(n, (0.0, 1.0, 0.0) if n in (3, 4) else (0.5, 0.4, 0.1)) for n in range(8)]
    assert [s.name for s in segments(clear)] == ["happy", "sad", "happy"]


def test_smoothing_does_not_reach_across_what_is_not_scored():
    rows = [row(0, HAPPY), row(1, state="lost"), row(2, SAD)]
    assert [s.name for s in segments(rows, smooth_s=10)] == ["happy", "lost", "sad"]


def test_unsure_windows_are_a_segment_where_they_are_most():
    rows = [row(n, (0.4, 0.35, 0.25), min_score=0.5) for n in range(3)] + [row(n, HAPPY) for n in (3, 4, 5)]
    assert [(s.name, s.is_label) for s in segments(rows)] == [("unsure", False), ("happy", True)]


@pytest.mark.parametrize("seed", range(5))
def test_segments_and_summary_add_up_to_the_time_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    rows = [
        row(n, rng.dirichlet(np.ones(3)), track) if rng.random() < 0.7 else row(n, None, track, "lost")
        for track in (1, 2)
        for n in range(20)
    ]
    found = segments(rows)
    for track in (1, 2):
        assert sum(s.duration_s for s in found if s.track == track) == pytest.approx(21)
    for each in summarize(found):
        assert sum(each.seconds.values()) + each.unsure_s + each.unseen_s == pytest.approx(21)
        assert sum(each.shares.values()) == pytest.approx(1)


def test_people_are_numbered_from_left_to_right_as_they_appear():
    rows = [row(0, HAPPY, track=4, left=50), row(0, HAPPY, track=7, left=10), row(2, HAPPY, track=1, left=0)]
    assert people(rows) == [7, 4, 1]


def test_a_persons_resting_face_becomes_neutral():
    """A face that the model calls sad at rest is neutral at rest, and happy where it gains on that."""
    names = ["happy", "sad", "neutral"]
    rest, smile = (0.05, 0.75, 0.2), (0.6, 0.3, 0.1)
    rows = [Row("v", 1, n, n + 2, "face") for n in range(6)]
    rows = [
        answered(each, dict(zip(names, smile if n == 4 else rest, strict=True)), None) for n, each in enumerate(rows)
    ]
    assert [r.label for r in rows] == ["sad"] * 4 + ["happy", "sad"]
    for baseline in ("auto", (0.0, 3.5)):
        relative = [each for each, _ in relative_to_rest([(r, None) for r in rows], baseline)]
        assert [r.label for r in relative] == ["neutral"] * 4 + ["happy", "neutral"]
        assert relative[0].scores["neutral"] == pytest.approx(0.5)
        assert all(sum(r.scores.values()) == pytest.approx(1) for r in relative)


def test_a_resting_face_stays_neutral_when_a_negligible_class_gains_much():
    """A thousandth is a thousand times a millionth: the resting face of a confident model became anything."""
    names = ["happy", "sad", "neutral"]
    sure, nearly = (1e-6, 1e-6, 0.999998), (1e-6, 2e-3, 0.997999)
    rows = [
        answered(Row("v", 1, n, n + 2, "face"), dict(zip(names, nearly if n == 3 else sure, strict=True)), None)
        for n in range(6)
    ]
    relative = [each for each, _ in relative_to_rest([(r, None) for r in rows], "auto")]
    assert {r.label for r in relative} == {"neutral"}


def test_a_track_that_is_not_in_the_baseline_keeps_its_scores_and_is_named(caplog):
    rows = [(row(0, SAD), None), (row(5, HAPPY, track=2), None)]
    relative = [each for each, _ in relative_to_rest(rows, (0.0, 2.0))]
    assert relative[1].scores == rows[1][0].scores
    assert "Nothing of track 2 is scored in the baseline" in caplog.text


def test_rows_are_compared_with_labels_beside_the_commonest():
    rows = [row(0, HAPPY), row(2, HAPPY), row(4, SAD), row(6, HAPPY), row(8, state="lost"), row(20, SAD)]
    labelled = [LabelledStretch(0, 6, "happiness"), LabelledStretch(6, 12, "sad")]
    found = compare(rows, labelled, NAMES)
    assert found.scores.num_clips == 4
    assert found.scores.war == 0.5
    assert found.scores.uar == pytest.approx((2 / 3 + 0) / 2)
    assert found.scores.confusion_matrix == [[2, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert (found.commonest, found.commonest_war, found.commonest_uar) == ("happy", 0.75, 0.5)
    assert found.num_unscored == 1
    assert found.calibration_error == pytest.approx(0.3)
    assert "always 'happy'" in str(found)
    json.dumps(found.to_dict())
    with pytest.raises(ValueError, match="labels joyless are not classes of the model, which are happy, sad, angry"):
        compare(rows, [LabelledStretch(0, 6, "joyless")], NAMES)
    with pytest.raises(ValueError, match="No window with a scored face lies in a labelled stretch"):
        compare(rows, [LabelledStretch(90, 99, "sad")], NAMES)


def test_labels_are_read_and_bad_ones_named(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("\ufeffstart, end,label,track\n0,1.5,happy,\n2,3, sad,2\n", encoding="utf-8")
    assert read_labels(file) == [LabelledStretch(0, 1.5, "happy"), LabelledStretch(2, 3, "sad", 2)]
    for text, message in (
        ("from,to,label\n", "has no column end, start"),
        ("start,end,label\n1,x,happy\n", "line 2: expected numbers"),
        ("start,end,label\n3,1,happy\n", "line 2: expected start < end"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_labels(file)
