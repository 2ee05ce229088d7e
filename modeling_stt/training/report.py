"""Printed and drawn results of a fold and of a cross-validation."""

import logging
from collections.abc import Sequence
from pathlib import Path

from .cross_validation import CrossValidation
from .plots import plot_confusion_matrix
from .protocol import FoldRun
from .results import RESULTS_FILE, write_results

logger = logging.getLogger(__name__)


def report_fold(finished: FoldRun, output_dir: Path) -> None:
    """Print the scores of a fold and draw its confusion matrix."""
    results = finished.results
    scores = results["test"]
    part = "" if results["configuration"] == "default" else f" {results['configuration'].replace('_', ' ')}"
    name = f"{'synthetic faces as ' if results['synthetic'] else ''}{results['dataset']}{part}"
    title = f"{name}: WAR {100 * scores['war']:.2f}, UAR {100 * scores['uar']:.2f}"
    title = f"{title} ({results['protocol']['selection_means']})"
    if finished.trainer is None:
        print(f"{output_dir}: already finished, nothing trained. Its results:")
    print(title)
    _draw(scores["confusion_matrix"], results["classes"], output_dir, title)


def report_folds(summary: CrossValidation, output_dir: Path) -> None:
    """Write and print the summary of a cross-validation, and draw its pooled confusion matrix."""
    write_results(output_dir / RESULTS_FILE, summary.to_dict())
    print(f"\n{summary}")
    _draw(summary.pooled.confusion_matrix, summary.pooled.class_names, output_dir, summary.title)


def _draw(matrix: Sequence[Sequence[int]], classes: Sequence[str], output_dir: Path, title: str) -> None:
    """Draw a confusion matrix as confusion.png, where matplotlib is installed."""
    try:
        plot_confusion_matrix(matrix, classes, output_dir / "confusion.png", title)
    except ImportError as error:
        print(f"No picture of the confusion matrix was drawn. {error}")
