"""The compact loss: its terms are their formulas, its limits, and that it is a sum over clips."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_stt.training import (
    COMPACT_LOSSES,
    ClassMeans,
    class_distances,
    class_weights,
    compact_softmax_cross_entropy,
)

K, D = 5, 8


def _batch(num_clips: int = 13, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(num_clips, D, generator=rng, dtype=torch.float64)
    weight = torch.randn(K, D, generator=rng, dtype=torch.float64)
    return features @ weight.T, features, weight, torch.randint(K, (num_clips,), generator=rng)


def _means(momentum: float = 0.9) -> ClassMeans:
    """Means of the classes 0 … 3 after a step; class 4 is not known."""
    _, features, _, labels = _batch(num_clips=40, seed=1)
    means = ClassMeans(K, D, momentum)
    means.add(features, labels.where(labels != 4, -100))
    means.end_step()
    return means


def _spelled_out(name: str, f: torch.Tensor, weight: torch.Tensor, y: int, means: ClassMeans) -> float:
    """The compact term of one clip, by the formulas in the module's docstring."""
    s = [float(f @ w / (f.norm() * w.norm())) for w in weight]
    u = [float(f @ m / (f.norm() * m.norm())) if m.any() else 0.0 for m in means.features]
    others = [k for k in range(K) if k != y]
    if name == "rows":
        return 1 - s[y] + sum(max(0, s[k]) for k in others) / len(others)
    if not means.known[y]:
        return 0.0
    others = [k for k in others if means.known[k]]
    return 1 - u[y] + sum(1 + u[k] for k in others) / len(others)


@pytest.mark.parametrize("name", COMPACT_LOSSES)
def test_each_term_is_its_formula_spelled_out(name: str) -> None:
    logits, features, weight, labels = _batch()
    means = _means()
    assert means.known.tolist() == [True] * 4 + [False]
    terms = [_spelled_out(name, f, weight, int(y), means) for f, y in zip(features, labels, strict=True)]
    plain = compact_softmax_cross_entropy(logits, features, weight, labels, compact_weight=0)
    loss = compact_softmax_cross_entropy(
        logits, features, weight, labels, compact_weight=0.3, compact_loss=name, class_means=means
    )
    assert loss.item() - plain.item() == pytest.approx(0.3 * np.mean(terms), rel=1e-6)


@pytest.mark.parametrize("name", COMPACT_LOSSES)
def test_each_term_lowers_the_intra_class_distance_by_descent(name: str) -> None:
    _, features, weight, labels = _batch(num_clips=60)
    labels = labels % 4
    features = features.clone().requires_grad_()
    means = _means(momentum=0.0)
    before = class_distances(features.detach().numpy(), labels.numpy())
    for _ in range(50):
        logits = features @ weight.T
        loss = compact_softmax_cross_entropy(
            logits, features, weight, labels, compact_weight=1.0, compact_loss=name, class_means=means
        ) - compact_softmax_cross_entropy(logits, features, weight, labels, compact_weight=0)
        (gradient,) = torch.autograd.grad(loss, features)
        means.add(features, labels)
        means.end_step()
        features = (features - 5 * gradient).detach().requires_grad_()
    after = class_distances(features.detach().numpy(), labels.numpy())
    assert after.intra < before.intra - 0.05


def test_means_of_a_step_are_those_of_all_its_parts() -> None:
    _, features, _, labels = _batch()
    labels[3] = -100
    whole, parts = ClassMeans(K, D, 0.9), ClassMeans(K, D, 0.9)
    for _ in range(2):
        whole.add(features, labels)
        for part in (slice(0, 5), slice(5, 6), slice(6, 13)):
            parts.add(features[part], labels[part])
        whole.end_step(), parts.end_step()
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=1e-12)
    kept = labels == 2
    torch.testing.assert_close(whole.features[2], F.normalize(features[kept]).mean(dim=0))
    soft = ClassMeans(K, D, 0.9)
    soft.add(features, F.one_hot(labels.clamp(min=0), K).double().where((labels >= 0)[:, None], -100))
    soft.end_step()
    torch.testing.assert_close(soft.features[2], whole.features[2])


def test_means_move_by_their_momentum_and_stay_without_clips() -> None:
    _, features, _, _ = _batch(num_clips=3)
    means = ClassMeans(K, D, 0.75)
    for clip, label in ((0, 0), (1, 1), (2, 0)):
        means.add(features[clip, None], torch.tensor([label]))
        means.end_step()
    units = F.normalize(features)
    torch.testing.assert_close(means.features[0], 0.75 * units[0] + 0.25 * units[2])
    torch.testing.assert_close(means.features[1], units[1])
    assert means.known.tolist() == [True, True, False, False, False]


def test_an_unknown_term_and_one_without_its_means_are_refused() -> None:
    with pytest.raises(ValueError, match="compact_loss='island' is unknown: choose one of"):
        compact_softmax_cross_entropy(*_batch(), compact_loss="island")
    with pytest.raises(ValueError, match="compact_loss='running_means' needs class_means"):
        compact_softmax_cross_entropy(*_batch(), compact_loss="running_means")


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


@pytest.mark.parametrize("name", COMPACT_LOSSES)
def test_cut_into_parts_it_gives_the_same_loss_and_gradients(name: str) -> None:
    """Gradient accumulation and several processes: parts of unequal length, one without any clip that counts."""
    means = _means()
    _, features, weight, labels = _batch()
    labels[[2, 11, 12]] = -100
    class_weight = torch.linspace(0.5, 1.5, K, dtype=torch.float64)

    def gradients(parts: list[slice]) -> tuple[float, torch.Tensor, torch.Tensor]:
        f, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = sum(
            compact_softmax_cross_entropy(
                (f @ w.T)[part],
                f[part],
                w,
                labels[part],
                compact_loss=name,
                class_means=means,
                class_weight=class_weight,
                label_smoothing=0.1,
                num_items=10,
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
