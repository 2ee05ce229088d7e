"""Changes of picture quality in training: what leaving out one of them costs, on renders and on real faces.

    python benchmarks/augmentation.py --data_dir FACES --output benchmarks/results/augmentation.json

FACES is a tree of examples/train_rendered.py, `--folder` that of real_faces.py. With each set of changes the small
backbone of recipes/rendered.yaml is trained for a few passes over the frames of fold 1, from one seed; the answer for
a window or clip is the mean of its frames' probabilities. So short a training shows large effects only.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from real_faces import DFEW_CLASSES, fetch, read_samples, summarize
from torch.nn import functional as F

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import add_truth
from dataset_scripts.rendered_faces.motion import HIDDEN, SHOWN
from modeling_stt import STTConfig
from modeling_stt.timeline import FaceCrop
from modeling_stt.training import ClipAugment, ClipPhotometry
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.frames import FrameModel, FrameRecipe, load_frames, pretrain_backbone
from modeling_stt.training.results import write_results

RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "rendered.yaml"


@torch.inference_mode()
def answer(model: FrameModel, pixels: torch.Tensor, size: int) -> np.ndarray:
    """Mean probabilities `(K,)` of pictures `(T, 3, H, W)` uint8."""
    pixels = F.interpolate(pixels.float() / 255, size=(size, size), mode="bilinear", antialias=True)
    return model(pixels)[0].softmax(dim=-1).mean(0).numpy()


def main() -> None:
    """Train with all changes, with none, and with all but one; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/real_faces"))
    parser.add_argument("--num_clips", type=int, default=4000, help="training clips")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = yaml.safe_load(RECIPE.read_text())
    config, photometry = STTConfig(**settings["model_config"]), settings["photometry"]
    size, crop = config.image_size, FaceCrop(size=config.image_size)
    real = read_samples(fetch(arguments.folder), [crop])
    parts = {}
    for split, count in (("train", arguments.num_clips), ("test", 700)):
        rows = load_dataset("dfew", "fold_1", data_dir=arguments.data_dir, split=f"{split}[:{count}]")
        rows = add_truth(rows, arguments.data_dir, ["expression", "level", "action_units"])
        parts[split] = (rows, load_frames(rows, config.class_names, size, HIDDEN, SHOWN))
    rows, frames = parts["test"]
    ends = np.cumsum([len(clip) for clip in rows["frames"]]).tolist()
    clips = [frames.pixels[end - len(clip) : end] for end, clip in zip(ends, rows["frames"], strict=True)]
    labels = np.array(rows["label"])
    variants = {"all": photometry, "none": {}}
    variants |= {f"without {name}": {k: v for k, v in photometry.items() if k != name} for name in photometry}
    found: dict[str, Any] = {}
    for name, changes in variants.items():
        augment = ClipAugment(scale=(settings["smallest_crop"], 1.0), photometry=ClipPhotometry(**changes))
        recipe = FrameRecipe(epochs=arguments.epochs, bf16=arguments.bf16)
        with tempfile.TemporaryDirectory() as folder:
            model = pretrain_backbone(config, parts["train"][1], folder, augment, recipe)
        given = np.array([answer(model, clip, size).argmax() for clip in clips])
        order = [config.class_names.index(label) for label in DFEW_CLASSES]
        answers = [answer(model, torch.from_numpy(s.crops[crop]).permute(0, 3, 1, 2), size)[order] for s in real]
        windows = [i for i, sample in enumerate(real) if sample.end_s]
        found[name] = {
            "rendered_uar": float(np.mean([(given[labels == k] == k).mean() for k in np.unique(labels)])),
            "real_windows": summarize([real[i] for i in windows], [answers[i] for i in windows]),
        }
        row = found[name]["real_windows"]
        recalls = ", ".join(f"{label} {recall:.2f}" for label, recall in row["recalls"].items())
        print(
            f"{name:20} rendered UAR {found[name]['rendered_uar']:.3f}, real WAR {row['war']:.2f} ({recalls})",
            flush=True,
        )
        if arguments.output:
            about = {"num_clips": arguments.num_clips, "epochs": arguments.epochs, "photometry": photometry}
            write_results(arguments.output, about | {"runs": found, "environment": describe_environment()})


if __name__ == "__main__":
    main()
