"""dataset_scripts/mafw.py: MAFW's lists, captions and folders, and every mistake that would go unnoticed in them."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from PIL import Image

import dataset_scripts
from dataset_scripts import mafw
from helpers import mafw_trees as trees
from helpers.dfew_trees import fold_members, write_frames
from helpers.mafw_trees import CLIPS, COMPOUND, FRAMES, LISTS, SINGLE, clip_name

PLAIN = LISTS / "single" / "no_caption"
CAPTIONED = LISTS / "single" / "with_caption"
FIRST = "00079"  # train clip of fold 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.write_mafw(tmp_path / "MAFW")


@pytest.fixture
def load(tmp_path: Path) -> Callable:
    def load(root: Path | None, name: str | None = "fold_1", **options):
        options = {"cache_dir": tmp_path / "cache", **options}
        return dataset_scripts.load_dataset("mafw", name, data_dir=root, **options)

    return load


def opened(root: Path, name: str = "fold_1", **options) -> mafw.Source:
    return mafw.MAFWConfig(name=name, data_dir=str(root), **options).open_source()


def rows_of(splits: datasets.DatasetDict) -> dict[str, list[dict]]:
    return {side: list(rows) for side, rows in splits.items()}


def labels_of(split: datasets.Dataset) -> dict[int, str]:
    names = split.features["label"].names
    return {int(clip_id): names[label] for clip_id, label in zip(split["clip_id"], split["label"], strict=True)}


def members(labels: dict[int, str], fold: int) -> dict[str, dict[int, str]]:
    """Side → clip id → label, by numpy's cut of each class in five."""
    names = sorted(set(labels.values()))
    sides = fold_members({clip_id: names.index(label) for clip_id, label in labels.items()}, fold)
    return dict(zip(("train", "test"), ({i: labels[i] for i in ids} for ids in sides), strict=True))


def edit(path: Path, change: Callable[[str], str], encoding: str = "utf-8") -> None:
    path.write_bytes(change(path.read_bytes().decode(encoding)).encode(encoding))


def check(tree: Path, check_name: str, name: str = "fold_1", **options) -> tuple[bool, str]:
    return {key: (passed, text) for key, passed, text in opened(tree, name, **options).check()}[check_name]


# --- Rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(1, 6))
def test_single_folds_have_the_eleven_classes_in_mafws_order(tree, load, fold):
    """Trap: other repositories count the classes of MAFW in two other orders."""
    splits = load(tree, f"fold_{fold}")
    assert splits["train"].features["label"].names == trees.CLASS_NAMES
    assert {side: labels_of(split) for side, split in splits.items()} == members(SINGLE, fold)


def test_rows_are_in_order_of_id_with_frames_in_order_of_number(tree, load):
    """Traps: the lists need not be sorted; 10.png sorts before 9.png."""
    train = load(tree)["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "frames"]
    assert train["clip_id"][:] == sorted(train["clip_id"])
    for row in train:
        names = trees.frame_names(int(row["clip_id"]))
        assert row["frames"] == [str(tree / FRAMES / row["clip_id"] / name) for name in names]
        assert row["num_frames"] == len(names)


@pytest.mark.parametrize("fold", range(1, 6))
def test_compound_folds_have_the_labels_of_their_lists(tree, load, fold):
    splits = load(tree, f"compound_fold_{fold}")
    assert {side: labels_of(split) for side, split in splits.items()} == members(COMPOUND, fold)


def test_compound_classes_are_those_of_all_folds_in_one_order(tree, load):
    """Trap: a class that one fold lacks would shift the numbers of all after it."""
    wanted = [*trees.CLASS_NAMES, "anger_disgust", "disgust_anxiety", "fear_surprise", "anger_disgust_anxiety"]
    for side in ("train", "test"):
        path = tree / LISTS / "compound" / "no_caption" / "set_2" / f"{side}.txt"
        edit(path, lambda text: re.sub(r"\d+\.mp4 anger_disgust\r\n", "", text))
    splits = load(tree, "compound_fold_2")
    assert "anger_disgust" not in {*labels_of(splits["train"]).values(), *labels_of(splits["test"]).values()}
    for fold in range(1, 6):
        assert load(tree, f"compound_fold_{fold}")["test"].features["label"].names == wanted
    (tree / LISTS / "compound" / "no_caption" / "set_4" / "test.txt").unlink()
    shutil.rmtree(tree / LISTS / "compound" / "with_caption")
    with pytest.raises(
        FileNotFoundError, match=r"no set_4/test.txt in a folder 'compound' .*compound_fold_2 needs it"
    ):
        load(tree, "compound_fold_2")


def test_videos_by_option(tree, load):
    with pytest.raises(FileNotFoundError, match=r"data/clips.*Found instead.*frames \(frames='faces', clip_dir=\)"):
        load(tree, frames="video")
    trees.write_videos(tree / CLIPS, SINGLE)
    train = load(tree, frames="video")["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "video"]
    for row in train:
        assert row["video"]["path"] == str(tree / CLIPS / f"{row['clip_id']}.mp4")
        assert row["num_frames"] == 3 + int(row["clip_id"]) % 5
    assert "frames" in load(tree)["train"].column_names


def test_debris_of_operating_systems_is_neither_frame_nor_clip_nor_list(tree, load):
    clean = rows_of(load(tree))
    write_frames(tree / FRAMES / "00025", ["._8.png", ".DS_Store", "Thumbs.db", "desktop.ini"])
    write_frames(tree / FRAMES, [".DS_Store", "desktop.ini"])
    write_frames(tree / PLAIN / "set_1", ["._train.txt"])
    trees.write_clips(tree / "__MACOSX" / "frames", SINGLE)
    assert rows_of(load(tree)) == clean


# --- Lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["no_caption", "with_caption"])
def test_either_kind_of_list_gives_the_same_rows(tree, load, kind):
    """Trap: one is UTF-8 with a space between its two fields, the other GBK with tabs between its four."""
    both = rows_of(load(tree))
    shutil.rmtree(tree / LISTS / "single" / kind)
    assert rows_of(load(tree)) == both


@pytest.mark.parametrize("encoding", ["gbk", "utf-8", "utf-8-sig"])
def test_captions_are_read_in_their_encoding(tree, load, encoding):
    """Trap: with_caption is GBK; read as anything else it fails or turns into other signs."""
    for path in (tree / CAPTIONED).rglob("*.txt"):
        path.write_bytes(path.read_bytes().decode("gbk").encode(encoding))
    train = load(tree, captions=True)["train"]
    assert train.column_names == ["clip_id", "label", "num_frames", "frames", "caption_zh", "caption_en"]
    for row in train:
        clip_id = int(row["clip_id"])
        captions = trees.caption_of(clip_id) if SINGLE[clip_id] != "neutral" else (None, None)
        assert (row["caption_zh"], row["caption_en"]) == captions
    assert "caption_zh" not in load(tree)["train"].column_names


def test_utf8_that_gbk_would_take_for_common_signs_too_is_read_as_utf8(tree, load):
    """The bytes of 人们 in UTF-8 are 浜轰滑 in GBK, three signs in common use."""
    for path in (tree / CAPTIONED).rglob("*.txt"):
        path.write_bytes(re.sub("一个[^\t]*", "人们", path.read_bytes().decode("gbk")).encode())
    assert {*load(tree, captions=True)["train"]["caption_zh"]} == {"人们", None}


@pytest.mark.parametrize("encoding", ["utf-16", "big5", "shift_jis"])
def test_captions_in_another_encoding_are_refused_and_not_garbled(tree, load, encoding):
    """Trap: GBK takes most bytes of other encodings and makes rare signs of them."""
    path = tree / CAPTIONED / "set_1" / "train.txt"
    line = "00025.mp4\tanger\t一人激怒地說話，眉頭緊皺。他們在這裡看著對方。\tA man.\r\n"
    path.write_bytes(line.replace("說", "説" if encoding == "shift_jis" else "說").encode(encoding, "ignore"))
    with pytest.raises(ValueError, match=r"with_caption/set_1/train.txt is neither GBK.* nor UTF-8"):
        load(tree, captions=True)


def test_captions_garbled_before_are_refused(tree, load):
    """UTF-8 that someone read as GBK and saved again is valid UTF-8, of nonsense."""
    path = tree / CAPTIONED / "set_1" / "train.txt"
    text = path.read_bytes().decode("gbk")
    path.write_bytes(text.encode().decode("gbk", "replace").encode())
    with pytest.raises(ValueError, match="neither GBK"):
        load(tree, captions=True)


def test_lists_with_captions_that_leave_out_the_neutral_clips_do_not_give_the_labels(tree, load):
    """Trap: neutral clips have no captions, so that a class could be gone without a word."""
    neutral = [clip_id for clip_id, label in members(SINGLE, 1)["train"].items() if label == "neutral"]
    for path in (tree / CAPTIONED).rglob("*.txt"):
        edit(path, lambda text: re.sub(r"\d+\.mp4\tneutral\r\n", "", text), "gbk")
    train = load(tree, captions=True)["train"]
    assert [row["caption_zh"] for row in train if int(row["clip_id"]) in neutral] == [None] * len(neutral)
    shutil.rmtree(tree / PLAIN)
    with pytest.raises(
        ValueError, match=r"with_caption/set_1/train.txt lists no neutral clip.*Add the lists of no_cap"
    ):
        load(tree)


def test_captions_need_the_lists_that_have_them(tree, load):
    shutil.rmtree(tree / CAPTIONED)
    assert load(tree)["train"].num_rows
    with pytest.raises(FileNotFoundError, match=r"no single/with_caption/set_1 .*captions=True needs"):
        load(tree, captions=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("video label", "is neither '00025.mp4 anger' nor"),
        ("00025.mp4,anger", "is neither '00025.mp4 anger' nor"),
        ("00025.mp4 anger 3", "is neither '00025.mp4 anger' nor"),
        ("00025.mp4\tanger\t一个男人", "is neither '00025.mp4 anger' nor"),
        ("00025.mp4 angry", "has the label 'angry', which is not made of anger, disgust"),
        ("00025.mp4 3", "has the label '3', which is not made of"),
        ("00025.mp4 anger_anger", "has the label 'anger_anger', which is not made of"),
        ("00025.mp4 anger_disgust", "has a compound label, in a list of clips with a single one"),
        ("00028.mp4 anger", "lists the clip a second time"),
    ],
)
def test_line_that_cannot_be(tree, load, line, message):
    other = trees.clip_name(28)
    path = next(path for path in (tree / PLAIN / "set_1").iterdir() if other in path.read_text())
    edit(path, lambda text: f"{text}\r\n{line}\r\n")
    with pytest.raises(ValueError, match=rf"set_1/{path.name}, line \d+: '.*' {re.escape(message)}"):
        load(tree)


def test_clip_in_train_and_test(tree, load):
    clip_id = min(members(SINGLE, 1)["train"])
    edit(tree / PLAIN / "set_1" / "test.txt", lambda text: f"{text}{clip_name(clip_id)}.mp4 {SINGLE[clip_id]}\r\n")
    with pytest.raises(ValueError, match=rf"share 1 clips \({clip_name(clip_id)}\): they must be disjoint"):
        load(tree)


def test_missing_list(tree, load):
    for path in tree.glob("*/single/*/set_3/test.txt"):
        path.unlink()
    assert load(tree, "fold_2")["test"].num_rows
    with pytest.raises(FileNotFoundError, match=r"no set_3/test.txt in a folder 'single' below .*fold_3 needs it"):
        load(tree, "fold_3")


def test_two_different_lists_of_one_name(tree, load):
    shutil.copytree(tree / PLAIN, tree / "backup" / "single" / "no_caption")
    assert load(tree)["train"].num_rows
    edit(tree / "backup" / "single" / "no_caption" / "set_1" / "test.txt", lambda text: text.replace("anger", "fear"))
    with pytest.raises(ValueError, match=r"test.txt and .*test.txt differ. Remove one"):
        load(tree)


@pytest.mark.parametrize("target", ["split/single/no_caption", "Train_Test_Set/single/no_caption_new", "single"])
def test_names_that_lists_go_by(tree, load, target):
    wanted = rows_of(load(tree))
    (tree / PLAIN).rename(tree / "moving")
    shutil.rmtree(tree / LISTS)
    (tree / target).parent.mkdir(parents=True, exist_ok=True)
    (tree / "moving").rename(tree / target)
    assert rows_of(load(tree)) == wanted


# --- Layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["data/faces", "frames/frames", "frames-20240101T010203Z-001/frames", "data/frames-2"]
)
def test_names_that_frames_go_by(tree, load, folder):
    (tree / FRAMES).rename(tree / "moving")
    (tree / folder).parent.mkdir(parents=True, exist_ok=True)
    (tree / "moving").rename(tree / folder)
    assert load(tree)["train"][0]["frames"][0] == str(tree / folder / FIRST / "8.png")


def test_two_folders_of_frames_are_refused(tree, load):
    """Trap: one's own frames of the videos often lie beside the official face frames."""
    trees.write_clips(tree / "data" / "faces", SINGLE)
    with pytest.raises(
        ValueError, match=r"Clip 00025 lies both at .*data/faces/00025 and at .*data/frames.*clip_dir="
    ):
        load(tree)
    assert load(tree, clip_dir="data/faces")["train"][0]["frames"][0].startswith(str(tree / "data" / "faces"))


def test_parts_unzipped_side_by_side(tree, load):
    wanted = load(tree)["train"]["clip_id"][:]
    for place, folder in enumerate(sorted((tree / FRAMES).iterdir())):
        part = tree / f"frames-00{place % 2}" / "frames"
        part.mkdir(parents=True, exist_ok=True)
        folder.rename(part / folder.name)
    assert load(tree)["train"]["clip_id"][:] == wanted


def test_clip_twice_in_one_folder(tree, load):
    write_frames(tree / FRAMES / "25", ["1.png"])
    with pytest.raises(ValueError, match=r"Clip 00025 lies both at .*frames/00025 and at .*frames/25: keep one"):
        load(tree)


@pytest.mark.parametrize("absolute", [False, True])
def test_renamed_folders_by_option(tree, load, absolute):
    (tree / FRAMES).rename(tree / "crops")
    (tree / LISTS).rename(tree.parent / "lists")
    split_dir = str(tree.parent / "lists") if absolute else "../lists"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tree / 'crops'} (frames='faces', clip_dir=)")):
        load(tree, split_dir=split_dir)
    with pytest.raises(FileNotFoundError, match=r"no set_1/train.txt, set_1/test.txt .*split_dir="):
        load(tree, clip_dir="crops")
    row = load(tree, clip_dir=str(tree / "crops") if absolute else "crops", split_dir=split_dir)["train"][0]
    assert row["frames"][0] == str(tree / "crops" / FIRST / "8.png")


def test_landmarks_in_folders_named_as_clips_are_not_frames(tree, load):
    """Labels(auto)/landmarks unpacks to a folder a clip, too."""
    write_frames(tree / "Labels(auto)" / "landmarks" / "00025", ["1.txt"])
    assert load(tree)["train"].num_rows == len(members(SINGLE, 1)["train"])


def test_no_data_dir_or_none_of_mafw(tmp_path, load):
    for name in ("fold_1", "compound_fold_1"):
        with pytest.raises(FileNotFoundError, match="needs data_dir="):
            load(None, name)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty" / "0.0.0").mkdir(parents=True)  # no clip, though it starts with a number
    with pytest.raises(FileNotFoundError, match=mafw.HOMEPAGE):
        load(tmp_path / "empty")


# --- Clips and lists that do not fit --------------------------------------------------------------------------------


def test_listed_clips_not_on_disk_or_without_a_frame(tree, load, caplog):
    gone, empty, *others = members(SINGLE, 1)["test"]
    shutil.rmtree(tree / FRAMES / clip_name(gone))
    for path in (tree / FRAMES / clip_name(empty)).iterdir():
        path.rename(path.with_name(f"._{path.name}"))
    message = rf"test clips .*, 1 are not on disk \({clip_name(gone)}\) and 1 have no frame \({clip_name(empty)}\)"
    with pytest.raises(FileNotFoundError, match=message):
        load(tree)
    with caplog.at_level(logging.WARNING):
        assert list(labels_of(load(tree, missing="skip")["test"])) == others
    assert "not comparable with papers" in caplog.text


def test_no_listed_clip_at_all_is_an_error_even_when_skipping(tree, load):
    shutil.rmtree(tree / FRAMES)
    trees.write_clips(tree / FRAMES, members(SINGLE, 1)["train"])
    with pytest.raises(FileNotFoundError, match=r"Of the 18 test clips .*18 are not on disk"):
        load(tree, missing="skip")


# --- Face frames or whole pictures ----------------------------------------------------------------------------------


def replace_pictures(tree: Path, size: tuple[int, int]) -> None:
    for folder in (tree / FRAMES).iterdir():
        for path in folder.iterdir():
            Image.new("L", size).save(path)


@pytest.mark.parametrize(("size", "whole"), [((16, 16), False), ((14, 18), False), ((64, 36), True)])
def test_frames_of_the_videos_are_not_taken_for_face_frames_in_silence(tree, load, caplog, size, whole):
    """Trap: one's own extraction has whole pictures, and numbers far below those of papers."""
    replace_pictures(tree, size)
    with caplog.at_level(logging.WARNING):
        load(tree)
    assert ("look like whole pictures (64x36" in caplog.text) == whole
    assert check(tree, "face frames")[0] == (not whole)


def test_videos_are_described_as_whole_pictures(tree):
    trees.write_videos(tree / CLIPS, SINGLE)
    assert "papers use the face frames" in opened(tree, frames="video").describe()["pictures"]
    assert [name for name, _, _ in opened(tree, frames="video").check()] == ["fold rule", "captions"]


def test_broken_pictures_do_not_count_as_whole_pictures(tree):
    for folder in (tree / FRAMES).iterdir():
        shutil.rmtree(folder)
        write_frames(folder, [] if folder.name < "00100" else ["1.png"])
        (folder / "1.png").write_bytes(b"no picture")
    assert check(tree, "face frames")[0]


# --- For verify -----------------------------------------------------------------------------------------------------


def test_rule_on_the_class_counts_gives_the_published_fold_sizes():
    """The sizes are those of the published lists, counted there and not by the rule."""
    sizes = {
        name: tuple(sum(counts.values()) for counts in splits.values()) for name, splits in mafw.MAFW.PUBLISHED.items()
    }
    published = ((7333, 1839), (7335, 1837), (7339, 1833), (7340, 1832), (7341, 1831))
    assert sizes == {f"fold_{fold}": size for fold, size in enumerate(published, start=1)}
    assert sum(mafw.CLASS_COUNTS.values()) == 9172


@pytest.mark.parametrize("fold", range(1, 6))
def test_fold_rule_is_checked(tree, fold):
    assert check(tree, "fold rule", f"fold_{fold}")[0]
    train, test = (tree / PLAIN / f"set_{fold}" / f"{side}.txt" for side in ("train", "test"))
    line = train.read_bytes().decode().splitlines(keepends=True)[0]
    edit(train, lambda text: text.replace(line, ""))
    edit(test, lambda text: text + line)
    passed, text = check(tree, "fold rule", f"fold_{fold}")
    assert not passed
    assert re.match(rf"\d\d of {len(SINGLE)} clips are listed where the rule of the folds has them, not \d", text)


def test_compound_totals_are_checked(tree, monkeypatch):
    assert check(tree, "compound totals", "compound_fold_3") == (
        False,
        f"{len(COMPOUND)} clips in 15 classes (published 8996 in 43)",
    )
    monkeypatch.setattr(mafw, "NUM_COMPOUND_CLIPS", len(COMPOUND))
    monkeypatch.setattr(mafw, "NUM_COMPOUND_CLASSES", 15)
    assert check(tree, "compound totals", "compound_fold_3")[0]


def test_lists_with_captions_that_contradict_the_others_are_reported(tree):
    assert check(tree, "captions")[0]
    edit(tree / CAPTIONED / "set_1" / "test.txt", lambda text: text.replace("\tfear\t", "\tanger\t", 1), "gbk")
    passed, text = check(tree, "captions")
    assert not passed
    assert re.fullmatch(r"61 of 62 clips have the side and label that no_caption gives them, not \d{5}", text)
    shutil.rmtree(tree / CAPTIONED)
    assert [name for name, _, _ in opened(tree).check()] == ["fold rule", "face frames"]


def test_clips_that_are_not_on_disk_are_listed_all_the_same(tree):
    shutil.rmtree(tree / FRAMES / "00025")
    listed = opened(tree).listed_clips()
    assert [row["clip_id"] for rows in listed.values() for row in rows if row["path"] is None] == ["00025"]


def test_description_says_what_is_read(tree):
    description = json.loads(json.dumps(opened(tree, "compound_fold_2").describe()))
    assert description == {
        "frames": "faces",
        "pictures": "face frames",
        "clips": [str(tree / FRAMES)],
        "lists": [str(tree / LISTS / "compound/no_caption/set_2" / f"{side}.txt") for side in ("train", "test")],
        "classes": list(opened(tree, "compound_fold_1").class_names()),
    }
    assert opened(tree).describe()["classes"] == trees.CLASS_NAMES


# --- As a data set --------------------------------------------------------------------------------------------------


def test_cache_notices_changes_and_nothing_else(tree, load):
    def file_of(splits: datasets.DatasetDict) -> str:
        return splits["train"].cache_files[0]["filename"]

    first = file_of(load(tree, captions=True))
    (tree / "notes.txt").write_text("not read")
    assert file_of(load(tree, captions=True, frames="faces")) == first
    clip_id, *others = members(SINGLE, 1)["test"]
    write_frames(tree / FRAMES / clip_name(clip_id), ["30.png"])
    assert load(tree)["test"]["num_frames"][0] == len(trees.frame_names(clip_id)) + 1
    load(tree, captions=True)
    edit(tree / CAPTIONED / "set_1" / "test.txt", lambda text: text.replace("A man", "A woman"), "gbk")
    assert "A woman" in str(load(tree, captions=True)["test"]["caption_en"][:])
    edit(tree / PLAIN / "set_1" / "test.txt", lambda text: "".join(text.splitlines(keepends=True)[1:]))
    assert load(tree)["test"].num_rows == len(others)
    shutil.rmtree(tree / FRAMES / clip_name(clip_id))
    with pytest.raises(FileNotFoundError, match=clip_name(clip_id)):
        load(tree)


def test_compound_cache_notices_a_change_in_another_fold(tree, load):
    """It may change the classes."""
    assert len(load(tree, "compound_fold_1")["test"].features["label"].names) == 15
    path = tree / LISTS / "compound" / "no_caption" / "set_5" / "test.txt"
    edit(path, lambda text: f"{text}20099.mp4 fear_sadness\r\n")
    assert len(load(tree, "compound_fold_1")["test"].features["label"].names) == 16
