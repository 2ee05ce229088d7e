"""Training of STT: clips, loss, Trainer, scores."""

from .arguments import STTTrainingArguments
from .clips import ClipAugment, ClipDataset, ClipDraw
from .losses import class_weights, compact_softmax_cross_entropy
from .metrics import (
    WAR_UAR_METRIC,
    ClassDistances,
    Scores,
    class_distances,
    compute_metrics,
    confusion_matrix,
    score,
)
from .protocol import SELECTIONS, FoldRun, run_fold, split_validation
from .results import CrossValidation, MeanOfFolds, summarize_folds
from .sampler import ClipSampler
from .trainer import STTTrainer
from .weights import BackboneReport, hash_weights, load_backbone_weights, set_classes

__all__ = [
    "SELECTIONS",
    "WAR_UAR_METRIC",
    "BackboneReport",
    "ClassDistances",
    "ClipAugment",
    "ClipDataset",
    "ClipDraw",
    "ClipSampler",
    "CrossValidation",
    "FoldRun",
    "MeanOfFolds",
    "STTTrainer",
    "STTTrainingArguments",
    "Scores",
    "class_distances",
    "class_weights",
    "compact_softmax_cross_entropy",
    "compute_metrics",
    "confusion_matrix",
    "hash_weights",
    "load_backbone_weights",
    "run_fold",
    "score",
    "set_classes",
    "split_validation",
    "summarize_folds",
]
