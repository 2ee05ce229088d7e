"""Changes of picture quality in training: what leaving out one of them costs, on renders and on real faces.

    python benchmarks/augmentation.py --data_dir FACES --output benchmarks/results/augmentation.json

FACES is a tree of examples/train_rendered.py, `--folder` that of real_faces.py. With each set of changes the small
backbone of recipes/rendered.yaml is trained for a few passes over the frames of fold 1; the answer for a window or a
clip is the mean of its frames' probabilities. Real faces are the windows and stills that are not kept aside. Runs of
one seed share first weights and the order of frames. So short a training shows large effects only. Runs that
`--output` has already are kept: the same command resumes.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from kept_runs import Run, is_done, read_runs, spread
from real_faces import DFEW_CLASSES, Sample, fetch, read_samples, summarize
from torch.nn import functional as F

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import add_truth
from dataset_scripts.rendered_faces.motion import HIDDEN, SHOWN
from modeling_stt import STTConfig
from modeling_stt.timeline import FaceCrop
from modeling_stt.timeline.crops import CONVENTION
from modeling_stt.training import ClipAugment, ClipPhotometry
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.frames import FrameModel, FrameRecipe, Frames, load_frames, pretrain_backbone
from modeling_stt.training.results import write_results

SCORES: dict[str, Callable[[Run], float]] = {
    "rendered_uar": lambda run: run["rendered_uar"],
    "real_war": lambda run: run["real"]["war"],
    "real_happy": lambda run: run["real"]["recalls"]["happy"],
    "real_neutral": lambda run: run["real"]["recalls"]["neutral"],
    "neutral_called_angry_or_sad": lambda run: run["real"]["neutral_called_angry_or_sad"],
}
RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "rendered.yaml"


@torch.inference_mode()
def answer(model: FrameModel, pixels: torch.Tensor, size: int) -> np.ndarray:
    """Mean probabilities `(K,)` of pictures `(T, 3, H, W)` uint8."""
    pixels = F.interpolate(pixels.float() / 255, size=(size, size), mode="bilinear", antialias=True)
    return model(pixels)[0].softmax(dim=-1).mean(0).numpy()


class Data(NamedTuple):
    """Frames to train on, rendered clips `(T, 3, S, S)` uint8 with their labels, and real windows and stills."""

    frames: Frames
    clips: list[torch.Tensor]
    labels: np.ndarray
    real: list[Sample]
    crop: FaceCrop


def read(arguments: argparse.Namespace, config: STTConfig) -> Data:
    """Read the rendered clips of fold 1 and the real faces, which are cut as the renders are."""
    crop = FaceCrop.from_dict(json.loads((arguments.data_dir / CONVENTION).read_text(encoding="utf-8")))
    parts = {}
    for split, count in (("train", arguments.num_clips), ("test", 700)):
        rows = load_dataset("dfew", "fold_1", data_dir=arguments.data_dir, split=f"{split}[:{count}]")
        rows = add_truth(rows, arguments.data_dir, ["expression", "level", "action_units"])
        parts[split] = (rows, load_frames(rows, config.class_names, config.image_size, HIDDEN, SHOWN))
    rows, frames = parts["test"]
    ends = np.cumsum([len(clip) for clip in rows["frames"]]).tolist()
    clips = [frames.pixels[end - len(clip) : end] for end, clip in zip(ends, rows["frames"], strict=True)]
    real = [sample for sample in read_samples(fetch(arguments.folder), [crop]) if not sample.kept_aside]
    return Data(parts["train"][1], clips, np.array(rows["label"]), real, crop)


def measure(data: Data, config: STTConfig, augment: ClipAugment, recipe: FrameRecipe) -> dict[str, Any]:
    """Train with an augmentation, and score rendered clips and real faces."""
    with tempfile.TemporaryDirectory() as folder:
        model = pretrain_backbone(config, data.frames, folder, augment, recipe)
    size, labels = config.image_size, data.labels
    given = np.array([answer(model, clip, size).argmax() for clip in data.clips])
    order = [config.class_names.index(label) for label in DFEW_CLASSES]
    pictures = [torch.from_numpy(sample.crops[data.crop]).permute(0, 3, 1, 2) for sample in data.real]
    return {
        "rendered_uar": float(np.mean([(given[labels == k] == k).mean() for k in np.unique(labels)])),
        "real": summarize(data.real, [answer(model, picture, size)[order] for picture in pictures]),
    }


def summarize_runs(runs: list[Run]) -> list[dict[str, Any]]:
    """Mean and deviation of each set of changes over the seeds, and of the differences to "all" with the same seed."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(run["changes"], {})[run["seed"]] = run
    rows = []
    for name, by_seed in groups.items():
        row: dict[str, Any] = {"changes": name, "seeds": len(by_seed)}
        for score, read_score in SCORES.items():
            row[score] = spread([read_score(run) for run in by_seed.values()])
            both = by_seed.keys() & groups.get("all", {}).keys()
            row[f"{score}_less_all"] = spread([read_score(by_seed[s]) - read_score(groups["all"][s]) for s in both])
        rows.append(row)
    return rows


def main() -> None:
    """Train with all changes, with none, and with all but one; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/real_faces"))
    parser.add_argument("--num_clips", type=int, default=4000, help="training clips")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--image_size", type=int, help="of the network's pictures (default: the recipe's)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON to write, and to resume from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    size = arguments.image_size or recipe["model_config"]["image_size"]
    config, photometry = STTConfig(**recipe["model_config"] | {"image_size": size}), recipe["photometry"]
    settings = {name: getattr(arguments, name) for name in ("num_clips", "epochs", "bf16")} | {"image_size": size}
    settings["photometry"] = photometry
    try:
        runs = read_runs(arguments.output, settings)
    except ValueError as error:
        parser.error(str(error))
    data = read(arguments, config)
    variants = {"all": photometry, "none": {}}
    variants |= {f"without {name}": {k: v for k, v in photometry.items() if k != name} for name in photometry}
    for seed in range(arguments.seeds):
        for name, changes in variants.items():
            row: dict[str, Any] = {"changes": name, "seed": seed}
            if is_done(row, runs):
                continue
            augment = ClipAugment(scale=(recipe["smallest_crop"], 1.0), photometry=ClipPhotometry(**changes))
            frame_recipe = FrameRecipe(epochs=arguments.epochs, seed=seed, bf16=arguments.bf16)
            runs.append(row | measure(data, config, augment, frame_recipe))
            real = runs[-1]["real"]
            recalls = ", ".join(f"{label} {recall:.2f}" for label, recall in real["recalls"].items())
            print(
                f"{name:20} seed {seed}: rendered UAR {runs[-1]['rendered_uar']:.3f}, real WAR {real['war']:.2f} "
                f"({recalls})",
                flush=True,
            )
            if arguments.output:
                found = {"settings": settings, "summary": summarize_runs(runs), "runs": runs}
                write_results(arguments.output, found | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
