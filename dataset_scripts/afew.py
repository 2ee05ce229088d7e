"""AFEW (Dhall et al., IEEE MultiMedia 2012; release of EmotiW 2017/2018), from the user's own copy: 7 expressions.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("afew", data_dir="AFEW")                                   # datasets 4, 5
    datasets.load_dataset("dataset_scripts/afew.py", data_dir="AFEW", trust_remote_code=True)  # datasets 3

One self-contained file, because datasets 3 copies a loading script out of its folder. No label, list or picture
of AFEW is in here: only counts.

Splits are ``train`` (773 clips) and ``validation`` (383), on which papers test: labels of the test clips were never
released, so those are not read. Columns: ``clip_id`` (split and number, ``train/123456789``, because two numbers
occur in both splits, as different clips), ``label``, ``num_frames`` (counted on disk), and ``video`` or, with
``frames="faces"``, ``frames`` (absolute paths in time order).

The label is always that of the class folder that the clip's video lies in: the faces' folders carry none or, regrouped
by class, may carry another.

Some clips have no aligned face, and papers leave them out: their "381" validation clips are the 383 without two, but
not always without the same two. Here such a clip stays in sight: by default (``missing="keep"``) as a row with
``num_frames`` 0 and no ``frames``, so that a score can count it as not recognised. A model cannot read it, so for
training ``missing="skip"`` leaves it out, and names it.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets

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

HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
ACCESS = (
    f"AFEW is given out by its authors on request, under an agreement ({HOMEPAGE}): unzip what you get and pass the "
    "folder with Train_AFEW/ and Val_AFEW/ in it as data_dir."
)
CITATION = """\
@article{dhall2012collecting,
  title={Collecting Large, Richly Annotated Facial-Expression Databases from Movies},
  author={Dhall, Abhinav and Goecke, Roland and Lucey, Simon and Gedeon, Tom},
  journal={IEEE MultiMedia},
  volume={19},
  number={3},
  pages={34--41},
  year={2012}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")
ARCHIVE_SUFFIXES = (".zip", ".rar")
MAX_DEPTH = 7  # EmotiW_2018/Train_AFEW/ + the faces, doubly nested, with Faces/ or classes, is five levels
MAX_FOLDERS = 2000  # an AFEW tree has fewer than 100 folders that are not clips
NUM_SHOWN = 20  # how many offenders a message names: enough for all clips that papers lack

# 012345678.avi, Faces/012345678; in Former-DFER's own crops 0_3_012345678, with split and class in front.
CLIP_NAME = re.compile(r"(?:[0-9]_[0-9]_)?([0-9]{9})")
SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|test)(?:ing|idation)?(?![a-z])", re.IGNORECASE)
SPLIT_OF_WORD = {"train": "train", "val": "validation", "test": "test"}
FACES_FOLDER = re.compile(r"AlignedFaces.*|Faces", re.IGNORECASE)
TRAIN_FACES = re.compile(r"AlignedFaces_LBPTOP_Points([-(. ].*)?", re.IGNORECASE)  # validation's end in _Val
FEATURE_FOLDERS = ("points", "lbptop")  # beside Faces/, with folders or files of the same numbers
OTHER_CLASS_NAMES = {"anger": "angry", "happiness": "happy", "sadness": "sad"}  # of faces regrouped by others
NUMBERS = re.compile(r"[0-9]+")


# --- What lies on disk ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFolder:
    """A folder that directly holds clips.

    Attributes:
        path: the folder.
        split: ``train`` or ``validation``, told from the names on the way to it; None where they tell nothing.
        label: the class whose name the folder has, or None.
        is_video: whether its clips are video files; else they are folders of frames.
        official: whether it lies where AFEW keeps its aligned faces.
        names: of its clips' files or folders.
    """

    path: Path
    split: str | None
    label: int | None
    is_video: bool
    official: bool
    names: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """What one look over an AFEW folder finds: where clips lie, and archives."""

    root: Path
    folders: list[ClipFolder] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Clip:
    """A clip on disk: the absolute path of its video or folder of frames, and the class of the folder it lies in."""

    path: str
    label: int | None


Clips = dict[tuple[str, str], Clip]  # (split, number) → clip


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


def split_of(path: Path, root: Path) -> str | None:
    """``train``, ``validation`` or ``test``, by the last folder name below ``root`` that tells it, or None.

    The archive of the aligned faces of train is named without a split, that of validation with ``_Val``.
    """
    parts = path.relative_to(root).parts
    for part in reversed(parts):
        words = {word.lower() for word in SPLIT_WORD.findall(part)}
        if len(words) == 1:
            return SPLIT_OF_WORD[words.pop()]
    return "train" if any(TRAIN_FACES.fullmatch(part) for part in parts) else None


def class_of(name: str) -> int | None:
    """The class that a folder's name stands for: ``Angry`` → 0; None for none."""
    word = OTHER_CLASS_NAMES.get(name.lower(), name.lower())
    return CLASS_NAMES.index(word) if word in CLASS_NAMES else None


def scan_tree(root: Path) -> Tree:
    """Look over the folders below ``root``, not into clips, nor into the test set, which has no labels.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: it holds far more folders than an AFEW tree does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    tree, waiting = Tree(root), [(root, 0)]
    for num_seen, (folder, depth) in enumerate(waiting):  # grows while it is walked: breadth first
        if num_seen == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not AFEW's own folder. {ACCESS}")
        split, inside = split_of(folder, root), folder.relative_to(root).parts
        if split == "test" or (inside and inside[-1].lower() in FEATURE_FOLDERS):
            continue
        folders, files = _entries(folder)
        videos = [name for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        frames = [name for name in folders if CLIP_NAME.fullmatch(name)]
        official = any(FACES_FOLDER.fullmatch(part) for part in inside)
        for is_video, names in ((True, videos), (False, frames)):
            if names:
                found = ClipFolder(folder, split, class_of(folder.name), is_video, official, tuple(names))
                tree.folders.append(found)
        tree.archives.extend(name for name in files if name.lower().endswith(ARCHIVE_SUFFIXES))
        if depth < MAX_DEPTH:
            waiting.extend((folder / name, depth + 1) for name in folders if name not in frames)
    return tree


def merged(folders: Iterable[ClipFolder]) -> Clips:
    """The clips of several folders, in order of split and number.

    Raises:
        ValueError: a video without a clip's name, or a clip that lies in two places.
    """
    clips: Clips = {}
    for folder in folders:
        for name in folder.names:
            path = f"{folder.path}{os.sep}{name}"
            match = CLIP_NAME.fullmatch(Path(name).stem if folder.is_video else name)
            if match is None:
                raise ValueError(f"{path} is not named as AFEW's clips are, by nine digits: rename or remove it.")
            other = clips.setdefault((str(folder.split), match[1]), Clip(path, folder.label))
            if other.path != path:
                raise ValueError(
                    f"The {folder.split} clip {match[1]} lies in two places, {other.path} and {path}: remove one, or "
                    "name the folder to use with clip_dir=."
                )
    return dict(sorted(clips.items()))


def find_videos(tree: Tree) -> Clips:
    """The videos of both splits, each in its class folder: they say which clips there are, and their labels.

    Raises:
        FileNotFoundError: a split or a class without any video; the message says what was found instead.
        ValueError: a video outside the class folders, a class folder outside the splits, or see ``merged``.
    """
    folders = [folder for folder in tree.folders if folder.is_video]
    for folder in folders:
        if (folder.split is None) != (folder.label is None):
            raise ValueError(
                f"{folder.path} holds {len(folder.names)} videos ({shown(folder.names)}) but "
                + ("is no class folder" if folder.label is None else "lies in neither Train_AFEW nor Val_AFEW")
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
            f"class folders each: unzip all of both. {ACCESS}"
        )
    return merged(folders)


def find_faces(tree: Tree, named: bool) -> tuple[Clips, list[ClipFolder]]:
    """The folders of faces, and where they lie: with or without a level of classes, nested as may be.

    Args:
        tree: what ``scan_tree`` found.
        named: whether the user named this folder, so that faces may lie anywhere in it.

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
                f"No folder on the way from {tree.root} to {folder.path} tells whether its {len(folder.names)} clips "
                "are of train or of validation, and two numbers occur in both: put them in folders train and val."
            )
    return merged(folders), folders


def _nothing(tree: Tree, what: str) -> str:
    """The message for a tree without clips of the asked kind: what lies there, and what to do."""
    message = f"Found no {what} below {tree.root}."
    found = [
        f"{folder.path} ({len(folder.names)} {'videos' if folder.is_video else 'folders of frames'})"
        for folder in tree.folders
    ]
    if found:
        return (
            f"{message} Found instead: {shown(found)}. frames='video' reads videos, frames='faces' folders of frames; "
            "clip_dir= names a folder, with train and val in it, that AFEW names otherwise."
        )
    if tree.archives:
        return f"{message} Found archives only ({shown(tree.archives)}): unzip them first."
    return f"{message} {ACCESS}"


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


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class AFEWConfig(datasets.BuilderConfig):
    """Options of AFEW; ``name`` is ``default``.

    Attributes:
        frames: ``video`` (the .avi files, or what they were converted to) or ``faces`` (the aligned faces given out
            with them, or a user's own crops).
        clip_dir: folder of what ``frames`` asks for if AFEW names it otherwise, with folders named train and val (or
            validation) in it; absolute or relative to data_dir. Labels of faces come from data_dir's videos all the
            same.
        missing: what becomes of clips without a face: ``keep`` as rows without frames, ``skip`` or ``error``.
    """

    frames: str = "video"
    clip_dir: str | None = None
    missing: str = "keep"

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if self.name != "default":
            raise ValueError(f"AFEW comes in one configuration, 'default', not {self.name!r}.")
        allowed = {"frames": FRAME_KINDS, "missing": ("keep", "skip", "error")}
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: the options, the absolute data_dir and the state of what is read there.

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
    """The clips that one configuration reads.

    Attributes:
        root: the absolute data_dir.
        videos: which clips there are, and their labels.
        faces: their folders of faces; None where videos are asked for.
        face_folders: where those lie.
    """

    root: Path
    videos: Clips
    faces: Clips | None = None
    face_folders: tuple[ClipFolder, ...] = ()

    @property
    def folders(self) -> list[str]:
        """The folders that directly hold the clips asked for."""
        clips = self.videos if self.faces is None else self.faces
        return sorted({str(Path(clip.path).parent) for clip in clips.values()})

    def fingerprint(self) -> str:
        """A hash over names, classes and times of the clips.

        A clip folder's time changes when frames come or go, a video's when it is written. Costs one stat a clip.
        """
        clips = [*self.videos.values(), *(self.faces or {}).values()]
        states = [(clip.path, clip.label, Path(clip.path).stat().st_mtime_ns) for clip in clips]
        return hashlib.sha256(repr(states).encode()).hexdigest()


def open_source(config: AFEWConfig) -> Source:
    """Find what a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, or no clips of the asked kind, of a split or of a class.
        ValueError: clips whose split or class cannot be known, or that lie in two places.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"AFEW needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    tree = scan_tree(Path(os.path.abspath(Path(config.data_dir).expanduser())))  # noqa: PTH100
    searched = tree if config.clip_dir is None else scan_tree(tree.root / config.clip_dir)
    if config.frames == "video":
        return Source(tree.root, find_videos(searched))
    faces, folders = find_faces(searched, named=config.clip_dir is not None)
    return Source(tree.root, find_videos(tree), faces, tuple(folders))


def listed_clips(config: AFEWConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``validation`` → rows of all clips, by number; ``path`` None for a clip without a face folder.

    Faces are joined by split and number, never by position: a missing or empty folder shifts no label.
    """
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (split, number), video in source.videos.items():
        clip = video if source.faces is None else source.faces.get((split, number))
        row = {"clip_id": f"{split}/{number}", "label": video.label, "path": clip and clip.path}
        rows[split].append(row)
    return rows


def without_frames(config: AFEWConfig, rows: Iterable[dict[str, Any]]) -> list[str]:
    """Ids of the clips that have no folder of faces, or one without a face."""
    if config.frames == "video":
        return []
    return [row["clip_id"] for row in rows if row["path"] is None or not has_frames(row["path"])]


def on_disk(config: AFEWConfig, source: Source, split: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that ``missing`` leaves: all, those with a face, or an error where one has none.

    Raises:
        FileNotFoundError: clips have no face, and ``missing`` is ``error``; or none has.
    """
    if len(rows) != NUM_CLIPS[split]:
        logger.warning(
            "%s has %d %s clips and AFEW %d: scores are not comparable with papers.",
            *(source.root, len(rows), split, NUM_CLIPS[split]),
        )
    if not (missing := without_frames(config, rows)):
        return rows
    message = f"Of the {len(rows)} {split} clips of {source.root}, {len(missing)} have no face: {shown(missing)}."
    if config.missing == "error" or len(missing) == len(rows):
        raise FileNotFoundError(f"{message} Unzip the faces again, or leave missing at 'keep' or 'skip'.")
    if config.missing == "keep":
        logger.warning("%s They stay, as rows without frames; to train, pass missing='skip'.", message)
        return rows
    logger.warning("%s They are skipped: scores are over %d clips.", message, len(rows) - len(missing))
    return [row for row in rows if row["clip_id"] not in set(missing)]


def describe_source(config: AFEWConfig, source: Source) -> dict[str, Any]:
    """What is read, for a report."""
    return {"frames": config.frames, "clips": source.folders, "lists": []}


def check_source(config: AFEWConfig, source: Source) -> list[tuple[str, bool, str]]:
    """Checks that only AFEW knows: name, whether passed, and what was found."""
    checks = [_check_shared_numbers(source), _check_validation(config, source)]
    return checks if source.faces is None else [*checks, *_check_faces(config, source)]


def _check_shared_numbers(source: Source) -> tuple[str, bool, str]:
    """Two numbers occur in both splits, each in another class: more, or one of one class, is a clip in both."""
    train, validation = (
        {number: clip.label for (split, number), clip in source.videos.items() if split == wanted} for wanted in SPLITS
    )
    shared = sorted(train.keys() & validation.keys())
    same = [number for number in shared if train[number] == validation[number]]
    text = f"{len(shared)} numbers occur in both splits, {len(same)} of them in one class"
    text += f" (AFEW has {NUM_SHARED_NUMBERS} and 0)"
    passed = not same and len(shared) <= NUM_SHARED_NUMBERS
    return "shared numbers", passed, text if passed else f"{text}: {shown(shared)}"


def _check_validation(config: AFEWConfig, source: Source) -> tuple[str, bool, str]:
    """Scores are over 383 clips or not comparable, even with those over "381"."""
    rows = listed_clips(config, source)["validation"]
    count, whole = len(rows) - len(without_frames(config, rows)), NUM_CLIPS["validation"]
    text = f"{count} of {whole} validation clips are there"
    if count != whole:
        text += (
            "; papers that report on 381 leave out two clips without a face, but two published lists of 381 leave out "
            "different ones: say which are missing, or count them as not recognised"
        )
    return "validation set", count == whole, text


def _check_faces(config: AFEWConfig, source: Source) -> list[tuple[str, bool, str]]:
    """Whether clips and faces belong together: each has the other, and class folders agree."""
    faces, videos = source.faces or {}, source.videos
    lacking = [clip_id for rows in listed_clips(config, source).values() for clip_id in without_frames(config, rows)]
    stray = [f"{split}/{number}" for split, number in faces.keys() - videos.keys()]
    both = [(key, faces[key].label, videos[key].label) for key in faces.keys() & videos.keys()]
    other = [f"{split}/{number}" for (split, number), label, of_video in both if label not in (None, of_video)]
    found = {
        "clips without faces": (lacking, "have no face"),
        "faces without clips": (stray, "folders of faces have no video and are not read"),
        "classes of faces": (other, "lie in another class than their video, which counts"),
    }
    return [
        (name, not clips, f"{len(clips)} {text}" + (f": {shown(sorted(clips))}" if clips else ""))
        for name, (clips, text) in found.items()
    ]


class AFEW(datasets.GeneratorBasedBuilder):
    """AFEW's clips with their label, splits ``train`` and ``validation``."""

    BUILDER_CONFIG_CLASS = AFEWConfig
    BUILDER_CONFIGS = [AFEWConfig(name="default", description="Train_AFEW and Val_AFEW.")]  # noqa: RUF012  # as the base
    config: AFEWConfig

    def _info(self) -> datasets.DatasetInfo:
        features: dict[str, Any] = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(CLASS_NAMES)),
            "num_frames": datasets.Value("int32"),
        }
        if self.config.frames == "video":
            has_video = hasattr(datasets, "Video")  # not in older releases of datasets 3
            features["video"] = datasets.Video(decode=False) if has_video else datasets.Value("string")
        else:
            features["frames"] = datasets.Sequence(datasets.Value("string"))
        return datasets.DatasetInfo(
            description="Acted facial expressions in the wild: film clips of seven expressions.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license="For research only, by agreement with the authors; no part may be redistributed.",
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Labels and the presence of every clip are checked here, before a row is written."""
        source = open_source(self.config)
        # A list, because lists are what datasets cuts for num_proc and streaming workers.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"rows": on_disk(self.config, source, split, rows)})
            for split, rows in listed_clips(self.config, source).items()
        ]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            path = row["path"]
            example = {column: value for column, value in row.items() if column != "path"}
            if self.config.frames == "video":
                example |= {"num_frames": count_video_frames(path), "video": path}
            else:
                names = list_frames(path) if path else []
                example |= {"num_frames": len(names), "frames": [f"{path}{os.sep}{name}" for name in names]}
            yield row["clip_id"], example
