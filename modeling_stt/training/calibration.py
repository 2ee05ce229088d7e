"""Calibration: a temperature, a threshold for reliable answers, and the accuracy of confident answers.

A network's probabilities are usually too high. Dividing all logits by one temperature, fitted on validation clips,
corrects most of that and changes no answer (Guo et al. 2017, arXiv 1706.04599).

Training clips show rare expressions far more often than ordinary videos do. Where the shares of the classes in use are
known, probabilities are right again with their ratio to the training shares (Saerens et al. 2002, "Adjusting the
outputs of a classifier to new a priori probabilities"): its logarithm is added to the logits. This changes answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..configuration_stt import STTConfig

NUM_BINS = 15  # of the expected calibration error, as in Guo et al.
COVERAGES = (1.0, 0.9, 0.8, 0.5)  # shares of clips answered: all, less the least sure tenth, fifth, half
LEAST_CLIPS = 30  # fewer validation clips decide neither a temperature nor an epoch
RELIABLE = 0.9  # accuracy that answers at or above the threshold have on validation
LEAST_ANSWERED = 10  # validation clips at or above the threshold; fewer may all be right by chance


@dataclass(frozen=True)
class Calibration:
    """Settings fitted on validation clips.

    Args:
        temperature: Divisor of the logits, in [0.05, 20].
        min_score: Least probability of an answer to rely on; None where no threshold makes answers reliable.
        num_clips: Validation clips that both were fitted on.
        expected_shares: Share of each class that is expected in use; None where it is as in training.
        logit_bias: Logarithm of expected by training share of each class, or None.
    """

    temperature: float
    min_score: float | None
    num_clips: int
    expected_shares: list[float] | None = None
    logit_bias: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ClassShares:
    """Shares of the classes, `(K,)` each, that add up to 1.

    Args:
        expected: In the videos that a model is for.
        trained: In what it was trained on, all weights and repetitions of clips counted.
    """

    expected: np.ndarray
    trained: np.ndarray

    @property
    def logit_bias(self) -> list[float]:
        """Logarithm of expected by training share of each class, which is added to its logit."""
        return np.log(self.expected / self.trained).round(4).tolist()


def calibrate(logits: np.ndarray, labels: np.ndarray, shares: ClassShares | None = None) -> Calibration | None:
    """Fit temperature and threshold on validation clips.

    Args:
        logits: `(N, K)` of validation clips that the model was not trained on.
        labels: `(N,)` their classes.
        shares: Where other shares of the classes are expected in use. The threshold is then chosen with the bias of
            the logits, with clips that count as often as they are expected, and is at least 0.5.

    Returns:
        None for fewer than `LEAST_CLIPS` clips.
    """
    if len(labels) < LEAST_CLIPS:
        return None
    temperature = fit_temperature(logits, labels)
    if shares is None:
        return Calibration(temperature, choose_min_score(softmax(logits / temperature), labels), len(labels))
    expected, bias = shares.expected.round(6).tolist(), shares.logit_bias
    threshold = choose_min_score(
        softmax(logits / temperature + np.asarray(bias)), labels, weights=weights_in_use(labels, expected)
    )
    # An answer that is more likely wrong than right is none, however rare the classes are that are mistaken.
    return Calibration(temperature, threshold and max(threshold, 0.5), len(labels), expected, bias)


def weights_in_use(labels: np.ndarray, expected: Sequence[float]) -> np.ndarray:
    """Weigh each clip, `(N,)`, so that its class has the expected share."""
    return np.asarray(expected)[labels] / np.bincount(labels, minlength=len(expected))[labels]


def class_shares(expected: Mapping[str, float], classes: Sequence[str], trained: np.ndarray) -> ClassShares:
    """Make the shares of the classes in use and in training.

    Args:
        expected: Share of some or all classes, in (0, 1); the others have equal parts of what is left.
        classes: The model's.
        trained: `(K,)`, how much each class weighed in training, such as its number of clips.

    Raises:
        ValueError: For unknown classes, shares that are not positive or do not add up to 1, and a class without
            training clips.
    """
    if unknown := sorted(set(expected) - set(classes)):
        raise ValueError(f"expected_shares name {', '.join(unknown)}; the classes are {', '.join(classes)}.")
    others, left = len(classes) - len(expected), 1 - sum(expected.values())
    shares = np.array([expected.get(name, left / max(1, others)) for name in classes], dtype=np.float64)
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"expected_shares={dict(expected)} leave {left:.3g} for {others} other classes: expected positive shares "
            "that add up to 1."
        )
    if not (trained > 0).all():
        missing = [name for name, weight in zip(classes, trained, strict=True) if not weight > 0]
        raise ValueError(f"expected_shares need training clips of every class; {', '.join(missing)} has none.")
    return ClassShares(shares, trained / trained.sum())


def reset_calibration(config: STTConfig) -> None:
    """Reset temperature, threshold and bias, which belong to the weights and the clips before training."""
    config.temperature, config.min_score, config.logit_bias = 1.0, None, None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature in [0.05, 20] with the least cross entropy.

    Cross entropy is convex in the inverse temperature, so bisection of its derivative finds the minimum.

    Args:
        logits: `(N, K)`, finite.
        labels: `(N,)` classes in [0, K).
    """
    logits = np.asarray(logits, dtype=np.float64)
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(((softmax(inverse * logits) * logits).sum(axis=1) - own).mean())

    low, high = 0.05, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def choose_min_score(
    probabilities: np.ndarray,
    labels: np.ndarray,
    accuracy: float = RELIABLE,
    least_answered: int = LEAST_ANSWERED,
    weights: np.ndarray | None = None,
) -> float | None:
    """Choose the lowest threshold at which answers are right often enough.

    Args:
        probabilities: `(N, K)` of validation clips.
        labels: `(N,)` their classes.
        accuracy: Share of right answers, among those of at least the threshold, to reach.
        least_answered: Number of clips that must be answered.
        weights: `(N,)`, how much each clip counts in the accuracy; None for all alike.

    Returns:
        The threshold in [0, 1], one of the clips' highest probabilities; None where no threshold reaches `accuracy`.
    """
    confidence, right = _confidence(probabilities, labels)
    for threshold in np.unique(confidence):  # ascending: the first that suffices leaves out the fewest clips
        answered = confidence >= threshold
        if answered.sum() < least_answered:
            return None
        if np.average(right[answered], weights=None if weights is None else weights[answered]) >= accuracy:
            return float(threshold)
    return None


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Compute the mean gap between confidence and accuracy, in [0, 1].

    Clips are binned by their highest probability in `num_bins` bins of equal width; gaps are weighted by the bins'
    numbers of clips.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)` classes in [0, K).
        num_bins: Number of bins.
    """
    confidence, right = _confidence(probabilities, labels)
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def accuracy_at_coverage(
    probabilities: np.ndarray, labels: np.ndarray, coverages: Sequence[float] = COVERAGES
) -> dict[str, float]:
    """Compute the accuracy of the surest answers.

    Args:
        probabilities: `(N, K)`.
        labels: `(N,)` classes in [0, K).
        coverages: Shares of clips to answer, in (0, 1]; at least one clip is answered.

    Returns:
        Coverage as text, such as `"0.9"` → accuracy of that share of the clips, the surest.
    """
    confidence, right = _confidence(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    return {f"{share:g}": float(right[order[: max(1, round(share * len(order)))]].mean()) for share in coverages}


def describe_calibration(fitted: Calibration | None, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Describe calibration for results.json, measured on test clips.

    Args:
        fitted: Settings fitted on validation; None where they were not fitted.
        logits: `(N, K)` of test clips, before division by the temperature.
        labels: `(N,)` their classes.

    Returns:
        `fitted` (the settings, or None), `expected_calibration_error` with `before` and `after` (None where nothing
        was fitted), `accuracy_at_coverage`, and `at_min_score` with `coverage` and `accuracy` (None without a
        threshold or an answer). With a bias for expected shares, `at_min_score` is of the answers with it, and
        `in_use` has their `recalls`, and `coverage` and `accuracy` at the threshold with clips that count as often as
        they are expected.
    """
    before = softmax(logits)
    after = before if fitted is None else softmax(logits / fitted.temperature)
    described: dict[str, Any] = {
        "fitted": None if fitted is None else fitted.to_dict(),
        "expected_calibration_error": {
            "before": expected_calibration_error(before, labels),
            "after": None if fitted is None else expected_calibration_error(after, labels),
        },
        "accuracy_at_coverage": accuracy_at_coverage(after, labels),
        "at_min_score": None,
    }
    if fitted is None:
        return described
    bias = np.zeros(logits.shape[1]) if fitted.logit_bias is None else np.asarray(fitted.logit_bias)
    confidence, right = _confidence(softmax(logits / fitted.temperature + bias), labels)
    answered = confidence >= (fitted.min_score or 0)
    if fitted.min_score is not None:
        accuracy = float(right[answered].mean()) if answered.any() else None
        described["at_min_score"] = {"coverage": float(answered.mean()), "accuracy": accuracy}
    if fitted.expected_shares is not None:
        described["in_use"] = _describe_use(right, answered, labels, fitted.expected_shares)
    return described


def _describe_use(
    right: np.ndarray, answered: np.ndarray, labels: np.ndarray, expected: Sequence[float]
) -> dict[str, Any]:
    """Recalls, and coverage and accuracy with clips that count as often as their class is expected."""
    weights, counts = weights_in_use(labels, expected), np.bincount(labels, minlength=len(expected))
    recalls = [float(right[labels == k].mean()) if count else None for k, count in enumerate(counts)]
    accuracy = float(np.average(right[answered], weights=weights[answered])) if answered.any() else None
    return {"recalls": recalls, "coverage": float(np.average(answered, weights=weights)), "accuracy": accuracy}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits `(N, K)` into probabilities, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _confidence(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest probability of each clip, `(N,)`, and whether it is of the right class, `(N,)` of 0 and 1."""
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"probabilities {probabilities.shape} and labels {labels.shape}: expected (N, K) and (N,), at least one."
        )
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)
