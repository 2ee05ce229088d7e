"""Synthetic faces: DFEW's layout and fold rule, no person on both sides, order the only cue of fear and surprise."""

import csv
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import openpyxl
import pytest
from PIL import Image

from dataset_scripts import synthetic_faces
from dataset_scripts.synthetic_faces import ORDER_ONLY, draw_clip, write_synthetic_dfew

NUM_CLIPS = 73
SMALL = {"image_size": 32, "num_workers": 1, "progress": False}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "DFEW"
    return write_synthetic_dfew(root, num_clips=NUM_CLIPS, num_frames=(8, 12), **SMALL)


def read_split(root: Path, split: str, fold: int) -> list[tuple[int, int]]:
    path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["video_name", "label"]
    assert all(name == str(int(name)) for name, _ in rows), "ids are unpadded in DFEW's lists"
    return [(int(name), int(label)) for name, label in rows]


def read_annotation(root: Path) -> list[list[int]]:
    sheet = openpyxl.load_workbook(root / "Annotation" / "annotation.xlsx").active
    header, *rows = ([cell.value for cell in row] for row in sheet.iter_rows())
    expected = ["1happy", "2sad", "3neutral", "4angry", "5surprise", "6disgust", "7fear", "order", "label"]
    assert header == expected
    return rows


def read_video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def face_folders(root: Path) -> list[Path]:
    return sorted((root / "Clip" / "clip_224x224").iterdir())


def file_bytes(root: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob(pattern)}


def two_clips_of(tmp_path: Path) -> tuple[Path, Path]:
    """The same plan, written once as surprise and once as fear."""
    roots = tmp_path / "surprise", tmp_path / "fear"
    for root, label in zip(roots, (5, 7), strict=True):
        clip = synthetic_faces._Clip(1, label, fold=1, identity=3, has_faces=True)
        synthetic_faces._write_clip(clip, root=root, low=7, high=7, image_size=32, seed=2, videos=True)
    return roots


def test_the_tree_holds_what_dfew_holds_and_nothing_else(tree):
    frame = r"Clip/clip_224x224/(\d{5})/\1_\d{5}\.jpg"
    video = r"Clip/original/part_1/[1-9]\d*\.mp4"
    lists = r"EmoLabel_DataSplit/(train|test)\(single-labeled\)/set_[1-5]\.csv"
    allowed = re.compile(rf"{frame}|{video}|{lists}|Annotation/annotation\.xlsx|identities\.csv|SYNTHETIC\.txt")
    files = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    assert [name for name in files if not allowed.fullmatch(name)] == []
    assert sum("set_" in name for name in files) == 10
    assert "synthetic" in (tree / "SYNTHETIC.txt").read_text().lower()


def test_frames_are_numbered_as_in_the_original_with_gaps(tree):
    gaps = 0
    for folder in face_folders(tree):
        numbers = [int(path.stem.split("_")[1]) for path in folder.iterdir()]
        total = len(read_video(tree / "Clip" / "original" / "part_1" / f"{int(folder.name)}.mp4"))
        assert 8 <= total <= 12
        assert set(numbers) <= set(range(1, total + 1))
        assert len(numbers) >= 7
        gaps += len(numbers) < total
    assert 0 < gaps < len(face_folders(tree)) / 2
    with Image.open(next(folder.iterdir())) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))


def test_videos_lie_in_parts_of_1600(tmp_path):
    clip = synthetic_faces._Clip(1601, 1, fold=1, identity=3, has_faces=False)
    synthetic_faces._write_clip(clip, root=tmp_path, low=4, high=4, image_size=32, seed=0, videos=True)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == [
        "Clip/original/part_2/1601.mp4"
    ]


def test_folds_follow_the_closed_rule(tree):
    everything = sorted(read_split(tree, "train", 1) + read_split(tree, "test", 1))
    assert len(everything) == len(dict(everything)) == NUM_CLIPS
    blocks: dict[int, list[tuple[int, int]]] = {fold: [] for fold in range(5)}
    for label in range(1, 8):
        ids = [clip_id for clip_id, its_label in everything if its_label == label]
        for fold in range(5):
            size = len(ids) // 5 + (fold < len(ids) % 5)
            taken = sum(len(ids) // 5 + (k < len(ids) % 5) for k in range(fold))
            blocks[fold] += [(clip_id, label) for clip_id in ids[taken : taken + size]]
    for fold in range(5):
        test = sorted(blocks[fold])
        assert read_split(tree, "test", fold + 1) == test
        assert read_split(tree, "train", fold + 1) == [row for row in everything if row not in set(test)]


def test_no_person_is_on_both_sides_of_a_fold(tree):
    with (tree / "identities.csv").open(newline="") as file:
        person = {int(row["id"]): row["identity"] for row in csv.DictReader(file)}
    for fold in range(1, 6):
        sides = [{person[clip_id] for clip_id, _ in read_split(tree, split, fold)} for split in ("train", "test")]
        assert len(sides[1]) >= 2
        assert not sides[0] & sides[1]


def test_people_tell_nothing_about_the_class():
    """A person shown in one class only would let a model learn faces instead of expressions."""
    clips = [clip for clip in synthetic_faces._plan_clips(500, imbalanced=False, seed=0) if clip.fold]
    classes_of: dict[int, set[int]] = {}
    for clip in clips:
        classes_of.setdefault(clip.identity, set()).add(clip.label)
    assert 95 <= len(classes_of) <= 100
    assert np.mean([len(classes) for classes in classes_of.values()]) > 3


def test_annotation_agrees_with_lists_and_folders(tree):
    rows = read_annotation(tree)
    listed = dict(read_split(tree, "train", 1) + read_split(tree, "test", 1))
    with_faces = {int(folder.name) for folder in face_folders(tree)}
    assert [row[7] for row in rows] == list(range(1, len(rows) + 1))
    assert {row[7]: row[8] for row in rows if row[8] and row[7] in with_faces} == listed
    assert {row[7] for row in rows if row[8] == 0} <= with_faces, "clips without a single label have frames"
    assert any(row[8] == 0 for row in rows)
    assert any(row[8] and row[7] not in with_faces for row in rows), "some labelled clips have no faces, as in DFEW"
    for *votes, _, label in rows:
        assert sum(votes) == 10
        assert votes[label - 1] > 6 if label else max(votes) <= 6


@pytest.mark.parametrize("num_frames", [4, 17, 40])
def test_fear_is_surprise_backwards_and_nothing_else(num_frames):
    seeds = {"identity_seed": 11, "clip_seed": 12, "num_frames": num_frames, "image_size": 32}
    surprise, fear = (draw_clip(name, **seeds) for name in ORDER_ONLY)
    assert np.array_equal(fear, surprise[::-1])
    assert not np.array_equal(fear, surprise)
    # What a model that is blind to time can see is the same, in any statistic of single frames.
    blind = [sorted((frame.mean(), frame.std()) for frame in clip) for clip in (surprise, fear)]
    assert blind[0] == blind[1]


def test_order_only_pair_is_stored_without_another_cue(tmp_path):
    """File sizes, JPEG quality, number of frames, coding of the video: all the same, backwards."""
    surprise, fear = two_clips_of(tmp_path)
    images = [[path.read_bytes() for path in sorted(root.rglob("*.jpg"))] for root in (surprise, fear)]
    assert len(images[0]) == 7
    assert images[1] == images[0][::-1]
    videos = [read_video(root / "Clip" / "original" / "part_1" / "1.mp4") for root in (surprise, fear)]
    assert np.array_equal(videos[1], videos[0][::-1])
    sizes = [len(data) for root in (surprise, fear) for data in file_bytes(root, "*.mp4").values()]
    assert abs(sizes[0] - sizes[1]) <= 16


def test_surprise_comes_early_and_fades_slowly():
    """The pair's only difference must be strong enough to be learnt from a few hundred clips."""
    peaks = []
    for seed in range(50):
        scene = synthetic_faces.Scene(seed, 40)
        wide = synthetic_faces.action_units("surprise", scene)["wide"][:, 0] - scene.idle["wide"][:, 0]
        peaks.append(int(wide.argmax()))
        assert wide[0] == 0 == wide[-1]
        assert np.count_nonzero(np.diff(wide) > 0) <= 5, "a sudden start"
        assert np.count_nonzero(np.diff(wide) < 0) >= 18, "a slow end"
    assert max(peaks) < 14


def test_a_clip_starts_the_same_whatever_its_class():
    """Person, light, pose, place and noise know nothing of the class: before it shows, frames are equal."""
    seeds = {"identity_seed": 5, "clip_seed": 6, "num_frames": 12, "image_size": 32}
    clips = [draw_clip(name, **seeds) for name in ("happy", "sad", "angry", "surprise", "disgust")]
    assert all(np.array_equal(clip[0], clips[0][0]) for clip in clips)
    middles = {clip[6].tobytes() for clip in clips}
    assert len(middles) == len(clips)


def test_everybody_moves_and_neutral_faces_talk():
    clip = draw_clip("neutral", identity_seed=1, clip_seed=1, num_frames=10, image_size=32)
    assert clip.shape == (10, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert all((before != after).any() for before, after in pairwise(clip))
    jaw = {name: [] for name in ("neutral", "sad")}
    for name, values in jaw.items():
        values += [
            synthetic_faces.action_units(name, synthetic_faces.Scene(seed, 40))["jaw"].max() for seed in range(20)
        ]
    assert np.mean(jaw["neutral"]) > 2 * np.mean(jaw["sad"])


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    options = {"num_clips": 35, "num_frames": 4, "image_size": 32, "progress": False}
    trees = [write_synthetic_dfew(tmp_path / str(n), num_workers=n, **options) for n in (1, 2)]
    other = write_synthetic_dfew(tmp_path / "other", num_workers=1, seed=1, videos=False, **options)
    for pattern in ("*.jpg", "*.mp4", "*.csv"):
        first, second = (file_bytes(root, pattern) for root in trees)
        assert first and first == second
    assert file_bytes(other, "*.jpg") != file_bytes(trees[0], "*.jpg")
    assert not file_bytes(other, "*.mp4"), "videos=False"


def test_imbalanced_classes_have_dfews_proportions(tmp_path):
    assert synthetic_faces._class_counts(11697, imbalanced=True) == [2445, 1894, 2669, 2173, 1469, 145, 902]
    for num_clips in (35, 36, 60, 100, 501, 2000):
        for imbalanced in (True, False):
            counts = synthetic_faces._class_counts(num_clips, imbalanced)
            assert sum(counts) == num_clips
            assert min(counts) >= 5, "one clip a fold"
            assert imbalanced or max(counts) - min(counts) <= 1
    root = write_synthetic_dfew(tmp_path, num_clips=100, num_frames=4, imbalanced=True, videos=False, **SMALL)
    found = Counter(label for split in ("train", "test") for _, label in read_split(root, split, 2))
    assert [found[label] for label in range(1, 8)] == synthetic_faces._class_counts(100, imbalanced=True)


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path):
    theirs = tmp_path / "DFEW" / "Clip" / "mine.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    for root in (tmp_path / "DFEW", theirs):
        with pytest.raises(FileExistsError, match=r"SYNTHETIC\.txt.*new or an empty folder"):
            write_synthetic_dfew(root, **SMALL)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]


def test_an_own_tree_is_replaced_without_remains(tmp_path):
    """A clip left from an earlier, larger tree would be in no list and in no annotation."""
    options = {"num_frames": 4, "videos": False, **SMALL}
    write_synthetic_dfew(tmp_path, num_clips=45, **options)
    write_synthetic_dfew(tmp_path, num_clips=35, **options)
    labelled = [row for row in read_annotation(tmp_path) if row[8]]
    assert len(read_split(tmp_path, "train", 1) + read_split(tmp_path, "test", 1)) == 35
    assert {int(folder.name) for folder in face_folders(tmp_path)} <= {row[7] for row in read_annotation(tmp_path)}
    assert len(labelled) < 45


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 34}, "num_clips is 34; 5 folds of 7 classes"),
        ({"seed": -1}, "non-negative"),
        ({"num_frames": 3}, "num_frames is 3"),
        ({"num_frames": (20, 10)}, "num_frames is 20 to 10"),
        ({"image_size": 33}, "image_size is 33; expected an even number"),
        ({"image_size": 16}, "image_size is 16; expected an even number of at least 32"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_synthetic_dfew(tmp_path / "new", **SMALL | options)
    assert not (tmp_path / "new").exists()


def test_unknown_label_is_refused_by_name():
    with pytest.raises(ValueError, match="label is 'anger'; expected one of happy, sad"):
        draw_clip("anger", identity_seed=0, clip_seed=0, num_frames=4, image_size=32)


def test_command_line_writes_and_says_synthetic(tmp_path, capsys):
    size = [
        "--num_clips=35",
        "--num_frames",
        "4",
        "5",
        "--image_size=32",
        "--num_workers=1",
        "--no_videos",
        "--seed=3",
    ]
    synthetic_faces.main([str(tmp_path / "out"), *size])
    output = capsys.readouterr()
    assert "synthetic" in output.out.lower()
    assert "synthetic" in output.err.lower(), "the progress bar"
    assert len(face_folders(tmp_path / "out")) > 35
    with pytest.raises(SystemExit) as stopped:
        synthetic_faces.main([str(tmp_path), *size])
    assert stopped.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
