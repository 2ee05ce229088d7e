"""The model that a training starts from."""

from collections.abc import Sequence

import torch
from torch import nn

from ..modeling_stt import STTForVideoClassification


def set_classes(model: STTForVideoClassification, classes: Sequence[str]) -> None:
    """Make a trained model answer in these classes, in this order.

    The same names in another order reorder the head, so that every class keeps what it learned. Any other names get a
    new head, to be trained.

    Args:
        model: Changed in place, its configuration's labels too.
        classes: Names of the classes, by label index.

    Raises:
        ValueError: For a name given twice, or none.
    """
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"Classes must be named once each, got {list(classes)}.")
    old_head, old_classes = model.classifier, model.config.class_names
    head = nn.Linear(old_head.in_features, len(classes)).to(old_head.weight.device, old_head.weight.dtype)
    if sorted(old_classes) == sorted(classes):
        order = [old_classes.index(name) for name in classes]
        with torch.no_grad():
            head.weight.copy_(old_head.weight[order])
            head.bias.copy_(old_head.bias[order])
    else:
        model._init_weights(head)
    model.classifier, model.num_labels = head, len(classes)
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: i for i, name in enumerate(classes)}
