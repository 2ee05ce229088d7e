"""Pictures of results; they need matplotlib, of the extra `plots`."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..fonts import literal, readable


def plot_confusion_matrix(
    matrix: Sequence[Sequence[int]], names: Sequence[str], path: str | os.PathLike, title: str = ""
) -> Path:
    """Draw a confusion matrix: rows are the truth, cells the share of their row in percent, counts beneath.

    Args:
        matrix: `(K, K)` counts.
        names: K class names.
        path: Picture file to write; its suffix names the format.
        title: Lines above the picture; those too long for it are wrapped.

    Raises:
        ImportError: Where matplotlib is missing.
    """
    with _readable(title, *names):
        figure = _draw_confusion_matrix(matrix, [literal(name) for name in names], literal(title))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return path


def _draw_confusion_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Any:
    figure = _figure(figsize=(1.6 + 0.8 * len(names), 1.4 + 0.8 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    shares = [[cell / max(sum(row), 1) for cell in row] for row in matrix]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{100 * shares[i][j]:.0f}\n({cell})", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="truth")
    # matplotlib's own wrapping does not make room for the lines that it adds.
    letters = round(12 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(line, letters) for line in title.split("\n")), fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def plot_clip(frames: np.ndarray, scores: Mapping[str, float], path: str | os.PathLike) -> Path:
    """Draw the frames of a clip in time order above the probabilities of the classes.

    Args:
        frames: `(T, H, W, 3)` uint8, at least one.
        scores: Class → probability.
        path: Picture file to write; its suffix names the format.

    Raises:
        ImportError: Where matplotlib is missing.
    """
    with _readable(*scores):
        figure = _draw_clip(frames, {literal(name): score for name, score in scores.items()})
        figure.savefig(path, dpi=100)
    return Path(path)


def _draw_clip(frames: np.ndarray, scores: Mapping[str, float]) -> Any:
    figure = _figure(figsize=(max(len(frames), 4), 4), layout="constrained")
    grid = figure.add_gridspec(2, len(frames), height_ratios=(1, 2))
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(frame)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    bars = axes.barh(list(scores), list(scores.values()))
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.set(xlim=(0, 1.05), xlabel="probability")
    axes.invert_yaxis()
    return figure


def _readable(*texts: str) -> Any:
    _figure()  # without matplotlib, its error says what to install
    return readable(*texts)


def _figure(**options: Any) -> Any:
    """Make a figure of matplotlib, which is imported here since only the extra `plots` brings it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'modeling-stt[plots]'") from error
    return Figure(**options)
