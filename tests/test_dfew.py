"""dataset_scripts/dfew.py: every known layout of DFEW, and every mistake that would silently make numbers wrong."""

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import openpyxl
import pytest

import dataset_scripts
from dataset_scripts import dfew
from dataset_scripts.clip_files import folds_by_rule
from helpers import dfew_trees as trees
from helpers.dfew_trees import IDS, LABELS

FULL = Path("Clip") / "clip_224x224"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.write_dfew(tmp_path / "DFEW")


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., datasets.DatasetDict]:
    def load(root: Path, name: str | None = "fold_1", **options):
        return dataset_scripts.load_dataset("dfew", name, data_dir=root, cache_dir=tmp_path / "cache", **options)

    return load


def labels_of(split: datasets.Dataset) -> dict[int, int]:
    """Clip id → DFEW's own label, of a loaded split."""
    return {int(clip_id): label + 1 for clip_id, label in zip(split["clip_id"], split["label"], strict=True)}


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def without_lists(tree: Path) -> None:
    for path in tree.rglob("set_*.csv"):
        path.unlink()


def few_splits(root: Path, labels: dict[int, int], base: int = 1, padded: bool = False) -> None:
    """Lists with fewer clips, so that some classes are in none of them."""
    trees.write_splits(root / "EmoLabel_DataSplit", labels, base=base, padded=padded)


# --- Rows -----------------------------------------------------------------------------------------------------------


def test_rows_have_name_label_and_frames_in_time_order(tree, load):
    train = load(tree)["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "frames"]
    assert train.features["label"].names == trees.CLASS_NAMES
    assert train.features["num_frames"].dtype == "int32"
    for row in train:
        names = trees.full_names(int(row["clip_id"]))
        assert len(row["clip_id"]) == 5
        assert row["frames"] == [str(tree / FULL / row["clip_id"] / name) for name in names]
        assert row["num_frames"] == len(names)
        assert all(Path(path).is_file() for path in row["frames"])


@pytest.mark.parametrize("fold", range(1, 6))
def test_each_fold_holds_its_own_lists(tree, load, fold):
    splits = load(tree, f"fold_{fold}")
    train, test = trees.fold_members(LABELS, fold)
    assert set(splits) == {"train", "test"}
    assert labels_of(splits["train"]) == {clip_id: LABELS[clip_id] for clip_id in train}
    assert labels_of(splits["test"]) == {clip_id: LABELS[clip_id] for clip_id in test}


def test_16f_frames_are_ordered_by_number_not_by_name(tree, load):
    """Trap: 16f names are unpadded, so a sort by name gives 1, 10, 11, …, 2."""
    trees.write_16f(tree / "Clip" / "clip_224x224_16f")
    row = load(tree, frames="16f")["test"][0]
    assert [Path(path).name for path in row["frames"]] == [f"{number}.jpg" for number in range(1, 17)]
    assert row["num_frames"] == 16
    assert "clip_224x224_16f" in row["frames"][0]


def test_full_and_16f_side_by_side_are_not_mixed_up(tree, load):
    trees.write_16f(tree / "Clip" / "clip_224x224_16f")
    assert all("clip_224x224_16f" not in path for path in load(tree)["test"]["frames"][0])


def test_debris_of_operating_systems_is_neither_frame_nor_clip(tree, load):
    """Trap: ``._00001_00001.jpg`` has the name of a picture but is not one."""
    clean = load(tree)["test"].to_dict()
    trees.write_frames(tree / FULL / "00001", ["._00001_00001.jpg", ".hidden.jpg", "Thumbs.db", "desktop.ini"])
    trees.write_frames(tree / FULL, [".DS_Store", "desktop.ini"])
    trees.write_full(tree / "Clip" / "__MACOSX" / "clip_224x224")
    trees.write_frames(tree / "EmoLabel_DataSplit" / "train(single-labeled)", ["._set_1.csv"])
    assert load(tree)["test"].to_dict() == clean


# --- Layouts --------------------------------------------------------------------------------------------------------


def move_full(tree: Path, target: str) -> Path:
    folder = tree / target
    folder.parent.mkdir(parents=True, exist_ok=True)
    (tree / FULL).rename(folder)
    return folder


@pytest.mark.parametrize("folder", ["Clip/clip_224x224/clip_224x224_part_{}", "Clip/clip_224x224_part_{}"])
def test_unmerged_parts(tmp_path, load, folder):
    parts = (IDS[:10], IDS[10:20], IDS[20:])
    for number, clip_ids in enumerate(parts, start=1):
        trees.write_full(tmp_path / "DFEW" / folder.format(number), clip_ids)
    trees.write_splits(tmp_path / "DFEW" / "EmoLabel_DataSplit")
    splits = load(tmp_path / "DFEW")
    assert labels_of(splits["train"]) | labels_of(splits["test"]) == LABELS


@pytest.mark.parametrize(
    "target",
    [
        "clip_224x224",
        "Clip/clip_224x224/clip_224x224/",
        "DFEW-part1/Clip/clip_224x224",
        "clip_224x224-20240101T010203Z-001/clip_224x224_part_1",
        "clip_224x224-20240101T010203Z-001",
    ],
)
def test_nested_and_wrapped_folders(tree, load, target):
    (tree / FULL).rename(tree / "moving")
    (tree / target).parent.mkdir(parents=True, exist_ok=True)
    (tree / "moving").rename(tree / target)
    assert load(tree)["train"].num_rows + load(tree)["test"].num_rows == len(IDS)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", ["DFEW_Face", "Clip/jpg_256"])
def test_renamed_clip_folder_by_option(tree, load, name, absolute):
    folder = move_full(tree, name)
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(folder))} \(44 folders of frames: clip_dir="):
        load(tree)
    frames = load(tree, clip_dir=str(folder) if absolute else name)["test"][0]["frames"]
    assert Path(frames[0]).parent == folder / "00001"


def test_split_folder_by_option(tree, load, tmp_path):
    (tree / "EmoLabel_DataSplit").rename(tmp_path / "lists")
    wanted = trees.fold_members(LABELS, 1)[1]
    assert list(labels_of(load(tree / FULL, split_dir=str(tmp_path / "lists"))["test"])) == wanted
    assert list(labels_of(load(tree, split_dir="../lists")["test"])) == wanted


def test_named_clip_folder_wins_over_parts_left_inside_it(tree, load):
    trees.write_full(tree / FULL / "clip_224x224_part_1", IDS[:3])
    with pytest.raises(ValueError, match=r"Clip 00001 lies both at .*: keep one, or name .*clip_dir="):
        load(tree)
    assert load(tree, clip_dir=str(FULL))["test"][0]["frames"][0].startswith(str(tree / FULL / "00001"))


@pytest.mark.parametrize(
    "train",
    [
        "train(single-labeled)/set_{}.csv",
        "train(single_labeled)/set_{}.csv",
        "train_single-labeled/set_{}.csv",
        "train/set_{}.csv",
        "train(single-labeled)/train_set_{}.csv",
        "label/single_trainset_{}.csv",
        "train(single_labeled)/lists/set_{}.csv",
        "Train/Set_{}.CSV",
    ],
)
def test_names_of_split_files(tmp_path, load, train):
    trees.write_full(tmp_path / "test" / FULL)  # a root named test must not turn the lists into test lists
    test = train.replace("train", "test").replace("Train", "Test")
    trees.write_splits(tmp_path / "test" / "EmoLabel_DataSplit", train=train, test=test)
    splits = load(tmp_path / "test", "fold_3")
    assert tuple(list(labels_of(splits[side])) for side in ("train", "test")) == trees.fold_members(LABELS, 3)


def test_list_of_neither_side_is_left_alone(tmp_path, load):
    """The side comes from folders of the tree, not from the one that the tree lies in."""
    tree = trees.write_dfew(tmp_path / "train" / "DFEW")
    trees.write_frames(tree / "notes", ["set_1.csv"])
    assert load(tree)["train"].num_rows == 28


def test_clip_folders_without_padding(tmp_path, load):
    for clip_id in IDS:
        trees.write_frames(tmp_path / "DFEW" / FULL / str(clip_id), trees.full_names(clip_id))
    trees.write_splits(tmp_path / "DFEW")
    assert load(tmp_path / "DFEW")["test"][0]["clip_id"] == "00001"


# --- Labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("base", [0, 1])
def test_zero_based_and_padded_lists_give_the_same_rows(tmp_path, load, base, padded):
    """Trap: repackaged lists count labels from 0, which shifts every label by one."""
    trees.write_full(tmp_path / "DFEW" / FULL)
    trees.write_splits(tmp_path / "DFEW", base=base, padded=padded)
    splits = load(tmp_path / "DFEW")
    assert labels_of(splits["train"]) | labels_of(splits["test"]) == LABELS


def test_byte_order_mark_and_crlf(tree, load):
    clean = load(tree)["train"].to_dict()
    for path in tree.rglob("set_*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load(tree)["train"].to_dict() == clean


def test_rows_are_in_order_of_id_whatever_the_order_of_the_list(tree, load):
    """Validation is cut from train by neighbouring ids."""
    clean = load(tree)["train"].to_dict()
    for path in tree.rglob("set_*.csv"):
        header, *lines = path.read_text().splitlines(keepends=True)
        path.write_text(header + "".join(reversed(lines)))
    assert load(tree)["train"].to_dict() == clean


def test_base_missing_in_one_fold_is_found_in_the_other_lists(tree, load):
    """A fold without 0 and 7 may be either; the other four folds of the tree usually settle it."""
    six = {clip_id: label for clip_id, label in LABELS.items() if label < 7}
    for side, members in zip(("train", "test"), trees.fold_members(six, 1), strict=True):
        path = tree / "EmoLabel_DataSplit" / f"{side}(single-labeled)" / "set_1.csv"
        path.write_text(trees.csv_text(six, members))
    assert labels_of(load(tree)["train"]) == {clip_id: six[clip_id] for clip_id in trees.fold_members(six, 1)[0]}


@pytest.mark.parametrize("base", [0, 1])
def test_base_found_in_no_list_must_be_given(tree, load, base):
    few = {clip_id: label for clip_id, label in LABELS.items() if label in (3, 4, 5)}
    few_splits(tree, few, base)
    with pytest.raises(ValueError, match=r"set_1.csv.*label_base=1 .*or label_base=0"):
        load(tree)
    splits = load(tree, label_base=base)
    assert labels_of(splits["train"]) | labels_of(splits["test"]) == few


def test_lists_with_a_0_and_a_7_are_refused(tree, load):
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text.replace("\n1,1\n", "\n1,0\n"))
    with pytest.raises(ValueError, match="labels 0 and 7 both occur"):
        load(tree)


@pytest.mark.parametrize(("given", "wrong"), [(0, 7), (1, 0)])
def test_given_base_that_the_lists_contradict_is_refused(tree, load, given, wrong):
    few_splits(tree, LABELS, base=1 - given)
    with pytest.raises(ValueError, match=rf"set_1.csv: label {wrong} of clip \d{{5}} is not {given} … {given + 6}"):
        load(tree, label_base=given)


@pytest.mark.parametrize("label", ["8", "-1", "happy", "", "1.5"])
def test_unknown_label(tree, load, label):
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text.replace("\n1,1\n", f"\n1,{label}\n"))
    with pytest.raises(ValueError, match=rf"set_1.csv, line 2: label '{label}' of clip 1 is not one of 1 … 7"):
        load(tree)


@pytest.mark.parametrize("name", ["abc", "", "123456", "00001.mp4"])
def test_unknown_clip_name(tree, load, name):
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text.replace("\n1,1\n", f"\n{name},1\n"))
    with pytest.raises(ValueError, match=rf"set_1.csv, line 2: video_name '{name}' is not a clip id"):
        load(tree)


@pytest.mark.parametrize("header", ["", "id,label\n", "video_name;label\n", ",name,label\n"])
def test_unknown_header(tree, load, header):
    """Without its header a list would lose its first clip in silence."""
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text.replace("video_name,label\n", header))
    with pytest.raises(
        ValueError, match=r"set_1.csv starts with .*; the header of DFEW's lists is 'video_name,label'"
    ):
        load(tree)


def test_empty_list(tree, load):
    next(tree.rglob("train*/set_1.csv")).write_text("")
    with pytest.raises(ValueError, match="starts with ''"):
        load(tree)


def test_list_that_is_not_utf8(tree, load):
    next(tree.rglob("train*/set_1.csv")).write_bytes("video_name,label\n1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"set_1.csv is not UTF-8 text .*save it as"):
        load(tree)


def test_clip_listed_twice(tree, load):
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text + "00001,1\n")
    with pytest.raises(ValueError, match=r"set_1.csv, line \d+: clip 00001 is listed a second time"):
        load(tree)


def test_clip_in_train_and_test(tree, load):
    train, _ = trees.fold_members(LABELS, 1)
    edit(next(tree.rglob("test*/set_1.csv")), lambda text: text + f"{train[0]},{LABELS[train[0]]}\n")
    with pytest.raises(ValueError, match=rf"share 1 clips \({train[0]:05d}\): they must be disjoint"):
        load(tree)


def test_list_of_a_fold_missing(tree, load):
    next(tree.rglob("test*/set_2.csv")).unlink()
    with pytest.raises(FileNotFoundError, match=r"no test list of fold 2 \(set_2.csv\) beside .*split_dir="):
        load(tree, "fold_2")
    assert load(tree, "fold_1")["test"].num_rows


def test_two_different_lists_for_one_split(tree, load):
    copy = tree / "backup" / "test" / "set_1.csv"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(next(tree.rglob("test(*/set_1.csv")).read_bytes())
    assert load(tree)["train"].num_rows  # the same bytes twice do not conflict
    edit(copy, lambda text: text.replace("\n1,1\n", "\n1,2\n"))
    with pytest.raises(ValueError, match=r"set_1.csv and .*set_1.csv differ. Remove one"):
        load(tree)


# --- Votes and folds from annotation.xlsx ---------------------------------------------------------------------------


def test_votes_are_joined_by_id_and_sum_to_one(tree, load):
    """Trap: joining annotation.xlsx by row number gives every clip another clip's votes."""
    train = load(tree, votes=True)["train"]
    for row in train:
        clip_id = int(row["clip_id"])
        assert np.allclose(row["votes"], np.array(trees.votes_for(clip_id, LABELS[clip_id])) / 10)
    assert "votes" not in load(tree)["train"].column_names


def edit_annotation(tree: Path, change: Callable) -> Path:
    path = tree / "Annotation" / "annotation.xlsx"
    workbook = openpyxl.load_workbook(path)
    change(workbook.worksheets[0])
    workbook.save(path)
    return path


def row_of(sheet, clip_id: int) -> int:
    return next(row for row in range(2, sheet.max_row + 1) if sheet.cell(row, 8).value == clip_id)


def test_votes_are_divided_by_their_own_sum(tree, load):
    """That every clip has ten votes is not established."""

    def change(sheet):
        for column in range(1, 8):
            sheet.cell(row_of(sheet, 1), column, column)

    edit_annotation(tree, change)
    assert np.allclose(load(tree, votes=True)["test"][0]["votes"], np.arange(1, 8) / 28)


def test_clip_without_votes(tree, load):
    edit_annotation(tree, lambda sheet: sheet.delete_rows(row_of(sheet, 1)))
    with pytest.raises(ValueError, match=r"annotation.xlsx has no votes for 1 clips of the fold: 00001"):
        load(tree, votes=True)


def test_annotation_that_contradicts_the_lists_is_reported(tree, load, caplog):
    edit_annotation(tree, lambda sheet: sheet.cell(row_of(sheet, 1), 9, 5))
    load(tree, votes=True)
    assert re.search(r"gives 1 of \d+ clips another label than the lists of the fold: 00001", caplog.text)


@pytest.mark.parametrize("row", [["x"] * 9, [1, 2, 3, 4, 5, 6, 7, 55, 8], [10, 0, 0, 0, 0, 0, 0, 1, 1]])
def test_annotation_with_a_row_that_cannot_be(tree, load, row):
    edit_annotation(tree, lambda sheet: sheet.append(row))
    with pytest.raises(ValueError, match=r"annotation.xlsx, row \d+: "):
        load(tree, votes=True)


def test_annotation_with_unknown_header(tree, load):
    edit_annotation(tree, lambda sheet: sheet.cell(1, 8, "number"))
    with pytest.raises(ValueError, match=r"annotation.xlsx: no column order in its header"):
        load(tree, votes=True)


def test_annotation_that_is_not_a_workbook(tree, load):
    (tree / "Annotation" / "annotation.xlsx").write_text("not a workbook")
    with pytest.raises(ValueError, match=r"annotation.xlsx is not a readable Excel workbook"):
        load(tree, votes=True)


def test_annotation_with_empty_rows_at_the_end(tree, load):
    edit_annotation(tree, lambda sheet: sheet.cell(sheet.max_row + 20, 1, " ").__setattr__("value", None))
    assert "votes" in load(tree, votes=True)["train"].column_names


def test_annotation_that_states_a_wrong_size(tree):
    """Some writers state the sheet's size wrongly, and a reader that trusts it loses rows in silence."""
    path = tree / "Annotation" / "annotation.xlsx"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet], changes = re.subn(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:I3"', parts[sheet])
    assert changes == 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert dfew.read_annotation(path).keys() == {*IDS, *trees.UNLABELED}


def test_votes_without_annotation(tree, load):
    (tree / "Annotation" / "annotation.xlsx").unlink()
    assert load(tree)["train"].num_rows
    with pytest.raises(FileNotFoundError, match=r"no annotation.xlsx below .*votes=True needs it"):
        load(tree, votes=True)


@pytest.mark.parametrize("fold", range(1, 6))
def test_folds_are_rebuilt_by_rule_without_lists(tree, load, fold, caplog):
    listed = load(tree, f"fold_{fold}")
    without_lists(tree)
    rebuilt = load(tree, f"fold_{fold}")
    assert {side: rebuilt[side].to_dict() for side in rebuilt} == {side: listed[side].to_dict() for side in listed}
    assert "have 42 clips and the published ones 11697: scores are not comparable" in caplog.text


def test_rule_counts_only_clips_with_a_face_folder(tree, load):
    """362 single-labelled clips of DFEW have no face; counting them would shift every cut."""
    faces = [clip_id for clip_id in IDS if clip_id not in (2, 3, 50)]
    for clip_id in set(IDS) - set(faces):
        for path in (tree / FULL / f"{clip_id:05d}").iterdir():
            path.unlink()
        (tree / FULL / f"{clip_id:05d}").rmdir()
    without_lists(tree)
    labels = {clip_id: LABELS[clip_id] for clip_id in faces}
    assert list(labels_of(load(tree)["test"])) == trees.fold_members(labels, 1)[1]
    trees.write_originals(tree / "Clip" / "original")  # the videos are there for all, which must not matter
    assert list(labels_of(load(tree, frames="original")["test"])) == trees.fold_members(labels, 1)[1]


def test_rule_without_face_folders_is_refused(tmp_path, load):
    trees.write_originals(tmp_path / "DFEW" / "Clip" / "original")
    trees.write_annotation(tmp_path / "DFEW" / "annotation.xlsx")
    with pytest.raises(FileNotFoundError, match="clips without a face are not part of them"):
        load(tmp_path / "DFEW", frames="original")


def test_neither_lists_nor_annotation(tree, load):
    without_lists(tree)
    (tree / "Annotation" / "annotation.xlsx").unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotation.xlsx below .*no lists .* either"):
        load(tree)


def test_rule_on_the_published_class_counts_gives_the_published_fold_sizes():
    """The rule against sizes and class counts that were counted in the lists of five public repositories."""
    counts = list(dfew.CLASS_COUNTS.values())
    labels = dict(enumerate(np.random.default_rng(0).permutation(np.repeat(range(7), counts)).tolist(), start=1))
    folds = folds_by_rule(labels)
    tests = Counter(folds.values())
    assert {fold: (len(labels) - tests[fold], tests[fold]) for fold in range(1, 6)} == dfew.FOLD_SIZES
    per_class = Counter((labels[clip_id], fold) for clip_id, fold in folds.items())
    assert [per_class[3, fold] for fold in range(1, 6)] == [435, 435, 435, 434, 434]
    assert [per_class[6, fold] for fold in range(1, 6)] == [181, 181, 180, 180, 180]
    assert len(labels) == dfew.NUM_BENCHMARK_CLIPS


# --- Videos ---------------------------------------------------------------------------------------------------------


def test_original_videos(tree, load):
    trees.write_originals(tree / "Clip" / "original")
    train = load(tree, frames="original")["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "video"]
    for row in train:
        clip_id = int(row["clip_id"])
        part = 1 + (clip_id - 1) // 20
        assert row["video"]["path"] == str(tree / "Clip" / "original" / f"part_{part}" / f"{clip_id}.mp4")
        assert row["num_frames"] == 3 + clip_id % 5


def test_original_videos_by_option_padded_and_in_a_container_without_a_count(tree, load):
    """Matroska's header has no number of frames, so packets are counted."""
    folder = tree / "Clip" / "clips_mkv"
    folder.mkdir()
    for clip_id in IDS:
        (folder / f"{clip_id:05d}.mkv").write_bytes(trees.video(3 + clip_id % 5, "matroska"))
    with pytest.raises(FileNotFoundError, match=r"clips_mkv \(42 videos: clip_dir=.*frames='original'"):
        load(tree, frames="original")
    train = load(tree, frames="original", clip_dir="Clip/clips_mkv")["train"]
    assert train["num_frames"][:] == [3 + int(clip_id) % 5 for clip_id in train["clip_id"]]


# --- Trees that cannot be right -------------------------------------------------------------------------------------


def test_empty_tree(tmp_path, load):
    (tmp_path / "DFEW").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no clips of any kind.*https://dfew-dataset.github.io by e-mail"):
        load(tmp_path / "DFEW")


def test_archives_only(tmp_path, load):
    trees.write_frames(tmp_path / "DFEW" / "Clip" / "clip_224x224", ["clip_224x224_part_1.zip"])
    with pytest.raises(FileNotFoundError, match=r"archives only \(clip_224x224_part_1.zip\): unzip them first"):
        load(tmp_path / "DFEW")


def test_asked_layout_absent_says_what_was_found_and_which_option_fits(tree, load):
    with pytest.raises(FileNotFoundError, match=r"clip_224x224 \(44 folders of frames: frames='full'\)"):
        load(tree, frames="16f")
    with pytest.raises(FileNotFoundError, match=r"clip_224x224 \(44 folders of frames: frames='full'\)"):
        load(tree, frames="original")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        load(tree, clip_dir="nowhere")


def test_16f_in_a_renamed_folder_is_not_taken_for_full(tree, load):
    """Trap: a renamed folder does not show its kind, and training on the wrong kind goes unnoticed."""
    trees.write_16f(tree / "faces")
    with pytest.raises(ValueError, match=r"faces holds the 16-frame clips .*: pass frames='16f'"):
        load(tree, clip_dir="faces")
    assert load(tree, clip_dir="faces", frames="16f")["train"][0]["num_frames"] == 16


def test_full_in_a_renamed_folder_is_not_taken_for_16f(tree, load):
    with pytest.raises(ValueError, match=r"clip_224x224 does not hold 16-frame clips .*: pass frames='full'"):
        load(tree, clip_dir=str(FULL), frames="16f")


def remove_clip(tree: Path, clip_id: int, keep_folder: bool = False) -> None:
    folder = tree / FULL / f"{clip_id:05d}"
    for path in folder.iterdir():
        path.unlink()
    if not keep_folder:
        folder.rmdir()


def test_listed_clips_not_on_disk(tree, load, caplog):
    gone = trees.fold_members(LABELS, 1)[0][:7]
    for clip_id in gone:
        remove_clip(tree, clip_id)
    with pytest.raises(FileNotFoundError, match=r"7 are not on disk \(\d{5}(, \d{5}){4} and 2 more\).*missing='skip'"):
        load(tree)
    with caplog.at_level(logging.WARNING):
        splits = load(tree, missing="skip")
    assert labels_of(splits["train"]).keys() == set(trees.fold_members(LABELS, 1)[0]) - set(gone)
    assert "7 are not on disk" in caplog.text
    assert "not comparable with papers" in caplog.text


def test_clip_folder_without_a_frame(tree, load, caplog):
    remove_clip(tree, 1, keep_folder=True)
    trees.write_frames(tree / FULL / "00001", ["._00001_00001.jpg"])
    with pytest.raises(FileNotFoundError, match=r"1 have no frame \(00001\) in .*clip_224x224.*missing='skip'"):
        load(tree)
    assert 1 not in labels_of(load(tree, missing="skip")["test"])
    assert "1 have no frame" in caplog.text


def test_no_listed_clip_at_all_is_an_error_even_when_skipping(tmp_path, load):
    trees.write_full(tmp_path / "DFEW" / FULL, [16001, 16002])
    trees.write_splits(tmp_path / "DFEW")
    with pytest.raises(FileNotFoundError, match="Of the 28 train clips of fold_1, 28 are not on disk"):
        load(tmp_path / "DFEW", missing="skip")


def test_clip_twice_in_one_folder(tree, load):
    trees.write_frames(tree / FULL / "1", ["1.jpg"])
    with pytest.raises(ValueError, match=r"Clip 00001 lies both at .*/00001 and at .*/1: keep one"):
        load(tree)
