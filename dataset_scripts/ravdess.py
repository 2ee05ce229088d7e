"""RAVDESS (Livingstone & Russo, PLoS ONE 2018), read from the user's own copy: 1,440 spoken clips of 8 emotions.

    dataset_scripts.load_dataset("ravdess", "fold_1", data_dir="RAVDESS")                        # datasets 4, 5
    datasets.load_dataset("dataset_scripts/ravdess.py", "fold_1", data_dir="RAVDESS", trust_remote_code=True)  # 3

One self-contained file, because datasets 3 copies a loading script out of its folder. A clip's name tells all of
it: ``02-01-06-01-02-01-12.mp4`` is modality (01 with sound, 02 without), channel (01 speech, 02 song), emotion,
intensity, statement, repetition and actor. A recording exists in both modalities, so only one is ever read. The set
has no official split. The folds here are those of MAE-DFER's lists: four consecutive actors each, so that no face is
in both train and test.

Columns: ``clip_id`` (``Actor_12/02-01-06-01-02-01-12``: the actor first, so that a validation set cut by id holds out
whole actors), ``label``, ``num_frames`` (counted on disk), ``video`` or, with ``frames="faces"``, ``frames``
(absolute paths in time order); ``actor`` (1 … 24), ``intensity`` (normal, strong), ``statement`` (kids, dogs),
``repetition`` (1, 2).
"""

import hashlib
import itertools
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

# In the order of RAVDESS's codes 01 … 08.
CLASS_NAMES: tuple[str, ...] = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MODALITIES = {"audio_video": "01", "video": "02"}
CHANNELS = {"speech": "01", "song": "02"}
NUM_SUNG_CLASSES = 6  # no song is disgust or surprised
INTENSITIES = ("normal", "strong")  # neutral is normal only
STATEMENTS = ("kids", "dogs")  # "Kids are talking by the door", "Dogs are sitting by the door"
REPETITIONS = (1, 2)
ACTORS = range(1, 25)
NOT_SINGING = 18
NUM_FOLDS = 6
ACTORS_PER_FOLD = 4
CLIPS_PER_ACTOR = {name: 4 if name == "neutral" else 8 for name in CLASS_NAMES}  # of speech

# Configuration → split → class → number of clips of speech, in either modality: 1,200 and 240.
PUBLISHED: dict[str, dict[str, dict[str, int]]] = {
    f"fold_{fold}": {
        "train": {name: 20 * count for name, count in CLIPS_PER_ACTOR.items()},
        "test": {name: 4 * count for name, count in CLIPS_PER_ACTOR.items()},
    }
    for fold in range(1, NUM_FOLDS + 1)
}

HOMEPAGE = "https://zenodo.org/records/1188976"
ACCESS = (
    f"RAVDESS is open: unzip Video_Speech_Actor_01.zip … Video_Speech_Actor_24.zip of {HOMEPAGE} and pass the folder "
    "with all of them in it as data_dir."
)
CITATION = """\
@article{livingstone2018ravdess,
  title={The {Ryerson} Audio-Visual Database of Emotional Speech and Song ({RAVDESS}): A dynamic, multimodal set of
         facial and vocal expressions in {North American English}},
  author={Livingstone, Steven R. and Russo, Frank A.},
  journal={PLoS ONE},
  volume={13},
  number={5},
  pages={e0196391},
  year={2018}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".flv")
CLIP_NAME = re.compile(r"\d\d(-\d\d){6}")
ACTOR_FOLDER = re.compile(r"Actor_(\d\d)", re.IGNORECASE)
NUMBERS = re.compile(r"[0-9]+")
MAX_DEPTH = 6
MAX_FOLDERS = 2000  # a RAVDESS tree has about a hundred that are not clips
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
        ValueError: it holds far more folders than a RAVDESS tree does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    copies: dict[str, list[str]] = {}
    waiting = [(str(root), 0)]
    for num_seen, (folder, depth) in enumerate(waiting):  # grows while it is walked: breadth first
        if num_seen == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not RAVDESS's own folder. {ACCESS}")
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


@dataclass(frozen=True)
class Source:
    """The files that one configuration reads.

    Attributes:
        root: folder that was searched: data_dir, or clip_dir.
        clips: name of a clip → absolute path of its video or folder of frames, of one modality and channel.
        strangers: names that look like a clip's, which RAVDESS doesn't have.
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


def open_source(config: "RavdessConfig") -> Source:
    """Find the clips that a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, or no clip of the asked kind, modality and channel in it.
        ValueError: different copies of a clip.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"RAVDESS needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    root = Path(os.path.abspath(Path(config.data_dir).expanduser() / (config.clip_dir or "")))  # noqa: PTH100
    copies = find_copies(root, config.frames)
    known = {name: copies[name] for name in clip_names(config.modality, config.channel) if name in copies}
    if not known:
        raise FileNotFoundError(_no_clips(root, config, copies.keys()))
    clips = {name: one_copy(name, paths) for name, paths in known.items()}
    every = {name for modality in MODALITIES for channel in CHANNELS for name in clip_names(modality, channel)}
    strangers = tuple(sorted(copies.keys() - every))
    return Source(root, clips, strangers, sum(len(paths) - 1 for paths in known.values()))


def _no_clips(root: Path, config: "RavdessConfig", names: Iterable[str]) -> str:
    """The message for a tree without clips of the asked kind, with what lies there instead."""
    options = f"frames={config.frames!r}, modality={config.modality!r}, channel={config.channel!r}"
    message = f"No clips named {prefix(config.modality, config.channel)}-… ({options}) below {root}."
    counts = Counter(name[:5] for name in names)
    found = [
        f"{count} named {prefix(modality, channel)}-… (modality={modality!r}, channel={channel!r})"
        for modality in MODALITIES
        for channel in CHANNELS
        if (count := counts[prefix(modality, channel)])
    ]
    if found:
        return f"{message} Found {' and '.join(found)}: pass these options."
    other = "video" if config.frames == "faces" else "faces"
    if copies := find_copies(root, other):
        folder = Path(next(iter(copies.values()))[0]).parent
        return f"{message} Found {len(copies)} for frames={other!r} instead: pass that, with clip_dir='{folder}'."
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


def prefix(modality: str, channel: str) -> str:
    """What all names of a modality and a channel begin with: ``02-01`` for silent speech."""
    return f"{MODALITIES[modality]}-{CHANNELS[channel]}"


def clip_names(modality: str, channel: str) -> list[str]:
    """The names of all clips of a modality and a channel, actor by actor: 1,440 of speech, 1,012 of song."""
    start = prefix(modality, channel)
    emotions = range(1, 1 + (NUM_SUNG_CLASSES if channel == "song" else len(CLASS_NAMES)))
    actors = [actor for actor in ACTORS if channel == "speech" or actor != NOT_SINGING]
    return [
        f"{start}-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for actor, emotion, intensity, statement, repetition in itertools.product(
            actors, emotions, (1, 2), (1, 2), REPETITIONS
        )
        if emotion != 1 or intensity == 1
    ]


def fold_of(actor: int) -> int:
    """The fold, 1 … 6, that tests an actor: 1 … 4 are fold 1's, 21 … 24 are fold 6's."""
    return 1 + (actor - 1) // ACTORS_PER_FOLD


def listed_clips(config: "RavdessConfig", source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``test`` → a row for each clip of the modality and channel, ``path`` None where not on disk."""
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for name in clip_names(config.modality, config.channel):
        emotion, intensity, statement, repetition, actor = (int(part) for part in name.split("-")[2:])
        row = {"clip_id": f"Actor_{actor:02d}/{name}", "label": emotion - 1, "path": source.clips.get(name)}
        row |= {"actor": actor, "intensity": INTENSITIES[intensity - 1]}
        row |= {"statement": STATEMENTS[statement - 1], "repetition": repetition}
        splits["test" if fold_of(actor) == config.fold else "train"].append(row)
    return splits


def on_disk(rows: list[dict[str, Any]], config: "RavdessConfig", side: str) -> list[dict[str, Any]]:
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
        raise FileNotFoundError(f"{message} Get them, or pass missing='skip' to go without these clips.")
    logger.warning("%s They are skipped: scores are not comparable with papers.", message)
    return [row for row in rows if row["clip_id"] not in lacking]


def describe_source(config: "RavdessConfig", source: Source) -> dict[str, Any]:
    """What was found, for a report; ``published`` are the counts to compare with: none for song."""
    return {
        "published": PUBLISHED[config.name] if config.channel == "speech" else {},
        "frames": config.frames,
        "modality": config.modality,
        "channel": config.channel,
        "clips": sorted({str(Path(path).parent) for path in source.clips.values()}),
        "lists": [],
        "copies left aside": source.num_copies,
    }


def misplaced(source: Source) -> list[str]:
    """Paths of clips in the folder of another actor than their name says."""
    folders = {path: ACTOR_FOLDER.fullmatch(Path(path).parent.name) for path in source.clips.values()}
    return [path for path, folder in folders.items() if folder and folder[1] != Path(path).stem[-2:]]


def check_source(config: "RavdessConfig", source: Source) -> list[tuple[str, bool, str]]:
    """(Name, passed, text) of what can be told of RAVDESS's names and numbers only."""
    wanted = Counter(name[-2:] for name in clip_names(config.modality, config.channel))
    actors = Counter(name[-2:] for name in source.clips)
    short = [f"{actor} has {actors[actor]} of {count}" for actor, count in wanted.items() if actors[actor] != count]
    wrong = misplaced(source)
    return [
        ("clips of each actor", not short, f"actors without all their clips: {shown(short) or 'none'}"),
        ("actors' folders", not wrong, f"clips in another actor's folder: {shown(wrong) or 'none'}"),
        ("names", not source.strangers, f"names that RAVDESS lacks: {shown(source.strangers) or 'none'}"),
    ]


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class RavdessConfig(datasets.BuilderConfig):
    """Options of RAVDESS; ``name`` is ``fold_1`` … ``fold_6``.

    Attributes:
        frames: ``video`` (the clips themselves), or ``faces`` (the user's own face crops: a folder of pictures a clip,
            named as the clip).
        modality: ``video`` (02-…, without sound, as MAE-DFER's lists) or ``audio_video`` (01-…): the same recordings
            twice, so never both.
        channel: ``speech`` (8 classes, 24 actors) or ``song`` (the first 6 classes, no actor 18; 1,012 clips). Labels
            mean the same in both.
        clip_dir: folder of the clips, absolute or relative to data_dir; needed for ``faces``.
        missing: what becomes of clips that are not on disk or have no frame: ``error`` or ``skip``.
    """

    frames: str = "video"
    modality: str = "video"
    channel: str = "speech"
    clip_dir: str | None = None
    missing: str = "error"

    @property
    def fold(self) -> int:
        """The fold, 1 … 6."""
        return int(self.name.removeprefix("fold_"))

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if not re.fullmatch(f"fold_[1-{NUM_FOLDS}]", self.name):
            raise ValueError(f"RAVDESS comes in folds: name one of fold_1 … fold_{NUM_FOLDS}, not {self.name!r}.")
        allowed = {
            "frames": ("video", "faces"),
            "modality": tuple(MODALITIES),
            "channel": tuple(CHANNELS),
            "missing": ("error", "skip"),
        }
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise ValueError(f"{option}={getattr(self, option)!r} is not one of {values}.")
        if self.frames == "faces" and self.clip_dir is None:
            raise ValueError("frames='faces' needs clip_dir=, the folder of your face crops: RAVDESS comes without.")

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


class Ravdess(datasets.GeneratorBasedBuilder):
    """RAVDESS's clips with their label, one configuration a fold, splits ``train`` and ``test``."""

    BUILDER_CONFIG_CLASS = RavdessConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        RavdessConfig(name=f"fold_{fold}", description=f"Fold {fold} of {NUM_FOLDS}.")
        for fold in range(1, NUM_FOLDS + 1)
    ]
    config: RavdessConfig

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
        features |= {"actor": datasets.Value("int32"), "intensity": datasets.Value("string")}
        features |= {"statement": datasets.Value("string"), "repetition": datasets.Value("int32")}
        return datasets.DatasetInfo(
            description="Acted emotions: 24 actors speak or sing two statements in eight emotions, each twice.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license="CC BY-NC-SA 4.0",
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """The presence of every clip is checked here, before a row is written."""
        source = open_source(self.config)
        if source.strangers:
            logger.warning("Left out, for RAVDESS has no clips of these names: %s.", shown(source.strangers))
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
