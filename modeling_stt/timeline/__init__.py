"""Any video in, expressions with timestamps out.

A video's way: frames with their times (`video`), faces and how they are cropped (`faces`), faces followed over time
(`tracks`), windows by seconds and the model's scores of them (`windows`), rows (`rows`), tables of many videos
(`tables`), pictures of rows (`pictures`), of frames (`annotated`) and of what the model attends to (`attention`).
`crops` makes training clips of the same faces. Finding faces and drawing pictures need the extra:
``pip install 'modeling-stt[timeline]'``.
"""

from .annotated import write_annotated_video
from .attention import Explanation, draw_explanation, explain, explain_clip, explain_window
from .batch import TableSummary, find_videos, write_timelines
from .chart import draw_timeline
from .crops import FaceClip, write_crops
from .detection import load_detector
from .faces import Face, FaceCrop, FaceDetector
from .pictures import class_colors
from .pipeline import Timeline, timeline, timeline_frame
from .rows import STATES, Row, columns, rows_to_frame
from .scorers import Scorer
from .segments import Segment, TrackSummary, segments, summarize
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
    "Scorer",
    "Segment",
    "TableSummary",
    "TimedFrame",
    "Timeline",
    "TrackSummary",
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
    "rows_to_frame",
    "segments",
    "summarize",
    "timeline",
    "timeline_frame",
    "write_annotated_video",
    "write_crops",
    "write_timelines",
]
