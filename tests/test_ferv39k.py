"""dataset_scripts/ferv39k.py: FERV39k's lists and folders, and every mistake that would go unnoticed in them."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

import dataset_scripts
from dataset_scripts import ferv39k
from helpers import ferv39k_trees as trees
from helpers.dfew_trees import write_frames
from helpers.ferv39k_trees import FACES, LISTS, PICTURES, TEST, TRAIN

TRAIN_LIST = LISTS / "All_scenes" / "train_All.csv"
TEST_LIST = LISTS / "All_scenes" / "test_All.csv"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.write_ferv39k(tmp_path / "FERV39k")


@pytest.fixture
def load(tmp_path: Path) -> Callable:
    def load(root: Path | None, name: str | None = None, **options):
        options = {"cache_dir": tmp_path / "cache", **options}
        return dataset_scripts.load_dataset("ferv39k", name, data_dir=root, **options)

    return load


def opened(root: Path, name: str = "default", **options) -> ferv39k.Source:
    return ferv39k.FERV39kConfig(name=name, data_dir=str(root), **options).open_source()


def rows_of(splits: datasets.DatasetDict) -> dict[str, list[dict]]:
    return {side: list(rows) for side, rows in splits.items()}


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


# --- Rows -----------------------------------------------------------------------------------------------------------


def test_rows_have_three_part_ids_labels_and_frames_in_time_order(tree, load):
    splits = load(tree)
    assert list(splits) == ["train", "test"]
    assert splits["train"].column_names == ["clip_id", "label", "num_frames", "frames"]
    assert splits["train"].features["label"].names == [name.lower() for name in trees.EMOTIONS]
    for side, clip_ids in (("train", TRAIN), ("test", TEST)):
        assert splits[side]["clip_id"][:] == clip_ids
        for row in splits[side]:
            names = trees.frame_names(row["clip_id"])
            assert trees.EMOTIONS[row["label"]] == row["clip_id"].split("/")[1]
            assert row["frames"] == [str(tree / FACES / row["clip_id"] / name) for name in names]
            assert row["num_frames"] == len(names)


def test_the_first_line_is_a_clip_and_not_a_header(tree, load):
    """Trap: who skips the first line as a header loses a clip."""
    first = (tree / TRAIN_LIST).read_text().split()[0]
    assert first in load(tree)["train"]["clip_id"][:]
    assert load(tree)["train"].num_rows == len(TRAIN)


def test_numbers_that_repeat_from_scene_to_scene_stay_apart(tree, load):
    """Trap: by its number alone, clip 0001 would be one of 14."""
    clips = [row for row in load(tree)["train"] if row["clip_id"].endswith("/0001")]
    assert len({row["frames"][0] for row in clips}) == len(clips) == 14


def test_frames_are_ordered_by_number_not_by_name(tree, load):
    """Trap: two digits do for 47 frames; in a longer clip, 100.jpg sorts before 99.jpg."""
    write_frames(tree / FACES / TRAIN[0], [f"{number:02d}.jpg" for number in range(102)])
    names = [Path(path).name for path in load(tree)["train"][0]["frames"]]
    assert names[98:] == ["98.jpg", "99.jpg", "100.jpg", "101.jpg"]


def test_faces_and_scene_pictures_are_not_mixed_up(tree, load):
    """Trap: both folders hold the same clip ids."""
    trees.write_clips(tree / PICTURES)
    for options, folder in (({}, FACES), ({"frames": "faces"}, FACES), ({"frames": "scenes"}, PICTURES)):
        rows = rows_of(load(tree, **options))
        assert all(path.startswith(str(tree / folder)) for side in rows.values() for path in side[0]["frames"])


def test_faces_are_not_taken_for_scene_pictures_nor_the_reverse(tree, load):
    with pytest.raises(
        FileNotFoundError, match=r"3_ClipsforScenImages.*Found instead.*2_ClipsforFaceCrop \(frames='faces'\)"
    ):
        load(tree, frames="scenes")
    (tree / FACES).rename(tree / PICTURES)
    with pytest.raises(FileNotFoundError, match=r"2_ClipsforFaceCrop.*Found instead.*\(frames='scenes'\)"):
        load(tree)
    with pytest.raises(FileNotFoundError, match="frames='scenes'"):
        load(tree, clip_dir=PICTURES)


@pytest.mark.parametrize("scene", trees.SCENES)
def test_a_configuration_for_each_scene(tree, load, scene):
    splits = load(tree, f"scene_{scene}")
    for side, clip_ids in (("train", TRAIN), ("test", TEST)):
        assert splits[side]["clip_id"][:] == [name for name in clip_ids if name.startswith(f"{scene}/")]
    assert f"scene_{scene}" in dataset_scripts.configurations("ferv39k")


def test_debris_of_operating_systems_is_neither_frame_nor_clip_nor_list(tree, load):
    clean = rows_of(load(tree))
    write_frames(tree / FACES / TRAIN[0], ["._00.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"])
    write_frames(tree / FACES / "DailyLife" / "Sad", [".DS_Store", "desktop.ini"])
    write_frames(tree / LISTS / "All_scenes", ["._train_All.csv"])
    trees.write_clips(tree / "__MACOSX" / FACES)
    assert rows_of(load(tree)) == clean


# --- Layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", [f"{FACES}-002/{FACES}", f"{FACES}-20240101T010203Z-1-002", f"Faces/{FACES}/{FACES}"]
)
def test_what_drive_wraps_around_a_folder(tmp_path, load, folder):
    trees.write_clips(tmp_path / folder)
    trees.write_lists(tmp_path / "drive-download-20240101T010203Z-1-003" / LISTS)
    assert load(tmp_path)["train"]["clip_id"][:] == TRAIN


def test_parts_unzipped_side_by_side(tmp_path, load):
    """Drive cuts a folder wherever an archive is full, also in the middle of a scene."""
    clip_ids = [*TRAIN, *TEST]
    for number in range(3):
        trees.write_clips(tmp_path / f"{FACES}-00{number}" / FACES, clip_ids[number::3])
    trees.write_lists(tmp_path / LISTS)
    assert load(tmp_path)["test"]["clip_id"][:] == TEST


def test_clip_cut_between_two_parts_is_refused(tree, load):
    """Half of its frames would be lost in silence."""
    write_frames(tree / f"{FACES}-002" / FACES / TEST[0], ["20.jpg"])
    with pytest.raises(ValueError, match=rf"Clip {TEST[0]} lies both at .* and at .*-002.*into one folder"):
        load(tree)
    assert load(tree, clip_dir=FACES)["test"].num_rows == len(TEST)


@pytest.mark.parametrize("absolute", [False, True])
def test_renamed_folders_by_option(tree, load, absolute):
    (tree / FACES).rename(tree / "crops")
    (tree / LISTS).rename(tree.parent / "lists")
    split_dir = str(tree.parent / "lists") if absolute else "../lists"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tree / 'crops'} (clip_dir=)")):
        load(tree, split_dir=split_dir)
    with pytest.raises(FileNotFoundError, match=r"no train_All.csv and no test_All.csv .*split_dir="):
        load(tree, clip_dir="crops")
    row = load(tree, clip_dir=str(tree / "crops") if absolute else "crops", split_dir=split_dir)["train"][0]
    assert row["frames"][0] == str(tree / "crops" / TRAIN[0] / "00.jpg")


def test_no_data_dir_or_none_of_ferv39k(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="needs data_dir="):
        load(None)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=ferv39k.HOMEPAGE):
        load(tmp_path)


# --- Lists ----------------------------------------------------------------------------------------------------------


def test_label_that_contradicts_the_id_is_refused(tree, load):
    """Trap: the emotion stands twice in a line, and a list whose two disagree was made wrongly."""
    path = tree / TEST_LIST
    path.write_text(path.read_text().replace("DailyLife/Sad/0003 Sad", "DailyLife/Sad/0003 Happy"))
    with pytest.raises(ValueError, match=r"test_All.csv, line \d+: 'DailyLife/Sad/0003 Happy' gives a clip of Sad"):
        load(tree)


@pytest.mark.parametrize(
    "line",
    [
        "path label",
        "DailyLife/Sad/0010,Sad",
        "DailyLife/Sad/0010",
        "0010 Sad",
        "DailyLife/Sad/0010 Sad 28",
        "DailyLife/Calm/0010 Calm",
    ],
)
def test_line_that_is_not_a_clip_and_its_label(tree, load, line):
    """A header, commas as other repositories use, a key of fewer parts, frame counts, an unknown emotion."""
    (tree / TRAIN_LIST).write_text(f"{line}\n{(tree / TRAIN_LIST).read_text()}")
    with pytest.raises(ValueError, match=rf"train_All.csv, line 1: '{line}' is not a clip, .* no header"):
        load(tree)


def test_byte_order_mark_crlf_and_empty_lines(tree, load):
    clean = rows_of(load(tree))
    for path in (tree / TRAIN_LIST, tree / TEST_LIST):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert rows_of(load(tree)) == clean


def test_list_that_is_not_utf8(tree, load):
    (tree / TRAIN_LIST).write_bytes("DailyLife/Sad/0010 Sad\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"train_All.csv is not UTF-8 text"):
        load(tree)


def test_clip_listed_twice(tree, load):
    add_line(tree / TRAIN_LIST, "DailyLife/Sad/0001 Sad")
    with pytest.raises(ValueError, match=r"train_All.csv, line 29: 'DailyLife/Sad/0001 Sad' lists the clip a second"):
        load(tree)


def test_clip_in_train_and_test(tree, load):
    add_line(tree / TEST_LIST, "DailyLife/Sad/0001 Sad")
    with pytest.raises(ValueError, match=r"share 1 clips \(DailyLife/Sad/0001\): they must be disjoint"):
        load(tree)


def test_clip_of_another_scene_in_the_list_of_a_scene(tree, load):
    add_line(tree / LISTS / "22_scenes" / "test_War.csv", "DailyLife/Sad/0003 Sad")
    with pytest.raises(ValueError, match=r"test_War.csv lists 1 clips of other scenes: DailyLife/Sad/0003"):
        load(tree, "scene_War")


def test_missing_list(tree, load):
    (tree / LISTS / "22_scenes" / "test_War.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no test_War.csv \(in FERV39k's 4_setups\) below"):
        load(tree, "scene_War")
    with pytest.raises(FileNotFoundError, match=r"no train_Crime.csv and no test_Crime.csv"):
        load(tree, "scene_Crime")


def test_two_different_lists_of_one_name(tree, load):
    shutil.copy(tree / TEST_LIST, tree)
    assert load(tree)["test"].num_rows == len(TEST)
    add_line(tree / "test_All.csv", "DailyLife/Sad/0099 Sad")
    with pytest.raises(ValueError, match=r"test_All.csv and .*test_All.csv differ. Remove one"):
        load(tree)


# --- Clips and lists that do not fit --------------------------------------------------------------------------------


def test_listed_clips_not_on_disk_or_without_a_frame(tree, load, caplog):
    shutil.rmtree(tree / FACES / TEST[0])
    for path in (tree / FACES / TEST[1]).iterdir():
        path.rename(path.with_name(f"._{path.name}"))
    message = (
        rf"14 test clips of default, 1 are not on disk \({TEST[0]}\) and 1 have no frame \({TEST[1]}\) in .*{FACES}"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load(tree)
    with caplog.at_level(logging.WARNING):
        assert load(tree, missing="skip")["test"]["clip_id"][:] == TEST[2:]
    assert "not comparable with papers" in caplog.text


def test_no_listed_clip_at_all_is_an_error_even_when_skipping(tree, load):
    shutil.rmtree(tree / FACES)
    trees.write_clips(tree / FACES, TRAIN)
    with pytest.raises(FileNotFoundError, match=r"Of the 14 test clips .*14 are not on disk"):
        load(tree, missing="skip")


# --- For verify -----------------------------------------------------------------------------------------------------


def test_published_counts_are_those_of_the_paper():
    sums = {side: sum(counts.values()) for side, counts in ferv39k.PUBLISHED["default"].items()}
    assert sums == {"train": 31_088, "test": 7_847}
    assert len(set(ferv39k.SCENES)) == 22


def test_clips_that_are_not_on_disk_are_listed_all_the_same(tree):
    shutil.rmtree(tree / FACES / TEST[0])
    rows = opened(tree).listed_clips()["test"]
    assert [row["clip_id"] for row in rows if row["path"] is None] == [TEST[0]]


@pytest.mark.parametrize("length", [7, 48])
def test_clip_lengths_are_checked(tree, length):
    """A clip of other lengths than the published ones was extracted anew or has lost frames."""
    source = opened(tree)
    assert source.check() == [("clip lengths", True, "42 of 42 clips have 8 to 47 frames")]
    shutil.rmtree(tree / FACES / TEST[0])
    write_frames(tree / FACES / TEST[0], [f"{number:02d}.jpg" for number in range(length)])
    text = f"41 of 42 clips have 8 to 47 frames, not {TEST[0]} {length}"
    assert source.check() == [("clip lengths", False, text)]
    trees.write_clips(tree / PICTURES)
    assert opened(tree, frames="scenes").check() == []


def test_description_says_what_is_read_and_whether_the_scene_lists_fit(tree):
    description = opened(tree).describe()
    assert json.loads(json.dumps(description)) == {
        "frames": "faces",
        "clips": [str(tree / FACES)],
        "lists": [str(tree / TRAIN_LIST), str(tree / TEST_LIST)],
        "num_short_clips": 4070,
        "scene_lists": 4,
        "scene_lists_differ": 0,
    }
    moved = tree / LISTS / "22_scenes" / "train_War.csv"
    moved.write_text("".join(moved.read_text().splitlines(keepends=True)[1:]))
    add_line(tree / LISTS / "22_scenes" / "test_War.csv", TRAIN[-1] + " Surprise")
    assert opened(tree).describe()["scene_lists_differ"] == 2  # not in train, and in test as well
    assert {*opened(tree, "scene_War").describe()} == {"frames", "clips", "lists"}


# --- As a data set --------------------------------------------------------------------------------------------------


def test_cache_notices_changes_and_nothing_else(tree, load):
    def file_of(splits: datasets.DatasetDict) -> str:
        return splits["train"].cache_files[0]["filename"]

    first = file_of(load(tree))
    (tree / "notes.txt").write_text("not read")
    assert file_of(load(tree, frames="faces")) == first
    write_frames(tree / FACES / TEST[0], ["30.jpg"])
    assert load(tree)["test"]["num_frames"][0] == len(trees.frame_names(TEST[0])) + 1
    (tree / TEST_LIST).write_text("".join((tree / TEST_LIST).read_text().splitlines(keepends=True)[:-1]))
    assert load(tree)["test"].num_rows == len(TEST) - 1
    shutil.rmtree(tree / FACES / TRAIN[0])
    with pytest.raises(FileNotFoundError, match=TRAIN[0]):
        load(tree)
