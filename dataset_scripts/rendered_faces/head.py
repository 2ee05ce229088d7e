"""The head that all rendered people share: its mesh, its facial actions, and the layout of its skin's textures.

Lengths are in decimetres of the base mesh; x runs to the subject's left, y up, z out of the face. A texture unrolls
the head around a vertical axis, denser at the front: u runs to the subject's left, v down.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

from .raster import rasterize

HEAD_FILE = Path(__file__).with_name("head.npz")

AXIS_Z = 0.25  # of the vertical axis around which textures are unrolled
TOP, BOTTOM = 8.7, 5.5  # heights of a texture's first and last row
_FRONT_DENSITY = 1.3
_ROWS, _COLUMNS = 288, 448  # of a texture at detail 1: 90 texels a decimetre, 107 a radian at the front
# Window of the skin in which expressions fold it: heights, and the angle to either side in degrees.
FOLDS_TOP, FOLDS_BOTTOM, FOLDS_ANGLE = 8.2, 6.05, 72.0

Array = np.ndarray


class Part(IntEnum):
    """Parts of the mesh, by the numbers that raster.py knows."""

    SKIN = 0
    LEFT_EYE = 2
    RIGHT_EYE = 3
    UPPER_TEETH = 4
    LOWER_TEETH = 5
    TONGUE = 6
    LONG_LASHES = 7
    SHORT_LASHES = 8
    STRIPS = 9  # long hair
    SHELL = 10  # short hair: the scalp, lifted


@dataclass(frozen=True)
class Targets:
    """Sparse linear targets of the mesh; see `raster.deform` for the arrays."""

    names: tuple[str, ...]
    starts: Array
    vertices: Array
    offsets: Array

    def index(self, name: str) -> int:
        """Position of a target by name.

        Raises:
            ValueError: For an unknown name.
        """
        return self.names.index(name)

    def add_to(self, points: Array, name: str, weight: float) -> None:
        """Move `points` (V, 3) by a target, in place."""
        k = self.names.index(name)
        rows = slice(self.starts[k], self.starts[k + 1])
        points[self.vertices[rows]] += np.float32(weight) * self.offsets[rows]


@dataclass(frozen=True)
class Head:
    """The mesh. V vertices of the extract, and S more of the hair's shell, which come after them.

    Args:
        points: `(V, 3)` at rest.
        triangles, parts: `(N, 3)` int32 and `(N,)` int32, the shell's included; `skin_triangles` without it.
        vertex_parts: `(V,)`.
        uv: `(V + S, 2)` in shares of a texture's width and height; of teeth, u counts teeth.
        openness: `(V + S,)` ambient visibility, 0..1.
        inside: `(V + S,)` depth in the mouth, 0..1.
        shell: `(S,)` vertices that the shell lifts.
        units, shapes, builds: Facial actions; local shapes of identity; age, sex and origin.
        lips, lids, ears, face: `(V,)` masks, 0..1.
        left_eye, right_eye: Vertices of the eyeballs.
        nose, left_mouth, right_mouth: Vertices of the landmarks that face detectors use.
    """

    points: Array
    triangles: Array
    parts: Array
    skin_triangles: Array
    vertex_parts: Array
    uv: Array
    openness: Array
    inside: Array
    shell: Array
    units: Targets
    shapes: Targets
    builds: Targets
    lips: Array
    lids: Array
    ears: Array
    face: Array
    left_eye: Array
    right_eye: Array
    nose: int
    left_mouth: int
    right_mouth: int


@dataclass(frozen=True)
class Maps:
    """Layout of a texture, each `(H, W)` float32: base position, heights, angles (degrees) and masks.

    `y`, `x` and `z` are 0 where no skin was baked (`covered` False); `height` and `angle` are defined everywhere.
    """

    x: Array
    y: Array
    z: Array
    height: Array
    angle: Array
    lips: Array
    lids: Array
    ears: Array
    covered: Array
    front: Array
    folds: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.x.shape  # type: ignore[return-value]

    @property
    def detail(self) -> float:
        """Resolution, as a share of the full one."""
        return self.x.shape[0] / _ROWS


@lru_cache(maxsize=1)
def load_head() -> Head:
    """Read `head.npz`, which lies beside this file, and derive what the renderer needs."""
    with np.load(HEAD_FILE) as file:
        arrays = {name: file[name] for name in file.files}
    points, parts = arrays["vertices"].copy(), arrays["vertex_parts"]
    units = _read_targets(arrays, "unit")
    _mend_mouth(points, parts, units)
    masks = {name.removeprefix("mask_"): arrays[name] / np.float32(255) for name in arrays if name.startswith("mask_")}
    inside = _depth_in_mouth(points, masks["inside_mouth"])
    openness = _adjust_openness(arrays["openness"] / np.float32(255), points, parts, masks, inside)
    uv = _unroll(points)
    teeth = (parts == Part.UPPER_TEETH) | (parts == Part.LOWER_TEETH)
    uv[teeth, 0] = np.arctan2(points[teeth, 0], points[teeth, 2] - 1.1) / (2 * np.pi) * 33
    triangles = arrays["triangles"].astype(np.int32)
    shell, shell_triangles = _find_shell(points, triangles, arrays["parts"], parts, masks)
    nose, left_mouth, right_mouth = _find_landmarks(points, parts, masks["lips"])
    return Head(
        points=points,
        triangles=np.concatenate([triangles, shell_triangles]).astype(np.int32),
        parts=np.concatenate([arrays["parts"], np.full(len(shell_triangles), Part.SHELL)]).astype(np.int32),
        skin_triangles=triangles,
        vertex_parts=parts,
        uv=np.concatenate([uv, uv[shell]]).astype(np.float32),
        openness=np.concatenate([openness, np.ones(len(shell))]).astype(np.float32),
        inside=np.concatenate([inside, np.zeros(len(shell))]).astype(np.float32),
        shell=shell,
        units=units,
        shapes=_read_targets(arrays, "shape"),
        builds=_read_targets(arrays, "build"),
        lips=masks["lips"],
        lids=masks["eyelids"],
        ears=masks["ears"],
        face=masks["face"],
        left_eye=np.flatnonzero(parts == Part.LEFT_EYE),
        right_eye=np.flatnonzero(parts == Part.RIGHT_EYE),
        nose=nose,
        left_mouth=left_mouth,
        right_mouth=right_mouth,
    )


def _read_targets(arrays: dict[str, Array], kind: str) -> Targets:
    offsets = arrays[f"{kind}_offsets"]
    moved = np.abs(offsets).max(axis=2) > 0
    counts = moved.sum(axis=1)
    target, vertex = np.nonzero(moved)
    steps = arrays[f"{kind}_steps"][target, None]
    return Targets(
        names=tuple(str(name) for name in arrays[f"{kind}_names"]),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        vertices=vertex.astype(np.int32),
        offsets=(offsets[target, vertex] * steps).astype(np.float32),
    )


def _mend_mouth(points: Array, parts: Array, units: Targets) -> None:
    """Bring the upper teeth from behind the lip, and the tongue behind the teeth, in place."""
    upper, lower, tongue = (parts == part for part in (Part.UPPER_TEETH, Part.LOWER_TEETH, Part.TONGUE))
    edge = points[upper, 1].max()
    points[upper, 1] = edge - 1.22 * (edge - points[upper, 1])
    points[upper, 2] += 0.02
    points[lower, 1] -= 0.01
    back = np.array([0, -0.05, -0.13], np.float32)
    points[tongue] += back
    k = units.index("tongueOut")
    rows = slice(units.starts[k], units.starts[k + 1])
    units.offsets[rows][tongue[units.vertices[rows]]] -= back


def _depth_in_mouth(points: Array, mask: Array) -> Array:
    """0 at the flesh of the lips, 1 a quarter of a decimetre behind it."""
    return np.where(mask > 0.3, np.clip((1.38 - points[:, 2]) / 0.22, 0, 1), 0).astype(np.float32)


def _adjust_openness(openness: Array, points: Array, parts: Array, masks: dict[str, Array], inside: Array) -> Array:
    """Correct what the rays, sent at rest with the mouth shut, say of lips, teeth and eyes."""
    openness = openness.copy()
    wet = masks["inside_mouth"] > 0.3
    openness[wet] = np.maximum(openness[wet], 0.45 * (1 - inside[wet]))
    openness[masks["lips"] > 0.3] = np.maximum(openness[masks["lips"] > 0.3], 0.6)
    for part in (Part.UPPER_TEETH, Part.LOWER_TEETH, Part.TONGUE):
        z = points[parts == part, 2]
        openness[parts == part] = ((z - z.min()) / np.ptp(z)) ** 1.2
    eyes = (parts == Part.LEFT_EYE) | (parts == Part.RIGHT_EYE)
    openness[eyes] = np.clip(0.35 + 0.8 * openness[eyes], 0.3, 1)
    skin = parts == Part.SKIN
    openness[skin] = np.clip(1.08 * openness[skin], 0.03, 1)
    return openness


def _unroll(points: Array) -> Array:
    """Texture coordinates `(V, 2)` of points, in shares of width and height."""
    turn = np.arctan2(points[:, 0], points[:, 2] - AXIS_Z) / np.pi
    u = 0.5 + 0.5 * np.tanh(_FRONT_DENSITY * turn) / np.tanh(_FRONT_DENSITY)
    return np.stack([u, (TOP - points[:, 1]) / (TOP - BOTTOM)], axis=1).astype(np.float32)


def _find_shell(
    points: Array, triangles: Array, parts: Array, vertex_parts: Array, masks: dict[str, Array]
) -> tuple[Array, Array]:
    """Vertices of the scalp and its triangles, numbered after the V vertices of the mesh."""
    angle = np.degrees(np.arctan2(points[:, 0], points[:, 2] - AXIS_Z))
    on_face = (points[:, 1] < 7.5) & (np.abs(angle) < 58)
    hairy = (vertex_parts == Part.SKIN) & (points[:, 1] > 6.2) & ~on_face
    hairy &= (masks["inside_mouth"] < 0.2) & (masks["ears"] < 0.5)
    shell = np.flatnonzero(hairy)
    number = np.full(len(points), -1)
    number[shell] = np.arange(len(shell)) + len(points)
    return shell, number[triangles[hairy[triangles].all(axis=1) & (parts == Part.SKIN)]]


def _find_landmarks(points: Array, parts: Array, lips: Array) -> tuple[int, int, int]:
    """Vertices of the tip of the nose and of the mouth's left and right corner."""
    x, y, z = points.T
    tip = np.flatnonzero((parts == Part.SKIN) & (np.abs(x) < 0.06) & (y > 6.85) & (y < 7.2))
    mouth = np.flatnonzero((parts == Part.SKIN) & (lips > 0.4))
    return int(tip[z[tip].argmax()]), int(mouth[x[mouth].argmax()]), int(mouth[x[mouth].argmin()])


@lru_cache(maxsize=2)
def load_maps(detail: float = 1.0) -> Maps:
    """Bake the maps of textures at a share of the full resolution."""
    head = load_head()
    height, width = round(_ROWS * detail), round(_COLUMNS * detail)
    baked, covered = _bake(head, height, width)
    x, y, z, lips, lids, ears = np.moveaxis(baked, -1, 0)
    row = (np.arange(height, dtype=np.float32) + 0.5) / height
    column = (np.arange(width, dtype=np.float32) + 0.5) / width
    turn = np.arctanh((2 * column - 1) * np.tanh(_FRONT_DENSITY)) / _FRONT_DENSITY
    angle = np.broadcast_to(np.degrees(turn * np.pi), (height, width)).astype(np.float32)
    level = np.broadcast_to(TOP - row[:, None] * (TOP - BOTTOM), (height, width)).astype(np.float32)
    rows = np.flatnonzero((level[:, 0] < FOLDS_TOP) & (level[:, 0] > FOLDS_BOTTOM))
    columns = np.flatnonzero(np.abs(angle[0]) < FOLDS_ANGLE)
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    front = covered & (z > 0.6)
    return Maps(x, y, z, level, angle, lips, lids, ears, covered, front, window)


def _bake(head: Head, height: int, width: int) -> tuple[Array, Array]:
    """Position and masks of the skin at each texel, `(H, W, 6)`, and where there is any, `(H, W)` bool."""
    triangles, uv = head.skin_triangles, head.uv[: len(head.points)]
    seam = np.ptp(uv[triangles, 0], axis=1) > 0.5
    wet = head.inside[triangles].max(axis=1) > 0.3
    skin = triangles[(head.vertex_parts[triangles] == Part.SKIN).all(axis=1) & ~seam & ~wet]
    both_sides = np.concatenate([skin, skin[:, [0, 2, 1]]]).astype(np.int32)
    radius = np.hypot(head.points[:, 0], head.points[:, 2] - AXIS_Z)
    ids = np.empty((height, width), np.int32)
    shown, weights = np.empty((height, width), np.float32), np.zeros((height, width, 2), np.float32)
    texels = (uv * np.array([width, height], np.float32)).astype(np.float32)
    no_hair = np.zeros((2, 2, 2), np.float32)
    parts = np.zeros(len(both_sides), np.int32)
    rasterize(texels, -radius.astype(np.float32), both_sides, parts, texels, no_hair, shown, ids, weights)
    covered = ids >= 0
    values = np.column_stack([head.points, head.lips, head.lids, head.ears]).astype(np.float32)
    corners = both_sides[np.where(covered, ids, 0)]
    w0, w1 = weights[..., 0, None], weights[..., 1, None]
    baked = values[corners[..., 0]] * w0 + values[corners[..., 1]] * w1 + values[corners[..., 2]] * (1 - w0 - w1)
    baked[~covered] = 0
    return baked, covered


def shape_groups() -> list[list[list[str]]]:
    """Local shapes as groups of alternatives (wider, narrower); an alternative lists its left and right targets."""
    groups: dict[str, dict[str, list[str]]] = {}
    ends = r"-(decr|incr|down|up|in|out|backward|forward|concave|convex|compress|uncompress)$"
    for name in load_head().shapes.names:
        folder, _, shape = name.partition("/")
        alternative = f"{folder}/{re.sub('^[lr]-', '', shape)}"
        groups.setdefault(re.sub(ends, "", alternative), {}).setdefault(alternative, []).append(name)
    return [list(alternatives.values()) for alternatives in groups.values()]
