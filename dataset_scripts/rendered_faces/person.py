"""A person, ready to be rendered: shape, painted textures, hair, eyes, glasses, resting face."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .hair import Hairdo, draw_hairdo, hair_color, paint_beard, paint_brows
from .head import Part, load_head, load_maps
from .identity import EYE_DISTANCE, Traits, draw_rest, draw_shape, draw_traits
from .skin import (
    linear,
    paint_clothes,
    paint_folds,
    paint_make_up,
    paint_skin,
    skin_tone,
    still_folds,
)

# sRGB of irises: brown, dark brown, hazel, blue, green, near black.
_IRISES = np.array([(92, 62, 36), (66, 44, 28), (112, 86, 48), (98, 128, 150), (104, 124, 88), (50, 36, 26)])
_LIGHT_EYES, _DARK_EYES = [0.25, 0.25, 0.15, 0.16, 0.09, 0.1], [0.32, 0.42, 0.05, 0, 0, 0.21]

Array = np.ndarray


@dataclass(frozen=True)
class Glasses:
    """Glasses in front of the eyes; lengths in decimetres of the base head, colours linear.

    Args:
        half_width, half_height: Of a lens.
        roundness: Exponent of its outline: 2 is an ellipse, more is squarer.
        thickness: Of the rim.
        rim, lens: Colours.
        opacity: Of the lens, 0..1.
    """

    half_width: float
    half_height: float
    roundness: float
    thickness: float
    rim: Array
    lens: Array
    opacity: float


@dataclass(frozen=True)
class Person:
    """Everything that stays the same whenever this person is rendered.

    Args:
        traits: Age, sex, origin, skin tone.
        points: `(V, 3)` at rest, decimetres.
        scale: Size of the head as a share of the base mesh's.
        middle: `(3,)`, around which the head turns.
        eyes: `(2, 3)`, centres of the left and right eyeball.
        skin: `(H, W, 4)`: linear colour and gloss.
        folds, still: `(h, w, 8)` and `(h, w)`, see skin.py.
        fold_corner: Column and row of the texel at which they begin.
        fold_strength: How deep expressions fold this skin.
        hair: The hairdo.
        triangles, parts: Those of the mesh that are shown.
        colors: `(5, 3)` of iris, sclera, teeth, inside of the mouth and lashes, linear.
        iris, pupil: Cosines of their half angles on the eyeball.
        surface: See `raster.shade`.
        glasses: Or None.
        rest: Weights by action of the resting face.
    """

    traits: Traits
    points: Array
    scale: float
    middle: Array
    eyes: Array
    skin: Array
    folds: Array
    still: Array
    fold_corner: tuple[int, int]
    fold_strength: float
    hair: Hairdo
    triangles: Array
    parts: Array
    colors: Array
    iris: float
    pupil: float
    surface: Array
    glasses: Glasses | None
    rest: dict[str, float]


@lru_cache(maxsize=8)
def make_person(seed: int, detail: float = 1.0) -> Person:
    """The person of a seed, with textures at a share of the full resolution."""
    rng = np.random.default_rng([seed, 0])
    traits, maps, head = draw_traits(rng), load_maps(detail), load_head()
    points = draw_shape(traits, rng)
    eyes = np.stack([points[head.left_eye].mean(axis=0), points[head.right_eye].mean(axis=0)])
    scale = float(np.linalg.norm(eyes[0] - eyes[1])) / EYE_DISTANCE
    tone, color = skin_tone(traits, rng), hair_color(traits, rng)
    canvas = paint_skin(traits, tone, maps, rng)
    paint_brows(traits, color, maps, canvas, rng)
    paint_beard(traits, color, maps, canvas, rng)
    paint_make_up(traits, maps, canvas, rng)
    hair = draw_hairdo(traits, color, maps, canvas, rng)
    paint_clothes(maps, canvas, rng)
    folds = paint_folds(maps, rng)
    triangles, parts = _shown_triangles(traits, hair, rng)
    middle_aged = 0.25 if traits.age == "middle" else 0.0
    return Person(
        traits=traits,
        points=points,
        scale=scale,
        middle=(eyes.mean(axis=0) - np.array([0, 0.3, 0.9]) * scale).astype(np.float32),
        eyes=eyes.astype(np.float32),
        skin=np.ascontiguousarray(np.concatenate([canvas.color, canvas.gloss[..., None]], axis=2)),
        folds=folds,
        still=still_folds(traits, folds, detail, rng),
        fold_corner=(maps.folds[1].start, maps.folds[0].start),
        fold_strength=float(rng.uniform(0.25, 0.7) * (0.7 + 0.6 * traits.old + middle_aged)),
        hair=hair,
        triangles=triangles,
        parts=parts,
        colors=_draw_colors(traits, tone, rng),
        iris=float(np.cos(np.radians(rng.uniform(26, 31)))),
        pupil=float(np.cos(np.radians(rng.uniform(8, 14)))),
        surface=_draw_surface(detail, rng),
        glasses=_draw_glasses(traits, rng),
        rest=draw_rest(rng),
    )


@lru_cache(maxsize=2)
def texture_coordinates(detail: float) -> Array:
    """`(V + S, 2)` float32 in texels; of teeth, u counts teeth."""
    head, (rows, columns) = load_head(), load_maps(detail).shape
    uv = head.uv * np.array([columns, rows], np.float32)
    teeth = np.flatnonzero((head.vertex_parts == Part.UPPER_TEETH) | (head.vertex_parts == Part.LOWER_TEETH))
    uv[teeth, 0] = head.uv[teeth, 0]
    return np.ascontiguousarray(uv)


def _shown_triangles(traits: Traits, hair: Hairdo, rng: np.random.Generator) -> tuple[Array, Array]:
    head = load_head()
    shown = np.ones(len(head.parts), bool)
    if rng.random() > (0.6 if traits.male < 0.5 else 0.25):
        shown &= head.parts != Part.LONG_LASHES
    if rng.random() > 0.15:
        shown &= head.parts != Part.SHORT_LASHES
    if hair.opacity[..., 0].max() <= 0:
        shown &= head.parts != Part.STRIPS
    if hair.style == "bald":
        shown &= head.parts != Part.SHELL
    return np.ascontiguousarray(head.triangles[shown]), np.ascontiguousarray(head.parts[shown])


def _draw_colors(traits: Traits, tone: Array, rng: np.random.Generator) -> Array:
    iris = linear(_IRISES[rng.choice(6, p=_LIGHT_EYES if traits.melanin < 2.2 else _DARK_EYES)]) * rng.uniform(
        0.8, 1.3
    )
    sclera = linear(rng.uniform(165, 228) * np.array([1, rng.uniform(0.95, 1), rng.uniform(0.92, 1)]))
    yellow = np.array([1, rng.uniform(0.96, 1), rng.uniform(0.86, 1)])
    teeth = linear(np.array([246, 243, 234]) * rng.uniform(0.88, 1.03) * yellow)
    mouth = linear([rng.uniform(120, 175), rng.uniform(45, 80), rng.uniform(45, 80)])
    lashes = tone * rng.uniform(0.02, 0.15)
    return np.stack([iris, sclera, teeth, mouth, lashes]).astype(np.float32)


def _draw_surface(detail: float, rng: np.random.Generator) -> Array:
    oily = 1.0 if rng.random() < 0.85 else 1.7
    return np.array(
        [
            rng.uniform(0.01, 0.16) * oily,
            rng.uniform(0.8, 1.6) * detail,
            rng.uniform(0.5, 0.9),
            rng.uniform(0.35, 0.6),
            rng.uniform(0.12, 0.3),
            rng.uniform(0.5, 1.1),
            rng.uniform(8, 24),
            rng.uniform(0.7, 1.1),
        ],
        np.float32,
    )


def _draw_glasses(traits: Traits, rng: np.random.Generator) -> Glasses | None:
    if rng.random() > (0.1 if traits.age in ("child", "young") else 0.2):
        return None
    dark = rng.random() < 0.12
    rim: Any = rng.uniform(0.01, 0.12, 3) if rng.random() < 0.8 else rng.uniform(0, 0.7, 3)
    return Glasses(
        half_width=float(rng.uniform(0.21, 0.285)),
        half_height=float(rng.uniform(0.13, 0.23)),
        roundness=float(rng.choice([2.0, 2.6, 4.0, 6.0])),
        thickness=float(rng.uniform(0.012, 0.05)),
        rim=rim.astype(np.float32),
        lens=np.float32(0.02) * np.ones(3, np.float32) if dark else np.array([0.75, 0.8, 0.85], np.float32),
        opacity=float(rng.uniform(0.75, 0.93) if dark else rng.uniform(0, 0.08)),
    )
