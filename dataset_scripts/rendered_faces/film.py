"""Short films of several rendered people side by side, each changing expression: examples for a timeline."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from . import FRAMES_PER_SECOND
from .actions import CLASS_NAMES
from .clips import check_sizes, draw_world, render_frames
from .head import load_head
from .motion import Motion, draw_motion
from .person import make_person

Array = np.ndarray


def render_film(
    people: Sequence[tuple[int, Sequence[str]]],
    *,
    seconds: float,
    image_size: int,
    margin: float = 0.2,
    frames_per_second: float = FRAMES_PER_SECOND,
    seed: int = 0,
) -> Array:
    """Render people side by side, each showing a sequence of classes.

    Args:
        people: Identity seed and labels of each, from left to right; a label lasts equally long.
        seconds: Length of the film.
        image_size: Height of the film and width of each person's part, in pixels.
        margin: Around a face's square, as a share of its side; wider than `FaceCrop` cuts.
        frames_per_second: Of the film.
        seed: Of motion, light and place.

    Returns:
        Frames `(T, image_size, len(people) * image_size, 3)` uint8.

    Raises:
        ValueError: For nobody, an unknown label, or sizes out of range.
    """
    if not people:
        raise ValueError("there is nobody to render: people is empty")
    if unknown := sorted({label for _, labels in people for label in labels} - set(CLASS_NAMES)):
        raise ValueError(f"label is {unknown[0]!r}; expected one of {', '.join(CLASS_NAMES)}")
    num_frames = round(seconds * frames_per_second)
    check_sizes(num_frames, num_frames, image_size)
    parts = []
    for n, (identity_seed, labels) in enumerate(people):
        person = make_person(identity_seed)
        rng = np.random.default_rng([seed, n, 6])
        motion = _join(
            [
                draw_motion(label, person.rest, load_head().units, num_frames, frames_per_second, rng, full=True)
                for label in labels
            ]
        )
        world = draw_world(person, num_frames, image_size, rng, clean=True)
        world = replace(world, crop=replace(world.crop, margin=margin))
        parts.append(render_frames(person, motion, world, image_size))
    return np.concatenate(parts, axis=2)


def _join(motions: Sequence[Motion]) -> Motion:
    """One motion that passes from each to the next in a third of a second or less; head and gaze of the first."""
    num_frames = len(motions[0].level)
    places = (np.arange(num_frames) + 0.5) / num_frames * len(motions)
    softness = min(0.5, 4.0 * len(motions) / num_frames)
    shares = np.stack([np.clip((0.5 - np.abs(places - n - 0.5)) / softness + 0.5, 0, 1) for n in range(len(motions))])
    shares[0, places < 0.5], shares[-1, places > len(motions) - 0.5] = 1, 1
    shares /= shares.sum(axis=0)
    weights = sum(share[:, None] * motion.weights for share, motion in zip(shares, motions, strict=True))
    level = sum(share * motion.level for share, motion in zip(shares, motions, strict=True))
    return replace(motions[0], weights=np.asarray(weights, np.float32), level=np.asarray(level, np.float32))
