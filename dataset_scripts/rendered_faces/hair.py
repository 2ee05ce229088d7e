"""Hair: brows, beard and hairdo, painted on the textures of skin.py's layout.

A hairdo is two surfaces with an opacity map each: a shell lifted from the scalp (short hair, and the roots of long),
and the strips of the mesh's hair helper that hang around the head (long hair).
"""

from dataclasses import dataclass

import numpy as np

from .head import Maps, load_head
from .identity import Traits
from .skin import Canvas, bump, distance_to_curve, front_of, linear, noise

# sRGB: black, dark brown, brown, light brown, blond, red, grey, white.
_COLORS = np.array(
    [
        (25, 20, 18),
        (45, 32, 24),
        (80, 55, 36),
        (120, 85, 50),
        (186, 150, 100),
        (130, 62, 32),
        (150, 148, 145),
        (205, 203, 200),
    ]
)
_DARK = [0.42, 0.3, 0.2, 0.02, 0.01, 0.01, 0.03, 0.01]
_LIGHT = [0.12, 0.2, 0.24, 0.18, 0.1, 0.05, 0.08, 0.03]

Array = np.ndarray


@dataclass(frozen=True)
class Hairdo:
    """A person's hair.

    Args:
        style: `bald`, `short`, `medium`, `long` or `tied`.
        opacity: `(H, W, 2)` of strips and shell; hair is where it is above 0.
        color: `(H, W, 3)`, linear.
        lift: `(S,)` of the shell over the scalp, decimetres.
    """

    style: str
    opacity: Array
    color: Array
    lift: Array


def hair_color(traits: Traits, rng: np.random.Generator) -> Array:
    """Linear (3,); darker for dark skin and Asian origin, grey with age."""
    dark = traits.melanin > 2.2 or traits.origin[1] > 0.6
    color = _COLORS[rng.choice(8, p=_DARK if dark else _LIGHT)]
    if traits.old > 0.55 and rng.random() < 0.6:
        color = _COLORS[rng.choice([6, 7, 6, 2])]
    return (linear(color) * np.exp(rng.normal(0, 0.15))).astype(np.float32)


def paint_brows(traits: Traits, color: Array, maps: Maps, canvas: Canvas, rng: np.random.Generator) -> None:
    """Brows of many shapes; their slope at rest varies around level, so that it means nothing."""
    front = front_of(maps)
    color = color * (rng.uniform(0.45, 0.9) if color.mean() > 0.1 else rng.uniform(0.6, 1.2))
    inner, outer, y = rng.uniform(0.09, 0.17), rng.uniform(0.5, 0.62), rng.uniform(7.41, 7.49)
    arch, peak, drop = rng.uniform(0, 0.09), rng.uniform(0.55, 0.75), rng.uniform(-0.01, 0.07)
    t = np.linspace(0, 1, 7)
    ys = y + arch * np.sin(np.pi * np.clip((t + 0.3) / (peak + 0.3) / 2, 0, 1))
    ys -= np.where(t > peak, (t - peak) / (1 - peak) * drop, 0)
    distance, along = distance_to_curve(np.abs(front.x), front.y, inner + (outer - inner) * t, ys)
    thickness = rng.uniform(0.022, 0.055) * (1 if traits.male > 0.5 else 0.8)
    taper = (0.75 + 0.5 * np.sin(np.pi * np.clip(along + 0.25, 0, 1))) * np.where(along > 0.7, 2.26 - 1.8 * along, 1)
    softness = 0.18 * rng.uniform(0.4, 0.8) + 0.06
    edge = (distance / np.maximum(thickness * taper, 1e-3) - 1) / softness
    strands = 0.85 + 0.2 * noise("strand", front.shape, maps.detail, rng) * rng.uniform(0.3, 1.2)
    opacity = np.clip(strands, 0, 1.1) * rng.uniform(0.45, 1) / (1 + np.exp(np.clip(edge, -30, 30)))
    canvas.window(maps.folds).cover(np.clip(opacity, 0, 1) * front.front, color)


def paint_beard(traits: Traits, color: Array, maps: Maps, canvas: Canvas, rng: np.random.Generator) -> None:
    """Stubble, moustache, goatee or full beard of half of the grown men."""
    if traits.male < 0.5 or traits.age == "child" or rng.random() > 0.5:
        return
    front = front_of(maps)
    across, y, z = np.abs(front.x), front.y, front.z
    jaw = np.clip((6.83 - y + 0.24 * np.clip(across - 0.3, 0, 1)) / 0.12, 0, 1) * np.clip((y - 5.95) / 0.15, 0, 1)
    jaw *= np.clip((z - 0.35) / 0.3, 0, 1)
    side = np.clip((across - 0.5) / 0.12, 0, 1) * np.clip((7.2 - y) / 0.2, 0, 1)
    side *= np.clip((z - 0.4) / 0.2, 0, 1) * np.clip((0.95 - z) / 0.2, 0, 1)
    moustache = bump(across - 0.14, 0.14) * bump(y - 6.80, 0.05)
    goatee = np.maximum(moustache, bump(front.x, 0.2) * bump(y - 6.33, 0.15))
    full = np.maximum(jaw, side)
    kind = rng.choice(4, p=[0.45, 0.13, 0.17, 0.25])
    area = (full, moustache, goatee, full)[kind] * (1 - front.lips) ** 2 * front.front
    density = rng.uniform(0.08, 0.4) if kind == 0 else rng.uniform(0.4, 0.9)
    strands = (
        1 + 0.12 * noise("fine", front.shape, maps.detail, rng) + 0.12 * noise("mid", front.shape, maps.detail, rng)
    )
    window = canvas.window(maps.folds)
    window.cover(np.clip(area * density * strands, 0, 1), 0.8 * color)
    window.gloss *= 1 - 0.7 * area


def draw_hairdo(traits: Traits, color: Array, maps: Maps, canvas: Canvas, rng: np.random.Generator) -> Hairdo:
    """Sample a hairdo, and paint its roots on the scalp."""
    male = traits.male > 0.5
    shares = [0.1, 0.66, 0.16, 0.06, 0.02] if male else [0.01, 0.12, 0.25, 0.42, 0.2]
    style = str(rng.choice(["bald", "short", "medium", "long", "tied"], p=shares))
    line = _hairline(traits, maps, rng)
    curly = rng.random() < 0.1 + 0.7 * traits.origin[0]
    grain = "curl" if curly else "fine" if style == "short" else "strand"
    strand = noise(grain, maps.shape, maps.detail, rng)
    opacity = np.full((*maps.shape, 2), -1, np.float32)
    if style != "bald":
        opacity[..., 1] = (maps.height - line) / 0.12 + rng.uniform(0.05, 0.2) * strand
        if style != "tied" and not curly and rng.random() < 0.25:
            opacity[..., 1] = np.maximum(opacity[..., 1], _fringe(maps, strand, rng))
    if style == "long" or (style == "medium" and rng.random() < 0.5):
        opacity[..., 0] = _curtain(style, line, maps, strand, rng)
    if style != "bald" or rng.random() < 0.6:
        _paint_roots(line, 0.8 * color, maps, canvas, rng)
    locks = (0.05 if style == "short" else 0.14) * noise("lock", maps.shape, maps.detail, rng)
    tones = np.clip(1 + rng.uniform(0.05, 0.2) * (2 if curly else 1) * strand + locks, 0.3, 2)
    texture = np.ascontiguousarray(color * tones[..., None], np.float32)
    return Hairdo(style, opacity, texture, _lift(style, curly, line, maps, rng))


def _paint_roots(line: Array, color: Array, maps: Maps, canvas: Canvas, rng: np.random.Generator) -> None:
    """Colour the scalp under the hair, softly towards the hairline."""
    on_face = (maps.height < 7.4) & (np.abs(maps.angle) < 62)
    roots = 1 / (1 + np.exp(-np.clip((maps.height - line) / rng.uniform(0.03, 0.07), -20, 20)))
    roots = roots * (maps.height > 6.3) * ~on_face
    canvas.cover(roots * rng.uniform(0.5, 0.95), color)
    canvas.gloss *= 1 - 0.7 * roots


def _hairline(traits: Traits, maps: Maps, rng: np.random.Generator) -> Array:
    """Height `(H, W)` above which hair grows."""
    top = rng.uniform(7.9, 8.15)
    if traits.male > 0.5 and rng.random() < 0.1 + 0.4 * traits.old:
        top += rng.uniform(0.05, 0.3)
    side, nape, temple = rng.uniform(7.0, 7.35), rng.uniform(6.2, 6.8), rng.uniform(7.6, 7.95)
    angles = [0, 25, 45, 58, 66, 76, 100, 112, 180]
    heights = [
        top,
        top + rng.uniform(-0.1, 0.1),
        top - rng.uniform(0, 0.12),
        temple,
        side + 0.15,
        side,
        7.38,
        6.9,
        nape,
    ]
    line = np.interp(np.abs(maps.angle), angles, heights)
    line = line + rng.uniform(-0.08, 0.08) * np.sin(np.radians(1.5 * maps.angle) + rng.uniform(0, 6))
    return (line + 0.02 * noise("mid", maps.shape, maps.detail, rng)).astype(np.float32)


def _fringe(maps: Maps, strand: Array, rng: np.random.Generator) -> Array:
    middle, width, low = rng.uniform(-25, 25), rng.uniform(20, 55), rng.uniform(7.6, 7.9)
    ends = np.clip((maps.height - low - 0.06 * noise("lock", maps.shape, maps.detail, rng)) / 0.1, -2, 2)
    return ends - np.clip((np.abs(maps.angle - middle) - width) / 12, 0, 3) + 0.12 * strand


def _curtain(style: str, line: Array, maps: Maps, strand: Array, rng: np.random.Generator) -> Array:
    """Opacity of the strips: beside and behind the face, down to the hair's length."""
    opening, low = rng.uniform(55, 85), rng.uniform(5.3, 6.6) if style == "long" else rng.uniform(6.3, 6.9)
    waves = 4 * noise("lock", maps.shape, maps.detail, rng)
    beside = np.minimum((np.abs(maps.angle) - opening - waves) / 6, (maps.height - low) / 0.15) + 0.3 * strand
    above = np.minimum((maps.height - line - 0.1) / 0.1 + 0.1 * strand, 2)
    return np.maximum(beside, above)


def _lift(style: str, curly: bool, line: Array, maps: Maps, rng: np.random.Generator) -> Array:
    """Height of the shell over each of its vertices of the scalp, rising from the hairline."""
    head = load_head()
    low, high = {"short": (0.02, 0.2), "tied": (0.015, 0.06)}.get(style, (0.05, 0.22))
    thickness = rng.uniform(low, high) * (1.6 if curly else 1)
    rows, columns = maps.shape
    u = np.clip((head.uv[head.shell, 0] * columns).astype(int), 0, columns - 1)
    v = np.clip((head.uv[head.shell, 1] * rows).astype(int), 0, rows - 1)
    rise = np.clip((head.points[head.shell, 1] - line[v, u]) / 0.3, 0, 1) ** 0.7
    # Beside the face it stays close to the head, or one would see through between them.
    away = np.clip((np.abs(maps.angle[v, u]) - 58) / 30, 0, 1)
    rise *= np.maximum(away, np.clip((head.points[head.shell, 1] - 7.9) / 0.15, 0, 1))
    waves = 1 + 0.25 * noise("mid", maps.shape, maps.detail, rng)[v, u]
    return (0.012 + thickness * rise * waves).astype(np.float32)
