"""Skin: tone, blotches, lips, make-up, and the folds that age and expressions draw. All painted, from no photograph.

Colours are linear light. Masks and distances are in the base mesh's decimetres, where all heads have the same texture
layout; the constants are places of the base face (eyes at x = ±0.31, y = 7.27; mouth at y = 6.74).
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .head import Maps
from .identity import Traits

# sRGB of skin from melanin 0 to 5.
_TONES = np.array([(250, 221, 203), (240, 199, 172), (219, 170, 138), (184, 131, 98), (136, 92, 66), (90, 60, 45)])
_LIPSTICKS = np.array([(190, 60, 70), (150, 40, 60), (205, 110, 110), (120, 40, 60), (200, 90, 80), (176, 86, 96)])
# Noise by kind: height and width of a grain in decimetres.
_GRAINS = {
    "broad": (0.4, 0.4),
    "mid": (0.09, 0.09),
    "fine": (0.014, 0.014),
    "strand": (0.16, 0.012),
    "curl": (0.035, 0.035),
    "lock": (0.35, 0.05),
}
_NUM_NOISES = 6

Array = np.ndarray


def linear(color: Any) -> Array:
    """Linear light of sRGB values in 0..255, by a gamma of 2.2; float32."""
    return ((np.asarray(color, np.float32) / 255) ** 2.2).astype(np.float32)


def bump(distance: Any, width: float) -> Any:
    """A Gaussian bump: 1 at distance 0."""
    return np.exp(-0.5 * (distance / width) ** 2)


def noise(kind: str, shape: tuple[int, int], detail: float, rng: np.random.Generator) -> Array:
    """Noise `(H, W)` of mean 0 and deviation 1, one of a few patterns at a random place."""
    pattern = _pattern(kind, shape, detail, int(rng.integers(_NUM_NOISES)))
    if rng.random() < 0.5:
        pattern = pattern[:, ::-1]
    return np.roll(pattern, int(rng.integers(shape[1])), axis=1)


@cache
def _pattern(kind: str, shape: tuple[int, int], detail: float, number: int) -> Array:
    rng = np.random.default_rng([7, sorted(_GRAINS).index(kind), number])
    rows, columns = (max(grain * 90 * detail, 0.7) for grain in _GRAINS[kind])
    coarse = max(1, int(rows / 2)), max(1, int(columns / 2))
    small = rng.standard_normal((max(2, shape[0] // coarse[0]), max(2, shape[1] // coarse[1]))).astype(np.float32)
    small = gaussian_filter(small, (rows / coarse[0] / 2, columns / coarse[1] / 2), mode="wrap")
    image = Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    values = np.asarray(image)
    return ((values - values.mean()) / values.std()).astype(np.float32)


@dataclass
class Canvas:
    """A texture that is painted on: `(H, W, 3)` colours and `(H, W)` gloss."""

    color: Array
    gloss: Array

    def window(self, place: tuple[slice, slice]) -> "Canvas":
        """A part of the canvas; painting on it paints on the whole."""
        return Canvas(self.color[place], self.gloss[place])

    def cover(self, opacity: Array, color: Any) -> None:
        """Paint a colour, (3,) or (H, W, 3), over what is there, with an opacity (H, W) in 0..1."""
        self.color += opacity[..., None] * (np.asarray(color, np.float32) - self.color)

    def absorb(self, amount: Array, colors: Any) -> None:
        """Take away a share (H, W) of the light, by colour channel (3,)."""
        self.color *= 1 - amount[..., None] * np.asarray(colors, np.float32)


def front_of(maps: Maps) -> Maps:
    """The maps in the window of the face's front, where folds and features are."""
    values: dict[str, Any] = {field.name: getattr(maps, field.name) for field in fields(Maps)}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = value[maps.folds]
    return Maps(**values)


def skin_tone(traits: Traits, rng: np.random.Generator) -> Array:
    """A person's tone, linear (3,)."""
    k = min(int(traits.melanin), 4)
    share = traits.melanin - k
    tone = linear(_TONES[k] * (1 - share) + _TONES[k + 1] * share)
    warmth = np.array([rng.normal(0, 0.05), rng.normal(0, 0.02), rng.normal(0, 0.06)])
    return (tone * np.exp(warmth) * rng.uniform(0.88, 1.12)).astype(np.float32)


def paint_skin(traits: Traits, tone: Array, maps: Maps, rng: np.random.Generator) -> Canvas:
    """Bare skin with lips: tone, blotches, redness, shadows under the eyes, freckles, pores."""
    canvas = Canvas(np.empty((*maps.shape, 3), np.float32), np.full(maps.shape, 0.6, np.float32))
    grain = maps.shape, maps.detail, rng
    blotches = 1 + 0.04 * rng.uniform(0.3, 1.6) * noise("broad", *grain)
    blotches += 0.03 * rng.uniform(0.2, 1.4) * noise("mid", *grain)
    blotches += 0.025 * rng.uniform(0.2, 1.4) * noise("fine", *grain)
    canvas.color[:] = np.clip(blotches, 0.6, 1.4)[..., None] * tone
    canvas.absorb(maps.ears * rng.uniform(0, 0.3), (0.1, 0.7, 0.6))
    front, window = front_of(maps), canvas.window(maps.folds)
    pale = 1 - traits.melanin / 7
    window.absorb(np.clip(_redness(front, rng), 0, 1) * rng.uniform(0.05, 0.38) * pale, (0.1, 0.75, 0.6))
    across = np.abs(front.x)
    circles = bump(across - 0.3, 0.14) * bump(front.y - 7.12, 0.06) * front.front
    window.absorb(circles * rng.uniform(0, 0.3), (0.8, 1, 0.9))
    painted = traits.male < 0.5 and traits.age != "child" and rng.random() < 0.45
    window.absorb(front.lids * (rng.uniform(0.4, 0.85) if painted else rng.uniform(0.05, 0.4)), (0.85, 1, 1))
    # Eyes lie deep: from afar they are dark places of a face.
    sockets = bump(across - 0.3, 0.17) * bump(front.y - 7.32, 0.09) * front.front
    window.absorb(sockets * rng.uniform(0, 0.65), (0.8, 1, 1))
    if rng.random() < 0.15:
        spots = (
            (noise("fine", front.shape, maps.detail, rng) > 1.8) * bump(across - 0.3, 0.3) * bump(front.y - 7, 0.25)
        )
        window.absorb(spots * front.front * 0.3, (0.6, 1, 1.1))
    _paint_lips(traits, tone, front, window, rng)
    _paint_gloss(front, window, rng)
    return canvas


def _redness(front: Maps, rng: np.random.Generator) -> Array:
    """Mask of the places where blood shows: cheeks, tip of the nose, chin."""
    across = np.abs(front.x)
    cheeks = bump(across - 0.48, 0.2) * bump(front.y - 6.9, 0.2) * rng.uniform(0.2, 1)
    nose = bump(front.x, 0.13) * bump(front.y - 6.95, 0.13) * rng.uniform(0, 1)
    chin = bump(front.x, 0.2) * bump(front.y - 6.3, 0.12) * rng.uniform(0, 0.6)
    return (cheeks + nose + chin) * front.front


def _paint_lips(traits: Traits, tone: Array, front: Maps, window: Canvas, rng: np.random.Generator) -> None:
    color = tone * np.array([0.92, 0.58, 0.58]) * rng.uniform(0.75, 1.05)
    opacity = rng.uniform(0.5, 1)
    if traits.male < 0.5 and traits.age != "child" and rng.random() < 0.4:
        color, opacity = linear(_LIPSTICKS[rng.integers(len(_LIPSTICKS))]) * rng.uniform(0.7, 1.1), rng.uniform(0.5, 1)
    creases = np.clip(1 + 0.08 * noise("fine", front.shape, front.detail, rng), 0.7, 1.3)[..., None]
    window.cover(np.clip((front.lips - 0.25) / 0.35, 0, 1) * opacity, color.astype(np.float32) * creases)


def _paint_gloss(front: Maps, window: Canvas, rng: np.random.Generator) -> None:
    """Make nose, forehead, cheekbones and lips shine, in place."""
    across = np.abs(front.x)
    shiny = bump(front.x, 0.12) * bump(front.y - 7.1, 0.3) + bump(front.x, 0.3) * bump(front.y - 7.75, 0.2)
    shiny += bump(across - 0.42, 0.12) * bump(front.y - 7.0, 0.1)
    pores = np.clip(1 + 0.3 * noise("fine", front.shape, front.detail, rng), 0.2, 2)
    window.gloss[:] = np.clip(0.6 + 0.5 * shiny + 0.7 * front.lips * rng.uniform(0, 1.4), 0, 2) * pores


def paint_make_up(traits: Traits, maps: Maps, canvas: Canvas, rng: np.random.Generator) -> None:
    """Liner and shadow on the lids of some women."""
    if traits.male < 0.5 and traits.age != "child" and rng.random() < 0.3:
        canvas.window(maps.folds).cover(front_of(maps).lids * rng.uniform(0.2, 0.6), rng.uniform(0, 0.12, 3))


def paint_clothes(maps: Maps, canvas: Canvas, rng: np.random.Generator) -> None:
    """Cover neck and shoulders up to a collar, in muted colours mostly."""
    if rng.random() < 0.12:
        return
    value = rng.uniform(0.01, 0.75) ** 1.3
    color = value * np.exp(rng.normal(0, 0.18 if rng.random() < 0.75 else 0.6, 3))
    neck = rng.uniform(5.6, 6.0) + rng.uniform(-0.1, 0.15) * np.abs(maps.angle) / 90
    weave = 1 + 0.1 * noise("mid", maps.shape, maps.detail, rng) + 0.08 * noise("strand", maps.shape, maps.detail, rng)
    cloth = maps.height < neck
    canvas.color[cloth] = (np.clip(weave, 0.4, 1.8)[..., None] * np.clip(color, 0, 0.9))[cloth]
    canvas.gloss[cloth] = 0.05


# Channels of folds, and what deepens each: see `fold_weights`.
FOLDS = ("forehead", "glabella", "nasolabial", "crow's feet", "bunny lines", "under the eye", "chin", "mouth corner")


def paint_folds(maps: Maps, rng: np.random.Generator) -> Array:
    """Shapes of a person's folds in the front window, `(h, w, 8)` float32 in 0..1; see `FOLDS`."""
    front = front_of(maps)
    x, y, across = front.x, front.y, np.abs(front.x)
    detail, shape = maps.detail, front.shape
    folds = np.zeros((*shape, len(FOLDS)), np.float32)
    start = rng.uniform(0, 6)
    waves = y + 0.03 * np.cos(6 * x + start) + 0.01 * noise("mid", shape, detail, rng)
    lines = np.clip(np.sin(waves * 2 * np.pi / rng.uniform(0.085, 0.14) + start), 0, 1) ** 3
    folds[..., 0] = lines * bump(y - 7.78, 0.13) * bump(x, 0.38)
    furrow = (
        bump(across - rng.uniform(0.045, 0.075) - 0.02 * (y - 7.45), 0.016) + 0.5 * bump(across, 0.02) * rng.random()
    )
    folds[..., 1] = furrow * bump(y - 7.44, 0.075)
    end = 6.56 + rng.uniform(-0.05, 0.05)
    distance, _ = distance_to_curve(across, y, (0.19, 0.29, 0.36, 0.40), (6.97, 6.86, 6.74, end))
    folds[..., 2] = 0.6 * bump(distance, 0.022) + 0.4 * bump(distance, 0.06)
    rays = np.sin(np.arctan2(y - 7.27, across - 0.42) * rng.uniform(9, 14) + rng.uniform(0, 6))
    folds[..., 3] = np.clip(rays, 0, 1) ** 2 * bump(across - 0.6, 0.07) * bump(y - 7.25, 0.1)
    bridge = np.clip(np.sin((y - 0.5 * across) * 2 * np.pi / 0.06 + rng.uniform(0, 6)), 0, 1) ** 2
    folds[..., 4] = bridge * bump(across - 0.08, 0.06) * bump(y - 7.22, 0.08)
    distance, _ = distance_to_curve(across, y, (0.2, 0.31, 0.44), (7.17, 7.12, 7.17))
    folds[..., 5] = bump(distance, 0.014) + 0.4 * bump(distance, 0.035)
    dimples = noise("fine", shape, detail, rng) + 0.6 * noise("mid", shape, detail, rng)
    folds[..., 6] = bump(x, 0.16) * bump(y - 6.38, 0.06) * np.clip(dimples, 0, 2)
    distance, _ = distance_to_curve(across, y, (0.34, 0.37, 0.36), (6.66, 6.6, 6.5))
    folds[..., 7] = bump(distance, 0.02)
    return np.clip(folds * front.front[..., None], 0, 1)


def distance_to_curve(x: Array, y: Array, xs: Any, ys: Any) -> tuple[Array, Array]:
    """Distance of each texel to a polyline, and the place along it, 0..1."""
    best, along = np.full(x.shape, 9.0, np.float32), np.zeros(x.shape, np.float32)
    for k in range(len(xs) - 1):
        dx, dy = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
        t = np.clip(((x - xs[k]) * dx + (y - ys[k]) * dy) / (dx * dx + dy * dy), 0, 1)
        distance = np.hypot(x - xs[k] - t * dx, y - ys[k] - t * dy)
        nearer = distance < best
        best[nearer], along[nearer] = distance[nearer], ((k + t) / (len(xs) - 1))[nearer]
    return best, along


_AGEING = np.array([0.5, 0.45, 0.6, 0.7, 0.15, 0.7, 0.1, 0.5])


def still_folds(traits: Traits, folds: Array, detail: float, rng: np.random.Generator) -> Array:
    """Relief `(h, w)` that stays: folds of age, pores."""
    depth = traits.old * rng.uniform(0.15, 0.5) + rng.uniform(0, 0.1)
    return (depth * (folds @ _AGEING) + 0.03 * noise("fine", folds.shape[:2], detail, rng)).astype(np.float32)


def fold_weights(weight: Any, strength: float) -> Array:
    """Depth of each fold for the actions of one frame, `(2, 8)`: right and left side of the face.

    `weight` gives an action's weight by its ARKit name.
    """
    rows = []
    for side in ("Right", "Left"):
        smile, sneer, frown = weight(f"mouthSmile{side}"), weight(f"noseSneer{side}"), weight(f"mouthFrown{side}")
        cheek, squint, stretch = (
            weight(f"cheekSquint{side}"),
            weight(f"eyeSquint{side}"),
            weight(f"mouthStretch{side}"),
        )
        up, down, lip = weight(f"browOuterUp{side}"), weight(f"browDown{side}"), weight(f"mouthUpperUp{side}")
        rows.append(
            [
                max(0, 0.5 * weight("browInnerUp") + 0.7 * up - 0.5 * down),
                0.9 * down + 0.3 * sneer,
                0.6 * smile + 0.6 * sneer + 0.3 * lip + 0.2 * stretch,
                0.8 * cheek + 0.5 * squint,
                1.2 * sneer,
                0.5 * cheek + 0.6 * squint,
                0.8 * weight("mouthShrugLower"),
                0.7 * smile + 0.7 * weight(f"mouthDimple{side}") + 0.8 * frown + 0.5 * stretch,
            ]
        )
    return np.minimum(np.array(rows) * strength, 0.8).astype(np.float32)
