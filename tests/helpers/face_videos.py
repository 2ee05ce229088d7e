"""Scenes of rendered faces, and a face detector and a tracker that know where those are."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.rendered_faces import render_clip
from helpers.models import NAMES as NAMES
from helpers.models import make_processor as make_any_processor
from helpers.models import make_scorer as make_model
from helpers.videos import grey as grey
from helpers.videos import write_sound as write_sound
from helpers.videos import write_video as write_video
from modeling_stt import STTVideoProcessor
from modeling_stt.timeline.faces import Face
from modeling_stt.timeline.pipeline import Timeline

CROP = {"margin": 0.0, "align": False, "size": 40, "min_side": 16}


@cache
def face_clip(label: str = "happy", num_frames: int = 25, image_size: int = 64, seed: int = 0) -> np.ndarray:
    clip = render_clip(
        label, identity_seed=seed, clip_seed=seed, num_frames=num_frames, image_size=image_size, plain=True
    )
    return clip.frames


def make_processor(face_crop: dict[str, Any] | None = CROP) -> STTVideoProcessor:
    return make_any_processor(face_crop=face_crop)


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
        if not width or frame[:, half * width : (half + 1) * width].mean() < BLACK:
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
    return Timeline(options.pop("model", None) or make_model(), **(settings | options))


def timed(images: Sequence[np.ndarray], fps: int = 25) -> list[tuple[float, np.ndarray]]:
    return [(n / fps, image) for n, image in enumerate(images)]


def find_halves(frame: np.ndarray) -> list[Face]:
    """The detector as a function, for `--detector helpers.face_videos:find_halves`."""
    return HalvesDetector().detect([frame])[0]


def save_model(folder: Path, **changes: Any) -> Path:
    make_model(**changes).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder
