"""Small copies of all data sets, in the layouts and with the options that tests of every builder load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from helpers import acted_trees, afew_trees, dfew_trees, ferv39k_trees, mafw_trees
from helpers.dfew_trees import video, write_frames


class Copy(NamedTuple):
    """A small copy of a data set: its writer, and configuration and options to load it with."""

    set: str
    write: Callable[[Path], Any]
    name: str | None = "fold_1"
    options: dict[str, Any] = {}  # noqa: RUF012  # read only


def write_dfew_videos(root: Path) -> None:
    dfew_trees.write_dfew(root)
    dfew_trees.write_16f(root / "Clip" / "clip_224x224_16f")
    dfew_trees.write_originals(root / "Clip" / "original")


def write_afew(root: Path) -> None:
    afew_trees.write_videos(root)
    afew_trees.write_faces(root, without=["train/000000014"])


def write_mafw(root: Path) -> None:
    mafw_trees.write_mafw(root)
    mafw_trees.write_videos(root / mafw_trees.CLIPS, mafw_trees.SINGLE | mafw_trees.COMPOUND)


def write_crema_d(root: Path) -> None:
    clip_ids = [f"{actor}_{rest}" for actor in (1001, 1050, 1091) for rest in ("DFA_ANG_XX", "IEO_SAD_HI")]
    acted_trees.write_crema_d(root, clip_ids)
    for clip_id in clip_ids:
        write_frames(root / "crops" / clip_id, ["frame_1.jpg", "frame_2.jpg", "frame_10.jpg"])


def write_ravdess(root: Path) -> None:
    names = [f"02-01-0{emotion}-01-02-01-{actor}" for actor in ("01", "12", "24") for emotion in (1, 6)]
    acted_trees.write_ravdess(root, names)
    for name in names:
        write_frames(root / "crops" / name, ["frame_1.jpg", "frame_2.jpg", "frame_10.jpg"])


def write_own_folds(root: Path) -> None:
    for label in ("bored", "keen"):
        for number in range(6, 13):
            write_frames(root / label / f"clip_{number}", ["1.jpg", "2.jpg", "10.jpg"])


def write_own_splits(root: Path) -> None:
    for split, number in (("train", 3), ("train", 4), ("val", 5), ("Test", 6)):
        for label in ("bored", "keen"):
            path = root / split / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(video(number))


SKIP = {"missing": "skip"}
CROPS = {"frames": "faces", "clip_dir": "crops", **SKIP}
COPIES = {
    "dfew": Copy("dfew", dfew_trees.write_dfew),
    "dfew 16f": Copy("dfew", write_dfew_videos, "fold_2", {"frames": "16f", "votes": True}),
    "dfew original": Copy("dfew", write_dfew_videos, "fold_1", {"frames": "original"}),
    "afew": Copy("afew", afew_trees.write_videos, None),
    "afew faces": Copy("afew", write_afew, None, {"frames": "faces"}),
    "ferv39k": Copy("ferv39k", ferv39k_trees.write_ferv39k, None),
    "ferv39k scene": Copy("ferv39k", ferv39k_trees.write_ferv39k, "scene_War"),
    "mafw": Copy("mafw", mafw_trees.write_mafw, "fold_2", {"captions": True}),
    "mafw compound": Copy("mafw", write_mafw, "compound_fold_1", {"frames": "video"}),
    "crema_d": Copy("crema_d", write_crema_d, "fold_1", SKIP),
    "crema_d faces": Copy("crema_d", write_crema_d, "fold_1", CROPS),
    "ravdess": Copy("ravdess", write_ravdess, "fold_1", SKIP),
    "ravdess faces": Copy("ravdess", write_ravdess, "fold_1", CROPS),
    "clip_folder": Copy("clip_folder", write_own_folds, "fold_2"),
    "clip_folder splits": Copy("clip_folder", write_own_splits, None),
}
