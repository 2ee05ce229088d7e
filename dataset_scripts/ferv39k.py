"""FERV39k (Wang et al., CVPR 2022), read from the user's own copy: 38,935 clips of 7 expressions in 22 scenes.

Two ways to load it, with the same rows:

    dataset_scripts.load_dataset("ferv39k", data_dir="FERV39k")                                     # datasets 4, 5
    datasets.load_dataset("dataset_scripts/ferv39k.py", data_dir="FERV39k", trust_remote_code=True)  # datasets 3

This file holds no label, list or picture of FERV39k: only counts, which can be recomputed from any copy.

Columns: ``clip_id`` (``Action/Sad/0010``: numbers repeat from scene to scene), ``label``, ``num_frames`` (counted on
disk) and ``frames`` (absolute paths in time order).
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from .clip_files import (
    SIDES,
    About,
    ClipBuilder,
    ClipConfig,
    ClipSource,
    Finding,
    Listed,
    entries,
    finding,
    keep_clip,
    keep_list,
    picture_names,
    read_text,
    refuse_overlap,
    shown,
    walk,
)

# The order of DFEW, in which most code for FERV39k counts its classes; the lists themselves give names.
CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
EMOTIONS = tuple(name.capitalize() for name in CLASS_NAMES)  # as the folders and the lists write them
SCENES = (
    *("Action", "Argue", "Business", "Conflict", "Contest", "Crime", "Crisis", "DailyLife", "ElegantArt"),
    *("Experiment", "History", "Interview", "Liveshow", "Medicine", "OfficialEvent", "ScholarReport", "School"),
    *("Social", "Speech", "Talkshow", "Terror", "War"),
)
ALL_SCENES = "All"

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
ABOUT = About(
    name="FERV39k",
    description="Dynamic facial expressions in the wild: clips of seven basic expressions from 22 scenes.",
    names="'default' or its scenes, scene_Action … scene_War",
    homepage=HOMEPAGE,
    license="For research only, by agreement with the authors; no part may be redistributed.",
    access=f"FERV39k is given out by its authors on request ({HOMEPAGE}): unzip what you get and pass the folder "
    "with 2_ClipsforFaceCrop/ and 4_setups/ in it as data_dir.",
    citation="""\
@inproceedings{wang2022ferv39k,
  title={{FERV39k}: A Large-Scale Multi-Scene Dataset for Facial Expression Recognition in Videos},
  author={Wang, Yan and Sun, Yixuan and Huang, Yiwen and Liu, Zhongying and Gao, Shuyong and Zhang, Wei and Ge, Weifeng
          and Zhang, Wenqiang},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={20922--20931},
  year={2022}
}
""",
)

# Google Drive appends "-20240101T…" or "-001" to what it wraps.
KIND_PATTERNS = {
    "faces": re.compile(r"2_ClipsforFaceCrop(-\d.*)?", re.IGNORECASE),
    "scenes": re.compile(r"3_ClipsforScene?Images(-\d.*)?", re.IGNORECASE),
}
FOLDER_NAMES = {"faces": "2_ClipsforFaceCrop", "scenes": "3_ClipsforScenImages"}
LIST_FILE = re.compile(rf"({'|'.join(SIDES)})_({'|'.join((ALL_SCENES, *SCENES))})\.csv")
LIST_LINE = re.compile(rf"(\w+/({'|'.join(EMOTIONS)})/[0-9]+)[ \t]+(\w+)")


# --- The tree -----------------------------------------------------------------------------------------------------


def kind_of(path: Path, root: Path) -> str | None:
    """Kind of the clips in ``path`` by the last folder name below (and with) ``root`` that FERV39k itself uses."""
    for part in reversed(path.relative_to(root.parent).parts):
        for kind, pattern in KIND_PATTERNS.items():
            if pattern.fullmatch(part):
                return kind
    return None


def _is_entered(name: str) -> bool:
    """Leave out scenes and clips."""
    return name not in SCENES and not name.isdigit()


def find_clip_folders(root: Path, frames: str, clip_dir: str | None = None) -> tuple[Path, ...]:
    """Find the folders of scenes of one kind; there are several if Drive's parts were unzipped side by side.

    Args:
        root: the user's copy.
        frames: ``faces`` (2_ClipsforFaceCrop) or ``scenes`` (3_ClipsforScenImages).
        clip_dir: folder of the clips where it is not named as FERV39k names it; absolute or relative to ``root``.

    Raises:
        FileNotFoundError: no such clips; the message says what was found instead.
    """
    top = root / (clip_dir or "")
    there = [path for path, folders, _ in walk(top, ABOUT, _is_entered) if not {*folders}.isdisjoint(SCENES)]
    kinds = {path: kind_of(path, top) for path in there}
    wanted = (frames, None) if clip_dir else (frames,)  # a folder of another name is taken at the user's word
    if found := tuple(path for path, kind in kinds.items() if kind in wanted):
        return found
    instead = shown(f"{path} ({f'frames={kind!r}' if kind else 'clip_dir='})" for path, kind in kinds.items())
    raise FileNotFoundError(
        f"No clips for frames={frames!r} (FERV39k's folder {FOLDER_NAMES[frames]}) below {top}. "
        + (f"Found instead, with the option that reads it: {instead}." if instead else ABOUT.access)
    )


def find_clips(folders: Iterable[Path], scenes: Iterable[str]) -> dict[str, str]:
    """Clip id → absolute path of its folder, of all clips of ``scenes`` in the order of their ids.

    Raises:
        ValueError: a clip lies in two of the folders.
    """
    advice = "Drive spreads one folder over several archives; unzip all of them into one folder"
    clips: dict[str, str] = {}
    for folder, scene, emotion in product(folders, scenes, EMOTIONS):
        path = folder / scene / emotion
        for name in entries(path)[0] if path.is_dir() else ():
            keep_clip(clips, f"{scene}/{emotion}/{name}", f"{path}{os.sep}{name}", advice=advice)
    return dict(sorted(clips.items()))


# --- Lists --------------------------------------------------------------------------------------------------------


def find_lists(root: Path) -> dict[tuple[str, str], Path]:
    """(``train`` or ``test``, scene or ``All``) → its CSV; ValueError for two different files of one name."""
    found: dict[tuple[str, str], Path] = {}
    for folder, _, files in walk(root, ABOUT, _is_entered):
        for match in filter(None, map(LIST_FILE.fullmatch, files)):
            keep_list(found, (match[1], match[2]), folder / match[0])
    return found


def read_list(path: Path) -> dict[str, int]:
    """Clip id → index in ``CLASS_NAMES``; every line is a clip, for FERV39k's lists have no header.

    Raises:
        ValueError: not text, a line that is not a clip and its label, a label other than the emotion in the clip's
            id, or a clip twice.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}: {line.strip()[:100]!r}"
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
class FERV39kConfig(ClipConfig):
    """Options of FERV39k; ``name`` is ``default`` (all scenes) or ``scene_Action`` … ``scene_War``.

    Attributes:
        frames: ``faces`` (2_ClipsforFaceCrop, what papers use) or ``scenes`` (3_ClipsforScenImages, whole pictures).
        clip_dir: folder of the clips if it is not named as FERV39k names it; absolute or relative to data_dir.
        split_dir: folder of the CSVs if it is not below data_dir; absolute or relative to data_dir.
        missing: ``error`` or ``skip`` listed clips that are not on disk or have no frame.
    """

    ABOUT = ABOUT
    NAMES = ("default", *(f"scene_{scene}" for scene in SCENES))
    VALUES: ClassVar = {"frames": tuple(FOLDER_NAMES), "missing": ("error", "skip")}

    frames: str = "faces"
    clip_dir: str | None = None
    split_dir: str | None = None

    @property
    def setup(self) -> str:
        """The name in the configuration's lists: ``All`` or a scene."""
        return ALL_SCENES if self.name == "default" else self.name.removeprefix("scene_")

    def open_source(self) -> "Source":
        """Find clips and lists."""
        root = self.root
        folders = find_clip_folders(root, self.frames, self.clip_dir)
        top = root / (self.split_dir or "")
        found = find_lists(top)
        if missing := [f"{side}_{self.setup}.csv" for side in SIDES if (side, self.setup) not in found]:
            raise FileNotFoundError(
                f"There is no {' and no '.join(missing)} (in FERV39k's 4_setups) below {top}: add it, or pass "
                "the folder that has it as split_dir=."
            )
        clips = find_clips(folders, SCENES if self.setup == ALL_SCENES else (self.setup,))
        return Source(self, clips, folders, found)


@dataclass(frozen=True)
class Source(ClipSource):
    """The files of FERV39k that a configuration reads.

    Attributes:
        scene_folders: the folders of scenes.
        all_lists: (``train`` or ``test``, scene or ``All``) → the CSV.
    """

    config: FERV39kConfig
    scene_folders: tuple[Path, ...]
    all_lists: dict[tuple[str, str], Path]

    @property
    def lists(self) -> list[Path]:
        """The train and the test list."""
        return [self.all_lists[side, self.config.setup] for side in SIDES]

    @property
    def folders(self) -> list[str]:
        """The folders of scenes."""
        return [str(path) for path in self.scene_folders]

    def listed_clips(self) -> Listed:
        """``train`` and ``test`` → a row for every clip of the list, in order of id.

        Raises:
            ValueError: a clip in both lists or, in a scene's list, one of another scene; or see ``read_list``.
        """
        labels = {side: read_list(path) for side, path in zip(SIDES, self.lists, strict=True)}
        refuse_overlap(labels, " and ".join(map(str, self.lists)))
        for path, clips in zip(self.lists, labels.values(), strict=True):
            setup = self.config.setup
            if others := [clip_id for clip_id in clips if setup not in (ALL_SCENES, clip_id.partition("/")[0])]:
                raise ValueError(f"{path} lists {len(others)} clips of other scenes: {shown(others)}.")
        return {
            side: [
                {"clip_id": clip_id, "label": label, "path": self.clips.get(clip_id)}
                for clip_id, label in sorted(clips.items())
            ]
            for side, clips in labels.items()
        }

    def describe(self) -> dict[str, Any]:
        """Kind and folders of the clips, and the lists.

        ``scene_lists_differ`` counts the clips that the scenes' lists lack, add or put on another side, compared with
        the lists of all scenes. It is not known if FERV39k has such clips, so this is not a check.
        """
        about: dict[str, Any] = {"frames": self.config.frames, **super().describe()}
        if self.config.setup != ALL_SCENES:
            return about
        if self.config.frames == "faces":
            about["num_short_clips"] = NUM_SHORT_CLIPS
        if scene_lists := {key: path for key, path in self.all_lists.items() if key[1] != ALL_SCENES}:
            scenes = {(side, clip_id) for (side, _), path in scene_lists.items() for clip_id in read_list(path)}
            everything = {(row, side) for side, path in zip(SIDES, self.lists, strict=True) for row in read_list(path)}
            of_scenes = {(side, name) for name, side in everything if (side, name.partition("/")[0]) in scene_lists}
            about |= {"scene_lists": len(scene_lists), "scene_lists_differ": len(scenes ^ of_scenes)}
        return about

    def check(self) -> list[Finding]:
        """Check the lengths of the face clips against the published range; none is known for the scene pictures.

        A longer clip was extracted anew from the videos; a shorter one has lost frames.
        """
        if self.config.frames != "faces":
            return []
        rows = [row for of_side in self.listed_clips().values() for row in of_side if row["path"] is not None]
        lengths = {row["clip_id"]: len(picture_names(row["path"])) for row in rows}
        other = [f"{name} {length}" for name, length in lengths.items() if not MIN_FRAMES <= length <= MAX_FRAMES]
        return [finding("clip lengths", len(lengths), f"clips have {MIN_FRAMES} to {MAX_FRAMES} frames", other)]


class FERV39k(ClipBuilder):
    """FERV39k's clips with their label, splits ``train`` and ``test``; all scenes, or a configuration a scene."""

    BUILDER_CONFIG_CLASS = FERV39kConfig
    BUILDER_CONFIGS = [FERV39kConfig(name=name) for name in FERV39kConfig.NAMES]  # noqa: RUF012  # as the base class
    DEFAULT_CONFIG_NAME = "default"
    CLASS_NAMES = CLASS_NAMES
    PUBLISHED = PUBLISHED
    config: FERV39kConfig
