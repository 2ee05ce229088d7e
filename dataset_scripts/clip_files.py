"""The module that all builders share: clips and frames on disk, folds, and the base classes of configuration, source
and builder.

It imports nothing of this project. datasets 3 copies a module that a loading script imports by a line like
``from .clip_files import …`` and does not search that module for further ones.

A configuration (``ClipConfig``) opens a copy, which gives a ``ClipSource``; the source lists the clips; the builder
(``ClipBuilder``) turns the listed clips into rows.
"""

import hashlib
import logging
import os
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias, TypeVar, get_type_hints

import datasets
from PIL import Image

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Row: TypeAlias = dict[str, Any]  # clip_id, label, path (None: not on disk), and the data set's own columns
Listed: TypeAlias = dict[str, list[Row]]  # split → rows
Finding: TypeAlias = tuple[str, bool, str]  # name of a check, whether it passed, what was found
Counts: TypeAlias = dict[str, dict[str, dict[str, int]]]  # configuration → split → class → number of clips

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp")  # the processor reads the same
OTHER_IMAGE_SUFFIXES = (".tif", ".tiff", ".gif", ".avif", ".heic", ".jp2")  # refused by name
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv")
LFS_POINTER = b"version https://git-lfs"  # what Git LFS leaves in place of a file that was not pulled
# Errors that Pillow raises for broken pictures, depending on the format and on what is broken.
BROKEN_PICTURE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

SIDES = ("train", "test")
NUM_FOLDS = 5
MAX_DEPTH = 7  # AFEW's faces, doubly nested, with classes, in a wrapping folder, are five levels deep
MAX_FOLDERS = 2000  # the largest tree has about a hundred folders that are not clips
NUM_SHOWN = 5  # offenders that a message names

# A number in a frame's name; with points it may be a time in seconds.
NUMBERS = re.compile(r"\d+(?:\.\d+)*")


# --- Folders and names ----------------------------------------------------------------------------------------------


def shown(items: Iterable[Any], num_shown: int = NUM_SHOWN) -> str:
    """The first few of ``items`` for a message, and the number of the others; escapes names that are not UTF-8."""
    texts = [str(item).encode("utf-8", "backslashreplace").decode() for item in items]
    more = f" and {len(texts) - num_shown} more" if len(texts) > num_shown else ""
    return ", ".join(texts[:num_shown]) + more


def is_debris(name: str) -> bool:
    """Recognise hidden files and what macOS leaves behind: ``._00001.jpg``, ``.DS_Store``, ``__MACOSX``."""
    return name.startswith((".", "__MACOSX"))


def entries(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in ``folder``, sorted, without debris; links count as their target."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            if not is_debris(entry.name):
                is_dir = False
                with suppress(OSError):  # of a link to itself
                    is_dir = entry.is_dir()
                (folders if is_dir else files).append(entry.name)
    return sorted(folders), sorted(files)


def walk(root: Path, about: "About", enter: Callable[[str], Any]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk over a tree, breadth first, and follow links, but not back into a folder above.

    Args:
        root: top folder.
        about: the data set, for messages.
        enter: function that returns for a folder's name if the folder is searched; false for clips.

    Yields:
        Each folder, the names of its folders and those of its files.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: the tree has far more folders than one of the data set.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {about.access}")
    waiting: list[tuple[Path, tuple[os.stat_result, ...]]] = [(root, ())]
    for num_seen, (folder, above) in enumerate(waiting):  # grows while it is walked
        if num_seen == MAX_FOLDERS:
            raise ValueError(
                f"{root} holds over {MAX_FOLDERS} folders, so it is not {about.name}'s own folder. {about.access}"
            )
        own = folder.stat()
        if any(os.path.samestat(own, other) for other in above):
            continue
        folders, files = entries(folder)
        yield folder, folders, files
        if len(above) < MAX_DEPTH:
            waiting.extend((folder / name, (*above, own)) for name in folders if enter(name))


def keep_clip(clips: dict[Key, str], clip_id: Key, path: str, name: object = None, advice: str = "keep one") -> None:
    """Note the path of a clip, and refuse a second one, unless it is a link to the first.

    Args:
        clips: clip → absolute path; changed in place.
        clip_id: the clip.
        path: its absolute path.
        name: name of the clip in a message; by default ``clip_id``.
        advice: what the message recommends.
    """
    other = clips.setdefault(clip_id, path)
    if other != path and not Path(other).samefile(path):
        raise ValueError(
            f"Clip {clip_id if name is None else name} lies both at {other} and at {path}: {advice}, or name the "
            "folder to use with clip_dir=."
        )


def keep_list(lists: dict[Key, Path], key: Key, path: Path) -> None:
    """Note the path of a list, and refuse a second one of other content."""
    other = lists.setdefault(key, path)
    if other != path and other.read_bytes() != path.read_bytes():
        raise ValueError(f"{other} and {path} differ. Remove one, or name the folder to use with split_dir=.")


def read_text(path: Path) -> str:
    """A list's text, with or without a byte order mark; ValueError if it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as CSV (UTF-8).") from error


def refuse_odd_name(folder: str, *names: str) -> bytes:
    """Encode a path and the names of files in it as UTF-8; ValueError if that fails, since rows hold paths as text."""
    try:
        return "\n".join((folder, *names)).encode()
    except UnicodeEncodeError as error:
        odd = next(name for name in (folder, *names) if not name.isascii() and re.search("[\ud800-\udfff]", name))
        path = odd if odd == folder else f"{folder}{os.sep}{odd}"
        raise ValueError(f"The name of {shown([path])} is not UTF-8, which rows require: rename it.") from error


# --- Frames ---------------------------------------------------------------------------------------------------------


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES) and not is_debris(name)


def picture_names(folder: str) -> list[str]:
    """Names of the pictures in a clip's folder, unordered.

    Raises:
        ValueError: a picture in an unsupported format, or a name that is not UTF-8.
    """
    names, others = [], []
    with os.scandir(folder) as found:
        for entry in found:
            if (lower := entry.name.lower()).endswith(IMAGE_SUFFIXES):
                names.append(entry.name)
            elif lower.endswith(OTHER_IMAGE_SUFFIXES):
                others.append(entry.name)
    names, others = [[name for name in some if not is_debris(name)] for some in (names, others)]
    if other := sorted({Path(name).suffix.lower() for name in others}):
        raise ValueError(
            f"{folder} holds {shown(other)} pictures, which are not read: convert them to one of "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    refuse_odd_name(folder, *names)
    return names


def list_frames(folder: str) -> list[str]:
    """Names of a clip's frames in time order, counted on disk; empty for a clip without frames.

    The last number of a name counts (``00001_00144.jpg`` → 144), since unpadded names sort as 1, 10, 11, …, 2 by text.
    Numbers may have gaps. A number with a point (``0.967.jpg``) may be a time in seconds. Its parts are compared one
    by one, which is right for seconds and for numbered parts alike if all frames have equally many decimals; otherwise
    it is refused.

    Raises:
        ValueError: a picture without a number, two with the same number, or numbers with points that can be read in
            two ways; or see ``picture_names``.
    """
    numbered: dict[Any, str] = {}
    spellings: dict[tuple[int, int], str] = {}  # numbers of parts and of decimals → an example
    for name in picture_names(folder):
        numbers = NUMBERS.findall(name.rpartition(".")[0])
        if not numbers:
            raise ValueError(f"{folder}/{name} has no frame number in its name: move it out of the clip's folder.")
        if "." in numbers[-1]:
            parts = numbers[-1].split(".")
            number: Any = tuple(map(int, parts))
            spelling = (len(parts), len(parts[-1]))
        else:
            number, spelling = int(numbers[-1]), (1, 0)
        if (other := numbered.setdefault(number, name)) is not name:
            raise ValueError(f"{folder} has two frames with the same number, {name} and {other}: keep one.")
        spellings[spelling] = name
    if len(spellings) > 1:
        raise ValueError(
            f"{folder} has frames named like {' and '.join(sorted(spellings.values()))}: the points may be those of "
            "seconds or stand between numbers, so the order is unknown. Rename the frames by whole numbers."
        )
    return [numbered[number] for number in sorted(numbered)]


def has_frames(folder: str) -> bool:
    """Look for any picture in a clip's folder: much cheaper than listing them all."""
    with os.scandir(folder) as found:
        return any(_is_picture(entry.name) for entry in found)


@contextmanager
def open_video(path: str) -> Iterator[tuple[Any, Any]]:
    """Open a video with PyAV, and give its container and its first video stream; cover pictures don't count.

    Raises:
        ImportError: PyAV is missing.
        ValueError: not a readable video. So is an error of FFmpeg's while it is read.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("The frames of videos are counted with PyAV: pip install av") from error
    # A title in another encoding than UTF-8 is not a reason to refuse a video. PyAV 19 accepts it without an option.
    options: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    cover = av.stream.Disposition.attached_pic
    try:
        with av.open(path, **options) as container:
            yield container, next(each for each in container.streams.video if not each.disposition & cover)
    except (av.error.FFmpegError, StopIteration) as error:
        reason = str(error) or "no video stream"
        raise ValueError(f"{path} is not a readable video ({reason}): unzip or download it again.") from error


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a video, up to its end or to where PyAV raises an IndexError: at the end of a file in which a stream
    appeared that its beginning lacks (MPEG-TS), when all packets have been given.
    """
    with suppress(IndexError):
        yield from container.demux(stream)


def count_video_frames(path: str) -> int:
    """Number of frames that a video shows, without decoding it.

    Counts packets, since a header may state no number (fragmented MP4), one that ignores the edit list, or a wrong one
    (AVI). Empty packets, and those that an edit list cuts off, are not counted.

    Raises:
        ImportError: PyAV is missing.
        ValueError: not a readable video, or one without a frame.
    """
    with open_video(path) as (container, stream):
        count = sum(packet.size > 0 and not packet.is_discard for packet in read_packets(container, stream))
    if not count:
        raise ValueError(f"{path} is a video without a single frame: unzip or download it again.")
    return count


# --- Folds ----------------------------------------------------------------------------------------------------------


def blocks(items: Sequence[Key]) -> dict[Key, int]:
    """Item → fold 1 … 5: the items cut into five contiguous blocks, the larger ones first."""
    sizes = {fold: (len(items) + NUM_FOLDS - fold) // NUM_FOLDS for fold in range(1, NUM_FOLDS + 1)}
    return dict(zip(items, (fold for fold, size in sizes.items() for _ in range(size)), strict=True))


def folds_by_rule(labels: Mapping[Key, Any]) -> dict[Key, int]:
    """Clip → the fold 1 … 5 that tests it, by the rule of the published lists of DFEW and MAFW.

    The clips of each class, in the order of ``labels``, are cut into five contiguous blocks; block k is the test side
    of fold k. With the clips in order of id it reproduces all 11,697 entries of DFEW's lists and 9,172 of MAFW's.
    """
    by_class: dict[Any, list[Key]] = {}
    for clip_id, label in labels.items():
        by_class.setdefault(label, []).append(clip_id)
    return {clip_id: fold for members in by_class.values() for clip_id, fold in blocks(members).items()}


def counts_by_rule(class_counts: Mapping[str, int]) -> Counts:
    """Clips per fold, side and class that the rule of the folds makes of a data set's class counts."""
    counts: Counts = {}
    for fold in range(1, NUM_FOLDS + 1):
        test = {name: (count + NUM_FOLDS - fold) // NUM_FOLDS for name, count in class_counts.items()}
        train = {name: count - test[name] for name, count in class_counts.items()}
        counts[f"fold_{fold}"] = {"train": train, "test": test}
    return counts


def check_fold_rule(sides: Mapping[str, Mapping[Key, Any]], fold: int, name: Callable[[Key], str] = str) -> Finding:
    """Compare the two lists of a fold (side → clip → label) with the rule of the folds."""
    labels = dict(sorted((sides["train"] | sides["test"]).items()))  # type: ignore[operator]
    folds = folds_by_rule(labels)
    other = [clip_id for clip_id in labels if (folds[clip_id] == fold) != (clip_id in sides["test"])]
    return finding("fold rule", len(labels), "clips are listed where the rule of the folds has them", map(name, other))


def finding(name: str, total: int, text: str, bad: Iterable[str]) -> Finding:
    """Make a check that counts the good ones of ``total`` and names the ``bad`` ones."""
    bad = list(bad)
    found = f"{total - len(bad)} of {total} {text}"
    return name, not bad, found + (f", not {shown(bad)}" if bad else "")


def refuse_overlap(sides: Mapping[str, Mapping[Key, Any]], where: str, name: Callable[[Key], str] = str) -> None:
    """Refuse a clip that is listed in both train and test."""
    if both := sides["train"].keys() & sides["test"].keys():
        raise ValueError(f"{where} share {len(both)} clips ({shown(sorted(map(name, both)))}): they must be disjoint.")


# --- Configuration, source and builder ------------------------------------------------------------------------------


@dataclass(frozen=True)
class About:
    """Facts about a data set.

    Attributes:
        name: the name that its authors gave it.
        description: one sentence.
        homepage: address.
        license: terms in a few words.
        access: how to get it, and which folder to pass as ``data_dir``; ends messages about what is missing.
        citation: BibTeX.
        names: the configurations, for messages.
    """

    name: str
    description: str
    names: str
    access: str
    homepage: str = ""
    license: str = ""
    citation: str = ""


@dataclass
class ClipConfig(datasets.BuilderConfig, ABC):
    """Options of a data set. A subclass adds its own and opens its source."""

    ABOUT: ClassVar[About]
    NAMES: ClassVar[tuple[str, ...]]  # of the configurations
    VALUES: ClassVar[dict[str, tuple[Any, ...]]]  # option → its allowed values

    missing: str = "error"

    @property
    def reads_videos(self) -> bool:
        """True for rows with ``video``, false for rows with ``frames``."""
        return getattr(self, "frames", None) in ("video", "original")

    @abstractmethod
    def open_source(self) -> "ClipSource":
        """Find the files that the configuration reads.

        Raises:
            FileNotFoundError: no ``data_dir``, or clips or lists are missing.
            ValueError: the files are invalid or contradict each other.
        """

    @property
    def root(self) -> Path:
        """The absolute ``data_dir``. Cached rows outlive the working directory; links keep the names the user sees."""
        if not self.data_dir:
            about = self.ABOUT
            raise FileNotFoundError(f"{about.name} needs data_dir=, the folder of your own copy. {about.access}")
        return Path(os.path.abspath(Path(self.data_dir).expanduser()))  # noqa: PTH100

    @property
    def fold(self) -> int:
        """The number of the fold, from 1; 0 for a configuration without folds."""
        match = re.search(r"fold_(\d+)$", self.name)
        return int(match[1]) if match else 0

    def check(self) -> None:
        """Refuse invalid options. Not done at construction, because datasets sets them one by one afterwards."""
        if self.name not in self.NAMES:
            raise ValueError(f"{self.ABOUT.name}: name one of {self.ABOUT.names}, not {self.name!r}.")
        for option, values in self.VALUES.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder by the options, the absolute data_dir and the state of the files that are read.

        So rows are never taken from a cache made before a list was edited or a clip was added, removed or completed.
        """
        self.check()
        if self.data_dir is not None:
            options = {option: getattr(self, option) for option in own_options(type(self))}
            state = self.open_source().fingerprint()
            config_kwargs = {**options, "data_dir": str(self.root), "state": state}
        return super().create_config_id(config_kwargs, custom_features)


def own_options(config: type[datasets.BuilderConfig]) -> dict[str, Any]:
    """The options that a data set adds to every configuration's, such as ``frames``, with their types."""
    base = {option.name for option in fields(datasets.BuilderConfig)}
    types = get_type_hints(config)
    return {option.name: types[option.name] for option in fields(config) if option.name not in base}


@dataclass(frozen=True)
class ClipSource(ABC):
    """The files of a copy that one configuration reads.

    Attributes:
        config: the configuration.
        clips: clip → absolute path of its video or folder of frames.
    """

    config: ClipConfig
    clips: Mapping[Any, str]

    @abstractmethod
    def listed_clips(self) -> Listed:
        """Split → a row for every clip of it, also for clips that are not on disk.

        Raises:
            FileNotFoundError, ValueError: lists or annotations that cannot be right.
        """

    @property
    def lists(self) -> Sequence[Path]:
        """The files that labels and splits are read from."""
        return ()

    @property
    def state_files(self) -> Iterable[Path]:
        """Files whose content changes the rows."""
        return self.lists

    @property
    def state_clips(self) -> Iterable[str]:
        """Clips whose names and times change the rows."""
        return self.clips.values()

    @property
    def folders(self) -> list[str]:
        """The folders that directly hold the clips."""
        return sorted({os.path.dirname(path) for path in self.clips.values()})  # noqa: PTH120  # many clips

    def fingerprint(self) -> str:
        """A hash over the content of the lists, and over names and times of the clips.

        A clip folder's time changes when frames come or go, a video's when it is written. Pictures replaced in place
        change no row: rows hold paths. Costs one stat a clip.
        """
        state = hashlib.sha256()
        for path in self.state_files:
            state.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        for clip in self.state_clips:
            state.update(refuse_odd_name(clip) + f"\0{os.stat(clip).st_mtime_ns}\0".encode())  # noqa: PTH116  # many
        return state.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Facts for the report of ``verify``: only values that JSON has.

        Some keys request checks instead: ``num_frames`` (every clip must have this many), ``num_short_clips`` (the
        published number of clips with fewer than 16 frames), ``classes`` (names of the labels if not ``CLASS_NAMES``)
        and ``published`` (expected counts if not ``PUBLISHED``).
        """
        return {"clips": self.folders, "lists": [str(path) for path in self.lists]}

    def check(self) -> list[Finding]:
        """Checks that only this data set needs."""
        return []

    def warn(self) -> None:  # noqa: B027  # most have nothing to log
        """Log possible problems that are not errors."""

    def without_frames(self, rows: Iterable[Row]) -> tuple[list[str], list[str]]:
        """Ids of the clips that are not on disk, and of those whose folder has no frame."""
        absent = [row["clip_id"] for row in rows if row["path"] is None]
        there = [row for row in rows if row["path"] is not None]
        return absent, [row["clip_id"] for row in there if os.path.isdir(row["path"]) and not has_frames(row["path"])]  # noqa: PTH112

    def skip_option(self, lacking: set[str]) -> str:
        """The option that leaves out these clips."""
        return "missing"

    def on_disk(self, split: str, rows: list[Row]) -> list[Row]:
        """The rows whose clip is on disk and has a frame.

        Raises:
            FileNotFoundError: some have none, and ``missing`` is ``error``; or all have none.
            ValueError: there is no row.
        """
        if not rows:
            where = shown(self.lists or self.folders)
            raise ValueError(f"The {split} split of {self.config.name} has no clip in {where}: unzip it again.")
        absent, empty = self.without_frames(rows)
        if not (lacking := {*absent, *empty}):
            return rows
        parts = [f"{len(absent)} are not on disk ({shown(absent)})"] if absent else []
        parts += [f"{len(empty)} have no frame ({shown(empty)})"] if empty else []
        found = f"{' and '.join(parts)} in {shown(self.folders)}"
        message = f"Of the {len(rows)} {split} clips of {self.config.name}, {found}."
        if self.config.missing == "error" or len(lacking) == len(rows):
            option = self.skip_option(lacking)
            raise FileNotFoundError(f"{message} Unzip all parts, or pass {option}='skip' to go without these clips.")
        logger.warning("%s They are skipped: scores are not comparable with papers.", message)
        return [row for row in rows if row["clip_id"] not in lacking]


class ClipBuilder(datasets.GeneratorBasedBuilder):
    """Builder of a data set: rows of its source with the frames counted.

    A subclass defines its configurations, ``CLASS_NAMES`` and the ``PUBLISHED`` counts.
    """

    BUILDER_CONFIG_CLASS: type[ClipConfig]
    CLASS_NAMES: ClassVar[tuple[str, ...]] = ()
    PUBLISHED: ClassVar[Counts] = {}
    config: ClipConfig

    def class_names(self) -> Sequence[str]:
        """Names of the classes in the order of ``label``."""
        return self.CLASS_NAMES

    def own_columns(self) -> dict[str, Any]:
        """Features of the columns that only this data set has."""
        return {}

    def frames_of(self, path: str) -> list[str]:
        """Absolute paths of a clip's frames in time order."""
        return [f"{path}{os.sep}{name}" for name in list_frames(path)]

    def _info(self) -> datasets.DatasetInfo:
        features: dict[str, Any] = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(self.class_names())),
            "num_frames": datasets.Value("int32"),
        }
        if self.config.reads_videos:
            has_video = hasattr(datasets, "Video")  # not in older releases of datasets 3
            features["video"] = datasets.Video(decode=False) if has_video else datasets.Value("string")
        else:
            features["frames"] = datasets.Sequence(datasets.Value("string"))
        about = self.config.ABOUT
        return datasets.DatasetInfo(
            description=about.description,
            features=datasets.Features(features | self.own_columns()),
            homepage=about.homepage,
            citation=about.citation,
            license=about.license,
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Check lists, labels and the presence of every clip before a row is written."""
        source = self.config.open_source()
        source.warn()
        # Rows are a list, because lists are what datasets cuts for num_proc and streaming workers.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"rows": source.on_disk(split, rows)})
            for split, rows in source.listed_clips().items()
        ]

    def _generate_examples(self, rows: list[Row]) -> Iterator[tuple[str, Row]]:
        for row in rows:
            path = row["path"]
            example = {column: value for column, value in row.items() if column != "path"}
            if "video" in self.info.features:
                example |= {"num_frames": count_video_frames(path), "video": path}
            else:
                frames = self.frames_of(path) if path else []
                example |= {"num_frames": len(frames), "frames": frames}
            yield row["clip_id"], example


# --- Clips whose names hold their labels -----------------------------------------------------------------------------


@dataclass
class NamedClipConfig(ClipConfig, ABC):
    """Options of a data set without lists, in which each clip's name holds its label."""

    CLIP_NAME: ClassVar[re.Pattern[str]]

    frames: str = "video"
    clip_dir: str | None = None

    def check(self) -> None:
        """Refuse options outside their values, and faces without their folder."""
        super().check()
        if self.frames == "faces" and self.clip_dir is None:
            name = self.ABOUT.name
            raise ValueError(f"frames='faces' needs clip_dir=, the folder of your face crops: {name} comes without.")

    def find_copies(self, frames: str | None = None) -> tuple[Path, dict[str, list[str]]]:
        """Return the searched folder, and clip → absolute paths of all its copies, the least nested first.

        Args:
            frames: ``video`` or ``faces``; by default the option.
        """
        root = Path(os.path.abspath(self.root / (self.clip_dir or "")))  # noqa: PTH100  # see ``root``
        copies: dict[str, list[str]] = {}
        for folder, folders, files in walk(root, self.ABOUT, lambda name: not self.CLIP_NAME.fullmatch(name)):
            named = [(name, name) for name in folders]
            if (frames or self.frames) == "video":
                named = [(name.rpartition(".")[0], name) for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
            for clip, name in named:
                if self.CLIP_NAME.fullmatch(clip):
                    copies.setdefault(clip, []).append(f"{folder}{os.sep}{name}")
        return root, copies

    def found_instead(self) -> str:
        """End of the message if clips of the requested kind are missing: the other kind, or how to get the set."""
        other = "video" if self.frames == "faces" else "faces"
        _, copies = self.find_copies(other)
        if not copies:
            return self.ABOUT.access
        folder = Path(next(iter(copies.values()))[0]).parent
        return f"Found {len(copies)} for frames={other!r} instead: pass that, with clip_dir='{folder}'."


def one_copy(clip_id: str, paths: list[str]) -> str:
    """The first of a clip's copies, if they are the same file by suffix and size.

    Raises:
        ValueError: they differ, such as a video and its conversion, or are folders, which are not compared.
    """
    kinds = {(Path(path).suffix.lower(), Path(path).stat().st_size) for path in paths}
    places = {os.path.realpath(path) for path in paths}
    if len(places) > 1 and (len(kinds) > 1 or Path(paths[0]).is_dir()):
        raise ValueError(
            f"Clip {clip_id} lies in {len(paths)} places that differ: {shown(paths)}. Remove all but one, or name the "
            "folder to use with clip_dir=."
        )
    return paths[0]


@dataclass(frozen=True)
class NamedClipSource(ClipSource):
    """The clips of a data set without lists.

    Attributes:
        strangers: names that look like a clip's but are not in the data set.
        num_copies: number of files left aside as further copies of a clip.
    """

    config: NamedClipConfig
    strangers: tuple[str, ...] = ()
    num_copies: int = 0

    @classmethod
    def choose(
        cls, config: NamedClipConfig, copies: dict[str, list[str]], wanted: Sequence[str], known: Iterable[str]
    ) -> Self:
        """One copy of each of the ``wanted`` clips; names that are not ``known`` are strangers."""
        there = {name: copies[name] for name in wanted if name in copies}
        clips = {name: one_copy(name, paths) for name, paths in there.items()}
        strangers = tuple(sorted(copies.keys() - set(known)))
        return cls(config, clips, strangers, sum(len(paths) - 1 for paths in there.values()))

    def warn(self) -> None:
        """Log which names are left out."""
        if self.strangers:
            name = self.config.ABOUT.name
            logger.warning("Left out, since %s has no clips of these names: %s.", name, shown(self.strangers))

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, and the number of copies."""
        return {"frames": self.config.frames, **super().describe(), "copies left aside": self.num_copies}

    def check_names(self) -> Finding:
        """Check that the data set has a clip of every name."""
        text = f"names that {self.config.ABOUT.name} lacks: {shown(self.strangers) or 'none'}"
        return "names", not self.strangers, text
