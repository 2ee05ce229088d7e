"""Classify the face in each video with a trained STT.

    python examples/predict.py film.mp4 other.webm --model runs/dfew_fold_1
    python examples/predict.py face_clip.mp4 frames_folder/ --clip --model runs/dfew_fold_1

Prints the most likely expressions of each video with their probabilities. STT is trained on clips cropped to one face,
so the face that is longest in sight is found and cropped first, and the probabilities of its windows are averaged.
`--clip` treats the videos as clips that are cropped already, like those of data sets; folders of frames always are.
`stt timeline` gives every face and window with its time.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_stt import pretrained
from modeling_stt.loading import ModelError, load_model, refuse_non_finite_scores
from modeling_stt.timeline import Timeline
from modeling_stt.timeline.attention import to_pictures
from modeling_stt.training.plots import plot_clip


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders of numbered frames")
    parser.add_argument(
        "--model", default=pretrained.folder(), help="folder or name on the Hub (default: the package's own weights)"
    )
    parser.add_argument("--clip", action="store_true", help="the videos are cropped to one face already")
    parser.add_argument("--top_k", type=int, default=3, help="expressions to print for each video")
    parser.add_argument(
        "--picture", type=Path, help="draw the faces that the model saw in the last video, and their scores"
    )
    parsed = parser.parse_args(arguments)
    if parsed.top_k < 1:
        parser.error(f"--top_k {parsed.top_k} must be at least 1")
    if parsed.picture and not parsed.picture.parent.is_dir():
        parser.error(f"--picture {parsed.picture}: there is no folder {parsed.picture.parent}")
    return parsed


def classify_clip(video: Path, model: Any, processor: Any) -> tuple[dict[str, float], np.ndarray]:
    """Classify a clip of one face as a whole.

    Returns:
        Class → probability, and the frames that the model saw, `(T, H, W, 3)` uint8.

    Raises:
        OSError, ValueError: For a video that cannot be read.
        ModelError: For scores that are not finite.
    """
    clip = processor(video, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        probabilities = model(clip).logits[0].float().softmax(dim=-1)
    refuse_non_finite_scores(probabilities, f"The model {model.config._name_or_path}")
    scores = {model.config.id2label[i]: p for i, p in enumerate(probabilities.tolist())}
    return scores, to_pictures(clip[0], processor)


def classify_face(video: Path, timeline: Timeline) -> tuple[dict[str, float], np.ndarray]:
    """Find the face that is longest in sight, and average the probabilities of its windows.

    Returns and raises as `classify_clip`, with a picture of each window if the timeline makes them; ValueError also
    where no face is found.
    """
    rows = [row for row in timeline(str(video)) if row.scores is not None]
    if not rows:
        raise ValueError(f"{video}: no face was found. A clip that shows nothing but a face needs --clip.")
    [(track, _)] = Counter(row.track for row in rows).most_common(1)
    answers = [row for row in rows if row.track == track]
    scores = {name: float(np.mean([(row.scores or {})[name] for row in answers])) for name in timeline.class_names}
    return scores, np.array([row.thumbnail for row in answers if row.thumbnail is not None])


def predict(arguments: Sequence[str]) -> int:
    """Classify every video; one that cannot be read is reported, makes the exit status 1, and stops no other."""
    options = parse_arguments(arguments)
    model, processor = load_model(options.model)
    timeline = None
    failures = 0
    for video in options.videos:
        try:
            if options.clip or video.is_dir():
                scores, pictures = classify_clip(video, model, processor)
            else:
                timeline = timeline or Timeline(model, processor=processor, thumbnails=options.picture is not None)
                scores, pictures = classify_face(video, timeline)
        except ModelError:
            raise
        except (OSError, ValueError) as error:
            print(f"{video}: not classified. {error}", file=sys.stderr)
            failures += 1
            continue
        best = sorted(scores, key=scores.__getitem__, reverse=True)[: options.top_k]
        print(f"{video}: " + ", ".join(f"{name} {scores[name]:.3f}" for name in best))
        if options.picture and video == options.videos[-1]:
            plot_clip(pictures, scores, options.picture)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(predict(sys.argv[1:]))
    except (ImportError, ModelError) as error:
        sys.exit(str(error))
