"""Synthetic moving faces in DFEW's on-disk layout: drawn by a program, no real person, no DFEW data.

Everything of the package can be run, tested and demonstrated with them, but a score on synthetic faces says nothing
about real ones. Seven classes carry DFEW's names and are drawn from facial action units (brows, lids, cheeks, nose,
mouth). Who is shown, in what light, pose, place and picture quality is drawn at random and knows nothing of the class.

`fear` is `surprise` played backwards, frame for frame: a sudden start and a slow fade against a slow rise and a sudden
end. The two differ in nothing but the order of their frames, so a model that is blind to time cannot tell them apart.

    python -m dataset_scripts.synthetic_faces OUT --num_clips 500 --num_frames 40 --imbalanced --seed 0
"""

import argparse
import csv
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from openpyxl import Workbook
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from tqdm import tqdm

CLASS_NAMES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
ORDER_ONLY = ("surprise", "fear")
NUM_FOLDS = 5
FRAMES_PER_SECOND = 25
MARKER = "SYNTHETIC.txt"

# DFEW's single-labelled clips a class, in the order of CLASS_NAMES.
_DFEW_COUNTS = np.array([2445, 1894, 2669, 2173, 1469, 145, 902])
_CLIPS_PER_PERSON = 5
_MIN_FRAMES, _MIN_IMAGE_SIZE = 4, 32

# Where each class pulls the face at full strength; units not named rest. The comments give the FACS action units.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "happy": {"corners": 1, "stretch": 0.8, "cheeks": 1, "squint": 0.55, "jaw": 0.3, "upper_lip": 0.3},  # 6, 12, 25
    "sad": {"inner_brow": 1, "outer_brow": -0.5, "corners": -1, "droop": 1, "pout": 0.7, "look_down": 1},  # 1, 15, 17
    "neutral": {},
    "angry": {"inner_brow": -1, "furrow": 1, "squint": 0.4, "press": 1, "corners": -0.25, "flare": 0.5},  # 4, 7, 23
    "surprise": {"inner_brow": 1, "outer_brow": 1, "wide": 1, "jaw": 1, "round": 0.8},  # 1, 2, 5, 26
    "disgust": {"wrinkle": 1, "upper_lip": 1, "sneer": 1, "inner_brow": -0.5, "squint": 0.8, "corners": -0.3},  # 9, 10
}
EXPRESSIONS["fear"] = EXPRESSIONS["surprise"]
_UNITS = sorted({unit for pulls in EXPRESSIONS.values() for unit in pulls})

Array = np.ndarray
Units = dict[str, Array]

# Lengths are in face units: x to the right, y down, origin between the eyes, chin near y = 1.2, temples near x = 0.8.
_U = -np.cos(np.linspace(0, np.pi, 17))  # from one end of an eye, mouth or forehead to the other, dense at the ends
_ARC = 1 - _U**2
_TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_SKINS = np.array([(255, 228, 206), (244, 205, 172), (226, 178, 138), (196, 140, 98), (148, 98, 66), (104, 70, 50)])
_HAIRS = np.array([(30, 26, 26), (58, 40, 30), (96, 62, 38), (140, 72, 40), (190, 150, 90), (150, 148, 146)])
_IRISES = np.array([(70, 44, 26), (96, 66, 34), (84, 106, 64), (78, 116, 150), (110, 120, 126)])
# Colours of the soft layer, by which the picture is multiplied: white leaves it as it is.
_WHITE, _SHADOW, _FOLD, _BLUSH = np.array([(255, 255, 255), (206, 184, 178), (140, 104, 98), (255, 210, 202)])


class Person:
    """What stays the same whenever this person is drawn: lengths in face units, colours as RGB in 0..255."""

    def __init__(self, identity_seed: int) -> None:
        rng = np.random.default_rng([identity_seed, 0])
        self.skin = _pick(rng, _SKINS)
        self.hair = _pick(rng, _HAIRS)
        self.brow = _mix(self.hair * 0.6, self.skin * 0.4, 0.4)
        self.lips = _mix(self.skin * 0.92, np.array((176, 66, 76)), rng.uniform(0.25, 0.7))
        self.iris = _pick(rng, _IRISES)
        self.width, self.chin, self.jaw_shape = rng.uniform((0.74, 1.12, 1.75), (0.86, 1.28, 2.35))
        self.eye_x, self.eye_width, self.eye_height = rng.uniform((0.33, 0.17, 0.07), (0.39, 0.2, 0.095))
        self.eye_tilt, self.brow_arch = rng.uniform((-0.01, 0.02), (0.03, 0.07))
        self.brow_y, self.brow_thickness = rng.uniform((-0.28, 0.022), (-0.22, 0.045))
        self.nose_y, self.nose_width = rng.uniform((0.4, 0.13), (0.5, 0.19))
        self.mouth_y, self.mouth_width, self.resting_corners = rng.uniform((0.73, 0.25, -0.2), (0.8, 0.32, 0.2))
        self.upper_lip, self.lower_lip = rng.uniform((0.045, 0.06), (0.08, 0.1))
        self.sneer_side = rng.choice([-1, 1])
        self.hairline, self.hair_volume, self.parting = rng.uniform((-0.78, 0.04, -0.5), (-0.52, 0.2, 0.5))
        self.hair_length = rng.choice([0.2, 0.5, 1.2, 1.9]) + rng.uniform(-0.1, 0.1)
        self.stubble = max(0.0, rng.uniform(-0.7, 0.45))
        self.bald, self.glasses = rng.random(2) < (0.08, 0.18)


class Scene:
    """What a clip shows apart from the person and the class, of which it must know nothing: see `ORDER_ONLY`.

    What moves is (T, 1), one value a frame: angles in radians, places as fractions of the image, others in face units.
    """

    def __init__(self, clip_seed: int, num_frames: int) -> None:
        rng = np.random.default_rng([clip_seed, 1])
        seconds = np.arange(num_frames)[:, None] / FRAMES_PER_SECOND

        def drift(size: float, hertz: float = 0.5) -> Array:
            waves = [np.sin(2 * np.pi * (rng.uniform(0.2, 1) * hertz * seconds + rng.random())) for _ in range(3)]
            return size * np.sum(waves, axis=0) / 3

        self.num_frames = num_frames
        self.yaw = rng.normal(0, 0.16) + drift(0.2)
        self.pitch = rng.normal(0, 0.08) + drift(0.12)
        self.roll = rng.normal(0, 0.08) + drift(0.1)
        self.size = rng.uniform(0.36, 0.44)
        self.scale = self.size * (1 + drift(0.05))
        self.centre_x = rng.normal(0.5, 0.025) + drift(0.04)
        self.centre_y = rng.normal(0.51, 0.025) + drift(0.03)
        self.gaze_x, self.gaze_y = drift(0.07, 1), drift(0.03, 1)
        blinks = rng.uniform(-1, 1 + seconds[-1, 0], size=1 + int(seconds[-1, 0]))
        self.blink = np.exp(-(((seconds - blinks) / 0.06) ** 4)).max(axis=1, keepdims=True)
        self.talk = rng.uniform(0.5, 1) * np.clip(drift(1.4, 5), 0, 1)
        self.idle = {unit: drift(0.06, 1) for unit in _UNITS}
        self.timing = rng.random(4)
        self.strength = rng.uniform(0.5, 1)
        light = np.array((rng.uniform(-0.8, 0.8), rng.uniform(-0.9, 0.2), rng.uniform(0.5, 1)))
        self.light = light / np.sqrt((light**2).sum())
        self.light_colour = rng.uniform(0.7, 1.15) * (1 - rng.uniform(0, 0.13, size=3))
        self.ambient = rng.uniform(0.45, 0.85)
        self.blur = max(0.0, rng.uniform(-1.6, 1.4))
        self.noise = rng.uniform(0.5, 6)
        self.cloth = rng.uniform(20, 230, size=3)
        self.occluder = rng.choice(["none", "hand", "bar"], p=[0.76, 0.14, 0.1])
        self.occluder_x = rng.choice([-1, 1]) * rng.uniform(0.35, 0.75) + drift(0.2)
        self.occluder_y = 0.75 + drift(0.3)
        self.texture_seed = rng.integers(2**31)

    def place(self, x: Any, y: Any, depth: float | None = None) -> Array:
        """Points in face units, x and y broadcast to (T, n), as fractions of the image, (T, n, 2).

        They lie on the front of an ellipsoid head and turn with it; with `depth` given they lie on a plane there and
        keep their width when the head turns, as an outline does.
        """
        if depth is None:
            z = 0.8 * np.sqrt(np.clip(1 - (x / 0.95) ** 2 - ((y - 0.1) / 1.5) ** 2, 0, None)) - 0.35
            x, y = x * np.cos(self.yaw) + z * np.sin(self.yaw), y * np.cos(self.pitch) + z * np.sin(self.pitch)
        else:
            x, y = x + depth * np.sin(self.yaw), y + depth * np.sin(self.pitch)
        y = y - 0.1
        cos, sin = self.scale * np.cos(self.roll), self.scale * np.sin(self.roll)
        return np.stack([self.centre_x + cos * x - sin * y, self.centre_y + sin * x + cos * y], axis=-1)

    def ellipse(self, x: Any, y: Any, half_width: Any, half_height: Any, depth: float | None = None) -> Array:
        """The outline of an ellipse, as `place` gives it."""
        return self.place(x + half_width * np.cos(_TURN), y + half_height * np.sin(_TURN), depth)

    def band(self, x: Any, top: Any, bottom: Any) -> Array:
        """The outline of what lies between two curves over the same x, as `place` gives it."""
        return np.concatenate([self.place(x, top), self.place(x, bottom)[:, ::-1]], axis=1)


class Shape(NamedTuple):
    """A polygon, or with `width` (face units) a line, through `points` (T, n, 2) in `colour` (3,) or (T, 3).

    Soft shapes (shadows, folds, blush) go to a small blurred layer by which the picture is multiplied.
    """

    points: Array
    colour: Array
    width: float = 0
    soft: bool = False


def action_units(label: str, scene: Scene, strength: float = 1.0) -> Units:
    """How far each action unit is pulled in each frame, (T, 1), about -1..1: it grows, holds and fades from neutral.

    `surprise` comes within three frames of forty in the first fifth of the clip and fades over more than half of it;
    the others rise and fall alike, with their height in mid clip. Everybody talks a little, neutral faces most.
    """
    t = (np.arange(scene.num_frames)[:, None] + 0.5) / scene.num_frames
    start, rise, hold, fall = scene.timing
    if label in ORDER_ONLY:
        start, rise, hold, fall = 0.06 + 0.1 * start, 0.05 + 0.03 * rise, 0.06 + 0.06 * hold, 0.5 + 0.14 * fall
        level = _ramp(t, start, rise) * (1 - np.clip((t - start - rise - hold) / fall, 0, 1))
    else:
        start, rise, fall, end = 0.02 + 0.18 * start, 0.1 + 0.2 * rise, 0.1 + 0.2 * fall, 0.8 + 0.18 * hold
        level = _ramp(t, start, rise) * (1 - _ramp(t, end - fall, fall))
    level = scene.strength * strength * level
    pulls = {unit: scene.idle[unit] + level * EXPRESSIONS[label].get(unit, 0) for unit in _UNITS}
    pulls["jaw"] = np.clip(pulls["jaw"] + scene.talk * (0.45 if label == "neutral" else 0.12), 0, 1.1)
    return pulls


def draw_clip(label: str, *, identity_seed: int, clip_seed: int, num_frames: int, image_size: int) -> Array:
    """Draw one synthetic clip, (num_frames, image_size, image_size, 3) uint8 RGB; the same arguments, the same pixels.

    A `fear` clip is the `surprise` clip of the same seeds with its frames reversed. Raises `ValueError` for a label
    not in `CLASS_NAMES`, fewer than 4 frames, or an image size that is odd or below 32 pixels.
    """
    _check_sizes(num_frames, num_frames, image_size)
    if label not in CLASS_NAMES:
        raise ValueError(f"label is {label!r}; expected one of {', '.join(CLASS_NAMES)}")
    return _draw(label, 1.0, Person(identity_seed), Scene(clip_seed, num_frames), image_size)


def _draw(label: str, strength: float, person: Person, scene: Scene, image_size: int) -> Array:
    if label == ORDER_ONLY[1]:
        return _draw(ORDER_ONLY[0], strength, person, scene, image_size)[::-1]
    units = action_units(label, scene, strength)
    shapes = [
        *_head(person, scene, units),
        *_nose(person, scene, units),
        *_mouth(person, scene, units),
        *_eye(person, scene, units, -1),
        *_eye(person, scene, units, 1),
        *_folds(person, scene, units),
        *_hair_and_glasses(person, scene),
        *_occluder(person, scene),
    ]
    return _paint(shapes, scene, image_size)


def _head(p: Person, scene: Scene, units: Units) -> Iterator[Shape]:
    """Hair behind the head, neck and shoulders, ears, face and beard."""
    chin = p.chin + 0.16 * units["jaw"]
    if not p.bald:
        back = _oval(p.width + p.hair_volume, 1.05 + p.hair_volume, p.hair_length, 2.6)
        yield Shape(scene.place(*back, depth=-0.4), p.hair * 0.88)
    neck = scene.place(np.array([-0.4, 0.4, 0.46, -0.46]), np.array([0.5, 0.5, 2.4, 2.4]), depth=-0.25)
    yield Shape(neck, p.skin * 0.82)
    x, y = np.array([(-1.6, 2.6), (-1.3, 1.7), (-0.45, 1.42), (0, 1.62), (0.45, 1.42), (1.3, 1.7), (1.6, 2.6)]).T
    yield Shape(scene.place(x, y, depth=-0.3), scene.cloth)
    for side in (-1, 1):
        yield Shape(scene.ellipse(side * p.width, 0.12, 0.11, 0.2, depth=-0.1), p.skin * 0.9)
    yield Shape(scene.place(*_oval(0.85 * p.width, 0.1, p.chin + 0.3, 2), depth=0), _SHADOW * 0.75, soft=True)
    face = scene.place(*_oval(p.width, 1.05, chin, p.jaw_shape), depth=0.12)
    yield Shape(face, p.skin)
    yield Shape(face, _WHITE, soft=True)
    cheeks = scene.place(p.width * _U, 0.62 - 0.5 * np.abs(_U) ** 3, depth=0.12)
    beard = np.concatenate([cheeks, face[:, :20]], axis=1)
    yield Shape(beard, _mix(_WHITE, 60 + 0.7 * p.hair, p.stubble), soft=True)


def _nose(p: Person, scene: Scene, units: Units) -> Iterator[Shape]:
    wide = p.nose_width * (1 + 0.25 * units["flare"] + 0.2 * units["wrinkle"])
    tip = p.nose_y - 0.06 * units["wrinkle"]
    dark_side = -np.sign(scene.light[0])
    x = dark_side * (np.array([0.05, 0.07, 0, 0]) + wide * np.array([0, 0, 1, 0.2]))
    y = np.array([-0.12, 0.1, 0, 0]) + tip * np.array([0, 0, 1, 1])
    yield Shape(scene.place(x, y), _SHADOW, soft=True)
    yield Shape(scene.ellipse(0, tip + 0.03, wide, 0.05), _SHADOW * 0.95, soft=True)
    yield Shape(scene.ellipse(0, tip - 0.04, 0.6 * wide, 0.06), p.skin * 1.02)
    for side in (-1, 1):
        yield Shape(scene.ellipse(side * 0.5 * wide, tip, 0.035, 0.015), p.skin * 0.45)
        wing = scene.place(side * wide * (0.9 + 0.12 * np.cos(1.4 * _U)), tip - 0.03 + 0.065 * _U)
        yield Shape(wing, p.skin * 0.72, width=0.014)


def _mouth(p: Person, scene: Scene, units: Units) -> Iterator[Shape]:
    jaw, rounded = units["jaw"], np.clip(units["round"], 0, 1)
    x = p.mouth_width * (1 + 0.3 * units["stretch"] - 0.28 * units["round"]) * _U
    middle = p.mouth_y + 0.05 * jaw - 0.12 * (units["corners"] + p.resting_corners) * (np.abs(_U) ** 1.8 - 0.25)
    opening = jaw * _ARC ** (0.9 - 0.42 * rounded)
    sneer = units["sneer"] * np.clip(p.sneer_side * _U, 0, 1)
    raised = 0.07 * units["upper_lip"] * _ARC**0.7 + 0.11 * sneer * _ARC**0.5
    inner_top = middle - (0.08 + 0.12 * rounded) * opening - raised
    inner_bottom = middle + 0.26 * opening + 0.3 * raised
    gap = inner_bottom - inner_top
    teeth = np.minimum(0.5 * gap, 0.085) * (1 - 0.6 * rounded)
    fullness = 1 - 0.75 * np.clip(units["press"], 0, 1)
    bow = _ARC**0.6 * (1 - 0.25 * np.exp(-((_U / 0.16) ** 2)))
    top = inner_top - p.upper_lip * fullness * bow
    bottom = inner_bottom + p.lower_lip * (fullness + 0.35 * units["pout"]) * _ARC**0.8
    yield Shape(scene.band(0.75 * x, bottom, bottom + 0.07), _SHADOW, soft=True)
    yield Shape(scene.band(x, top, inner_top), p.lips * 0.88)
    yield Shape(scene.band(x, inner_bottom, bottom), p.lips)
    yield Shape(scene.band(x, inner_top, inner_bottom), np.array((64, 22, 26)))
    yield Shape(scene.band(0.92 * x, inner_top, inner_top + teeth), np.array((236, 230, 220)))
    tongue = inner_bottom - 0.35 * np.clip(gap - 0.1, 0, None)
    yield Shape(scene.band(0.8 * x, tongue, inner_bottom), np.array((168, 74, 78)))
    yield Shape(scene.place(x, inner_top), p.lips * 0.5, width=0.018)


def _eye(p: Person, scene: Scene, units: Units, side: int) -> Iterator[Shape]:
    """One eye, its lids and its brow; `side` is -1 for the one on the left of the image."""
    centre, outward, squint = side * p.eye_x, side * _U, np.clip(units["squint"], 0, 1)
    x = centre + p.eye_width * _U
    middle = -p.eye_tilt * outward + 0.03 * units["droop"] * np.clip(outward, 0, 1)
    top = middle - p.eye_height * (1 + 0.6 * units["wide"] - 0.4 * squint - 0.35 * units["droop"]) * _ARC**0.7
    bottom = middle + 0.6 * p.eye_height * (1 + 0.25 * units["wide"] - 0.7 * squint) * _ARC**0.8
    top = _mix(top, bottom, scene.blink)
    yield Shape(scene.ellipse(centre, -0.02, 0.27, 0.17), _mix(_WHITE, _SHADOW, 0.5), soft=True)
    yield Shape(scene.band(x, top, bottom), np.array((238, 234, 230)))
    pupil_x, pupil_y = centre + scene.gaze_x, -0.01 + scene.gaze_y + 0.04 * units["look_down"]
    for radius, colour in ((0.086, p.iris * 0.55), (0.074, p.iris), (0.036, np.array((16, 14, 14)))):
        yield Shape(scene.ellipse(pupil_x, pupil_y, radius, radius), colour)
    yield Shape(scene.ellipse(pupil_x - 0.03, pupil_y - 0.03, 0.018, 0.018), np.array((250, 250, 250)))
    # The lids cover what the eyeball shows above and below the opening.
    yield Shape(scene.band(x, middle - 0.19 * _ARC**0.5, top), p.skin * 0.93)
    yield Shape(scene.band(x, bottom, middle + 0.15 * _ARC**0.5), p.skin * 0.98)
    yield Shape(scene.place(x, top), p.skin * 0.22, width=0.024)
    yield Shape(scene.place(x, bottom), p.skin * 0.62, width=0.01)
    yield Shape(scene.place(x, _mix(top, middle - 0.15 * _ARC**0.5, 0.4))[:, 2:-2], p.skin * 0.7, width=0.012)
    s = np.linspace(0, 1, 11)  # along the brow, from its inner to its outer end
    x = side * (0.14 + (p.eye_x + 0.08) * s - 0.07 * np.clip(units["furrow"], 0, 1) * (1 - s))
    y = p.brow_y - p.brow_arch * np.sin(np.pi * s**1.4) + 0.04 * s**3 + 0.03 * units["wrinkle"]
    y = y - 0.13 * units["inner_brow"] * (1 - s) ** 1.3 - 0.13 * units["outer_brow"] * s**0.8
    thickness = p.brow_thickness * np.sqrt(1.15 - s) * np.clip(0.6 + 6 * s, 0, 1)
    yield Shape(scene.band(x, y - thickness, y + thickness), p.brow)


def _folds(p: Person, scene: Scene, units: Units) -> Iterator[Shape]:
    """What pulled muscles do to the skin: cheeks, the folds from nose to mouth, lines on forehead, nose and brow."""
    s = np.linspace(0, 1, 9)
    lifted = 0.1 + 0.8 * np.maximum(units["cheeks"], np.maximum(units["wrinkle"], units["sneer"]))
    frown = np.maximum(units["furrow"], units["wrinkle"])
    for side in (-1, 1):
        cheek = scene.ellipse(side * 0.46, 0.36 - 0.06 * units["cheeks"], 0.2, 0.15)
        yield Shape(cheek, _fading(_BLUSH, 0.25 + 0.5 * units["cheeks"]), soft=True)
        x = side * (p.nose_width + 0.04 + (p.mouth_width - 0.05 + 0.1 * units["stretch"]) * s**1.3)
        fold = scene.place(x, p.nose_y - 0.04 + (p.mouth_y - p.nose_y + 0.03) * s)
        yield Shape(fold, _fading(_FOLD, 0.8 * lifted), width=0.04, soft=True)
        furrow = scene.place(side * np.array([0.05, 0.07]), np.array([-0.32, -0.14]))
        yield Shape(furrow, _fading(_FOLD, frown), width=0.035, soft=True)
    for y in (-0.06, 0.02, 0.1):
        yield Shape(scene.place(0.1 * _U, y + 0.03 * _U**2), _fading(_FOLD, units["wrinkle"]), width=0.03, soft=True)
    for y in (-0.62, -0.52, -0.44):
        line = scene.place(0.42 * _U, y + 0.04 * _U**2 - 0.04 * units["inner_brow"])
        yield Shape(line, _fading(_FOLD, 0.6 * units["inner_brow"]), width=0.028, soft=True)


def _hair_and_glasses(p: Person, scene: Scene) -> Iterator[Shape]:
    if not p.bald:
        turn = np.pi * (_U + 1) / 2
        line_y = p.hairline + (0.1 - p.hairline) * np.abs(_U) ** 6 - 0.12 * np.exp(-(((_U - p.parting) / 0.25) ** 2))
        reach, height = p.width + 0.05 + 0.5 * p.hair_volume, 1.15 + p.hair_volume
        crown = scene.place(reach * np.cos(turn), 0.1 - height * np.sin(turn) ** 0.9, depth=0)
        hair = np.concatenate([scene.place(p.width * _U, line_y, depth=0.12), crown], axis=1)
        shadow = np.concatenate([scene.place(p.width * _U, line_y + 0.07, depth=0.12), crown], axis=1)
        yield Shape(shadow, _SHADOW, soft=True)
        yield Shape(hair, p.hair)
        yield Shape(hair, 0.95 * _WHITE, soft=True)
        for strand in range(3, 14):
            ends = hair[:, [strand, 33 - strand]]
            yield Shape(ends, (0.76 + 0.12 * (strand % 2)) * _WHITE, width=0.02, soft=True)
    if p.glasses:
        frame = np.array((40, 36, 38))
        for side in (-1, 1):
            rim = scene.ellipse(side * p.eye_x, 0.03, 0.26, 0.2)
            yield Shape(np.concatenate([rim, rim[:, :1]], axis=1), frame, width=0.03)
            yield Shape(scene.place(side * np.array([0.62, 0.8]), np.array([0, -0.02])), frame, width=0.03)
        yield Shape(scene.place(0.1 * _U, -0.03 * _ARC), frame, width=0.03)


def _occluder(p: Person, scene: Scene) -> Iterator[Shape]:
    x, y = scene.occluder_x, scene.occluder_y
    if scene.occluder == "hand":
        tip = np.sign(np.sin(_TURN)) * np.abs(np.sin(_TURN)) ** 0.35  # an ellipse with straight sides
        for across, length in ((-0.26, 1.0), (-0.09, 1.12), (0.08, 1.1), (0.25, 0.95)):
            for width, colour, soft in (
                (0.1, p.skin * 0.6, False),
                (0.09, p.skin * 0.95, False),
                (0.09, _WHITE, True),
            ):
                finger = scene.place(x + across + width * np.cos(_TURN), y + 1 + length * tip, depth=0.6)
                yield Shape(finger, colour, soft=soft)
    elif scene.occluder == "bar":
        bar = scene.place(1.3 * x + 0.1 * np.array([-1, 1, 1, -1]), 3 * np.array([-1, -1, 1, 1]), depth=0.6)
        yield Shape(bar, 255 - scene.cloth)
        yield Shape(bar, _WHITE, soft=True)


def _paint(shapes: Sequence[Shape], scene: Scene, size: int) -> Array:
    """Paint the shapes over a background at twice the size, light them, then blur and add noise as a camera does."""
    rng = np.random.default_rng(scene.texture_seed)
    background, shade = _background(rng, size), _shade(scene, size)
    grain = Image.fromarray(rng.normal(128, scene.noise, (size + 64, size + 64, 3)).clip(0, 255).astype(np.uint8))
    sharp = [_for_pillow(shape, 2 * size, scene) for shape in shapes if not shape.soft]
    soft = [_for_pillow(shape, size // 2, scene) for shape in shapes if shape.soft]
    frames = []
    for t in range(scene.num_frames):
        x, y = scene.centre_x[t, 0] - 0.5, scene.centre_y[t, 0] - 0.5
        canvas = _window(background, 0.2 * size + 0.3 * size * x, 0.2 * size + 0.3 * size * y, 2 * size)
        _paint_layer(canvas, sharp, t)
        shadow = Image.new("RGB", (size // 2, size // 2), (255, 255, 255))
        _paint_layer(shadow, soft, t)
        shadow = shadow.filter(ImageFilter.BoxBlur(size / 160))
        light = _window(shade, size * (0.25 - 0.5 * x), size * (0.25 - 0.5 * y), size // 2)
        shadow = ImageChops.multiply(shadow, light)
        frame = ImageChops.multiply(canvas.reduce(2), shadow.resize((size, size), Image.Resampling.BILINEAR))
        if scene.blur > 0:
            frame = frame.filter(ImageFilter.BoxBlur(scene.blur * size / 224))
        left, top = rng.integers(0, 65, size=2)
        frames.append(np.asarray(ImageChops.add(frame, _window(grain, left, top, size), 1, -128)))
    return np.stack(frames)


def _paint_layer(image: Image.Image, layer: Iterable[tuple[list, list, int]], t: int) -> None:
    draw = ImageDraw.Draw(image)
    for points, colours, width in layer:
        if width:
            draw.line(points[t], fill=colours[t], width=width, joint="curve")
        else:
            draw.polygon(points[t], fill=colours[t])


def _for_pillow(shape: Shape, size: int, scene: Scene) -> tuple[list, list, int]:
    """A shape's points and colours as `ImageDraw` wants them, one list item a frame, and its line width in pixels."""
    colours = np.broadcast_to(shape.colour, (scene.num_frames, 3)).clip(0, 255).astype(int)
    width = max(1, round(shape.width * scene.size * size)) if shape.width else 0
    return (shape.points * size).reshape(scene.num_frames, -1).tolist(), [tuple(c) for c in colours.tolist()], width


def _window(image: Image.Image, left: float, top: float, size: int) -> Image.Image:
    return image.crop((round(left), round(top), round(left) + size, round(top) + size))


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """An out-of-focus room, somewhat larger than the painted picture so that the camera can move over it."""
    corners = _mix(rng.uniform(20, 220), rng.uniform(20, 220, (2, 2, 3)), 0.5).astype(np.uint8)
    small = Image.fromarray(corners).resize((64, 64), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(small)
    for _ in range(rng.integers(2, 9)):
        x, y, width, height = rng.uniform((-16, -16, 6, 6), (64, 64, 32, 48))
        colour = _mix(rng.uniform(10, 240), rng.uniform(10, 240, 3), 0.4).astype(int).tolist()
        paint = draw.ellipse if rng.random() < 0.4 else draw.rectangle
        paint((x, y, x + width, y + height), fill=tuple(colour))
    side = round(2.4 * size)
    return small.filter(ImageFilter.GaussianBlur(2)).resize((side, side), Image.Resampling.BICUBIC)


def _shade(scene: Scene, size: int) -> Image.Image:
    """Light on an ellipsoid head in the middle of a picture twice as wide and high as the soft layer."""
    across = np.linspace(-1, 1, size) / scene.size
    x, y = across[None, :] / 0.9, across[:, None] / 1.35
    radius = np.sqrt(x**2 + y**2)
    inside = np.minimum(1, 0.96 / np.maximum(radius, 1e-6))
    facing = scene.light[0] * x * inside + scene.light[1] * y * inside
    facing = facing + scene.light[2] * np.sqrt(1 - (radius * inside) ** 2)
    lit = scene.ambient + (1 - scene.ambient) * np.clip(facing, 0, 1)
    lit = _mix(lit, 0.9, np.clip(radius - 1, 0, 1))
    return Image.fromarray((255 * lit[..., None] * scene.light_colour).clip(0, 255).astype(np.uint8))


def _oval(half_width: float, up: float, down: Any, bottom_shape: float) -> tuple[Array, Array]:
    """An outline from the right temple over the chin: half a superellipse (larger shape: squarer), half an ellipse."""
    cos, sin = np.cos(_TURN), np.sin(_TURN)
    power = np.where(sin > 0, 2 / bottom_shape, 0.9)
    y = 0.1 + np.where(sin > 0, down - 0.1, up + 0.1) * np.sign(sin) * np.abs(sin) ** power
    return half_width * np.sign(cos) * np.abs(cos) ** power, y


def _fading(colour: Array, amount: Array) -> Array:
    """White (no effect in the soft layer) where `amount` (T, 1) is 0, `colour` where it is 1."""
    return _mix(_WHITE, colour, np.clip(amount, 0, 1))


def _mix(a: Any, b: Any, amount: Any) -> Any:
    return a + (b - a) * amount


def _pick(rng: np.random.Generator, palette: Array) -> Array:
    """A colour on the line between two neighbours of a palette."""
    at = rng.uniform(0, len(palette) - 1)
    return _mix(palette[int(at)], palette[int(at) + 1], at % 1)


def _ramp(t: Array, start: float, length: float) -> Array:
    """0 before `start`, 1 after `start + length`, smooth between."""
    s = np.clip((t - start) / length, 0, 1)
    return s * s * (3 - 2 * s)


def _check_sizes(low: int, high: int, image_size: int) -> None:
    if low < _MIN_FRAMES or high < low:
        raise ValueError(f"num_frames is {low} to {high}; expected a number, or a range, of at least {_MIN_FRAMES}")
    if image_size < _MIN_IMAGE_SIZE or image_size % 2:
        raise ValueError(f"image_size is {image_size}; expected an even number of at least {_MIN_IMAGE_SIZE} pixels")


class _Clip(NamedTuple):
    """What is decided about a clip before it is drawn."""

    clip_id: int
    label: int  # 1..7, or 0: annotators did not agree
    fold: int  # 1..5, the fold whose test set it is in; 0: in none, for want of a label or of faces
    identity: int
    has_faces: bool


def write_synthetic_dfew(
    root: str | Path,
    *,
    num_clips: int = 500,
    num_frames: int | tuple[int, int] = 40,
    image_size: int = 224,
    imbalanced: bool = False,
    seed: int = 0,
    num_workers: int | None = None,
    videos: bool = True,
    progress: bool = True,
) -> Path:
    """Write a tree of synthetic clips laid out as DFEW is; returns its root.

    `num_clips` counts the clips of the splits, as DFEW's 11,697 does. As there, a few more are in `annotation.xlsx`:
    some without a single label (label 0), some whose faces were not found (no frames). Folds follow DFEW's closed rule
    and no person is on both sides of one; `identities.csv` tells who is who. `num_frames` is the originals' length, or
    its (lowest, highest); in some clips the faces of a few frames are missing. `imbalanced` gives DFEW's class
    proportions. The same arguments write the same images, whatever `num_workers` is (default: all cores; 1: no pool).

    A tree that this function wrote before is replaced. Any other file or folder that is not empty raises
    `FileExistsError`; fewer than 35 clips (5 folds of 7 classes) or what `draw_clip` refuses, `ValueError`.
    """
    low, high = (num_frames, num_frames) if isinstance(num_frames, int) else num_frames
    _check_sizes(low, high, image_size)
    if num_clips < NUM_FOLDS * len(CLASS_NAMES):
        raise ValueError(f"num_clips is {num_clips}; {NUM_FOLDS} folds of {len(CLASS_NAMES)} classes need at least 35")
    clips = _plan_clips(num_clips, imbalanced, seed)
    root = Path(root).expanduser()
    _clear(root)
    (root / MARKER).write_text(
        "Synthetic faces in DFEW's layout, drawn by dataset_scripts.synthetic_faces: no real person, no DFEW data.\n"
        f"{num_clips=} num_frames={low}..{high} {image_size=} {imbalanced=} {seed=} {videos=}\n"
    )
    write = partial(_write_clip, root=root, low=low, high=high, image_size=image_size, seed=seed, videos=videos)
    drawn = _map(write, clips, num_workers or os.cpu_count() or 1)
    for _ in tqdm(drawn, total=len(clips), desc="drawing synthetic clips", unit="clip", disable=not progress):
        pass
    _write_tables(root, clips, seed)
    return root


def _clear(root: Path) -> None:
    """Make `root` an empty folder, if it is new, empty, or our own."""
    if root.exists() and not (root / MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and holds no {MARKER}, so this program did not write it and will not replace it; "
            "name a new or an empty folder"
        )
    for name in ("EmoLabel_DataSplit", "Annotation", "Clip"):
        if (root / name).exists():
            shutil.rmtree(root / name)
    root.mkdir(parents=True, exist_ok=True)


def _class_counts(num_clips: int, imbalanced: bool) -> list[int]:
    """Clips a class, in the order of `CLASS_NAMES`: equal, or in DFEW's proportions with at least one a fold."""
    share = _DFEW_COUNTS if imbalanced else np.ones(len(CLASS_NAMES))
    ends = np.round(num_clips * np.cumsum([0, *share]) / share.sum())
    counts = np.maximum(NUM_FOLDS, np.diff(ends)).astype(int)
    while counts.sum() > num_clips:  # the rarest classes were given more than their share
        counts[counts.argmax()] -= 1
    return counts.tolist()


def _plan_clips(num_clips: int, imbalanced: bool, seed: int) -> list[_Clip]:
    """Ids, labels, folds and people of all clips, by id.

    DFEW's closed rule: within each class the clips, by id, are cut into five contiguous blocks, larger ones first, and
    block k is the test set of fold k. Each block has people of its own, the same in every class; they come one after
    the other by id, so that neighbouring ids show the same person as DFEW's show the same film.
    """
    rng = np.random.default_rng([seed, 2])
    extra = 1 + num_clips // 50
    labels = np.repeat([*range(1, 8), 0, -1], [*_class_counts(num_clips, imbalanced), extra, extra])
    rng.shuffle(labels)
    folds, identities = np.zeros_like(labels), np.zeros_like(labels)
    people = max(1, round(num_clips / NUM_FOLDS / _CLIPS_PER_PERSON))
    for label in range(1, 8):
        for fold, block in enumerate(np.array_split(np.flatnonzero(labels == label), NUM_FOLDS), start=1):
            folds[block] = fold
            identities[block] = fold * people + np.sort(rng.integers(0, people, len(block)))
    identities[folds == 0] = rng.integers(0, people, 2 * extra)
    faceless = labels == -1
    labels[faceless] = rng.integers(1, 8, extra)
    rows = zip(labels.tolist(), folds.tolist(), identities.tolist(), (~faceless).tolist(), strict=True)
    return [_Clip(clip_id, *row) for clip_id, row in enumerate(rows, start=1)]


def _map(work: Callable[[_Clip], None], clips: Sequence[_Clip], num_workers: int) -> Iterator[None]:
    if num_workers == 1:
        yield from map(work, clips)
    else:
        # Not forked: the caller may hold threads of PyTorch, with which forking can hang.
        with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(work, clips)


def _write_clip(clip: _Clip, *, root: Path, low: int, high: int, image_size: int, seed: int, videos: bool) -> None:
    """Draw a clip, write its face images and its original video; what is random here knows nothing of the class."""
    rng = np.random.default_rng([seed, 3, clip.clip_id])
    num_frames, quality, clip_seed = (int(n) for n in rng.integers([low, 55, 0], [high + 1, 96, 2**31]))
    num_missing = rng.integers(1, 1 + num_frames // 8) if num_frames >= 8 and rng.random() < 0.2 else 0
    missing = {1 + int(n) for n in rng.choice(num_frames, num_missing, replace=False)}
    # Clips on which annotators did not agree show a faint expression.
    name, strength = (CLASS_NAMES[clip.label - 1], 1.0) if clip.label else (str(rng.choice(CLASS_NAMES)), 0.4)
    identity_seed = int(np.random.SeedSequence([seed, 4, clip.identity]).generate_state(1, np.uint64)[0])
    frames = _draw(name, strength, Person(identity_seed), Scene(clip_seed, num_frames), image_size)
    if clip.has_faces:
        folder = root / "Clip" / "clip_224x224" / f"{clip.clip_id:05d}"
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames, start=1):
            if number not in missing:
                Image.fromarray(frame).save(folder / f"{clip.clip_id:05d}_{number:05d}.jpg", quality=quality)
    if videos:
        path = root / "Clip" / "original" / f"part_{(clip.clip_id - 1) // 1600 + 1}" / f"{clip.clip_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_video(path, frames)


def _write_video(path: Path, frames: Array) -> None:
    """Every frame is coded for itself with one quantizer, so that a video's coding does not tell its direction."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", 1
        stream.codec_context.qmin = stream.codec_context.qmax = 4
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def _write_tables(root: Path, clips: Sequence[_Clip], seed: int) -> None:
    """The split lists, the annotators' votes and who is shown in which clip."""
    for fold in range(1, NUM_FOLDS + 1):
        for split in ("train", "test"):
            chosen = [clip for clip in clips if clip.fold and (clip.fold == fold) == (split == "test")]
            path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
            _write_csv(path, ["video_name", "label"], [(clip.clip_id, clip.label) for clip in chosen])
    _write_csv(root / "identities.csv", ["id", "identity"], [(clip.clip_id, clip.identity) for clip in clips])
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("annotation")
    sheet.append([f"{n}{name}" for n, name in enumerate(CLASS_NAMES, start=1)] + ["order", "label"])
    for clip in clips:
        sheet.append([*_votes(clip, seed), clip.clip_id, clip.label])
    (root / "Annotation").mkdir()
    workbook.save(root / "Annotation" / "annotation.xlsx")


def _votes(clip: _Clip, seed: int) -> list[int]:
    """Ten annotators' votes over the seven classes: more than six for the label, or at most six for any."""
    rng = np.random.default_rng([seed, 5, clip.clip_id])
    first = clip.label - 1 if clip.label else rng.integers(7)
    agreed = rng.integers(7, 11) if clip.label else rng.integers(4, 7)
    others = np.delete(np.arange(7), first)
    votes = np.bincount(rng.choice(others, 10 - agreed), minlength=7)
    votes[first] = agreed
    return votes.tolist()


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `write_synthetic_dfew`."""
    parser = argparse.ArgumentParser(description="Write synthetic moving faces in DFEW's on-disk layout.")
    parser.add_argument("root", type=Path, help="folder to write; new, empty, or written by this program before")
    parser.add_argument("--num_clips", type=int, default=500, help="clips of the splits (default: 500)")
    parser.add_argument("--num_frames", type=int, nargs="+", default=[40], help="frames a clip, or lowest and highest")
    parser.add_argument("--image_size", type=int, default=224, help="width and height in pixels (default: 224)")
    parser.add_argument("--imbalanced", action="store_true", help="DFEW's class proportions instead of equal classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, help="processes (default: all cores)")
    parser.add_argument("--no_videos", dest="videos", action="store_false", help="write no Clip/original/*.mp4")
    options = vars(parser.parse_args(arguments))
    frames = options.pop("num_frames")
    if len(frames) > 2:
        parser.error(f"--num_frames takes one number, or the lowest and the highest, not {len(frames)} numbers")
    try:
        root = write_synthetic_dfew(**options, num_frames=(frames[0], frames[-1]))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"Synthetic faces (no real person, no DFEW data) are in {root}")


if __name__ == "__main__":
    main()
