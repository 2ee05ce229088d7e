"""DFEW (Jiang et al., ACM MM 2020), read from the user's own copy: 11,697 clips of 7 expressions, 5 folds.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("dfew", "fold_1", data_dir="DFEW")                                # datasets 4, 5
    datasets.load_dataset("dataset_scripts/dfew.py", "fold_1", data_dir="DFEW", trust_remote_code=True)  # datasets 3

One self-contained file, because datasets 3 copies a loading script out of its folder. No label, list or picture
of DFEW is in here: only counts and the rule of the folds, both of which can be recomputed from any copy.

Columns: ``clip_id`` (five digits), ``label``, ``num_frames`` (counted on disk), and ``frames`` (absolute paths in
time order) or, with ``frames="original"``, ``video``; with ``votes=True`` also ``votes``, the annotators' shares.
"""

import csv
import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import openpyxl

logger = logging.getLogger(__name__)

CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
NUM_FOLDS = 5
SIDES = ("train", "test")
FRAME_KINDS = ("full", "16f", "original")
NUM_16F = 16

# Published counts (README of DFEW; the lists of five public repositories agree).
NUM_BENCHMARK_CLIPS = 11_697
CLASS_COUNTS = dict(zip(CLASS_NAMES, (2445, 1894, 2669, 2173, 1469, 145, 902), strict=True))
FOLD_SIZES = {1: (9356, 2341), 2: (9356, 2341), 3: (9357, 2340), 4: (9358, 2339), 5: (9361, 2336)}  # train, test
NUM_SHORT_CLIPS = 14  # clips with fewer than 16 frames in clip_224x224


def block_sizes(num_clips: int) -> list[int]:
    """Sizes of the five contiguous blocks that the rule of the folds cuts a class in: the larger ones first."""
    quotient, rest = divmod(num_clips, NUM_FOLDS)
    return [quotient + (fold < rest) for fold in range(NUM_FOLDS)]


# Configuration → split → class → number of clips. The rule gives the counts of all ten published lists.
PUBLISHED: dict[str, dict[str, dict[str, int]]] = {
    f"fold_{fold + 1}": {
        "train": {name: count - block_sizes(count)[fold] for name, count in CLASS_COUNTS.items()},
        "test": {name: block_sizes(count)[fold] for name, count in CLASS_COUNTS.items()},
    }
    for fold in range(NUM_FOLDS)
}

HOMEPAGE = "https://dfew-dataset.github.io"
ACCESS = (
    f"DFEW is given out by its authors on request: send the form of {HOMEPAGE} by e-mail, unzip what you get and pass "
    "the folder with Clip/, EmoLabel_DataSplit/ and Annotation/ in it as data_dir."
)
CITATION = """\
@inproceedings{jiang2020dfew,
  title={{DFEW}: A Large-Scale Database for Recognizing Dynamic Facial Expressions in the Wild},
  author={Jiang, Xingxun and Zong, Yuan and Zheng, Wenming and Tang, Chuangao and Xia, Wanchuang and Lu, Cheng
          and Liu, Jiateng},
  booktitle={Proceedings of the 28th ACM International Conference on Multimedia},
  pages={2881--2889},
  year={2020}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
SIDECAR_SUFFIXES = (".csv", ".xlsx", ".zip")
MAX_DEPTH = 6  # Drive's wrapping + DFEW/Clip/clip_224x224/clip_224x224_part_1 is five levels
MAX_FOLDERS = 2000  # a DFEW tree has fewer than 100 folders that are not clips
NUM_SHOWN = 5  # how many offenders an error names

# Google Drive appends "-20240101T…" or "-001" to what it wraps.
KIND_PATTERNS = {
    "16f": re.compile(r"clip_224x224_16f(-\d.*)?", re.IGNORECASE),
    "full": re.compile(r"clip_224x224(_part_\d+)?(-\d.*)?", re.IGNORECASE),
    "original": re.compile(r"(original|data_part_\d[\d-]*)(-\d.*)?", re.IGNORECASE),
}
SPLIT_FILE = re.compile(r"(?:single_)?(train|test)?_?set_?([1-5])\.csv", re.IGNORECASE)
SPLIT_FOLDER = re.compile(r"(train|test)(?![a-z]).*", re.IGNORECASE)
CLIP_ID = re.compile(r"[0-9]{1,5}")
NUMBERS = re.compile(r"[0-9]+")


# --- What lies on disk ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFolder:
    """A folder that directly holds clips.

    Attributes:
        path: the folder.
        kind: ``full``, ``16f`` or ``original``, told from the names on the way to it; None where they tell nothing.
        is_video: whether its clips are video files; else they are folders of frames.
        clips: clip id → name of its file or folder.
    """

    path: Path
    kind: str | None
    is_video: bool
    clips: dict[int, str]


@dataclass(frozen=True)
class Tree:
    """What one look over a DFEW folder finds: where clips lie, and the CSV, XLSX and ZIP files."""

    root: Path
    clip_folders: list[ClipFolder] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """The clips of one kind.

    Attributes:
        frames: ``full``, ``16f`` or ``original``.
        folders: where they lie; several when the parts of DFEW's archives were not merged.
        clips: clip id → absolute path of its folder of frames or of its video.
    """

    frames: str
    folders: tuple[ClipFolder, ...]
    clips: dict[int, str]


def clip_name(clip_id: int) -> str:
    """The five-digit name of a clip: 1 → ``00001``."""
    return f"{clip_id:05d}"


def shown(items: Iterable[Any]) -> str:
    """The first few of ``items`` for an error message, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - NUM_SHOWN} more" if len(texts) > NUM_SHOWN else ""
    return ", ".join(texts[:NUM_SHOWN]) + more


def shown_clips(clip_ids: Iterable[int]) -> str:
    """As ``shown``, for clip ids."""
    return shown(clip_name(clip_id) for clip_id in sorted(clip_ids))


def is_debris(name: str) -> bool:
    """Whether ``name`` is what macOS leaves behind (``._00001.jpg``, ``.DS_Store``, ``__MACOSX``) or hidden."""
    return name.startswith((".", "__MACOSX"))


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in ``folder``, sorted, debris left out."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_debris(entry.name):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def kind_of(path: Path, root: Path, is_video: bool) -> str | None:
    """Kind of the clips in ``path`` by the last folder name below (and with) ``root`` that DFEW itself uses."""
    kinds = ("original",) if is_video else ("16f", "full")
    for part in reversed(path.relative_to(root.parent).parts):
        for kind in kinds:
            if KIND_PATTERNS[kind].fullmatch(part):
                return kind
    return None


def _clips_by_id(folder: Path, names: Iterable[str]) -> dict[int, str]:
    """Clip id → name, for those of ``names`` that are a clip's: ``00001``, ``1``, ``1.mp4``."""
    clips: dict[int, str] = {}
    for name in names:
        stem = name.partition(".")[0]
        if CLIP_ID.fullmatch(stem):
            other = clips.setdefault(int(stem), name)
            if other != name:
                raise ValueError(f"{folder} holds clip {clip_name(int(stem))} twice, as {other} and {name}: keep one.")
    return clips


def scan_tree(root: Path) -> Tree:
    """Look over the folders below ``root``, not into clips.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: it holds far more folders than a DFEW tree does, or a clip twice in one folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    tree, waiting = Tree(root), [(root, 0)]
    for num_seen, (folder, depth) in enumerate(waiting):  # grows while it is walked: breadth first
        if num_seen == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not DFEW's own folder. {ACCESS}")
        folders, files = _entries(folder)
        videos = [name for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        for is_video, names in ((False, folders), (True, videos)):
            if clips := _clips_by_id(folder, names):
                tree.clip_folders.append(ClipFolder(folder, kind_of(folder, root, is_video), is_video, clips))
        tree.files.extend(folder / name for name in files if name.lower().endswith(SIDECAR_SUFFIXES))
        if depth < MAX_DEPTH:
            waiting.extend((folder / name, depth + 1) for name in folders if not name[0].isdigit())
    return tree


# --- Clips and their frames ---------------------------------------------------------------------------------------


def find_layout(tree: Tree, frames: str = "full", clip_dir: str | None = None) -> Layout:
    """Find the clips of one kind: merged, in parts, doubly nested, or in a folder that the user names.

    Args:
        tree: what ``scan_tree`` found.
        frames: ``full`` (clip_224x224), ``16f`` (clip_224x224_16f) or ``original`` (the videos).
        clip_dir: folder of the clips where it is not named as DFEW names it; absolute or relative to the tree.

    Raises:
        FileNotFoundError: no such clips; the message says what was found instead.
        ValueError: a clip lies in two places, or the clips are evidently of another kind than asked for.
    """
    searched = tree if clip_dir is None else scan_tree(tree.root / clip_dir)
    candidates = [folder for folder in searched.clip_folders if folder.is_video == (frames == "original")]
    if clip_dir is None:
        candidates = [folder for folder in candidates if folder.kind == frames]
    else:  # a named folder that holds clips itself is meant itself, whatever lies deeper
        candidates = [folder for folder in candidates if folder.path == searched.root] or candidates
    if not candidates:
        raise FileNotFoundError(_no_clips(searched, frames))
    layout = Layout(frames, tuple(candidates), _merged(candidates))
    if frames != "original":
        _check_kind(layout)
    return layout


def _merged(folders: list[ClipFolder]) -> dict[int, str]:
    """Clip id → absolute path over several folders, refusing clips that lie in two of them."""
    clips: dict[int, str] = {}
    for folder in folders:
        if twice := clips.keys() & folder.clips.keys():
            raise ValueError(
                f"{len(twice)} clips ({shown_clips(twice)}) lie both in {Path(clips[min(twice)]).parent} and in "
                f"{folder.path}. Remove one copy, or name the folder to use with clip_dir=."
            )
        clips.update({clip_id: f"{folder.path}{os.sep}{name}" for clip_id, name in folder.clips.items()})
    return dict(sorted(clips.items()))


def _no_clips(tree: Tree, frames: str) -> str:
    """The message for a tree without clips of the asked kind: what lies there, and which option reads it."""
    names = {"full": "clip_224x224", "16f": "clip_224x224_16f", "original": "original"}
    message = f"No clips for frames={frames!r} (DFEW's folder {names[frames]}) below {tree.root}."
    found = []
    for folder in tree.clip_folders:
        kinds = "frames='original'" if folder.is_video else "frames='full' or '16f'"
        what = "videos" if folder.is_video else "folders of frames"
        fits = f"frames={folder.kind!r}" if folder.kind else f"clip_dir={str(folder.path)!r} and {kinds}"
        found.append(f"{folder.path} ({len(folder.clips)} {what}: {fits})")
    if found:
        return f"{message} Found instead: {shown(found)}."
    if zips := [path.name for path in tree.files if path.suffix.lower() == ".zip"]:
        return f"{message} Found archives only ({shown(zips)}): unzip them first."
    return f"{message} Found no clips of any kind. {ACCESS}"


def _check_kind(layout: Layout) -> None:
    """Refuse 16f frames where all frames were asked for and the reverse, by a look into a few clips.

    Folders get renamed, and training on the wrong one goes unnoticed. 16f clips have exactly 16 frames, named 1 to
    16 without an id; of the full clips one in twenty has 33 frames or fewer, and all carry the id in their names.
    """
    paths = list(layout.clips.values())
    listed = [names for path in paths[:: max(1, len(paths) // 9)][:9] if (names := _frame_names(path))]
    wanted = {f"{number}" for number in range(1, NUM_16F + 1)}
    exact = sum({Path(name).stem.lstrip("0") for name in names} == wanted for names in listed)
    sixteen = sum(len(names) == NUM_16F for names in listed)
    where = shown(folder.path for folder in layout.folders)
    if layout.frames == "full" and 2 * exact > len(listed):
        raise ValueError(
            f"{where} holds the 16-frame clips (frames named 1 to 16), not all frames: pass frames='16f'."
        )
    if layout.frames == "16f" and listed and 2 * sixteen <= len(listed):
        counts = shown(len(names) for names in listed)
        raise ValueError(f"{where} does not hold 16-frame clips (frames counted: {counts}): pass frames='full'.")


def frame_number(name: str) -> int | None:
    """The last integer of a frame's name, which is its place in time; None without one.

    ``00001_00144.jpg`` → 144, ``16.jpg`` → 16.
    """
    numbers = NUMBERS.findall(name.rpartition(".")[0])
    return int(numbers[-1]) if numbers else None


def _is_frame(name: str) -> bool:
    """Whether a file's name is that of a picture and not of debris (``._1.jpg``, ``desktop.ini``, ``Thumbs.db``)."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_debris(name)


def _frame_names(folder: str) -> list[str]:
    """Names of a clip's frames, in no order."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _is_frame(entry.name)]


def list_frames(folder: str) -> list[str]:
    """Names of a clip's frames in time order, counted on disk; empty for a clip without frames.

    Frames are ordered by number, since 16f names are not padded and sort as 1, 10, 11, …, 2; numbers may have gaps
    (DFEW keeps the original frame number and leaves out frames without a face).

    Raises:
        ValueError: a picture without a number or two with the same, whose order cannot be known.
    """
    names = _frame_names(folder)
    numbered = {frame_number(name): name for name in names}
    if None in numbered:
        raise ValueError(
            f"{folder}/{numbered[None]} has no frame number in its name: move it out of the clip's folder."
        )
    if len(numbered) < len(names):
        copies = [name for name in names if numbered[frame_number(name)] != name]
        other = numbered[frame_number(copies[0])]
        raise ValueError(f"{folder} has two frames of one number, {copies[0]} and {other}: keep one.")
    return [numbered[number] for number in sorted(numbered)]  # type: ignore[type-var]


def has_frames(folder: str) -> bool:
    """Whether a clip's folder holds any frame: much cheaper than listing them all."""
    with os.scandir(folder) as entries:
        return any(_is_frame(entry.name) for entry in entries)


def count_video_frames(path: str) -> int:
    """Number of frames in a video, without decoding it.

    MP4 and MOV list every frame in their header; other containers may not or may be wrong, so packets are counted.
    A file that was cut off after its header still states the frames it should have: only decoding finds that.

    Raises:
        ImportError: PyAV is missing.
        ValueError: not a readable video, or one without a frame.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("The frames of videos are counted with PyAV: pip install av") from error
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            count = stream.frames if "mp4" in container.format.name else 0
            count = count or sum(packet.size > 0 for packet in container.demux(stream))
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no readable video ({error}): unzip or download it again.") from error
    if not count:
        raise ValueError(f"{path} is a video without a single frame: unzip or download it again.")
    return count


# --- Labels and folds ---------------------------------------------------------------------------------------------


class Annotation(NamedTuple):
    """A row of annotation.xlsx: the votes for each class, in ``CLASS_NAMES``' order, and the label 0 … 7.

    Label 0 says that no class won (the clip is not single-labelled), 1 … 7 are the classes.
    """

    votes: tuple[float, ...]
    label: int


def _one_file(paths: list[Path], what: str) -> Path:
    """The one of ``paths``, which may be several copies of the same bytes but not different files."""
    if len({path.read_bytes() for path in paths}) > 1:
        raise ValueError(
            f"{what} exists in different versions: {shown(paths)}. Remove all but one, or pass split_dir=."
        )
    return paths[0]


def find_splits(tree: Tree) -> dict[tuple[str, int], Path]:
    """(``train`` or ``test``, fold) → its CSV, under any of the names that DFEW's lists go by.

    ``train(single-labeled)/set_1.csv``, ``train_single-labeled/set_1.csv``, ``train/set_1.csv``,
    ``train/train_set_1.csv``, ``label/single_trainset_1.csv``. A side in the file's name counts before the folder's.

    Raises:
        ValueError: two different files for one split.
    """
    found: dict[tuple[str, int], list[Path]] = {}
    for path in tree.files:
        if match := SPLIT_FILE.fullmatch(path.name):
            folders = reversed(path.parent.relative_to(tree.root).parts)
            sides = [match[1], *(folder[1] for part in folders if (folder := SPLIT_FOLDER.fullmatch(part)))]
            if side := next(filter(None, sides), None):
                found.setdefault((side.lower(), int(match[2])), []).append(path)
    return {split: _one_file(paths, f"The {split[0]} list of fold {split[1]}") for split, paths in found.items()}


def find_annotation(tree: Tree) -> Path | None:
    """The tree's annotation.xlsx, or None; ValueError where there are several different ones."""
    paths = [path for path in tree.files if path.name.lower() == "annotation.xlsx"]
    return _one_file(paths, "annotation.xlsx") if paths else None


def _text(path: Path) -> str:
    """A CSV's text, with or without a byte order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as CSV (UTF-8).") from error


def read_split(path: Path) -> dict[int, int]:
    """Clip id → label as it is written (0 … 7, see ``label_base``), in the order of the file.

    Raises:
        ValueError: a header other than ``video_name,label``, a line that is no clip and label, or a clip twice.
    """
    rows = list(csv.reader(_text(path).splitlines()))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "video_name" not in header or "label" not in header:
        raise ValueError(f"{path} starts with {','.join(header)!r}; the header of DFEW's lists is 'video_name,label'.")
    columns = header.index("video_name"), header.index("label")
    labels: dict[int, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name, label = (row[column].strip() if column < len(row) else "" for column in columns)
        if not CLIP_ID.fullmatch(name):
            raise ValueError(f"{path}, line {line}: video_name {name!r} is not a clip id such as 1 or 00001.")
        if not re.fullmatch("[0-7]", label):
            raise ValueError(f"{path}, line {line}: label {label!r} of clip {name} is not one of 1 … 7 (or 0 … 6).")
        if int(name) in labels:
            raise ValueError(f"{path}, line {line}: clip {clip_name(int(name))} is listed a second time.")
        labels[int(name)] = int(label)
    return labels


def label_base(labels: Iterable[int], source: str) -> int | None:
    """1 where labels run 1 … 7 (as DFEW gives them), 0 where they run 0 … 6 (repackaged), None where both may be.

    Only a 0 or a 7 tells, so small lists may not.

    Raises:
        ValueError: a 0 and a 7, which no numbering has.
    """
    values = set(labels)
    if {0, 7} <= values:
        raise ValueError(
            f"{source}: labels 0 and 7 both occur, but labels run either 1 … 7 or 0 … 6. Lists of both kinds may be "
            "mixed, or clips without a single label (0 in annotation.xlsx) be among them."
        )
    return 0 if 0 in values else 1 if 7 in values else None


def _known_base(fold: Mapping[str, dict[int, int]], files: Mapping[tuple[str, int], Path], where: str) -> int:
    """The label base of a fold, told by its own two lists or else by all lists of the tree."""
    base = label_base((label for labels in fold.values() for label in labels.values()), where)
    if base is None:
        others = (label for path in files.values() for label in read_split(path).values())
        base = label_base(others, f"the lists beside {where}")
    if base is None:
        raise ValueError(
            f"{where}: without a label 0 or 7 nothing tells whether labels run 1 … 7 or 0 … 6. Pass label_base=1 "
            "(as DFEW gives them) or label_base=0."
        )
    return base


def read_fold(files: Mapping[tuple[str, int], Path], fold: int, base: int | None = None) -> dict[str, dict[int, int]]:
    """The two lists of a fold: ``train`` and ``test`` → clip id → index in ``CLASS_NAMES``.

    Args:
        files: what ``find_splits`` found.
        fold: 1 … 5.
        base: label of the first class, 0 or 1; None to tell it from the lists.

    Raises:
        FileNotFoundError: one of the two lists is missing.
        ValueError: a label outside the classes, a clip in both, or see ``read_split`` and ``label_base``.
    """
    if missing := [side for side in SIDES if (side, fold) not in files]:
        raise FileNotFoundError(
            f"There is no {' and no '.join(missing)} list of fold {fold} (set_{fold}.csv) beside "
            f"{shown(files.values())}. Add it, pass the folder that has it as split_dir=, or remove all lists to have "
            "the folds rebuilt from annotation.xlsx."
        )
    lists = {side: read_split(files[side, fold]) for side in SIDES}
    where = f"{files['train', fold]} and {files['test', fold]}"
    base = _known_base(lists, files, where) if base is None else base
    for side, labels in lists.items():
        if wrong := [clip_id for clip_id, label in labels.items() if not 0 <= label - base < len(CLASS_NAMES)]:
            name, label = clip_name(wrong[0]), labels[wrong[0]]
            rest = f"({len(wrong)} such)" if len(wrong) > 1 else ""
            raise ValueError(f"{files[side, fold]}: label {label} of clip {name} is not {base} … {base + 6} {rest}")
    if both := lists["train"].keys() & lists["test"].keys():
        raise ValueError(f"{where} share {len(both)} clips ({shown_clips(both)}): train and test must be disjoint.")
    return {side: {clip_id: labels[clip_id] - base for clip_id in sorted(labels)} for side, labels in lists.items()}


def _annotation_columns(path: Path, header: tuple[Any, ...]) -> list[int]:
    """Places of the columns ``1happy`` … ``7fear``, ``order``, ``label`` in annotation.xlsx."""
    names = [re.sub(r"[^a-z]", "", str(cell or "").lower()) for cell in header]
    wanted = (*CLASS_NAMES, "order", "label")
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(
            f"{path}: no column {shown(missing)} in its header {[str(cell) for cell in header]}; DFEW's is "
            "1happy,2sad,3neutral,4angry,5surprise,6disgust,7fear,order,label."
        )
    return [names.index(name) for name in wanted]


def read_annotation(path: Path) -> Mapping[int, Annotation]:
    """Clip id → votes and label of all rows of annotation.xlsx, by the id in ``order`` and never by row number.

    Raises:
        ValueError: not a workbook, an unknown header, a cell that is no number, a label outside 0 … 7, a clip twice.
    """
    state = path.stat()
    return _read_annotation(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)  # all five folds read it, and reading DFEW's takes seconds
def _read_annotation(path: Path, mtime_ns: int, num_bytes: int) -> Mapping[int, Annotation]:
    try:
        with path.open("rb") as file:
            sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
            sheet.reset_dimensions()  # type: ignore[union-attr]  # the size that a workbook states may be wrong
            rows = list(sheet.iter_rows(values_only=True))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no readable Excel workbook ({error}).") from error
    columns = _annotation_columns(path, rows[0] if rows else ())
    annotations: dict[int, Annotation] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = [row[column] if column < len(row) else None for column in columns]
        if all(cell is None for cell in cells):
            continue
        try:
            *votes, order, label = (float(cell) for cell in cells)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {line}: {cells} are not all numbers.") from error
        if label not in range(len(CLASS_NAMES) + 1) or int(order) in annotations:
            raise ValueError(
                f"{path}, row {line}: clip {order:g} is listed twice or its label {label:g} is not 0 … 7."
            )
        annotations[int(order)] = Annotation(tuple(votes), int(label))
    return annotations


def folds_by_rule(labels: Mapping[int, int]) -> dict[int, int]:
    """Clip id → the fold (1 … 5) that tests it, by the rule of DFEW's own lists.

    Within each class, the clips sorted by id are cut in five contiguous blocks, the larger ones first; block k is
    the test side of fold k. It reproduces all 11,697 entries of the published lists.

    Args:
        labels: clip id → class, of single-labelled clips with faces only: any clip more or less shifts the cuts.
    """
    folds: dict[int, int] = {}
    for class_index in set(labels.values()):
        members = sorted(clip_id for clip_id, label in labels.items() if label == class_index)
        numbers = [fold for fold, size in enumerate(block_sizes(len(members)), start=1) for _ in range(size)]
        folds.update(zip(members, numbers, strict=True))
    return folds


def rebuild_fold(annotation: Path, face_clips: Iterable[int], fold: int) -> dict[str, dict[int, int]]:
    """As ``read_fold``, by the rule, from annotation.xlsx and the ids of the clips that have a folder of faces."""
    rows = read_annotation(annotation)
    labels = {clip_id: rows[clip_id].label - 1 for clip_id in sorted(face_clips) if clip_id in rows}
    labels = {clip_id: label for clip_id, label in labels.items() if label >= 0}
    folds = folds_by_rule(labels)
    return {
        side: {clip_id: label for clip_id, label in labels.items() if (folds[clip_id] == fold) == (side == "test")}
        for side in SIDES
    }


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class DFEWConfig(datasets.BuilderConfig):
    """Options of DFEW; ``name`` is ``fold_1`` … ``fold_5``.

    Attributes:
        frames: ``full`` (clip_224x224, all frames with a face), ``16f`` (clip_224x224_16f, interpolated to 16) or
            ``original`` (the films' clips as videos).
        clip_dir: folder of the clips if it is not named as DFEW names it; absolute or relative to data_dir.
        split_dir: folder of the split CSVs if it is not below data_dir; absolute or relative to data_dir.
        votes: add the column ``votes`` from annotation.xlsx: 7 shares in the order of the classes, summing to 1.
        label_base: number of the first class in the CSVs, 1 or 0, where the CSVs themselves cannot tell.
        missing: what becomes of listed clips that are not on disk or have no frame: ``error`` or ``skip``.
    """

    frames: str = "full"
    clip_dir: str | None = None
    split_dir: str | None = None
    votes: bool = False
    label_base: int | None = None
    missing: str = "error"

    @property
    def fold(self) -> int:
        """The fold, 1 … 5."""
        return int(self.name.removeprefix("fold_"))

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if not re.fullmatch(f"fold_[1-{NUM_FOLDS}]", self.name):
            raise ValueError(f"DFEW comes in folds: name one of fold_1 … fold_{NUM_FOLDS}, not {self.name!r}.")
        allowed = {"frames": FRAME_KINDS, "label_base": (None, 0, 1), "missing": ("error", "skip")}
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: the options, the absolute data_dir and the state of what is read there.

        So an edited annotation file, or clips added, removed or filled up, never meet rows cached before, whichever
        way the set is loaded.
        """
        self.check()
        if self.data_dir is not None:
            base = {option.name for option in fields(datasets.BuilderConfig)}
            options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in base}
            source = open_source(self)
            config_kwargs = {**options, "data_dir": str(source.tree.root), "state": source.fingerprint()}
        return super().create_config_id(config_kwargs, custom_features)


@dataclass(frozen=True)
class Source:
    """The files that one configuration reads.

    Attributes:
        tree: what one look over data_dir found.
        layout: the clips.
        face_layout: whose clips the rule of the folds counts; only where there are no lists.
        split_files: (``train`` or ``test``, fold) → list.
        annotation: annotation.xlsx, only where the votes or the folds come from it.
        other_annotation: annotation.xlsx where no row comes from it, so that only ``check_source`` reads it.
    """

    tree: Tree
    layout: Layout
    face_layout: Layout | None
    split_files: dict[tuple[str, int], Path]
    annotation: Path | None
    other_annotation: Path | None

    def fingerprint(self) -> str:
        """A hash over the content of the annotation files, and over names and times of the clips.

        A clip folder's time changes when frames come or go, a video's when it is written. Pictures replaced in
        place are not noticed, nor need they be: rows hold paths. Costs one stat a clip.
        """
        state = hashlib.sha256()
        for path in filter(None, (*self.split_files.values(), self.annotation)):
            state.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        for layout in filter(None, (self.layout, self.face_layout)):
            for folder in layout.folders:
                names = set(folder.clips.values())
                with os.scandir(folder.path) as entries:
                    times = sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.name in names)
                state.update(f"{folder.path}\0{times}".encode())
        return state.hexdigest()


def open_source(config: DFEWConfig) -> Source:
    """Find what a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, no clips of the asked kind, or no lists and no annotation.xlsx.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"DFEW needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    tree = scan_tree(Path(os.path.abspath(Path(config.data_dir).expanduser())))  # noqa: PTH100
    layout = find_layout(tree, config.frames, config.clip_dir)
    split_tree = scan_tree(tree.root / config.split_dir) if config.split_dir else tree
    split_files = find_splits(split_tree)
    annotation = find_annotation(split_tree) or find_annotation(tree)
    if annotation is None and (config.votes or not split_files):
        need = "votes=True needs" if split_files else "there are no lists (set_1.csv …) either, so the folds need"
        raise FileNotFoundError(f"There is no annotation.xlsx below {split_tree.root}, and {need} it. {ACCESS}")
    face_layout = None if split_files else _face_layout(tree, layout)
    used, other = (annotation, None) if config.votes or not split_files else (None, annotation)
    return Source(tree, layout, face_layout, split_files, used, other)


def _face_layout(tree: Tree, layout: Layout) -> Layout:
    """The face clips that the rule of the folds counts, which the videos' ids cannot stand for."""
    if layout.frames != "original":
        return layout
    kinds = {folder.kind for folder in tree.clip_folders if not folder.is_video}
    for kind in ("full", "16f"):
        if kind in kinds:
            return find_layout(tree, kind)
    raise FileNotFoundError(
        f"There are no lists (set_1.csv …) below {tree.root}, and rebuilding the folds from annotation.xlsx needs "
        "clip_224x224 or clip_224x224_16f beside it: clips without a face are not part of them."
    )


def fold_labels(config: DFEWConfig, source: Source) -> dict[str, dict[int, int]]:
    """``train`` and ``test`` → clip id → class index: from the lists or, without any, by the rule."""
    if source.split_files:
        return read_fold(source.split_files, config.fold, config.label_base)
    assert source.annotation is not None and source.face_layout is not None  # open_source saw to it
    return rebuild_fold(source.annotation, source.face_layout.clips, config.fold)


def listed_clips(config: DFEWConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``test`` → a row for every clip of the fold in order of id, also for clips not on disk.

    A row has ``clip_id``, ``label``, ``path`` (absolute; None where the clip is not on disk) and ``votes`` on request.

    Raises:
        FileNotFoundError, ValueError: lists or annotation.xlsx that cannot be right.
    """
    sides = fold_labels(config, source)
    votes: dict[int, list[float]] = {}
    if config.votes and source.annotation:
        votes = vote_shares(read_annotation(source.annotation), sides["train"] | sides["test"], source.annotation)
    return {
        side: [
            {"clip_id": clip_name(clip_id), "label": label, "path": source.layout.clips.get(clip_id)}
            | ({"votes": votes[clip_id]} if config.votes else {})
            for clip_id, label in labels.items()
        ]
        for side, labels in sides.items()
    }


def on_disk(rows: list[dict[str, Any]], layout: Layout, missing: str, what: str) -> list[dict[str, Any]]:
    """Those of ``rows`` whose clip is on disk and has a frame; ``what`` names them all in messages.

    Raises:
        FileNotFoundError: some have not, and ``missing`` is ``error``; or none has.
    """
    absent = [row["clip_id"] for row in rows if row["path"] is None]
    images = layout.frames != "original"
    empty = [row["clip_id"] for row in rows if images and row["path"] is not None and not has_frames(row["path"])]
    if not absent and not empty:
        return rows
    parts = [f"{len(absent)} are not on disk ({shown(absent)})"] if absent else []
    parts += [f"{len(empty)} have no frame ({shown(empty)})"] if empty else []
    where = shown(folder.path for folder in layout.folders)
    message = f"Of the {len(rows)} {what}, {' and '.join(parts)} in {where}."
    if missing == "error" or len(absent) + len(empty) == len(rows):
        raise FileNotFoundError(f"{message} Unzip all parts, or pass missing='skip' to go without these clips.")
    logger.warning("%s They are skipped: scores are not comparable with papers.", message)
    return [row for row in rows if row["clip_id"] not in {*absent, *empty}]


def describe_source(config: DFEWConfig, source: Source) -> dict[str, Any]:
    """What a configuration reads, for the report of ``verify``: only values that JSON has.

    ``num_frames`` is what every clip must have, ``num_short_clips`` how many have fewer than 16 as published.
    """
    lists = [source.split_files[side, config.fold] for side in SIDES if (side, config.fold) in source.split_files]
    values = {label for path in lists for label in read_split(path).values()}
    about: dict[str, Any] = {
        "frames": config.frames,
        "clips": [str(folder.path) for folder in source.layout.folders],
        "clips_on_disk": len(source.layout.clips),
        "lists": [str(path) for path in lists] or [str(source.annotation)],
        "labels": f"{min(values)} … {max(values)} in the lists" if values else "rebuilt by rule from annotation.xlsx",
    }
    if config.frames == "16f":
        about["num_frames"] = NUM_16F
    return about | ({"num_short_clips": NUM_SHORT_CLIPS} if config.frames == "full" else {})


def check_source(config: DFEWConfig, source: Source) -> list[tuple[str, bool, str]]:
    """What only DFEW knows of a fold: its classes, its rule, and what annotation.xlsx says of the same clips.

    Returns:
        (name, passed, text) of each check that can be made.
    """
    sides = fold_labels(config, source)
    labels = sides["train"] | sides["test"]
    lacking = [
        f"{side} has no {name}"
        for side in SIDES
        for index, name in enumerate(CLASS_NAMES)
        if index not in sides[side].values()
    ]
    checks = [("classes", not lacking, shown(lacking) or "all seven in train and test")]
    if source.split_files:  # else the folds come from the rule itself
        folds = folds_by_rule(labels)
        other = [clip_id for clip_id in labels if (folds[clip_id] == config.fold) != (clip_id in sides["test"])]
        text = f"{len(labels) - len(other)} of {len(labels)} clips are listed where the rule of the folds has them"
        checks.append(("fold rule", not other, text + (f", not {shown_clips(other)}" if other else "")))
    if source.other_annotation:
        rows = read_annotation(source.other_annotation)
        other = [
            clip_id for clip_id, label in labels.items() if clip_id not in rows or rows[clip_id].label != label + 1
        ]
        text = f"gives {len(labels) - len(other)} of {len(labels)} clips the label of the lists"
        checks.append(("annotation.xlsx", not other, text + (f", not {shown_clips(other)}" if other else "")))
    return checks


def vote_shares(
    annotations: Mapping[int, Annotation], labels: Mapping[int, int], path: Path
) -> dict[int, list[float]]:
    """Clip id → the share of the votes for each class, 7 numbers summing to 1, joined by id.

    Divides by the row's own sum: that all clips have ten votes is not known.

    Raises:
        ValueError: a clip without a row, or a row without votes.
    """
    lacking = [clip_id for clip_id in labels if clip_id not in annotations or sum(annotations[clip_id].votes) <= 0]
    if lacking:
        raise ValueError(f"{path} has no votes for {len(lacking)} clips of the fold: {shown_clips(lacking)}.")
    other = [clip_id for clip_id, label in labels.items() if annotations[clip_id].label != label + 1]
    if other:
        logger.warning(
            "%s gives %d of %d clips another label than the lists of the fold: %s.",
            *(path, len(other), len(labels), shown_clips(other)),
        )
    votes = {clip_id: annotations[clip_id].votes for clip_id in labels}
    return {clip_id: [vote / sum(row) for vote in row] for clip_id, row in votes.items()}


class DFEW(datasets.GeneratorBasedBuilder):
    """DFEW's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = DFEWConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        DFEWConfig(name=f"fold_{fold}", description=f"Fold {fold} of {NUM_FOLDS}.") for fold in range(1, NUM_FOLDS + 1)
    ]
    config: DFEWConfig

    def _info(self) -> datasets.DatasetInfo:
        features: dict[str, Any] = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(CLASS_NAMES)),
            "num_frames": datasets.Value("int32"),
        }
        if self.config.frames == "original":
            has_video = hasattr(datasets, "Video")  # not in older releases of datasets 3
            features["video"] = datasets.Video(decode=False) if has_video else datasets.Value("string")
        else:
            features["frames"] = datasets.Sequence(datasets.Value("string"))
        if self.config.votes:
            features["votes"] = datasets.Sequence(datasets.Value("float32"), length=len(CLASS_NAMES))
        return datasets.DatasetInfo(
            description="Dynamic facial expressions in the wild: film clips of seven basic expressions.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license="For research only, by agreement with the authors; no part may be redistributed.",
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Lists, labels, votes and the presence of every clip are checked here, before a row is written."""
        source = open_source(self.config)
        sides, generators = listed_clips(self.config, source), []
        num_clips = sum(map(len, sides.values()))
        if not source.split_files and num_clips != NUM_BENCHMARK_CLIPS:
            logger.warning(
                "Folds rebuilt from %s have %d clips and the published ones %d: scores are not comparable with "
                "papers.",
                *(source.annotation, num_clips, NUM_BENCHMARK_CLIPS),
            )
        for side, listed in sides.items():
            rows = on_disk(listed, source.layout, self.config.missing, f"{side} clips of {self.config.name}")
            # A list, because lists are what datasets cuts for num_proc and streaming workers.
            generators.append(datasets.SplitGenerator(name=side, gen_kwargs={"rows": rows}))
        return generators

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            path = row["path"]
            example = {column: value for column, value in row.items() if column != "path"}
            if self.config.frames == "original":
                example |= {"num_frames": count_video_frames(path), "video": path}
            else:
                names = list_frames(path)
                example |= {"num_frames": len(names), "frames": [f"{path}{os.sep}{name}" for name in names]}
            yield row["clip_id"], example
