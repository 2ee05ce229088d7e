"""AFEW (Dhall et al., IEEE MultiMedia 2012; release of EmotiW 2017/2018), from the user's own copy: 7 expressions.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("afew", data_dir="AFEW")                                   # datasets 4, 5
    datasets.load_dataset("dataset_scripts/afew.py", data_dir="AFEW", trust_remote_code=True)  # datasets 3

This file holds no label, list or picture of AFEW: only counts.

Splits are ``train`` (773 clips) and ``validation`` (383), on which papers test: labels of the test clips were never
released, so those are not read. Columns: ``clip_id`` (split and number, ``train/123456789``, because two numbers
occur in both splits, as different clips), ``label``, ``num_frames`` (counted on disk), and ``video`` or, with
``frames="faces"``, ``frames`` (absolute paths in time order).

The label is always that of the class folder that the clip's video lies in: the faces' folders carry none or, regrouped
by class, may carry another.

Some clips have no aligned face, and papers leave them out: their "381" validation clips are the 383 without two, but
not always the same two. Here such a clip is kept by default (``missing="keep"``), as a row with ``num_frames`` 0 and
no ``frames``, so that a score can count it as not recognised. A model cannot read it, so for training
``missing="skip"`` leaves it out and logs its name.
"""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .clip_files import (
    VIDEO_SUFFIXES,
    About,
    ClipBuilder,
    ClipConfig,
    ClipSource,
    Finding,
    Listed,
    Row,
    keep_clip,
    shown,
    walk,
)

logger = logging.getLogger(__name__)

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SPLITS = ("train", "validation")
FRAME_KINDS = ("video", "faces")

# The union of two independently published lists is exactly this many; arXiv 1808.02668 says 383 too.
PUBLISHED = {
    "default": {
        "train": dict(zip(CLASS_NAMES, (133, 74, 81, 150, 144, 117, 74), strict=True)),
        "validation": dict(zip(CLASS_NAMES, (64, 40, 46, 63, 63, 61, 46), strict=True)),
    }
}
NUM_CLIPS = {split: sum(counts.values()) for split, counts in PUBLISHED["default"].items()}
NUM_SHARED_NUMBERS = 2  # numbers that name one clip in train and another, of another class, in validation
NUM_NAMED = 20  # clips that a message names: enough for all that papers lack

HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
ABOUT = About(
    name="AFEW",
    description="Acted facial expressions in the wild: film clips of seven expressions.",
    names="'default'",
    homepage=HOMEPAGE,
    license="For research only, by agreement with the authors; no part may be redistributed.",
    access=f"AFEW is given out by its authors on request, under an agreement ({HOMEPAGE}): unzip what you get and "
    "pass the folder with Train_AFEW/ and Val_AFEW/ in it as data_dir.",
    citation="""\
@article{dhall2012collecting,
  title={Collecting Large, Richly Annotated Facial-Expression Databases from Movies},
  author={Dhall, Abhinav and Goecke, Roland and Lucey, Simon and Gedeon, Tom},
  journal={IEEE MultiMedia},
  volume={19},
  number={3},
  pages={34--41},
  year={2012}
}
""",
)

# 012345678.avi, Faces/012345678; in Former-DFER's own crops 0_3_012345678, with split and class in front.
CLIP_NAME = re.compile(r"(?:[0-9]_[0-9]_)?([0-9]{9})")
SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|test)(?:ing|idation)?(?![a-z])", re.IGNORECASE)
SPLIT_OF_WORD = {"train": "train", "val": "validation", "test": "test"}
FACES_FOLDER = re.compile(r"AlignedFaces.*|Faces", re.IGNORECASE)
TRAIN_FACES = re.compile(r"AlignedFaces_LBPTOP_Points([-(. ].*)?", re.IGNORECASE)  # validation's end in _Val
FEATURE_FOLDERS = ("points", "lbptop")  # beside Faces/, with folders or files of the same numbers
OTHER_CLASS_NAMES = {"anger": "angry", "happiness": "happy", "sadness": "sad"}  # of faces regrouped by others

ClipKey = tuple[str, str]  # split, number


# --- The tree -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFolder:
    """A folder that directly holds clips.

    Attributes:
        path: the folder.
        split: ``train`` or ``validation``, by the names on the way to it; None if they do not say.
        label: the class whose name the folder has, or None.
        is_video: true for video files, false for folders of frames.
        official: true where AFEW keeps its aligned faces.
        names: of its clips' files or folders.
    """

    path: Path
    split: str | None
    label: int | None
    is_video: bool
    official: bool
    names: list[str]


@dataclass(frozen=True)
class Tree:
    """An AFEW folder: where clips lie, and its archives."""

    root: Path
    folders: list[ClipFolder] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)


def named_split(name: str) -> str | None:
    """``train``, ``validation`` or ``test``, if the name of a folder says one of them."""
    words = {word.lower() for word in SPLIT_WORD.findall(name)}
    return SPLIT_OF_WORD[words.pop()] if len(words) == 1 else None


def split_of(path: Path, root: Path) -> str | None:
    """The split that the last such folder name below ``root`` says, or None.

    The archive of the aligned faces of train is named without a split, that of validation with ``_Val``.
    """
    parts = path.relative_to(root).parts
    named = next(filter(None, map(named_split, reversed(parts))), None)
    return named or ("train" if any(TRAIN_FACES.fullmatch(part) for part in parts) else None)


def class_of(name: str) -> int | None:
    """The class that a folder's name stands for: ``Angry`` → 0; None if it is not a class."""
    word = OTHER_CLASS_NAMES.get(name.lower(), name.lower())
    return CLASS_NAMES.index(word) if word in CLASS_NAMES else None


def _is_entered(name: str) -> bool:
    """Leave out clips, the test set, which has no labels, and AFEW's own features."""
    return not (CLIP_NAME.fullmatch(name) or named_split(name) == "test" or name.lower() in FEATURE_FOLDERS)


def scan_tree(root: Path) -> Tree:
    """Find where clips lie below ``root``; see ``walk`` for errors."""
    tree = Tree(root)
    for folder, folders, files in walk(root, ABOUT, _is_entered):
        official = any(FACES_FOLDER.fullmatch(part) for part in folder.relative_to(root).parts)
        videos = [name for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        for is_video, names in ((True, videos), (False, [name for name in folders if CLIP_NAME.fullmatch(name)])):
            if names:
                where = split_of(folder, root), class_of(folder.name)
                tree.folders.append(ClipFolder(folder, *where, is_video, official, names))
        tree.archives.extend(name for name in files if name.lower().endswith((".zip", ".rar")))
    return tree


def merged(folders: Iterable[ClipFolder]) -> tuple[dict[ClipKey, str], dict[ClipKey, int | None]]:
    """Paths and labels of the clips of several folders, in order of split and number.

    Raises:
        ValueError: a video without a clip's name, or a clip that lies in two places.
    """
    clips: dict[ClipKey, str] = {}
    labels: dict[ClipKey, int | None] = {}
    for folder in folders:
        for name in folder.names:
            path = f"{folder.path}{os.sep}{name}"
            match = CLIP_NAME.fullmatch(Path(name).stem if folder.is_video else name)
            if match is None:
                raise ValueError(f"{path} is not named as AFEW's clips are, by nine digits: rename or remove it.")
            key = str(folder.split), match[1]
            keep_clip(clips, key, path, "/".join(key))
            labels.setdefault(key, folder.label)
    return dict(sorted(clips.items())), labels


def find_videos(tree: Tree) -> tuple[dict[ClipKey, str], dict[ClipKey, int | None]]:
    """The videos of both splits, each in its class folder: they are the list of clips and labels.

    Raises:
        FileNotFoundError: a split or a class without any video; the message says what was found instead.
        ValueError: a video outside the class folders, a class folder outside the splits, or see ``merged``.
    """
    folders = [folder for folder in tree.folders if folder.is_video]
    for folder in folders:
        if (folder.split is None) != (folder.label is None):
            raise ValueError(
                f"{folder.path} holds {len(folder.names)} videos ({shown(folder.names)}) but "
                + ("is not a class folder" if folder.label is None else "lies in neither Train_AFEW nor Val_AFEW")
                + ": AFEW's videos lie in {Train,Val}_AFEW/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}/."
            )
    folders = [folder for folder in folders if folder.split is not None]
    if not folders:
        raise FileNotFoundError(_nothing(tree, "videos (Train_AFEW/<Class>/*.avi)"))
    present = {(folder.split, folder.label) for folder in folders}
    wanted = [(split, label) for split in SPLITS for label in range(len(CLASS_NAMES))]
    if lacking := [f"{split}/{CLASS_NAMES[label]}" for split, label in wanted if (split, label) not in present]:
        raise FileNotFoundError(
            f"There is no video of {shown(lacking)} below {tree.root}. AFEW has Train_AFEW and Val_AFEW with seven "
            f"class folders each: unzip all of both. {ABOUT.access}"
        )
    return merged(folders)


def find_faces(tree: Tree, named: bool) -> tuple[dict[ClipKey, str], dict[ClipKey, int | None]]:
    """The folders of faces, with or without a level of classes, however nested.

    Args:
        tree: what ``scan_tree`` found.
        named: true for a folder that the user named, so that faces may lie anywhere in it.

    Raises:
        FileNotFoundError: no faces; the message says what was found instead.
        ValueError: faces of neither split, or see ``merged``.
    """
    folders = [folder for folder in tree.folders if not folder.is_video and (named or folder.official)]
    if not folders:
        raise FileNotFoundError(_nothing(tree, "faces (AlignedFaces_LBPTOP_Points[_Val]/Faces/<clip>/I_1001.jpg …)"))
    for folder in folders:
        if folder.split is None:
            raise ValueError(
                f"No folder on the way from {tree.root} to {folder.path} says whether its {len(folder.names)} clips "
                "are of train or of validation, and two numbers occur in both: put them in folders train and val."
            )
    return merged(folders)


def _nothing(tree: Tree, what: str) -> str:
    """The message for a tree without clips of the asked kind: what lies there, and what to do."""
    message = f"Found no {what} below {tree.root}."
    found = [
        f"{folder.path} ({len(folder.names)} {'videos' if folder.is_video else 'folders of frames'})"
        for folder in tree.folders
    ]
    if found:
        return (
            f"{message} Found instead: {shown(found, NUM_NAMED)}. frames='video' reads videos, frames='faces' folders "
            "of frames; clip_dir= names a folder, with train and val in it, that AFEW names otherwise."
        )
    if tree.archives:
        return f"{message} Found archives only ({shown(tree.archives)}): unzip them first."
    return f"{message} {ABOUT.access}"


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class AFEWConfig(ClipConfig):
    """Options of AFEW; ``name`` is ``default``.

    Attributes:
        frames: ``video`` (the .avi files, or what they were converted to) or ``faces`` (the aligned faces given out
            with them, or a user's own crops).
        clip_dir: folder of what ``frames`` asks for if AFEW names it otherwise, with folders named train and val (or
            validation) in it; absolute or relative to data_dir. Labels of faces come from data_dir's videos all the
            same.
        missing: ``keep`` clips without a face as rows without frames, or ``skip``, or ``error``.
    """

    ABOUT = ABOUT
    NAMES = ("default",)
    VALUES: ClassVar = {"frames": FRAME_KINDS, "missing": ("keep", "skip", "error")}

    missing: str = "keep"
    frames: str = "video"
    clip_dir: str | None = None

    def open_source(self) -> "Source":
        """Find the videos, which give the labels, and the faces if they are asked for."""
        tree = scan_tree(self.root)
        searched = tree if self.clip_dir is None else scan_tree(tree.root / self.clip_dir)
        if self.frames == "video":
            videos, labels = find_videos(searched)
            return Source(self, videos, videos, labels, {})
        faces, labels_of_faces = find_faces(searched, named=self.clip_dir is not None)
        videos, labels = find_videos(tree)
        return Source(self, faces, videos, labels, labels_of_faces)


@dataclass(frozen=True)
class Source(ClipSource):
    """The files of AFEW that a configuration reads; ``clips`` are the videos or the folders of faces.

    Attributes:
        videos: (split, number) → path, of all clips that there are.
        labels: of the videos, by their class folders.
        labels_of_faces: by their class folders, None where they have none; empty for videos.
    """

    config: AFEWConfig
    videos: dict[ClipKey, str]
    labels: dict[ClipKey, int | None]
    labels_of_faces: dict[ClipKey, int | None]

    @property
    def state_clips(self) -> list[str]:
        """The videos and the faces."""
        return [*self.videos.values(), *self.clips.values()]

    def listed_clips(self) -> Listed:
        """``train`` and ``validation`` → rows of all clips, by number; ``path`` None for a clip without faces.

        Faces are joined by split and number, never by position: a missing or empty folder shifts no label.
        """
        rows: Listed = {split: [] for split in SPLITS}
        for split, number in self.videos:
            key = split, number
            rows[split].append(
                {"clip_id": "/".join(key), "label": self.labels[key], "path": self.clips.get(key)},
            )
        return rows

    def faceless(self, rows: Iterable[Row]) -> list[str]:
        """Ids of the clips that have no folder of faces, or one without a face."""
        rows = list(rows)
        lacking = {clip_id for ids in self.without_frames(rows) for clip_id in ids}
        return [row["clip_id"] for row in rows if row["clip_id"] in lacking]

    def on_disk(self, split: str, rows: list[Row]) -> list[Row]:
        """The rows that ``missing`` leaves: all, or those with a face.

        Raises:
            FileNotFoundError: clips have no face, and ``missing`` is ``error``; or none has.
        """
        root, missing = self.config.root, self.config.missing
        if len(rows) != NUM_CLIPS[split]:
            logger.warning(
                "%s has %d %s clips and AFEW %d: scores are not comparable with papers.",
                *(root, len(rows), split, NUM_CLIPS[split]),
            )
        if not (lacking := self.faceless(rows)):
            return rows
        message = f"Of the {len(rows)} {split} clips of {root}, {len(lacking)} have no face: "
        message += f"{shown(lacking, NUM_NAMED)}."
        if missing == "error" or len(lacking) == len(rows):
            raise FileNotFoundError(f"{message} Unzip the faces again, or leave missing at 'keep' or 'skip'.")
        if missing == "keep":
            logger.warning("%s They stay, as rows without frames; to train, pass missing='skip'.", message)
            return rows
        logger.warning("%s They are skipped: scores are over %d clips.", message, len(rows) - len(lacking))
        return [row for row in rows if row["clip_id"] not in set(lacking)]

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips."""
        return {"frames": self.config.frames, **super().describe()}

    def check(self) -> list[Finding]:
        """Numbers that both splits share, the size of the validation set, and faces against videos."""
        checks = [self._check_shared_numbers(), self._check_validation()]
        return checks if self.config.frames == "video" else [*checks, *self._check_faces()]

    def _check_shared_numbers(self) -> Finding:
        """Find clips in both splits. AFEW repeats two numbers, in different classes; any other repeat is an error."""
        train, validation = (
            {number: label for (split, number), label in self.labels.items() if split == wanted} for wanted in SPLITS
        )
        shared = sorted(train.keys() & validation.keys())
        same = [number for number in shared if train[number] == validation[number]]
        text = f"{len(shared)} numbers occur in both splits, {len(same)} of them in one class"
        text += f" (AFEW has {NUM_SHARED_NUMBERS} and 0)"
        passed = not same and len(shared) <= NUM_SHARED_NUMBERS
        return "shared numbers", passed, text if passed else f"{text}: {shown(shared, NUM_NAMED)}"

    def _check_validation(self) -> Finding:
        """Check that all 383 validation clips exist: otherwise scores are not comparable, not even with "381"."""
        rows = self.listed_clips()["validation"]
        count, whole = len(rows) - len(self.faceless(rows)), NUM_CLIPS["validation"]
        text = f"{count} of {whole} validation clips are there"
        if count != whole:
            text += (
                "; papers that report on 381 leave out two clips without a face, but two published lists of 381 leave "
                "out different ones: say which are missing, or count them as not recognised"
            )
        return "validation set", count == whole, text

    def _check_faces(self) -> list[Finding]:
        """Check that every clip has faces, that all faces have a clip, and that their class folders agree."""
        lacking = [clip_id for rows in self.listed_clips().values() for clip_id in self.faceless(rows)]
        stray = ["/".join(key) for key in self.clips.keys() - self.videos.keys()]
        of_faces = {key: label for key, label in self.labels_of_faces.items() if label is not None}
        other = ["/".join(key) for key, label in of_faces.items() if self.labels.get(key, label) != label]
        found = {
            "clips without faces": (lacking, "have no face"),
            "faces without clips": (stray, "folders of faces have no video and are not read"),
            "classes of faces": (other, "lie in another class than their video, which counts"),
        }
        return [
            (name, not clips, f"{len(clips)} {text}" + (f": {shown(sorted(clips), NUM_NAMED)}" if clips else ""))
            for name, (clips, text) in found.items()
        ]


class AFEW(ClipBuilder):
    """AFEW's clips with their label, splits ``train`` and ``validation``."""

    BUILDER_CONFIG_CLASS = AFEWConfig
    BUILDER_CONFIGS = [AFEWConfig(name="default")]  # noqa: RUF012  # as the base class declares it
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = PUBLISHED
    config: AFEWConfig
