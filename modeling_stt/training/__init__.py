"""Training of STT: clips, loss, Trainer, scores."""

from .arguments import STTTrainingArguments
from .backbone_weights import BackboneReport, load_backbone_weights
from .calibration import accuracy_at_coverage, calibrate, expected_calibration_error
from .clips import ClipAugment, ClipDataset, ClipDraw, ClipPhotometry
from .cross_validation import CrossValidation, MeanOfFolds, summarize_folds
from .images import TrainingImages, match_images
from .losses import COMPACT_LOSSES, ClassMeans, class_weights, compact_softmax_cross_entropy
from .metrics import (
    WAR_UAR_METRIC,
    ClassDistances,
    Scores,
    class_distances,
    compute_metrics,
    confusion_matrix,
    score,
)
from .protocol import SELECTIONS, FoldProtocol, FoldRows, FoldRun, audit_time, run_fold, split_validation
from .sampler import ClipSampler
from .start import set_classes
from .trainer import STTTrainer
from .weights import hash_weights

__all__ = [
    "COMPACT_LOSSES",
    "SELECTIONS",
    "WAR_UAR_METRIC",
    "BackboneReport",
    "ClassDistances",
    "ClassMeans",
    "ClipAugment",
    "ClipDataset",
    "ClipDraw",
    "ClipPhotometry",
    "ClipSampler",
    "CrossValidation",
    "FoldProtocol",
    "FoldRows",
    "FoldRun",
    "MeanOfFolds",
    "STTTrainer",
    "STTTrainingArguments",
    "Scores",
    "TrainingImages",
    "accuracy_at_coverage",
    "audit_time",
    "calibrate",
    "class_distances",
    "class_weights",
    "compact_softmax_cross_entropy",
    "compute_metrics",
    "confusion_matrix",
    "expected_calibration_error",
    "hash_weights",
    "load_backbone_weights",
    "match_images",
    "run_fold",
    "score",
    "set_classes",
    "split_validation",
    "summarize_folds",
]
