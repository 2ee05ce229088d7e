"""Rows of a data set, as training takes them.

This room knows no data set: names, options and rows of the builders are handed in.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from .options import RunArguments, read_object
from .protocol import FoldRows

logger = logging.getLogger(__name__)


def check_dataset(run: RunArguments, known: Iterable[str]) -> None:
    """End the program for a data set without a builder."""
    if run.dataset not in known:
        raise SystemExit(f"--dataset {run.dataset} is unknown: choose one of {', '.join(sorted(known))}.")


def choose_configuration(run: RunArguments, known: Sequence[str]) -> str:
    """Name the configuration of the data set to train on, such as `fold_1`.

    Args:
        run: The options `--fold` and `--configuration`.
        known: Names of the configurations that the data set comes in.
    """
    fold = None if run.fold is None else f"fold_{run.fold}"
    name = "_".join(filter(None, [run.configuration, fold])) or "default"
    if name not in known:
        raise SystemExit(
            f"{run.dataset} comes as {', '.join(known)}, not as {name}: choose one by --fold 1 or --configuration."
        )
    return name


def builder_options(run: RunArguments, known: Iterable[str]) -> dict[str, Any]:
    """Read the options of the data set's builder, besides configuration and folder.

    Args:
        run: The options `--data_options` and `--soft_labels`.
        known: Names of the options that the builder has.
    """
    options, names = read_object("data_options", run.data_options), list(known)
    if unknown := sorted(set(options) - set(names)):
        raise SystemExit(f"--data_options: {run.dataset} has no {', '.join(unknown)}, only {', '.join(names)}.")
    if run.soft_labels and "votes" not in names:
        raise SystemExit(f"--soft_labels True needs the annotators' votes, which {run.dataset} does not come with.")
    return options | {"votes": True} if run.soft_labels else options


def split_rows(name: str, rows: Mapping[Any, Dataset]) -> FoldRows:
    """Sort the splits of a data set into training, validation and test clips, all of which must have frames.

    Args:
        name: The data set, for messages.
        rows: Split → its rows. Without a split `test` the validation clips are tested on: AFEW's test labels were
            never published, and papers do the same.
    """
    counted = [clip for part in rows.values() for clip in zip(part["clip_id"], part["num_frames"], strict=True)]
    if empty := [clip_id for clip_id, num_frames in counted if not num_frames]:
        raise SystemExit(
            f"{len(empty)} clips of {name} have no frame ({', '.join(empty[:5])}{' …' * (len(empty) > 5)}): go "
            """without them by --data_options '{"missing": "skip"}', beside what else stands there."""
        )
    named = {str(split): part for split, part in rows.items()}
    tests = [split for split in ("test", "validation") if split in named]
    if missing := sorted({"train"} - named.keys()) or ([] if tests else ["test"]):
        raise SystemExit(
            f"This fold of {name} has no {missing[0]} clips, only {', '.join(named) or 'nothing'}: too few clips or "
            "groups for so many folds. Choose another --fold, or give more clips."
        )
    validation = named.get("validation") if "test" in named else None
    return FoldRows(named["train"], named[tests[0]], validation)


def describe_verification(comparable: bool | None, checks: Iterable[Any]) -> dict[str, Any]:
    """Summarise the verification of a copy of the data for results.json, and warn of what failed.

    Args:
        comparable: True if scores on it can be compared with papers; None if nothing is published.
        checks: The checks made, with `name`, `outcome` and `text`.
    """
    made = list(checks)
    found = {
        outcome: [f"{check.name}: {check.text}" for check in made if check.outcome == outcome]
        for outcome in ("failed", "warning")
    }
    for text in found["failed"]:
        logger.warning("Check of the data failed: %s", text)
    return {"comparable": comparable, **found}


def lies_in_marked_tree(row: Mapping[str, Any], marker: str) -> bool:
    """Look for the file `marker` in the folders above the clip of this row, where trees of synthetic faces have it."""
    clip = Path(row["frames"][0] if "frames" in row else row["video"]["path"])
    return any((folder / marker).is_file() for folder in clip.parents)
