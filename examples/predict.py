"""Classify face videos with a trained STT.

    python examples/predict.py clip.mp4 other.webm frames_folder/ --model runs/dfew_fold_1

Prints the most likely expressions of each video with their probabilities. STT is trained on clips cropped to one face:
a video that shows more than the face must be cropped first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

import modeling_stt  # noqa: F401 (makes STT known to the Auto classes)
from modeling_stt.timeline.attention import to_pictures

READ_ERRORS = (OSError, ValueError)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders of numbered frames")
    parser.add_argument("--model", required=True, help="folder of a trained model, or its name on the Hub")
    parser.add_argument("--top_k", type=int, default=3, help="expressions to print for each video")
    parser.add_argument(
        "--picture", type=Path, help="draw the frames that the model saw of the last video, and scores"
    )
    arguments = parser.parse_args()
    if arguments.top_k < 1:
        parser.error(f"--top_k {arguments.top_k} must be at least 1")
    if arguments.picture and not arguments.picture.parent.is_dir():
        parser.error(f"--picture {arguments.picture}: there is no folder {arguments.picture.parent}")
    return arguments


def draw(frames: np.ndarray, scores: dict[str, float], path: Path) -> None:
    """Draw the frames `(T, H, W, 3)` of a clip in time order above the probabilities of the classes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(len(frames), 4), layout="constrained")
    grid = figure.add_gridspec(2, len(frames), height_ratios=(1, 2))
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(frame)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    bars = axes.barh(list(scores), list(scores.values()))
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.set(xlim=(0, 1.05), xlabel="probability")
    axes.invert_yaxis()
    figure.savefig(path, dpi=100)


def main() -> int:
    """Classify every video; one that cannot be read is reported, makes the exit status 1, and stops no other."""
    arguments = parse_arguments()
    model = AutoModelForVideoClassification.from_pretrained(arguments.model).eval()
    processor = AutoVideoProcessor.from_pretrained(arguments.model)
    failures = 0
    for video in arguments.videos:
        try:
            clip = processor(video, return_tensors="pt")["pixel_values"]
        except READ_ERRORS as error:
            print(f"{video}: not classified. {error}", file=sys.stderr)
            failures += 1
            continue
        with torch.inference_mode():
            probabilities = model(clip).logits[0].softmax(dim=-1).tolist()
        scores = {model.config.id2label[i]: p for i, p in enumerate(probabilities)}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[: arguments.top_k]
        print(f"{video}: " + ", ".join(f"{name} {scores[name]:.3f}" for name in best))
        if arguments.picture:
            draw(to_pictures(clip[0], processor), scores, arguments.picture)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
