"""dataset_scripts/afew.py: every layout AFEW is met in, and every mistake that would make numbers wrong in silence."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

import dataset_scripts
from dataset_scripts import afew
from helpers import afew_trees as trees
from helpers.afew_trees import CLASS_FOLDERS, CLIPS, COLLIDING
from helpers.dfew_trees import video, write_frames

LABELS = {f"{split}/{number}": label for split, clips in CLIPS.items() for number, label in clips.items()}
TRAIN_FACES = Path("Train_AFEW") / "AlignedFaces_LBPTOP_Points" / "Faces"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    trees.write_videos(tmp_path / "AFEW")
    return tmp_path / "AFEW"


@pytest.fixture
def faces(tree: Path) -> Path:
    trees.write_faces(tree)
    return tree


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., datasets.DatasetDict]:
    def load(root: Path, **options):
        return dataset_scripts.load_dataset("afew", data_dir=root, **{"cache_dir": tmp_path / "cache", **options})

    return load


def labels_of(splits: datasets.DatasetDict) -> dict[str, int]:
    """Clip id → label, over both splits."""
    return {row["clip_id"]: row["label"] for split in splits.values() for row in split}


def checks(root: Path, **options) -> dict[str, tuple[bool, str]]:
    """Name → whether it passed and what it says, of AFEW's own checks."""
    source = afew.AFEWConfig(name="default", data_dir=str(root), **options).open_source()
    return {name: (passed, text) for name, passed, text in source.check()}


# --- Videos ---------------------------------------------------------------------------------------------------------


def test_rows_of_videos(tree, load):
    splits = load(tree)
    assert list(splits) == ["train", "validation"]
    assert splits["train"].column_names == ["clip_id", "label", "num_frames", "video"]
    assert splits["train"].features["label"].names == [name.lower() for name in CLASS_FOLDERS]
    assert {split: {row["num_frames"] for row in rows} for split, rows in splits.items()} == {
        "train": {3},
        "validation": {4},
    }
    row = splits["train"][0]
    assert row["video"] == {"path": str(tree / "Train_AFEW" / "Angry" / f"{COLLIDING}.avi"), "bytes": None}


def test_label_is_the_class_folder_and_ids_carry_the_split(tree, load):
    """Trap: a number may name one clip in train and another, of another class, in validation."""
    splits = load(tree)
    assert labels_of(splits) == LABELS
    assert (LABELS[f"train/{COLLIDING}"], LABELS[f"validation/{COLLIDING}"]) == (0, 1)
    assert splits["train"]["clip_id"][:] == sorted(splits["train"]["clip_id"])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_converted_videos(tmp_path, load, suffix):
    trees.write_videos(tmp_path / "AFEW", suffix={".mkv": ".matroska"}.get(suffix, suffix))
    for path in (tmp_path / "AFEW").rglob("*.matroska"):
        path.rename(path.with_suffix(".mkv"))
    assert labels_of(load(tmp_path / "AFEW")) == LABELS


@pytest.mark.parametrize("folder", ["EmotiW_2018", "Train_AFEW/x", "train"])
def test_wrapped_folders(tree, load, tmp_path, folder):
    """Also below a folder whose own name says train: the last name on the way counts."""
    root = tmp_path / "wrapped"
    (root / folder).parent.mkdir(parents=True)
    tree.rename(root / folder)
    assert labels_of(load(root)) == LABELS


@pytest.mark.parametrize("names", ["Train_AFEW/Train_AFEW", "train", "Train_AFEW-20240101T010203Z-001/Train_AFEW"])
def test_nested_and_renamed_split_folders(tree, load, names):
    for folder, name in (("Train_AFEW", names), ("Val_AFEW", names.replace("Train", "Val").replace("train", "val"))):
        (tree / folder).rename(tree / "moving")
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "moving").rename(tree / name)
    assert labels_of(load(tree)) == LABELS


def test_debris_and_test_set_are_left_alone(tree, load):
    """The test clips have no labels; their numbers and folders look like the others'."""
    clean = {split: rows.to_dict() for split, rows in load(tree).items()}
    write_frames(tree / "Train_AFEW" / "Angry", ["._000000014.avi", "desktop.ini", "Thumbs.db", ".DS_Store"])
    write_frames(tree / "__MACOSX" / "Train_AFEW" / "Sad", ["000000014.avi"])
    write_frames(tree / "Test" / "Test_vid_Distribute", ["000000021.avi"])
    write_frames(tree / "talk", ["overview.mp4"])
    assert {split: rows.to_dict() for split, rows in load(tree).items()} == clean


def test_clip_in_two_classes(tree, load):
    shutil.copy(tree / "Train_AFEW" / "Angry" / f"{COLLIDING}.avi", tree / "Train_AFEW" / "Sad")
    message = rf"Clip train/{COLLIDING} lies both at .*Angry.*{COLLIDING}.avi and at .*Sad"
    with pytest.raises(ValueError, match=message):
        load(tree)


def test_clip_beside_its_conversion(tree, load):
    (tree / "Train_AFEW" / "Angry" / f"{COLLIDING}.mp4").write_bytes(video(3))
    with pytest.raises(ValueError, match=rf"lies both at .*{COLLIDING}.avi and at .*{COLLIDING}.mp4: keep one"):
        load(tree)


def test_converted_copy_by_option(tree, load):
    trees.write_videos(tree / "converted", ".mp4")
    with pytest.raises(ValueError, match=r"lies both at .*clip_dir="):
        load(tree)
    splits = load(tree, clip_dir="converted")
    assert labels_of(splits) == LABELS
    assert splits["train"][0]["video"]["path"].startswith(str(tree / "converted"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Train_AFEW/Angry/000000014 (1).avi", r"14 \(1\).avi is not named as AFEW's clips are, by nine digits"),
        ("Train_AFEW/Angre/000000098.avi", r"Angre holds 1 videos \(000000098.avi\) but is not a class folder"),
        ("Train_AFEW/000000098.avi", r"Train_AFEW holds 1 videos \(000000098.avi\) but is not a class folder"),
        ("Angry/000000098.avi", r"Angry holds 1 videos \(000000098.avi\) but lies in neither Train_AFEW nor Val_AFEW"),
    ],
)
def test_videos_whose_name_class_or_split_cannot_be_known(tree, load, path, message):
    """Passed over, a misspelt class folder would cost its clips in silence."""
    write_frames((tree / path).parent, [Path(path).name])
    with pytest.raises(ValueError, match=message):
        load(tree)


@pytest.mark.parametrize(
    ("gone", "lacking"), [("Train_AFEW/Surprise", "train/surprise"), ("Val_AFEW", "validation/angry, .*")]
)
def test_class_or_split_missing(tree, load, gone, lacking):
    shutil.rmtree(tree / gone)
    with pytest.raises(FileNotFoundError, match=rf"no video of {lacking} below .*AFEW.*unzip all"):
        load(tree)


def test_number_of_clips_is_held_against_the_published(tree, load, caplog):
    """AFEW has no lists: only its counts show that clips were never unpacked."""
    assert {split: sum(counts.values()) for split, counts in afew.PUBLISHED["default"].items()} == {
        "train": 773,
        "validation": 383,
    }
    load(tree)
    assert re.search(r"AFEW has 21 train clips and AFEW 773: scores are not comparable with papers", caplog.text)


# --- Faces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "{split}/{faces}/Faces/{number}",
        "{faces}/Faces/{number}",
        "{split}/{faces}/{faces}/Faces/{number}",
        "{split}/{faces}/{class}/{number}",
        "{split}/{faces}/{faces}/{class}/{number}",
        "{split}/AlignedFaces_LBPTOP_Points-001/Faces/{number}",
        "{split}/Faces/{number}",
    ],
)
def test_rows_of_faces_in_every_layout(tree, load, path):
    trees.write_faces(tree, path)
    write_frames(tree / "Train_AFEW" / "AlignedFaces_LBPTOP_Points", ["desktop.ini"])
    write_frames(tree / "Train_AFEW" / "AlignedFaces_LBPTOP_Points" / "Points" / COLLIDING, ["shape.jpg"])
    write_frames(tree / "Test" / "Test_2017_Faces_Distribute" / "Faces" / COLLIDING, ["I_1001.jpg"])
    splits = load(tree, frames="faces")
    assert splits["train"].column_names == ["clip_id", "label", "num_frames", "frames"]
    assert labels_of(splits) == LABELS
    for split, rows in splits.items():
        for row in rows:
            number = row["clip_id"].removeprefix(f"{split}/")
            names = {"split": trees.SPLIT_FOLDERS[split], "faces": trees.FACE_FOLDERS[split], "number": number}
            folder = tree / path.format(**names, **{"class": CLASS_FOLDERS[row["label"]]})
            order = ["I_999.jpg", "I_1001.jpg", "I_1002.jpg", "I_1005.jpg"]
            assert (row["num_frames"], row["frames"]) == (4, [str(folder / name) for name in order])


@pytest.mark.parametrize("absolute", [False, True])
def test_own_crops_by_option(tree, load, tmp_path, absolute):
    """Former-DFER's tree, whose numbers have split and class in front."""
    path = "AFEW_Face/{split}/{class}/0_{label}_{number}"
    trees.write_faces(tree, path)
    with pytest.raises(
        FileNotFoundError, match=r"no faces .*AFEW_Face/Train_AFEW/Angry \(3 folders of frames\).*clip_d"
    ):
        load(tree, frames="faces")
    splits = load(tree, frames="faces", clip_dir=str(tree / "AFEW_Face") if absolute else "AFEW_Face")
    assert labels_of(splits) == LABELS
    assert Path(splits["train"][0]["frames"][0]).parent.name == f"0_0_{COLLIDING}"


def test_label_of_faces_is_that_of_the_video(tree, load):
    """Trap: published regroupings of the faces put some clips in another class than AFEW does."""
    trees.write_faces(tree, "{split}/{faces}/{class}/{number}")
    folder = tree / "Train_AFEW" / "AlignedFaces_LBPTOP_Points"
    (folder / "Angry" / COLLIDING).rename(folder / "Sad" / COLLIDING)
    assert labels_of(load(tree, frames="faces")) == LABELS
    passed, text = checks(tree, frames="faces")["classes of faces"]
    assert not passed and f"train/{COLLIDING}" in text


def lose_faces(tree: Path) -> list[str]:
    """Take away the first folder of train and the frames of its fourth; their clip ids."""
    first, *_, fourth = sorted(CLIPS["train"])[:4]
    shutil.rmtree(tree / TRAIN_FACES / first)
    shutil.rmtree(tree / TRAIN_FACES / fourth)
    write_frames(tree / TRAIN_FACES / fourth, ["desktop.ini", "._I_1001.jpg"])
    return [f"train/{first}", f"train/{fourth}"]


def test_clips_without_faces_stay_as_rows_and_shift_no_label(faces, load, caplog):
    """Trap: joined by position, an empty folder of faces gives all clips after it their neighbour's label."""
    lost = lose_faces(faces)
    splits = load(faces, frames="faces")
    assert labels_of(splits) == LABELS
    assert [row["clip_id"] for row in splits["train"] if row["num_frames"] == 0] == lost
    for row in splits["train"]:
        assert bool(row["frames"]) == (row["clip_id"] not in lost)
        assert all(row["clip_id"].removeprefix("train/") in path for path in row["frames"])
    assert f"Of the 21 train clips of {faces}, 2 have no face: {', '.join(lost)}" in caplog.text
    assert "missing='skip'" in caplog.text


def test_clips_without_faces_skipped(faces, load, caplog):
    lost = lose_faces(faces)
    splits = load(faces, frames="faces", missing="skip")
    assert labels_of(splits) == {clip_id: label for clip_id, label in LABELS.items() if clip_id not in lost}
    assert f"{', '.join(lost)}. They are skipped: scores are over 19 clips" in caplog.text


def test_clips_without_faces_refused(faces, load):
    lost = lose_faces(faces)
    with pytest.raises(FileNotFoundError, match=rf"2 have no face: {', '.join(lost)}\. Unzip"):
        load(faces, frames="faces", missing="error")


def test_no_clip_of_a_split_has_a_face(faces, load):
    for number in CLIPS["train"]:
        shutil.rmtree(faces / TRAIN_FACES / number)
    for missing in ("keep", "skip"):
        with pytest.raises(FileNotFoundError, match=r"Of the 21 train clips of .*, 21 have no face"):
            load(faces, frames="faces", missing=missing)


def test_faces_of_a_clip_twice(faces, load):
    write_frames(faces / "Train_AFEW" / "AlignedFaces_LBPTOP_Points" / "Sad" / COLLIDING, trees.FACE_NAMES)
    with pytest.raises(ValueError, match=rf"Clip train/{COLLIDING} lies both at .*Faces.* and at .*Sad"):
        load(faces, frames="faces")


def test_faces_of_neither_split(tree, load):
    trees.write_faces(tree, "Faces/{number}")
    with pytest.raises(ValueError, match=r"Faces says whether its \d+ clips are of train or of validation"):
        load(tree, frames="faces")


def test_faces_need_the_videos_for_their_labels(tmp_path, load):
    trees.write_faces(tmp_path / "AFEW", "{split}/{faces}/{class}/{number}")
    with pytest.raises(FileNotFoundError, match=r"Found no videos \(Train_AFEW/<Class>/\*.avi\) below"):
        load(tmp_path / "AFEW", frames="faces")


# --- For a report ---------------------------------------------------------------------------------------------------


def test_listed_clips_name_every_clip_and_none_where_there_is_no_folder(faces):
    first, fourth = lose_faces(faces)
    source = afew.AFEWConfig(name="default", data_dir=str(faces), frames="faces").open_source()
    rows = source.listed_clips()
    paths = {row["clip_id"]: row["path"] for split in rows.values() for row in split}
    assert paths.keys() == LABELS.keys()
    assert paths[first] is None
    assert paths[fourth] == str(faces / TRAIN_FACES / fourth.removeprefix("train/"))
    described = source.describe()
    assert described["frames"] == "faces" and str(faces / TRAIN_FACES) in described["clips"]
    json.dumps(described)


def test_checks_of_a_tree_in_order(faces, monkeypatch):
    monkeypatch.setattr(afew, "NUM_CLIPS", {"train": 21, "validation": 14})
    for frames in afew.FRAME_KINDS:
        assert all(passed for passed, _ in checks(faces, frames=frames).values())


def test_check_of_splits_finds_more_shared_numbers_than_afew_has(tree):
    assert checks(tree)["shared numbers"][0]
    shutil.copy(tree / "Train_AFEW" / "Surprise" / "000000056.avi", tree / "Val_AFEW" / "Sad")
    passed, text = checks(tree)["shared numbers"]
    assert not passed and "3 numbers occur in both splits, 0 of" in text and "000000056" in text


def test_check_of_splits_finds_a_number_in_one_class_of_both(tree):
    (tree / "Val_AFEW" / "Disgust" / f"{COLLIDING}.avi").rename(tree / "Val_AFEW" / "Angry" / f"{COLLIDING}.avi")
    passed, text = checks(tree)["shared numbers"]
    assert not passed and "2 numbers occur in both splits, 1 of them in one class" in text


def test_check_explains_the_two_kinds_of_381(faces, monkeypatch):
    monkeypatch.setattr(afew, "NUM_CLIPS", {"train": 21, "validation": 14})
    assert checks(faces, frames="faces")["validation set"][0]
    (first, *_) = CLIPS["validation"]
    shutil.rmtree(faces / "Val_AFEW" / "AlignedFaces_LBPTOP_Points_Val" / "Faces" / first)
    passed, text = checks(faces, frames="faces")["validation set"]
    assert not passed and "13 of 14 validation clips" in text and "different ones" in text
    passed, text = checks(faces, frames="faces")["clips without faces"]
    assert not passed and f"validation/{first}" in text


def test_check_finds_faces_without_a_video(faces):
    write_frames(faces / TRAIN_FACES / "000009999", trees.FACE_NAMES)
    passed, text = checks(faces, frames="faces")["faces without clips"]
    assert not passed and "train/000009999" in text


# --- Errors ---------------------------------------------------------------------------------------------------------


def test_no_data_dir_and_empty_folder(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"AFEW needs data_dir="):
        dataset_scripts.load_dataset("afew")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere.*Train_AFEW/ and Val_AFEW/"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"Found no videos .*Train_AFEW/ and Val_AFEW/"):
        load(tmp_path)
    write_frames(tmp_path / "EmotiW_2018", ["Train_AFEW.zip", "Test_vid_Distribute.rar"])
    with pytest.raises(FileNotFoundError, match=r"archives only \(Test_vid_Distribute.rar, Train_AFEW.zip\): unzip"):
        load(tmp_path / "EmotiW_2018")


def test_one_split_as_data_dir(tree, load):
    with pytest.raises(ValueError, match=r"lies in neither Train_AFEW nor Val_AFEW"):
        load(tree / "Train_AFEW")


# --- As datasets loads it -------------------------------------------------------------------------------------------


def prepared_at(splits: datasets.DatasetDict) -> tuple[str, int]:
    path = splits["train"].cache_files[0]["filename"]
    return path, Path(path).stat().st_mtime_ns


def test_cache_notices_clips_that_come_go_and_change_class(tree, load):
    first = prepared_at(load(tree))
    assert prepared_at(load(tree, frames="video")) == first
    angry = tree / "Train_AFEW" / "Angry" / f"{COLLIDING}.avi"
    angry.rename(tree / "Train_AFEW" / "Sad" / angry.name)
    assert labels_of(load(tree)) == LABELS | {f"train/{COLLIDING}": 5}
    (tree / "Train_AFEW" / "Sad" / angry.name).unlink()
    assert f"train/{COLLIDING}" not in labels_of(load(tree))


def test_cache_notices_faces_that_come(faces, load):
    lose_faces(faces)
    assert load(faces, frames="faces")["train"][0]["num_frames"] == 0
    write_frames(faces / TRAIN_FACES / COLLIDING, trees.FACE_NAMES)
    assert load(faces, frames="faces")["train"][0]["num_frames"] == 4
