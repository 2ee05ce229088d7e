"""dataset_scripts/clip_folder.py: one's own clips in class-named folders, and what must not go wrong in silence."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import pytest

import dataset_scripts
from dataset_scripts import clip_folder
from helpers.dfew_trees import video, write_frames

CLASSES = ["bored", "keen", "tired"]
CLIP_IDS = [  # of the fixture plain, in natural order
    f"{name}/clip_{number}" for name, count in zip(CLASSES, (7, 6, 5), strict=True) for number in range(6, 6 + count)
]
FRAMES = ["1.jpg", "2.jpg", "10.jpg"]  # in time order, not in order of name


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., datasets.DatasetDict]:
    def load(root: Path, name: str | None = None, **options):
        options = {"cache_dir": tmp_path / "cache", **options}
        return dataset_scripts.load_dataset("clip_folder", name, data_dir=root, **options)

    return load


def write_clips(folder: Path, names: Iterable[str], suffix: str = "") -> None:
    """Folders of frames, or videos of 3 frames with ``suffix``."""
    for name in names:
        if suffix:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}{suffix}").write_bytes(video(3))
        else:
            write_frames(folder / name, FRAMES)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Class folders with 7, 6 and 5 clips; names cross 9 → 10."""
    for class_name, count in zip(CLASSES, (7, 6, 5), strict=True):
        write_clips(tmp_path / "plain" / class_name, [f"clip_{number}" for number in range(6, 6 + count)])
    return tmp_path / "plain"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Splits of its own, with videos; names repeat from split to split and from class to class."""
    for name, count in (("train", 3), ("val", 2), ("Test", 1)):
        for class_name in CLASSES:
            write_clips(tmp_path / "split" / name / class_name, [f"{number}" for number in range(count)], ".mp4")
    return tmp_path / "split"


# --- Splits of one's own --------------------------------------------------------------------------------------------


def test_rows_of_own_splits(split, load):
    splits = load(split)
    assert {name: rows.num_rows for name, rows in splits.items()} == {"train": 9, "validation": 6, "test": 3}
    train = splits["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "video"]
    assert train.features["label"].names == CLASSES
    assert train[4]["clip_id"] == "train/keen/1"
    assert (train[4]["label"], train[4]["num_frames"]) == (1, 3)
    assert train[4]["video"]["path"] == str(split / "train" / "keen" / "1.mp4")
    ids = [clip_id for rows in splits.values() for clip_id in rows["clip_id"]]
    assert len(set(ids)) == len(ids) == 18
    assert list(load(split, "default")["test"]) == list(splits["test"])


@pytest.mark.parametrize("gone", ["val", "Test"])
def test_validation_or_test_may_be_absent(split, load, gone):
    shutil.rmtree(split / gone)
    assert list(load(split)) == ["train", {"val": "test", "Test": "validation"}[gone]]


def test_files_that_are_not_clips_and_debris_beside_the_classes(split, load):
    clean = {name: list(rows) for name, rows in load(split).items()}
    write_frames(split, ["README.md", ".DS_Store", "desktop.ini"])
    write_frames(split / "train" / "keen", ["._1.mp4", "desktop.ini", "Thumbs.db", ".hidden.jpg"])
    write_frames(split / "__MACOSX" / "train" / "keen", ["1.mp4"])
    assert {name: list(rows) for name, rows in load(split).items()} == clean


def test_class_missing_from_train(split, load):
    shutil.rmtree(split / "train" / "keen")
    with pytest.raises(ValueError, match=r"train of default has no clip of keen in .*split"):
        load(split)


def test_class_missing_from_test_is_reported(split, load, caplog):
    shutil.rmtree(split / "Test" / "keen")
    assert load(split)["test"].features["label"].names == CLASSES
    assert re.search(r"test of .*split has no clip of keen", caplog.text)
    source = clip_folder.ClipFolderConfig(name="default", data_dir=str(split)).open_source()
    ((_, passed, text),) = source.check()
    assert not passed and text == "test has none of keen"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "happy").mkdir(),
            r"holds Test, train, val beside happy: are folders there splits or cl",
        ),
        (lambda root: (root / "validation").mkdir(), r"two of which name one split: keep one"),
        (lambda root: shutil.rmtree(root / "train"), r"holds only the splits Test, val: it needs train and one of"),
    ],
)
def test_ambiguous_splits(split, load, change, message):
    change(split)
    with pytest.raises(ValueError, match=message):
        load(split)


# --- Folds -----------------------------------------------------------------------------------------------------------


def test_folds_are_contiguous_blocks_of_each_class_in_natural_order(plain, load):
    """Neighbouring names are mostly cut from one film; as text, clip_10 would come before clip_6."""
    tested = {}
    for fold in range(1, 6):
        splits = load(plain, f"fold_{fold}")
        assert list(splits) == ["train", "test"]
        tested[fold] = splits["test"]["clip_id"][:]
        assert sorted(tested[fold] + splits["train"]["clip_id"][:]) == sorted(CLIP_IDS)
    assert tested == {
        1: ["bored/clip_6", "bored/clip_7", "keen/clip_6", "keen/clip_7", "tired/clip_6"],
        2: ["bored/clip_8", "bored/clip_9", "keen/clip_8", "tired/clip_7"],
        3: ["bored/clip_10", "keen/clip_9", "tired/clip_8"],
        4: ["bored/clip_11", "keen/clip_10", "tired/clip_9"],
        5: ["bored/clip_12", "keen/clip_11", "tired/clip_10"],
    }


def test_rows_of_folders_of_frames(plain, load):
    row = load(plain, "fold_1")["train"][0]
    assert (row["clip_id"], row["label"], row["num_frames"]) == ("bored/clip_8", 0, 3)
    assert row["frames"] == [str(plain / "bored" / "clip_8" / name) for name in FRAMES]


def test_a_small_class_is_missed_in_some_folds(plain, load, caplog):
    for number in (8, 9, 10):
        shutil.rmtree(plain / "tired" / f"clip_{number}")
    load(plain, "fold_2")
    assert "has no clip of" not in caplog.text
    load(plain, "fold_3")
    assert re.search(r"test of .*plain has no clip of tired", caplog.text)
    shutil.rmtree(plain / "tired" / "clip_7")
    with pytest.raises(ValueError, match="train of fold_1 has no clip of tired"):
        load(plain, "fold_1")


def test_each_configuration_names_the_other_where_that_is_meant(plain, split, load):
    with pytest.raises(ValueError, match="no train and test folders of its own: name one of fold_1 … fold_5"):
        load(plain)
    with pytest.raises(ValueError, match=r"splits of its own \(.*train.*\), so no folds: name .*'default'"):
        load(split, "fold_1")
    with pytest.raises(ValueError, match="fold_6"):
        load(plain, "fold_6")


# --- Persons or films kept together ---------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Ten persons, not all in both classes, so that fifths of a class are not fifths of the persons."""
    for class_name, first in zip(CLASSES[:2], (3, 6), strict=True):
        write_clips(tmp_path / "people" / class_name, [f"p{number}_x" for number in range(first, 13)])
    return tmp_path / "people"


def test_groups_are_in_one_split_only(people, load):
    tested = []
    for fold in range(1, 6):
        splits = load(people, f"fold_{fold}", groups=r"^(p\d+)_")
        assert not {*splits["train"]["group"]} & {*splits["test"]["group"]}
        tested.append(sorted({*splits["test"]["group"]}))
    assert tested == [["p3", "p4"], ["p5", "p6"], ["p7", "p8"], ["p10", "p9"], ["p11", "p12"]]


def test_without_groups_a_person_may_be_in_both(people, load):
    """Else the test above could not fail."""
    splits = load(people, "fold_1")
    assert "keen/p6_x" in splits["test"]["clip_id"]
    assert "bored/p6_x" in splits["train"]["clip_id"]


def test_own_splits_that_share_a_person_are_refused(split, load):
    with pytest.raises(ValueError, match=r"has clips of 0 both in train and in validation: validation/bored/0"):
        load(split, groups=r"(\d)")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (r"(q\d+)", r"finds no person or film in the name of .*bored/p3_x"),
        (r"p\d+", r"has no group: put \( \) around"),
        (r"(p", r"is not a regular expression"),
        (r"(p)", r"groups= finds 1 \(p\): 5 folds need 5 or more"),
    ],
)
def test_groups_that_cannot_be(people, load, groups, message):
    with pytest.raises(ValueError, match=message):
        load(people, "fold_1", groups=groups)


# --- Images as clips of one frame -----------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sets of still faces have their images in class folders, in splits of their own."""
    for split, count in (("train", 3), ("test", 2)):
        for class_name in CLASSES:
            write_frames(tmp_path / "images" / split / class_name, [f"{n}.png" for n in range(9, 9 + count)])
    return tmp_path / "images"


def test_images_of_class_folders_are_clips_of_one_frame(images, load):
    splits = load(images, images=True)
    assert {name: rows.num_rows for name, rows in splits.items()} == {"train": 9, "test": 6}
    assert splits["train"].features["label"].names == CLASSES
    row = splits["train"][4]
    assert (row["clip_id"], row["label"], row["num_frames"]) == ("train/keen/10", 1, 1)
    assert row["frames"] == [str(images / "train" / "keen" / "10.png")]


def test_images_in_folds(images, load):
    splits = load(images / "train", "fold_3", images=True)
    assert splits["test"]["clip_id"][:] == ["bored/11", "keen/11", "tired/11"]


def test_numbered_class_folders_get_names(images, load):
    """RAF-DB's folders are 1 … 7."""
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES, start=1):
            (images / split / name).rename(images / split / f"{number}")
    splits = load(images, images=True, classes="1=surprise, 2=fear,3=disgust")
    assert splits["train"].features["label"].names == ["disgust", "fear", "surprise"]
    assert {row["clip_id"][:7]: row["label"] for row in splits["train"]} == {"train/1": 2, "train/2": 1, "train/3": 0}
    with pytest.raises(ValueError, match=r"holds 3, which classes= gives no name"):
        load(images, images=True, classes="1=surprise,2=fear")
    for classes in ("1=surprise,fear", "1=", "a=b=c"):
        with pytest.raises(ValueError, match=r"is not of the form FOLDER=CLASS"):
            load(images, images=True, classes=classes)


def test_images_are_not_taken_for_clips_without_the_option(images, load):
    """The frames of one clip may lie in a class folder by mistake."""
    with pytest.raises(ValueError, match=r"2 files that are not videos .*folder of its own, or pass images=True"):
        load(images)
    write_clips(images / "train" / "keen", ["clip"])
    with pytest.raises(ValueError, match=r"keen holds folders \(clip\): with images=True it may hold images only"):
        load(images, images=True)


def test_images_of_other_forms_are_named(images, load):
    write_frames(images / "train" / "keen", ["12.tif"])
    with pytest.raises(ValueError, match=r"1 files that are not images \(12.tif\): .*convert them to one of .jpg"):
        load(images, images=True)


# --- Folders that are not as they should be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("bored/1.jpg", r"bored holds 1 files that are not videos \(1.jpg\)"),
        ("bored/clip.gif", r"bored holds 1 files that are not videos \(clip.gif\)"),
        ("1.jpg", r"plain holds 1.jpg beside the class folders"),
        ("clip_1.mp4", r"plain holds clip_1.mp4 beside the class folders"),
        ("bored/clip_1.mp4", r"holds videos \(.*bored/clip_1.mp4\) and folders of frames \(.*tired/clip_10\)"),
        ("bored/clip_6.mp4", r"bored holds clips of one name: clip_6, clip_6.mp4. Keep one of each"),
    ],
)
def test_files_that_have_no_place(plain, load, path, message):
    write_frames((plain / path).parent, [Path(path).name])
    with pytest.raises(ValueError, match=message):
        load(plain, "fold_1")


def test_one_clip_with_two_suffixes(split, load):
    shutil.copy(split / "train" / "keen" / "1.mp4", split / "train" / "keen" / "1.AVI")
    with pytest.raises(ValueError, match=r"train/keen holds clips of one name: 1.AVI, 1.mp4"):
        load(split)


def test_empty_class(plain, load):
    (plain / "sleepy").mkdir()
    with pytest.raises(ValueError, match=r"sleepy holds no clip: fill or remove it"):
        load(plain, "fold_1")


def test_folder_above_or_below_the_right_one(plain, load):
    with pytest.raises(ValueError, match=r"holds only the class plain: at least two"):
        load(plain.parent, "fold_1")
    with pytest.raises(ValueError, match=r"clip_6 holds .*1.jpg.* beside the class folders"):
        load(plain / "bored" / "clip_6", "fold_1")
    (plain.parent / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no class folder"):
        load(plain.parent / "empty", "fold_1")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load(plain / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"needs data_dir="):
        dataset_scripts.load_dataset("clip_folder", "fold_1")


def test_clip_without_a_frame(plain, load, caplog):
    for path in (plain / "bored" / "clip_8").iterdir():
        path.unlink()
    write_frames(plain / "bored" / "clip_8", ["._1.jpg", "notes.txt"])
    with pytest.raises(FileNotFoundError, match=r"Of the 13 train .*, 1 have no frame \(bored/clip_8\)"):
        load(plain, "fold_1")
    assert "bored/clip_8" not in load(plain, "fold_1", missing="skip")["train"]["clip_id"]
    assert "1 have no frame (bored/clip_8). They are skipped" in caplog.text


def test_skipping_never_costs_train_a_class(plain, load):
    for folder in (plain / "bored").iterdir():
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(FileNotFoundError, match="5 have no frame"):
        load(plain, "fold_1", missing="skip")


def test_one_level_too_many(plain, load):
    """DIR/<class>/<person>/<clip>: what lies at the place of a clip holds no frames."""
    (plain / "bored" / "clip_8").rename(plain / "moving")
    (plain / "moving").rename(plain / "bored" / "clip_9" / "deeper")
    for path in (plain / "bored" / "clip_9").glob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"have no frame \(bored/clip_9\).* Expected DIR/<class>/<clip>"):
        load(plain, "fold_1")


# --- As datasets loads it -------------------------------------------------------------------------------------------


def test_cache_notices_clips_classes_and_frames_that_come_and_go(plain, load):
    def prepared_at() -> tuple[str, int]:
        path = load(plain, "fold_1")["train"].cache_files[0]["filename"]
        return path, Path(path).stat().st_mtime_ns

    first = prepared_at()
    assert prepared_at() == first
    write_frames(plain / "bored" / "clip_6", ["11.jpg"])
    assert load(plain, "fold_1")["test"][0]["num_frames"] == 4
    write_clips(plain / "awake", ["1", "2", "3", "4", "5"])
    rows = load(plain, "fold_1")["test"]
    assert rows.features["label"].names == ["awake", *CLASSES]
    assert rows[0]["clip_id"] == "awake/1" and rows[1]["label"] == 1
    shutil.rmtree(plain / "awake")
    assert load(plain, "fold_1")["test"].features["label"].names == CLASSES


def test_for_a_report(split):
    source = clip_folder.ClipFolderConfig(name="default", data_dir=str(split)).open_source()
    described = source.describe()
    json.dumps(described)
    assert described["classes"] == CLASSES and str(split / "val" / "keen") in described["clips"]
    assert all(passed for _, passed, _ in source.check())
    assert clip_folder.ClipFolder.PUBLISHED == {}
