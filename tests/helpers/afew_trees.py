"""Trees laid out as AFEW is, with tiny videos and pictures and made-up numbers, for the tests of its loader."""

from collections.abc import Iterable
from pathlib import Path

from helpers.dfew_trees import video, write_frames

CLASS_FOLDERS = ["Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
SPLIT_FOLDERS = {"train": "Train_AFEW", "validation": "Val_AFEW"}
FACE_FOLDERS = {"train": "AlignedFaces_LBPTOP_Points", "validation": "AlignedFaces_LBPTOP_Points_Val"}

# Split → number → class: three clips a class in train and two in validation, in no order of class. As in AFEW, two
# numbers occur in both splits, in different classes: 14 and 77.
CLIPS = {
    "train": {f"{14 + 7 * place:09d}": place % 7 for place in range(21)},
    "validation": {f"{14 + 9 * place:09d}": (place + 1) % 7 for place in range(14)},
}
COLLIDING = "000000014"  # Angry in train, Disgust in validation
FACE_NAMES = ["I_1001.jpg", "I_1002.jpg", "I_1005.jpg", "I_999.jpg"]  # in time order I_999 comes first


def write_videos(root: Path, suffix: str = ".avi") -> None:
    """Train_AFEW/<Class>/<number>.avi and Val_AFEW/…, with 3 frames a video in train and 4 in validation."""
    for split, clips in CLIPS.items():
        for number, label in clips.items():
            folder = root / SPLIT_FOLDERS[split] / CLASS_FOLDERS[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}{suffix}").write_bytes(video(3 + (split == "validation"), suffix[1:]))
        write_frames(root / SPLIT_FOLDERS[split], ["desktop.ini", "Train_6.xml"])


def write_faces(root: Path, path: str = "{split}/{faces}/Faces/{number}", without: Iterable[str] = ()) -> None:
    """Folders of aligned faces at ``path``, in which split, faces, class and number may be named.

    Args:
        without: clips (``train/000000014``) that have none.
    """
    for split, clips in CLIPS.items():
        for number, label in clips.items():
            names = {"split": SPLIT_FOLDERS[split], "faces": FACE_FOLDERS[split], "number": number}
            if f"{split}/{number}" not in without:
                write_frames(root / path.format(**names, label=label, **{"class": CLASS_FOLDERS[label]}), FACE_NAMES)
