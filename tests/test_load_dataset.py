"""dataset_scripts.load_dataset: behaves as datasets.load_dataset does, and never hands out stale rows."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from dataset_scripts import clip_files, configurations, dfew, folds, load_dataset, load_dataset_builder
from helpers import dfew_trees as trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.write_dfew(tmp_path / "DFEW")


@pytest.fixture
def load(tmp_path: Path, tree: Path) -> Callable:
    def load(**options):
        options = {"data_dir": tree, "cache_dir": tmp_path / "cache", **options}
        return load_dataset("dfew", "fold_1", **options)

    return load


def prepared_at(dataset: datasets.DatasetDict) -> tuple[str, int]:
    """The file that a dataset is read from, and when it was written."""
    path = dataset["train"].cache_files[0]["filename"]
    return path, Path(path).stat().st_mtime_ns


# --- As datasets.load_dataset ---------------------------------------------------------------------------------------


def test_option_that_the_set_has_not_is_named_with_those_that_it_has(load):
    with pytest.raises(ValueError, match=r"dfew has no option fold, only .*frames, clip_dir"):
        load(fold=1)


def test_split_and_slices(load):
    splits = load()
    assert isinstance(splits, datasets.DatasetDict)
    rows = list(splits["train"])
    assert list(load(split="train")) == rows
    assert list(load(split="train[:25%]")) == rows[:7]
    assert list(load(split="train[3:5]+test")) == rows[3:5] + list(splits["test"])
    with pytest.raises(ValueError, match="validation"):
        load(split="validation")


def test_streaming_gives_the_same_rows(load):
    stream = load(streaming=True)
    assert isinstance(stream, datasets.IterableDatasetDict)
    assert {side: list(stream[side]) for side in stream} == {side: list(rows) for side, rows in load().items()}
    assert list(load(streaming=True, split="test").take(2)) == list(load(split="test[:2]"))


def test_streaming_reads_no_more_clips_than_are_asked_for(load, monkeypatch):
    rows = load(streaming=True, split="train")
    listed = []
    list_frames = clip_files.list_frames
    monkeypatch.setattr(clip_files, "list_frames", lambda folder: listed.append(folder) or list_frames(folder))
    list(rows.take(2))
    assert 2 <= len(listed) <= 3


def test_streaming_can_be_cut_for_loader_workers(load):
    stream = load(streaming=True, split="train")
    parts = [list(stream.shard(num_shards=2, index=index)) for index in range(2)]
    assert all(len(part) > 5 for part in parts)
    assert sorted(row["clip_id"] for part in parts for row in part) == load(split="train")["clip_id"][:]


def test_num_proc_gives_the_same_rows_in_the_same_order(load, tmp_path):
    two = load(num_proc=2, cache_dir=tmp_path / "two")
    assert {side: list(two[side]) for side in two} == {side: list(rows) for side, rows in load().items()}
    assert len(two["train"].cache_files) == 2


def test_num_proc_names_the_clip_that_fails(load, tree):
    trees.write_frames(tree / "Clip" / "clip_224x224" / "00002", ["cover.jpg"])
    with pytest.raises(datasets.exceptions.DatasetGenerationError) as caught:
        load(num_proc=2)
    assert "00002/cover.jpg has no frame number" in str(caught.value.__cause__)


def test_num_proc_with_streaming_is_refused(load):
    with pytest.raises(NotImplementedError, match="num_proc"):
        load(streaming=True, num_proc=2)


def test_relative_data_dirs_give_absolute_paths_of_their_own_tree(load, tree, tmp_path, monkeypatch):
    """The same relative path from another folder is another tree, also in the cache."""
    other = trees.write_dfew(tmp_path / "elsewhere" / "DFEW")
    for home, root in ((tmp_path, tree), (tmp_path / "elsewhere", other)):
        monkeypatch.chdir(home)
        path = load(data_dir="DFEW")["train"][0]["frames"][0]
        assert path.startswith(f"{root}/")
    assert load(data_dir="../elsewhere/DFEW")["train"][0]["frames"][0] == path


def test_builder_alone_resolves_a_relative_data_dir(tree, tmp_path, monkeypatch):
    """As a loading script of datasets 3 it has no wrapper in front."""
    monkeypatch.chdir(tree.parent)
    builder = dfew.DFEW(config_name="fold_1", data_dir="DFEW/../DFEW", cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert builder.as_dataset(split="train")[0]["frames"][0].startswith(f"{tree}/Clip")


def test_other_names_go_to_datasets(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    options = {"data_files": str(tmp_path / "rows.csv"), "cache_dir": tmp_path / "cache"}
    assert list(load_dataset("csv", split="train", **options)) == [{"a": 1, "b": 2}]
    assert list(load_dataset("csv", streaming=True, split="train", **options)) == [{"a": 1, "b": 2}]


def test_names_that_are_not_of_this_folder_are_refused():
    for function in (load_dataset_builder, configurations, folds):
        with pytest.raises(KeyError, match="'csv' is not one of"):
            function("csv")


def test_configurations_and_folds_of_a_set():
    assert configurations("dfew") == [f"fold_{fold}" for fold in range(1, 6)]
    assert folds("ravdess") == [1, 2, 3, 4, 5, 6]
    assert (configurations("afew"), folds("afew")) == (["default"], [])
    assert folds("mafw") == folds("mafw", "compound") == [1, 2, 3, 4, 5], "the compound folds are another task"
    assert folds("dfew", "compound") == []


# --- The cache ------------------------------------------------------------------------------------------------------


def test_nothing_changed_is_not_prepared_again(load, tree):
    first = prepared_at(load())
    assert prepared_at(load()) == first
    assert prepared_at(load(frames="full", missing="error")) == first  # defaults spelled out are the same options
    trees.write_frames(tree, ["notes.txt"])  # nor do files matter that are not read
    (tree / "Annotation" / "annotation.xlsx").write_bytes(b"not read without votes=True")
    assert prepared_at(load()) == first


def test_edited_list_is_prepared_again(load, tree):
    assert load()["test"][0]["label"] == 0
    path = next(tree.rglob("test*/set_1.csv"))
    path.write_text(path.read_text().replace("\n1,1\n", "\n1,2\n"))
    assert load()["test"][0]["label"] == 1
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert load()["test"].num_rows == len(trees.fold_members(trees.LABELS, 1)[1]) - 1


def test_edited_annotation_is_prepared_again(load, tree):
    votes = load(votes=True)["test"][0]["votes"]
    path = tree / "Annotation" / "annotation.xlsx"
    trees.write_annotation(path, {**trees.LABELS, 1: 7})
    assert load(votes=True)["test"][0]["votes"] != votes


def test_frames_that_come_and_go_are_prepared_again(load, tree):
    """Else a load while archives were still being unpacked would keep half a clip for ever."""
    clip = tree / "Clip" / "clip_224x224" / "00001"
    before = load()["test"][0]["num_frames"]
    trees.write_frames(clip, ["00001_00200.jpg"])
    assert load()["test"][0]["num_frames"] == before + 1
    (clip / "00001_00001.jpg").unlink()
    assert load()["test"][0]["num_frames"] == before


def test_clip_that_is_gone_is_not_served_from_the_cache(load, tree):
    load()
    shutil.rmtree(tree / "Clip" / "clip_224x224" / "00001")
    with pytest.raises(FileNotFoundError, match="00001"):
        load()


def test_edited_script_is_prepared_again(load, tmp_path, monkeypatch):
    first, _ = prepared_at(load())
    script = tmp_path / "dfew.py"
    script.write_text(Path(dfew.__file__).read_text() + "# edited\n")
    monkeypatch.setattr(dfew, "__file__", str(script))
    assert prepared_at(load())[0] != first


def test_force_redownload(load, tree):
    path, time = prepared_at(load())
    trees.write_frames(tree / "Clip" / "clip_224x224" / "00001", ["00001_00200.jpg"])
    load()
    (tree / "Clip" / "clip_224x224" / "00001" / "00001_00200.jpg").unlink()
    again = load(download_mode="force_redownload")
    assert again["test"][0]["num_frames"] == len(trees.full_names(1))
    assert prepared_at(load(download_mode=datasets.DownloadMode.FORCE_REDOWNLOAD)) != (path, time)


# --- As a loading script of datasets 3 ------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_tree_behind_a_link(load, tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert load(data_dir=tmp_path / "link")["train"][0]["frames"][0].startswith(str(tmp_path / "link"))
