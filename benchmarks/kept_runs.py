"""Runs that an interrupted benchmark has finished, kept in the JSON that it writes, and their spread over seeds."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Run = dict[str, Any]


def read_runs(output: Path | None, settings: dict[str, Any]) -> list[Run]:
    """Read the finished runs of an earlier call; none without a file.

    Raises:
        ValueError: For a file of other settings.
    """
    if output is None or not output.is_file():
        return []
    earlier = json.loads(output.read_text(encoding="utf-8"))
    if earlier["settings"] != settings:
        raise ValueError(f"{output} is of {earlier['settings']}, not {settings}: name another file")
    return earlier["runs"]


def is_done(run: Run, runs: list[Run]) -> bool:
    """Return whether one of the runs has all that identifies this one."""
    return any(run.items() <= other.items() for other in runs)


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation of at least two values, the mean alone of one, nothing of none."""
    return ({"mean": mean(values)} if values else {}) | ({"sd": stdev(values)} if len(values) > 1 else {})
