"""Losses of training: readings of the compact softmax cross entropy, and weights against class imbalance.

The paper's formula is not public. Its abstract asks for "the minimum intra-class distance and the maximum inter-class
distance" of the features. Here it is cross entropy plus a compact term C, of which there are several
readings, all ours. With f_i the feature of clip i and y_i its class:

    L_i  = CE_i + λ · C_i(y_i)
    loss = Σ_i c_{y_i} · L_i / num_items

It is a sum over clips, so a batch split into micro-batches or over processes gives the same loss and gradients as the
whole one, if all parts divide by the same `num_items`. For that reason the class weights c are not normalised either
(torch's `cross_entropy` divides by their sum in the batch, which differs from part to part): give weights whose mean
over the training set is 1, as `class_weights` does. For soft labels t_i, the votes' distribution, the loss is the
expectation Σ_k t_ik · c_k · L_ik, where L_ik is the loss of clip i if its label is k.

The terms, with s_ik = cos(f_i, w_k) for the classifier's rows w, u_ik = cos(f_i, m_k) for class means m:

- `"rows"`: 1 − s_iy + mean_{k≠y} max(0, s_ik). Pulls to the own row, and pushes off the others up to a right angle.
- `"running_means"`: 1 − u_iy + mean_{k≠y} (1 + u_ik), the centre and island losses on the unit sphere. The means are
  those before the step, and move by a tenth in each step. Means of the step itself are only known when all its
  micro-batches have passed, so with them a batch split by accumulation would not give the same gradients.

docs/results.md shows what they do to the distances, measured beside four other readings that were not kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

# Class weighting: a class of n clips is weighted by n to this power.
WEIGHTING_POWERS = {"none": 0.0, "inverse_sqrt": -0.5, "inverse": -1.0}

COMPACT_LOSSES = ("rows", "running_means")


class ClassMeans:
    """Means of the features of each class, over the steps so far.

    They are constant within a step: each clip is compared with the means before the step, and all its clips, in any
    micro-batch or process, move them together at its end. A class has no mean, and adds no cost, until a step has
    contained a clip of it.

    Args:
        num_classes: Number K of classes.
        width: Width D of the features.
        momentum: Share of the old mean that stays, in [0, 1).
    """

    def __init__(self, num_classes: int, width: int, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self.features = torch.zeros(num_classes, width, dtype=torch.float64)
        self.known = torch.zeros(num_classes, dtype=torch.bool)
        self._seen = torch.zeros(num_classes, width + 1, dtype=torch.float64)

    def add(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Add clips of this step: features `(B, D)`, and `(B,)` classes or `(B, K)` distributions.

        Clips with the label -100, or with soft labels of -100, do not count.
        """
        labels = labels.detach().cpu()
        counted = (labels if labels.ndim == 1 else labels[:, 0]) != -100
        shares = F.one_hot(labels.where(counted, 0), len(self.known)) if labels.ndim == 1 else labels
        shares = shares.double() * counted.unsqueeze(1)
        units = F.normalize(features.detach().double())
        self._seen += shares.T @ torch.cat([units, units.new_ones(len(units), 1)], dim=1).cpu()

    def end_step(self, device: torch.device | str = "cpu") -> None:
        """Move the means by the clips of this step, those of all processes."""
        if torch.distributed.is_initialized():
            seen = self._seen.to(device)
            torch.distributed.all_reduce(seen)
            self._seen = seen.cpu()
        counts = self._seen[:, -1:]
        present = counts[:, 0] > 0
        new = self._seen[:, :-1] / counts.clamp(min=torch.finfo(torch.float64).tiny)
        kept = (self.momentum * self.known).unsqueeze(1)  # the first clips of a class set its mean
        self.features = torch.where(present.unsqueeze(1), kept * self.features + (1 - kept) * new, self.features)
        self.known = self.known | present
        self._seen = torch.zeros_like(self._seen)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The means, to be saved with a checkpoint at the end of a step."""
        return {"features": self.features.contiguous(), "known": self.known}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore means that were saved."""
        self.features, self.known = state["features"], state["known"]


def compact_softmax_cross_entropy(
    logits: torch.Tensor,
    features: torch.Tensor,
    classifier_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    compact_weight: float = 0.1,
    compact_loss: str = "rows",
    class_means: ClassMeans | None = None,
    label_smoothing: float = 0.0,
    class_weight: torch.Tensor | None = None,
    num_items: torch.Tensor | int | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Cross entropy plus λ times a compact term, see the module. Computed in float32 at least, also under autocast.

    Args:
        logits: `(B, K)` scores before softmax.
        features: `(B, D)` the features f that the scores are a linear function of.
        classifier_weight: `(K, D)` the rows w of the classifier.
        labels: `(B,)` int64 classes in [0, K), or `(B, K)` floats: distributions over the classes.
        compact_weight: λ, at least 0; 0 is plain cross entropy.
        compact_loss: The compact term, a key of `COMPACT_LOSSES`.
        class_means: Means of the classes, which `"running_means"` needs.
        label_smoothing: Share of the cross entropy's target that is spread evenly over all classes, in [0, 1].
        class_weight: `(K,)` weights c against class imbalance. None weighs all clips alike.
        num_items: Divisor of the sum: the number of labels in the whole batch, of which this may be a micro-batch.
            None for the number of labels given here that are not ignored.
        ignore_index: Label of clips that don't count; of soft labels, the value of their rows.

    Returns:
        Scalar. Zero, and differentiable, if no clip counts.

    Raises:
        ValueError: For shapes that don't belong together, an unknown term, and a term without the means it needs.
    """
    _check_shapes(logits, features, classifier_weight, labels)
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, features, classifier_weight = logits.to(dtype), features.to(dtype), classifier_weight.to(dtype)
        class_weight = None if class_weight is None else class_weight.to(logits)
        labels = labels if labels.ndim == 1 else labels.to(dtype)
        counted = (labels if labels.ndim == 1 else labels[:, 0]) != ignore_index
        smoothing: dict[str, Any] = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        losses = F.cross_entropy(logits, labels, weight=class_weight, reduction="none", **smoothing)
        if compact_weight:
            target = labels if labels.ndim == 2 else F.one_hot(labels.where(counted, 0), logits.shape[1]).to(dtype)
            target = target if class_weight is None else target * class_weight
            term = _compact_term(compact_loss, features, classifier_weight, class_means)
            losses = losses + compact_weight * (target * term).sum(dim=1)
        num_items = counted.sum() if num_items is None else torch.as_tensor(num_items, device=logits.device)
        return losses.masked_fill(~counted, 0.0).sum() / num_items.clamp(min=1)


def _compact_term(name: str, features: torch.Tensor, rows: torch.Tensor, means: ClassMeans | None) -> torch.Tensor:
    """`(B, K)`: the cost of each clip were each class its label."""
    if name not in COMPACT_LOSSES:
        raise ValueError(f"compact_loss={name!r} is unknown: choose one of {COMPACT_LOSSES}.")
    if name == "rows":
        cosines = _cosines(features, rows)
        pushed, known = cosines.clamp(min=0), cosines.new_ones(len(rows))
    elif means is None:
        raise ValueError(f"compact_loss={name!r} needs class_means.")
    else:
        cosines, known = _cosines(features, means.features.to(features)), means.known.to(features)
        pushed = (1 + cosines) * known
    # Divided by the number of other classes, of those that have a mean.
    others = (known.sum() - known).clamp(min=1)
    return (1 - cosines + (pushed.sum(dim=1, keepdim=True) - pushed) / others) * known


def _cosines(features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    return F.linear(F.normalize(features), F.normalize(directions))


def _check_shapes(
    logits: torch.Tensor, features: torch.Tensor, classifier_weight: torch.Tensor, labels: torch.Tensor
) -> None:
    num_clips, num_classes = logits.shape
    fits = features.shape[0] == num_clips and classifier_weight.shape == (num_classes, features.shape[1])
    if not fits or tuple(labels.shape) not in ((num_clips,), (num_clips, num_classes)):
        shapes = [tuple(tensor.shape) for tensor in (logits, features, classifier_weight, labels)]
        raise ValueError(
            "logits, features, classifier_weight and labels have the shapes {}, {}, {} and {}; expected (B, K), "
            "(B, D), (K, D) and (B,) or (B, K).".format(*shapes)
        )


def class_weights(label_ids: np.ndarray, num_classes: int, weighting: str = "inverse") -> torch.Tensor | None:
    """Weights against class imbalance, with mean 1 over the training set.

    Args:
        label_ids: `(N,)` classes of the training set's clips.
        num_classes: Number K of classes.
        weighting: `"inverse"`: all classes weigh the same in sum; `"inverse_sqrt"`: half way there; `"none"`.

    Returns:
        `(K,)` float32, 1 for a class without clips; None for `"none"`.

    Raises:
        ValueError: For another weighting.
    """
    if weighting not in WEIGHTING_POWERS:
        raise ValueError(f"class_weighting={weighting!r} is unknown: choose one of {tuple(WEIGHTING_POWERS)}.")
    if weighting == "none":
        return None
    counts = np.bincount(label_ids, minlength=num_classes).astype(np.float64)
    present = counts > 0
    weights = np.ones(num_classes)
    weights[present] = counts[present] ** WEIGHTING_POWERS[weighting]
    weights[present] *= counts.sum() / (counts * weights).sum()
    return torch.tensor(weights, dtype=torch.float32)
