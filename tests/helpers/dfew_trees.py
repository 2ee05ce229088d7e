"""Trees laid out as DFEW is, with tiny pictures and made-up labels, for the tests of the loaders.

As a script it writes one of DFEW's full size, to measure with: ``python tests/helpers/dfew_trees.py OUT``.
"""

import io
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import av
import numpy as np
from openpyxl import Workbook
from PIL import Image

CLASS_NAMES = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
ANNOTATION_HEADER = ["1happy", "2sad", "3neutral", "4angry", "5surprise", "6disgust", "7fear", "order", "label"]

# Clip id → DFEW's label 1 … 7: six clips a class, and ids that skip (multiples of 9) as DFEW's do.
IDS = [number for number in range(1, 60) if number % 9][:42]
LABELS = {clip_id: 1 + place % 7 for place, clip_id in enumerate(IDS)}
UNLABELED = [9, 18]  # clips without a single label: faces and votes, but in no list


@cache
def jpeg(grey: int = 128) -> bytes:
    """An 8×8 picture of one grey, 0 … 255."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "JPEG")
    return buffer.getvalue()


@cache
def video(num_frames: int, container: str = "mp4", codec: str = "mpeg4", rate: int = 25) -> bytes:
    """A 32×32 video of ``num_frames`` frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


def write_frames(folder: Path, names: Iterable[str]) -> None:
    """A clip's folder with one picture a name, each of its own grey as far as 256 greys reach."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(jpeg(zlib.crc32(f"{folder.name}/{name}".encode()) % 256))


def full_names(clip_id: int) -> list[str]:
    """Names of a clip's frames in clip_224x224 in time order: original numbers, with gaps, crossing 9 → 10."""
    return [f"{clip_id:05d}_{number:05d}.jpg" for number in (1, 2, 5, 9, 10, 100)[: 3 + clip_id % 4]]


def write_full(folder: Path, clip_ids: Iterable[int] = IDS) -> None:
    """clip_224x224, or one part of it."""
    for clip_id in clip_ids:
        write_frames(folder / f"{clip_id:05d}", full_names(clip_id))


def write_16f(folder: Path, clip_ids: Iterable[int] = IDS) -> None:
    """clip_224x224_16f: unpadded names without the clip's id."""
    for clip_id in clip_ids:
        write_frames(folder / f"{clip_id:05d}", [f"{number}.jpg" for number in range(1, 17)])


def write_originals(folder: Path, clip_ids: Iterable[int] = IDS) -> None:
    """original: part_1/1.mp4 …, here 20 clips a part, clip k with 3 + k % 5 frames."""
    for clip_id in clip_ids:
        part = folder / f"part_{1 + (clip_id - 1) // 20}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{clip_id}.mp4").write_bytes(video(3 + clip_id % 5))


def fold_members(labels: Mapping[int, int], fold: int) -> tuple[list[int], list[int]]:
    """Ids of the train and the test side of a fold, each class cut in five blocks by numpy."""
    test: list[int] = []
    for label in set(labels.values()):
        members = sorted(clip_id for clip_id in labels if labels[clip_id] == label)
        test += np.array_split(members, 5)[fold - 1].tolist()
    return sorted(set(labels) - set(test)), sorted(test)


def csv_text(labels: Mapping[int, int], clip_ids: Iterable[int], base: int = 1, padded: bool = False) -> str:
    """A split's CSV; ``base`` 0 and ``padded`` as some repositories repackage it."""
    lines = [f"{clip_id:05d},{labels[clip_id] - 1 + base}" for clip_id in clip_ids]
    return "video_name,label\n" + "".join((line if padded else line.lstrip("0")) + "\n" for line in lines)


def write_splits(
    folder: Path,
    labels: Mapping[int, int] = LABELS,
    train: str = "train(single-labeled)/set_{}.csv",
    test: str = "test(single-labeled)/set_{}.csv",
    base: int = 1,
    padded: bool = False,
) -> None:
    """The ten CSVs of EmoLabel_DataSplit."""
    for fold in range(1, 6):
        for name, members in zip((train, test), fold_members(labels, fold), strict=True):
            path = folder / name.format(fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(csv_text(labels, members, base, padded))


def votes_for(clip_id: int, label: int) -> list[int]:
    """Votes that differ from clip to clip: the label's class has 7 or 8, the next class the rest of 10."""
    votes = [0] * 7
    votes[label - 1] = 7 + clip_id % 2
    votes[label % 7] = 10 - votes[label - 1]
    return votes


def write_annotation(path: Path, labels: Mapping[int, int] = LABELS, others: Iterable[int] = UNLABELED) -> None:
    """annotation.xlsx: rows not in order of id; ``others`` are clips without a single label."""
    sheet = (workbook := Workbook()).active
    assert sheet is not None
    sheet.append(ANNOTATION_HEADER)
    for clip_id in sorted({*labels, *others}, reverse=True):
        label = labels.get(clip_id, 0)
        votes = votes_for(clip_id, label) if label else [4, 3, 3, 0, 0, 0, 0]
        sheet.append([*votes, clip_id, label])
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(path)


def write_dfew(root: Path) -> Path:
    """The form that most code expects: merged clip_224x224, the ten CSVs and annotation.xlsx."""
    write_full(root / "Clip" / "clip_224x224", [*IDS, *UNLABELED])
    write_splits(root / "EmoLabel_DataSplit")
    write_annotation(root / "Annotation" / "annotation.xlsx")
    return root


def full_size_labels(seed: int = 0) -> dict[int, int]:
    """Labels of 11,697 clips among 16,372 ids, with DFEW's class counts, drawn at random."""
    rng = np.random.default_rng(seed)
    clip_ids = np.sort(rng.choice(np.arange(1, 16_373), 11_697, replace=False))
    labels = np.repeat(np.arange(1, 8), (2445, 1894, 2669, 2173, 1469, 145, 902))
    return dict(zip(clip_ids.tolist(), rng.permutation(labels).tolist(), strict=True))


def write_full_size(root: Path, seed: int = 0) -> Path:
    """A merged tree of DFEW's size: 11,697 clips of 77 frames on average, 14 with fewer than 16.

    Every frame is a link to one of 256 pictures drawn at random, so that no two clips are alike. That is 3,500 links
    a picture, where file systems allow tens of thousands.
    """
    rng = np.random.default_rng(seed)
    labels = full_size_labels(seed)
    write_splits(root / "EmoLabel_DataSplit", labels)
    write_annotation(root / "Annotation" / "annotation.xlsx", labels, set(range(1, 16_373)) - set(labels))
    (root / "pictures").mkdir(parents=True)
    for grey in range(256):
        (root / "pictures" / f"{grey}.jpg").write_bytes(jpeg(grey))
    num_frames = np.clip(rng.lognormal(np.log(67.5), 0.5, len(labels)), 16, 847).astype(int)
    num_frames[rng.choice(len(labels), 14, replace=False)] = 11
    for clip_id, count in zip(labels, num_frames.tolist(), strict=True):
        folder = root / "Clip" / "clip_224x224" / f"{clip_id:05d}"
        folder.mkdir(parents=True)
        for number, grey in enumerate(rng.integers(0, 256, count).tolist(), start=1):
            os.link(root / "pictures" / f"{grey}.jpg", folder / f"{clip_id:05d}_{number:05d}.jpg")
    return root


if __name__ == "__main__":
    write_full_size(Path(sys.argv[1]))
