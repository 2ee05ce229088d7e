"""Agreement of rows with a person's own labels: is a model any good on this footage?"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..training.calibration import accuracy_at_coverage, expected_calibration_error
from ..training.metrics import Scores, score
from .report import count
from .rows import UNSURE, Row
from .scorers import canonical_names


@dataclass(frozen=True)
class LabelledStretch:
    """A stretch of a video with a person's label.

    Args:
        start_s: Begin in seconds on the clock of the rows.
        end_s: End in seconds.
        label: Name of the class.
        track: Track that it holds for; None for all.
    """

    start_s: float
    end_s: float
    label: str
    track: int | None = None


@dataclass(frozen=True)
class Agreement:
    """Agreement of rows with labels.

    Args:
        scores: WAR, UAR, recalls and confusion matrix over the rows that are scored and labelled; an unsure row counts
            by its likeliest class.
        commonest: The most common of the labels.
        commonest_war: WAR of the baseline that always answers `commonest`, in [0, 1].
        commonest_uar: UAR of that baseline.
        calibration_error: Expected calibration error, in [0, 1].
        accuracy_at_coverage: Share of right answers when only the surest rows are answered, by their share.
        num_unsure: Rows among them that are unsure.
        num_unscored: Rows in labelled stretches that have no scores: no face, lost, too small.
    """

    scores: Scores
    commonest: str
    commonest_war: float
    commonest_uar: float
    calibration_error: float
    accuracy_at_coverage: dict[str, float]
    num_unsure: int
    num_unscored: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self.__dict__ | {"scores": self.scores.to_dict()}

    def __str__(self) -> str:
        s = self.scores
        names = [name for name in s.class_names if name not in s.absent or name not in s.never_predicted]
        width = max(map(len, names)) + 2
        lines = [
            f"{count(s.num_clips, 'window')} with scores and a label; {self.num_unsure} unsure, "
            f"{self.num_unscored} more labelled but without a scored face",
            f"{'':{28}}{'WAR':>8}{'UAR':>8}",
            f"{'model':28}{s.war:8.1%}{s.uar:8.1%}",
            f"{f'always {self.commonest!r}':28}{self.commonest_war:8.1%}{self.commonest_uar:8.1%}",
            f"expected calibration error {self.calibration_error:.2f}; right when only the surest are answered: "
            + ", ".join(f"{float(share):.0%} {right:.0%}" for share, right in self.accuracy_at_coverage.items()),
            "confusion (rows: your labels):",
            " " * width + "".join(f"{name:>{width}}" for name in names),
        ]
        for name in names:
            row = s.confusion_matrix[s.class_names.index(name)]
            counts = "".join(f"{row[s.class_names.index(other)]:>{width}}" for other in names)
            lines.append(f"{name:{width}}{counts}")
        return "\n".join(lines)


def read_labels(path: str | PathLike) -> list[LabelledStretch]:
    """Read labelled stretches from a CSV file with the columns start, end, label and, if need be, track.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For missing columns, values that are not numbers, and stretches that end before they begin.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        names = [name.strip() for name in reader.fieldnames or []]
        if missing := {"start", "end", "label"} - set(names):
            raise ValueError(
                f"{path} has no column {', '.join(sorted(missing))}: expected start,end,label and optionally track; "
                f"got {', '.join(names) or 'an empty file'}."
            )
        reader.fieldnames = names
        return [_stretch(record, f"{path}, line {reader.line_num}") for record in reader]


def compare(rows: Iterable[Row], labelled: Sequence[LabelledStretch], class_names: Sequence[str]) -> Agreement:
    """Compare rows with labels. A row has the label of the stretch in which the middle of its window lies.

    Labels may be spelled otherwise than the model's classes, as `canonical_names` knows.

    Args:
        rows: Of one video.
        labelled: Its labelled stretches.
        class_names: Names of the model's classes.

    Raises:
        ValueError: For labels that are not classes of the model, and if no scored row has a label.
    """
    own, _ = canonical_names(class_names)
    wanted = sorted({stretch.label for stretch in labelled})
    classes = {label: _class_of(label, class_names, own) for label in wanted}
    if unknown := [label for label, index in classes.items() if index is None]:
        raise ValueError(
            f"The labels {', '.join(unknown)} are not classes of the model, which are {', '.join(class_names)}."
        )
    truths: list[int] = []
    scored: list[Row] = []
    num_unscored = 0
    for row in rows:
        index = next((classes[each.label] for each in labelled if _holds(each, row)), None)
        if index is None:
            continue
        if row.scores is None:
            num_unscored += 1
        else:
            truths.append(index)
            scored.append(row)
    if not scored:
        raise ValueError("No window with a scored face lies in a labelled stretch: compare the times, in seconds.")
    labels = np.array(truths)
    probabilities = np.array([[(row.scores or {})[name] for name in class_names] for row in scored])
    [(commonest, most)] = Counter(truths).most_common(1)
    return Agreement(
        scores=score(labels, probabilities.argmax(axis=1), class_names),
        commonest=class_names[commonest],
        commonest_war=most / len(truths),
        commonest_uar=1 / len(set(truths)),
        calibration_error=expected_calibration_error(probabilities, labels),
        accuracy_at_coverage=accuracy_at_coverage(probabilities, labels),
        num_unsure=sum(row.state == UNSURE for row in scored),
        num_unscored=num_unscored,
    )


def _stretch(record: dict[str, str | None], place: str) -> LabelledStretch:
    try:
        start_s, end_s = float(record["start"] or ""), float(record["end"] or "")
        track = int(record["track"]) if (record.get("track") or "").strip() else None  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{place}: expected numbers as start, end and track, got {record}.") from error
    label = (record["label"] or "").strip()
    if not start_s < end_s or not label:
        raise ValueError(f"{place}: expected start < end, in seconds, and a label, got {record}.")
    return LabelledStretch(start_s, end_s, label, track)


def _class_of(label: str, class_names: Sequence[str], canonical: Sequence[str]) -> int | None:
    if label in class_names:
        return list(class_names).index(label)
    [name], _ = canonical_names([label])
    return list(canonical).index(name) if name in canonical else None


def _holds(stretch: LabelledStretch, row: Row) -> bool:
    if stretch.track is not None and stretch.track != row.track:
        return False
    return stretch.start_s <= (row.start_s + row.end_s) / 2 < stretch.end_s
