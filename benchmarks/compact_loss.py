"""Compare readings of the compact loss: what they do to the features' distances, the scores and the calibration.

    python benchmarks/compact_loss.py --output benchmarks/results/compact_loss.json

Renders faces in two conditions (equal classes, DFEW's imbalance), and trains the same small model with plain cross
entropy and with every reading at every λ, once a seed. Runs of one seed share data, first weights, order of clips and
augmentation. λ is chosen for each reading by the mean validation UAR over seeds; its models are then compared with
plain cross entropy on test clips of people that neither training nor validation showed, by a paired t-test. Every run
keeps its own folder, so that the same command resumes after an interruption. Other options go to examples/train.py.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import write_rendered_dfew
from modeling_stt.loading import load_model
from modeling_stt.training import COMPACT_LOSSES, STTTrainer, STTTrainingArguments
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import RESULTS_FILE, write_results

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "examples" / "recipes" / "demo.yaml"
CONDITIONS = {"equal": "equal", "imbalanced": "dfew"}  # name → balance of the rendered classes
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)  # λ, two decades
PLAIN = ("plain", 0.0)
COLUMNS = (
    *("uar", "war", "rarest_recall", "calibration_error", "train_seconds"),
    *("intra_cosine", "inter_cosine", "ratio_cosine", "intra_euclidean", "inter_euclidean", "ratio_euclidean"),
)


def run_study(options: argparse.Namespace, for_training: Sequence[str]) -> dict[str, Any]:
    """Train all models of all conditions, and compare them."""
    found = {}
    for condition in options.conditions:
        data = options.work_dir / condition / "DFEW"
        if not (data / "annotation.xlsx").is_file():
            # A fifth of the clips is fold 1's test fold.
            write_rendered_dfew(data, num_clips=options.num_clips, balance=CONDITIONS[condition], videos=False)
        models = [PLAIN, *((name, weight) for name in options.readings for weight in options.weights)]
        rows: dict[str, dict[str, dict[str, Any]]] = {}
        for seed in options.seeds:
            for name, weight in models:
                folder = options.work_dir / condition / f"{name}_{weight:g}_seed_{seed}"
                train(data, folder, name, weight, seed, for_training)
                rows.setdefault(f"{name} {weight:g}", {})[str(seed)] = measure(folder, data)
        found[condition] = {"rows": rows, "comparison": compare(rows, options.readings)}
        print_comparison(condition, found[condition]["comparison"], rows)
    return found


def train(data: Path, folder: Path, name: str, weight: float, seed: int, for_training: Sequence[str]) -> None:
    """Train one model in a process of its own; a finished run is kept."""
    command = [sys.executable, str(ROOT / "examples" / "train.py"), f"--recipe={RECIPE}", f"--data_dir={data}"]
    command += [f"--output_dir={folder}", f"--seed={seed}", f"--compact_weight={weight}", "--disable_tqdm=True"]
    command += ["--resume_from_checkpoint=last", "--save_total_limit=1", *for_training]
    if name != "plain":
        command.append(f"--compact_loss={name}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, data: Path) -> dict[str, Any]:
    """Collect the scores of a finished run, and the distances between features of its test clips."""
    results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    test = results["test"]
    counts = results["clips"]["train"]["per_class"]
    rarest = min(counts, key=counts.get)
    row = {name: test[name] for name in ("uar", "war")}
    row["rarest_recall"] = test["recalls"][test["class_names"].index(rarest)]
    row["calibration_error"] = results["calibration"]["expected_calibration_error"]["before"]
    row["train_seconds"] = results["train_seconds"]
    row["validation_uar"] = results["selected"]["evaluation"]["uar"]
    return row | feature_distances(*read_features(folder, data))


def read_features(folder: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features `(N, D)` of the test clips by the saved model, and their labels `(N,)`."""
    model, processor = load_model(folder)
    arguments = STTTrainingArguments(str(folder), eval_strategy="no", disable_tqdm=True, report_to="none")
    trainer = STTTrainer(model, arguments, processing_class=processor)
    prediction = trainer.predict(load_dataset("dfew", "fold_1", data_dir=data, split="test"))
    return np.asarray(prediction.predictions[1], dtype=np.float64), np.asarray(prediction.label_ids)


def feature_distances(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute mean distances between clips of one class and of two, each class or pair weighing the same.

    Cosine distances are 1 − cos. Euclidean ones are in units of the features' mean length, so that they compare
    between models. A ratio is intra over inter.
    """
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    scaled = features / np.linalg.norm(features, axis=1).mean()
    squared = (scaled**2).sum(axis=1)
    distances = {
        "cosine": 1 - units @ units.T,
        "euclidean": np.sqrt(np.maximum(squared[:, None] + squared - 2 * scaled @ scaled.T, 0)),
    }
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    row = {}
    for kind, between in distances.items():
        intra = [
            between[np.ix_(own, own)].sum() / (len(own) * (len(own) - 1)) for own in members if len(own) > 1
        ]  # less the zeros of each clip with itself
        inter = [between[np.ix_(a, b)].mean() for i, a in enumerate(members) for b in members[:i]]
        row |= {f"intra_{kind}": float(np.mean(intra)), f"inter_{kind}": float(np.mean(inter))}
        row[f"ratio_{kind}"] = row[f"intra_{kind}"] / row[f"inter_{kind}"]
    return row


def compare(rows: dict[str, dict[str, dict[str, Any]]], readings: Sequence[str]) -> dict[str, Any]:
    """Choose λ of each reading on validation, and test its difference from plain cross entropy over the seeds."""
    plain, compared = list(rows["plain 0"].values()), {}
    for name in readings:
        of_reading = {key: list(seeds.values()) for key, seeds in rows.items() if key.split()[0] == name}
        chosen = max(of_reading, key=lambda key: mean(row["validation_uar"] for row in of_reading[key]))
        differences = {}
        for column in COLUMNS:
            pairs = [(row[column], other[column]) for row, other in zip(of_reading[chosen], plain, strict=True)]
            values = [a - b for a, b in pairs if a is not None and b is not None]
            enough = len(values) > 1 and stdev(values) > 0
            differences[column] = {
                "mean": mean(values) if values else None,
                "standard_deviation": stdev(values) if len(values) > 1 else None,
                "lower_in": sum(value < 0 for value in values),
                "higher_in": sum(value > 0 for value in values),
                "p_value": float(ttest_rel(*zip(*pairs, strict=True)).pvalue) if enough else None,
            }
        compared[name] = {"chosen": chosen, "difference_from_plain": differences}
    return compared


def print_comparison(condition: str, compared: dict[str, Any], rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print a line for plain cross entropy and for each reading: means, and the number of seeds above plain."""
    print(f"\n{condition}: mean over seeds; in brackets the seeds in which it is higher than plain cross entropy")
    print(f"{'':<20}" + "".join(f"{column:>22}" for column in COLUMNS))
    for name, key in [("plain", "plain 0"), *((each, compared[each]["chosen"]) for each in compared)]:
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in rows[key].values() if row[column] is not None]
            above = "" if name == "plain" else f" ({compared[name]['difference_from_plain'][column]['higher_in']})"
            cells.append((f"{mean(values):.3f}" if values else "-") + above)
        print(f"{key:<20}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--num_clips", type=int, default=5000, help="of which a fifth is tested on")
    parser.add_argument("--readings", nargs="+", choices=COMPACT_LOSSES, default=list(COMPACT_LOSSES))
    parser.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), help="values of λ")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--work_dir", type=Path, default=Path("runs/compact_loss"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    options, for_training = parser.parse_known_args()
    found = run_study(options, for_training)
    if options.output:
        about = {"data": "rendered faces", "num_clips": options.num_clips, "seeds": options.seeds}
        write_results(options.output, about | {"conditions": found, "environment": describe_environment()})


if __name__ == "__main__":
    main()
