"""Videos, a face detector and a tracker for the tests of the timeline; none of them knows the real detector."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from dataset_scripts.synthetic_faces import draw_clip
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.timeline.faces import Face
from modeling_stt.timeline.rows import Timeline

NAMES = ["happy", "sad", "angry"]
CROP = {"margin": 0.0, "align": False, "size": 40, "min_side": 16}


def grey(level: int, height: int = 48, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    fps: int = 25,
    codec: str = "libx264",
    gop: int = 12,
    bf: int = 2,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write images at `fps`, or at times in seconds, which are kept to the thousandth."""
    with av.open(path, "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options={"bf": str(bf), "sc_threshold": "0"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(times[i] * 1000) if times else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, seconds: int = 1) -> Path:
    with av.open(path, "w") as container:
        audio = container.add_stream("mp2", rate=44100, layout="stereo")
        for start in range(0, seconds * 44100, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


@cache
def face_clip(label: str = "happy", num_frames: int = 25, image_size: int = 64, seed: int = 0) -> np.ndarray:
    return draw_clip(label, identity_seed=seed, clip_seed=seed, num_frames=num_frames, image_size=image_size)


def make_model(**changes: Any) -> STTForVideoClassification:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "image_size": 32,
        "num_frames": 4,
        "backbone_stem_width": 8,
        "backbone_widths": (8, 16),
        "backbone_depths": (1, 1),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.3,  # so that different clips get different scores
        "id2label": dict(enumerate(NAMES)),
    }
    return STTForVideoClassification(STTConfig(**(settings | changes))).eval()


def make_processor() -> STTVideoProcessor:
    return STTVideoProcessor(size={"height": 32, "width": 32}, num_frames=4)


BLACK = 10


class HalvesDetector:
    """Finds a face in each half of a frame that is not black: where it is is known, so that no real detector matters.

    With `scale` the box covers that share of the half.
    """

    name = "halves"

    def __init__(self, scale: float = 0.9) -> None:
        self.scale = scale

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Face]]:
        return [[face for half in (0, 1) if (face := self._face(frame, half))] for frame in frames]

    def _face(self, frame: np.ndarray, half: int) -> Face | None:
        height, width = frame.shape[0], frame.shape[1] // 2
        if frame[:, half * width : (half + 1) * width].mean() < BLACK:
            return None
        x, y = (half + 0.5) * width, 0.5 * height
        dx, dy = 0.5 * self.scale * width, 0.5 * self.scale * height
        return Face((x - dx, y - dy, x + dx, y + dy), 0.9)


class HalvesTracker:
    """Whoever is in one half is one person, until unseen for a second."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.ids: dict[int, tuple[int, float]] = {}
        self.num_ids = 0

    def update(self, time_s: float, frame: np.ndarray, faces: Sequence[Face]) -> list[tuple[int, Face]]:
        over = {half: id for half, (id, last_s) in self.ids.items() if time_s - last_s > 1}
        self.ended = list(over.values())
        for half in over:
            del self.ids[half]
        tracked = []
        for face in faces:
            half = int(face.center[0] > frame.shape[1] / 2)
            if half not in self.ids:
                self.num_ids += 1
                self.ids[half] = (self.num_ids, time_s)
            self.ids[half] = (self.ids[half][0], time_s)
            tracked.append((self.ids[half][0], face))
        return tracked


def scene(*halves: str, seconds: float = 1.0, size: int = 64) -> list[np.ndarray]:
    """Frames of 64 × 128 px whose halves show a face with this expression each, or nothing for ""."""
    num_frames = round(25 * seconds)
    black = np.zeros((num_frames, size, size, 3), np.uint8)
    parts = [
        face_clip(half, num_frames=max(num_frames, 4), seed=n)[:num_frames] if half else black
        for n, half in enumerate(halves)
    ]
    return list(np.concatenate(parts, axis=2))


def make_timeline(**options: Any) -> Timeline:
    settings: dict[str, Any] = {"processor": make_processor(), "detector": HalvesDetector(), "tracker": HalvesTracker}
    return Timeline(options.pop("model", None) or make_model(face_crop=CROP), **(settings | options))


def timed(images: Sequence[np.ndarray], fps: int = 25) -> list[tuple[float, np.ndarray]]:
    return [(n / fps, image) for n, image in enumerate(images)]


def find_halves(frame: np.ndarray) -> list[Face]:
    """The detector as a function, for `--detector helpers.face_videos:find_halves`."""
    return HalvesDetector().detect([frame])[0]


def save_model(folder: Path, **changes: Any) -> Path:
    make_model(**({"face_crop": CROP} | changes)).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder
