"""Models on real videos against labels of stretches, as `stt score` compares them, with and without `--baseline`.

    python benchmarks/own_labels.py --folder runs/real_faces --output benchmarks/results/own_labels.json

The static network that `real_faces.py` fetches is plugged in as a function. In the folder of this file, the command
takes it, too: ``STT_REAL_FACES=FOLDER stt score VIDEO LABELS.csv --model own_labels:static_network``.

`--baseline auto` is each person's median. `--baseline START-END` is the first half of a video's neutral stretch, and
only windows behind it are compared. Videos without labels show how many windows each model calls negative.
"""

import argparse
import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from real_faces import HERE, STATIC, UNLABELLED, Scorer, fetch, static_scorer

from modeling_stt.configuration_stt import DFEW_CLASSES
from modeling_stt.timeline import Row, Timeline
from modeling_stt.timeline.agreement import LabelledStretch, compare
from modeling_stt.timeline.baseline import relative_to_rest
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.metrics import score_counts
from modeling_stt.training.results import write_results

NEGATIVE = ("angry", "sad", "fear", "disgust")
Baseline = tuple[float, float] | Literal["auto"] | None


class StaticNetwork:
    """The expression network of face-api, which is loaded when it is first asked."""

    class_names = DFEW_CLASSES

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _loaded(self) -> tuple[Any, Scorer]:
        return static_scorer(fetch(self.folder)[STATIC])

    @property
    def face_crop(self) -> Any:
        """Crop that it was made for."""
        return self._loaded[0]

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Mean of its probabilities over the pictures of a window, `(T, S, S, 3)` uint8 RGB."""
        return self._loaded[1](crops)


static_network = StaticNetwork(Path(os.environ.get("STT_REAL_FACES", "runs/real_faces")))


def read_stretches(folders: dict[str, Path]) -> dict[Path, list[LabelledStretch]]:
    """The labelled stretches by video."""
    found: dict[Path, list[LabelledStretch]] = defaultdict(list)
    for row in csv.DictReader((HERE / "real_stretches.csv").open()):
        stretch = LabelledStretch(float(row["start_s"]), float(row["end_s"]), row["label"])
        found[folders[row["package"]] / row["video"]].append(stretch)
    return dict(found)


def with_baseline(rows: Sequence[Row], baseline: Baseline) -> list[Row]:
    """Rows as `Timeline(baseline=…)` gives them."""
    return (
        list(rows) if baseline is None else [row for row, _ in relative_to_rest([(r, None) for r in rows], baseline)]
    )


def pooled(pairs: Iterable[tuple[Sequence[Row], Sequence[LabelledStretch]]]) -> dict[str, Any]:
    """Compare the rows of several videos with their labels, and add up."""
    counts = np.zeros((len(DFEW_CLASSES),) * 2, dtype=int)
    for rows, stretches in pairs:
        try:
            counts += np.array(compare(rows, stretches, DFEW_CLASSES).scores.confusion_matrix)
        except ValueError:  # no window lies in a stretch
            continue
    scores = score_counts(counts.tolist(), DFEW_CLASSES)
    resting = counts[DFEW_CLASSES.index("neutral")]
    negative = sum(int(resting[DFEW_CLASSES.index(name)]) for name in NEGATIVE)
    return {
        "num_windows": int(counts.sum()),
        "war": scores.war,
        "uar": scores.uar,
        "right": {
            name: f"{counts[i, i]} of {counts[i].sum()}" for i, name in enumerate(DFEW_CLASSES) if counts[i].any()
        },
        "neutral_called_negative": f"{negative} of {resting.sum()}",
    }


def resting_start(stretches: Sequence[LabelledStretch]) -> tuple[float, float] | None:
    """The first half of a neutral stretch, if it is long enough for a window."""
    for each in stretches:
        if each.label == "neutral" and each.end_s - each.start_s > 2:
            return each.start_s, (each.start_s + each.end_s) / 2
    return None


def shares(rows: Sequence[Row]) -> dict[str, float]:
    """Share of the windows with scores by their likeliest class, as `compare` counts them."""
    labels = [row.likeliest for row in rows if row.likeliest is not None]
    counted = {name: sum(label == name for label in labels) for name in ("neutral", "happy", "surprise")}
    counted["negative"] = sum(label in NEGATIVE for label in labels)
    return {"num_windows": len(labels)} | {name: number / len(labels) for name, number in counted.items()}


def measure(reader: Timeline, labelled: dict[Path, list[LabelledStretch]], others: Sequence[Path]) -> dict[str, Any]:
    """All figures of one model."""
    rows = {video: list(reader(str(video))) for video in (*labelled, *others)}
    found: dict[str, Any] = {}
    for name, baseline in (("none", None), ("auto", "auto")):
        adjusted = {video: with_baseline(each, baseline) for video, each in rows.items()}  # type: ignore[arg-type]
        found[name] = pooled((adjusted[video], stretches) for video, stretches in labelled.items())
        found[name]["videos"] = {video.name: pooled([(adjusted[video], labelled[video])]) for video in labelled}
        found[name]["unlabelled"] = {video.name: shares(adjusted[video]) for video in others}
    behind: dict[str, list[Any]] = {"none": [], "START-END": []}
    for video, stretches in labelled.items():
        if (rest := resting_start(stretches)) is not None:
            for name, baseline in (("none", None), ("START-END", rest)):
                late = [row for row in with_baseline(rows[video], baseline) if row.start_s >= rest[1]]
                behind[name].append((late, stretches))
    found["behind START-END"] = {name: pooled(pairs) for name, pairs in behind.items()}
    return found


def main() -> None:
    """Measure both models, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/real_faces"))
    parser.add_argument("--window_s", type=float, default=1.0, help="a labelled stretch lasts half a second")
    parser.add_argument("--stride_s", type=float, default=0.5)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    static_network.folder = arguments.folder
    folders = fetch(arguments.folder)
    labelled = read_stretches(folders)
    others = [folders[package] / name for package, names in UNLABELLED.items() for name in names]
    windows = {"window_s": arguments.window_s, "stride_s": arguments.stride_s}
    readers = {"shipped weights": Timeline(**windows), "static network": Timeline(static_network, **windows)}
    found = {name: measure(reader, labelled, others) for name, reader in readers.items()}
    for name, each in found.items():
        for option in ("none", "auto"):
            print(f"{name}, baseline {option}: " + ", ".join(f"{k} {v}" for k, v in each[option].items()))
        print(f"{name}: {each['behind START-END']}")
    if arguments.output:
        write_results(arguments.output, found | windows | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
