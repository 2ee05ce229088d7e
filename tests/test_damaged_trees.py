"""Copies with damaged, odd or hostile files: each builder either reads them or names the file in a ValueError or
FileNotFoundError, and verify always gives a report.

By hand, a long run: ``STT_DAMAGED_TREES=1000 pytest tests/test_damaged_trees.py``.
"""

import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pytest

import dataset_scripts
from dataset_scripts import dfew
from dataset_scripts.verify import verify
from helpers import dfew_trees
from helpers.copies import COPIES, Copy

NUM_TREES = int(os.environ.get("STT_DAMAGED_TREES", "3"))  # a copy
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


# --- Damage at random -----------------------------------------------------------------------------------------------


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 4, 32)) if content else 0):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def zeros(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(rng.choice((1, 100, 10_000))))


def huge_field(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b'\n"' + b"9" * 200_000)


def utf_16(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def become_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def become_broken_link(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone")


def become_link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path)


def odd_name(path: Path, rng: random.Random) -> None:
    os.rename(path, os.fsencode(path.parent) + b"/\xff1\xe9" + os.fsencode(path.suffix))


def loop(path: Path, rng: random.Random) -> None:
    (path.parent / "loop").symlink_to(path.parent.parent, target_is_directory=True)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    *(cut, flip, zeros, huge_field, utf_16, become_folder, become_broken_link, become_link_to_itself, odd_name, loop),
]


def victims(root: Path, rng: random.Random) -> Iterator[Path]:
    """A list or table where there is one and, more often, a clip's file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lists = [path for path in files if path.suffix in (".csv", ".txt", ".xlsx", ".xml")]
    while True:
        yield rng.choice(lists if lists and rng.random() < 0.6 else files)


@LINKS
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_damaged_trees_are_read_or_refused_by_name(copy: Copy, tmp_path):
    copy.write(tmp_path / "whole")
    rng = random.Random(copy.set)
    for number in range(NUM_TREES):
        root = tmp_path / f"tree_{number}"
        shutil.copytree(tmp_path / "whole", root)
        damage = DAMAGES[(number + rng.randrange(2)) % len(DAMAGES)]
        path = next(victims(root, rng))
        damage(path, rng)
        what = f"{damage.__name__} of {path.relative_to(root)}"
        try:
            options = {"cache_dir": tmp_path / "cache", **copy.options}
            dataset_scripts.load_dataset(copy.set, copy.name, data_dir=root, **options)
        except (ValueError, FileNotFoundError) as error:
            assert str(root) in str(error), f"{what}: {error!r} names no file"
        report = verify(copy.set, root, configurations=[copy.name or "default"], progress=False, **copy.options)
        assert str(report).encode(), what
        shutil.rmtree(root)


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
