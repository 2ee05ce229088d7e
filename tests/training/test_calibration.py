"""Calibration: the temperature is the best one, the threshold keeps its promise, figures are those of the formulas."""

import numpy as np
import pytest

from modeling_stt.training.calibration import (
    accuracy_at_coverage,
    calibrate,
    choose_min_score,
    class_shares,
    describe_calibration,
    expected_calibration_error,
    fit_temperature,
    softmax,
)


def _clips(num_clips: int = 4000, scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is calibrated by construction, times `scale`."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((num_clips, 4))
    labels = np.array([rng.choice(4, p=p) for p in softmax(logits)])
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale_of_the_logits(scale: float) -> None:
    logits, labels = _clips(scale=scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.1)

    def cross_entropy(t: float) -> float:
        return -np.log(softmax(logits / t)[np.arange(len(labels)), labels]).mean()

    assert cross_entropy(temperature) < min(cross_entropy(0.99 * temperature), cross_entropy(1.01 * temperature))


def test_the_temperature_stays_in_range_where_all_or_no_clips_are_right() -> None:
    logits = 5 * np.eye(3)
    assert fit_temperature(logits, np.arange(3)) == pytest.approx(0.05)
    assert fit_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20)


def test_calibration_error_falls_on_other_clips() -> None:
    fitted = calibrate(*_clips(scale=3.0))
    described = describe_calibration(fitted, *_clips(scale=3.0, seed=1))
    errors = described["expected_calibration_error"]
    assert errors["before"] > 0.1 and errors["after"] < 0.03
    assert described["at_min_score"]["accuracy"] == pytest.approx(0.9, abs=0.03)


def test_the_threshold_is_the_lowest_that_keeps_its_promise() -> None:
    probabilities, labels = softmax(_clips()[0]), _clips()[1]
    threshold = choose_min_score(probabilities, labels)
    right = probabilities.argmax(axis=1) == labels
    confidence = probabilities.max(axis=1)
    assert right[confidence >= threshold].mean() >= 0.9
    lower = confidence[confidence < threshold].max()
    assert right[confidence >= lower].mean() < 0.9


def test_no_threshold_is_made_up() -> None:
    rng = np.random.default_rng(0)
    guesses, labels = softmax(rng.standard_normal((200, 4))), rng.integers(4, size=200)
    assert choose_min_score(guesses, labels) is None
    assert choose_min_score(np.eye(4), np.arange(4)) is None, "four right answers may be luck"
    assert calibrate(5 * np.eye(4)[[0, 1, 2, 3] * 7], np.array([0, 1, 2, 3] * 7)) is None, "28 clips are too few"


def test_calibration_error_is_the_formula_spelled_out() -> None:
    # Two clips of confidence 0.9, one of them right; two of 0.6, both right.
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1])
    assert expected_calibration_error(probabilities, labels, num_bins=5) == pytest.approx((0.4 + 0.4) / 2)
    certain = np.eye(2)
    assert expected_calibration_error(certain, np.array([0, 1])) == 0, "a confidence of 1 has a bin"


def test_coverage_leaves_out_the_least_sure() -> None:
    confidence = np.linspace(0.55, 0.95, 10)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([1, 0, 1, 0, 1, 0, 0, 0, 0, 0])  # wrong are the first, third and fifth
    expected = {"1": 0.7, "0.9": 7 / 9, "0.8": 0.75, "0.5": 1.0}
    assert accuracy_at_coverage(probabilities, labels) == pytest.approx(expected)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probabilities \(2, 2\) and labels \(3,\)"):
        expected_calibration_error(np.eye(2), np.arange(3))


def test_a_bias_for_the_expected_shares_makes_probabilities_right_again() -> None:
    # Clips of equal classes, and clips of which seven of ten are of the first class: the same faces, another mixture.
    logits, labels = _clips(num_clips=20000)
    in_training = class_shares({"a": 0.7}, "abcd", np.bincount(labels))
    bias = in_training.logit_bias
    rng, shares = np.random.default_rng(1), np.array([0.7, 0.1, 0.1, 0.1])
    chosen = rng.choice(len(labels), 8000, p=shares[labels] / shares[labels].sum())
    there = logits[chosen], labels[chosen]
    assert softmax(there[0])[:, 0].mean() < 0.6
    assert softmax(there[0] + np.array(bias))[:, 0].mean() == pytest.approx(0.7, abs=0.02)
    fitted = calibrate(logits, labels, in_training)
    described = describe_calibration(fitted, logits, labels)
    # Answers in use, as if clips were mixed so.
    probabilities = softmax(there[0] / fitted.temperature + np.array(bias))
    answered = probabilities.max(axis=1) >= fitted.min_score
    right = probabilities.argmax(axis=1) == there[1]
    assert described["in_use"]["coverage"] == pytest.approx(answered.mean(), abs=0.02)
    assert described["in_use"]["accuracy"] == pytest.approx(right[answered].mean(), abs=0.02)
    assert fitted.min_score > 0.5 and right[answered].mean() == pytest.approx(0.9, abs=0.02)
    assert described["in_use"]["recalls"][1] == pytest.approx(right[there[1] == 1].mean(), abs=0.06)


def test_shares_that_cannot_be_are_refused() -> None:
    trained = np.array([2, 1, 1])
    assert class_shares({}, "abc", trained).logit_bias == pytest.approx(np.log([2 / 3, 4 / 3, 4 / 3]), abs=1e-4)
    with pytest.raises(ValueError, match="name d; the classes are a, b, c"):
        class_shares({"d": 0.5}, "abc", trained)
    with pytest.raises(ValueError, match=r"leave -0\.2 for 1 other classes"):
        class_shares({"a": 0.6, "b": 0.6}, "abc", trained)
    with pytest.raises(ValueError, match=r"leave 0\.1 for 0 other"):
        class_shares({"a": 0.3, "b": 0.3, "c": 0.3}, "abc", trained)
    with pytest.raises(ValueError, match="d has none"):
        class_shares({"a": 0.6}, "abcd", np.array([2, 1, 1, 0]))
