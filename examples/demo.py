"""The main job from end to end, on data that it makes itself: `make demo`.

Draws synthetic faces in DFEW's layout, trains a small STT with the compact loss and the same model with plain cross
entropy, scores both on the held-out fold, with frames in order and shuffled, and classifies a video of that fold with
the saved model in a new process. The numbers say that the machinery works. They say nothing about real faces.
"""

import argparse
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from train import train

from dataset_scripts import load_dataset
from dataset_scripts.synthetic_faces import ORDER_ONLY, write_synthetic_dfew
from modeling_stt import STTVideoProcessor
from modeling_stt.training import ClipDataset, FoldRun
from modeling_stt.training.protocol import test_scores
from modeling_stt.training.results import describe_environment, plot_confusion_matrix, write_results

RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"
LOSSES = {"compact": 0.1, "plain": 0.0}  # λ of the compact loss; 0 is plain cross entropy

# What a stranger does with a saved model: no package of ours, only the folder.
CLASSIFY = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
folder, video = sys.argv[1:]
for auto_class in (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor):
    print(f"{auto_class.__name__} gives {type(auto_class.from_pretrained(folder, trust_remote_code=True)).__name__}")
for answer in pipeline("video-classification", model=folder, trust_remote_code=True)(video, top_k=3):
    print(f"{answer['label']:<10} {answer['score']:.3f}")
"""


def run_demo(output_dir: Path, num_clips: int, arguments: list[str]) -> dict[str, Any]:
    """Make the data, train and score both models, write `results.json`; further arguments go to the training."""
    data_dir = write_synthetic_dfew(output_dir / "SyntheticDFEW", num_clips=num_clips, image_size=112)
    results: dict[str, Any] = {"data": "synthetic faces, drawn by this package; no DFEW data", "num_clips": num_clips}
    for name, weight in LOSSES.items():
        print(f"\nTraining with the {name} loss (λ = {weight})")
        options = [f"--data_dir={data_dir}", f"--output_dir={output_dir / name}", f"--compact_weight={weight}"]
        run = train([f"--recipe={RECIPE}", *options, *arguments])
        results[name] = run.results | {"test_shuffled": score_shuffled(run, output_dir / name, data_dir)}
    results["environment"] = describe_environment()
    write_results(output_dir / "results.json", results)
    scores = results["compact"]["test"]
    title = f"Synthetic faces, held-out fold: WAR {100 * scores['war']:.1f}, UAR {100 * scores['uar']:.1f}"
    plot_confusion_matrix(scores["confusion_matrix"], scores["class_names"], output_dir / "confusion.png", title)
    return results


def score_shuffled(run: FoldRun, model_dir: Path, data_dir: Path) -> dict[str, Any]:
    """Score the test fold with the sampled frames of every clip in random order."""
    rows = load_dataset("dfew", f"fold_{run.results['fold']}", data_dir=data_dir, split="test")
    clips = ClipDataset(rows, STTVideoProcessor.from_pretrained(model_dir), shuffle_time=True)
    prediction = run.trainer.predict(clips, metric_key_prefix="test")
    return test_scores(prediction, run.results["classes"])


def print_table(results: dict[str, Any]) -> None:
    """Recall of each class, WAR, UAR and the two distances, for both losses and both orders of frames."""
    columns = [results[name][order] for name in LOSSES for order in ("test", "test_shuffled")]
    print(
        "\nHeld-out fold of synthetic faces, per cent" + 9 * " " + "compact loss (our reading)     plain cross entropy"
    )
    print(f"{'':<42}" + 2 * f"{'in order':>13}{'shuffled':>13}")

    def row(name: str, values: list[float | None]) -> None:
        print(f"{name:<42}" + "".join("            -" if v is None else f"{100 * v:13.1f}" for v in values))

    for i, name in enumerate(results["compact"]["classes"]):
        note = " (differs by order of frames only)" if name in ORDER_ONLY else ""
        row(f"recall {name}{note}", [column["recalls"][i] for column in columns])
    for name in ("war", "uar"):
        row(name.upper(), [column[name] for column in columns])
    for name in ("intra_distance", "inter_distance"):
        row(f"{name.replace('_', '-class ')} of features, 1 - cos", [column[name] for column in columns])


def classify_in_new_process(output_dir: Path) -> None:
    """Classify one original video of the test fold with the saved model, as somebody who was only given its folder."""
    rows = load_dataset("dfew", "fold_1", data_dir=output_dir / "SyntheticDFEW", split="test", frames="original")
    video = rows[0]["video"]["path"]
    print(f"\nIn a new process: {video} shows {rows.features['label'].int2str(rows[0]['label'])}. The model says:")
    command = [sys.executable, "-I", "-c", CLASSIFY, str((output_dir / "compact").resolve()), video]
    subprocess.run(command, check=True, cwd=output_dir)


def main() -> None:
    """Run the demo in a fresh folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("demo"), help="folder to write; a demo in it is redone"
    )
    parser.add_argument("--num_clips", type=int, default=500)
    arguments, for_training = parser.parse_known_args()
    logging.basicConfig(level=logging.WARNING)
    start = time.monotonic()
    for name in ("SyntheticDFEW", *LOSSES):
        shutil.rmtree(arguments.output_dir / name, ignore_errors=True)
    results = run_demo(arguments.output_dir, arguments.num_clips, for_training)
    print_table(results)
    classify_in_new_process(arguments.output_dir)
    print(f"\nWrote results.json, confusion.png and the model {arguments.output_dir / 'compact'}.", end=" ")
    print(f"{time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
