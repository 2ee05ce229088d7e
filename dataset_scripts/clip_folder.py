"""Your own clips in folders named by class: any classes, videos, folders of frames or, on request, single images.

    dataset_scripts.load_dataset("clip_folder", data_dir="DIR")                                       # datasets 4, 5
    datasets.load_dataset("dataset_scripts/clip_folder.py", data_dir="DIR", trust_remote_code=True)  # datasets 3

Where DIR has its own splits, the configuration is ``default``:

    DIR/train/<class>/<clip>    and    DIR/validation/<class>/<clip> (or val), DIR/test/<class>/<clip>: one or both

Where it has none, the configurations are ``fold_1`` … ``fold_5``, each with splits ``train`` and ``test``:

    DIR/<class>/<clip>

A clip is a video file or a folder of frames, and all clips are of one kind; with ``images=True`` it is an image, a
clip of one frame. In the folds, neighbouring names stay together, since they are mostly cut from the same film;
``groups`` keeps together all clips of a person or film.

Columns: ``clip_id`` (where it lies in DIR: ``train/happy/clip_1``), ``label`` (the classes are the folders' names or
those that ``classes`` gives them, sorted), ``num_frames`` (counted on disk), ``video`` or ``frames`` (absolute paths
in time order), and ``group`` where ``groups`` is given.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets

from .clip_files import (
    IMAGE_SUFFIXES,
    NUM_FOLDS,
    OTHER_IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    About,
    ClipBuilder,
    ClipConfig,
    ClipSource,
    Finding,
    Listed,
    Row,
    blocks,
    entries,
    folds_by_rule,
    refuse_odd_name,
    shown,
)

logger = logging.getLogger(__name__)

SPLIT_OF_FOLDER = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
LEFT_BEHIND = ("desktop.ini", "thumbs.db")  # by Windows, in any folder
LAYOUT = (
    "Expected DIR/<class>/<clip>, or DIR/train/<class>/<clip> and the same in DIR/validation or DIR/test; a clip is "
    "a video file or a folder of frames."
)
ABOUT = About(
    name="A folder of clips",
    description="Clips in folders named by class.",
    names=f"'default' or fold_1 … fold_{NUM_FOLDS}",
    access=LAYOUT,
)


# --- The folder ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A clip on disk.

    Attributes:
        clip_id: its path in the data's folder, without suffix.
        split: the split it lies in; None where the folder has no splits of its own.
        class_name: class of the folder it lies in.
        path: absolute path of its video, image or folder of frames.
        is_file: false for a folder of frames.
        group: the person or film that ``groups`` finds in its name.
    """

    clip_id: str
    split: str | None
    class_name: str
    path: str
    is_file: bool
    group: str | None


def natural_order(text: str) -> list[tuple[int, str]]:
    """A sort key that puts ``clip_2`` before ``clip_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def find_splits(root: Path) -> dict[str | None, Path]:
    """Split → its folder; or only None → ``root``, where the folders in it are classes.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: folders of splits beside others, only ``train``, none of ``train``, or a split twice.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {LAYOUT}")
    names, _ = entries(root)
    own = {name: SPLIT_OF_FOLDER[name.lower()] for name in names if name.lower() in SPLIT_OF_FOLDER}
    if not own:
        return {None: root}
    if others := [name for name in names if name not in own]:
        raise ValueError(
            f"{root} holds {shown(own)} beside {shown(others)}: are folders there splits or classes? {LAYOUT}"
        )
    if len(set(own.values())) < len(own):
        raise ValueError(f"{root} holds {shown(own)}, two of which name one split: keep one of the two.")
    if "train" not in own.values() or len(own) == 1:
        raise ValueError(
            f"{root} holds only the splits {shown(own)}: it needs train and one of validation and test, or the class "
            "folders themselves, from which folds are made."
        )
    return {split: root / name for name, split in own.items()}


def _refuse_strange(folder: Path, files: Sequence[str], images: bool) -> None:
    """Refuse files in a class folder that are not videos or, with ``images``, not images."""
    suffixes, kind = (IMAGE_SUFFIXES, "images") if images else (VIDEO_SUFFIXES, "videos")
    strange = [name for name in files if not name.lower().endswith(suffixes)]
    if not strange:
        return
    advice = f"move them out of the class's folder, or convert them to one of {', '.join(suffixes)}."
    if not images and all(name.lower().endswith(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES) for name in strange):
        advice = "put the frames of a clip into a folder of its own, or pass images=True if each is a sample itself."
    raise ValueError(f"{folder} holds {len(strange)} files that are not {kind} ({shown(strange)}): {advice} {LAYOUT}")


def clips_of_class(
    split: str | None, folder: Path, class_name: str, groups: re.Pattern[str] | None, images: bool
) -> list[Clip]:
    """The clips in a class folder, in the natural order of their names.

    Raises:
        ValueError: none, a file or folder that is not a clip, a clip twice, or a name in which ``groups`` finds
            nothing.
    """
    names, files = entries(folder)
    files = [name for name in files if name.lower() not in LEFT_BEHIND]
    _refuse_strange(folder, files, images)
    if images and names:
        raise ValueError(f"{folder} holds folders ({shown(names)}): with images=True it may hold images only.")
    if not names and not files:
        raise ValueError(f"{folder} holds no clip: fill or remove it. {LAYOUT}")
    stems = [(name, name, False) for name in names] + [(Path(name).stem, name, True) for name in files]
    copies = Counter(stem for stem, _, _ in stems)
    if twice := [name for stem, name, _ in stems if copies[stem] > 1]:
        raise ValueError(f"{folder} holds clips of one name: {shown(sorted(twice))}. Keep one of each.")
    above = folder.name if split is None else f"{split}/{folder.name}"
    clips = []
    for stem, name, is_file in sorted(stems, key=lambda item: natural_order(item[0])):
        path = f"{folder}{os.sep}{name}"
        refuse_odd_name(path)
        clips.append(Clip(f"{above}/{stem}", split, class_name, path, is_file, _group(path, stem, groups)))
    return clips


def _group(path: str, stem: str, groups: re.Pattern[str] | None) -> str | None:
    """The text that group 1 of ``groups`` finds in a clip's name."""
    if groups is None:
        return None
    match = groups.search(stem)
    if match is None or match[1] is None:
        raise ValueError(f"groups={groups.pattern!r} finds no person or film in the name of {path}.")
    return match[1]


def scan_folder(
    root: Path,
    groups: re.Pattern[str] | None = None,
    images: bool = False,
    classes: Mapping[str, str] | None = None,
) -> list[Clip]:
    """All clips of a folder, by split, class folder and name; options as in ``ClipFolderConfig``.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: files beside the class folders, a folder that ``classes`` lacks, fewer than two classes, videos
            beside folders of frames, or see ``find_splits`` and ``clips_of_class``.
    """
    clips: list[Clip] = []
    for split, folder in find_splits(root).items():
        names, files = entries(folder)
        if loose := [name for name in files if name.lower().endswith((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))]:
            raise ValueError(f"{folder} holds {shown(loose)} beside the class folders, so without a class. {LAYOUT}")
        if unnamed := [name for name in names if classes and name not in classes]:
            raise ValueError(f"{folder} holds {shown(unnamed)}, which classes= gives no name.")
        for name in names:
            class_name = classes[name] if classes else name
            clips += clips_of_class(split, folder / name, class_name, groups, images)
    if len(present := {clip.class_name for clip in clips}) < 2:
        found = f"only the class {shown(present)}" if present else "no class folder"
        raise ValueError(f"{root} holds {found}: at least two are needed. {LAYOUT}")
    kinds = {clip.is_file: clip.path for clip in clips}
    if len(kinds) == 2:
        raise ValueError(
            f"{root} holds videos ({kinds[True]}) and folders of frames ({kinds[False]}), and rows have a column for "
            "one of them only: convert the others."
        )
    return clips


def folds_of(clips: Sequence[Clip]) -> dict[str, int]:
    """Clip id → the fold that tests it.

    Each class's clips by name, or with groups all groups by name, are cut into five contiguous blocks, as DFEW's folds
    are; block k is the test split of fold k.

    Raises:
        ValueError: fewer groups than folds.
    """
    if clips[0].group is None:
        return folds_by_rule({clip.clip_id: clip.class_name for clip in clips})
    names = sorted({str(clip.group) for clip in clips}, key=natural_order)
    if len(names) < NUM_FOLDS:
        raise ValueError(f"groups= finds {len(names)} ({shown(names)}): {NUM_FOLDS} folds need {NUM_FOLDS} or more.")
    of_group = blocks(names)
    return {clip.clip_id: of_group[str(clip.group)] for clip in clips}


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class ClipFolderConfig(ClipConfig):
    """Options of a folder of clips; ``name`` is ``default`` or ``fold_1`` … ``fold_5``.

    Attributes:
        groups: a regular expression searched for in the clips' names, whose group 1 names the person or film, such as
            ``r"^(S[0-9]+)_"``: no two splits then share one. Folds are built that way; existing splits are checked.
        images: read class folders of images, as sets of still faces have them: each is a clip of one frame.
        classes: names for the class folders where these are numbered, such as
            ``1=surprise,2=fear,3=disgust,4=happy,5=sad,6=angry,7=neutral``; by default the folders' names.
        missing: ``error`` or ``skip`` folders without a frame.
    """

    ABOUT = ABOUT
    NAMES = ("default", *(f"fold_{fold}" for fold in range(1, NUM_FOLDS + 1)))
    VALUES: ClassVar = {"images": (False, True), "missing": ("error", "skip")}

    groups: str | None = None
    images: bool = False
    classes: str | None = None

    def check(self) -> None:
        """Refuse options outside their values, and groups and classes that cannot be read."""
        super().check()
        self.group_pattern()
        self.class_of_folder()

    def group_pattern(self) -> re.Pattern[str] | None:
        """``groups``, compiled; ValueError if it is not a regular expression with a group."""
        if self.groups is None:
            return None
        try:
            pattern = re.compile(self.groups)
        except re.error as error:
            raise ValueError(f"groups={self.groups!r} is not a regular expression: {error}.") from error
        if not pattern.groups:
            raise ValueError(
                f"groups={self.groups!r} has no group: put ( ) around the part that names the person or film."
            )
        return pattern

    def class_of_folder(self) -> dict[str, str]:
        """``classes`` as folder → class, empty where it is not given; ValueError for another form."""
        pairs = [pair.split("=") for pair in (self.classes or "").split(",") if pair.strip()]
        if any(len(pair) != 2 or not all(map(str.strip, pair)) for pair in pairs):
            raise ValueError(f"classes={self.classes!r} is not of the form FOLDER=CLASS,FOLDER=CLASS.")
        return {folder.strip(): name.strip() for folder, name in pairs}

    @property
    def reads_videos(self) -> bool:
        """True for a folder of videos."""
        return self.open_source().is_video

    def open_source(self) -> "Source":
        """Find the clips, and check that their layout fits the configuration.

        Raises:
            FileNotFoundError: no data_dir, or it does not exist.
            ValueError: see ``scan_folder``; or a fold of a folder with splits of its own, or the reverse.
        """
        root = self.root
        clips = scan_folder(root, self.group_pattern(), self.images, self.class_of_folder())
        if not self.fold and clips[0].split is None:
            raise ValueError(
                f"{root} has no train and test folders of its own: name one of fold_1 … fold_{NUM_FOLDS}."
            )
        if self.fold and clips[0].split is not None:
            own = shown(dict.fromkeys(clip.split for clip in clips))
            raise ValueError(f"{root} has splits of its own ({own}), so no folds: name the configuration 'default'.")
        return Source(self, {clip.clip_id: clip.path for clip in clips}, clips)


@dataclass(frozen=True)
class Source(ClipSource):
    """The clips of a folder, by split, class and name."""

    config: ClipFolderConfig
    all_clips: list[Clip]

    def class_names(self) -> list[str]:
        """The classes, in the order of ``label``."""
        return sorted({clip.class_name for clip in self.all_clips})

    @property
    def is_video(self) -> bool:
        """True for video files, false for folders of frames and images."""
        return self.all_clips[0].is_file and not self.config.images

    def listed_clips(self) -> Listed:
        """Split → rows of all clips, by class and name.

        Raises:
            ValueError: a class without a clip in train, or a person or film (``groups``) in two splits.
        """
        folds = folds_of(self.all_clips) if self.config.fold else {}
        labels = {name: label for label, name in enumerate(self.class_names())}
        rows: Listed = {}
        for clip in self.all_clips:
            split = clip.split or ("test" if folds[clip.clip_id] == self.config.fold else "train")
            row = {"clip_id": clip.clip_id, "label": labels[clip.class_name], "path": clip.path}
            rows.setdefault(split, []).append(row if self.config.groups is None else {**row, "group": clip.group})
        rows = {split: rows[split] for split in ("train", "validation", "test") if split in rows}
        if lacking := self.lacking_classes(rows.get("train", [])):
            raise ValueError(
                f"train of {self.config.name} has no clip of {shown(lacking)} in {self.config.root}: add clips, or "
                "remove the class."
            )
        self._check_groups(rows)
        return rows

    def lacking_classes(self, rows: Iterable[Row]) -> list[str]:
        """The classes without a row."""
        present = {row["label"] for row in rows}
        return [name for label, name in enumerate(self.class_names()) if label not in present]

    def _check_groups(self, rows: Listed) -> None:
        """Refuse a person or film in two splits."""
        splits: dict[str, str] = {}
        for split, members in rows.items():
            for row in members:
                other = splits.setdefault(row["group"], split) if "group" in row else split
                if other != split:
                    raise ValueError(
                        f"{self.config.root} has clips of {row['group']} both in {other} and in {split}: "
                        f"{row['clip_id']}."
                    )

    def on_disk(self, split: str, rows: list[Row]) -> list[Row]:
        """The rows whose clip has a frame; of videos that is seen when they are counted.

        Raises:
            FileNotFoundError: some have none, and ``missing`` is ``error``; or all of a class in train have none.
        """
        _, empty = self.without_frames(rows)
        kept = [row for row in rows if row["clip_id"] not in set(empty)]
        lacking = self.lacking_classes(kept)
        if empty:
            message = f"Of the {len(rows)} {split} clips of {self.config.root}, {len(empty)} have no frame "
            message += f"({shown(empty)})."
            if self.config.missing == "error" or not kept or (split == "train" and lacking):
                raise FileNotFoundError(f"{message} {LAYOUT} Fill or remove them, or pass missing='skip'.")
            logger.warning("%s They are skipped.", message)
        if lacking:
            logger.warning("%s of %s has no clip of %s.", split, self.config.root, shown(lacking))
        return kept

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, and the classes."""
        frames = "images" if self.config.images else "video" if self.is_video else "folders"
        about = {"frames": frames, **super().describe(), "classes": self.class_names()}
        return about | ({"num_frames": 1} if self.config.images else {})

    def check(self) -> list[Finding]:
        """Classes that a split lacks."""
        lacking = {split: self.lacking_classes(rows) for split, rows in self.listed_clips().items()}
        texts = [f"{split} has none of {shown(names)}" for split, names in lacking.items() if names]
        found = "; ".join(texts) or f"{len(self.class_names())} classes"
        return [("every class is in every split", not texts, found)]


class ClipFolder(ClipBuilder):
    """A folder of class-named clips: its own splits, or five folds."""

    BUILDER_CONFIG_CLASS = ClipFolderConfig
    BUILDER_CONFIGS = [ClipFolderConfig(name=name) for name in ClipFolderConfig.NAMES]  # noqa: RUF012  # as the base
    DEFAULT_CONFIG_NAME = "default"
    config: ClipFolderConfig

    def class_names(self) -> Sequence[str]:
        """The names of the folders."""
        return self.config.open_source().class_names()

    def own_columns(self) -> dict[str, Any]:
        """``group`` on request."""
        return {} if self.config.groups is None else {"group": datasets.Value("string")}

    def frames_of(self, path: str) -> list[str]:
        """An image itself, or the frames of a folder."""
        return [path] if self.config.images else super().frames_of(path)
