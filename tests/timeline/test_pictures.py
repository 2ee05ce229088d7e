"""The chart: what is drawn is what the rows say, where and when they say it."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from helpers.face_videos import NAMES, make_timeline, scene, timed
from modeling_stt.fonts import font_file
from modeling_stt.timeline import Explanation, draw_explanation
from modeling_stt.timeline.chart import MAX_COLUMNS, MAX_TRACKS, draw_timeline
from modeling_stt.timeline.pictures import CLASS_COLORS, STATE_COLOR, class_colors, ink_on
from modeling_stt.timeline.rows import STATES, Row
from modeling_stt.timeline.segments import stretches
from modeling_stt.training.plots import plot_clip, plot_confusion_matrix

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def row(start_s, scores=None, track=0, end_s=None, state="face", **more):
    end_s = start_s + 2 if end_s is None else end_s
    if scores is None:
        return Row("v.mp4", track, start_s, end_s, state, **more)
    named = dict(zip(NAMES, scores, strict=True))
    label = max(named, key=lambda name: named[name])
    return Row("v.mp4", track, start_s, end_s, state, label, named, 0.1, (0, 0, 9, 9), 1.0, **more)


def panels(figure):
    """Axes of scores and of labels, panel by panel from the top; axes of thumbnails between them are left out."""
    shown = [axes for axes in figure.axes if axes.axison]
    return list(zip(shown[::2], shown[1::2], strict=True))


def drawn_scores(axes):
    """Class to its pieces `(start, end, height)`; gaps left out."""
    pieces = {}
    for patch in axes.patches:
        if hasattr(patch, "get_data"):
            tops, edges, bottoms = patch.get_data()
            heights = zip(edges, edges[1:], tops - bottoms, strict=False)
            pieces[patch.get_label()] = [piece for piece in heights if not np.isnan(piece[2])]
    return pieces


def drawn_boxes(axes):
    """Colour to its stretches `(start, end)`."""
    boxes = {}
    for collection in axes.collections:
        spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in collection.get_paths()]
        boxes.setdefault(to_hex(collection.get_facecolor()[0]).upper(), []).extend(spans)
    return boxes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_windows_become_stretches_without_overlap_that_add_up():
    assert stretches([(0, 2), (1, 3), (2, 4), (3, 4.6)]) == {
        (0, 2): (0, 1.5),
        (1, 3): (1.5, 2.5),
        (2, 4): (2.5, 3.5),
        (3, 4.6): (3.5, 4.6),
    }
    assert stretches([(0, 2), (0.5, 2.5), (1, 3)])[0.5, 2.5] == (1.25, 1.75)
    assert stretches([(10, 12), (0, 2), (1, 3)]) == {(0, 2): (0, 1.5), (1, 3): (1.5, 3), (10, 12): (10, 12)}
    assert stretches([(0, 3), (2, 40), (39, 41)]) == {(0, 3): (0, 2.5), (2, 40): (2.5, 39.5), (39, 41): (39.5, 41)}


def test_every_row_is_drawn_once_with_its_scores_and_label():
    rows = [row(0, (0.6, 0.3, 0.1)), row(1, (0.2, 0.7, 0.1)), row(2, (0.1, 0.8, 0.1))]
    [(scores, band)] = panels(draw_timeline(rows, NAMES))
    pieces = drawn_scores(scores)
    assert list(pieces) == NAMES
    assert pieces["happy"] == [
        (0, 1.5, pytest.approx(0.6)),
        (1.5, 2.5, pytest.approx(0.2)),
        (2.5, 4, pytest.approx(0.1)),
    ]
    for each in zip(*pieces.values(), strict=True):
        assert sum(height for _, _, height in each) == pytest.approx(1)
    colors = class_colors(NAMES)
    assert drawn_boxes(band) == {colors["happy"]: [(0, 1.5)], colors["sad"]: [(1.5, 4)]}
    assert texts(band) == ["happy", "sad"]
    assert [to_hex(p.get_facecolor()).upper() for p in scores.patches[:3]] == list(colors.values())


def test_states_are_grey_hatched_and_named_and_gaps_stay_white():
    rows = [row(0, (0.6, 0.3, 0.1)), row(1, state="lost"), row(2, state="face too small"), row(10, (0.6, 0.3, 0.1))]
    rows += [row(20, track=None, end_s=22, state="no face"), row(21, track=None, end_s=30, state="no frames")]
    figure = draw_timeline(rows, NAMES)
    [(scores, band)] = panels(figure)
    assert drawn_scores(scores)["happy"] == [(0, 1.5, pytest.approx(0.6)), (10, 12, pytest.approx(0.6))]
    hatches = {c.get_label(): (c.get_hatch(), drawn_boxes(scores)[STATE_COLOR]) for c in scores.collections}
    assert set(hatches) == {"lost", "face too small", "no face", "no frames"}
    assert len({hatch for hatch, _ in hatches.values()}) == 4
    assert sorted(drawn_boxes(scores)[STATE_COLOR]) == [(1.5, 2.5), (2.5, 4), (20, 21.5), (21.5, 30)]
    # In 30 s there is no room for so long a name in 1.5 s; the legend has it.
    assert set(texts(band)) == {"happy", "lost", "no face", "no frames"}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {*NAMES, *hatches}


def test_states_look_the_same_in_the_band_as_in_the_legend():
    unsure = replace(row(2, (0.4, 0.35, 0.25)), state="unsure", label=None)
    figure = draw_timeline([row(0, (0.6, 0.3, 0.1)), unsure, row(4, state="lost")], NAMES)
    [(_, band)] = panels(figure)
    legend = {patch.get_label(): patch.get_hatch() for patch in figure.legends[0].get_patches()}
    assert {c.get_label(): c.get_hatch() for c in band.collections} == {name: legend[name] for name in texts(band)}
    assert all(legend[state] for state in ("unsure", "lost"))


def test_the_legend_has_no_state_that_smoothing_removed_and_the_note_says_that_answers_are_smoothed():
    unsure = replace(row(2, (0.5, 0.3, 0.2)), state="unsure", label=None)
    rows = [row(0, (0.9, 0.1, 0)), row(1, (0.9, 0.1, 0)), unsure, row(3, (0.9, 0.1, 0)), row(4, (0.9, 0.1, 0))]
    for smooth_s, states, notes in ((0.0, {"unsure"}, ["model x"]), (2.0, set(), ["answers smoothed over 2 s"])):
        figure = draw_timeline(rows, NAMES, note="model x" if not smooth_s else None, smooth_s=smooth_s)
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {*NAMES, *states}
        assert [text.get_text() for text in figure.texts[1:]] == notes
    figure = draw_timeline(rows, NAMES, note="model x", smooth_s=2.0)
    assert figure.texts[1].get_text() == "model x · answers smoothed over 2 s"


@pytest.mark.parametrize(("end_s", "unit"), [(100, "seconds"), (200, "min:s"), (4000, "h:min:s")])
def test_the_unit_of_the_time_axis_is_that_of_its_ticks(end_s, unit):
    [(_, band)] = panels(draw_timeline([row(0, (1, 0, 0), end_s=end_s)], NAMES))
    assert band.get_xlabel() == f"time in the video ({unit})"


def test_panels_are_tracks_in_the_order_of_their_appearance():
    rows = [
        row(5, (1, 0, 0), track=2),
        row(6, (1, 0, 0), track=2),
        row(6, (0, 1, 0), track=1),
        row(9, (0, 0, 1), track=0),
    ]
    figure = draw_timeline(rows, NAMES)
    assert [scores.get_ylabel().split("\n")[0] for scores, _ in panels(figure)] == ["person 2", "person 1", "person 0"]
    assert len({scores.get_xlim() for scores, _ in panels(figure)}) == 1
    assert figure.texts[0].get_text() == "v.mp4"


def test_of_too_many_tracks_the_longest_are_drawn_and_the_others_counted():
    rows = [row(10 * n + i, (1, 0, 0), track=n) for n in range(MAX_TRACKS + 3) for i in range(2 + (n > 2))]
    figure = draw_timeline(rows, NAMES)
    drawn = [scores.get_ylabel().split("\n")[0] for scores, _ in panels(figure)]
    assert drawn == [f"person {n}" for n in range(3, MAX_TRACKS + 3)]
    assert "3 of 11 tracks left out" in figure.texts[0].get_text()


def test_many_windows_become_means_and_the_chart_says_so():
    num_rows = 2 * MAX_COLUMNS
    rows = [row(n, ((0.8, 0.1, 0.1), (0.4, 0.5, 0.1))[n % 2]) for n in range(num_rows)]
    rows += [row(n, state="lost") for n in range(num_rows, num_rows + 6)]
    figure = draw_timeline(rows, NAMES)
    [(scores, band)] = panels(figure)
    assert "each column is the mean of 3" in figure.texts[0].get_text()
    pieces = drawn_scores(scores)["happy"]
    assert len(pieces) == num_rows / 3
    assert pieces[5][2] == pytest.approx(np.mean([0.4, 0.8, 0.4]))
    assert pieces[0][0] == 0
    assert pieces[-1][1] == num_rows + 0.5
    assert drawn_boxes(band)[STATE_COLOR] == [(num_rows + 0.5, num_rows + 7)]


def test_a_state_of_nobody_does_not_cover_a_track():
    num_rows = 3 * MAX_COLUMNS
    rows = [row(n, (1, 0, 0)) if n % 5 == 0 else row(n, track=None, state="no face") for n in range(num_rows)]
    [(scores, _)] = panels(draw_timeline(rows, NAMES))
    faces = drawn_scores(scores)["happy"]
    for start, end in drawn_boxes(scores)[STATE_COLOR]:
        assert all(end <= other[0] or other[1] <= start for other in faces)


@pytest.mark.parametrize("end_s", [3.0, 5.0])
def test_one_row_even_without_duration(end_s, tmp_path):
    figure = draw_timeline([row(3, (0.2, 0.2, 0.6), end_s=end_s)], NAMES)
    [(scores, band)] = panels(figure)
    [(start, end, height)] = drawn_scores(scores)["angry"]
    assert (start, height) == (3, pytest.approx(0.6))
    assert end > 3
    assert texts(band) == ["angry"]
    figure.savefig(tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").stat().st_size > 5000


def test_a_video_without_a_face_has_a_panel_that_says_so():
    [(scores, band)] = panels(draw_timeline([row(0, track=None, state="no face")], NAMES, title="empty room"))
    assert scores.get_ylabel().startswith("nobody")
    assert texts(band) == ["no face"]


def test_thumbnails_stand_at_the_middle_of_their_windows_without_overlap():
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = [row(n, (1, 0, 0), thumbnail=picture if n % 2 else None) for n in range(60)]
    figure = draw_timeline(rows, NAMES)
    [axes] = [axes for axes in figure.axes if axes.images]
    places = [image.get_extent()[:2] for image in axes.images]
    assert 8 < len(places) < 20
    for (_, end), (start, _) in itertools.pairwise(places):
        assert start > end
    for start, end in places[1:]:
        assert (start + end) / 2 % 2 == pytest.approx(0)  # windows 1, 3, … of two seconds have theirs at 2, 4, …


def test_thumbnails_are_the_crops_of_the_middle_and_only_on_request():
    video = timed(scene("happy", "", seconds=3) + scene("", "", seconds=4))
    plain, pictured = list(make_timeline()(video)), list(make_timeline(thumbnails=True)(video))
    assert plain == pictured
    assert {r.thumbnail is None for r in plain} == {True}
    assert {r.state for r in pictured if r.thumbnail is None} == {"no face"}
    first = pictured[0]
    assert (first.thumbnail.shape, first.thumbnail.dtype) == ((40, 40, 3), np.uint8)
    [(_, window)] = itertools.islice(make_timeline().windows(video), 1)
    assert (first.thumbnail == window.sightings[len(window.sightings) // 2].crop).all()
    assert "thumbnail" not in first.to_dict(NAMES)


def test_everybody_can_distinguish_the_colors():
    """Okabe and Ito's seven, made for it, are 0.076 apart at the least; the others must not be closer to any."""
    assert len(set(CLASS_COLORS)) == 11
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (*CLASS_COLORS, STATE_COLOR)])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    for matrix in BLINDNESS.values():
        seen = oklab(np.clip(linear @ np.array(matrix).T, 0, 1))
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
        assert distances.min() > 0.075


def oklab(linear):
    lms = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.62997870],
    ]
    lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.97799850, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(linear @ np.array(lms).T) @ np.array(lab).T


def test_a_class_keeps_its_color_and_words_on_it_can_be_read():
    names = [f"class {n}" for n in range(13)]
    assert class_colors(names)["class 3"] == class_colors(names[:4])["class 3"]
    assert len(class_colors(names)) == 13
    assert (ink_on("#F0E442"), ink_on("#0072B2"), ink_on("#332288")) == ("black", "white", "white")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to draw"),
        ([row(0, (1, 0, 0)), Row("w.mp4", None, 0, 1, "no face")], r"2 videos \(v\.mp4, w\.mp4"),
        ([Row("v.mp4", 0, 0, 1, "face", "joy", {"joy": 1.0}, 1.0)], r"scores of \['joy'\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        draw_timeline(rows, NAMES)


def test_without_matplotlib_the_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'modeling-stt\[timeline\]'"):
        draw_timeline([row(0, (1, 0, 0))], NAMES)


def test_dollars_in_names_are_drawn_as_they_are(tmp_path):
    """Two of them were taken for mathematics, and the chart failed when all work was done."""
    rows = [Row("take $1 of $\\x.mp4", 1, 0, 2, "face", "$a$", {"$a$": 0.9, "b$_{": 0.1}, 0.8)]
    figure = draw_timeline(rows, ["$a$", "b$_{"], note="model $x$")
    figure.savefig(tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").stat().st_size > 5000
    frames, even = np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 1, 1), 1.0)
    scores = {"$a$_{": 0.9, "b$^": 0.1}
    explanation = Explanation(frames, None, even, np.full(2, 0.5), scores, "take $1 of $\\x.mp4")
    draw_explanation(explanation).savefig(tmp_path / "attention.png")
    plot_clip(frames, scores, tmp_path / "clip.png")
    plot_confusion_matrix([[1, 0], [0, 1]], list(scores), tmp_path / "confusion.png", title="set $x of $y_{")


def test_unsure_windows_keep_their_scores_and_are_named_in_the_band():
    rows = [row(0, (0.6, 0.3, 0.1)), replace(row(1, (0.4, 0.35, 0.25)), state="unsure", label=None)]
    rows.append(replace(row(2, (0.4, 0.35, 0.25)), state="unsure", label=None))
    figure = draw_timeline(rows, NAMES)
    [(scores, band)] = panels(figure)
    assert drawn_scores(scores)["happy"][-1] == (2.5, 4, pytest.approx(0.4))
    assert STATE_COLOR not in drawn_boxes(scores)
    assert drawn_boxes(band)[STATE_COLOR] == [(1.5, 4)]
    assert texts(band) == ["happy", "unsure"]
    assert "unsure" in {text.get_text() for text in figure.legends[0].get_texts()}


def test_an_hour_is_drawn_as_segments_and_not_as_a_barcode():
    rng = np.random.default_rng(0)
    base = np.array([(0.55, 0.35, 0.1)] * 1800 + [(0.3, 0.6, 0.1)] * 1800)
    scores = np.abs(base + rng.normal(0, 0.15, base.shape))
    rows = [row(n, each / each.sum()) for n, each in enumerate(scores)]
    [(_, band)] = panels(draw_timeline(rows, NAMES))
    assert sum(len(spans) for spans in drawn_boxes(band).values()) < 12


def test_the_note_stands_below_the_title_and_the_legend_on_one_line():
    rows = [row(0, (0.6, 0.3, 0.1)), *[row(2 * n + 3, state=state) for n, state in enumerate(STATES[2:])]]
    figure = draw_timeline(rows, NAMES, note="model x, windows of 2 s")
    assert [text.get_text() for text in figure.texts] == ["v.mp4", "model x, windows of 2 s"]
    assert figure.legends[0]._ncols == len(figure.legends[0].get_texts())


def test_other_scripts_are_drawn_in_a_font_that_has_them_or_warned_of(caplog):
    """Class names in Chinese were boxes."""
    assert font_file("happy, sehr müde") is None
    assert not caplog.records
    file = font_file("\u9ad8\u5174")
    assert (file is None) == ("No installed font has the characters" in caplog.text)
