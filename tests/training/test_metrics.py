"""Scores: right when classes are absent, exact distances, and what the Trainer logs."""

import json

import numpy as np
import pytest
from transformers import EvalPrediction

from modeling_stt.training import class_distances, compute_metrics, confusion_matrix, score

NAMES = ["happy", "sad", "neutral", "angry"]


def test_a_worked_example() -> None:
    scores = score([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], NAMES[:3])
    assert scores.confusion_matrix == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert scores.recalls == pytest.approx([2 / 3, 1 / 2, 1])
    assert scores.war == pytest.approx(4 / 6)
    assert scores.uar == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert (scores.num_clips, scores.absent, scores.never_predicted) == (6, [], [])


def test_rows_are_truth() -> None:
    assert confusion_matrix([0], [2], 3).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_a_class_without_clips_is_said_and_left_out_of_uar() -> None:
    """Where the official scripts give NaN (predicted, not in truth) or shrink the matrix (neither)."""
    scores = score([0, 0, 1, 1], [0, 2, 1, 1], NAMES)
    assert scores.recalls == [0.5, 1.0, None, None]
    assert scores.uar == 0.75
    assert scores.absent == ["neutral", "angry"]
    assert scores.never_predicted == ["angry"]
    assert np.shape(scores.confusion_matrix) == (4, 4)


def test_a_class_never_predicted_has_recall_zero() -> None:
    scores = score([0, 1, 2, 3], [0, 0, 0, 0], NAMES)
    assert scores.recalls == [1, 0, 0, 0]
    assert (scores.war, scores.uar) == (0.25, 0.25)
    assert scores.never_predicted == ["sad", "neutral", "angry"]


def test_scores_are_plain_values_for_json() -> None:
    written = json.loads(json.dumps(score(np.array([0, 1]), np.array([0, 0]), NAMES).to_dict(), allow_nan=False))
    assert written["recalls"] == [1.0, 0.0, None, None]
    assert written["class_names"] == NAMES


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 4], [0, 1], "labels hold 4, which is none of the 4 classes"),
        ([0, 1], [0, -1], "predictions hold -1"),
        ([0, 1, 2], [0, 1], "3 labels came with 2 predictions"),
        ([], [], "at least one"),
        ([0.0, 1.0], [0, 1], "float64"),
        ([[0, 1]], [0, 1], r"\(1, 2\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels: list, predictions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(labels, predictions, NAMES)


def _brute_force(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    def distance(i: int, j: int) -> float:
        return 1 - features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])

    classes = sorted(set(labels))
    of = {c: np.flatnonzero(labels == c) for c in classes}
    intra = [np.mean([distance(i, j) for i in of[c] for j in of[c] if i < j]) for c in classes if len(of[c]) > 1]
    pairs = [(c, d) for c in classes for d in classes if c < d]
    inter = [np.mean([distance(i, j) for i in of[c] for j in of[d]]) for c, d in pairs]
    return float(np.mean(intra)), float(np.mean(inter))


def test_distances_are_those_over_all_pairs() -> None:
    """Also with a class of one clip, a class missing, and vectors of very different length."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 7 + [1] * 4 + [3] + [5] * 2)
    features = rng.normal(size=(14, 6)) * rng.uniform(0.01, 100, size=(14, 1))
    distances = class_distances(features, labels)
    assert (distances.intra, distances.inter) == pytest.approx(_brute_force(features, labels), rel=1e-12)


def test_distances_that_are_not_defined_are_none() -> None:
    features = np.eye(3)
    assert class_distances(features, [0, 1, 2]).intra is None
    assert class_distances(features, [0, 1, 2]).inter == pytest.approx(1)
    one_class = class_distances(features, [1, 1, 1])
    assert one_class.intra == pytest.approx(1)
    assert one_class.inter is None
    assert class_distances(np.zeros((2, 3)), [0, 0]).intra == pytest.approx(1)
    with pytest.raises(ValueError, match="expected"):
        class_distances(features, [0, 1])


def test_the_trainer_gets_floats_and_no_class_without_clips() -> None:
    logits = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0]], dtype=np.float32)
    features = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    metrics = compute_metrics(NAMES)(EvalPrediction((logits, features), np.array([0, 0, 1])))
    assert metrics == pytest.approx(
        {
            "war": 2 / 3,
            "uar": 0.75,
            "recall_happy": 0.5,
            "recall_sad": 1.0,
            "intra_distance": 0.0,
            "inter_distance": 1.0,
        }
    )
    assert all(isinstance(value, float) for value in metrics.values())


def test_diverged_logits_are_refused_and_not_taken_for_the_first_class() -> None:
    logits = np.array([[0, 1], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="1 of 2 clips are not finite"):
        compute_metrics(NAMES[:2])(EvalPrediction((logits, np.ones((2, 3))), np.array([0, 1])))
