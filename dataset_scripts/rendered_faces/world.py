"""The world around a face: camera and crop, light, background, things before the face, lens and sensor.

Everything is sampled for a clip without knowledge of its class. Most clips look like ordinary footage; strong colours,
hard light, infrared and the like are the tails.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from .raster import expose

# Where five points of an upright face lie in its square, and the margin around it: `timeline.faces.FaceCrop`'s
# convention, repeated because the two packages do not import each other (a test compares them).
REFERENCE_POINTS = np.array([[0.343, 0.461], [0.657, 0.461], [0.5, 0.64], [0.37, 0.824], [0.63, 0.824]])
MARGIN = 0.1

Array = np.ndarray


@dataclass(frozen=True)
class Lights:
    """Lights of a clip, linear.

    Args:
        lamps: `(L, 6)`: direction to the lamp in the camera's axes, colour. The first casts shadows.
        ambient: `(2, 3)`, from above and from below.
        exposure: Brightness that the camera gives a light face, in linear light.
    """

    lamps: Array
    ambient: Array
    exposure: float


@dataclass(frozen=True)
class Crop:
    """The camera's distance and the cut around the face.

    Args:
        distance: From the head, in decimetres of the base mesh.
        margin: Of the aligned square, as a share of its side.
        bias: `(5, 2)`, error of the detector's points in the whole clip, in eye distances.
        jitter: `(T, 5, 2)`, error in each frame.
        edge: Direction, in radians, in which the picture ends, and how far from the middle of the cut, as a share of
            its side; what lies beyond is black. None where the whole cut lies in the picture.
    """

    distance: float
    margin: float
    bias: Array
    jitter: Array
    edge: tuple[float, float] | None = None


@dataclass(frozen=True)
class Lens:
    """Effects of camera and codec on the picture; each value is for the whole clip.

    Args:
        tint: `(3,)` factors of red, green and blue.
        knee, gamma, contrast, brightness, saturation, vignette: Of the tone curve; 0 saturation is grey.
        blur: Deviation in pixels of a picture of 112.
        noise, chroma_noise: Deviation, 0..1.
        resolution: Share of the picture's side that was resolved.
        quality: Of a JPEG in between, or 0 for none.
    """

    tint: Array
    knee: float
    gamma: float
    contrast: float
    brightness: float
    saturation: float
    vignette: float
    blur: float
    noise: float
    chroma_noise: float
    resolution: float
    quality: int


def draw_lights(rng: np.random.Generator) -> Lights:
    """Soft light of a room or a cloudy day, a lamp or window from one side, or hard light."""
    kind = rng.choice(3, p=[0.35, 0.47, 0.18])
    key, ambient = ((0.45, 0.9), (0.85, 0.55), (1.3, 0.25))[kind]
    warm = rng.normal(0, 0.08)
    color = np.exp([warm, 0.2 * warm, -warm])
    lamps = np.zeros((int(rng.integers(1, 4)), 6), np.float32)
    for n, lamp in enumerate(lamps):
        azimuth = rng.normal(0, 42) if n == 0 else rng.normal(0, 70)
        elevation = rng.normal(32, 18) if n == 0 else rng.uniform(-20, 60)
        azimuth, elevation = np.radians([azimuth, np.clip(elevation, -25, 75)])
        lamp[:3] = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        strength = key if n == 0 else key * rng.uniform(0.05, 0.5)
        tint = np.exp(rng.normal(0, 0.03 if n == 0 else 0.1 if rng.random() < 0.85 else 0.5, 3))
        lamp[3:] = strength * rng.uniform(0.75, 1.25) * color * tint
    above = ambient * rng.uniform(0.8, 1.2) * color * np.exp(rng.normal(0, 0.05, 3))
    below = ambient * rng.uniform(0.35, 0.75) * color * np.exp(rng.normal(0, 0.07, 3))
    return Lights(lamps, np.stack([above, below]).astype(np.float32), float(rng.uniform(0.22, 0.5)))


def draw_crop(num_frames: int, rng: np.random.Generator, *, margin: float = MARGIN, exact: bool = False) -> Crop:
    """The camera's distance and the errors of a face detector; `exact` leaves the errors out.

    A quarter of the cuts are wider or narrower than `margin`, as a share of the square's side, and one of eight
    reaches beyond the picture.
    """
    distance = float(np.exp(rng.uniform(np.log(6), np.log(24))))
    drawn = margin if rng.random() < 0.75 else margin + float(rng.uniform(-0.08, 0.14))
    bias = rng.normal(0, 0.035, (5, 2))
    jitter = rng.normal(0, 0.014, (num_frames, 5, 2)) * rng.uniform(0.2, 1.6)
    if exact:
        return Crop(distance, margin, 0 * bias, 0 * jitter)
    edge = None
    if rng.random() < 0.125:
        # Mostly upwards and sidewards; a chin that is cut off is rarer.
        side = rng.choice([-np.pi / 2, 0, np.pi, np.pi / 2], p=[0.45, 0.22, 0.22, 0.11])
        edge = float(side + rng.normal(0, 0.15)), float(rng.uniform(0.3, 0.5))
    return Crop(distance, drawn, bias, jitter, edge)


def cut_edge(picture: Array, edge: tuple[float, float]) -> None:
    """Blacken what lies beyond the edge of the camera's picture, `(S, S, 3)` uint8, in place; see `Crop.edge`."""
    y, x = (np.mgrid[0 : len(picture), 0 : len(picture)] + 0.5) / len(picture) - 0.5
    angle, distance = edge
    picture[x * np.cos(angle) + y * np.sin(angle) > distance] = 0


def place_crop(points: Array, size: int, margin: float) -> tuple[complex, complex]:
    """Align a square to five points `(5, 2)`: returns the step of one pixel and its top left corner, as x + iy.

    As in `FaceCrop`: least squares in the picture, turned, shifted and scaled.
    """
    found = points @ (1, 1j)
    wanted = (REFERENCE_POINTS + margin) @ (1, 1j) * size / (1 + 2 * margin)
    centered = found - found.mean()
    step = complex(np.vdot(centered, centered).real / np.vdot(centered, wanted - wanted.mean()))
    return step, complex(found.mean() - step * wanted.mean())


def draw_lens(rng: np.random.Generator, *, clean: bool = False) -> Lens:
    """Sample a camera; `clean` gives a good one."""
    often, seldom = rng.random(7) < 0.38, rng.random(7) < 0.2
    warm, green = rng.normal(0, 0.05 if not seldom[0] else 0.15), rng.normal(0, 0.02)
    lens = Lens(
        tint=np.exp(np.array([warm, green, -warm], np.float32)),
        knee=float(rng.uniform(0, 0.35)),
        gamma=float(np.exp(rng.normal(0, 0.14))),
        contrast=float(rng.uniform(1.7, 2.8) if often[5] else rng.uniform(1.1, 2.0)),
        brightness=float(rng.uniform(-0.05, 0.12)),
        saturation=0.0 if rng.random() < 0.08 else float(rng.uniform(*((1.1, 1.6) if often[6] else (0.5, 1.1)))),
        vignette=float(rng.uniform(0, 0.5)) * bool(seldom[1]),
        blur=float(rng.uniform(0.3, 1.2)) * bool(often[0]),
        noise=float(rng.uniform(0, 0.025)) * bool(often[1]),
        chroma_noise=float(rng.uniform(0, 0.03)) * bool(seldom[2]),
        resolution=float(rng.uniform(0.35, 1)) if often[2] else 1.0,
        quality=int(rng.integers(30, 95)) if often[3] or often[4] else 0,
    )
    if clean:
        return Lens(np.ones(3, np.float32), 0.15, 1.0, 1.3, 0.02, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0)
    return lens


def develop(image: Array, exposure: float, lens: Lens, rng: np.random.Generator) -> Array:
    """A picture `(S, S, 3)` uint8 of linear light `(2S, 2S, 3)` float32."""
    size = image.shape[0] // 2
    picture = np.empty((size, size, 3), np.float32)
    curve = (np.linspace(0, 1, 4096) ** (lens.gamma / 2.2)).astype(np.float32)
    tone = np.array([lens.saturation, lens.contrast, lens.brightness], np.float32)
    falloff = (2 * lens.vignette * (np.arange(size) / size - 0.5) ** 2).astype(np.float32)
    expose(image, (0.25 * exposure * lens.tint).astype(np.float32), lens.knee, curve, tone, falloff, picture)
    if lens.blur:
        sigma = lens.blur * size / 112
        picture = gaussian_filter(picture, (sigma, sigma, 0), mode="nearest", truncate=2.5)
    if lens.noise:
        picture = picture + lens.noise * rng.standard_normal((size, size, 1), np.float32)
    if lens.chroma_noise and lens.saturation:
        picture = picture + lens.chroma_noise * rng.standard_normal((size, size, 3), np.float32)
    pixels = np.clip(255 * picture + 0.5, 0, 255).astype(np.uint8)
    return _code(pixels, lens, size)


def _code(pixels: Array, lens: Lens, size: int) -> Array:
    """Degrade the picture by a lower resolution and JPEG compression."""
    if lens.resolution == 1 and not lens.quality:
        return pixels
    image = Image.fromarray(pixels)
    resolved = max(24, round(lens.resolution * size))
    if resolved < size:
        image = image.resize((resolved, resolved), Image.Resampling.BOX)
    if lens.quality:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=lens.quality)
        image = Image.open(buffer)
    if resolved < size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def draw_background(size: int, rng: np.random.Generator) -> Array:
    """A background `(size, size, 3)`, linear float32: mostly out of focus, indoors or outdoors, in natural colours."""
    kind = rng.choice(6, p=[0.27, 0.3, 0.15, 0.1, 0.1, 0.08])
    paint = (_wall, _room, _trees, _street, _studio, _shapes)[kind]
    grid = int(rng.choice([24, 40, 72, 128], p=[0.3, 0.35, 0.25, 0.1]))
    image = Image.fromarray(np.clip(255 * paint(grid, rng), 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.0)))
    picture = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    return picture**2.2


def _muted(rng: np.random.Generator, spread: float = 0.14) -> Array:
    """A natural sRGB colour, (3,) in 0..1."""
    return np.clip(rng.uniform(0.08, 0.9) * np.exp(rng.normal(0, spread, 3)), 0, 1)


def _wall(grid: int, rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:grid, 0:grid] / grid - 0.5
    slope = np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)[..., None]
    color = _muted(rng, 0.1)
    return color * (1 + (slope - 0.5) * rng.uniform(0, 0.8)) * (1 + 0.03 * _clouds(grid, rng))[..., None]


def _room(grid: int, rng: np.random.Generator) -> Array:
    image = Image.fromarray(np.clip(255 * _wall(grid, rng), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 12)):
        x, y = rng.uniform(-0.2, 1, 2) * grid
        width, height = rng.uniform(0.05, 0.5, 2) * grid
        color = tuple(int(255 * c) for c in _muted(rng, 0.14 if rng.random() < 0.85 else 0.5))
        draw.rectangle((x, y, x + width, y + height), fill=color)  # furniture, doors, pictures, screens
    if rng.random() < 0.3:  # a window
        x, y = rng.uniform(-0.1, 0.8, 2) * grid
        draw.rectangle(
            (x, y, x + rng.uniform(0.15, 0.4) * grid, y + rng.uniform(0.2, 0.6) * grid), fill=(235, 240, 245)
        )
    return np.asarray(image) / 255 * (1 + 0.04 * _clouds(grid, rng))[..., None]


def _trees(grid: int, rng: np.random.Generator) -> Array:
    green = np.array([rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.55), rng.uniform(0.1, 0.3)]) * rng.uniform(0.4, 1.3)
    image = green * np.clip(1 + 0.4 * _clouds(grid, rng), 0.1, 2)[..., None]
    if rng.random() < 0.5:
        sky = int(rng.uniform(0.1, 0.6) * grid)
        image[:sky] = np.array([0.72, 0.82, 0.93]) * rng.uniform(0.7, 1.1)
    return image


def _street(grid: int, rng: np.random.Generator) -> Array:
    """A town by day or night: facades, and lights out of focus."""
    image = Image.fromarray(np.clip(255 * _room(grid, rng), 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.point(lambda value: int(0.2 * value))
        draw = ImageDraw.Draw(image)
        for _ in range(rng.integers(3, 16)):
            x, y = rng.uniform(0, 1, 2) * grid
            radius = rng.uniform(0.01, 0.06) * grid
            color = tuple(int(255 * c) for c in np.clip(rng.uniform(0.6, 1) * np.exp(rng.normal(0, 0.3, 3)), 0, 1))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return np.asarray(image) / 255


def _studio(grid: int, rng: np.random.Generator) -> Array:
    level = rng.choice([0.02, 0.1, 0.5, 0.95])
    return np.ones((grid, grid, 3)) * level * np.exp(rng.normal(0, 0.05, 3))


def _shapes(grid: int, rng: np.random.Generator) -> Array:
    """The tail: strong colours."""
    image = Image.fromarray((np.ones((grid, grid, 3)) * 255 * rng.uniform(0, 1, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 14)):
        x, y = rng.uniform(-0.2, 1, 2) * grid
        width, height = rng.uniform(0.05, 0.6, 2) * grid
        paint = draw.rectangle if rng.random() < 0.6 else draw.ellipse
        paint((x, y, x + width, y + height), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return np.asarray(image) / 255


def _clouds(grid: int, rng: np.random.Generator) -> Array:
    """Noise `(grid, grid)` whose coarse waves are stronger than its fine ones, deviation about 1."""
    total = np.zeros((grid, grid), np.float32)
    for octave in range(5):
        side = min(grid, 3 * 2**octave)
        waves = Image.fromarray(rng.standard_normal((side, side)).astype(np.float32))
        total += 0.65**octave * np.asarray(waves.resize((grid, grid), Image.Resampling.BICUBIC))
    return total


@dataclass(frozen=True)
class Occluder:
    """An object in front of the face: `fingers` of a hand, a `microphone`, a `bar`, or somebody's `shoulder`.

    Places are shares of the picture's side; `drift` (2,) is its motion during the clip.
    """

    kind: str
    place: Array
    drift: Array
    angle: float
    size: float
    color: Array


def draw_occluder(skin: Any, rng: np.random.Generator) -> Occluder | None:
    """Sample an object in front of the face, in one clip of eleven."""
    if rng.random() > 0.09:
        return None
    kind = str(rng.choice(["fingers", "microphone", "bar", "shoulder"], p=[0.4, 0.2, 0.15, 0.25]))
    color = np.asarray(skin) * rng.uniform(0.7, 1.1) if kind == "fingers" else rng.uniform(0.01, 0.25) * np.ones(3)
    place = rng.normal([0.5, 0.9], [0.28, 0.1])
    return Occluder(
        kind, place, rng.normal(0, 0.08, 2), float(rng.normal(0, 0.6)), float(rng.uniform(0.7, 1.3)), color
    )


def paint_occluder(image: Array, occluder: Occluder, time: float) -> None:
    """Paint the object over linear light `(R, R, 3)`, in place; `time` is the share of the clip that has passed."""
    side = image.shape[0]
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    x, y = (occluder.place + occluder.drift * time) * side
    along = np.array([np.sin(occluder.angle), -np.cos(occluder.angle)])
    across = np.array([-along[1], along[0]])
    unit = occluder.size * side
    if occluder.kind == "fingers":
        for n, length in enumerate((0.22, 0.3, 0.32, 0.26)):
            start = np.array([x, y]) + across * (n - 1.5) * 0.085 * unit + along * 0.05 * unit
            _capsule(
                draw, start - along * 0.5 * unit, start + along * length * unit, 0.037 * unit, 150 + 25 * (n % 2) * 4
            )
    elif occluder.kind == "microphone":
        _capsule(draw, np.array([x, y]) - along * 0.6 * unit, np.array([x, y]), 0.04 * unit, 255)
        _capsule(draw, np.array([x, y]), np.array([x, y]) + along * 0.04 * unit, 0.08 * unit, 255)
    elif occluder.kind == "bar":
        _capsule(draw, np.array([x, y]) - along * 2 * unit, np.array([x, y]) + along * 2 * unit, 0.05 * unit, 255)
    else:
        draw.ellipse((x - 0.5 * unit, y - 0.02 * unit, x + 0.5 * unit, y + unit), fill=255)
    tone = np.asarray(mask.filter(ImageFilter.GaussianBlur(side / 224)), np.float32) / 255
    opacity = np.clip(1.8 * tone, 0, 1)[..., None]
    image += opacity * (occluder.color.astype(np.float32) * (0.5 + 0.5 * tone[..., None]) - image)


def _capsule(draw: Any, start: Array, end: Array, radius: float, tone: int) -> None:
    draw.line([*map(float, start), *map(float, end)], fill=tone, width=max(1, int(2 * radius)))
    for x, y in (start, end):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)
