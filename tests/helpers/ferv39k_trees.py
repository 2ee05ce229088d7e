"""Trees laid out as FERV39k is, with tiny pictures and made-up clips, for the tests of its loader.

As a script it writes one of FERV39k's full size, to measure with: ``python tests/ferv39k_trees.py OUT``.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from helpers.dfew_trees import jpeg, write_frames

EMOTIONS = ["Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear"]
SCENES = ["DailyLife", "War"]
FACES, PICTURES, LISTS = "2_ClipsforFaceCrop", "3_ClipsforScenImages", Path("4_setups")

# In the order of ids. The numbers start anew in each scene and emotion, and 0003 is always a test clip.
GROUPS = [f"{scene}/{emotion}" for scene in SCENES for emotion in sorted(EMOTIONS)]
TRAIN = [f"{group}/{number}" for group in GROUPS for number in ("0001", "0010")]
TEST = [f"{group}/0003" for group in GROUPS]


def frame_names(clip_id: str) -> list[str]:
    """Names of a clip's frames in time order: 00.jpg …, 8, 12 or 16 of them."""
    return [f"{number:02d}.jpg" for number in range(8 + 4 * (sum(map(ord, clip_id)) % 3))]


def write_clips(folder: Path, clip_ids: Iterable[str] = (*TRAIN, *TEST)) -> None:
    """2_ClipsforFaceCrop or 3_ClipsforScenImages, or one part of it."""
    for clip_id in clip_ids:
        write_frames(folder / clip_id, frame_names(clip_id))


def write_list(path: Path, clip_ids: Iterable[str]) -> None:
    """A list as FERV39k writes it: no header, ``Action/Sad/0010 Sad``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{clip_id} {clip_id.split('/')[1]}\n" for clip_id in clip_ids))


def write_lists(folder: Path) -> None:
    """4_setups: the two lists of all scenes, and two of each scene."""
    for side, clip_ids in (("train", TRAIN), ("test", TEST)):
        write_list(folder / "All_scenes" / f"{side}_All.csv", reversed(clip_ids))  # not in the order of ids
        for scene in SCENES:
            of_scene = [clip_id for clip_id in clip_ids if clip_id.startswith(scene)]
            write_list(folder / "22_scenes" / f"{side}_{scene}.csv", of_scene)


def write_ferv39k(root: Path) -> Path:
    """Faces and lists, as most code expects them."""
    write_clips(root / FACES)
    write_lists(root / LISTS)
    return root


def full_size_clips(rng: np.random.Generator) -> dict[str, dict[str, int]]:
    """``train`` and ``test`` → clip id → number of frames, with FERV39k's counts of clips, classes and short clips."""
    counts = {"train": (5854, 5523, 7790, 5906, 2502, 1833, 1680), "test": (1473, 1393, 1958, 1487, 638, 467, 431)}
    short = {"train": 3257, "test": 813}
    numbers: dict[str, int] = {}
    clips: dict[str, dict[str, int]] = {}
    for side, of_class in counts.items():
        lengths = rng.integers(16, 45, sum(of_class))
        lengths[rng.permutation(lengths.size)[: short[side]]] = rng.integers(8, 16, short[side])
        groups = [f"{scene}/{emotion}" for emotion, n in zip(EMOTIONS, of_class, strict=True) for scene in _spread(n)]
        clips[side] = {}
        for group, length in zip(groups, lengths.tolist(), strict=True):
            numbers[group] = numbers.get(group, 0) + 1
            clips[side][f"{group}/{numbers[group]:04d}"] = length
    return clips


def _spread(num_clips: int) -> list[str]:
    """A scene for each of ``num_clips`` clips, over all 22."""
    from dataset_scripts.ferv39k import SCENES as ALL_SCENES

    return [ALL_SCENES[number % len(ALL_SCENES)] for number in range(num_clips)]


def write_full_size(root: Path, seed: int = 0) -> Path:
    """A tree of FERV39k's size: 38,935 clips of 28 frames on average, all links to a few pictures."""
    num_links, picture = 0, ""
    for side, clips in full_size_clips(np.random.default_rng(seed)).items():
        write_list(root / LISTS / "All_scenes" / f"{side}_All.csv", clips)
        for clip_id, length in clips.items():
            folder = root / FACES / clip_id
            folder.mkdir(parents=True)
            for number in range(length):
                if num_links % 50_000 == 0:  # file systems limit the links to one file, ext4 to 65,000
                    picture = str(root / f"picture_{num_links}")
                    Path(picture).write_bytes(jpeg())
                os.link(picture, folder / f"{number:02d}.jpg")
                num_links += 1
    return root


if __name__ == "__main__":
    write_full_size(Path(sys.argv[1]))
