"""Damaged lists and workbooks, and links: errors name the file. `fuzz.py` does more at random."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

import dataset_scripts
from dataset_scripts import dfew
from dataset_scripts.verify import verify
from helpers import dfew_trees
from helpers.copies import COPIES, Copy

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


@LINKS
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_link_to_itself_beside_the_lists_and_clips_is_left_alone(copy: Copy, tmp_path):
    copy.write(tmp_path / "COPY")
    (tmp_path / "COPY" / "link").symlink_to(tmp_path / "COPY" / "link")
    config = dataset_scripts.builder_class(copy.set).BUILDER_CONFIG_CLASS
    source = config(name=copy.name or "default", data_dir=str(tmp_path / "COPY"), **copy.options).open_source()
    assert all(source.listed_clips().values())


# --- Damaged lists and workbooks ------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return dfew_trees.write_dfew(tmp_path / "DFEW")


def load_dfew(tree: Path, **options) -> None:
    dataset_scripts.load_dataset("dfew", "fold_1", data_dir=tree, cache_dir=tree.parent / "cache", **options)


def test_field_too_large_for_csv_is_named(tree):
    path = next(tree.rglob("test*/set_1.csv"))
    path.write_text('video_name,label\n"' + "9" * 200_000 + '",1\n')
    with pytest.raises(ValueError, match=r"set_1.csv is not a list of clips \(field larger than field limit"):
        load_dfew(tree)


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Rewrite the parts of a workbook; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            if content is not None:
                archive.writestr(name, content)


def parts_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_workbook_with_any_part_broken_is_named(tree):
    """openpyxl raises ParseError, KeyError, AttributeError and others over it."""
    path = tree / "Annotation" / "annotation.xlsx"
    whole = path.read_bytes()
    kinds = {
        "cut": lambda content: content[: len(content) // 2],
        "empty": lambda content: b"",
        "other": lambda content: b"<a/>",
        "gone": lambda content: None,
    }
    refused = 0
    for part in parts_of(path):
        for change in kinds.values():
            path.write_bytes(whole)
            rewrite(path, lambda name, content, p=part, c=change: c(content) if name == p else content)
            try:
                dfew.read_annotation(path)
            except ValueError as error:
                refused += 1
                assert str(path) in str(error)
    assert refused > 10


def test_workbook_whose_compressed_bytes_are_spoilt_is_named(tree):
    """zlib.error, where the table of contents is whole."""
    path = tree / "Annotation" / "annotation.xlsx"
    with zipfile.ZipFile(path) as archive:
        part = archive.getinfo("xl/worksheets/sheet1.xml")
    content = bytearray(path.read_bytes())
    start = part.header_offset + 30 + len(part.filename) + 20
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"annotation.xlsx is not a readable Excel workbook"):
        load_dfew(tree, votes=True)


def test_workbook_far_too_large_is_refused_before_it_is_read(tree):
    """A million rows take a minute, and compressed they are small."""
    path = tree / "Annotation" / "annotation.xlsx"
    rewrite(path, lambda name, content: content + b" " * (1 << 26) if name.endswith("sheet1.xml") else content)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=r"annotation.xlsx is not a .*\(64 MiB unpacked, where DFEW's has under"):
        load_dfew(tree, votes=True)


def test_votes_and_ids_that_are_not_counts_are_named(tree):
    path = tree / "Annotation" / "annotation.xlsx"
    for column, cell in ((8, "inf"), (8, "nan"), (8, "x"), (1, "inf"), (1, "nan"), (2, -1)):
        dfew_trees.write_annotation(path)
        workbook = openpyxl.load_workbook(path)
        workbook.worksheets[0].cell(2, column, cell)
        workbook.save(path)
        with pytest.raises(ValueError, match=r"annotation.xlsx, row 2: .* are not all numbers"):
            load_dfew(tree, votes=True)


def test_list_without_a_clip_is_named(tmp_path):
    """datasets answered 'Instruction "train" corresponds to no data!', which names no file."""
    root = tmp_path / "FERV39k"
    COPIES["ferv39k"].write(root)
    [path] = root.rglob("train_All.csv")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"The train split of default has no clip in .*train_All\.csv"):
        dataset_scripts.load_dataset("ferv39k", data_dir=root, cache_dir=tmp_path / "cache")


@LINKS
def test_report_of_a_tree_with_a_name_that_is_not_utf_8_can_be_written(tmp_path):
    COPIES["afew"].write(tmp_path)
    video = next(tmp_path.rglob("*.avi"))
    video.rename(video.with_name("\udcff1\udce9.avi"))
    report = verify("afew", tmp_path, progress=False)
    assert "\\udcff1\\udce9.avi is not named as AFEW's clips are" in str(report)
    assert str(report).encode()
