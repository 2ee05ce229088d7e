"""Rows: results for one window of one track, and rows as a data frame."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FACE, UNSURE, NO_FACE, TOO_SMALL, LOST, NO_FRAMES = (
    *("face", "unsure", "no face", "face too small", "lost", "no frames"),
)
STATES = (FACE, UNSURE, NO_FACE, TOO_SMALL, LOST, NO_FRAMES)


@dataclass(frozen=True)
class Row:
    """Result for one window of one track; `track` is None if no face was found.

    Args:
        video: Name of the video, as it was given.
        track: Id of the track, from 1, unique in its video; None in the states "no face" and "no frames".
        start_s: Begin of the window, in seconds on the clock of the video's container.
        end_s: End of the window.
        state: `"face"`: answered. `"unsure"`: judged, but the highest probability is below `Timeline.min_score`.
            `"no face"`: nobody is seen. `"face too small"`: in most of the frames, the face has fewer pixels than the
            crop asks for. `"lost"`: the track's face is in too few of the frames: it was hidden, came late or left
            early. `"no frames"`: the video has none in this time.
        label: Name of the class of the highest score; only in state "face".
        scores: A probability for each class by name; they sum to 1. Only in the states "face" and "unsure".
        margin: Highest score minus the second, in [0, 1]: how clear the answer is. In the same states as `scores`.
        box: Place of the face, the median of its boxes: left, top, right, bottom in pixels of the upright frame.
        face_share: Share of the window's frames that have the face, in [0, 1].
        frames_dropped: Frames missing from the window: damaged frames, frames of live sources that came faster than
            they could be used, and in very fast videos frames beyond `MAX_FRAMES` per window.
        faces_left_out: Largest number of faces in one of its frames that were not followed, because there were more
            than `MAX_FACES`; the largest faces are followed.
        thumbnail: With `Timeline(thumbnails=True)`, the face's picture from the middle of the window, `(S, S, 3)`
            uint8 RGB, S that of the model's crop; None where no face can be cut out. Not a column of tables.
    """

    video: str
    track: int | None
    start_s: float
    end_s: float
    state: str
    label: str | None = None
    scores: dict[str, float] | None = None
    margin: float | None = None
    box: tuple[float, float, float, float] | None = None
    face_share: float = 0.0
    frames_dropped: int = 0
    faces_left_out: int = 0
    thumbnail: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def likeliest(self) -> str | None:
        """Class of the highest score, also where the answer is unsure."""
        return max(self.scores, key=lambda name: (self.scores or {})[name]) if self.scores else None

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return one flat record, with the same columns in every state: see `columns`."""
        box = self.box or (None,) * 4
        scores = self.scores or {}
        values = [self.video, self.track, self.start_s, self.end_s, self.state, self.label, self.margin]
        values += [scores.get(name) for name in class_names] + [*box, self.face_share, self.frames_dropped]
        return dict(zip(columns(class_names), [*values, self.faces_left_out], strict=True))

    @classmethod
    def from_dict(cls, record: dict[str, Any], class_names: Sequence[str]) -> "Row":
        """Return the row of a record, also one whose values are text, as those of CSV files."""

        def number(name: str) -> float | None:
            return None if record.get(name) in (None, "") else float(record[name])

        scores = {name: number(f"score_{name}") for name in class_names}
        box = tuple(number(f"face_{side}") for side in ("left", "top", "right", "bottom"))
        track = number("track")
        return cls(
            record["video"],
            None if track is None else int(track),
            float(record["start_s"]),
            float(record["end_s"]),
            record["state"],
            label=record["label"] or None,
            scores=None if None in scores.values() else scores,  # type: ignore[arg-type]
            margin=number("margin"),
            box=None if None in box else box,  # type: ignore[arg-type]
            face_share=number("face_share") or 0.0,
            frames_dropped=int(number("frames_dropped") or 0),
            faces_left_out=int(number("faces_left_out") or 0),
        )


def answered(row: Row, scores: dict[str, float], min_score: float | None) -> Row:
    """Return the row with these scores, and the label or the lack of one that follows from them."""
    label, *others = sorted(scores, key=lambda name: -scores[name])
    margin = scores[label] - max((scores[other] for other in others), default=0.0)
    if min_score is not None and scores[label] < min_score:
        return replace(row, state=UNSURE, label=None, scores=scores, margin=margin)
    return replace(row, state=FACE, label=label, scores=scores, margin=margin)


def columns(class_names: Sequence[str]) -> dict[str, type]:
    """Names and types of a table's columns, in order; all but video, times, state, share and counts may be missing."""
    kinds: dict[str, type] = {"video": str, "track": int, "start_s": float, "end_s": float, "state": str}
    kinds |= {"label": str, "margin": float} | {f"score_{name}": float for name in class_names}
    kinds |= {f"face_{side}": float for side in ("left", "top", "right", "bottom")}
    return kinds | {"face_share": float, "frames_dropped": int, "faces_left_out": int}


def rows_to_frame(rows: Iterable[Row], class_names: Sequence[str]) -> "pd.DataFrame":
    """Put rows into a data frame with the columns that `columns` gives; what may be missing has nullable types."""
    import pandas as pd

    kinds = {str: "string", int: "Int64", float: "float64"}
    types = {name: kinds[kind] for name, kind in columns(class_names).items()}
    return pd.DataFrame([row.to_dict(class_names) for row in rows], columns=list(types)).astype(types)
