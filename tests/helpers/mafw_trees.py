"""Trees laid out as MAFW is, with tiny pictures and made-up labels and captions, for the tests of its loader."""

from collections.abc import Mapping
from pathlib import Path

from helpers.dfew_trees import fold_members, video, write_frames

CLASS_NAMES = [
    *["anger", "disgust", "fear", "happiness", "neutral", "sadness"],
    *["surprise", "contempt", "anxiety", "helplessness", "disappointment"],
]
COMPOUNDS = ["disgust_anxiety", "anger_disgust_anxiety", "anger_disgust", "fear_surprise"]
FRAMES, CLIPS, LISTS = Path("data") / "frames", Path("data") / "clips", Path("Train & Test Set")

# Clip id → label: five clips a class and a few more, ids in no order of class.
SINGLE = {25 + 3 * place: CLASS_NAMES[place * 7 % 11] for place in range(62)}
# The compound set has clips with one emotion too, in part the same; these have ids above 10,045.
COMPOUND = {clip_id: label for clip_id, label in SINGLE.items() if clip_id % 2} | {
    20045 + place: COMPOUNDS[place % 4] for place in range(20)
}


def clip_name(clip_id: int) -> str:
    """25 → ``00025``."""
    return f"{clip_id:05d}"


def frame_names(clip_id: int) -> list[str]:
    """Names of a clip's frames in time order, which is not that of their letters: 8.png, 9.png, 10.png …"""
    return [f"{number}.png" for number in range(8, 11 + clip_id % 3)]


def write_clips(folder: Path, clip_ids: Mapping[int, str]) -> None:
    """data/frames."""
    for clip_id in clip_ids:
        write_frames(folder / clip_name(clip_id), frame_names(clip_id))


def write_videos(folder: Path, clip_ids: Mapping[int, str]) -> None:
    """data/clips: clip k with 3 + k % 5 frames."""
    folder.mkdir(parents=True)
    for clip_id in clip_ids:
        (folder / f"{clip_name(clip_id)}.mp4").write_bytes(video(3 + clip_id % 5))


def caption_of(clip_id: int) -> tuple[str, str]:
    """A caption in Chinese and one in English, other ones for every clip."""
    return (
        f"一个男人对着面前的人激动地说话。眉头紧蹙，微微皱鼻。{clip_id}",
        f"A man speaks, {clip_id}. The deep frown.",
    )


def captioned_line(clip_id: int, label: str) -> str:
    """A line of with_caption: four fields between tabs; neutral clips have no captions."""
    captions = caption_of(clip_id) if label != "neutral" else ()
    return "\t".join((f"{clip_name(clip_id)}.mp4", label, *captions))


def write_lists(folder: Path, labels: Mapping[int, str]) -> None:
    """``single`` or ``compound``: each fold's lists without captions (UTF-8, CRLF) and with (tabs, GBK)."""
    numbers = {name: number for number, name in enumerate(sorted(set(labels.values())))}
    for fold in range(1, 6):
        members = fold_members({clip_id: numbers[label] for clip_id, label in labels.items()}, fold)
        for side, clip_ids in zip(("train", "test"), members, strict=True):
            plain = "".join(f"{clip_name(clip_id)}.mp4 {labels[clip_id]}\r\n" for clip_id in reversed(clip_ids))
            captioned = "".join(f"{captioned_line(clip_id, labels[clip_id])}\r\n" for clip_id in clip_ids)
            for kind, content in (("no_caption", plain.encode()), ("with_caption", captioned.encode("gbk"))):
                path = folder / kind / f"set_{fold}" / f"{side}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def write_mafw(root: Path) -> Path:
    """Face frames and all forty lists."""
    write_clips(root / FRAMES, SINGLE | COMPOUND)
    write_lists(root / LISTS / "single", SINGLE)
    write_lists(root / LISTS / "compound", COMPOUND)
    return root
