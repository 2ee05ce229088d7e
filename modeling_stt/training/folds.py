"""Folds of a cross-validation: which to run, in what order, and where each lies."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .options import RunArguments
from .results import RESULTS_FILE, RUN_FILE


def parse_folds(arguments: Sequence[str], description: str | None = None) -> tuple[list[int] | None, list[str]]:
    """Split a command line into the folds to run, None for all, and the options of `train.py`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--folds", type=int, nargs="+", help="Run these folds only. Default: all that the set has.")
    own, options = parser.parse_known_args(arguments)
    if any(word.split("=")[0] == "--fold" for word in options):
        raise SystemExit("--fold is train.py's: say which folds to run by --folds, or leave it out to run them all.")
    return own.folds, options


def check_folds(run: RunArguments, folds: Sequence[int], configurations: Sequence[str]) -> None:
    """End the program where a data set has no folds of the kind that `--configuration` names.

    Args:
        run: Names data set and configuration.
        folds: Numbers of the folds that there are of this kind.
        configurations: Names of all configurations of the data set.
    """
    if not folds:
        raise SystemExit(
            f"There are no folds {run.configuration}_fold_1, … of {run.dataset}, which comes as "
            f"{', '.join(configurations)}."
            if run.configuration
            else f"{run.dataset} has no folds but one fixed split: run it by examples/train.py."
        )


def folds_to_visit(output_dir: Path, known: Sequence[int], chosen: Sequence[int] | None) -> list[int]:
    """Order the folds to run or take in: finished ones, then interrupted ones, then new ones.

    Finished and interrupted folds come first since they may be refused, which must not happen after days of training.
    """
    if unknown := sorted(set(chosen or []) - set(known)):
        raise SystemExit(f"--folds {unknown[0]}: this data set has the folds {', '.join(map(str, known))}.")
    if (output_dir / RUN_FILE).is_file():
        raise SystemExit(f"{output_dir} holds a run of train.py: choose another --output_dir.")

    def lacks(fold: int, file: str) -> bool:
        return not (fold_folder(output_dir, fold) / file).is_file()

    visited = [fold for fold in known if fold in (chosen or known) or not lacks(fold, RESULTS_FILE)]
    return sorted(visited, key=lambda fold: (lacks(fold, RESULTS_FILE), lacks(fold, RUN_FILE), fold))


def fold_folder(output_dir: Path, fold: int) -> Path:
    """Name the folder that a fold is run in."""
    return output_dir / f"fold_{fold}"


def read_fold_results(output_dir: Path, folds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Read results.json of each of these folds that is finished."""
    files = {fold: fold_folder(output_dir, fold) / RESULTS_FILE for fold in folds}
    return {fold: json.loads(file.read_text("utf-8")) for fold, file in files.items() if file.is_file()}
