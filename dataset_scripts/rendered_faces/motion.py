"""Motion of a face in a clip: the level of its expression, talking, blinks, gaze and the head's pose.

A clip's class is the expression that is seen in it: the levels of its frames are sampled so that their `shown_level`
reaches `SHOWN` for the six expressions, stays under `HIDDEN` for neutral, and lies between for clips without a class.
Durations follow what is published of spontaneous and posed expressions: onsets of 0.15 to 0.9 s, 0.5 to 4 s in all.
"""

from dataclasses import dataclass

import numpy as np

from . import ORDER_ONLY
from .actions import CLASS_NAMES, draw_apex, sides_of
from .head import Targets

SHOWN, HIDDEN = 0.42, 0.15

_TALKING = {
    "happy": 0.4,
    "sad": 0.4,
    "neutral": 0.72,
    "angry": 0.5,
    "surprise": 0.2,
    "disgust": 0.25,
    "fear": 0.3,
}
# Mouth shapes of speech: weights of actions at a syllable's middle.
_VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.42, "mouthLowerDown": 0.2},  # a
    {"jawOpen": 0.26, "mouthStretch": 0.25, "mouthLowerDown": 0.3, "mouthUpperUp": 0.12},  # e
    {"jawOpen": 0.12, "mouthStretch": 0.4, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15},  # i
    {"jawOpen": 0.28, "mouthFunnel": 0.45},  # o
    {"jawOpen": 0.1, "mouthFunnel": 0.3, "mouthPucker": 0.6},  # u
)
# Movements of brows and lids in conversation, in concentration and against the sun, without any emotion (Ekman, "About
# brows: emotional and conversational signals", 1979): how often, and weights at most. Neutral faces alone get them, so
# that lowered or raised brows and narrowed lids mean nothing unless the mouth or the nose says so, too.
_SIGNALS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.36, {"browDown": 1.6, "eyeSquint": 0.6}),
    (0.14, {"eyeSquint": 1.0, "cheekSquint": 0.4, "browDown": 0.8}),
    (0.2, {"browInnerUp": 1.1, "browOuterUp": 1.1, "eyeWide": 0.7}),
)
_CONSONANTS: tuple[dict[str, float], ...] = (
    {"mouthPress": 0.25, "mouthRollLower": 0.2, "mouthRollUpper": 0.15},  # b, m, p
    {"mouthRollLower": 0.45, "mouthUpperUp": 0.2},  # f, v
    {"jawOpen": 0.06, "mouthLowerDown": 0.15},  # d, s, t
    {"jawOpen": 0.12, "mouthFunnel": 0.3},  # ch, sh
)

Array = np.ndarray


@dataclass
class Motion:
    """Everything that moves in a clip of T frames.

    Args:
        label: The class shown, or None for a clip whose level lies between neutral and shown.
        expression: The expression that `level` refers to; in neutral clips it differs from the label.
        weights: `(T, U)` of the rig's U actions, the resting face included.
        level: `(T,)`, how much of the expression is shown, 0..1.
        pose: `(T, 3)` yaw, pitch, roll of the head in degrees: to the subject's left, down, to the subject's right.
        gaze: `(T, 2)` of the eyes in the head, degrees: to the subject's left, up.
        talks: True if the person speaks.
    """

    label: str | None
    expression: str
    weights: Array
    level: Array
    pose: Array
    gaze: Array
    talks: bool


def shown_level(level: Array) -> float:
    """Share of an expression that a clip shows, from its frames' levels: half the highest, half the mean."""
    return float(0.5 * level.max() + 0.5 * level.mean())


def draw_motion(
    label: str | None,
    rest: dict[str, float],
    units: Targets,
    num_frames: int,
    frames_per_second: float,
    rng: np.random.Generator,
    *,
    order_only: bool = False,
    plain: bool = False,
    full: bool = False,
) -> Motion:
    """Sample a clip's motion.

    Args:
        label: A class, or None for a clip that shows an expression faintly.
        rest: Weights by action of the person's resting face.
        order_only: Gives surprise its fixed course, a sudden start and a slow fade, which fear shows backwards.
        plain: Turn the head little, show the expression strongly, and don't speak.
        full: Hold the expression at its full height, plainly.
    """
    plain = plain or full
    expression = label if label is not None and label != "neutral" else str(rng.choice(_OTHERS))
    apex, asymmetry, down = draw_apex(expression, rng)
    seconds = np.arange(num_frames) / frames_per_second
    if order_only and label in ORDER_ONLY:
        level = _one_way_level(num_frames, rng)
    else:
        level = _draw_level(label, seconds, rng, 1.0 if full else 0.65 if plain else 0.0)
    weights = np.zeros((num_frames, len(units.names)), np.float32)
    _add_actions(weights, units, rest, np.ones(num_frames), rng, 0.08, frames_per_second)
    _add_actions(weights, units, apex, level, rng, asymmetry, frames_per_second)
    talks = bool(rng.random() < _TALKING[label or "neutral"]) and not plain
    if talks:
        _talk(weights, units, seconds, apex.get("jawOpen", 0.0) * float(level.mean()), rng)
    _add_habits(weights, units, seconds, rng)
    if label == "neutral" and not plain:
        _add_signal(weights, units, seconds, rng)
    pose, gaze = _draw_pose(seconds, level * down, talks, rng)
    _blink(weights, units, seconds, gaze, rng)
    pose = pose * 0.3 if plain else pose
    return Motion(label, expression, _limit(weights, units), level.astype(np.float32), pose, gaze, talks)


_OTHERS = [name for name in CLASS_NAMES if name != "neutral"]


def _draw_level(label: str | None, seconds: Array, rng: np.random.Generator, least: float) -> Array:
    """Sample levels of the frames in the label's range (see the module), with a shown level of at least `least`."""
    if least == 1:
        return np.full(len(seconds), float(label != "neutral"))
    if label == "neutral":
        peak = rng.uniform(0, HIDDEN - 0.02) if rng.random() < 0.4 else 0.0
        return peak * _course(seconds, rng)
    low, high = (max(SHOWN, least), 2.0) if label else (HIDDEN + 0.05, SHOWN - 0.07)
    for _ in range(40):
        strength = rng.uniform(0.45, 1) ** 0.7 * rng.uniform(0.9, 1.1) if label else rng.uniform(0.15, 0.6)
        level = np.clip(strength * _course(seconds, rng), 0, 1.1)
        if low <= shown_level(level) <= high:
            return level
    return np.full(len(seconds), max(0.8, least) if label else 0.28)


def _course(seconds: Array, rng: np.random.Generator) -> Array:
    """Onset, apex and offset of an expression, 0..1; a clip may show any part of them."""
    onset, hold, offset = np.exp(rng.normal(np.log([0.4, 1.4, 0.7]), [0.45, 0.6, 0.45]))
    length = seconds[-1] + (seconds[1] if len(seconds) > 1 else 0.04)
    start = rng.uniform(-onset - hold - 0.3 * offset, 0.5 * length)
    rise = _smooth((seconds - start) / onset)
    fall = _smooth((seconds - start - onset - hold) / offset)
    rests = rng.uniform(0, 0.4) if rng.random() < 0.3 else 0.0  # what stays of it before and after
    wobble = 1 + _drift(seconds, rng, 0.08, 1.0)
    return (rests + (1 - rests) * rise * (1 - (1 - rests) * fall)) * wobble


def _one_way_level(num_frames: int, rng: np.random.Generator) -> Array:
    """Three frames of forty to rise, more than half of the clip to fade; nothing at both ends."""
    start, rise, hold, fall, strength = rng.random(5)
    t = (np.arange(num_frames) + 0.5) / num_frames
    start, rise, hold, fall = 0.06 + 0.1 * start, 0.05 + 0.03 * rise, 0.06 + 0.06 * hold, 0.5 + 0.14 * fall
    return (0.7 + 0.3 * strength) * _smooth((t - start) / rise) * (1 - np.clip((t - start - rise - hold) / fall, 0, 1))


def _add_actions(
    weights: Array,
    units: Targets,
    apex: dict[str, float],
    level: Array,
    rng: np.random.Generator,
    asymmetry: float,
    frames_per_second: float,
) -> None:
    """Add actions at a level, each a little early or late and stronger on one side, in place."""
    frames = np.arange(len(level))
    for action, weight in apex.items():
        lag = rng.normal(0, 0.04) * frames_per_second
        course = np.interp(frames - lag, frames, level)
        for name in sides_of(action, units.names):
            weights[:, units.index(name)] += weight * (1 + rng.normal(0, asymmetry)) * course


def _talk(weights: Array, units: Targets, seconds: Array, is_open: float, rng: np.random.Generator) -> None:
    """Add speech in place: syllables of a vowel and a consonant, with pauses.

    Speech opens the mouth less if an expression holds it open already (`is_open`, the weight of jawOpen).
    """
    rate, loudness = rng.uniform(3, 6), rng.uniform(0.5, 1.25) * (1 - 0.6 * min(is_open, 1))
    times, shapes = [seconds[0] - rng.uniform(0.1, 0.6)], [dict[str, float]()]
    while times[-1] < seconds[-1] + 0.5:
        if rng.random() < 0.12:
            times.append(times[-1] + rng.uniform(0.2, 0.7))
            shapes.append({})
        for shape in (_CONSONANTS[rng.integers(4)], _VOWELS[rng.integers(5)]):
            times.append(times[-1] + 0.5 / rate * rng.uniform(0.7, 1.4))
            strength = loudness * rng.uniform(0.5, 1.3)
            shapes.append({action: strength * weight for action, weight in shape.items()})
    for action in sorted({action for shape in shapes for action in shape}):
        course = np.interp(seconds, times, [shape.get(action, 0.0) for shape in shapes])
        for name in sides_of(action, units.names):
            weights[:, units.index(name)] += course
    if rng.random() < 0.35:  # brows that stress words
        stress = np.clip(_drift(seconds, rng, 0.35, 1.5), 0, 0.5)
        for name in ("browInnerUp", *sides_of("browOuterUp", units.names)):
            weights[:, units.index(name)] += stress


def _add_habits(weights: Array, units: Targets, seconds: Array, rng: np.random.Generator) -> None:
    """Add the small movements of any face, which mean nothing, in place."""
    names = [n for n in units.names if n.startswith(("brow", "mouth", "cheek", "nose")) and n != "mouthClose"]
    for name in rng.choice(names, size=6, replace=False):
        weights[:, units.index(str(name))] += np.clip(_drift(seconds, rng, 0.08, 0.6) + rng.uniform(-0.05, 0.08), 0, 1)


def _add_signal(weights: Array, units: Targets, seconds: Array, rng: np.random.Generator) -> None:
    """Add one of `_SIGNALS`, or none, in place: held, or coming and going."""
    chances = [chance for chance, _ in _SIGNALS]
    chosen = rng.choice(len(_SIGNALS) + 1, p=[*chances, 1 - sum(chances)])
    if chosen == len(_SIGNALS):
        return
    course = np.ones(len(seconds)) if rng.random() < 0.5 else _course(seconds, rng)
    for action, most in _SIGNALS[chosen][1].items():
        weight = most * rng.uniform(0.2, 1)
        for name in sides_of(action, units.names):
            weights[:, units.index(name)] += weight * course


def _draw_pose(seconds: Array, down: Array, talks: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """Head pose `(T, 3)` and gaze `(T, 2)` in degrees; `down` (T,) lowers both."""
    lively = rng.uniform(0.3, 1.3) * (1.4 if talks else 1)
    pose = rng.normal([0, -1, 0], [13, 8, 4]) * (rng.random(3) < 0.85)
    pose = pose + np.stack([_drift(seconds, rng, size * lively, 0.7) for size in (5, 3, 2.5)], axis=1)
    pose[:, 1] += 11 * down
    pose = np.clip(pose, [-42, -20, -16], [42, 24, 16])
    gaze = np.zeros((len(seconds), 2))
    to_camera = 0.8 if rng.random() < 0.5 else 0.0
    start = 0
    while start < len(seconds):  # saccades
        gaze[start:] = rng.normal(0, [9, 4]) * (1 - to_camera) + to_camera * np.array(
            [-pose[start, 0], pose[start, 1]]
        )
        start += max(1, int(np.searchsorted(seconds, rng.exponential(0.9))))
    gaze[:, 1] -= 20 * down
    gaze += rng.normal(0, 0.4, gaze.shape)
    return pose, np.clip(gaze, [-30, -28], [30, 18])


def _blink(weights: Array, units: Targets, seconds: Array, gaze: Array, rng: np.random.Generator) -> None:
    """Add blinks, and lids that follow the gaze, in place."""
    time = seconds[0] - rng.exponential(2.5)
    for side in ("Left", "Right"):
        weights[:, units.index(f"eyeLookDown{side}")] += np.clip(-gaze[:, 1] / 25, 0, 1)
        weights[:, units.index(f"eyeLookUp{side}")] += np.clip(gaze[:, 1] / 25, 0, 1)
    while (time := time + rng.exponential(3.0)) < seconds[-1] + 0.2:
        shut = np.clip(1.2 * np.exp(-0.5 * ((seconds - time) / rng.uniform(0.05, 0.09)) ** 2), 0, 1)
        for side in ("Left", "Right"):
            k = units.index(f"eyeBlink{side}")
            weights[:, k] = np.maximum(weights[:, k], shut)


def _limit(weights: Array, units: Targets) -> Array:
    """Keep the rig's actions where they look natural: lids above all."""
    weights = np.clip(weights, 0, 1.9)
    for side in ("Left", "Right"):
        blink, wide, squint = (units.index(f"{action}{side}") for action in ("eyeBlink", "eyeWide", "eyeSquint"))
        weights[:, blink] = np.minimum(weights[:, blink], 1)
        weights[:, wide] *= 1 - weights[:, blink]
        weights[:, squint] = np.minimum(weights[:, squint], 1.1) * (1 - 0.6 * weights[:, blink])
    weights[:, units.index("jawOpen")] = np.minimum(weights[:, units.index("jawOpen")], 0.95)
    return weights.astype(np.float32)


def _smooth(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _drift(seconds: Array, rng: np.random.Generator, size: float, hertz: float) -> Array:
    """A slow random movement `(T,)` of about this size and frequency."""
    turns = rng.uniform(0.25, 1, 3)[:, None] * hertz * seconds + rng.random(3)[:, None]
    return size * np.sin(2 * np.pi * turns).sum(axis=0) / 1.5
