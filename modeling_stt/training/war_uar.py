"""WAR and UAR as a metric of Hugging Face evaluate: `evaluate.load(WAR_UAR_METRIC)`, also without a network.

evaluate copies this file and imports the copy, so imports of this package are absolute, and one stands on a line.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from modeling_stt.training.metrics import score

DESCRIPTION = """\
Scores of dynamic facial expression recognition: weighted average recall (WAR, accuracy), unweighted average recall
(UAR, mean of the classes' recalls), recall of each class and confusion matrix. Classes without clips are left out of
the UAR and named.
"""

INPUTS = """
Args:
    predictions: predicted classes, a list of integers.
    references: true classes, a list of integers.
    class_names: names of all classes, in the order of these integers.
Returns:
    The fields of modeling_stt.training.Scores: class_names, war, uar, recalls, confusion_matrix, num_clips, absent,
    never_predicted.
Examples:
    >>> metric = evaluate.load(modeling_stt.training.WAR_UAR_METRIC)
    >>> metric.compute(predictions=[0, 1, 1], references=[0, 0, 1], class_names=["happy", "sad"])["uar"]
    0.75
"""

CITATION = """\
@article{ma2022spatio,
  title={Spatio-Temporal Transformer for Dynamic Facial Expression Recognition in the Wild},
  author={Ma, Fuyan and Sun, Bin and Li, Shutao},
  journal={arXiv preprint arXiv:2205.04749},
  year={2022}
}
"""


class WarUar(evaluate.Metric):
    """WAR, UAR and what belongs to them; `modeling_stt.training.score` does the work."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], class_names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        if class_names is None:
            raise ValueError(
                'Name the classes: compute(…, class_names=["happy", "sad", …]), in the order of the labels.'
            )
        return score(references, predictions, class_names).to_dict()
