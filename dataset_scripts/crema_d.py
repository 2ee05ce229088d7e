"""CREMA-D (Cao et al., IEEE TAFFC 2014), read from the user's own copy: 7,442 clips of 6 emotions, 91 actors, 5 folds.

    dataset_scripts.load_dataset("crema_d", "fold_1", data_dir="CREMA-D")                        # datasets 4, 5
    datasets.load_dataset("dataset_scripts/crema_d.py", "fold_1", data_dir="CREMA-D", trust_remote_code=True)  # 3

One self-contained file, because datasets 3 copies a loading script out of its folder. A clip's name tells all of
it, ``1001_DFA_ANG_XX.flv``: actor, sentence, emotion, level. The set has no official split. The folds here are those
of MAE-DFER's lists: consecutive actors, 18, 18, 18, 18 and 19, so that no face is in both train and test.

Columns: ``clip_id`` (the name), ``label`` (the emotion the actor was asked for, not the raters' votes),
``num_frames`` (counted on disk), ``video`` or, with ``frames="faces"``, ``frames`` (absolute paths in time order);
``actor`` (1001 … 1091), ``sentence`` (CREMA-D's acronym, ``IEO`` …), ``level`` (low, medium, high, unspecified).
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import datasets

logger = logging.getLogger(__name__)

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
ACTORS = range(1001, 1092)
# Never recorded or lost, by CREMA-D's own SentenceFilenames.csv: 20 clips of 7,462.
NOT_IN_THE_SET = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
# https://github.com/CheyneyComputerScience/CREMA-D/issues/8 and comments of public code that leaves them out.
BAD_CLIPS = {
    "1064_IEO_DIS_MD": "about a minute with other emotions in it",
    "1064_TIE_SAD_XX": "under 20 frames",
    "1076_MTI_NEU_XX": "almost no frames",
    "1076_MTI_SAD_XX": "almost no frames",
}

CLASS_NAMES: tuple[str, ...] = tuple(EMOTIONS.values())  # in alphabetical order, as MAE-DFER and HiCMAE number them
NUM_FOLDS = 5
ACTORS_PER_FOLD = 18  # the last fold has one more
CLASS_COUNTS = {name: 1087 if name == "neutral" else 1271 for name in CLASS_NAMES}
TEST_SIZES = {1: 1463, 2: 1470, 3: 1476, 4: 1476, 5: 1557}  # of MAE-DFER's lists
# Test clips of neutral; the other five classes have equal shares of the rest.
TEST_NEUTRAL = {1: 213, 2: 215, 3: 216, 4: 216, 5: 227}


def _published(fold: int) -> dict[str, dict[str, int]]:
    """Split → class → number of clips of a fold, bad clips among them."""
    other = (TEST_SIZES[fold] - TEST_NEUTRAL[fold]) // (len(CLASS_NAMES) - 1)
    test = {name: TEST_NEUTRAL[fold] if name == "neutral" else other for name in CLASS_NAMES}
    return {"train": {name: CLASS_COUNTS[name] - test[name] for name in CLASS_NAMES}, "test": test}


# Configuration → split → class → number of clips. Sizes and class totals are published; what each class has in each
# fold follows from them and from NOT_IN_THE_SET.
PUBLISHED: dict[str, dict[str, dict[str, int]]] = {f"fold_{fold}": _published(fold) for fold in TEST_SIZES}

HOMEPAGE = "https://github.com/CheyneyComputerScience/CREMA-D"
LICENSE = "Open Database License 1.0, its contents under the Database Contents License 1.0"
ACCESS = (
    f"CREMA-D is open: with Git LFS installed, clone {HOMEPAGE} (or its mirror, "
    "https://gitlab.com/cs-cooper-lab/crema-d-mirror) and pass the folder with VideoFlash/ in it as data_dir."
)
CITATION = """\
@article{cao2014cremad,
  title={{CREMA-D}: Crowd-sourced Emotional Multimodal Actors Dataset},
  author={Cao, Houwei and Cooper, David G. and Keutmann, Michael K. and Gur, Ruben C. and Nenkova, Ani
          and Verma, Ragini},
  journal={IEEE Transactions on Affective Computing},
  volume={5},
  number={4},
  pages={377--390},
  year={2014}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".flv", ".mp4", ".avi", ".mkv", ".webm", ".mov")  # .flv as given out, the others as users convert
CLIP_NAME = re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")
NUMBERS = re.compile(r"[0-9]+")
LFS_POINTER = b"version https://git-lfs"
MAX_POINTER_BYTES = 1024
MAX_DEPTH = 6
MAX_FOLDERS = 2000  # a CREMA-D tree has about ten that are not clips
NUM_SHOWN = 5  # how many offenders an error names


# --- What lies on disk ------------------------------------------------------------------------------------------


def shown(items: Iterable[Any]) -> str:
    """The first few of ``items`` for an error message, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - NUM_SHOWN} more" if len(texts) > NUM_SHOWN else ""
    return ", ".join(texts[:NUM_SHOWN]) + more


def is_debris(name: str) -> bool:
    """Whether ``name`` is what macOS leaves behind (``._00001.jpg``, ``.DS_Store``, ``__MACOSX``) or hidden."""
    return name.startswith((".", "__MACOSX"))


def _clip_id(entry: os.DirEntry[str], frames: str) -> str | None:
    """The clip whose video or, with ``frames="faces"``, folder of frames an entry is by its name; else None."""
    if entry.is_dir():
        return entry.name if frames == "faces" and CLIP_NAME.fullmatch(entry.name) else None
    stem, _, suffix = entry.name.rpartition(".")
    is_video = frames == "video" and f".{suffix.lower()}" in VIDEO_SUFFIXES
    return stem if is_video and CLIP_NAME.fullmatch(stem) else None


def find_copies(root: Path, frames: str) -> dict[str, list[str]]:
    """Clip id → absolute paths of all its copies below ``root``, the least nested first.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: it holds far more folders than a CREMA-D tree does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    copies: dict[str, list[str]] = {}
    waiting = [(str(root), 0)]
    for num_seen, (folder, depth) in enumerate(waiting):  # grows while it is walked: breadth first
        if num_seen == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not CREMA-D's own folder. {ACCESS}")
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_debris(entry.name):
                    continue
                if clip_id := _clip_id(entry, frames):
                    copies.setdefault(clip_id, []).append(entry.path)
                elif entry.is_dir() and depth < MAX_DEPTH and not CLIP_NAME.fullmatch(entry.name):
                    waiting.append((entry.path, depth + 1))
    return copies


def one_copy(clip_id: str, paths: list[str]) -> str:
    """The first of a clip's copies, where they are the same file: of one container and one size.

    Raises:
        ValueError: they differ, such as a video and its conversion, or are folders, which are not compared.
    """
    kinds = {(Path(path).suffix.lower(), Path(path).stat().st_size) for path in paths}
    if len(paths) > 1 and (len(kinds) > 1 or Path(paths[0]).is_dir()):
        raise ValueError(
            f"Clip {clip_id} lies in {len(paths)} places that differ: {shown(paths)}. Remove all but one, or name the "
            "folder to use with clip_dir=."
        )
    return paths[0]


def _refuse_pointers(clips: dict[str, str], root: Path) -> None:
    """Refuse Git LFS pointers, which have a video's name and are a few lines of text."""
    pointers = []
    for path in map(Path, clips.values()):
        if path.stat().st_size < MAX_POINTER_BYTES:
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    pointers.append(path)
    if pointers:
        raise ValueError(
            f"{len(pointers)} of the {len(clips)} videos below {root} are Git LFS pointers, not videos "
            f"({shown(pointers)}). In a clone, run `git lfs install` and `git lfs pull`; a zip download of the "
            f"repository holds pointers only. {ACCESS}"
        )


@dataclass(frozen=True)
class Source:
    """The files that one configuration reads.

    Attributes:
        root: folder that was searched: data_dir, or clip_dir.
        clips: clip id → absolute path of its video or folder of frames, for clips of CREMA-D.
        strangers: names that look like a clip's, which CREMA-D doesn't have.
        num_copies: number of files left aside as further copies of a clip.
    """

    root: Path
    clips: dict[str, str]
    strangers: tuple[str, ...]
    num_copies: int

    def fingerprint(self) -> str:
        """A hash over names and times of the clips; a folder's time changes when frames come or go."""
        times = [(path, Path(path).stat().st_mtime_ns) for path in self.clips.values()]
        return hashlib.sha256(repr(times).encode()).hexdigest()


def open_source(config: "CremaDConfig") -> Source:
    """Find the clips that a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, or no clip of the asked kind in it.
        ValueError: different copies of a clip, or Git LFS pointers in the place of videos.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"CREMA-D needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    root = Path(os.path.abspath(Path(config.data_dir).expanduser() / (config.clip_dir or "")))  # noqa: PTH100
    copies = find_copies(root, config.frames)
    known = {clip_id: copies[clip_id] for clip_id in clip_ids() if clip_id in copies}
    if not known:
        raise FileNotFoundError(_no_clips(root, config.frames))
    clips = {clip_id: one_copy(clip_id, paths) for clip_id, paths in known.items()}
    if config.frames == "video":
        _refuse_pointers(clips, root)
    strangers = tuple(sorted(copies.keys() - known.keys()))
    return Source(root, clips, strangers, sum(len(paths) - 1 for paths in known.values()))


def _no_clips(root: Path, frames: str) -> str:
    """The message for a tree without clips of the asked kind, with what lies there instead."""
    what = {"video": "video named like 1001_DFA_ANG_XX.flv", "faces": "folder of frames named like 1001_DFA_ANG_XX"}
    message = f"No {what[frames]} below {root}."
    other = "video" if frames == "faces" else "faces"
    if found := find_copies(root, other):
        folder = Path(next(iter(found.values()))[0]).parent
        return f"{message} Found {len(found)} for frames={other!r} instead: pass that, with clip_dir='{folder}'."
    return f"{message} {ACCESS}"


# --- Frames -----------------------------------------------------------------------------------------------------


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


# --- Clips and folds ----------------------------------------------------------------------------------------------


def clip_ids() -> list[str]:
    """The names of all 7,442 clips, in order; only the sentence IEO was spoken at three levels, and not in neutral."""
    names = []
    for actor in ACTORS:
        for sentence in SENTENCES:
            for emotion in EMOTIONS:
                levels = ("HI", "LO", "MD") if sentence == "IEO" and emotion != "NEU" else ("XX",)
                names += [f"{actor}_{sentence}_{emotion}_{level}" for level in levels]
    return [name for name in names if not name.startswith(NOT_IN_THE_SET)]


def fold_of(actor: int) -> int:
    """The fold, 1 … 5, that tests an actor: 1001 … 1018 are fold 1's, and so on; 1073 … 1091 fold 5's."""
    return min(1 + (actor - ACTORS[0]) // ACTORS_PER_FOLD, NUM_FOLDS)


def listed_clips(config: "CremaDConfig", source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``test`` → a row for each clip of CREMA-D, ``path`` None where it is not on disk.

    Bad clips are among them unless ``bad_clips`` is ``skip``.
    """
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for clip_id in clip_ids():
        if config.bad_clips == "skip" and clip_id in BAD_CLIPS:
            continue
        actor, sentence, emotion, level = clip_id.split("_")
        row = {"clip_id": clip_id, "label": list(EMOTIONS).index(emotion), "path": source.clips.get(clip_id)}
        row |= {"actor": int(actor), "sentence": sentence, "level": LEVELS[level]}
        splits["test" if fold_of(int(actor)) == config.fold else "train"].append(row)
    return splits


def on_disk(rows: list[dict[str, Any]], config: "CremaDConfig", side: str) -> list[dict[str, Any]]:
    """Those of ``rows`` whose clip is on disk and has a frame.

    Raises:
        FileNotFoundError: some have not, and ``missing`` is ``error``; or none has.
    """
    absent = [row["clip_id"] for row in rows if row["path"] is None]
    looked_into = [row for row in rows if row["path"] is not None and config.frames == "faces"]
    empty = [row["clip_id"] for row in looked_into if not has_frames(row["path"])]
    lacking = {*absent, *empty}
    if not lacking:
        return rows
    parts = [f"{len(absent)} are not on disk ({shown(absent)})"] if absent else []
    parts += [f"{len(empty)} have no frame ({shown(empty)})"] if empty else []
    message = f"Of the {len(rows)} {side} clips of {config.name}, {' and '.join(parts)} in {config.data_dir}."
    if config.missing == "error" or len(lacking) == len(rows):
        option = "bad_clips" if lacking <= BAD_CLIPS.keys() else "missing"
        raise FileNotFoundError(f"{message} Get them, or pass {option}='skip' to go without these clips.")
    logger.warning("%s They are skipped: scores are not comparable with papers.", message)
    return [row for row in rows if row["clip_id"] not in lacking]


def published_counts(config: "CremaDConfig") -> dict[str, dict[str, int]]:
    """Split → class → number of clips, less bad clips that are skipped."""
    counts = {side: dict(classes) for side, classes in PUBLISHED[config.name].items()}
    for clip_id in BAD_CLIPS if config.bad_clips == "skip" else ():
        side = "test" if fold_of(int(clip_id[:4])) == config.fold else "train"
        counts[side][EMOTIONS[clip_id.split("_")[2]]] -= 1
    return counts


def describe_source(config: "CremaDConfig", source: Source) -> dict[str, Any]:
    """What was found, for a report, and the counts to compare with."""
    return {
        "published": published_counts(config),
        "frames": config.frames,
        "clips": sorted({str(Path(path).parent) for path in source.clips.values()}),
        "containers": dict(Counter(Path(path).suffix.lower() for path in source.clips.values())),
        "lists": [],
        "copies left aside": source.num_copies,
        "bad clips": f"{config.bad_clips}: {', '.join(BAD_CLIPS)}",
    }


def check_source(config: "CremaDConfig", source: Source) -> list[tuple[str, bool, str]]:
    """(Name, passed, text) of what can be told of CREMA-D's names and numbers only."""
    clips = source.clips.keys() | (BAD_CLIPS.keys() if config.bad_clips == "skip" else ())  # whose lack is no fault
    found = Counter(EMOTIONS[clip_id.split("_")[2]] for clip_id in clips)
    classes = {name: found[name] for name in CLASS_NAMES}
    sizes = Counter(fold_of(int(clip_id[:4])) for clip_id in clips)
    tests = {fold: sizes[fold] for fold in TEST_SIZES}
    bad = [clip_id for clip_id in BAD_CLIPS if clip_id in source.clips]
    reported = "; ".join(f"{clip_id}: {fault}" for clip_id, fault in BAD_CLIPS.items())
    kept = f"{len(bad)} of the 4 clips reported bad are on disk, bad_clips={config.bad_clips!r} ({reported})"
    return [
        ("class totals", classes == CLASS_COUNTS, f"clips a class {classes}, published {CLASS_COUNTS}"),
        ("fold sizes", tests == TEST_SIZES, f"test clips a fold {tests}, MAE-DFER's lists {TEST_SIZES}"),
        ("bad clips", len(bad) == len(BAD_CLIPS) or config.bad_clips == "skip", kept),
        ("names", not source.strangers, f"names that CREMA-D lacks: {shown(source.strangers) or 'none'}"),
    ]


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class CremaDConfig(datasets.BuilderConfig):
    """Options of CREMA-D; ``name`` is ``fold_1`` … ``fold_5``.

    Attributes:
        frames: ``video`` (the clips themselves, VideoFlash or converted), or ``faces`` (the user's own face crops: a
            folder of pictures a clip, named as the clip).
        clip_dir: folder of the clips, absolute or relative to data_dir; needed for ``faces``.
        bad_clips: ``keep`` the four clips reported bad (BAD_CLIPS), as MAE-DFER's lists do, whose folds and sizes
            these are, or ``skip`` them, as HiCMAE does; two are test clips of fold 4 and two of fold 5.
        missing: what becomes of clips that are not on disk or have no frame: ``error`` or ``skip``.
    """

    frames: str = "video"
    clip_dir: str | None = None
    bad_clips: str = "keep"
    missing: str = "error"

    @property
    def fold(self) -> int:
        """The fold, 1 … 5."""
        return int(self.name.removeprefix("fold_"))

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if not re.fullmatch(f"fold_[1-{NUM_FOLDS}]", self.name):
            raise ValueError(f"CREMA-D comes in folds: name one of fold_1 … fold_{NUM_FOLDS}, not {self.name!r}.")
        allowed = {"frames": ("video", "faces"), "bad_clips": ("keep", "skip"), "missing": ("error", "skip")}
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")
        if self.frames == "faces" and self.clip_dir is None:
            raise ValueError("frames='faces' needs clip_dir=, the folder of your face crops: CREMA-D comes without.")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: the options, the absolute data_dir and the state of the clips.

        So clips added, removed or filled up never meet rows cached before, whichever way the set is loaded.
        """
        self.check()
        if self.data_dir is not None:
            base = {option.name for option in fields(datasets.BuilderConfig)}
            options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in base}
            source = open_source(self)
            config_kwargs = {**options, "data_dir": str(source.root), "state": source.fingerprint()}
        return super().create_config_id(config_kwargs, custom_features)


class CremaD(datasets.GeneratorBasedBuilder):
    """CREMA-D's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = CremaDConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        CremaDConfig(name=f"fold_{fold}", description=f"Fold {fold} of {NUM_FOLDS}.") for fold in TEST_SIZES
    ]
    config: CremaDConfig

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
        features |= {"actor": datasets.Value("int32"), "sentence": datasets.Value("string")}
        features |= {"level": datasets.Value("string")}
        return datasets.DatasetInfo(
            description="Acted emotions: 91 actors speak 12 sentences in six emotions.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license=LICENSE,
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """The presence of every clip is checked here, before a row is written."""
        source = open_source(self.config)
        if source.strangers:
            logger.warning("Left out, for CREMA-D has no clips of these names: %s.", shown(source.strangers))
        if self.config.bad_clips == "keep" and (bad := [clip_id for clip_id in BAD_CLIPS if clip_id in source.clips]):
            logger.warning("Clips reported bad are kept (bad_clips='skip' goes without): %s.", ", ".join(bad))
        # A list of rows, because lists are what datasets cuts for num_proc and streaming workers.
        return [
            datasets.SplitGenerator(name=side, gen_kwargs={"rows": on_disk(rows, self.config, side)})
            for side, rows in listed_clips(self.config, source).items()
        ]

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
