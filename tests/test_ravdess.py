"""dataset_scripts/ravdess.py: labels and folds from names, and one recording never read twice."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

import dataset_scripts
from dataset_scripts import ravdess
from helpers import dfew_trees
from helpers.acted_trees import write_ravdess
from modeling_stt.training.protocol import split_validation

ACTORS = (1, 2, 4, 5, 12, 18, 24)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A RAVDESS of seven actors who say one thing once, which is whole by the rule: silent speech only."""
    monkeypatch.setattr(ravdess, "ACTORS", ACTORS)
    monkeypatch.setattr(ravdess, "REPETITIONS", (2,))
    return write_ravdess(tmp_path / "RAVDESS", ravdess.clip_names("video", "speech"))


@pytest.fixture
def load(tmp_path: Path) -> Callable:
    def load(root: Path | None, name: str | None = "fold_1", **options):
        options = {"data_dir": root, "cache_dir": tmp_path / "cache", **options}
        return dataset_scripts.load_dataset("ravdess", name, **options)

    return load


def source_of(names: list[str], *strangers: str, fold: int = 1, **options) -> ravdess.Source:
    """The source of a copy that holds these clips."""
    clips = {name: f"/R/Actor_{name[-2:]}/{name}.mp4" for name in names}
    config = ravdess.RavdessConfig(name=f"fold_{fold}", data_dir="/R", **options)
    return ravdess.Source(config, clips, strangers)


def sizes(splits: datasets.DatasetDict) -> tuple[int, int]:
    return splits["train"].num_rows, splits["test"].num_rows


# --- Rows and folds -------------------------------------------------------------------------------------------------


def test_rows_have_label_and_extras_from_the_name_and_count_the_frames(tree, load):
    splits = load(tree)
    assert splits["train"].features["label"].names == (
        ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
    )
    row = next(row for row in splits["train"] if row["clip_id"].endswith("02-01-06-01-02-02-12"))
    assert row == {
        "clip_id": "Actor_12/02-01-06-01-02-02-12",
        "label": splits["train"].features["label"].str2int("fearful"),
        "num_frames": 5,
        "video": {"bytes": None, "path": str(tree / "Actor_12" / "02-01-06-01-02-02-12.mp4")},
        "actor": 12,
        "intensity": "normal",
        "statement": "dogs",
        "repetition": 2,
    }
    for row in splits["test"]:
        code = row["clip_id"].rpartition("/")[2].split("-")
        assert row["label"] == int(code[2]) - 1
        assert row["num_frames"] == 3 + int(code[2]) % 4
        assert (row["intensity"], row["statement"]) == (
            {"01": "normal", "02": "strong"}[code[3]],
            {"01": "kids", "02": "dogs"}[code[4]],
        )


@pytest.mark.parametrize(("fold", "actors"), [(1, {1, 2, 4}), (2, {5}), (3, {12}), (5, {18}), (6, {24})])
def test_no_actor_is_in_both_train_and_test(tree, load, fold, actors):
    """Trap: a random split shows the model its test faces in training."""
    splits = load(tree, f"fold_{fold}")
    assert set(splits["test"]["actor"]) == actors
    assert set(splits["train"]["actor"]) == set(ACTORS) - actors


@pytest.mark.parametrize("modality", ["video", "audio_video"])
@pytest.mark.parametrize("fold", range(1, 7))
def test_names_by_rule_give_the_published_counts(fold, modality):
    """Against the counts of MAE-DFER's lists: 1,440 clips, 96 neutral and 192 of each other, 1,200 and 240."""
    clips = source_of([], fold=fold, modality=modality).listed_clips()
    assert {side: len(rows) for side, rows in clips.items()} == {"train": 1200, "test": 240}
    assert sorted({row["actor"] for row in clips["test"]}) == list(range(4 * fold - 3, 4 * fold + 1))
    for side, rows in clips.items():
        counts = Counter(ravdess.CLASS_NAMES[row["label"]] for row in rows)
        assert counts == ravdess.PUBLISHED[f"fold_{fold}"][side]
    total = Counter(row["label"] for rows in clips.values() for row in rows)
    assert [total[label] for label in range(8)] == [96] + [192] * 7


def test_song_has_six_classes_and_no_actor_18():
    names = ravdess.clip_names("video", "song")
    assert len(names) == len(set(names)) == 1012
    assert {name[6:8] for name in names} == {f"{code:02d}" for code in range(1, 7)}
    assert not any(name.endswith("-18") for name in names)


def test_validation_cut_by_id_holds_out_whole_actors():
    """Trap: names sort by emotion and statement first, so a block of names has every face of the training set."""
    train = source_of([]).listed_clips()["train"]
    kept, cut = split_validation([row["clip_id"] for row in train], [row["label"] for row in train], 0.1)
    assert {train[i]["actor"] for i in cut} == {23, 24}
    assert {train[i]["actor"] for i in kept} == set(range(5, 23))


# --- Modality and channel -------------------------------------------------------------------------------------------


def test_recording_in_both_modalities_is_read_once(tree, load):
    """Trap: 01-… and 02-… are one recording with and without sound, and would meet across any split of files."""
    clean = load(tree)
    write_ravdess(tree, ravdess.clip_names("audio_video", "speech"))
    write_ravdess(tree, ravdess.clip_names("video", "song"))
    both = load(tree)
    assert {side: list(split) for side, split in both.items()} == {side: list(split) for side, split in clean.items()}
    sound = load(tree, modality="audio_video")
    assert {row["clip_id"][9:14] for split in sound.values() for row in split} == {"01-01"}
    assert sizes(sound) == sizes(both)
    song = load(tree, channel="song")
    assert {row["clip_id"][9:14] for row in song["train"]} == {"02-02"}


def test_tree_of_the_other_modality_names_the_option(tmp_path, load, monkeypatch):
    monkeypatch.setattr(ravdess, "ACTORS", (1, 5))
    root = write_ravdess(tmp_path / "R", ravdess.clip_names("audio_video", "speech"))
    write_ravdess(root, ravdess.clip_names("audio_video", "song")[:3])
    message = (
        r"No clips named 02-01-.*Found 120 named 01-01-… \(modality='audio_video', channel='speech'\) and 3 named"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load(root)
    assert sizes(load(root, modality="audio_video")) == (60, 60)


# --- What lies on disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", ["Video_Speech_Actor_{}", "ravdess/Video_Speech_Actor_{}/Video_Speech_Actor_{0}"])
def test_folders_of_the_archives_are_searched(tree, load, tmp_path, archive):
    archive = archive.replace("{}", "{0}")
    wrapped = write_ravdess(tmp_path / "wrapped", ravdess.clip_names("video", "speech"), archive)
    assert sizes(load(wrapped)) == sizes(load(tree))


def test_flat_folder(tree, load, tmp_path):
    (tmp_path / "flat").mkdir()
    for path in tree.rglob("*.mp4"):
        shutil.copy(path, tmp_path / "flat")
    assert sizes(load(tmp_path / "flat")) == sizes(load(tree))


def test_copies_of_one_size_are_used_once_and_others_refused(tree, load):
    """Trap: some copies hold every actor twice, Actor_01/ and audio_speech_actors_01-24/Actor_01/."""
    clean = sizes(load(tree))
    nested = tree / "speech_actors_01-24"
    shutil.copytree(tree, nested)
    splits = load(tree)
    assert sizes(splits) == clean
    assert splits["test"][0]["video"]["path"].startswith(str(tree / "Actor_01"))
    assert ravdess.RavdessConfig(name="fold_1", data_dir=str(tree)).open_source().num_copies == sum(clean)
    (nested / "Actor_24" / "02-01-08-02-02-02-24.mp4").write_bytes(dfew_trees.video(50))
    with pytest.raises(ValueError, match=r"02-01-08-02-02-02-24 lies in 2 places that differ: .*Actor_24.*clip_dir="):
        load(tree)
    assert sizes(load(tree, clip_dir="speech_actors_01-24")) == clean


def test_debris_of_operating_systems_is_not_a_clip(tree, load):
    clean = sizes(load(tree))
    shutil.copytree(tree / "Actor_01", tree / "__MACOSX" / "Actor_01")
    for path in (tree / "__MACOSX" / "Actor_01").iterdir():
        path.write_bytes(b"debris")
    (tree / "Actor_01" / "._02-01-01-01-01-02-01.mp4").write_bytes(b"debris")
    assert sizes(load(tree)) == clean


def test_names_that_ravdess_lacks_are_left_out_with_a_warning(tree, load, caplog):
    """RAVDESS has neither strong neutral, actor 25, emotion 09 nor sung surprise."""
    strangers = ("02-01-01-02-01-02-01", "02-01-03-01-01-02-25", "02-01-09-01-01-02-01", "02-02-08-01-01-02-01")
    write_ravdess(tree, list(strangers))
    assert sizes(load(tree)) == (120, 90)
    assert ", ".join(sorted(strangers)) in caplog.text


def test_missing_clips_are_named_or_skipped(tree, load, caplog):
    """Trap: with labels in the names alone, a few archives not unpacked would go unnoticed."""
    num_train, num_test = sizes(load(tree))
    shutil.rmtree(tree / "Actor_01")
    with pytest.raises(FileNotFoundError, match=r"test clips of fold_1, 30 are not on disk \(Actor_01/.*and 25 more"):
        load(tree)
    with caplog.at_level(logging.WARNING):
        assert sizes(load(tree, missing="skip")) == (num_train, num_test - 30)
    assert "not comparable with papers" in caplog.text
    for actor in ("02", "04"):
        shutil.rmtree(tree / f"Actor_{actor}")
    with pytest.raises(FileNotFoundError, match="Of the 90 test clips of fold_1, 90 are not on disk"):
        load(tree, missing="skip")


# --- Faces ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tree: Path) -> Path:
    """Face crops of all clips in one folder, in unpadded names."""
    for path in tree.rglob("*.mp4"):
        dfew_trees.write_frames(tree / "crops" / path.stem, [f"frame_{number}.jpg" for number in (1, 2, 10)])
    return tree


def test_faces_are_read_in_time_order_from_a_named_folder(faces, load):
    splits = load(faces, frames="faces", clip_dir="crops")
    assert splits["train"].column_names[:4] == ["clip_id", "label", "num_frames", "frames"]
    assert sizes(splits) == sizes(load(faces))
    row = splits["test"][0]
    folder = faces / "crops" / row["clip_id"].rpartition("/")[2]
    assert row["frames"] == [str(folder / f"frame_{number}.jpg") for number in (1, 2, 10)]
    assert row["num_frames"] == 3


def test_faces_without_a_frame_are_named_or_skipped(faces, load):
    for path in (faces / "crops" / "02-01-01-01-01-02-01").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 have no frame \(Actor_01/02-01-01-01-01-02-01\)"):
        load(faces, frames="faces", clip_dir="crops")
    assert load(faces, frames="faces", clip_dir="crops", missing="skip")["test"].num_rows == 89


def test_error_on_an_absent_kind_names_the_kind_on_disk(faces, load):
    with pytest.raises(ValueError, match="needs clip_dir="):
        load(faces, frames="faces")
    with pytest.raises(FileNotFoundError, match=r"Found 30 for frames='video' instead: pass that, with clip_dir="):
        load(faces, frames="faces", clip_dir="Actor_01")
    with pytest.raises(FileNotFoundError, match=r"Found 210 for frames='faces' instead: pass that, with clip_dir="):
        load(faces / "crops")
    with pytest.raises(FileNotFoundError, match=r"Found 210 named 02-01-… \(modality='video', channel='speech'\)"):
        load(faces, frames="faces", clip_dir="crops", modality="audio_video")


# --- Trees and options that cannot be right -------------------------------------------------------------------------


def test_empty_tree(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"No clips named 02-01-.*unzip Video_Speech_Actor_01.zip"):
        load(tmp_path)


# --- Checks for the report ------------------------------------------------------------------------------------------


def failed(source: ravdess.Source) -> list[str]:
    return [name for name, passed, _ in source.check() if not passed]


def test_checks_pass_on_a_whole_copy_and_fail_on_others():
    names = ravdess.clip_names("video", "speech")
    assert failed(source_of(names)) == []
    assert failed(source_of(ravdess.clip_names("video", "song"), channel="song")) == []
    assert failed(source_of(names[1:])) == ["clips of each actor"]
    assert failed(source_of(names, "02-01-09-01-01-02-01")) == ["names"]
    swapped = source_of(names)
    swapped.clips[names[0]] = f"/R/Actor_02/{names[0]}.mp4"
    assert failed(swapped) == ["actors' folders"]


def test_description_is_json_and_names_folders_and_options():
    source = source_of(ravdess.clip_names("video", "speech"))
    described = json.loads(json.dumps(source.describe()))
    assert described["clips"] == [f"/R/Actor_{actor:02d}" for actor in range(1, 25)]
    assert (described["modality"], described["channel"]) == ("video", "speech")


# --- As datasets.load_dataset ---------------------------------------------------------------------------------------
