"""The main job from end to end, on data that it makes itself: `make demo`.

Renders faces in DFEW's layout, fine-tunes the weights that the package ships with the compact loss and, beside it,
with plain cross entropy, evaluates both on the held-out fold, with frames in order and shuffled, and classifies a
video of that fold with the saved model in a new process. Then `stt timeline` reads a rendered film of two people. The
numbers show that the machinery works, and say nothing about real faces.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import yaml
from tqdm import tqdm
from transformers.utils import logging

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import MARKER, ORDER_ONLY, render_film, write_rendered_dfew, write_video
from modeling_stt import pretrained
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.plots import plot_confusion_matrix
from modeling_stt.training.results import RESULTS_FILE, write_results

EXAMPLES = Path(__file__).parent
RECIPE = EXAMPLES / "recipes" / "demo.yaml"
DATA = "RenderedDFEW"
# Clips of two seconds, simple enough to learn from few; fear is surprise backwards, so that a model must use time.
FACES: dict[str, Any] = {
    "num_frames": 24,
    "frames_per_second": 12,
    "image_size": 80,
    "margin": pretrained.face_crop()["margin"],  # of the shipped weights, which are fine-tuned on them
    "balance": "equal",
    "order_only": True,
    "plain": True,
}
LOSSES = {"compact": 0.1, "plain": 0.0}  # λ of the compact loss; 0 is plain cross entropy

# How others use a saved model: with its folder only, without importing anything of ours.
CLASSIFY = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
from transformers.utils import logging
logging.disable_progress_bar()
logging.set_verbosity_error()  # AutoModel leaves the head out, and would draw a table of it
folder, video = sys.argv[1:]
for auto_class in (AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor):
    print(f"{auto_class.__name__} gives {type(auto_class.from_pretrained(folder, trust_remote_code=True)).__name__}")
for answer in pipeline("video-classification", model=folder, trust_remote_code=True)(video, top_k=3):
    print(f"{answer['label']:<10} {answer['score']:.3f}")
"""


def run_demo(output_dir: Path, num_clips: int, options: list[str]) -> dict[str, Any]:
    """Make the data, train and score both models, write `results.json`; the options go to the training."""
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / DATA / MARKER).is_file():
        raise SystemExit(f"{output_dir} is not empty and holds no demo: choose another --output_dir.")
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in LOSSES:
        shutil.rmtree(output_dir / name, ignore_errors=True)
    data_dir = write_rendered_dfew(output_dir / DATA, num_clips=num_clips, **FACES)
    train_side_by_side(output_dir, [f"--data_dir={data_dir}", *options])
    results: dict[str, Any] = {"data": "faces rendered by this package; no DFEW data", "num_clips": num_clips}
    for name in LOSSES:
        results[name] = json.loads((output_dir / name / RESULTS_FILE).read_text(encoding="utf-8"))
    results["environment"] = describe_environment()
    write_results(output_dir / RESULTS_FILE, results)
    scores = results["compact"]["test"]
    title = f"Rendered faces, held-out fold: WAR {100 * scores['war']:.1f}, UAR {100 * scores['uar']:.1f}"
    plot_confusion_matrix(scores["confusion_matrix"], scores["class_names"], output_dir / "confusion.png", title)
    return results


def train_side_by_side(output_dir: Path, options: list[str]) -> None:
    """Train with both losses at once, each on its share of the cores: a model this small gains nothing from more."""
    threads = str(max(1, (os.cpu_count() or 1) // len(LOSSES)))
    environment = os.environ | {"OMP_NUM_THREADS": threads}
    logs = {name: output_dir / f"{name}.log" for name in LOSSES}
    processes = {}
    for name, weight in LOSSES.items():
        command = [sys.executable, str(EXAMPLES / "train.py"), f"--recipe={RECIPE}", f"--compact_weight={weight}"]
        command += [f"--model={pretrained.folder()}", "--model_config={}"]  # instead of the recipe's new model
        command += [f"--output_dir={output_dir / name}", "--audit=True", "--disable_tqdm=True", *options]
        with logs[name].open("w") as log:
            processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    epochs = len(LOSSES) * yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["num_train_epochs"]
    with tqdm(total=epochs, desc="training with either loss", unit="epoch") as bar:
        while any(process.poll() is None for process in processes.values()):
            time.sleep(1)
            bar.update(sum(log.read_text().count("'eval_loss'") for log in logs.values()) - bar.n)
    for name, process in processes.items():
        if process.returncode:
            raise SystemExit(f"Training with the {name} loss failed:\n{logs[name].read_text()[-3000:]}")


def print_table(results: dict[str, Any]) -> None:
    """Recall of each class, WAR, UAR and the two distances, for both losses and both orders of frames."""
    columns = [scores for name in LOSSES for scores in (results[name]["test"], results[name]["audit"]["shuffled"])]
    print(f"\n{'Held-out fold of rendered faces':<36}{'compact loss (our reading)':>28}{'plain cross entropy':>28}")
    print(f"{'':<36}" + 2 * f"{'frames in order':>16}{'shuffled':>12}")

    def row(name: str, values: list[float | None], factor: int = 100) -> None:
        cells = ["-" if value is None else f"{factor * value:.{1 if factor > 1 else 3}f}" for value in values]
        print(f"{name:<36}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (16, 12, 16, 12), strict=True)))

    for i, name in enumerate(results["compact"]["classes"]):
        note = " (order only)" if name in ORDER_ONLY else ""
        row(f"recall {name}{note}, %", [column["recalls"][i] for column in columns])
    row("WAR, %", [column["war"] for column in columns])
    row("UAR, %", [column["uar"] for column in columns])
    row("intra-class distance (1 - cos)", [column["intra_distance"] for column in columns], factor=1)
    row("inter-class distance (1 - cos)", [column["inter_distance"] for column in columns], factor=1)


def classify_in_new_process(output_dir: Path) -> None:
    """Classify one original video of the test fold in a process that has only the folder of the saved model."""
    rows = load_dataset("dfew", "fold_1", data_dir=output_dir / DATA, split="test", frames="original")
    video, label = rows[0]["video"]["path"], rows.features["label"].int2str(rows[0]["label"])
    print(f"\nA new process that does not import this package, asked for {Path(video).name} ({label}), answers:")
    command = [sys.executable, "-I", "-c", CLASSIFY, str((output_dir / "compact").resolve()), video]
    subprocess.run(command, check=True, cwd=output_dir)


def read_film(output_dir: Path) -> None:
    """Render a film of two people and read it as `stt timeline` does, with the weights that the package ships."""
    two = [(22, ("neutral", "happy", "surprise")), (28, ("sad", "neutral", "angry"))]
    film, chart = output_dir / "two_people.mp4", output_dir / "two_people.png"
    write_video(film, render_film(two, seconds=9, image_size=160))
    model = pretrained.folder()
    shown = " and ".join(", ".join(labels) for _, labels in two)
    print(f"\nThe left and the right person of {film.name} show {shown}. {model.name} sees:", flush=True)
    command = [
        sys.executable,
        "-m",
        "modeling_stt.cli",
        "timeline",
        str(film),
        "--model",
        str(model),
        "--chart",
        str(chart),
    ]
    subprocess.run(command, check=True)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("demo"), help="folder to write; a demo in it is redone"
    )
    parser.add_argument("--num_clips", type=int, default=500)
    arguments, options = parser.parse_known_args()
    start = time.monotonic()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    results = run_demo(arguments.output_dir, arguments.num_clips, options)
    print_table(results)
    classify_in_new_process(arguments.output_dir)
    read_film(arguments.output_dir)
    seconds = time.monotonic() - start
    written = "results.json, confusion.png, two_people.png and the model compact/"
    print(f"\nWrote {written} to {arguments.output_dir}/ in {seconds:.0f} s.")


if __name__ == "__main__":
    main()
