"""What a run leaves behind: results.json and the picture of its confusion matrix."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "av", "numpy")


def describe_environment() -> dict[str, Any]:
    """Versions, git sha and hardware of this run, for results.json.

    `git_sha` is that of this package's own checkout, with `-dirty` behind it where files were changed, or None where
    the package was not installed from one.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_sha": _git_sha(),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "num_cpus": os.cpu_count(),
        "gpus": gpus,
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
        "command": " ".join(sys.argv),
    }


def _git_sha() -> str | None:
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent:
        return None  # somebody else's repository, around an environment that the package is installed in
    return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_results(path: str | os.PathLike, results: dict[str, Any]) -> Path:
    """Write results.json, whole or not at all: an interrupted write leaves the old file.

    Raises:
        ValueError: For a number that is not finite, which JSON cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def plot_confusion_matrix(
    matrix: Sequence[Sequence[int]], names: Sequence[str], path: str | os.PathLike, title: str = ""
) -> Path:
    """Draw a confusion matrix: rows are the truth, cells the share of their row in percent, counts beneath.

    Args:
        matrix: `(K, K)` counts.
        names: K class names.
        path: Picture file to write; its suffix names the format.
        title: Line above the picture.

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
    axes.set(xlabel="predicted", ylabel="truth", title=title)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
