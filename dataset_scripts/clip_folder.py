"""One's own clips in folders named by class: any classes, videos or folders of frames.

    dataset_scripts.load_dataset("clip_folder", data_dir="DIR")                                       # datasets 4, 5
    datasets.load_dataset("dataset_scripts/clip_folder.py", data_dir="DIR", trust_remote_code=True)  # datasets 3

Where DIR has its own splits, the configuration is ``default``:

    DIR/train/<class>/<clip>    and    DIR/validation/<class>/<clip> (or val), DIR/test/<class>/<clip>: one or both

Where it has none, the configurations are ``fold_1`` … ``fold_5``, each with splits ``train`` and ``test``:

    DIR/<class>/<clip>

A clip is a video file or a folder of frames, and all clips are of one kind. In the folds, neighbouring names stay
together, since they are mostly cut from the same film; ``groups`` keeps together all clips of a person or film.

Columns: ``clip_id`` (where it lies in DIR: ``train/happy/clip_1``), ``label`` (the classes are the folders' names,
sorted), ``num_frames`` (counted on disk), ``video`` or ``frames`` (absolute paths in time order), and ``group`` where
``groups`` is given. One self-contained file, because datasets 3 copies a loading script out of its folder.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

logger = logging.getLogger(__name__)

CLASS_NAMES: tuple[str, ...] = ()  # each folder has its own: Source.class_names
PUBLISHED: dict[str, dict[str, dict[str, int]]] = {}
NUM_FOLDS = 5
SPLIT_OF_FOLDER = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
LAYOUT = (
    "Expected DIR/<class>/<clip>, or DIR/train/<class>/<clip> and the same in DIR/validation or DIR/test; a clip is "
    "a video file or a folder of frames."
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv")
LEFT_BEHIND = ("desktop.ini", "thumbs.db")  # by Windows, in any folder
NUM_SHOWN = 5  # how many offenders a message names
NUMBERS = re.compile(r"[0-9]+")


# --- What lies on disk ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A clip on disk.

    Attributes:
        clip_id: its path in the data's folder, without suffix.
        split: the split it lies in; None where the folder has no splits of its own.
        class_name: name of the folder it lies in.
        path: absolute path of its video or folder of frames.
        is_video: whether it is a video file.
        group: the person or film that ``groups`` finds in its name.
    """

    clip_id: str
    split: str | None
    class_name: str
    path: str
    is_video: bool
    group: str | None


def shown(items: Iterable[Any]) -> str:
    """The first few of ``items`` for an error message, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - NUM_SHOWN} more" if len(texts) > NUM_SHOWN else ""
    return ", ".join(texts[:NUM_SHOWN]) + more


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
    names, _ = _entries(root)
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
            f"{root} holds of splits only {shown(own)}: it needs train and one of validation and test, or the class "
            "folders themselves, from which folds are made."
        )
    return {split: root / name for name, split in own.items()}


def clips_of_class(split: str | None, folder: Path, groups: re.Pattern[str] | None) -> list[Clip]:
    """The clips in a class folder, in the natural order of their names.

    Raises:
        ValueError: none, a file that is no video, a clip twice, or a name in which ``groups`` finds nothing.
    """
    names, files = _entries(folder)
    files = [name for name in files if name.lower() not in LEFT_BEHIND]
    if strange := [name for name in files if not name.lower().endswith(VIDEO_SUFFIXES)]:
        raise ValueError(
            f"{folder} holds {len(strange)} files that are no videos ({shown(strange)}): move them out of the class's "
            f"folder; frames belong in a folder a clip. {LAYOUT}"
        )
    if not names and not files:
        raise ValueError(f"{folder} holds no clip: fill or remove it. {LAYOUT}")
    stems = [(name, name, False) for name in names] + [(Path(name).stem, name, True) for name in files]
    copies = Counter(stem for stem, _, _ in stems)
    if twice := [name for stem, name, _ in stems if copies[stem] > 1]:
        raise ValueError(f"{folder} holds clips of one name: {shown(sorted(twice))}. Keep one of each.")
    above = folder.name if split is None else f"{split}/{folder.name}"
    return [
        Clip(
            f"{above}/{stem}",
            split,
            folder.name,
            f"{folder}{os.sep}{name}",
            is_video,
            _group(folder / name, stem, groups),
        )
        for stem, name, is_video in sorted(stems, key=lambda item: natural_order(item[0]))
    ]


def _group(path: Path, stem: str, groups: re.Pattern[str] | None) -> str | None:
    """What group 1 of ``groups`` finds in a clip's name."""
    if groups is None:
        return None
    match = groups.search(stem)
    if match is None or match[1] is None:
        raise ValueError(f"groups={groups.pattern!r} finds no person or film in the name of {path}.")
    return match[1]


def scan_folder(root: Path, groups: re.Pattern[str] | None = None) -> list[Clip]:
    """All clips of a folder, by split, class and name.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: files beside the class folders, fewer than two classes, videos beside folders of frames, or see
            ``find_splits`` and ``clips_of_class``.
    """
    clips: list[Clip] = []
    for split, folder in find_splits(root).items():
        names, files = _entries(folder)
        if loose := [name for name in files if name.lower().endswith((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))]:
            raise ValueError(f"{folder} holds {shown(loose)} beside the class folders, so without a class. {LAYOUT}")
        for name in names:
            clips += clips_of_class(split, folder / name, groups)
    if len(classes := {clip.class_name for clip in clips}) < 2:
        found = f"only the class {shown(classes)}" if classes else "no class folder"
        raise ValueError(f"{root} holds {found}: at least two are needed. {LAYOUT}")
    kinds = {clip.is_video: clip.path for clip in clips}
    if len(kinds) == 2:
        raise ValueError(
            f"{root} holds videos ({kinds[True]}) and folders of frames ({kinds[False]}), and rows have a column for "
            "one of them only: convert the others."
        )
    return clips


# --- Clips and their frames ---------------------------------------------------------------------------------------


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


# --- Folds --------------------------------------------------------------------------------------------------------


def blocks(items: Sequence[Any]) -> dict[Any, int]:
    """Item → fold 1 … 5: the items cut in five contiguous blocks, the larger ones first."""
    quotient, rest = divmod(len(items), NUM_FOLDS)
    sizes = [quotient + (fold < rest) for fold in range(NUM_FOLDS)]
    numbers = [fold for fold, size in enumerate(sizes, start=1) for _ in range(size)]
    return dict(zip(items, numbers, strict=True))


def folds_by_rule(clips: Sequence[Clip]) -> dict[str, int]:
    """Clip id → the fold that tests it.

    Each class's clips by name, or with groups all groups by name, are cut in five contiguous blocks, as DFEW's folds
    are; block k is the test split of fold k.

    Raises:
        ValueError: fewer groups than folds.
    """
    if clips[0].group is None:
        by_class: dict[str, list[str]] = {}
        for clip in clips:
            by_class.setdefault(clip.class_name, []).append(clip.clip_id)
        return {clip_id: fold for members in by_class.values() for clip_id, fold in blocks(members).items()}
    names = sorted({str(clip.group) for clip in clips}, key=natural_order)
    if len(names) < NUM_FOLDS:
        raise ValueError(f"groups= finds {len(names)} ({shown(names)}): {NUM_FOLDS} folds need {NUM_FOLDS} or more.")
    of_group = blocks(names)
    return {clip.clip_id: of_group[clip.group] for clip in clips}


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class ClipFolderConfig(datasets.BuilderConfig):
    """Options of a folder of clips; ``name`` is ``default`` or ``fold_1`` … ``fold_5``.

    Attributes:
        groups: a regular expression searched for in the clips' names, whose group 1 names the person or film, such as
            ``r"^(S[0-9]+)_"``: no two splits then share one. Folds are made so; splits of one's own are checked.
        missing: what becomes of folders without a frame: ``error`` or ``skip``.
    """

    groups: str | None = None
    missing: str = "error"

    @property
    def fold(self) -> int | None:
        """The fold, 1 … 5, or None for the folder's own splits."""
        return None if self.name == "default" else int(self.name.removeprefix("fold_"))

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if not re.fullmatch(f"default|fold_[1-{NUM_FOLDS}]", self.name):
            raise ValueError(f"A folder of clips comes as 'default' or fold_1 … fold_{NUM_FOLDS}, not {self.name!r}.")
        if self.missing not in ("error", "skip"):
            raise ValueError(f"missing={self.missing!r} is not one of ('error', 'skip').")
        self.group_pattern()

    def group_pattern(self) -> re.Pattern[str] | None:
        """``groups``, compiled; ValueError where it is no regular expression with a group."""
        if self.groups is None:
            return None
        try:
            pattern = re.compile(self.groups)
        except re.error as error:
            raise ValueError(f"groups={self.groups!r} is no regular expression: {error}.") from error
        if not pattern.groups:
            raise ValueError(
                f"groups={self.groups!r} has no group: put ( ) around the part that names the person or film."
            )
        return pattern

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: the options, the absolute data_dir and the state of the clips.

        So clips added, removed, moved to another class or filled up never meet rows cached before, whichever way the
        set is loaded.
        """
        self.check()
        if self.data_dir is not None:
            base = {option.name for option in fields(datasets.BuilderConfig)}
            options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in base}
            source = open_source(self)
            config_kwargs = {**options, "data_dir": str(source.root), "state": source.fingerprint()}
        return super().create_config_id(config_kwargs, custom_features)


@dataclass(frozen=True)
class Source:
    """The clips of a folder; ``root`` is its absolute path."""

    root: Path
    clips: tuple[Clip, ...]

    @cached_property
    def class_names(self) -> list[str]:
        """The classes, in the order of ``label``."""
        return sorted({clip.class_name for clip in self.clips})

    @property
    def is_video(self) -> bool:
        """Whether the clips are video files; else they are folders of frames."""
        return self.clips[0].is_video

    def fingerprint(self) -> str:
        """A hash over paths, groups and times of the clips.

        A clip folder's time changes when frames come or go, a video's when it is written. Costs one stat a clip.
        """
        states = [(clip.path, clip.group, Path(clip.path).stat().st_mtime_ns) for clip in self.clips]
        return hashlib.sha256(repr(states).encode()).hexdigest()


def open_source(config: ClipFolderConfig) -> Source:
    """Find the clips, and see that they are laid out as the configuration reads them.

    Raises:
        FileNotFoundError: no data_dir, or not there.
        ValueError: see ``scan_folder``; or a fold of a folder with splits of its own, or the reverse.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"A folder of clips needs data_dir=, where it lies. {LAYOUT}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    root = Path(os.path.abspath(Path(config.data_dir).expanduser()))  # noqa: PTH100
    clips = scan_folder(root, config.group_pattern())
    if config.fold is None and clips[0].split is None:
        raise ValueError(f"{root} has no train and test folders of its own: name one of fold_1 … fold_{NUM_FOLDS}.")
    if config.fold is not None and clips[0].split is not None:
        own = shown(dict.fromkeys(clip.split for clip in clips))
        raise ValueError(f"{root} has splits of its own ({own}), so no folds: name the configuration 'default'.")
    return Source(root, tuple(clips))


def listed_clips(config: ClipFolderConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """Split → rows of all clips, by class and name.

    Raises:
        ValueError: a class without a clip in train, or a person or film (``groups``) in two splits.
    """
    folds = {} if config.fold is None else folds_by_rule(source.clips)
    rows: dict[str, list[dict[str, Any]]] = {}
    for clip in source.clips:
        split = clip.split or ("test" if folds[clip.clip_id] == config.fold else "train")
        row = {"clip_id": clip.clip_id, "label": source.class_names.index(clip.class_name), "path": clip.path}
        rows.setdefault(split, []).append(row if config.groups is None else {**row, "group": clip.group})
    rows = {split: rows[split] for split in ("train", "validation", "test") if split in rows}
    if lacking := lacking_classes(source, rows.get("train", [])):
        raise ValueError(
            f"train of {config.name} has no clip of {shown(lacking)} in {source.root}: add clips, or remove the class."
        )
    _check_groups(source, rows)
    return rows


def lacking_classes(source: Source, rows: Iterable[dict[str, Any]]) -> list[str]:
    """The classes without a row."""
    present = {row["label"] for row in rows}
    return [name for label, name in enumerate(source.class_names) if label not in present]


def _check_groups(source: Source, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse a person or film in two splits."""
    splits: dict[str, str] = {}
    for split, members in rows.items():
        for row in members:
            other = splits.setdefault(row["group"], split) if "group" in row else split
            if other != split:
                raise ValueError(
                    f"{source.root} has clips of {row['group']} both in {other} and in {split}: {row['clip_id']}."
                )


def on_disk(config: ClipFolderConfig, source: Source, split: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose clip has a frame; of videos that is seen when they are counted.

    Raises:
        FileNotFoundError: some have none, and ``missing`` is ``error``; or all of a class in train have none.
    """
    empty = set() if source.is_video else {row["clip_id"] for row in rows if not has_frames(row["path"])}
    kept = [row for row in rows if row["clip_id"] not in empty]
    lacking = lacking_classes(source, kept)
    if empty:
        message = (
            f"Of the {len(rows)} {split} clips of {source.root}, {len(empty)} have no frame ({shown(sorted(empty))})."
        )
        if config.missing == "error" or not kept or (split == "train" and lacking):
            raise FileNotFoundError(f"{message} {LAYOUT} Fill or remove them, or pass missing='skip'.")
        logger.warning("%s They are skipped.", message)
    if lacking:
        logger.warning("%s of %s has no clip of %s.", split, source.root, shown(lacking))
    return kept


def describe_source(config: ClipFolderConfig, source: Source) -> dict[str, Any]:
    """What is read, for a report."""
    folders = sorted({str(Path(clip.path).parent) for clip in source.clips})
    return {
        "frames": "video" if source.is_video else "folders",
        "clips": folders,
        "lists": [],
        "classes": source.class_names,
    }


def check_source(config: ClipFolderConfig, source: Source) -> list[tuple[str, bool, str]]:
    """Checks that only a folder of one's own needs: name, whether passed, and what was found."""
    lacking = {split: lacking_classes(source, rows) for split, rows in listed_clips(config, source).items()}
    texts = [f"{split} has none of {shown(names)}" for split, names in lacking.items() if names]
    return [("every class is in every split", not texts, "; ".join(texts) or f"{len(source.class_names)} classes.")]


class ClipFolder(datasets.GeneratorBasedBuilder):
    """A folder of class-named clips: its own splits, or five folds."""

    BUILDER_CONFIG_CLASS = ClipFolderConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        ClipFolderConfig(name="default", description="The folder's own splits."),
        *(
            ClipFolderConfig(name=f"fold_{k}", description=f"Fold {k} of {NUM_FOLDS}.")
            for k in range(1, NUM_FOLDS + 1)
        ),
    ]
    DEFAULT_CONFIG_NAME = "default"
    config: ClipFolderConfig

    def _info(self) -> datasets.DatasetInfo:
        source = open_source(self.config)
        features: dict[str, Any] = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=source.class_names),
            "num_frames": datasets.Value("int32"),
        }
        if source.is_video:
            has_video = hasattr(datasets, "Video")  # not in older releases of datasets 3
            features["video"] = datasets.Video(decode=False) if has_video else datasets.Value("string")
        else:
            features["frames"] = datasets.Sequence(datasets.Value("string"))
        if self.config.groups is not None:
            features["group"] = datasets.Value("string")
        return datasets.DatasetInfo(
            description="Clips in folders named by class.", features=datasets.Features(features)
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Layout, classes and the presence of every clip are checked here, before a row is written."""
        source = open_source(self.config)
        # A list, because lists are what datasets cuts for num_proc and streaming workers.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"rows": on_disk(self.config, source, split, rows)})
            for split, rows in listed_clips(self.config, source).items()
        ]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        is_video = "video" in self.info.features
        for row in rows:
            path = row["path"]
            example = {column: value for column, value in row.items() if column != "path"}
            if is_video:
                example |= {"num_frames": count_video_frames(path), "video": path}
            else:
                names = list_frames(path)
                example |= {"num_frames": len(names), "frames": [f"{path}{os.sep}{name}" for name in names]}
            yield row["clip_id"], example
