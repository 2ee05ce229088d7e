"""The weights that are shipped, on rendered people of the held-out fold: scores by sex, age, origin and more.

    python benchmarks/rendered_groups.py --data_dir FACES --output benchmarks/results/rendered_groups.json

FACES is the tree that examples/train_rendered.py wrote, runs/rendered/faces. The renderer knows who is shown: its
`truth.csv` gives the groups. Differences between groups say how the model does on renders of such people, not on
people.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import add_truth
from modeling_stt import pretrained
from modeling_stt.loading import load_model
from modeling_stt.training import ClipDataset
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

ORIGINS = ("african", "asian", "caucasian")
FACTS = ("male", "age", "glasses", "talks", "shown_level", "identity", *ORIGINS)

# Name of a division → the group that a row belongs to.
DIVISIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "sex": lambda row: "male" if row["truth_male"] > 0.5 else "female",
    "age": lambda row: row["truth_age"],
    "origin (largest part)": lambda row: max(ORIGINS, key=lambda origin: row[f"truth_{origin}"]),
    "glasses": lambda row: "with" if row["truth_glasses"] else "without",
    "speech": lambda row: "talks" if row["truth_talks"] else "silent",
}


def scores(labels: np.ndarray, answers: np.ndarray, names: list[str]) -> dict[str, Any]:
    """WAR, UAR, and the share of neutral clips that are called angry or sad."""
    recalls = {name: float((answers[labels == k] == k).mean()) for k, name in enumerate(names) if (labels == k).any()}
    resting = answers[labels == names.index("neutral")]
    wrong = np.isin(resting, [names.index("angry"), names.index("sad")])
    return {
        "num_clips": len(labels),
        "war": float((labels == answers).mean()),
        "uar": float(np.mean(list(recalls.values()))),
        "recalls": recalls,
        "neutral_called_angry_or_sad": float(wrong.mean()) if len(wrong) else None,
    }


def main() -> None:
    """Score all clips of the test fold and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--model", help="STT of DFEW's classes (default: the weights that are shipped)")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(arguments.model or pretrained.folder())
    names = model.config.class_names
    rows = load_dataset("dfew", "fold_1", data_dir=arguments.data_dir, split="test")
    clips = ClipDataset(rows, processor, labels=names)
    answers = []
    for i in tqdm(range(len(clips)), unit="clip"):
        with torch.inference_mode():
            answers.append(int(model(clips[i]["pixel_values"][None]).logits.argmax()))
    labels, given = clips.label_ids, np.array(answers)
    found: dict[str, Any] = {"all": scores(labels, given, names)}
    truth = list(add_truth(rows, arguments.data_dir, FACTS).select_columns([f"truth_{fact}" for fact in FACTS]))
    found["all"]["num_people"] = len({row["truth_identity"] for row in truth})
    for division, group_of in DIVISIONS.items():
        groups = np.array([group_of(row) for row in truth])
        found[division] = {
            group: scores(labels[groups == group], given[groups == group], names)
            for group in sorted(set(groups.tolist()))
        }
    for division, groups in found.items():
        for group, row in {"": groups}.items() if division == "all" else groups.items():
            print(f"{division:24}{group:12}{row['num_clips']:6} clips  WAR {row['war']:.3f}  UAR {row['uar']:.3f}")
    if arguments.output:
        write_results(arguments.output, {"groups": found, "environment": describe_environment()})


if __name__ == "__main__":
    main()
