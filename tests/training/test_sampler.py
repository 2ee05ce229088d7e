"""The order of clips: complete, decided by seed and epoch, balanced where asked, filled without counting twice."""

import numpy as np
import pytest

from modeling_stt.training import ClipDraw, ClipSampler

LABELS = np.array([0] * 60 + [1] * 25 + [4] * 5)


def _epoch(epoch: int = 0, seed: int = 0, **options: object) -> list[ClipDraw]:
    sampler = ClipSampler(LABELS, seed=seed, **options)
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    return draws


def test_an_epoch_draws_every_clip_once_in_an_order_of_its_own() -> None:
    first = [draw.row for draw in _epoch(0)]
    assert sorted(first) == list(range(90))
    assert first == [draw.row for draw in _epoch(0)]
    assert first != [draw.row for draw in _epoch(1)]
    assert first != [draw.row for draw in _epoch(0, seed=1)]


def test_no_two_draws_share_a_seed_nor_that_of_the_order() -> None:
    """numpy's SeedSequence takes (s, e) and (s, e, 0) for the same."""
    states = [np.random.default_rng(draw.seed).integers(2**63) for epoch in range(2) for draw in _epoch(epoch)]
    states += [np.random.default_rng((0, epoch)).integers(2**63) for epoch in range(2)]
    assert len(set(states)) == 182


@pytest.mark.parametrize("balanced", [False, True])
def test_filling_does_not_count(balanced: bool) -> None:
    plain, filled = _epoch(class_balanced=balanced), _epoch(class_balanced=balanced, multiple_of=16)
    assert len(filled) == 96
    assert filled[:90] == plain
    assert all(draw.counted for draw in plain)
    assert not any(draw.counted for draw in filled[90:])


def test_filling_works_for_fewer_clips_than_a_batch() -> None:
    draws = list(ClipSampler(np.array([0, 1]), seed=0, multiple_of=8))
    assert len(draws) == 8
    assert sum(draw.counted for draw in draws) == 2


def test_balanced_epochs_draw_classes_equally_and_clips_of_a_class_evenly() -> None:
    counts = np.zeros(90, dtype=int)
    for epoch in range(3):
        drawn = np.array([draw.row for draw in _epoch(epoch, class_balanced=True)])
        assert np.bincount(LABELS[drawn], minlength=5).tolist() == [30, 30, 0, 0, 30]
        counts += np.bincount(drawn, minlength=90)
        of_epoch = np.bincount(drawn, minlength=90)
        for label in (0, 1, 4):
            assert np.ptp(of_epoch[label == LABELS]) <= 1
    assert counts.sum() == 270


def test_balanced_shares_differ_by_one_at_most() -> None:
    labels = np.array([0] * 7 + [1] * 3 + [2])
    drawn = [labels[draw.row] for draw in ClipSampler(labels, seed=0, class_balanced=True)]
    assert sorted(np.bincount(drawn)) == [3, 4, 4]
