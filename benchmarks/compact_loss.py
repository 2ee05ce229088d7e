"""What the compact loss does to the features' distances and to the scores, over several seeds.

    python benchmarks/compact_loss.py --seeds 0 1 2 --output benchmarks/results/compact_loss.json

Runs the demo (synthetic faces, small model, both losses) once a seed. The data is the same each time; the seed is that
of the model's first weights, of the order of clips and of their augmentation. Prints one line a seed and loss, and
mean and spread of the difference between the two losses, which share all but λ in each pair.
"""

import argparse
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from dataset_scripts.rendered_faces import ORDER_ONLY
from demo import LOSSES, run_demo
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

COLUMNS = ("war", "uar", "order_only", "order_only_shuffled", "intra_distance", "inter_distance")


def summarise(run: dict[str, Any]) -> dict[str, float]:
    """The numbers of one loss and seed: scores, mean recall of the pair that differs by order only, distances."""
    pair = [run["classes"].index(name) for name in ORDER_ONLY]
    row = {name: run["test"][name] for name in ("war", "uar", "intra_distance", "inter_distance")}
    row["order_only"] = mean(run["test"]["recalls"][i] for i in pair)
    row["order_only_shuffled"] = mean(run["test_shuffled"]["recalls"][i] for i in pair)
    return row


def print_row(name: str, row: dict[str, float], sign: str = "") -> None:
    """One line of the table: scores in per cent, distances as they are."""
    cells = [row[name] if name.endswith("distance") else 100 * row[name] for name in COLUMNS]
    digits = [3 if name.endswith("distance") else 1 for name in COLUMNS]
    print(f"{name:<28}" + "".join(f"{cell:{sign}21.{d}f}" for cell, d in zip(cells, digits, strict=True)), flush=True)


def main() -> None:
    """Run the demo once a seed and compare the losses pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num_clips", type=int, default=500)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/compact_loss"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments, for_training = parser.parse_known_args()
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in LOSSES}
    for seed in arguments.seeds:
        folder = arguments.work_dir / f"seed_{seed}"
        results = run_demo(folder, arguments.num_clips, [f"--seed={seed}", *for_training])
        for name in LOSSES:
            rows[name][str(seed)] = summarise(results[name])
    print(f"{'scores in per cent':<28}" + "".join(f"{column:>21}" for column in COLUMNS))
    for seed in map(str, arguments.seeds):
        for name, weight in LOSSES.items():
            print_row(f"seed {seed}, {name} (λ = {weight})", rows[name][seed])
    pairs = list(zip(rows["compact"].values(), rows["plain"].values(), strict=True))
    differences = {column: [a[column] - b[column] for a, b in pairs] for column in COLUMNS}
    print_row("mean of compact − plain", {column: mean(values) for column, values in differences.items()}, "+")
    if len(pairs) > 1:
        print_row("spread (standard deviation)", {column: stdev(values) for column, values in differences.items()})
    if arguments.output:
        found = {"data": "synthetic faces", "num_clips": arguments.num_clips, "rows": rows, "differences": differences}
        write_results(arguments.output, found | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
