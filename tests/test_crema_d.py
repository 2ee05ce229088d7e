"""dataset_scripts/crema_d.py: labels and folds from names, and what must never pass for the whole set."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dataset_scripts
from dataset_scripts import crema_d
from helpers import dfew_trees
from helpers.acted_trees import flv, write_crema_d

ACTORS = (1001, 1018, 1019, 1037, 1054, 1064, 1072, 1073, 1076, 1091)
SENTENCES = ("IEO", "MTI", "TIE")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:9269ed5eb171\nsize 414429\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CREMA-D of ten actors and three sentences, which is whole by the rule."""
    monkeypatch.setattr(crema_d, "ACTORS", ACTORS)
    monkeypatch.setattr(crema_d, "SENTENCES", SENTENCES)
    return write_crema_d(tmp_path / "CREMA-D", crema_d.clip_ids())


@pytest.fixture
def load(tmp_path: Path) -> Callable:
    def load(root: Path | None, name: str | None = "fold_1", **options):
        options = {"data_dir": root, "cache_dir": tmp_path / "cache", **options}
        return dataset_scripts.load_dataset("crema_d", name, **options)

    return load


@pytest.fixture(scope="module")
def whole() -> crema_d.Source:
    """The source of a copy that lacks nothing."""
    return crema_d.Source(config(), {clip_id: f"/C/{clip_id}.flv" for clip_id in crema_d.clip_ids()})


def config(fold: int = 1, **options) -> crema_d.CremaDConfig:
    return crema_d.CremaDConfig(name=f"fold_{fold}", data_dir="/C", **options)


def video(tree: Path, clip_id: str) -> Path:
    return tree / "VideoFlash" / f"{clip_id}.flv"


# --- Rows and folds -------------------------------------------------------------------------------------------------


def test_rows_have_label_and_extras_from_the_name_and_count_the_frames(tree, load):
    splits = load(tree)
    row = next(row for row in splits["train"] if row["clip_id"] == "1064_IEO_FEA_HI")
    assert row == {
        "clip_id": "1064_IEO_FEA_HI",
        "label": splits["train"].features["label"].str2int("fear"),
        "num_frames": 3,
        "video": {"bytes": None, "path": str(video(tree, "1064_IEO_FEA_HI"))},
        "actor": 1064,
        "sentence": "IEO",
        "level": "high",
    }
    names = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    assert splits["train"].features["label"].names == list(names.values())
    for split in splits.values():
        for row in split:
            assert names[row["clip_id"][9:12]] == split.features["label"].int2str(row["label"])
            assert row["num_frames"] == 3 + row["actor"] % 4


@pytest.mark.parametrize(("fold", "actors"), enumerate([ACTORS[:2], (1019,), (1037, 1054), (1064, 1072)], start=1))
def test_no_actor_is_in_both_train_and_test(tree, load, fold, actors):
    """Trap: a random split shows the model its test faces in training."""
    splits = load(tree, f"fold_{fold}")
    assert set(splits["test"]["actor"]) == set(actors)
    assert set(splits["train"]["actor"]) == set(ACTORS) - set(actors)


@pytest.mark.parametrize("fold", range(1, 6))
def test_names_by_rule_give_the_published_counts(whole, fold):
    """The rule of the names against the counts of MAE-DFER's lists."""
    clips = replace(whole, config=config(fold)).listed_clips()
    test = [row["actor"] for row in clips["test"]]
    assert (len(clips["train"]), len(test)) == (7442 - crema_d.TEST_SIZES[fold], crema_d.TEST_SIZES[fold])
    assert len(set(test)) == (19 if fold == 5 else 18)
    assert set(test) == set(range(min(test), max(test) + 1))
    for side, rows in clips.items():
        counts = Counter(crema_d.CLASS_NAMES[row["label"]] for row in rows)
        assert counts == crema_d.PUBLISHED[f"fold_{fold}"][side]


def test_published_counts_add_up_to_the_published_totals():
    assert list(crema_d.TEST_SIZES.values()) == [1463, 1470, 1476, 1476, 1557]
    for fold in crema_d.PUBLISHED.values():
        total = Counter(fold["train"]) + Counter(fold["test"])
        assert total == {"anger": 1271, "disgust": 1271, "fear": 1271, "happy": 1271, "neutral": 1087, "sad": 1271}
    tests = Counter()
    for fold in crema_d.PUBLISHED.values():
        tests.update(fold["test"])
    assert tests == crema_d.CLASS_COUNTS


# --- What lies on disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_pointers", [1, 280])
def test_git_lfs_pointers_are_not_videos(tree, load, num_pointers):
    """Trap: a zip of the repository, or a clone without Git LFS, holds a few lines of text under a video's name."""
    videos = sorted((tree / "VideoFlash").iterdir())
    assert len(videos) == 280
    for path in videos[:num_pointers]:
        path.write_text(POINTER)
    with pytest.raises(ValueError, match=rf"{num_pointers} of the 280 videos .* Git LFS pointers.*git lfs pull"):
        load(tree, missing="skip")


def convert(tree: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in (tree / "VideoFlash").glob("*.flv"):
        (folder / f"{path.stem}.mp4").write_bytes(dfew_trees.video(5))


def test_converted_videos_beside_the_originals_are_named_by_option(tree, load):
    convert(tree, tree / "VideoMP4")
    with pytest.raises(ValueError, match=r"1001_IEO_ANG_HI lies in 2 places that differ: .*clip_dir="):
        load(tree)
    assert set(load(tree, clip_dir="VideoMP4")["train"]["num_frames"]) == {5}
    assert {Path(row["video"]["path"]).suffix for row in load(tree, clip_dir="VideoFlash")["test"]} == {".flv"}


def test_converted_videos_alone_are_read(tree, load):
    convert(tree, tree / "videos")
    shutil.rmtree(tree / "VideoFlash")
    assert set(load(tree)["train"]["num_frames"]) == {5}


def test_copies_of_one_size_are_used_once_and_others_refused(tree, load):
    """Trap: a nested copy would put every clip in twice."""
    clean = load(tree).num_rows
    nested = tree / "CREMA-D" / "CREMA-D" / "VideoFlash"
    shutil.copytree(tree / "VideoFlash", nested)
    splits = load(tree)
    assert splits.num_rows == clean
    assert Path(splits["train"][0]["video"]["path"]).parent == tree / "VideoFlash"
    assert crema_d.CremaDConfig(name="fold_1", data_dir=str(tree)).open_source().num_copies == 280
    (nested / "1091_TIE_SAD_XX.flv").write_bytes(flv(50))
    with pytest.raises(ValueError, match=r"1091_TIE_SAD_XX lies in 2 places that differ"):
        load(tree)


def test_debris_of_operating_systems_is_not_a_clip(tree, load):
    (tree / "VideoFlash" / "._1001_IEO_ANG_HI.flv").write_bytes(b"debris")
    (tree / "VideoFlash" / "desktop.ini").write_bytes(b"debris")
    shutil.copytree(tree / "VideoFlash", tree / "__MACOSX" / "VideoFlash")
    (tree / "__MACOSX" / "VideoFlash" / "1001_IEO_ANG_HI.flv").write_bytes(b"debris")
    assert load(tree).num_rows == {"train": 224, "test": 56}


def test_names_that_crema_d_lacks_are_left_out_with_a_warning(tree, load, caplog):
    for name in ("1001_XYZ_ANG_XX", "1092_IEO_ANG_HI", "1001_IEO_NEU_HI"):
        video(tree, name).write_bytes(flv(3))
    assert load(tree).num_rows == {"train": 224, "test": 56}
    assert "1001_IEO_NEU_HI, 1001_XYZ_ANG_XX, 1092_IEO_ANG_HI" in caplog.text


def test_missing_clips_are_named_or_skipped(tree, load, caplog):
    """Trap: with labels in the names alone, a half-copied folder would load without a word."""
    for sentence in ("IEO_ANG_HI", "MTI_SAD_XX"):
        video(tree, f"1001_{sentence}").unlink()
    message = r"Of the 56 test clips of fold_1, 2 are not on disk \(1001_IEO_ANG_HI, 1001_MTI_SAD_XX\).*missing='skip'"
    with pytest.raises(FileNotFoundError, match=message):
        load(tree)
    with caplog.at_level(logging.WARNING):
        assert load(tree, missing="skip").num_rows == {"train": 224, "test": 54}
    assert "not comparable with papers" in caplog.text
    for path in (tree / "VideoFlash").glob("10[01]?_*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="Of the 56 test clips of fold_1, 56 are not on disk"):
        load(tree, missing="skip")


# --- Bad clips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad_clips", "sizes"), [("keep", (224, 56)), ("skip", (222, 54))])
def test_bad_clips_are_kept_with_a_warning_or_skipped(tree, load, caplog, bad_clips, sizes):
    splits = load(tree, "fold_4", bad_clips=bad_clips)
    assert (splits["train"].num_rows, splits["test"].num_rows) == sizes
    ids = {*splits["train"]["clip_id"], *splits["test"]["clip_id"]}
    assert ids.isdisjoint(crema_d.BAD_CLIPS) == (bad_clips == "skip")
    assert crema_d.BAD_CLIPS.keys() <= ids or bad_clips == "skip"
    warned = [clip_id in caplog.text for clip_id in crema_d.BAD_CLIPS]
    assert warned == [bad_clips == "keep"] * 4


def test_error_on_a_copy_without_the_bad_clips_names_the_option(tree, load):
    for clip_id in crema_d.BAD_CLIPS:
        video(tree, clip_id).unlink()
    with pytest.raises(FileNotFoundError, match=r"1076_MTI_NEU_XX, 1076_MTI_SAD_XX.*pass bad_clips='skip'"):
        load(tree, "fold_4")
    assert load(tree, "fold_4", bad_clips="skip").num_rows == {"train": 222, "test": 54}


# --- Faces ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tree: Path) -> Path:
    """Face crops of all clips, by actor, in unpadded names."""
    for path in (tree / "VideoFlash").glob("*.flv"):
        dfew_trees.write_frames(tree / "crops" / path.stem[:4] / path.stem, [f"frame_{n}.jpg" for n in (1, 2, 10)])
    return tree


def test_faces_are_read_in_time_order_from_a_named_folder(faces, load):
    splits = load(faces, frames="faces", clip_dir="crops")
    assert splits["train"].column_names[:4] == ["clip_id", "label", "num_frames", "frames"]
    assert splits.num_rows == {"train": 224, "test": 56}
    row = splits["test"][0]
    folder = faces / "crops" / "1001" / row["clip_id"]
    assert row["frames"] == [str(folder / f"frame_{number}.jpg") for number in (1, 2, 10)]
    assert row["num_frames"] == 3


def test_faces_without_a_frame_are_named_or_skipped(faces, load):
    for path in (faces / "crops" / "1001" / "1001_IEO_ANG_HI").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 have no frame \(1001_IEO_ANG_HI\)"):
        load(faces, frames="faces", clip_dir="crops")
    assert load(faces, frames="faces", clip_dir="crops", missing="skip")["test"].num_rows == 55


def test_faces_in_two_folders_are_refused(faces, load):
    dfew_trees.write_frames(faces / "crops" / "old" / "1001_IEO_ANG_HI", ["1.jpg"])
    with pytest.raises(ValueError, match="1001_IEO_ANG_HI lies in 2 places that differ"):
        load(faces, frames="faces", clip_dir="crops")


def test_error_on_an_absent_kind_names_the_kind_on_disk(faces, load):
    with pytest.raises(ValueError, match="needs clip_dir="):
        load(faces, frames="faces")
    with pytest.raises(FileNotFoundError, match=r"No folder of frames .*Found 280 for frames='video' instead"):
        load(faces, frames="faces", clip_dir="VideoFlash")
    with pytest.raises(FileNotFoundError, match=r"No video named .*Found 280 for frames='faces' instead"):
        load(faces / "crops")
    with pytest.raises(FileNotFoundError, match=r"No video named .*github.com/CheyneyComputerScience/CREMA-D"):
        load(faces / "AudioWAV")


# --- Checks for the report ------------------------------------------------------------------------------------------


def failed(source: crema_d.Source, **options) -> list[str]:
    return [name for name, passed, _ in replace(source, config=config(**options)).check() if not passed]


def test_checks_pass_on_a_whole_copy_and_fail_on_others(whole):
    def without(*clip_ids: str) -> crema_d.Source:
        clips = {clip_id: path for clip_id, path in whole.clips.items() if clip_id not in clip_ids}
        return replace(whole, clips=clips)

    assert failed(whole) == []
    assert failed(without("1001_DFA_ANG_XX")) == ["class totals", "fold sizes"]
    assert failed(without("1064_IEO_DIS_MD")) == ["class totals", "fold sizes", "bad clips"]
    assert failed(without("1064_IEO_DIS_MD"), bad_clips="skip") == [], "who skips bad clips need not have them"
    assert failed(without("1064_IEO_DIS_LO"), bad_clips="skip") == ["class totals", "fold sizes"]
    assert failed(replace(whole, strangers=("1001_XYZ_ANG_XX",))) == ["names"]


@pytest.mark.parametrize("fold", range(1, 6))
def test_counts_to_expect_leave_out_bad_clips_that_are_skipped(whole, fold):
    for bad_clips, num_clips in (("keep", 7442), ("skip", 7438)):
        source = replace(whole, config=config(fold, bad_clips=bad_clips))
        expected = source.describe()["published"]
        listed = source.listed_clips()
        assert sum(sum(counts.values()) for counts in expected.values()) == num_clips
        for side, rows in listed.items():
            assert Counter(crema_d.CLASS_NAMES[row["label"]] for row in rows) == expected[side]


def test_description_is_json_and_names_folders_and_bad_clips(whole):
    described = json.loads(json.dumps(whole.describe()))
    assert described["clips"] == ["/C"]
    assert described["containers"] == {".flv": 7442}
    assert described["bad clips"].startswith("keep: 1064_IEO_DIS_MD")


# --- As datasets.load_dataset ---------------------------------------------------------------------------------------
