"""Effect of the answers to class imbalance, and of training on votes, on WAR and UAR on imbalanced synthetic faces.

    python benchmarks/class_imbalance.py --seeds 0 1 2 --jobs 2 --output benchmarks/results/class_imbalance.json

Renders faces in DFEW's class proportions (the rarest class has 1.2 % of the clips), trains the demo's model on
fold 1 once a seed and option, everything else alike, and prints WAR, UAR and the recall of the three rarest classes on
the held-out fold, whose people training never saw. The data is the same each time; the seed is that of the model's
first weights, of the order of clips and of their augmentation.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tqdm import tqdm

from dataset_scripts.rendered_faces import write_rendered_dfew
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "plain": [],
    "class_weighting inverse_sqrt": ["--class_weighting=inverse_sqrt"],
    "class_weighting inverse": ["--class_weighting=inverse"],
    "class_balanced_sampler": ["--class_balanced_sampler=True"],
    "soft_labels": ["--soft_labels=True"],
}
RAREST = ("surprise", "fear", "disgust")
COLUMNS = ("war", "uar", *RAREST)


def train(folder: Path, data_dir: Path, options: list[str]) -> dict[str, Any]:
    """One run in a process of its own; its results.json, which an earlier call may have left."""
    results = folder / "results.json"
    if not results.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "examples/train.py"), f"--recipe={ROOT / 'examples/recipes/demo.yaml'}"]
        command += [f"--data_dir={data_dir}", f"--output_dir={folder}", "--resume_from_checkpoint=last", *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (folder / "train.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)
    return json.loads(results.read_text(encoding="utf-8"))


def summarise(results: dict[str, Any]) -> dict[str, float]:
    """WAR, UAR and the recall of the rarest classes."""
    test = results["test"]
    recalls = dict(zip(results["classes"], test["recalls"], strict=True))
    return {"war": test["war"], "uar": test["uar"]} | {name: recalls[name] for name in RAREST}


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Mean and spread over the seeds of each option, in per cent."""
    print(f"{'mean ± standard deviation, per cent':<36}" + "".join(f"{column:>16}" for column in COLUMNS))
    for name, runs in rows.items():
        cells = []
        for column in COLUMNS:
            values = [100 * run[column] for run in runs]
            cells.append(f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else ""))
        print(f"{name:<36}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    """Train with every option and seed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num_clips", type=int, default=1500, help="clips of all five folds together")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one core each")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/class_imbalance"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments, for_training = parser.parse_known_args()
    data_dir = arguments.work_dir / "RenderedDFEW"
    if not (data_dir / "Annotation" / "annotation.xlsx").is_file():
        write_rendered_dfew(data_dir, num_clips=arguments.num_clips, image_size=112, balance="dfew", videos=False)
    runs = [(name, seed) for seed in arguments.seeds for name in OPTIONS]

    def work(run: tuple[str, int]) -> dict[str, Any]:
        name, seed = run
        folder = arguments.work_dir / f"{name.replace(' ', '_')}_seed_{seed}"
        return train(folder, data_dir, [f"--seed={seed}", *OPTIONS[name], *for_training])

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(tqdm(pool.map(work, runs), total=len(runs), unit="run"))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in OPTIONS}
    for (name, _), result in zip(runs, results, strict=True):
        rows[name].append(summarise(result))
    print_table(rows)
    if arguments.output:
        found = {"data": "synthetic faces", "num_clips": arguments.num_clips, "seeds": arguments.seeds, "rows": rows}
        found["clips"] = results[0]["clips"]
        found["training"] = {"options": OPTIONS, "given": for_training}
        write_results(arguments.output, found | {"environment": results[0]["environment"] | describe_environment()})


if __name__ == "__main__":
    main()
