"""Pictures of results; they need matplotlib, of the extra `plots`."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'modeling-stt[plots]'") from error
    figure = Figure(figsize=(1.6 + 0.8 * len(names), 1.4 + 0.8 * len(names)), layout="constrained")
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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
