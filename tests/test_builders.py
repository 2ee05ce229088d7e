"""Tests that hold for every builder of dataset_scripts: the contract that load_dataset and verify rely on."""

import ast
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import datasets
import pytest

import dataset_scripts
from dataset_scripts import BUILDERS, clip_files, verify
from dataset_scripts.clip_files import ClipBuilder, ClipConfig, ClipSource
from helpers import dfew_trees
from helpers.classic import NEEDS_DATASETS3, load_classic
from helpers.copies import COPIES, Copy
from helpers.dfew_trees import video, write_frames

COLUMNS = {"clip_id": "string", "num_frames": "int32"}
HERE = Path(str(dataset_scripts.__file__)).parent


EVERY_COPY = pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
ONE_COPY_EACH = pytest.mark.parametrize("copy", [COPIES[name] for name in BUILDERS], ids=BUILDERS.keys())
EVERY_SET = pytest.mark.parametrize("name", sorted(BUILDERS))


@pytest.fixture
def root(tmp_path: Path, copy: Copy) -> Path:
    copy.write(tmp_path / "COPY")
    return tmp_path / "COPY"


@pytest.fixture
def load(tmp_path: Path, copy: Copy) -> Callable:
    def load(root: Path | None, **options):
        options = {"data_dir": root, "cache_dir": tmp_path / "cache", **copy.options, **options}
        return dataset_scripts.load_dataset(copy.set, copy.name, **options)

    return load


def module_of(name: str) -> ModuleType:
    return import_module(f"dataset_scripts.{name}")


def builder_of(name: str) -> type[ClipBuilder]:
    return dataset_scripts.builder_class(name)


def rows_of(splits: datasets.DatasetDict) -> dict[str, list[dict]]:
    return {split: list(rows) for split, rows in splits.items()}


def source_of(root: Path, copy: Copy) -> ClipSource:
    name = copy.name or "default"
    return builder_of(copy.set).BUILDER_CONFIG_CLASS(name=name, data_dir=str(root), **copy.options).open_source()


def a_clip(root: Path, copy: Copy) -> Path:
    """The first clip of the first split that is on disk."""
    rows = next(iter(source_of(root, copy).listed_clips().values()))
    return Path(next(row["path"] for row in rows if row["path"] is not None))


# --- The house ------------------------------------------------------------------------------------------------------


def definitions(path: Path) -> dict[str, str]:
    """Source → name of all functions and classes of a file that are more than one line long."""
    text = path.read_text()
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    sources = {ast.get_source_segment(text, node): node.name for node in nodes}
    return {str(source): name for source, name in sources.items()}


def test_no_definition_stands_in_two_files():
    """A fix in one copy only would read one set's frames in another order than the next one's."""
    seen: dict[str, str] = {}
    for path in sorted(HERE.rglob("*.py")):
        for source, name in definitions(path).items():
            assert source not in seen, f"{name} stands in {seen[source]} and in {path}"
            seen[source] = path.name


@pytest.mark.parametrize("name", [*sorted(BUILDERS), "clip_files"])
def test_builder_imports_clip_files_alone_as_datasets_3_copies_it(name):
    """datasets 3 finds imports by lines that begin with them, and does not search what it copies for further ones."""
    text = Path(str(module_of(name).__file__)).read_text()
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert (node.level, node.module, node.col_offset) == (1, "clip_files", 0)
            assert name != "clip_files"
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    libraries = {"datasets", "openpyxl", "av", "PIL"}
    assert {each.partition(".")[0] for each in found} <= {*sys.stdlib_module_names, *libraries}


@EVERY_SET
def test_builder_fulfils_the_contract(name):
    builder = builder_of(name)
    config = builder.BUILDER_CONFIG_CLASS
    assert issubclass(builder, ClipBuilder)
    assert issubclass(config, ClipConfig)
    assert [each.name for each in builder.BUILDER_CONFIGS] == list(config.NAMES)
    options = verify.own_options(config)
    assert config.VALUES.keys() <= options.keys()
    for option in options:
        assert f"{option}:" in str(config.__doc__), f"{option} is explained nowhere"


@EVERY_SET
def test_published_counts_are_of_the_classes_and_configurations(name):
    builder = builder_of(name)
    assert len(set(builder.CLASS_NAMES)) == len(builder.CLASS_NAMES)
    assert all(each == each.lower() for each in builder.CLASS_NAMES)
    assert builder.PUBLISHED.keys() <= {*builder.BUILDER_CONFIG_CLASS.NAMES}
    for splits in builder.PUBLISHED.values():
        assert tuple(splits) in [("train", "test"), ("train", "validation")]
        for counts in splits.values():
            assert tuple(counts) == builder.CLASS_NAMES
            assert all(isinstance(count, int) and count > 0 for count in counts.values())


# --- Rows -----------------------------------------------------------------------------------------------------------


@EVERY_COPY
def test_columns_are_those_of_every_set(root, load, copy):
    splits = load(root)
    features = next(iter(splits.values())).features
    assert {column: features[column].dtype for column in COLUMNS} == COLUMNS
    assert isinstance(features["label"], datasets.ClassLabel)
    assert ("frames" in features) != ("video" in features)
    assert features.get("video", datasets.Video(decode=False)) == datasets.Video(decode=False)
    assert features.get("frames", datasets.Sequence(datasets.Value("string"))).feature.dtype == "string"
    for rows in splits.values():
        for row in rows:
            paths = row["frames"] if "frames" in row else [row["video"]["path"]]
            assert all(os.path.isabs(path) and os.path.isfile(path) for path in paths)
            assert row["num_frames"] == len(paths) or "video" in row


@ONE_COPY_EACH
def test_slices_streaming_and_num_proc_give_the_same_rows(root, load, tmp_path):
    rows = rows_of(load(root))
    first, second = rows
    stream = load(root, streaming=True)
    assert rows_of(stream) == rows_of(stream) == rows
    assert rows_of(load(root, num_proc=2, cache_dir=tmp_path / "two")) == rows
    assert list(load(root, split=f"{first}[1:3]+{second}[:1]")) == rows[first][1:3] + rows[second][:1]


@ONE_COPY_EACH
def test_cache_notices_clips_that_change_and_nothing_else(root, load, copy):
    def prepared_at() -> tuple[str, int]:
        path = next(iter(load(root).values())).cache_files[0]["filename"]
        return path, Path(path).stat().st_mtime_ns

    first = prepared_at()
    (root / "notes.txt").write_text("not read")
    assert prepared_at() == first
    clip = a_clip(root, copy)
    if clip.is_dir():
        (clip / next(clip.iterdir()).name).unlink()
    else:
        clip.write_bytes(video(9))
        os.utime(clip, ns=(1, 1))
    assert prepared_at()[0] != first[0]


@NEEDS_DATASETS3
@EVERY_COPY
def test_classic_loading_script_gives_the_same_rows(root, load, copy, tmp_path):
    """The same files on datasets 3: from a relative data_dir, prepared in one process, in two, and streamed."""
    here = load(root)
    there = load_classic(module_of(copy.set), "COPY", tmp_path, copy.name, **copy.options)
    assert there == (rows_of(here), next(iter(here.values())).features["label"].names)


def test_cache_notices_a_change_in_the_shared_module(tmp_path, monkeypatch):
    """Rows prepared by an older clip_files must not be handed out."""
    changed = tmp_path / "clip_files.py"
    changed.write_text(Path(str(clip_files.__file__)).read_text() + "# changed\n")
    dfew_trees.write_dfew(tmp_path / "DFEW")
    caches = set()
    for path in (clip_files.__file__, str(changed)):
        monkeypatch.setattr(clip_files, "__file__", path)
        builder = dataset_scripts.load_dataset_builder(
            "dfew", "fold_1", data_dir=tmp_path / "DFEW", cache_dir=tmp_path / "cache"
        )
        caches.add(builder.cache_dir)
    assert len(caches) == 2


@EVERY_COPY
def test_description_and_checks_are_values_of_json(root, copy):
    source = source_of(root, copy)
    json.dumps([source.describe(), source.check()])
    assert {"frames", "clips", "lists"} <= source.describe().keys()
    assert source.describe()["clips"]


# --- Copies and options that cannot be right ------------------------------------------------------------------------


@ONE_COPY_EACH
def test_no_data_dir_says_how_to_get_the_set(load, copy, tmp_path):
    access = builder_of(copy.set).BUILDER_CONFIG_CLASS.ABOUT.access
    for data_dir, start in ((None, "needs data_dir="), (tmp_path / "nowhere", "There is no folder")):
        with pytest.raises(FileNotFoundError) as error:
            load(data_dir)
        assert start in str(error.value)
        assert access in str(error.value)


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"clip_folder"}))
def test_tree_far_too_large_is_not_searched(name, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_files, "MAX_FOLDERS", 5)
    for number in range(10):
        (tmp_path / f"folder_{number}").mkdir()
    config = builder_of(name).BUILDER_CONFIG_CLASS
    with pytest.raises(ValueError, match=rf"over 5 folders, so it is not {config.ABOUT.name}'s own"):
        config(name=config.NAMES[0], data_dir=str(tmp_path)).open_source()


@ONE_COPY_EACH
def test_options_outside_their_values(copy, load, root):
    for option in builder_of(copy.set).BUILDER_CONFIG_CLASS.VALUES:
        with pytest.raises(ValueError, match=rf"{option}='nonsense' is not one of"):
            load(root, **{option: "nonsense"})
    with pytest.raises(ValueError, match=rf"{copy.set} has no option frame, only"):
        load(root, frame="16f")


@EVERY_SET
def test_configuration_not_named_or_not_there(name, tmp_path):
    config = builder_of(name).BUILDER_CONFIG_CLASS
    with pytest.raises(ValueError, match=rf"{config.ABOUT.name}: name one of .*, not 'fold_9'"):
        config(name="fold_9").check()
    with pytest.raises(ValueError, match="'fold_9' not found"):
        dataset_scripts.load_dataset(name, "fold_9", data_dir=tmp_path)
    if "default" not in config.NAMES:
        with pytest.raises(ValueError, match="name one of fold_1 …"):
            dataset_scripts.load_dataset(name, data_dir=tmp_path)


@EVERY_COPY
def test_clip_that_cannot_be_read_is_named(root, load, copy):
    """Met while rows are written, where datasets alone would say "An error occurred"."""
    clip = a_clip(root, copy)
    if clip.is_dir():
        write_frames(clip, ["cover.jpg"])
        with pytest.raises(ValueError, match=rf"{clip}/cover.jpg has no frame number"):
            load(root)
        (clip / "cover.jpg").rename(clip / next(clip.glob("*[0-9].*")).with_suffix(".jpeg").name)
        with pytest.raises(ValueError, match=rf"{clip} has two frames with the same number"):
            load(root)
    for content in (b"", b"this is text", video(5)[:100]) if clip.is_file() else ():
        clip.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{clip} is (not a readable video|a video without a single frame)"):
            load(root)
