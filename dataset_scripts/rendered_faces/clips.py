"""Clips of rendered people: a person, a motion and a world become frames, and the truth about them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import FRAMES_PER_SECOND, ORDER_ONLY
from .actions import ACTION_UNITS, CLASS_NAMES, sides_of
from .head import load_head
from .motion import Motion, draw_motion
from .person import Glasses, Person, make_person, texture_coordinates
from .raster import blend_wrinkles, cast_shadows, deform, rasterize, shade, vertex_normals
from .skin import fold_weights
from .world import (
    MARGIN,
    Crop,
    Lens,
    Lights,
    Occluder,
    cut_edge,
    develop,
    draw_background,
    draw_crop,
    draw_lens,
    draw_lights,
    draw_occluder,
    paint_occluder,
    place_crop,
)

MIN_FRAMES, MIN_IMAGE_SIZE = 4, 32
_SHADOW_SIDE, _SHADOW_REACH = 112, 1.75  # pixels of the map that casts shadows, decimetres to its edge

Array = np.ndarray


@dataclass(frozen=True)
class World:
    """Everything in a clip apart from the person and the motion; it is independent of the class."""

    lights: Lights
    crop: Crop
    lens: Lens
    occluder: Occluder | None
    background: Array
    pan: Array
    noise_seed: int


@dataclass(frozen=True)
class Clip:
    """Rendered frames and the truth about them.

    Args:
        frames: `(T, S, S, 3)` uint8 RGB.
        person, motion: What was rendered, in the order of the frames.
    """

    frames: Array
    person: Person
    motion: Motion


def render_clip(
    label: str | None,
    *,
    identity_seed: int,
    clip_seed: int,
    num_frames: int,
    image_size: int,
    frames_per_second: float = FRAMES_PER_SECOND,
    margin: float = MARGIN,
    order_only: bool = False,
    plain: bool = False,
    full: bool = False,
) -> Clip:
    """Render one clip; the same arguments give the same pixels.

    Args:
        label: One of `CLASS_NAMES`, or None for a clip on which annotators would not agree.
        identity_seed: Chooses the person.
        clip_seed: Chooses motion, light, place and picture quality.
        num_frames: At least 4.
        image_size: Width and height in pixels, even and at least 32.
        frames_per_second: How fast time passes.
        margin: Of the cut around the face; `FaceCrop.margin`.
        order_only: `fear` is the `surprise` clip of the same seeds with its frames reversed; nothing else differs.
        plain: Strong expressions in clean, frontal, exact pictures without speech, which few clips suffice to learn.
        full: As `plain`, with the expression held at its full height.

    Raises:
        ValueError: For values out of range.
    """
    check_sizes(num_frames, num_frames, image_size)
    if label is not None and label not in CLASS_NAMES:
        raise ValueError(f"label is {label!r}; expected one of {', '.join(CLASS_NAMES)}")
    if order_only and label == ORDER_ONLY[1]:
        clip = render_clip(
            ORDER_ONLY[0],
            identity_seed=identity_seed,
            clip_seed=clip_seed,
            num_frames=num_frames,
            image_size=image_size,
            frames_per_second=frames_per_second,
            margin=margin,
            order_only=True,
            plain=plain,
            full=full,
        )
        return _backwards(clip)
    person = make_person(identity_seed, 1.0 if image_size > 56 else 0.5)
    rng = np.random.default_rng([clip_seed, 2])
    units = load_head().units
    motion = draw_motion(
        label, person.rest, units, num_frames, frames_per_second, rng, order_only=order_only, plain=plain, full=full
    )
    rng = np.random.default_rng([clip_seed, 1])
    world = draw_world(person, num_frames, image_size, rng, margin=margin, clean=plain or full)
    return Clip(render_frames(person, motion, world, image_size), person, motion)


def _backwards(clip: Clip) -> Clip:
    motion = clip.motion
    turned = Motion(
        ORDER_ONLY[1],
        ORDER_ONLY[1],
        motion.weights[::-1],
        motion.level[::-1],
        motion.pose[::-1],
        motion.gaze[::-1],
        motion.talks,
    )
    return Clip(np.ascontiguousarray(clip.frames[::-1]), clip.person, turned)


def check_sizes(low: int, high: int, image_size: int) -> None:
    """Raise `ValueError` for lengths or image sizes that cannot be rendered."""
    if low < MIN_FRAMES or high < low:
        raise ValueError(f"num_frames is {low} to {high}; expected a number, or a range, of at least {MIN_FRAMES}")
    if image_size < MIN_IMAGE_SIZE or image_size % 2:
        raise ValueError(f"image_size is {image_size}; expected an even number of at least {MIN_IMAGE_SIZE} pixels")


def draw_world(
    person: Person,
    num_frames: int,
    image_size: int,
    rng: np.random.Generator,
    *,
    margin: float = MARGIN,
    clean: bool = False,
) -> World:
    """Sample light, camera, background and objects in front of the face."""
    occluder = draw_occluder(person.skin[person.skin.shape[0] // 2, person.skin.shape[1] // 2, :3], rng)
    return World(
        lights=draw_lights(rng),
        crop=draw_crop(num_frames, rng, margin=margin, exact=clean),
        lens=draw_lens(rng, clean=clean),
        occluder=None if clean else occluder,
        background=draw_background(2 * image_size + 24, rng),
        pan=rng.uniform(-10, 10, 2),
        noise_seed=int(rng.integers(2**31)),
    )


class _Buffers:
    """Arrays that are used again for each frame."""

    def __init__(self, num_vertices: int, num_shell: int, fold_shape: tuple[int, int], side: int) -> None:
        total = num_vertices + num_shell
        self.points = np.empty((total, 3), np.float32)
        self.normals = np.empty((total, 3), np.float32)
        self.lit = np.ones(total, np.float32)
        self.ids = np.empty((side, side), np.int32)
        self.depth = np.empty((side, side), np.float32)
        self.weights = np.empty((side, side, 2), np.float32)
        self.shadow_ids = np.empty((_SHADOW_SIDE, _SHADOW_SIDE), np.int32)
        self.shadow_depth = np.empty((_SHADOW_SIDE, _SHADOW_SIDE), np.float32)
        self.shadow_weights = np.empty((_SHADOW_SIDE, _SHADOW_SIDE, 2), np.float32)
        self.folds = np.empty((*fold_shape, 1), np.float32)


def render_frames(person: Person, motion: Motion, world: World, image_size: int) -> Array:
    """Render frames `(T, S, S, 3)` uint8: at twice the size, then through the simulated camera."""
    head = load_head()
    side, num_frames = 2 * image_size, len(motion.level)
    uv = texture_coordinates(person.skin.shape[0] / 288)
    buffers = _Buffers(len(head.points), len(head.shell), person.still.shape, side)
    rng = np.random.default_rng(world.noise_seed)
    exposure = 0.0
    frames = np.empty((num_frames, image_size, image_size, 3), np.uint8)
    for t in range(num_frames):
        turn = rotation(*motion.pose[t])
        points, normals = _pose_head(person, motion.weights[t], turn, buffers)
        flat = _project(points, world.crop.distance * person.scale)
        eyes = (person.eyes - person.middle) @ turn.T
        step, corner = _place(flat, eyes, person, world.crop, t, side)
        xy = _to_pixels(flat, step, corner)
        rasterize(
            xy, -points[:, 2], person.triangles, person.parts, uv, person.hair.opacity, buffers.depth, buffers.ids,
            buffers.weights,
        )  # fmt: skip
        _light(points, person, world.lights, uv, buffers)
        strengths = dict(zip(head.units.names, motion.weights[t].tolist(), strict=True))
        depths = fold_weights(lambda action: strengths[action], person.fold_strength)  # noqa: B023 (used at once)
        middle = person.skin.shape[1] / 2 - person.fold_corner[0]
        blend_wrinkles(person.still, person.folds, depths, middle, buffers.folds)
        image = _background_at(world, t / num_frames, side)
        gaze = _gaze_directions(motion.gaze[t], turn)
        cones = np.tile([person.iris, person.pupil], (2, 1))
        shade(
            buffers.ids, buffers.weights, person.triangles, person.parts, points, normals, uv, head.openness,
            buffers.lit, head.inside, person.skin, buffers.folds, person.fold_corner,
            person.hair.color, world.lights.lamps, world.lights.ambient,
            np.concatenate([eyes, gaze, cones], axis=1).astype(np.float32), person.colors, person.surface, image,
        )  # fmt: skip
        if t == 0:
            wanted = world.lights.exposure * (1 - 0.11 * person.traits.melanin)  # cameras expose for the scene, too
            exposure = wanted / _face_brightness(image, buffers.ids, person)
        if person.glasses is not None:
            _draw_glasses(image, person, person.glasses, turn, world.crop, step, corner)
        if world.occluder is not None:
            paint_occluder(image, world.occluder, t / num_frames)
        frames[t] = develop(image, exposure, world.lens, rng)
        if world.crop.edge is not None:
            cut_edge(frames[t], world.crop.edge)
    return frames


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Rotation `(3, 3)` float32 of the head: degrees to the subject's left, down, to the subject's right shoulder."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians([yaw, pitch, roll])), np.cos(np.radians([yaw, pitch, roll]))
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (around_z @ around_x @ around_y).astype(np.float32)


def _pose_head(person: Person, weights: Array, turn: Array, buffers: _Buffers) -> tuple[Array, Array]:
    """Points and normals `(V + S, 3)` in the camera's axes, from the head's middle."""
    head = load_head()
    n = len(head.points)
    units = head.units
    deform(
        person.points, units.starts, units.vertices, units.offsets, weights, person.scale, buffers.points[:n]
    )  # fmt: skip
    vertex_normals(buffers.points[:n], head.skin_triangles, buffers.normals[:n])
    lift = person.hair.lift[:, None] * np.float32(person.scale)
    buffers.points[n:] = buffers.points[head.shell] + buffers.normals[head.shell] * lift
    buffers.normals[n:] = buffers.normals[head.shell]
    return (buffers.points - person.middle) @ turn.T, buffers.normals @ turn.T


def _project(points: Array, distance: float) -> Array:
    """Perspective of points `(N, 3)`: `(N, 2)`, x to the right and y down."""
    nearness = distance / (distance - points[:, 2])
    return np.stack([points[:, 0] * nearness, -points[:, 1] * nearness], axis=1)


def _place(flat: Array, eyes: Array, person: Person, crop: Crop, t: int, side: int) -> tuple[complex, complex]:
    """The cut of a frame: see `world.place_crop`; landmarks are those of a detector, errors included."""
    head = load_head()
    corneas = _project(eyes + np.array([0, 0, 0.12]) * person.scale, crop.distance * person.scale)
    # The detector's left is the picture's left, which is the subject's right.
    marks = np.stack([corneas[1], corneas[0], flat[head.nose], flat[head.right_mouth], flat[head.left_mouth]])
    errors = (crop.bias + crop.jitter[t]) * np.linalg.norm(corneas[0] - corneas[1])
    return place_crop(marks + errors, side, crop.margin)


def _to_pixels(flat: Array, step: complex, corner: complex) -> Array:
    place = (flat @ np.array((1, 1j)) - corner) / step
    return np.stack([place.real, place.imag], axis=1).astype(np.float32)


def _light(points: Array, person: Person, lights: Lights, uv: Array, buffers: _Buffers) -> None:
    """Find which vertices the first lamp reaches, by a depth map from its position."""
    to_lamp = lights.lamps[0, :3]
    right = np.cross([0.0, 1.0, 0.0], to_lamp)
    right /= np.linalg.norm(right) + 1e-9
    up = np.cross(to_lamp, right)
    reach = _SHADOW_REACH * person.scale
    seen = points @ np.stack([right, -up, -to_lamp]).astype(np.float32).T
    xy = ((seen[:, :2] / reach + 1) * (_SHADOW_SIDE / 2)).astype(np.float32)
    depth = np.ascontiguousarray(seen[:, 2])
    rasterize(
        xy, depth, person.triangles, person.parts, uv, person.hair.opacity, buffers.shadow_depth, buffers.shadow_ids,
        buffers.shadow_weights,
    )  # fmt: skip
    cast_shadows(xy, depth, buffers.shadow_depth, 0.06 * person.scale, buffers.lit)


def _gaze_directions(gaze: Array, turn: Array) -> Array:
    """Directions of the left and the right eye, `(2, 3)` in the camera's axes; they converge a little."""
    yaw, pitch = np.radians(gaze[0] + np.array([-1.5, 1.5])), np.radians(gaze[1])
    directions = np.stack(
        [np.sin(yaw) * np.cos(pitch), np.full(2, np.sin(pitch)), np.cos(yaw) * np.cos(pitch)], axis=1
    )
    return directions @ turn.T


def _background_at(world: World, time: float, side: int) -> Array:
    left, top = np.clip(12 + world.pan * time, 0, 23).astype(int)
    return world.background[top : top + side, left : left + side].copy()


def _face_brightness(image: Array, ids: Array, person: Person) -> float:
    """Mean luminance of the skin in the picture's middle."""
    quarter = ids.shape[0] // 4
    middle = slice(quarter, 3 * quarter, 2)
    found = ids[middle, middle]
    skin = (found >= 0) & (person.parts[found] == 0)
    if not skin.any():
        return 0.3
    return max(float((image[middle, middle][skin] @ np.array([0.3, 0.6, 0.1])).mean()), 1e-3)


def _draw_glasses(
    image: Array, person: Person, glasses: Glasses, turn: Array, crop: Crop, step: complex, corner: complex
) -> None:
    """Paint glasses over linear light `(R, R, 3)`, in place: lenses, rims, bridge and temples."""
    side = image.shape[0]
    angle = np.linspace(0, 2 * np.pi, 33)
    power = 2 / glasses.roundness
    x = glasses.half_width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = glasses.half_height * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power - 0.03

    def flatten(points: Array) -> list[tuple[float, float]]:
        place = (points * person.scale) @ turn.T
        return [
            (float(a), float(b)) for a, b in _to_pixels(_project(place, crop.distance * person.scale), step, corner)
        ]

    lenses, rims = Image.new("L", (side, side)), Image.new("L", (side, side))
    draw_lens_shape, draw_rim = ImageDraw.Draw(lenses), ImageDraw.Draw(rims)
    width = max(1, round(glasses.thickness / abs(step) * person.scale))
    centers = (person.eyes - person.middle) / person.scale
    for center, outward in zip(centers, (1, -1), strict=True):
        bow = 0.12 * np.clip(x * outward, 0, None) ** 2 * 4
        outline = flatten(center + np.stack([x, y, 0.29 - bow], axis=1))
        draw_lens_shape.polygon(outline, fill=255)
        draw_rim.line(outline, fill=255, width=width, joint="curve")
        hinge = center + np.array([outward * glasses.half_width, 0.04, 0.26])
        ear = np.array([outward * 0.78, center[1] + 0.02, -0.6])
        if (turn @ np.array([outward, 0, 0]))[2] > 0.08:  # the temple that is not hidden by the face
            draw_rim.line(flatten(np.stack([hinge, ear])), fill=255, width=width)
    inner = [
        center + np.array([-out * glasses.half_width, 0.03, 0.3]) for center, out in zip(centers, (1, -1), strict=True)
    ]
    draw_rim.line(
        flatten(np.stack([inner[0], (inner[0] + inner[1]) / 2 + [0, 0.03, 0.02], inner[1]])), fill=255, width=width
    )
    for mask, color, opacity in ((lenses, glasses.lens, glasses.opacity), (rims, glasses.rim, 1.0)):
        share = np.asarray(mask, np.float32)[..., None] * np.float32(opacity / 255)
        image += share * (color - image)


def action_unit_intensities(weights: Array) -> dict[str, Array]:
    """Action units of the rig's weights `(T, U)`: `(T,)` each, mean over sides, by the names of `ACTION_UNITS`."""
    names = load_head().units.names
    return {
        unit: np.mean([weights[:, names.index(n)] for action in actions for n in sides_of(action, names)], axis=0)
        for unit, actions in ACTION_UNITS.items()
    }
