"""The compact loss: its formula, its limits, and that it is a sum over clips."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_stt.training import class_weights, compact_softmax_cross_entropy

K, D = 5, 8


def _batch(num_clips: int = 13, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(num_clips, D, generator=rng, dtype=torch.float64)
    weight = torch.randn(K, D, generator=rng, dtype=torch.float64)
    return features @ weight.T, features, weight, torch.randint(K, (num_clips,), generator=rng)


def _term(logits: torch.Tensor, feature: torch.Tensor, weight: torch.Tensor, label: int, compact: float) -> float:
    """One clip's loss, spelled out."""
    cosines = [float(feature @ w / (feature.norm() * w.norm())) for w in weight]
    others = [max(0.0, cosine) for k, cosine in enumerate(cosines) if k != label]
    cross_entropy = -float(torch.log_softmax(logits, 0)[label])
    return cross_entropy + compact * ((1 - cosines[label]) + sum(others) / len(others))


def test_it_is_the_formula_spelled_out() -> None:
    logits, features, weight, labels = _batch()
    expected = np.mean([_term(z, f, weight, int(y), 0.3) for z, f, y in zip(logits, features, labels, strict=True)])
    loss = compact_softmax_cross_entropy(logits, features, weight, labels, compact_weight=0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_without_compact_weight_it_is_plain_cross_entropy(smoothing: float, weighted: bool, soft: bool) -> None:
    logits, features, weight, labels = _batch()
    class_weight = torch.linspace(0.5, 1.5, K, dtype=torch.float64) if weighted else None
    target = torch.softmax(torch.randn(13, K, dtype=torch.float64), 1) if soft else labels
    expected = F.cross_entropy(logits, target, weight=class_weight, label_smoothing=smoothing, reduction="sum") / 13
    loss = compact_softmax_cross_entropy(
        logits, features, weight, target, compact_weight=0, label_smoothing=smoothing, class_weight=class_weight
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-15)


def test_cut_into_parts_it_gives_the_same_loss_and_gradients() -> None:
    """Gradient accumulation and several processes: parts of unequal length, one without any clip that counts."""
    _, features, weight, labels = _batch()
    labels[[2, 11, 12]] = -100
    class_weight = torch.linspace(0.5, 1.5, K, dtype=torch.float64)

    def gradients(parts: list[slice]) -> tuple[float, torch.Tensor, torch.Tensor]:
        f, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = sum(
            compact_softmax_cross_entropy(
                (f @ w.T)[part], f[part], w, labels[part], class_weight=class_weight, label_smoothing=0.1, num_items=10
            )
            for part in parts
        )
        loss.backward()
        return loss.item(), f.grad, w.grad

    whole = gradients([slice(0, 13)])
    cut = gradients([slice(0, 4), slice(4, 5), slice(5, 11), slice(11, 13)])
    assert cut[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(cut[1:], whole[1:], rtol=1e-12, atol=1e-14)
    assert whole[1][[2, 11, 12]].abs().max() == 0


def test_the_number_of_items_is_that_of_the_labels_that_count() -> None:
    logits, features, weight, labels = _batch()
    labels[5:] = -100
    ignoring = compact_softmax_cross_entropy(logits, features, weight, labels)
    alone = compact_softmax_cross_entropy(logits[:5], features[:5], weight, labels[:5])
    assert ignoring.item() == pytest.approx(alone.item(), rel=1e-12)


def test_class_weights_weigh_every_clip_by_its_class() -> None:
    logits, features, weight, labels = _batch()
    c = torch.linspace(0.5, 1.5, K, dtype=torch.float64)
    terms = [_term(z, f, weight, int(y), 0.1) for z, f, y in zip(logits, features, labels, strict=True)]
    loss = compact_softmax_cross_entropy(logits, features, weight, labels, class_weight=c)
    assert loss.item() == pytest.approx(np.dot(c[labels], terms) / 13, rel=1e-12)


def test_soft_labels_take_the_expectation_over_hard_ones() -> None:
    logits, features, weight, labels = _batch()
    c = torch.linspace(0.5, 1.5, K, dtype=torch.float64)
    target = torch.softmax(torch.randn(13, K, dtype=torch.float64), 1)
    hard = [
        [
            compact_softmax_cross_entropy(logits[i, None], features[i, None], weight, y[None], class_weight=c).item()
            for y in torch.arange(K)
        ]
        for i in range(13)
    ]
    loss = compact_softmax_cross_entropy(logits, features, weight, target, class_weight=c)
    assert loss.item() == pytest.approx((target.numpy() * np.array(hard)).sum() / 13, rel=1e-12)
    one_hot = F.one_hot(labels, K).double()
    one_hot[3] = -100
    labels[3] = -100
    assert compact_softmax_cross_entropy(logits, features, weight, one_hot).item() == pytest.approx(
        compact_softmax_cross_entropy(logits, features, weight, labels).item(), rel=1e-12
    )


def test_it_draws_features_to_their_own_class_and_off_the_others() -> None:
    """The compact term alone: descending it lowers the angle to the own row and raises the one to the others."""
    _, features, weight, labels = _batch()
    features.requires_grad_()
    logits = torch.zeros(13, K, dtype=torch.float64)  # no cross entropy to help
    cosines = F.normalize(features) @ F.normalize(weight).T
    own = F.one_hot(labels, K).bool()
    compact_softmax_cross_entropy(logits, features, weight, labels, compact_weight=1.0).backward()
    moved = F.normalize(features - 0.5 * features.grad) @ F.normalize(weight).T
    assert (moved[own] > cosines[own]).all()
    assert moved[~own].clamp(min=0).mean() < cosines[~own].clamp(min=0).mean()


def test_half_precision_is_computed_in_float32_also_under_autocast() -> None:
    logits, features, weight, labels = (t.bfloat16() if t.is_floating_point() else t for t in _batch())
    expected = compact_softmax_cross_entropy(logits.float(), features.float(), weight.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = compact_softmax_cross_entropy(logits, features, weight, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


def test_degenerate_batches_are_finite_and_differentiable() -> None:
    """A zero feature, a single class, huge logits, and a batch in which nothing counts."""
    logits, features, weight, labels = _batch()
    features[0] = 0
    features.requires_grad_()
    compact_softmax_cross_entropy(logits * 1e4, features, weight, labels).backward()
    assert torch.isfinite(features.grad).all()
    one = compact_softmax_cross_entropy(logits[:, :1], features, weight[:1], torch.zeros_like(labels))
    assert torch.isfinite(one)
    nothing = compact_softmax_cross_entropy(logits, features, weight, torch.full_like(labels, -100))
    nothing.backward()
    assert nothing.item() == 0


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    logits, features, weight, labels = _batch()
    with pytest.raises(ValueError, match=r"\(13, 5\), \(13, 8\), \(8, 5\) and \(13,\)"):
        compact_softmax_cross_entropy(logits, features, weight.T, labels)
    with pytest.raises(ValueError, match=r"expected \(B, K\)"):
        compact_softmax_cross_entropy(logits, features, weight, labels[:4])


def test_class_weights_have_mean_one_over_the_training_set() -> None:
    label_ids = np.array([0] * 80 + [1] * 15 + [3] * 5)
    for weighting, ratio in {"inverse": 16.0, "inverse_sqrt": 4.0}.items():
        weights = class_weights(label_ids, 4, weighting)
        assert weights is not None
        assert weights[label_ids].mean().item() == pytest.approx(1, rel=1e-6)
        assert (weights[3] / weights[0]).item() == pytest.approx(ratio, rel=1e-6)
        assert weights[2] == 1  # no clips, no say
    assert class_weights(label_ids, 4, "none") is None
    with pytest.raises(ValueError, match="'balanced' is unknown"):
        class_weights(label_ids, 4, "balanced")
