"""Faces that take few lines to draw and that a face detector finds."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from modeling_stt.timeline.faces import Face

SKIN, HAIR, WALL = (224, 172, 140), (60, 40, 30), (90, 110, 130)

# Points of a face drawn at scale 1, in pixels from its centre: eyes, tip of the nose, corners of the mouth.
DRAWN_POINTS = np.array([[-16.0, -10], [16, -10], [0, 10], [-13, 28], [13, 28]])


def face_at(x: float, y: float, scale: float, score: float = 0.99) -> Face:
    """Answer of a good detector for a drawn face."""
    box = (x - 40 * scale, y - 54 * scale, x + 40 * scale, y + 54 * scale)
    return Face(box, score, DRAWN_POINTS * scale + (x, y))


def draw_faces(
    shape: tuple[int, int],
    faces: Sequence[tuple[float, float, float]],
    skins: Sequence[tuple[int, int, int]] = (SKIN,) * 9,
    hairs: Sequence[tuple[int, int, int]] = (HAIR,) * 9,
    wall: tuple[int, int, int] = WALL,
) -> np.ndarray:
    """A frame `(H, W, 3)` uint8 of this shape with faces at x, y of a scale, the last in front."""
    # Drawn twice as large and shrunk, for smooth edges.
    image = Image.new("RGB", (2 * shape[1], 2 * shape[0]), wall)
    draw = ImageDraw.Draw(image)
    for (x, y, scale), skin, hair in zip(faces, skins, hairs, strict=False):
        _draw_face(draw, x, y, scale, skin, hair)
    small = image.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.array(small.filter(ImageFilter.GaussianBlur(1)))


def _draw_face(draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, skin: tuple, hair: tuple) -> None:
    shade = tuple(int(0.85 * level) for level in skin)

    def at(dx: float, dy: float) -> tuple[float, float]:
        return 2 * (x + scale * dx), 2 * (y + scale * dy)

    def oval(dx: float, dy: float, width: float, height: float, color: tuple) -> None:
        draw.ellipse([at(dx - width, dy - height), at(dx + width, dy + height)], fill=color)

    oval(0, -12, 48, 58, hair)
    draw.rectangle([at(-18, 30), at(18, 80)], fill=shade)
    oval(0, 0, 40, 54, skin)
    for eye in (-16, 16):
        oval(eye, -10, 9, 5, (250, 250, 250))
        oval(eye, -10, 4.5, 4.5, (50, 30, 20))
        draw.line([at(eye - 10, -20), at(eye, -24), at(eye + 10, -20)], fill=hair, width=max(1, int(6 * scale)))
    draw.polygon([at(0, -6), at(-6, 12), at(6, 12)], fill=shade)
    oval(0, 28, 14, 5, (170, 60, 60))
    oval(0, 28, 12, 1, (90, 20, 20))
