"""Sheets of rendered faces, for eyes: rows of a class each, or single facial actions."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .actions import CLASS_NAMES
from .clips import render_clip

Array = np.ndarray


def draw_sheet(
    columns: int = 10, image_size: int = 112, seed: int = 0, *, full: bool = False, labels: Sequence[str] = CLASS_NAMES
) -> Array:
    """One row a class, one person a column: the frame of each clip in which the expression is strongest."""
    rows = []
    for row, label in enumerate(labels):
        pictures = []
        for column in range(columns):
            clip = render_clip(
                label,
                identity_seed=seed + column + (0 if full else 1000 * row),
                clip_seed=seed + 7919 * row + column,
                num_frames=8,
                image_size=image_size,
                frames_per_second=6,
                full=full,
            )
            pictures.append(clip.frames[int(clip.motion.level.argmax())])
        rows.append(np.concatenate(pictures, axis=1))
    return np.concatenate(rows)


def write_sheet(path: str | Path, sheet: Array) -> Path:
    """Save a sheet as PNG or JPEG."""
    Image.fromarray(sheet).save(path, quality=88)
    return Path(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: draw a sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.rendered_faces.sheets",
        description=f"Draw a sheet of rendered faces, a row each for {', '.join(CLASS_NAMES)}.",
    )
    parser.add_argument("output", type=Path, help="image file, .png or .jpg")
    parser.add_argument("--columns", type=int, default=10, help="faces a class (default: 10)")
    parser.add_argument("--size", type=int, default=112, help="width and height of a face in pixels (default: 112)")
    parser.add_argument("--full", action="store_true", help="expressions at full height in clean, frontal pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        path = write_sheet(options.output, draw_sheet(options.columns, options.size, options.seed, full=options.full))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
