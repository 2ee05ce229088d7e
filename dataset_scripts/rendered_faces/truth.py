"""The truth that only a renderer knows of a clip: action units, pose, gaze and level of each frame, and who is shown.

A tree of `write_rendered_dfew` holds `truth.csv`, one row a clip with `FACTS`, and `Truth/00001.npz`, … with `SERIES`,
one row a frame of the original. `add_truth` joins both to the rows of `load_dataset`.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .actions import ACTION_UNITS
from .clips import Clip, action_unit_intensities
from .head import load_head
from .motion import shown_level

if TYPE_CHECKING:
    from datasets import Dataset

FACTS: dict[str, type] = {
    "clip_id": int,
    "identity": int,
    "label": str,  # "" for a clip without a single label
    "expression": str,  # the expression that the levels refer to
    "shown_level": float,  # average of the frames' highest and mean level
    "talks": int,
    "male": float,
    "age": str,
    "old": float,
    "african": float,
    "asian": float,
    "caucasian": float,
    "melanin": float,
    "hair": str,
    "glasses": int,
}
SERIES = {
    "level": "(T,), share of the expression that is shown, 0..1",
    "action_units": f"(T, {len(ACTION_UNITS)}), intensity of {', '.join(ACTION_UNITS)}; 1 is full",
    "pose": "(T, 3), yaw, pitch, roll of the head in degrees: to the subject's left, down, to the right shoulder",
    "gaze": "(T, 2), of the eyes in the head, degrees: to the subject's left, up",
    "actions": "(T, U), weights of the rig's facial actions, named by `action_names`",
}


def action_names() -> tuple[str, ...]:
    """Names of the columns of `actions`: ARKit's 52, and the rig's others."""
    return load_head().units.names


def clip_facts(clip_id: int, identity: int, clip: Clip) -> dict[str, Any]:
    """The row of a clip in `truth.csv`."""
    person, motion = clip.person, clip.motion
    return {
        "clip_id": clip_id,
        "identity": identity,
        "label": motion.label or "",
        "expression": motion.expression,
        "shown_level": round(shown_level(motion.level), 4),
        "talks": int(motion.talks),
        **person.traits.to_dict(),
        "hair": person.hair.style,
        "glasses": int(person.glasses is not None),
    }


def save_truth(root: Path, clip_id: int, clip: Clip) -> None:
    """Write the series of a clip, float16."""
    motion = clip.motion
    units = action_unit_intensities(motion.weights)
    series = {
        "level": motion.level,
        "action_units": np.stack([units[name] for name in ACTION_UNITS], axis=1),
        "pose": motion.pose,
        "gaze": motion.gaze,
        "actions": motion.weights,
    }
    (root / "Truth").mkdir(exist_ok=True)
    halves = {name: values.astype(np.float16) for name, values in series.items()}
    np.savez_compressed(root / "Truth" / f"{clip_id:05d}.npz", **halves)  # type: ignore[arg-type]


def write_facts(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `truth.csv`."""
    with (root / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(FACTS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_facts(data_dir: str | Path) -> dict[int, dict[str, Any]]:
    """The rows of `truth.csv` by clip id.

    Raises:
        FileNotFoundError: Where `data_dir` has none.
    """
    path = Path(data_dir).expanduser() / "truth.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a tree written by dataset_scripts.rendered_faces")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: kind(row[name]) for name, kind in FACTS.items()} for row in csv.DictReader(file)]
    return {row["clip_id"]: row for row in rows}


def read_series(data_dir: str | Path, clip_id: int) -> dict[str, np.ndarray]:
    """The series of a clip as float32, by the names of `SERIES`."""
    with np.load(Path(data_dir).expanduser() / "Truth" / f"{clip_id:05d}.npz") as file:
        return {name: file[name].astype(np.float32) for name in SERIES}


def add_truth(rows: "Dataset", data_dir: str | Path, columns: Sequence[str] = ("level", "action_units")) -> "Dataset":
    """Join truth to rows of `load_dataset("dfew", …)`, in columns named `truth_…`.

    Args:
        rows: A split; its rows are unchanged.
        data_dir: The tree that they were loaded from.
        columns: Names of `FACTS` or `SERIES`. Series have one value for each of the row's `frames`, in their order;
            for rows of original videos, one for each frame.

    Raises:
        FileNotFoundError: Where the tree has no truth.
        ValueError: For an unknown column, or a clip that the truth does not have.
    """
    if unknown := sorted(set(columns) - {*FACTS, *SERIES}):
        raise ValueError(f"no truth is called {unknown}; choose from {', '.join([*FACTS, *SERIES])}")
    facts = read_facts(data_dir)
    values: dict[str, list[Any]] = {column: [] for column in columns}
    needs_series = any(column in SERIES for column in columns)
    paths = rows["frames"] if "frames" in rows.column_names else [None] * len(rows)
    for name, frames in zip(rows["clip_id"], paths, strict=True):
        clip_id = int(name)
        if clip_id not in facts:
            raise ValueError(f"clip {name} is not in the truth.csv of {data_dir}: were the rows loaded from there?")
        series = read_series(data_dir, clip_id) if needs_series else {}
        chosen = slice(None) if frames is None else [_number(path) - 1 for path in frames]
        for column in columns:
            values[column].append(facts[clip_id][column] if column in FACTS else series[column][chosen].tolist())
    for column, found in values.items():
        rows = rows.add_column(f"truth_{column}", found)
    return rows


def _number(path: str) -> int:
    """Number of the original's frame that an image shows: the last integer of its name."""
    return int(re.findall(r"\d+", Path(path).stem)[-1])
