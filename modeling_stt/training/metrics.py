"""Scores of a classification: WAR, UAR, recalls, confusion matrix, and distances of the features' classes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EvalPrediction

# `evaluate.load(WAR_UAR_METRIC)` loads WAR and UAR as a metric of Hugging Face evaluate, without a network.
WAR_UAR_METRIC = str(Path(__file__).with_name("war_uar.py"))


@dataclass(frozen=True)
class Scores:
    """Scores of a classification of clips. All rates lie in [0, 1].

    Args:
        class_names: The K classes, in the order of `recalls` and `confusion_matrix`.
        war: Weighted average recall: the share of clips classified correctly (accuracy).
        uar: Unweighted average recall: the mean of the recalls of the classes that have clips.
        recalls: For each class the share of its clips classified correctly; None for a class without clips.
        confusion_matrix: K rows of K counts: `[truth][prediction]`.
        num_clips: Number of clips.
        absent: Classes without clips, which `uar` therefore leaves out.
        never_predicted: Classes that no clip was given.
    """

    class_names: list[str]
    war: float
    uar: float
    recalls: list[float | None]
    confusion_matrix: list[list[int]]
    num_clips: int
    absent: list[str]
    never_predicted: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain Python values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ClassDistances:
    """Mean cosine distances (1 − cos, in [0, 2]) between features, within and between classes.

    Args:
        intra: Mean over classes of the mean distance between two clips of the class; None if no class has two clips.
        inter: Mean over pairs of classes of the mean distance between their clips; None if only one class has clips.
    """

    intra: float | None
    inter: float | None


def confusion_matrix(labels: Any, predictions: Any, num_classes: int) -> np.ndarray:
    """Count clips by truth and prediction.

    Args:
        labels: `(N,)` true classes in [0, `num_classes`), array-like of integers.
        predictions: `(N,)` predicted classes, likewise.
        num_classes: Number K of classes, whether they occur or not.

    Returns:
        `(K, K)` int64, rows are truth.

    Raises:
        ValueError: For no clips, unequal lengths, and numbers that are not classes.
    """
    labels = _class_ids(labels, num_classes, "labels")
    predictions = _class_ids(predictions, num_classes, "predictions")
    if len(labels) != len(predictions):
        raise ValueError(
            f"{len(labels)} labels came with {len(predictions)} predictions: each clip needs one of both."
        )
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _class_ids(values: Any, num_classes: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a list of class indices, at least one; got an array of shape {values.shape} and type "
            f"{values.dtype}."
        )
    wrong = values[(values < 0) | (values >= num_classes)]
    if wrong.size:
        raise ValueError(f"{name} hold {wrong[0]}, which is none of the {num_classes} classes 0 … {num_classes - 1}.")
    return values.astype(np.int64)


def score(labels: Any, predictions: Any, class_names: Sequence[str]) -> Scores:
    """Score predicted classes.

    Args:
        labels: `(N,)` true classes, array-like of indices into `class_names`.
        predictions: `(N,)` predicted classes, likewise.
        class_names: Names of all K classes, also of those that don't occur.

    Returns:
        [`Scores`].

    Raises:
        ValueError: As [`confusion_matrix`].
    """
    return score_counts(confusion_matrix(labels, predictions, len(class_names)), class_names)


def score_counts(counts: Any, class_names: Sequence[str]) -> Scores:
    """Compute the scores of a confusion matrix.

    Args:
        counts: `(K, K)` array-like of counts, rows are truth.
        class_names: Names of the K classes.

    Returns:
        [`Scores`].

    Raises:
        ValueError: For anything but such a matrix, or one without clips.
    """
    names, matrix = list(class_names), np.asarray(counts)
    if matrix.shape != (len(names),) * 2 or matrix.dtype.kind not in "iu" or matrix.min() < 0 or not matrix.any():
        raise ValueError(
            f"Expected counts of {len(names)} × {len(names)} classes, got shape {matrix.shape}, {matrix.dtype}."
        )
    support = matrix.sum(axis=1)
    recalls = [float(matrix[k, k] / support[k]) if support[k] else None for k in range(len(names))]
    return Scores(
        class_names=names,
        war=float(matrix.trace() / matrix.sum()),
        uar=float(np.mean([recall for recall in recalls if recall is not None])),
        recalls=recalls,
        confusion_matrix=matrix.tolist(),
        num_clips=int(matrix.sum()),
        absent=[name for name, count in zip(names, support, strict=True) if not count],
        never_predicted=[name for name, count in zip(names, matrix.sum(axis=0), strict=True) if not count],
    )


def class_distances(features: Any, labels: Any) -> ClassDistances:
    """Compute the mean distances between features of one class and of two classes, which the compact loss is about.

    Takes O(N·D) time: the mean cosine over all pairs of two sets is the product of the sums of their unit vectors.

    Args:
        features: `(N, D)` array-like. A zero vector counts as at right angles to everything.
        labels: `(N,)` classes, array-like of integers.

    Returns:
        [`ClassDistances`].

    Raises:
        ValueError: For shapes that don't belong together.
    """
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"features {features.shape} and labels {labels.shape}: expected (N, D) and (N,).")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.where(norms > 0, norms, 1)
    members = [units[labels == label] for label in np.unique(labels)]
    sizes = np.array([len(group) for group in members])
    sums = np.array([group.sum(axis=0) for group in members]).reshape(len(members), -1)
    cosine_sums = sums @ sums.T
    intra = [
        1 - (cosine_sums[k, k] - (group**2).sum()) / (len(group) * (len(group) - 1))
        for k, group in enumerate(members)
        if len(group) > 1
    ]
    inter = 1 - (cosine_sums / np.outer(sizes, sizes))[np.triu_indices(len(members), k=1)]
    return ClassDistances(
        intra=float(np.mean(intra)) if len(intra) else None,
        inter=float(np.mean(inter)) if len(inter) else None,
    )


def compute_metrics(class_names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """The Trainer's `compute_metrics` for a model of these classes.

    Args:
        class_names: Names of the K classes in the order of the logits.

    Returns:
        A function of an `EvalPrediction` with `predictions = (logits (N, K), features (N, D))` and `label_ids (N,)`.
        It returns `war`, `uar`, `recall_<class>` of each class that has clips, and where they are defined
        `intra_distance` and `inter_distance` of the features, all floats. It raises ValueError for logits that are
        not finite, since they name no class.
    """

    def score_clips(prediction: EvalPrediction) -> dict[str, float]:
        logits, features = list(prediction.predictions)[:2]
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        if broken:
            raise ValueError(
                f"The logits of {broken} of {len(logits)} clips are not finite, so they have no class. Training has "
                "diverged: use a lower learning rate, or clip gradients (max_grad_norm)."
            )
        scores = score(prediction.label_ids, logits.argmax(axis=1), class_names)
        distances = class_distances(features, prediction.label_ids)
        named = {f"recall_{name}": recall for name, recall in zip(class_names, scores.recalls, strict=True)}
        named |= {"intra_distance": distances.intra, "inter_distance": distances.inter}
        return {"war": scores.war, "uar": scores.uar} | {k: v for k, v in named.items() if v is not None}

    return score_clips
