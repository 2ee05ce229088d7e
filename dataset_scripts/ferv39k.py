"""FERV39k (Wang et al., CVPR 2022), read from the user's own copy: 38,935 clips of 7 expressions in 22 scenes.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("ferv39k", data_dir="FERV39k")                                     # datasets 4, 5
    datasets.load_dataset("dataset_scripts/ferv39k.py", data_dir="FERV39k", trust_remote_code=True)  # datasets 3

One self-contained file, because datasets 3 copies a loading script out of its folder. No label, list or picture
of FERV39k is in here: only counts, which can be recomputed from any copy.

Columns: ``clip_id`` (``Action/Sad/0010``: numbers repeat from scene to scene), ``label``, ``num_frames`` (counted on
disk) and ``frames`` (absolute paths in time order).
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import datasets

logger = logging.getLogger(__name__)

# The order of DFEW, in which most code for FERV39k counts its classes; the lists themselves give names.
CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
EMOTIONS = tuple(name.capitalize() for name in CLASS_NAMES)  # as the folders and the lists write them
SCENES = (
    *("Action", "Argue", "Business", "Conflict", "Contest", "Crime", "Crisis", "DailyLife", "ElegantArt"),
    *("Experiment", "History", "Interview", "Liveshow", "Medicine", "OfficialEvent", "ScholarReport", "School"),
    *("Social", "Speech", "Talkshow", "Terror", "War"),
)
ALL_SCENES = "All"
SIDES = ("train", "test")
FRAME_KINDS = ("faces", "scenes")

# Counted in the lists of four public repositories, which agree; by scene nothing is published.
PUBLISHED = {
    "default": {
        "train": dict(zip(CLASS_NAMES, (5854, 5523, 7790, 5906, 2502, 1833, 1680), strict=True)),
        "test": dict(zip(CLASS_NAMES, (1473, 1393, 1958, 1487, 638, 467, 431), strict=True)),
    }
}
NUM_SHORT_CLIPS = 4070  # clips of fewer than 16 face frames
MIN_FRAMES, MAX_FRAMES = 8, 47  # face frames of a clip

HOMEPAGE = "https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html"
ACCESS = (
    f"FERV39k is given out by its authors on request ({HOMEPAGE}): unzip what you get and pass the folder with "
    "2_ClipsforFaceCrop/ and 4_setups/ in it as data_dir."
)
CITATION = """\
@inproceedings{wang2022ferv39k,
  title={{FERV39k}: A Large-Scale Multi-Scene Dataset for Facial Expression Recognition in Videos},
  author={Wang, Yan and Sun, Yixuan and Huang, Yiwen and Liu, Zhongying and Gao, Shuyong and Zhang, Wei and Ge, Weifeng
          and Zhang, Wenqiang},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={20922--20931},
  year={2022}
}
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_FOLDERS = 2000  # a FERV39k tree has fewer than 100 folders above the scenes
NUM_SHOWN = 5  # how many offenders an error names

# Google Drive appends "-20240101T…" or "-001" to what it wraps.
KIND_PATTERNS = {
    "faces": re.compile(r"2_ClipsforFaceCrop(-\d.*)?", re.IGNORECASE),
    "scenes": re.compile(r"3_ClipsforScene?Images(-\d.*)?", re.IGNORECASE),
}
FOLDER_NAMES = {"faces": "2_ClipsforFaceCrop", "scenes": "3_ClipsforScenImages"}
LIST_FILE = re.compile(rf"({'|'.join(SIDES)})_({'|'.join((ALL_SCENES, *SCENES))})\.csv")
LIST_LINE = re.compile(rf"(\w+/({'|'.join(EMOTIONS)})/[0-9]+)[ \t]+(\w+)")
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


def kind_of(path: Path, root: Path) -> str | None:
    """Kind of the clips in ``path`` by the last folder name below (and with) ``root`` that FERV39k itself uses."""
    for part in reversed(path.relative_to(root.parent).parts):
        for kind, pattern in KIND_PATTERNS.items():
            if pattern.fullmatch(part):
                return kind
    return None


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder below (and with) ``root``, the names of its folders and of its files; not into scenes, no debris.

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: it holds far more folders than a FERV39k tree does.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}. {ACCESS}")
    for number, (path, folders, files) in enumerate(os.walk(root, followlinks=True)):
        if number == MAX_FOLDERS:
            raise ValueError(f"{root} holds over {MAX_FOLDERS} folders, so it is not FERV39k's own folder. {ACCESS}")
        folders[:] = sorted(name for name in folders if not is_debris(name))
        yield Path(path), [*folders], sorted(name for name in files if not is_debris(name))
        folders[:] = [name for name in folders if name not in SCENES and not name.isdigit()]


def find_clip_folders(root: Path, frames: str, clip_dir: str | None = None) -> tuple[Path, ...]:
    """The folders of scenes of one kind: several where Drive's parts were unzipped side by side.

    Args:
        root: the user's copy.
        frames: ``faces`` (2_ClipsforFaceCrop) or ``scenes`` (3_ClipsforScenImages).
        clip_dir: folder of the clips where it is not named as FERV39k names it; absolute or relative to ``root``.

    Raises:
        FileNotFoundError: no such clips; the message says what was found instead.
    """
    top = root / (clip_dir or "")
    kinds = {path: kind_of(path, top) for path, folders, _ in walk(top) if not {*folders}.isdisjoint(SCENES)}
    wanted = (frames, None) if clip_dir else (frames,)  # a name that tells nothing is taken at the user's word
    if found := tuple(path for path, kind in kinds.items() if kind in wanted):
        return found
    instead = shown(f"{path} ({f'frames={kind!r}' if kind else 'clip_dir='})" for path, kind in kinds.items())
    raise FileNotFoundError(
        f"No clips for frames={frames!r} (FERV39k's folder {FOLDER_NAMES[frames]}) below {top}. "
        + (f"Found instead, with the option that reads it: {instead}." if instead else ACCESS)
    )


def find_clips(folders: Iterable[Path], scenes: Iterable[str]) -> dict[str, str]:
    """Clip id → absolute path of its folder, of all clips of ``scenes`` in the order of their ids.

    Raises:
        ValueError: a clip lies in two of the folders.
    """
    clips: dict[str, str] = {}
    for folder, scene, emotion in product(folders, scenes, EMOTIONS):
        path = folder / scene / emotion
        for name in next(os.walk(path), (path, [], []))[1]:
            here = f"{path}{os.sep}{name}"
            other = clips.setdefault(f"{scene}/{emotion}/{name}", here)
            if other != here:
                raise ValueError(
                    f"Clip {scene}/{emotion}/{name} lies both at {other} and at {here}. Drive spreads one folder over "
                    "several archives: unzip all of them into one folder, or name the one to use with clip_dir=."
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


# --- Lists --------------------------------------------------------------------------------------------------------


def find_lists(root: Path) -> dict[tuple[str, str], Path]:
    """(``train`` or ``test``, scene or ``All``) → its CSV; ValueError for two different files of one name."""
    found: dict[tuple[str, str], Path] = {}
    for folder, _, files in walk(root):
        for match in filter(None, map(LIST_FILE.fullmatch, files)):
            path = folder / match[0]
            other = found.setdefault((match[1], match[2]), path)
            if other.read_bytes() != path.read_bytes():
                raise ValueError(f"{other} and {path} differ. Remove one, or name the folder to use with split_dir=.")
    return found


def read_list(path: Path) -> dict[str, int]:
    """Clip id → index in ``CLASS_NAMES``; every line is a clip, for FERV39k's lists have no header.

    Raises:
        ValueError: no text, a line that is no clip and label, a label other than the emotion in the clip's id, or a
            clip twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as CSV (UTF-8).") from error
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}: {line.strip()!r}"
        match = LIST_LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(
                f"{where} is not a clip, a space and its label, as in 'Action/Sad/0010 Sad'. FERV39k's lists have no "
                "header and no other columns."
            )
        clip_id, emotion, label = match.groups()
        if label.lower() != emotion.lower():
            raise ValueError(f"{where} gives a clip of {emotion} another label: the list is not FERV39k's own.")
        if clip_id in labels:
            raise ValueError(f"{where} lists the clip a second time.")
        labels[clip_id] = CLASS_NAMES.index(emotion.lower())
    return labels


# --- The builder --------------------------------------------------------------------------------------------------


@dataclass
class FERV39kConfig(datasets.BuilderConfig):
    """Options of FERV39k; ``name`` is ``default`` (all scenes) or ``scene_Action`` … ``scene_War``.

    Attributes:
        frames: ``faces`` (2_ClipsforFaceCrop, what papers use) or ``scenes`` (3_ClipsforScenImages, whole pictures).
        clip_dir: folder of the clips if it is not named as FERV39k names it; absolute or relative to data_dir.
        split_dir: folder of the CSVs if it is not below data_dir; absolute or relative to data_dir.
        missing: what becomes of listed clips that are not on disk or have no frame: ``error`` or ``skip``.
    """

    frames: str = "faces"
    clip_dir: str | None = None
    split_dir: str | None = None
    missing: str = "error"

    @property
    def setup(self) -> str:
        """What the configuration's lists are named after: ``All`` or a scene."""
        return ALL_SCENES if self.name == "default" else self.name.removeprefix("scene_")

    def check(self) -> None:
        """Refuse options outside their values; datasets sets them one by one, so not at construction."""
        if self.name not in ("default", *(f"scene_{scene}" for scene in SCENES)):
            raise ValueError(
                f"Name 'default' or one of FERV39k's scenes, scene_Action … scene_War, not {self.name!r}."
            )
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
        folders: where the clips lie.
        clips: clip id → absolute path of its folder, of the clips on disk.
        lists: ``train`` and ``test`` → the CSV.
        scene_lists: (side, scene) → the CSV of one scene, read by ``describe_source`` alone.
    """

    root: Path
    folders: tuple[Path, ...]
    clips: dict[str, str]
    lists: dict[str, Path]
    scene_lists: dict[tuple[str, str], Path]

    def fingerprint(self) -> str:
        """A hash over the content of the lists, and over names and times of the clips.

        A clip folder's time changes when frames come or go. Pictures replaced in place are not noticed, nor need
        they be: rows hold paths. Costs one stat a clip.
        """
        state = hashlib.sha256()
        for path in self.lists.values():
            state.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
        for clip in self.clips.values():
            state.update(f"{clip}\0{os.stat(clip).st_mtime_ns}\0".encode())  # noqa: PTH116  # 38,935 of them
        return state.hexdigest()


def open_source(config: FERV39kConfig) -> Source:
    """Find what a configuration reads.

    Raises:
        FileNotFoundError: no data_dir, no clips of the asked kind, or no lists.
        ValueError: see ``find_clips`` and ``find_lists``.
    """
    if not config.data_dir:
        raise FileNotFoundError(f"FERV39k needs data_dir=, the folder of your own copy. {ACCESS}")
    # Cached rows outlive the working directory; resolve() would follow links and lose the names the user sees.
    root = Path(os.path.abspath(Path(config.data_dir).expanduser()))  # noqa: PTH100
    folders = find_clip_folders(root, config.frames, config.clip_dir)
    scenes = SCENES if config.setup == ALL_SCENES else (config.setup,)
    top = root / (config.split_dir or "")
    found = find_lists(top)
    if missing := [f"{side}_{config.setup}.csv" for side in SIDES if (side, config.setup) not in found]:
        raise FileNotFoundError(
            f"There is no {' and no '.join(missing)} (in FERV39k's 4_setups) below {top}: add it, or pass "
            "the folder that has it as split_dir=."
        )
    return Source(
        root=root,
        folders=folders,
        clips=find_clips(folders, scenes),
        lists={side: found[side, config.setup] for side in SIDES},
        scene_lists={key: path for key, path in found.items() if key[1] != ALL_SCENES},
    )


def listed_clips(config: FERV39kConfig, source: Source) -> dict[str, list[dict[str, Any]]]:
    """``train`` and ``test`` → a row for every clip of the list, in order of id, on disk (``path``) or not (None).

    Raises:
        ValueError: a clip in both lists or, in a scene's list, one of another scene; or see ``read_list``.
    """
    labels = {side: read_list(path) for side, path in source.lists.items()}
    if both := labels["train"].keys() & labels["test"].keys():
        where = " and ".join(map(str, source.lists.values()))
        raise ValueError(f"{where} share {len(both)} clips ({shown(sorted(both))}): they must be disjoint.")
    for side, clips in labels.items():
        others = [clip_id for clip_id in clips if config.setup not in (ALL_SCENES, clip_id.partition("/")[0])]
        if others:
            raise ValueError(f"{source.lists[side]} lists {len(others)} clips of other scenes: {shown(others)}.")
    return {
        side: [
            {"clip_id": clip_id, "label": label, "path": source.clips.get(clip_id)}
            for clip_id, label in sorted(clips.items())
        ]
        for side, clips in labels.items()
    }


def describe_source(config: FERV39kConfig, source: Source) -> dict[str, Any]:
    """What a configuration reads, for the report of ``verify``: only values that JSON has.

    ``num_short_clips`` is how many clips have fewer than 16 frames as published. ``scene_lists_differ`` counts the
    clips that the scenes' lists miss, add or put on another side than the lists of all scenes: that none does is
    likely, but not known, so it is no check.
    """
    about: dict[str, Any] = {
        "frames": config.frames,
        "clips": [str(path) for path in source.folders],
        "lists": [str(path) for path in source.lists.values()],
    }
    if config.setup == ALL_SCENES and config.frames == "faces":
        about["num_short_clips"] = NUM_SHORT_CLIPS
    if config.setup == ALL_SCENES and source.scene_lists:
        scenes = {(side, clip_id) for (side, _), path in source.scene_lists.items() for clip_id in read_list(path)}
        everything = {(side, clip_id) for side, path in source.lists.items() for clip_id in read_list(path)}
        of_scenes = {(side, name) for side, name in everything if (side, name.partition("/")[0]) in source.scene_lists}
        about |= {"scene_lists": len(source.scene_lists), "scene_lists_differ": len(scenes ^ of_scenes)}
    return about


def check_source(config: FERV39kConfig, source: Source) -> list[tuple[str, bool, str]]:
    """Whether the face clips are as short as the published ones; of the scene pictures nothing is known.

    A clip that is longer was extracted anew from the videos; one that is shorter has lost frames.

    Returns:
        (name, passed, text) of each check that can be made.
    """
    if config.frames != "faces":
        return []
    rows = [row for of_side in listed_clips(config, source).values() for row in of_side if row["path"] is not None]
    lengths = {row["clip_id"]: len(_frame_names(row["path"])) for row in rows}
    other = [f"{name} {length}" for name, length in lengths.items() if not MIN_FRAMES <= length <= MAX_FRAMES]
    text = f"{len(lengths) - len(other)} of {len(lengths)} clips have {MIN_FRAMES} to {MAX_FRAMES} frames"
    return [("clip lengths", not other, text + (f", not {shown(other)}" if other else ""))]


def on_disk(rows: list[dict[str, Any]], missing: str, what: str) -> list[dict[str, Any]]:
    """Those of ``rows`` whose clip is on disk and has a frame; ``what`` names them all in messages.

    Raises:
        FileNotFoundError: some have not, and ``missing`` is ``error``; or none has.
    """
    absent = [row["clip_id"] for row in rows if row["path"] is None]
    empty = [row["clip_id"] for row in rows if row["path"] is not None and not has_frames(row["path"])]
    if not absent and not empty:
        return rows
    parts = [f"{len(absent)} are not on disk ({shown(absent)})"] if absent else []
    parts += [f"{len(empty)} have no frame ({shown(empty)})"] if empty else []
    message = f"Of the {len(rows)} {what}, {' and '.join(parts)}."
    if missing == "error" or len(absent) + len(empty) == len(rows):
        raise FileNotFoundError(f"{message} Unzip all parts, or pass missing='skip' to go without these clips.")
    logger.warning("%s They are skipped: scores are not comparable with papers.", message)
    left_out = {*absent, *empty}
    return [row for row in rows if row["clip_id"] not in left_out]


class FERV39k(datasets.GeneratorBasedBuilder):
    """FERV39k's clips with their label, splits ``train`` and ``test``; all scenes, or a configuration a scene."""

    BUILDER_CONFIG_CLASS = FERV39kConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  # as the base class declares it
        FERV39kConfig(name="default", description="All 22 scenes."),
        *(FERV39kConfig(name=f"scene_{scene}", description=f"The scene {scene}.") for scene in SCENES),
    ]
    DEFAULT_CONFIG_NAME = "default"
    config: FERV39kConfig

    def _info(self) -> datasets.DatasetInfo:
        features = {
            "clip_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(CLASS_NAMES)),
            "num_frames": datasets.Value("int32"),
            "frames": datasets.Sequence(datasets.Value("string")),
        }
        return datasets.DatasetInfo(
            description="Dynamic facial expressions in the wild: clips of seven basic expressions from 22 scenes.",
            features=datasets.Features(features),
            homepage=HOMEPAGE,
            citation=CITATION,
            license="For research only, by agreement with the authors; no part may be redistributed.",
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        """Lists, labels and the presence of every clip are checked here, before a row is written."""
        source = open_source(self.config)
        where = shown(source.folders)
        splits = {
            side: on_disk(rows, self.config.missing, f"{side} clips of {self.config.name} in {where}")
            for side, rows in listed_clips(self.config, source).items()
        }
        # A list, because lists are what datasets cuts for num_proc and streaming workers.
        return [datasets.SplitGenerator(name=side, gen_kwargs={"rows": rows}) for side, rows in splits.items()]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            path = row["path"]
            names = list_frames(path)
            frames = [f"{path}{os.sep}{name}" for name in names]
            yield (
                row["clip_id"],
                {
                    **{"clip_id": row["clip_id"], "label": row["label"]},
                    **{"num_frames": len(names), "frames": frames},
                },
            )
