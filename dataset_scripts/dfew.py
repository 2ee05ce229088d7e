"""DFEW (Jiang et al., ACM MM 2020), read from the user's own copy: 11,697 clips of 7 expressions, 5 folds.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("dfew", "fold_1", data_dir="DFEW")                                # datasets 4, 5
    datasets.load_dataset("dataset_scripts/dfew.py", "fold_1", data_dir="DFEW", trust_remote_code=True)  # datasets 3

This file holds no label, list or picture of DFEW: only counts and the rule of the folds, both of which can be
recomputed from any copy.

Columns: ``clip_id`` (five digits), ``label``, ``num_frames`` (counted on disk), and ``frames`` (absolute paths in
time order) or, with ``frames="original"``, ``video``; with ``votes=True`` also ``votes``, the annotators' shares.
"""

import csv
import logging
import math
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import datasets
import openpyxl

from .clip_files import (
    NUM_FOLDS,
    SIDES,
    VIDEO_SUFFIXES,
    About,
    ClipBuilder,
    ClipConfig,
    ClipSource,
    Finding,
    Listed,
    check_fold_rule,
    counts_by_rule,
    finding,
    folds_by_rule,
    keep_clip,
    keep_list,
    picture_names,
    read_text,
    refuse_overlap,
    shown,
    walk,
)

logger = logging.getLogger(__name__)

CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
NUM_16F = 16

# Published counts (README of DFEW; the lists of five public repositories agree).
NUM_BENCHMARK_CLIPS = 11_697
CLASS_COUNTS = dict(zip(CLASS_NAMES, (2445, 1894, 2669, 2173, 1469, 145, 902), strict=True))
FOLD_SIZES = {1: (9356, 2341), 2: (9356, 2341), 3: (9357, 2340), 4: (9358, 2339), 5: (9361, 2336)}  # train, test
NUM_SHORT_CLIPS = 14  # clips with fewer than 16 frames in clip_224x224
MAX_WORKBOOK_BYTES = 1 << 25  # unpacked; DFEW's own annotation.xlsx has about a seventh of it

HOMEPAGE = "https://dfew-dataset.github.io"
ABOUT = About(
    name="DFEW",
    description="Dynamic facial expressions in the wild: film clips of seven basic expressions.",
    names="fold_1 … fold_5",
    homepage=HOMEPAGE,
    license="For research only, by agreement with the authors; no part may be redistributed.",
    access=f"DFEW is given out by its authors on request: send the form of {HOMEPAGE} by e-mail, unzip what you get "
    "and pass the folder with Clip/, EmoLabel_DataSplit/ and Annotation/ in it as data_dir.",
    citation="""\
@inproceedings{jiang2020dfew,
  title={{DFEW}: A Large-Scale Database for Recognizing Dynamic Facial Expressions in the Wild},
  author={Jiang, Xingxun and Zong, Yuan and Zheng, Wenming and Tang, Chuangao and Xia, Wanchuang and Lu, Cheng
          and Liu, Jiateng},
  booktitle={Proceedings of the 28th ACM International Conference on Multimedia},
  pages={2881--2889},
  year={2020}
}
""",
)

# DFEW's own folder for each kind, and the names of copies of it: Google Drive appends "-20240101T…" or "-001".
FOLDER_NAMES = {"full": "clip_224x224", "16f": "clip_224x224_16f", "original": "original"}
KIND_PATTERNS = {
    "16f": re.compile(r"clip_224x224_16f(-\d.*)?", re.IGNORECASE),
    "full": re.compile(r"clip_224x224(_part_\d+)?(-\d.*)?", re.IGNORECASE),
    "original": re.compile(r"(original|data_part_\d[\d-]*)(-\d.*)?", re.IGNORECASE),
}
SPLIT_FILE = re.compile(r"(?:single_)?(train|test)?_?set_?([1-5])\.csv", re.IGNORECASE)
SPLIT_FOLDER = re.compile(r"(train|test)(?![a-z]).*", re.IGNORECASE)
CLIP_ID = re.compile(r"[0-9]{1,5}")

Labels = dict[int, int]  # clip id → index in CLASS_NAMES


# --- The tree -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFolder:
    """A folder that directly holds clips.

    Attributes:
        path: the folder.
        kind: ``full``, ``16f`` or ``original``, by the names on the way to it; None if they do not say.
        is_video: true for video files, false for folders of frames.
        names: of the clips' files or folders.
    """

    path: Path
    kind: str | None
    is_video: bool
    names: list[str]


@dataclass(frozen=True)
class Tree:
    """A DFEW folder: where clips lie, and its CSV, XLSX and ZIP files."""

    root: Path
    clip_folders: list[ClipFolder] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def clip_name(clip_id: int) -> str:
    """The five-digit name of a clip: 1 → ``00001``."""
    return f"{clip_id:05d}"


def shown_clips(clip_ids: Iterable[int]) -> str:
    """As ``shown``, for clip ids."""
    return shown(clip_name(clip_id) for clip_id in sorted(clip_ids))


def kind_of(path: Path, root: Path, is_video: bool) -> str | None:
    """Kind of the clips in ``path`` by the last folder name below (and with) ``root`` that DFEW itself uses."""
    kinds = ("original",) if is_video else ("16f", "full")
    for part in reversed(path.relative_to(root.parent).parts):
        for kind in kinds:
            if KIND_PATTERNS[kind].fullmatch(part):
                return kind
    return None


def _is_clip(name: str) -> bool:
    """Recognise a clip by its name: ``00001``, ``1``, ``1.mp4``."""
    return CLIP_ID.fullmatch(name.partition(".")[0]) is not None


def scan_tree(root: Path) -> Tree:
    """Find where clips and lists lie below ``root``; see ``walk`` for errors."""
    tree = Tree(root)
    for folder, folders, files in walk(root, ABOUT, lambda name: not name[0].isdigit()):
        videos = [name for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        for is_video, names in ((False, folders), (True, videos)):
            if clips := list(filter(_is_clip, names)):
                tree.clip_folders.append(ClipFolder(folder, kind_of(folder, root, is_video), is_video, clips))
        tree.files.extend(folder / name for name in files if name.lower().endswith((".csv", ".xlsx", ".zip")))
    return tree


def find_clips(tree: Tree, frames: str = "full", clip_dir: str | None = None) -> dict[int, str]:
    """Clip id → absolute path, of the clips of one kind: merged, in parts, doubly nested, or in a named folder.

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
    else:  # if the named folder holds clips itself, folders deeper in it are ignored
        candidates = [folder for folder in candidates if folder.path == searched.root] or candidates
    if not candidates:
        raise FileNotFoundError(_no_clips(searched, frames))
    clips: dict[int, str] = {}
    for folder in candidates:
        for name in folder.names:
            clip_id = int(name.partition(".")[0])
            keep_clip(clips, clip_id, f"{folder.path}{os.sep}{name}", clip_name(clip_id))
    if frames != "original":
        _check_kind(frames, list(clips.values()), shown(folder.path for folder in candidates))
    return dict(sorted(clips.items()))


def _no_clips(tree: Tree, frames: str) -> str:
    """The message for a tree without clips of the asked kind: what lies there, and which option reads it."""
    message = f"No clips for frames={frames!r} (DFEW's folder {FOLDER_NAMES[frames]}) below {tree.root}."
    found = []
    for folder in tree.clip_folders:
        kinds = "frames='original'" if folder.is_video else "frames='full' or '16f'"
        what = "videos" if folder.is_video else "folders of frames"
        fits = f"frames={folder.kind!r}" if folder.kind else f"clip_dir={str(folder.path)!r} and {kinds}"
        found.append(f"{folder.path} ({len(folder.names)} {what}: {fits})")
    if found:
        return f"{message} Found instead: {shown(found)}."
    if zips := [path.name for path in tree.files if path.suffix.lower() == ".zip"]:
        return f"{message} Found archives only ({shown(zips)}): unzip them first."
    return f"{message} Found no clips of any kind. {ABOUT.access}"


def _check_kind(frames: str, paths: Sequence[str], where: str) -> None:
    """Refuse 16f frames if all frames were requested, and the reverse, judging by a few clips.

    Folders get renamed, and training on the wrong one goes unnoticed. 16f clips have exactly 16 frames, named 1 to
    16 without an id; of the full clips one in twenty has 33 frames or fewer, and all carry the id in their names.
    """
    listed = [names for path in paths[:: max(1, len(paths) // 9)][:9] if (names := picture_names(path))]
    wanted = {f"{number}" for number in range(1, NUM_16F + 1)}
    exact = sum({Path(name).stem.lstrip("0") for name in names} == wanted for names in listed)
    sixteen = sum(len(names) == NUM_16F for names in listed)
    if frames == "full" and 2 * exact > len(listed):
        raise ValueError(
            f"{where} holds the 16-frame clips (frames named 1 to 16), not all frames: pass frames='16f'."
        )
    if frames == "16f" and listed and 2 * sixteen <= len(listed):
        counts = shown(len(names) for names in listed)
        raise ValueError(f"{where} does not hold 16-frame clips (frames counted: {counts}): pass frames='full'.")


# --- Lists --------------------------------------------------------------------------------------------------------


def find_splits(tree: Tree) -> dict[tuple[str, int], Path]:
    """(``train`` or ``test``, fold) → its CSV, under any of the names that DFEW's lists go by.

    ``train(single-labeled)/set_1.csv``, ``train_single-labeled/set_1.csv``, ``train/set_1.csv``,
    ``train/train_set_1.csv``, ``label/single_trainset_1.csv``. A side in the file's name overrides the folder's.

    Raises:
        ValueError: two different files for one split.
    """
    found: dict[tuple[str, int], Path] = {}
    for path in tree.files:
        if match := SPLIT_FILE.fullmatch(path.name):
            folders = reversed(path.parent.relative_to(tree.root).parts)
            sides = [match[1], *(folder[1] for part in folders if (folder := SPLIT_FOLDER.fullmatch(part)))]
            if side := next(filter(None, sides), None):
                keep_list(found, (side.lower(), int(match[2])), path)
    return found


def read_split(path: Path) -> dict[int, int]:
    """Clip id → label as it is written (0 … 7, see ``label_base``), in the order of the file.

    Raises:
        ValueError: a header other than ``video_name,label``, a line that is not a clip and its label, or a clip twice.
    """
    try:
        rows = list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(f"{path} is not a list of clips ({error}): take it from the archive again.") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "video_name" not in header or "label" not in header:
        start = ",".join(header)[:100]
        raise ValueError(f"{path} starts with {start!r}; the header of DFEW's lists is 'video_name,label'.")
    columns = header.index("video_name"), header.index("label")
    labels: dict[int, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name, label = (row[column].strip()[:100] if column < len(row) else "" for column in columns)
        if not CLIP_ID.fullmatch(name):
            raise ValueError(f"{path}, line {line}: video_name {name!r} is not a clip id such as 1 or 00001.")
        if not re.fullmatch("[0-7]", label):
            raise ValueError(f"{path}, line {line}: label {label!r} of clip {name} is not one of 1 … 7 (or 0 … 6).")
        if int(name) in labels:
            raise ValueError(f"{path}, line {line}: clip {clip_name(int(name))} is listed a second time.")
        labels[int(name)] = int(label)
    return labels


def label_base(labels: Iterable[int], source: str) -> int | None:
    """Find the first class's label: 1 if labels run 1 … 7 (DFEW's own), 0 if 0 … 6 (repackaged), None if unknown.

    Only a label 0 or 7 decides, and small lists may have neither.

    Raises:
        ValueError: both 0 and 7 occur, which neither numbering has.
    """
    values = set(labels)
    if {0, 7} <= values:
        raise ValueError(
            f"{source}: labels 0 and 7 both occur, but labels run either 1 … 7 or 0 … 6. Lists of both kinds may be "
            "mixed, or clips without a single label (0 in annotation.xlsx) may be included."
        )
    return 0 if 0 in values else 1 if 7 in values else None


def _known_base(fold: Mapping[str, Labels], files: Mapping[tuple[str, int], Path], where: str) -> int:
    """The label base of a fold, from its own two lists or else from all lists of the tree."""
    base = label_base((label for labels in fold.values() for label in labels.values()), where)
    if base is None:
        others = (label for path in files.values() for label in read_split(path).values())
        base = label_base(others, f"the lists beside {where}")
    if base is None:
        raise ValueError(
            f"{where}: without a label 0 or 7 the lists do not show whether labels run 1 … 7 or 0 … 6. Pass "
            "label_base=1 (as DFEW gives them) or label_base=0."
        )
    return base


def read_fold(files: Mapping[tuple[str, int], Path], fold: int, base: int | None = None) -> dict[str, Labels]:
    """The two lists of a fold: ``train`` and ``test`` → clip id → index in ``CLASS_NAMES``, in order of id.

    Args:
        files: what ``find_splits`` found.
        fold: 1 … 5.
        base: label of the first class, 0 or 1; None to find it in the lists.

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
    refuse_overlap(lists, where, clip_name)
    return {side: {clip_id: labels[clip_id] - base for clip_id in sorted(labels)} for side, labels in lists.items()}


# --- annotation.xlsx ----------------------------------------------------------------------------------------------


class Annotation(NamedTuple):
    """A row of annotation.xlsx: the votes for each class, in ``CLASS_NAMES``' order, and the label 0 … 7.

    Label 0 means that no class won (the clip is not single-labelled); 1 … 7 are the classes.
    """

    votes: tuple[float, ...]
    label: int


def find_annotation(tree: Tree) -> Path | None:
    """The tree's annotation.xlsx, or None; ValueError where there are several different ones."""
    found: dict[str, Path] = {}
    for path in tree.files:
        if path.name.lower() == "annotation.xlsx":
            keep_list(found, "annotation", path)
    return found.get("annotation")


def _annotation_columns(path: Path, header: tuple[Any, ...]) -> list[int]:
    """Places of the columns ``1happy`` … ``7fear``, ``order``, ``label`` in annotation.xlsx."""
    names = [re.sub(r"[^a-z]", "", str(cell or "").lower()) for cell in header]
    wanted = (*CLASS_NAMES, "order", "label")
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(
            f"{path}: no column {shown(missing)} in its header {[str(cell) for cell in header][:20]}; DFEW's is "
            "1happy,2sad,3neutral,4angry,5surprise,6disgust,7fear,order,label."
        )
    return [names.index(name) for name in wanted]


def read_annotation(path: Path) -> Mapping[int, Annotation]:
    """Clip id → votes and label of all rows of annotation.xlsx, by the id in ``order`` and never by row number.

    Raises:
        ValueError: not a workbook or one far larger than DFEW's, an unknown header, a cell that is not a number, a
            label outside 0 … 7, a clip twice.
    """
    state = path.stat()
    return _read_annotation(path, state.st_mtime_ns, state.st_size)


def _workbook_rows(path: Path) -> list[tuple[Any, ...]]:
    """The rows of a workbook's first sheet."""
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(part.file_size for part in archive.infolist())
        if num_bytes > MAX_WORKBOOK_BYTES:
            raise ValueError(f"{num_bytes >> 20} MiB unpacked, where DFEW's has under {MAX_WORKBOOK_BYTES >> 20}")
        with path.open("rb") as file:
            sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
            sheet.reset_dimensions()  # type: ignore[union-attr]  # the size that a workbook states may be wrong
            return list(sheet.iter_rows(values_only=True))
    except Exception as error:  # over a broken file openpyxl raises whatever its parts do: ParseError, zlib.error …
        raise ValueError(
            f"{path} is not a readable Excel workbook ({error}): take it from the archive again."
        ) from error


@lru_cache(maxsize=1)  # all five folds read it, and reading DFEW's takes seconds
def _read_annotation(path: Path, mtime_ns: int, num_bytes: int) -> Mapping[int, Annotation]:
    rows = _workbook_rows(path)
    columns = _annotation_columns(path, rows[0] if rows else ())
    annotations: dict[int, Annotation] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = [row[column] if column < len(row) else None for column in columns]
        if all(cell is None for cell in cells):
            continue
        try:
            *votes, order, label = (float(cell) for cell in cells)  # type: ignore[arg-type]
            clip_id = int(order)
            if not all(0 <= vote < math.inf for vote in votes):
                raise ValueError("votes are counts")
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}, row {line}: {cells} are not all numbers.") from error
        if label not in range(len(CLASS_NAMES) + 1) or clip_id in annotations:
            raise ValueError(
                f"{path}, row {line}: clip {order:g} is listed twice or its label {label:g} is not 0 … 7."
            )
        annotations[clip_id] = Annotation(tuple(votes), int(label))
    return annotations


def rebuild_fold(annotation: Path, face_clips: Iterable[int], fold: int) -> dict[str, Labels]:
    """Rebuild what ``read_fold`` returns by the rule, from annotation.xlsx and the ids of clips with a face folder.

    The rule counts only single-labelled clips with faces: a single clip more or less shifts its blocks.
    """
    rows = read_annotation(annotation)
    labels = {clip_id: rows[clip_id].label - 1 for clip_id in sorted(face_clips) if clip_id in rows}
    labels = {clip_id: label for clip_id, label in labels.items() if label >= 0}
    folds = folds_by_rule(labels)
    return {
        side: {clip_id: label for clip_id, label in labels.items() if (folds[clip_id] == fold) == (side == "test")}
        for side in SIDES
    }


def vote_shares(annotations: Mapping[int, Annotation], labels: Labels, path: Path) -> dict[int, list[float]]:
    """Clip id → the share of the votes for each class, 7 numbers summing to 1, joined by id.

    Divides by the row's own sum, since not all clips are known to have ten votes.

    Raises:
        ValueError: a clip without a row, or a row without votes.
    """
    lacking = [clip_id for clip_id in labels if clip_id not in annotations or not sum(annotations[clip_id].votes) > 0]
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


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class DFEWConfig(ClipConfig):
    """Options of DFEW; ``name`` is ``fold_1`` … ``fold_5``.

    Attributes:
        frames: ``full`` (clip_224x224, all frames with a face), ``16f`` (clip_224x224_16f, interpolated to 16) or
            ``original`` (the films' clips as videos).
        clip_dir: folder of the clips if it is not named as DFEW names it; absolute or relative to data_dir.
        split_dir: folder of the split CSVs if it is not below data_dir; absolute or relative to data_dir.
        votes: add the column ``votes`` from annotation.xlsx: 7 shares in the order of the classes, summing to 1.
        label_base: number of the first class in the CSVs, 1 or 0, where the CSVs themselves do not show it.
        missing: ``error`` or ``skip`` listed clips that are not on disk or have no frame.
    """

    ABOUT = ABOUT
    NAMES = tuple(f"fold_{fold}" for fold in range(1, NUM_FOLDS + 1))
    VALUES: ClassVar = {"frames": tuple(FOLDER_NAMES), "label_base": (None, 0, 1), "missing": ("error", "skip")}

    frames: str = "full"
    clip_dir: str | None = None
    split_dir: str | None = None
    votes: bool = False
    label_base: int | None = None

    def open_source(self) -> "Source":
        """Find clips, lists and annotation.xlsx."""
        tree = scan_tree(self.root)
        clips = find_clips(tree, self.frames, self.clip_dir)
        split_tree = scan_tree(tree.root / self.split_dir) if self.split_dir else tree
        split_files = find_splits(split_tree)
        annotation = find_annotation(split_tree) or find_annotation(tree)
        if annotation is None and (self.votes or not split_files):
            need = "votes=True needs" if split_files else "there are no lists (set_1.csv …) either, so the folds need"
            raise FileNotFoundError(
                f"There is no annotation.xlsx below {split_tree.root}, and {need} it. {ABOUT.access}"
            )
        face_clips = {} if split_files else _face_clips(tree, self.frames, clips)
        return Source(self, clips, face_clips, split_files, annotation)


def _face_clips(tree: Tree, frames: str, clips: dict[int, str]) -> dict[int, str]:
    """The face clips that the rule of the folds counts; the ids of the videos include clips without a face."""
    if frames != "original":
        return clips
    kinds = {folder.kind for folder in tree.clip_folders if not folder.is_video}
    for kind in ("full", "16f"):
        if kind in kinds:
            return find_clips(tree, kind)
    raise FileNotFoundError(
        f"There are no lists (set_1.csv …) below {tree.root}, and rebuilding the folds from annotation.xlsx needs "
        "clip_224x224 or clip_224x224_16f beside it: clips without a face are not part of them."
    )


@dataclass(frozen=True)
class Source(ClipSource):
    """The files of DFEW that a configuration reads.

    Attributes:
        face_clips: the clips that the rule of the folds counts; empty where there are lists.
        split_files: (``train`` or ``test``, fold) → list.
        annotation: annotation.xlsx, where there is one; only the votes and the rule of the folds need it.
    """

    config: DFEWConfig
    face_clips: dict[int, str]
    split_files: dict[tuple[str, int], Path]
    annotation: Path | None

    @property
    def lists(self) -> list[Path]:
        """The two lists of the fold or, without lists, annotation.xlsx."""
        fold = self.config.fold
        lists = [self.split_files[side, fold] for side in SIDES if (side, fold) in self.split_files]
        return lists or ([self.annotation] if self.annotation else [])

    @property
    def state_files(self) -> list[Path]:
        """All lists, since another fold's may settle the label base, and annotation.xlsx if rows come from it."""
        needed = [self.annotation] if self.annotation and (self.config.votes or not self.split_files) else []
        return [*self.split_files.values(), *needed]

    @property
    def state_clips(self) -> list[str]:
        """The clips, and those that the rule of the folds counts."""
        return [*self.clips.values(), *self.face_clips.values()]

    def labels(self) -> dict[str, Labels]:
        """``train`` and ``test`` → clip id → class index: from the lists or, without any, by the rule."""
        if self.split_files:
            return read_fold(self.split_files, self.config.fold, self.config.label_base)
        assert self.annotation is not None  # ensured by open_source
        return rebuild_fold(self.annotation, self.face_clips, self.config.fold)

    def listed_clips(self) -> Listed:
        """``train`` and ``test`` → a row for every clip of the fold, in order of id, with ``votes`` on request."""
        sides = self.labels()
        votes: dict[int, list[float]] = {}
        if self.config.votes and self.annotation:
            votes = vote_shares(read_annotation(self.annotation), sides["train"] | sides["test"], self.annotation)
        return {
            side: [
                {"clip_id": clip_name(clip_id), "label": label, "path": self.clips.get(clip_id)}
                | ({"votes": votes[clip_id]} if self.config.votes else {})
                for clip_id, label in labels.items()
            ]
            for side, labels in sides.items()
        }

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, the lists and how they number the classes."""
        about = {"frames": self.config.frames, **super().describe(), "clips_on_disk": len(self.clips)}
        about["labels"] = "rebuilt by rule from annotation.xlsx"
        if self.split_files:
            values = {label for path in self.lists for label in read_split(path).values()}
            about["labels"] = f"{min(values)} … {max(values)} in the lists"
        if self.config.frames == "16f":
            about["num_frames"] = NUM_16F
        return about | ({"num_short_clips": NUM_SHORT_CLIPS} if self.config.frames == "full" else {})

    def check(self) -> list[Finding]:
        """The classes of a fold, its rule, and the labels of annotation.xlsx against those of the lists."""
        sides = self.labels()
        lacking = [
            f"{side} has no {name}"
            for side in SIDES
            for index, name in enumerate(CLASS_NAMES)
            if index not in sides[side].values()
        ]
        checks: list[Finding] = [("classes", not lacking, shown(lacking) or "all seven in train and test")]
        if not self.split_files:  # the folds come from the rule and annotation.xlsx themselves
            return checks
        checks.append(check_fold_rule(sides, self.config.fold, clip_name))
        if self.annotation and not self.config.votes:
            labels, rows = sides["train"] | sides["test"], read_annotation(self.annotation)
            other = [i for i, label in labels.items() if i not in rows or rows[i].label != label + 1]
            text = "clips have the label of annotation.xlsx"
            checks.append(finding("annotation.xlsx", len(labels), text, map(clip_name, sorted(other))))
        return checks

    def warn(self) -> None:
        """Warn if folds that were rebuilt by the rule are not the published ones."""
        num_clips = sum(map(len, self.labels().values()))
        if not self.split_files and num_clips != NUM_BENCHMARK_CLIPS:
            logger.warning(
                "Folds rebuilt from %s have %d clips and the published ones %d: scores are not comparable with "
                "papers.",
                *(self.annotation, num_clips, NUM_BENCHMARK_CLIPS),
            )


class DFEW(ClipBuilder):
    """DFEW's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = DFEWConfig
    BUILDER_CONFIGS = [DFEWConfig(name=name) for name in DFEWConfig.NAMES]  # noqa: RUF012  # as the base class
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = counts_by_rule(CLASS_COUNTS)  # equal to the counts of all ten published lists
    config: DFEWConfig

    def own_columns(self) -> dict[str, Any]:
        """``votes`` on request."""
        votes = datasets.Sequence(datasets.Value("float32"), length=len(CLASS_NAMES))
        return {"votes": votes} if self.config.votes else {}
