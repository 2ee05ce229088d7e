"""Scores relative to a person's own resting face.

Some faces look sad or angry at rest, and a model calls them so all the time. The model's answer for a person's resting
face is therefore taken off. With a window's probabilities p and those of the resting face r, the scores are, by class,

    log p − log r + log t, brought to sum 1,

where t is what a resting face should get: half for the class "neutral", and the other half in equal parts for the
others. So the resting face itself becomes neutral, and another class is first when it has gained on neutral by the
factor (K − 1). A model without a class "neutral" gets equal parts for all. Probabilities under `LEAST` count as that.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import numpy as np

from .rows import Row, answered
from .scorers import canonical_names

# Smaller probabilities are raised to this: what goes from one in a million to one in a thousand has gained a lot, and
# means nothing. With 1e-6, a network that was right on 25 windows of resting and crying faces was wrong on 6 of them
# under "auto"; with 0.02, on none (benchmarks/own_labels.py).
LEAST = 0.02

Companion = TypeVar("Companion")

logger = logging.getLogger(__name__)


def relative_to_rest(
    rows: Iterable[tuple[Row, Companion]],
    baseline: tuple[float, float] | Literal["auto"],
    min_score: float | None = None,
) -> Iterator[tuple[Row, Companion]]:
    """Give rows whose scores are relative to the resting face of their track.

    Args:
        rows: Of one video, each with whatever goes with it, as `Timeline.windows` gives them.
        baseline: First and last second of a stretch in which everybody rests, over which log probabilities are
            averaged; or `"auto"` for the median of each track. Tracks without a scored window in the stretch keep
            their scores, and a warning names them.
        min_score: Answers whose highest probability is below this are "unsure".

    Yields:
        The rows in their order, when the last has been read. An error of `rows` is raised after those before it.
    """
    kept: list[tuple[Row, Companion]] = []
    error: Exception | None = None
    try:
        kept.extend(rows)
    except ValueError as raised:  # a damaged video: what was seen of it comes first
        error = raised
    rest = _resting_scores([row for row, _ in kept if row.scores], baseline)
    if lacking := sorted({row.track for row, _ in kept if row.scores and row.track not in rest}, key=str):
        names = ", ".join(map(str, lacking))
        logger.warning("Nothing of track %s is scored in the baseline: its scores stay as they are.", names)
    for row, companion in kept:
        if row.scores and row.track in rest:
            row = answered(row, _relative(row.scores, rest[row.track]), min_score)
        yield row, companion
    if error is not None:
        raise error


def _resting_scores(
    rows: Iterable[Row], baseline: tuple[float, float] | Literal["auto"]
) -> dict[int | None, np.ndarray]:
    """Log probabilities of the resting face by track."""
    logs: dict[int | None, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        middle_s = (row.start_s + row.end_s) / 2
        if baseline == "auto" or baseline[0] <= middle_s <= baseline[1]:
            logs[row.track].append(_log(row.scores or {}))
    mean = np.median if baseline == "auto" else np.mean
    return {track: mean(each, axis=0) for track, each in logs.items()}


def _relative(scores: dict[str, float], rest: np.ndarray) -> dict[str, float]:
    canonical, _ = canonical_names(list(scores))
    wanted = np.full(len(scores), 1 / len(scores))
    if "neutral" in canonical and len(scores) > 1:
        wanted = np.array([0.5 if name == "neutral" else 0.5 / (len(scores) - 1) for name in canonical])
    weights = np.exp(_log(scores) - rest) * wanted
    return dict(zip(scores, (weights / weights.sum()).tolist(), strict=True))


def _log(scores: dict[str, float]) -> np.ndarray:
    return np.log(np.maximum(list(scores.values()), LEAST))
