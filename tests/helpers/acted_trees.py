"""Trees laid out as CREMA-D and RAVDESS are, with tiny videos, for the tests of their loaders."""

from collections.abc import Iterable
from pathlib import Path

from helpers.dfew_trees import video


def flv(num_frames: int) -> bytes:
    """A Flash video, as CREMA-D's are."""
    return video(num_frames, "flv", "flv", rate=30)


def write_crema_d(root: Path, clip_ids: Iterable[str]) -> Path:
    """CREMA-D's repository: videos of 3 + actor % 4 frames, and what else lies in it."""
    for folder in ("VideoFlash", "AudioWAV", "processedResults"):
        (root / folder).mkdir(parents=True)
    for clip_id in clip_ids:
        (root / "VideoFlash" / f"{clip_id}.flv").write_bytes(flv(3 + int(clip_id[:4]) % 4))
        (root / "AudioWAV" / f"{clip_id}.wav").write_bytes(b"RIFF")
    (root / "SentenceFilenames.csv").write_text("Stimulus_Number,Filename\n")
    return root


def write_ravdess(root: Path, names: Iterable[str], archive: str = "") -> Path:
    """Clips in ``Actor_12``, below ``archive`` as the zips unpack; videos of 3 + emotion % 4 frames."""
    for name in names:
        folder = root / archive.format(name[-2:]) / f"Actor_{name[-2:]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.mp4").write_bytes(video(3 + int(name[6:8]) % 4))
    return root
