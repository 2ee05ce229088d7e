"""MAFW (Liu et al., ACM MM 2022), read from the user's own copy: 9,172 clips of 11 emotions, 8,996 of 43, 5 folds.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("mafw", "fold_1", data_dir="MAFW")                                # datasets 4, 5
    datasets.load_dataset("dataset_scripts/mafw.py", "fold_1", data_dir="MAFW", trust_remote_code=True)  # datasets 3

This file holds no label, list, caption or picture of MAFW: only counts and the rule of the folds, both of which can
be recomputed from any copy.

Columns: ``clip_id`` (five digits), ``label``, ``num_frames`` (counted on disk), and ``frames`` (absolute paths in
time order) or, with ``frames="video"``, ``video``; with ``captions=True`` also ``caption_zh`` and ``caption_en``.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import datasets
from PIL import Image

from .clip_files import (
    BROKEN_PICTURE,
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
    keep_clip,
    keep_list,
    picture_names,
    refuse_overlap,
    shown,
    walk,
)

logger = logging.getLogger(__name__)

# Of the single-labelled clips, in MAFW's own order (1 … 11); see ``Source.class_names`` for the compound ones.
CLASS_NAMES = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
)
CLASS_COUNTS = dict(zip(CLASS_NAMES, (1390, 639, 625, 1242, 1138, 1470, 1072, 236, 916, 262, 182), strict=True))
NUM_COMPOUND_CLIPS = 8996
NUM_COMPOUND_CLASSES = 43  # the 11, and 32 joined of two or more of them

HOMEPAGE = "https://mafw-database.github.io/MAFW"
ABOUT = About(
    name="MAFW",
    description="Dynamic facial expressions in the wild: film clips of eleven emotions and their compounds.",
    names="fold_1 … fold_5 or compound_fold_1 … compound_fold_5",
    homepage=HOMEPAGE,
    license="For research only, by agreement with the authors; no part may be redistributed.",
    access=f"MAFW is given out by its authors on request: send the form of {HOMEPAGE} by e-mail, unzip what you get "
    "and pass the folder with data/ and Train & Test Set/ in it as data_dir.",
    citation="""\
@inproceedings{liu2022mafw,
  title={{MAFW}: A Large-scale, Multi-modal, Compound Affective Database for Dynamic Facial Expression Recognition in
         the Wild},
  author={Liu, Yuanyuan and Dai, Wei and Feng, Chuanxu and Wang, Wenbin and Yin, Guanghao and Zeng, Jiabei and
          Shan, Shiguang},
  booktitle={Proceedings of the 30th ACM International Conference on Multimedia},
  pages={24--32},
  year={2022}
}
""",
)

NUM_LOOKED_INTO = 9  # pictures whose shape shows whether they are crops of faces
# Google Drive appends "-20240101T…" or "-001" to what it wraps.
CLIP_FOLDER = {
    "faces": re.compile(r"(frames|faces)(-\d.*)?", re.IGNORECASE),
    "video": re.compile(r"clips(-\d.*)?", re.IGNORECASE),
}
FOLDER_NAMES = {"faces": "data/frames", "video": "data/clips"}
SUBSET_FOLDER = re.compile(r"(single|compound).*", re.IGNORECASE)
CAPTION_FOLDER = re.compile(r"(with|no)_caption.*", re.IGNORECASE)
FOLD_FOLDER = re.compile(rf"set_?([1-{NUM_FOLDS}])", re.IGNORECASE)
CLIP_ID = re.compile(r"[0-9]{5}")


# --- The tree -----------------------------------------------------------------------------------------------------


def _is_entered(name: str) -> bool:
    """Leave out clips."""
    return not name.isdigit()


def find_clips(root: Path, frames: str, clip_dir: str | None = None) -> dict[str, str]:
    """Clip id → absolute path, of the clips of one kind in order of id.

    Args:
        root: the user's copy.
        frames: ``faces`` (data/frames or data/faces) or ``video`` (data/clips).
        clip_dir: folder of the clips where it is not named as MAFW names it; absolute or relative to ``root``.

    Raises:
        FileNotFoundError: no such clips; the message says what was found instead.
        ValueError: a clip in two places, such as data/frames and data/faces.
    """
    top = root / (clip_dir or "")
    clips: dict[str, str] = {}
    others: list[str] = []
    for folder, folders, files in walk(top, ABOUT, _is_entered):
        named = clip_dir or any(map(CLIP_FOLDER[frames].fullmatch, folder.relative_to(top.parent).parts))
        videos = [(name.rpartition(".")[0], name) for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        for kind, names in (("faces", [(name, name) for name in folders]), ("video", videos)):
            here = [(stem.zfill(5), f"{folder}{os.sep}{name}") for stem, name in names if stem.isdecimal()]
            if here and not (named and kind == frames):
                others.append(f"{folder} (frames={kind!r}, clip_dir=)")
                continue
            for clip_id, path in here:
                keep_clip(clips, clip_id, path)
    if not clips:
        raise FileNotFoundError(
            f"No clips for frames={frames!r} (MAFW's folder {FOLDER_NAMES[frames]}) below {top}. "
            + (f"Found instead, with the options that read it: {shown(others)}." if others else ABOUT.access)
        )
    return dict(sorted(clips.items()))


def whole_pictures(clips: Iterable[str]) -> str:
    """Return a warning if most sampled pictures are wider than 5 : 4, as films are and face crops are not.

    Samples one picture each of a few clips, spread over all ``clips``, which are paths. Empty if there is no problem.
    """
    paths, sizes = list(clips), []
    for path in paths[:: max(1, len(paths) // NUM_LOOKED_INTO)]:
        try:
            with Image.open(f"{path}{os.sep}{min(picture_names(path))}") as image:
                sizes.append(image.size)
        except BROKEN_PICTURE:  # also for a folder without pictures; both are reported elsewhere
            continue
    wide = [f"{width}x{height}" for width, height in sizes if 4 * width > 5 * height]
    if 2 * len(wide) <= len(sizes):
        return ""
    return (
        f"The frames look like whole pictures ({shown(wide)}) and not like the face frames that MAFW gives in "
        "data/frames and that papers use: scores are not comparable."
    )


# --- Lists --------------------------------------------------------------------------------------------------------


class ListedClip(NamedTuple):
    """A line of a list: the label as written (``anger``, ``anger_disgust``), and its captions, if any."""

    label: str
    caption_zh: str | None = None
    caption_en: str | None = None


Lists = dict[tuple[int, str], Path]  # (fold, ``train`` or ``test``) → its list


def find_lists(root: Path, subset: str) -> tuple[Lists, Lists]:
    """The lists without captions and those with captions.

    Args:
        root: folder of the lists, such as ``single/no_caption/set_1/train.txt`` below it.
        subset: ``single`` or ``compound``, by the innermost folder of such a name.

    Raises:
        ValueError: two different files for one list.
    """
    found: tuple[Lists, Lists] = ({}, {})
    for folder, _, files in walk(root, ABOUT, _is_entered):
        parts = folder.relative_to(root.parent).parts[::-1]
        kind, fold, captions = (
            next((match[1].lower() for match in map(pattern.fullmatch, parts) if match), "")
            for pattern in (SUBSET_FOLDER, FOLD_FOLDER, CAPTION_FOLDER)
        )
        for name in files if kind == subset and fold else ():
            if (side := name.lower().removesuffix(".txt")) in SIDES:
                keep_list(found[captions == "with"], (int(fold), side), folder / name)
    return found


def is_chinese(text: str) -> bool:
    """Judge if the characters of ``text`` beyond ASCII are Chinese, as in MAFW's captions.

    Bytes read in a wrong encoding often give characters, but rare ones: far less than nine tenths of them are in
    GB 2312, the list of the characters in common use. A text without any such character passes.
    """
    characters = "".join(character for character in text if not character.isascii())
    return 10 * len(characters.encode("gb2312", "ignore").decode("gb2312")) >= 9 * len(characters)


def read_captions(path: Path) -> str:
    """A list's text, in UTF-8 (as in no_caption) or GBK (as in with_caption).

    GBK is tried second, since it also decodes most UTF-8, into nonsense.

    Raises:
        ValueError: it is in neither encoding, or decodes only by chance.
    """
    for encoding in ("utf-8-sig", "gbk"):
        try:
            text = path.read_bytes().decode(encoding)
        except UnicodeDecodeError:
            continue
        if is_chinese(text):
            return text
    raise ValueError(f"{path} is neither GBK, as MAFW gives its captions, nor UTF-8: take it from the archive again.")


def read_list(path: Path, subset: str) -> dict[str, ListedClip]:
    """Clip id → its line, of a list with captions (tabs, 4 fields; fewer for clips without one) or without (a space).

    Args:
        path: the file.
        subset: ``single``, whose labels are one emotion, or ``compound``, whose may be several joined by ``_``.

    Raises:
        ValueError: see ``read_captions``; a line that is not a clip and its label, an unknown label, or a clip twice.
    """
    clips: dict[str, ListedClip] = {}
    for number, line in enumerate(map(str.strip, read_captions(path).split("\n")), start=1):
        if not line:
            continue
        where = f"{path}, line {number}: {line[:60]!r}"
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        clip_id = cells[0].removesuffix(".mp4").zfill(5)
        if len(cells) not in (2, 4) or not CLIP_ID.fullmatch(clip_id):
            raise ValueError(
                f"{where} is neither '00025.mp4 anger' nor the same with two captions, four fields between tabs."
            )
        emotions = cells[1].split("_")
        if not {*emotions} <= {*CLASS_NAMES} or len({*emotions}) < len(emotions):
            label = cells[1][:60]
            raise ValueError(f"{where} has the label {label!r}, which is not made of {', '.join(CLASS_NAMES)}.")
        if subset == "single" and len(emotions) > 1:
            raise ValueError(f"{where} has a compound label, in a list of clips with a single one.")
        if clip_id in clips:
            raise ValueError(f"{where} lists the clip a second time.")
        clips[clip_id] = ListedClip(cells[1], *(cell or None for cell in cells[2:]))
    return clips


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class MAFWConfig(ClipConfig):
    """Options of MAFW; ``name`` is ``fold_1`` … ``fold_5`` (11 classes) or ``compound_fold_1`` … (43 classes).

    Attributes:
        frames: ``faces`` (data/frames, the official face frames, which papers use) or ``video`` (data/clips, whole
            pictures).
        clip_dir: folder of the clips if it is not named as MAFW names it; absolute or relative to data_dir.
        split_dir: folder of the lists if it is not below data_dir; absolute or relative to data_dir.
        captions: add the columns ``caption_zh`` and ``caption_en`` from with_caption; None for clips without any.
        missing: ``error`` or ``skip`` listed clips that are not on disk or have no frame.
    """

    ABOUT = ABOUT
    NAMES = tuple(f"{subset}fold_{fold}" for subset in ("", "compound_") for fold in range(1, NUM_FOLDS + 1))
    VALUES: ClassVar = {"frames": tuple(FOLDER_NAMES), "missing": ("error", "skip")}

    frames: str = "faces"
    clip_dir: str | None = None
    split_dir: str | None = None
    captions: bool = False

    @property
    def subset(self) -> str:
        """``single`` or ``compound``."""
        return "compound" if self.name.startswith("compound") else "single"

    def open_source(self) -> "Source":
        """Find clips and lists."""
        root = self.root
        clips = find_clips(root, self.frames, self.clip_dir)
        top = root / (self.split_dir or "")
        plain, captioned = find_lists(top, self.subset)
        lists = captioned | plain
        # The compound classes are those of all folds together: a fold may lack one, which would shift its labels.
        folds = range(1, NUM_FOLDS + 1) if self.subset == "compound" else (self.fold,)
        if missing := [f"set_{fold}/{side}.txt" for fold in folds for side in SIDES if (fold, side) not in lists]:
            raise FileNotFoundError(
                f"There is no {shown(missing)} in a folder {self.subset!r} below {top}, and {self.name} "
                "needs it: add MAFW's Train & Test Set, or pass the folder that has it as split_dir=."
            )
        if self.captions and any((self.fold, side) not in captioned for side in SIDES):
            raise FileNotFoundError(
                f"There is no {self.subset}/with_caption/set_{self.fold} with train.txt and test.txt below "
                f"{top}, and captions=True needs both."
            )
        return Source(
            self,
            clips,
            sides={side: lists[self.fold, side] for side in SIDES},
            caption_lists={side: path for side in SIDES if (path := captioned.get((self.fold, side)))},
            class_lists=tuple(lists[key] for key in sorted(lists)) if self.subset == "compound" else (),
        )


@dataclass(frozen=True)
class Source(ClipSource):
    """The files of MAFW that a configuration reads.

    Attributes:
        sides: ``train`` and ``test`` → the list that gives the labels: the one without captions where there is one.
        caption_lists: ``train`` and ``test`` → the list with captions, where there is one.
        class_lists: the lists whose labels make up the compound classes, of all folds; empty for the single ones.
    """

    config: MAFWConfig
    sides: dict[str, Path]
    caption_lists: dict[str, Path]
    class_lists: tuple[Path, ...]

    @property
    def lists(self) -> list[Path]:
        """The train and the test list."""
        return list(self.sides.values())

    @property
    def state_files(self) -> list[Path]:
        """Also the lists with captions, and those of other folds for the compound classes."""
        return [*self.lists, *self.caption_lists.values(), *self.class_lists]

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of ``label``: the 11 and, of a compound fold, those of all folds' lists.

        The compound ones follow by their number of emotions, then in the order of these.
        """
        lists = [read_list(path, "compound") for path in self.class_lists]
        labels = {*CLASS_NAMES, *(clip.label for clips in lists for clip in clips.values())}
        emotions = {label: [CLASS_NAMES.index(name) for name in label.split("_")] for label in labels}
        return tuple(sorted(labels, key=lambda label: (len(emotions[label]), emotions[label])))

    def read_fold(self) -> dict[str, dict[str, ListedClip]]:
        """``train`` and ``test`` → clip id → label and, where the lists have them, captions, in order of id.

        Raises:
            ValueError: a clip in both; only lists with captions, which leave out the neutral clips; or see
                ``read_list``.
        """
        sides = {side: read_list(path, self.config.subset) for side, path in self.sides.items()}
        refuse_overlap(sides, " and ".join(map(str, self.lists)))
        for side, path in self.sides.items():
            labels = {clip.label for clip in sides[side].values()}
            if path == self.caption_lists.get(side) and "neutral" not in labels:
                raise ValueError(
                    f"{path} lists no neutral clip: neutral clips have no captions, and lists of captions may leave "
                    "them out. Add the lists of no_caption, which give the labels."
                )
        return {side: dict(sorted(clips.items())) for side, clips in sides.items()}

    def listed_clips(self) -> Listed:
        """``train`` and ``test`` → a row for every clip of the list, in order of id; see ``read_fold`` for errors."""
        names = {name: label for label, name in enumerate(self.class_names())}
        splits: Listed = {}
        for side, clips in self.read_fold().items():
            captioned = read_list(self.caption_lists[side], self.config.subset) if self.config.captions else {}
            splits[side] = []
            for clip_id, clip in clips.items():
                row = {"clip_id": clip_id, "label": names[clip.label], "path": self.clips.get(clip_id)}
                if self.config.captions:
                    caption = captioned.get(clip_id, clip)
                    row |= {"caption_zh": caption.caption_zh, "caption_en": caption.caption_en}
                splits[side].append(row)
        return splits

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, the lists and the classes."""
        faces, films = "face frames", "whole pictures, where papers use the face frames (frames='faces')"
        return {
            "frames": self.config.frames,
            "pictures": faces if self.config.frames == "faces" else films,
            **super().describe(),
            "classes": list(self.class_names()),
        }

    def check(self) -> list[Finding]:
        """The rule of the folds or the compound totals, both kinds of lists against each other, and the pictures."""
        sides = {side: {i: clip.label for i, clip in clips.items()} for side, clips in self.read_fold().items()}
        labels = sides["train"] | sides["test"]
        checks: list[Finding] = []
        if self.config.subset == "single":
            checks.append(check_fold_rule(sides, self.config.fold))
        else:
            found, published = (len(labels), len(self.class_names())), (NUM_COMPOUND_CLIPS, NUM_COMPOUND_CLASSES)
            text = "{} clips in {} classes (published {} in {})".format(*found, *published)
            checks.append(("compound totals", found == published, text))
        if self.caption_lists and self.caption_lists != self.sides:
            captioned = {side: read_list(path, self.config.subset) for side, path in self.caption_lists.items()}
            lines = [(side, *line) for side, clips in captioned.items() for line in clips.items()]
            other = [i for side, i, clip in lines if sides[side].get(i) != clip.label]
            text = "clips have the side and label that no_caption gives them"
            checks.append(finding("captions", len(lines), text, other))
        if self.config.frames == "faces":
            problem = whole_pictures(self.clips.values())
            checks.append(("face frames", not problem, problem or "at most half of a few are wide as films are"))
        return checks

    def warn(self) -> None:
        """Log that frames look like whole pictures."""
        if self.config.frames == "faces" and (problem := whole_pictures(self.clips.values())):
            logger.warning("%s: %s", self.config.root, problem)


class MAFW(ClipBuilder):
    """MAFW's clips with their label, a configuration a fold, single or compound, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = MAFWConfig
    BUILDER_CONFIGS = [MAFWConfig(name=name) for name in MAFWConfig.NAMES]  # noqa: RUF012  # as the base class
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = counts_by_rule(CLASS_COUNTS)  # of the compound folds only the totals are published
    config: MAFWConfig

    def class_names(self) -> Sequence[str]:
        """The compound classes are in no published list, so their names are read from the user's own."""
        return self.config.open_source().class_names() if self.config.subset == "compound" else CLASS_NAMES

    def own_columns(self) -> dict[str, Any]:
        """The captions on request."""
        captions = ("caption_zh", "caption_en") if self.config.captions else ()
        return {name: datasets.Value("string") for name in captions}
