"""MAFW (Liu et al., ACM MM 2022), read from the user's own copy: 9,172 clips of 11 emotions, 8,996 of 43, 5 folds.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("mafw", "fold_1", data_dir="MAFW")                                # datasets 4, 5
    datasets.load_dataset("dataset_scripts/mafw.py", "fold_1", data_dir="MAFW", trust_remote_code=True)  # datasets 3

One self-contained file, because datasets 3 copies a loading script out of its folder. No label, list, caption or
picture of MAFW is in here: only counts and the rule of the folds, both of which can be recomputed from any copy.

Columns: ``clip_id`` (five digits), ``label``, ``num_frames`` (counted on disk), and ``frames`` (absolute paths in
time order) or, with ``frames="video"``, ``video``; with ``captions=True`` also ``caption_zh`` and ``caption_en``.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from PIL import Image

logger = logging.getLogger(__name__)

# Of the single-labelled clips, in MAFW's own order (1 … 11); see ``class_names`` for the compound ones.
CLASS_NAMES = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
)
NUM_FOLDS = 5
SIDES = ("train", "test")
FRAME_KINDS = ("faces", "video")

CLASS_COUNTS = dict(zip(CLASS_NAMES, (1390, 639, 625, 1242, 1138, 1470, 1072, 236, 916, 262, 182), strict=True))
NUM_COMPOUND_CLIPS = 8996
NUM_COMPOUND_CLASSES = 43  # the 11, and 32 joined of two or more of them


def block_sizes(num_clips: int) -> list[int]:
    """Sizes of the five contiguous blocks that the rule of the folds cuts a class in: the larger ones first."""
    quotient, rest = divmod(num_clips, NUM_FOLDS)
    return [quotient + (fold < rest) for fold in range(NUM_FOLDS)]


# By the rule of the folds from the class counts. Of the compound folds only the totals are published.
PUBLISHED = {
    f"fold_{fold + 1}": {
        "train": {name: count - block_sizes(count)[fold] for name, count in CLASS_COUNTS.items()},
        "test": {name: block_sizes(count)[fold] for name, count in CLASS_COUNTS.items()},
    }
    for fold in range(NUM_FOLDS)
}

HOMEPAGE = "https://mafw-database.github.io/MAFW"
ACCESS = (
    f"MAFW is given out by its authors on request: send the form of {HOMEPAGE} by e-mail, unzip what you get and pass "
    "the folder with data/ and Train & Test Set/ in it as data_dir."
)
CITATION = """\
@inproceedings{liu2022mafw,
  title={{MAFW}: A Large-scale, Multi-modal, Compound Affective Database for Dynamic Facial Expression Recognition in
         the Wild},
  author={Liu, Yuanyuan and Dai, Wei and Feng, Chuanxu and Wang, Wenbin and Yin, Guanghao and Zeng, Jiabei and
          Shan, Shiguang},
  booktitle={Proceedings of the 30th ACM International Conference on Multimedia},
  pages={24--32},
  year={2022}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
MAX_FOLDERS = 2000  # a MAFW tree has fewer than 100 folders that are not clips
NUM_SHOWN = 5  # how many offenders an error names
NUM_LOOKED_INTO = 9  # pictures whose shape tells faces from whole pictures

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
NUMBERS = re.compile(r"[0-9]+")


# --- What lies on disk ------------------------------------------------------------------------------------------


def shown(items: Iterable[Any]) -> str:
    """The first few of ``items`` for an error message, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - NUM_SHOWN} more" if len(texts) > NUM_SHOWN else ""
    return ", ".join(texts[:NUM_SHOWN]) + more


def is_debris(name: str) -> bool:
    """Whether ``name`` is what macOS leaves behind (``._00001.jpg``, ``.DS_Store``, ``__MACOSX``) or hidden."""
    return name.startswith((".", "__MACOSX"))


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder below (and with) ``root``, the names of its folders and of its files; not into clips, no debris.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: it holds far more folders than a MAFW tree does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    for number, (path, folders, files) in enumerate(os.walk(root, followlinks=True)):
        if number == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not MAFW's own folder. {ACCESS}")
        folders[:] = sorted(name for name in folders if not is_debris(name))
        yield Path(path), [*folders], sorted(name for name in files if not is_debris(name))
        folders[:] = [name for name in folders if not name.isdigit()]


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
    for folder, folders, files in walk(top):
        named = clip_dir or any(map(CLIP_FOLDER[frames].fullmatch, folder.relative_to(top.parent).parts))
        videos = {name.rpartition(".")[0]: name for name in files if name.lower().endswith(VIDEO_SUFFIXES)}
        for kind, names in (("faces", {name: name for name in folders}), ("video", videos)):
            here = [(stem.zfill(5), f"{folder}{os.sep}{name}") for stem, name in names.items() if stem.isdecimal()]
            if here and not (named and kind == frames):
                others.append(f"{folder} (frames={kind!r}, clip_dir=)")
                continue
            for clip_id, path in here:
                if clips.setdefault(clip_id, path) != path:
                    raise ValueError(
                        f"Clip {clip_id} lies both at {clips[clip_id]} and at {path}: keep one, or name the folder to "
                        "use with clip_dir=."
                    )
    if not clips:
        raise FileNotFoundError(
            f"No clips for frames={frames!r} (MAFW's folder {FOLDER_NAMES[frames]}) below {top}. "
            + (f"Found instead, with the options that read it: {shown(others)}." if others else ACCESS)
        )
    return dict(sorted(clips.items()))


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


def whole_pictures(clips: Iterable[str]) -> str:
    """What to say where most pictures looked into are wider than 5 : 4, as films are and crops of a face are not.

    Looks into one picture of a few clips, spread over all ``clips``, which are paths. Empty where all is well.
    """
    paths, sizes = list(clips), []
    for path in paths[:: max(1, len(paths) // NUM_LOOKED_INTO)]:
        try:
            with Image.open(f"{path}{os.sep}{min(_frame_names(path))}") as image:
                sizes.append(image.size)
        except (OSError, ValueError):  # a broken picture, or a folder without one: met elsewhere
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
    """A line of a list: the label as written (``anger``, ``anger_disgust``), and the captions if it has any."""

    label: str
    caption_zh: str | None = None
    caption_en: str | None = None


def find_lists(root: Path, subset: str) -> tuple[dict[tuple[int, str], Path], dict[tuple[int, str], Path]]:
    """(fold, ``train`` or ``test``) → its list, of those without captions and of those with.

    Args:
        root: folder of the lists, such as ``single/no_caption/set_1/train.txt`` below it.
        subset: ``single`` or ``compound``, told by the innermost folder of such a name.

    Raises:
        ValueError: two different files for one list.
    """
    found: tuple[dict[tuple[int, str], Path], ...] = ({}, {})
    for folder, _, files in walk(root):
        parts = folder.relative_to(root.parent).parts[::-1]
        kind, fold, captions = (
            next((match[1].lower() for match in map(pattern.fullmatch, parts) if match), "")
            for pattern in (SUBSET_FOLDER, FOLD_FOLDER, CAPTION_FOLDER)
        )
        for name in files if kind == subset and fold else ():
            if (side := name.lower().removesuffix(".txt")) in SIDES:
                other = found[captions == "with"].setdefault((int(fold), side), folder / name)
                if other.read_bytes() != (folder / name).read_bytes():
                    raise ValueError(f"{other} and {folder / name} differ. Remove one, or choose with split_dir=.")
    return found[0], found[1]


def is_chinese(text: str) -> bool:
    """Whether the signs of ``text`` beyond ASCII are those of Chinese as MAFW's captions are written.

    Bytes read in a wrong encoding often make signs, but rare ones: of what they make, far less than nine tenths is in
    GB 2312, the list of the signs in common use. Without any such sign there is nothing to be wrong.
    """
    signs = "".join(sign for sign in text if not sign.isascii())
    return 10 * len(signs.encode("gb2312", "ignore").decode("gb2312")) >= 9 * len(signs)


def read_text(path: Path) -> str:
    """A list's text: UTF-8 as no_caption is or, as with_caption, GBK.

    GBK comes second, for it takes most of UTF-8 too, and makes nonsense of it.

    Raises:
        ValueError: neither, or so only by chance.
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
        ValueError: see ``read_text``; a line that is no clip and label, an unknown label, or a clip twice.
    """
    clips: dict[str, ListedClip] = {}
    for number, line in enumerate(map(str.strip, read_text(path).split("\n")), start=1):
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
            raise ValueError(f"{where} has the label {cells[1]!r}, which is not made of {', '.join(CLASS_NAMES)}.")
        if subset == "single" and len(emotions) > 1:
            raise ValueError(f"{where} has a compound label, in a list of clips with a single one.")
        if clip_id in clips:
            raise ValueError(f"{where} lists the clip a second time.")
        clips[clip_id] = ListedClip(cells[1], *(cell or None for cell in cells[2:]))
    return clips


def folds_by_rule(labels: Mapping[str, str]) -> dict[str, int]:
    """Clip id → the fold (1 … 5) that tests it, by the rule of MAFW's own single-label lists.

    Within each class, the clips sorted by id are cut in five contiguous blocks, the larger ones first; block k is
    the test side of fold k. It reproduces all 9,172 entries of the published lists.
    """
    folds: dict[str, int] = {}
    for name in set(labels.values()):
        members = sorted(clip_id for clip_id, label in labels.items() if label == name)
        numbers = [fold for fold, size in enumerate(block_sizes(len(members)), start=1) for _ in range(size)]
        folds.update(zip(members, numbers, strict=True))
    return folds


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class MAFWConfig(datasets.BuilderConfig):
    """Options of MAFW; ``name`` is ``fold_1`` … ``fold_5`` (11 classes) or ``compound_fold_1`` … (43 classes).

    Attributes:
        frames: ``faces`` (data/frames, the official face frames, which papers use) or ``video`` (data/clips, whole
            pictures).
        clip_dir: folder of the clips if it is not named as MAFW names it; absolute or relative to data_dir.
        split_dir: folder of the lists if it is not below data_dir; absolute or relative to data_dir.
        captions: add the columns ``caption_zh`` and ``caption_en`` from with_caption; None for clips without any.
        missing: what becomes of listed clips that are not on disk or have no frame: ``error`` or ``skip``.
    """

    frames: str = "faces"
    clip_dir: str | None = None
    split_dir: str | None = None
    captions: bool = False
    missing: str = "error"

    @property
    def subset(self) -> str:
        """``single`` or ``compound``."""
        return "compound" if self.name.startswith("compound") else "single"

    @property
    def fold(self) -> int:
        """The fold, 1 … 5."""
        return int(self.name.rpartition("_")[2])

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if not re.fullmatch(f"(compound_)?fold_[1-{NUM_FOLDS}]", self.name):
            names = f"fold_1 … fold_{NUM_FOLDS} or compound_fold_1 … compound_fold_{NUM_FOLDS}"
            raise ValueError(f"MAFW comes in folds: name one of {names}, not {self.name!r}.")
        for option, values in {"frames": FRAME_KINDS, "missing": ("error", "skip")}.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: the options, the absolute data_dir and the state of what is read there."""
        self.check()
        if self.data_dir is not None:
            base = {option.name for option in fields(datasets.BuilderConfig)}
            options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in base}
            source = open_source(self)
            config_kwargs = {**options, "data_dir": str(source.root), "state": source.fingerprint()}
        return super().create_config_id(config_kwargs, custom_features)


@dataclass(frozen=True)
class Source:
    """What one configuration reads.

    Attributes:
        root: the tree.
        clips: clip id → absolute path of its folder of frames or of its video.
        lists: ``train`` and ``test`` → the list that gives the labels: the one without captions where there is one.
        caption_lists: ``train`` and ``test`` → the list with captions, where there is one.
        class_lists: the lists whose labels make up the compound classes, of all folds; empty for the single ones.
    """

    root: Path
    clips: dict[str, str]
    lists: dict[str, Path]
    caption_lists: dict[str, Path]
    class_lists: tuple[Path, ...]

    def fingerprint(self) -> str:
        """A hash over the content of the lists, and over names and times of the clips.

        A clip folder's time changes when frames come or go, a video's when it is written. Pictures replaced in place
        are not noticed, nor need they be: rows hold paths. Costs one stat a clip.
        """
        state = hashlib.sha256()
        for path in (*self.lists.values(), *self.caption_lists.values(), *self.class_lists):
            state.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        for clip in self.clips.values():
            state.update(f"{clip}\0{Path(clip).stat().st_mtime_ns}\0".encode())
        return state.hexdigest()


def open_source(config: MAFWConfig) -> Source:
    """Find what a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, no clips of the asked kind, or no lists.
        ValueError: see ``find_clips`` and ``find_lists``.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"MAFW needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    root = Path(os.path.abspath(Path(config.data_dir).expanduser()))  # noqa: PTH100
    clips = find_clips(root, config.frames, config.clip_dir)
    top = root / (config.split_dir or "")
    plain, captioned = find_lists(top, config.subset)
    lists = captioned | plain
    # The compound classes are those of all folds together: a fold may lack one, and labels would shift from then on.
    folds = range(1, NUM_FOLDS + 1) if config.subset == "compound" else (config.fold,)
    if missing := [f"set_{fold}/{side}.txt" for fold in folds for side in SIDES if (fold, side) not in lists]:
        raise FileNotFoundError(
            f"There is no {shown(missing)} in a folder {config.subset!r} below {top}, and {config.name} "
            "needs it: add MAFW's Train & Test Set, or pass the folder that has it as split_dir=."
        )
    if config.captions and any((config.fold, side) not in captioned for side in SIDES):
        raise FileNotFoundError(
            f"There is no {config.subset}/with_caption/set_{config.fold} with train.txt and test.txt below "
            f"{top}, and captions=True needs both."
        )
    return Source(
        root=root,
        clips=clips,
        lists={side: lists[config.fold, side] for side in SIDES},
        caption_lists={side: path for side in SIDES if (path := captioned.get((config.fold, side)))},
        class_lists=tuple(lists[key] for key in sorted(lists)) if config.subset == "compound" else (),
    )


def class_names(source: Source) -> tuple[str, ...]:
    """Names of the classes in the order of ``label``: the 11 and, of a compound fold, those of all folds' lists.

    The compound ones follow by their number of emotions, then in the order of these.
    """
    lists = [read_list(path, "compound") for path in source.class_lists]
    labels = {*CLASS_NAMES, *(clip.label for clips in lists for clip in clips.values())}
    emotions = {label: [CLASS_NAMES.index(name) for name in label.split("_")] for label in labels}
    return tuple(sorted(labels, key=lambda label: (len(emotions[label]), emotions[label])))


def read_fold(config: MAFWConfig, source: Source) -> dict[str, dict[str, ListedClip]]:
    """``train`` and ``test`` → clip id → label and, where the lists have them, captions, in order of id.

    Raises:
        ValueError: a clip in both; only lists with captions, which leave out the neutral clips; or see ``read_list``.
    """
    sides = {side: read_list(path, config.subset) for side, path in source.lists.items()}
    where = " and ".join(map(str, source.lists.values()))
    if both := sides["train"].keys() & sides["test"].keys():
        raise ValueError(f"{where} share {len(both)} clips ({shown(sorted(both))}): they must be disjoint.")
    for side, clips in sides.items():
        if source.lists[side] == source.caption_lists.get(side) and "neutral" not in {c.label for c in clips.values()}:
            raise ValueError(
                f"{source.lists[side]} lists no neutral clip: neutral clips have no captions, and lists of captions "
                "may leave them out. Add the lists of no_caption, which give the labels."
            )
    return {side: dict(sorted(clips.items())) for side, clips in sides.items()}


def listed_clips(config: MAFWConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``test`` → a row for every clip of the list, in order of id, on disk (``path``) or not (None).

    Raises:
        ValueError: see ``read_fold``.
    """
    names = {name: label for label, name in enumerate(class_names(source))}
    splits: dict[str, list[dict[str, Any]]] = {}
    for side, clips in read_fold(config, source).items():
        splits[side] = [
            {"clip_id": clip_id, "label": names[clip.label], "path": source.clips.get(clip_id)}
            for clip_id, clip in clips.items()
        ]
        if config.captions:
            captioned = read_list(source.caption_lists[side], config.subset)
            for row, (clip_id, clip) in zip(splits[side], clips.items(), strict=True):
                caption = captioned.get(clip_id, clip)
                row |= {"caption_zh": caption.caption_zh, "caption_en": caption.caption_en}
    return splits


def describe_source(config: MAFWConfig, source: Source) -> dict[str, Any]:
    """What a configuration reads, for the report of ``verify``: only values that JSON has.

    ``classes`` are the names that labels are numbers of: other ones than ``CLASS_NAMES`` in the compound folds.
    """
    pictures = {"faces": "face frames", "video": "whole pictures, where papers use the face frames (frames='faces')"}
    return {
        "frames": config.frames,
        "pictures": pictures[config.frames],
        "clips": sorted({str(Path(path).parent) for path in source.clips.values()}),
        "lists": [str(path) for path in source.lists.values()],
        "classes": list(class_names(source)),
    }


def check_source(config: MAFWConfig, source: Source) -> list[tuple[str, bool, str]]:
    """The rule of the folds or the compound totals, the two kinds of lists against each other, and the pictures.

    Returns:
        (name, passed, text) of each check that can be made.
    """
    sides = read_fold(config, source)
    labels = {clip_id: clip.label for clips in sides.values() for clip_id, clip in clips.items()}
    if config.subset == "single":
        folds = folds_by_rule(labels)
        other = [clip_id for clip_id in labels if (folds[clip_id] == config.fold) != (clip_id in sides["test"])]
        text = f"{len(labels) - len(other)} of {len(labels)} clips are listed where the rule of the folds has them"
        checks = [("fold rule", not other, text + (f", not {shown(other)}" if other else ""))]
    else:
        found, published = (len(labels), len(class_names(source))), (NUM_COMPOUND_CLIPS, NUM_COMPOUND_CLASSES)
        text = "{} clips in {} classes (published {} in {})".format(*found, *published)
        checks = [("compound totals", found == published, text)]
    if source.caption_lists and source.caption_lists != source.lists:
        captioned = {side: read_list(path, config.subset) for side, path in source.caption_lists.items()}
        lines = [(side, *line) for side, clips in captioned.items() for line in clips.items()]
        other = [i for side, i, clip in lines if i not in sides[side] or labels[i] != clip.label]
        text = f"{len(lines) - len(other)} of {len(lines)} clips have the side and label that no_caption gives them"
        checks.append(("captions", not other, text + (f", not {shown(other)}" if other else "")))
    if config.frames == "faces":
        problem = whole_pictures(source.clips.values())
        checks.append(("face frames", not problem, problem or "no more than half of a few are wide as films are"))
    return checks


def on_disk(rows: list[dict[str, Any]], config: MAFWConfig, what: str) -> list[dict[str, Any]]:
    """Those of ``rows`` whose clip is on disk and has a frame; ``what`` names them all in messages.

    Raises:
        FileNotFoundError: some have not, and ``config.missing`` is ``error``; or none has.
    """
    absent = [row["clip_id"] for row in rows if row["path"] is None]
    folders = [row for row in rows if row["path"] is not None and config.frames == "faces"]
    empty = [row["clip_id"] for row in folders if not has_frames(row["path"])]
    if not absent and not empty:
        return rows
    parts = [f"{len(absent)} are not on disk ({shown(absent)})"] if absent else []
    parts += [f"{len(empty)} have no frame ({shown(empty)})"] if empty else []
    message = f"Of the {len(rows)} {what}, {' and '.join(parts)}."
    if config.missing == "error" or len(absent) + len(empty) == len(rows):
        raise FileNotFoundError(f"{message} Unzip all parts, or pass missing='skip' to go without these clips.")
    logger.warning("%s They are skipped: scores are not comparable with papers.", message)
    left_out = {*absent, *empty}
    return [row for row in rows if row["clip_id"] not in left_out]


class MAFW(datasets.GeneratorBasedBuilder):
    """MAFW's clips with their label, a configuration a fold, single or compound, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = MAFWConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        MAFWConfig(name=f"{subset}fold_{fold}", description=f"Fold {fold} of {NUM_FOLDS}, {classes} classes.")
        for subset, classes in (("", len(CLASS_NAMES)), ("compound_", NUM_COMPOUND_CLASSES))
        for fold in range(1, NUM_FOLDS + 1)
    ]
    config: MAFWConfig

    def _info(self) -> datasets.DatasetInfo:
        """The compound classes are in no published list, so that their names are read from the user's own."""
        names = class_names(open_source(self.config)) if self.config.subset == "compound" else CLASS_NAMES
        features: dict[str, Any] = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(names)),
            "num_frames": datasets.Value("int32"),
        }
        if self.config.frames == "video":
            has_video = hasattr(datasets, "Video")  # not in older releases of datasets 3
            features["video"] = datasets.Video(decode=False) if has_video else datasets.Value("string")
        else:
            features["frames"] = datasets.Sequence(datasets.Value("string"))
        if self.config.captions:
            features |= {"caption_zh": datasets.Value("string"), "caption_en": datasets.Value("string")}
        return datasets.DatasetInfo(
            description="Dynamic facial expressions in the wild: film clips of eleven emotions and their compounds.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license="For research only, by agreement with the authors; no part may be redistributed.",
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Lists, labels and the presence of every clip are checked here, before a row is written."""
        source = open_source(self.config)
        splits = {
            side: on_disk(rows, self.config, f"{side} clips of {self.config.name} in {source.root}")
            for side, rows in listed_clips(self.config, source).items()
        }
        if self.config.frames == "faces" and (problem := whole_pictures(source.clips.values())):
            logger.warning("%s: %s", source.root, problem)
        # A list, because lists are what datasets cuts for num_proc and streaming workers.
        return [datasets.SplitGenerator(name=side, gen_kwargs={"rows": rows}) for side, rows in splits.items()]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            path = row["path"]
            example = {column: value for column, value in row.items() if column != "path"}
            if self.config.frames == "video":
                example |= {"num_frames": count_video_frames(path), "video": path}
            else:
                names = list_frames(path)
                example |= {"num_frames": len(names), "frames": [f"{path}{os.sep}{name}" for name in names]}
            yield row["clip_id"], example
