"""Any video in, expressions with timestamps out.

A video's way: frames with their times (`video`), faces and how they are cropped (`faces`), faces followed over time
(`tracks`), windows by seconds and the model's scores of them (`windows`), rows (`rows`), tables of many videos
(`tables`), pictures of rows (`pictures`), of frames (`annotated`) and of what the model attends to (`attention`).
`crops` makes training clips of the same faces. Finding faces and drawing pictures need the extra:
``pip install 'modeling-stt[timeline]'``.
"""

from .annotated import write_annotated_video
from .attention import Explanation, draw_explanation, explain, explain_clip, explain_window
from .crops import FaceClip, write_crops
from .faces import Face, FaceCrop, FaceDetector, load_detector
from .pictures import class_colors, draw_timeline
from .rows import STATES, Row, Timeline, columns, timeline, timeline_frame
from .tables import TableSummary, find_videos, write_timelines
from .tracks import FaceTracker
from .video import DamagedVideoError, TimedFrame, read_frames

__all__ = [
    "STATES",
    "DamagedVideoError",
    "Explanation",
    "Face",
    "FaceClip",
    "FaceCrop",
    "FaceDetector",
    "FaceTracker",
    "Row",
    "TableSummary",
    "TimedFrame",
    "Timeline",
    "class_colors",
    "columns",
    "draw_explanation",
    "draw_timeline",
    "explain",
    "explain_clip",
    "explain_window",
    "find_videos",
    "load_detector",
    "read_frames",
    "timeline",
    "timeline_frame",
    "write_annotated_video",
    "write_crops",
    "write_timelines",
]
