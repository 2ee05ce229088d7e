"""Losses of training: our reading of the compact softmax cross entropy, and weights against class imbalance."""

import numpy as np
import torch
from torch.nn import functional as F

# Class weighting: a class of n clips is weighted by n to this power.
WEIGHTING_POWERS = {"none": 0.0, "inverse_sqrt": -0.5, "inverse": -1.0}


def compact_softmax_cross_entropy(
    logits: torch.Tensor,
    features: torch.Tensor,
    classifier_weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    compact_weight: float = 0.1,
    label_smoothing: float = 0.0,
    class_weight: torch.Tensor | None = None,
    num_items: torch.Tensor | int | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Cross entropy that also draws features to their class and away from the others: our reading of the paper's loss.

    The paper's formula is not public. Its abstract asks of the loss "the minimum intra-class distance and the maximum
    inter-class distance" of the features; this is a formula of ours that does so in the softmax layer, without further
    parameters. With f_i the feature of clip i, w_k the rows of the classifier and s_ik = cos(f_i, w_k):

        L_i  = CE_i + λ · [ (1 − s_{i,y_i}) + mean_{k≠y_i} max(0, s_ik) ]
        loss = Σ_i c_{y_i} · L_i / num_items

    It is a sum over clips, so a batch cut into micro-batches or over processes gives the same loss and gradients as
    the whole one, if all parts divide by the same `num_items`. For that reason the class weights c are not normalised
    here either (torch's `cross_entropy` divides by their sum in the batch, which differs from part to part): give
    weights whose mean over the training set is 1, as `class_weights` does. λ = 0 is plain cross entropy.

    Soft labels t_i, the votes' distribution, take the expectation Σ_k t_ik · c_k · L_ik over what clip i would cost
    were k its label. Label smoothing spreads the cross entropy only. Computed in float32 at least, also under
    autocast.

    Args:
        logits: `(B, K)` scores before softmax.
        features: `(B, D)` the features f that the scores are a linear function of.
        classifier_weight: `(K, D)` the rows w of the classifier.
        labels: `(B,)` int64 classes in [0, K), or `(B, K)` floats: distributions over the classes.
        compact_weight: λ, at least 0.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1].
        class_weight: `(K,)` weights c against class imbalance. None weighs all clips alike.
        num_items: What the sum is divided by: the labels in the whole batch, of which this may be a part. None: the
            labels given here that are not ignored.
        ignore_index: Clips of this label, or with a row of it, don't count.

    Returns:
        Scalar. Zero, and differentiable, if no clip counts.

    Raises:
        ValueError: For shapes that don't belong together.
    """
    _check_shapes(logits, features, classifier_weight, labels)
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, features, classifier_weight = logits.to(dtype), features.to(dtype), classifier_weight.to(dtype)
        class_weight = None if class_weight is None else class_weight.to(logits)
        labels = labels if labels.ndim == 1 else labels.to(dtype)
        counted = (labels if labels.ndim == 1 else labels[:, 0]) != ignore_index
        losses = F.cross_entropy(
            logits,
            labels,
            weight=class_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="none",
        )
        if compact_weight:
            target = labels if labels.ndim == 2 else F.one_hot(labels.where(counted, 0), logits.shape[1]).to(dtype)
            target = target if class_weight is None else target * class_weight
            losses = losses + compact_weight * (target * _compactness(features, classifier_weight)).sum(dim=1)
        num_items = counted.sum() if num_items is None else torch.as_tensor(num_items, device=logits.device)
        return losses.masked_fill(~counted, 0.0).sum() / num_items.clamp(min=1)


def _compactness(features: torch.Tensor, classifier_weight: torch.Tensor) -> torch.Tensor:
    """`(B, K)`: the bracket of the compact loss for every clip and every class that could be its label."""
    cosines = F.linear(F.normalize(features), F.normalize(classifier_weight))
    near = cosines.clamp(min=0)
    near_others = (near.sum(dim=1, keepdim=True) - near) / max(cosines.shape[1] - 1, 1)
    return 1 - cosines + near_others


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
