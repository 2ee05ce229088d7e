"""Initialisation: the share of the clips' differences that survives the first pass, and training from there.

    python benchmarks/initialisation.py --data_dir RENDERED --output benchmarks/results/initialisation.json
    python benchmarks/initialisation.py --data_dir RENDERED --output benchmarks/results/initialisation.json \
        --widths 512 --optimizer sgd --learning_rate 0.01

RENDERED is a tree of `python -m dataset_scripts.rendered_faces`. Three initialisations of the linear layers are
compared at several widths: a standard deviation of 0.02 at every width (the authors' code), the same scaled to the
width, 0.02 · √(512 / width), and 1 / √fan-in, which keeps the variance of a layer's inputs. At 512, the first two are
the same, and one is run.

*Share*: of the squared length of the class token after each block, and of the feature, the part that differs between
clips. *Training*: small models on the same clips, the same order and the same steps; accuracy on held-out people.
AdamW has 50 steps of warm-up and clips gradients; SGD has neither, as in the recipe of the full model (momentum 0.9,
weight decay 1e-4). Runs that `--output` has already are kept: the same command resumes after an interruption, and
other widths, optimisers, rates and steps are added.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from kept_runs import Run, is_done, read_runs, spread
from torch import nn
from tqdm import tqdm

from dataset_scripts import load_dataset
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.training import ClipDataset
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

INITIALISATIONS = ("fixed", "scaled", "fan_in")
SIZE, NUM_FRAMES = 48, 4
KEYS = ("width", "optimizer", "learning_rate", "steps", "initialisation")


def build(width: int, initialisation: str, seed: int, num_classes: int) -> STTForVideoClassification:
    """A small STT of this width, its linear layers initialised in one of the three ways."""
    torch.manual_seed(seed)
    config = STTConfig(
        image_size=SIZE,
        num_frames=NUM_FRAMES,
        backbone_stem_width=16,
        backbone_widths=(16, 32, 64),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        hidden_dropout_prob=0.0,
        drop_path_rate=0.0,
        num_labels=num_classes,
    )
    model = STTForVideoClassification(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            std = {"fixed": 0.02, "scaled": 0.02 * math.sqrt(512 / width), "fan_in": module.in_features**-0.5}
            nn.init.trunc_normal_(module.weight, std=std[initialisation], a=-2.0, b=2.0)
    return model


def share_between_clips(features: torch.Tensor) -> float:
    """The part of the mean squared length of `(B, D)` that differs between clips, in [0, 1]."""
    return float((features - features.mean(0)).pow(2).sum() / features.pow(2).sum())


@torch.no_grad()
def propagate(model: STTForVideoClassification, clips: torch.Tensor) -> dict[str, Any]:
    """Shares after each block and of the feature, for a model that was just made."""
    outputs = model.train()(clips, output_hidden_states=True)
    blocks = [share_between_clips(states[:, 0]) for states in outputs.hidden_states[1:]]
    return {"class_token": blocks, "feature": share_between_clips(outputs.pooler_output)}


def batches(clips: torch.Tensor, labels: torch.Tensor, size: int, steps: int, seed: int) -> Iterator[tuple]:
    """Random batches, half of them mirrored."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = torch.from_numpy(random.choice(len(clips), size, replace=False))
        pixels = clips[chosen].float() / 255
        yield (pixels.flip(-1) if random.random() < 0.5 else pixels), labels[chosen]


def make_optimizer(model: nn.Module, name: str, rate: float) -> torch.optim.Optimizer:
    """AdamW, or the SGD of the full model's recipe."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)


def train(
    model: STTForVideoClassification, data: dict[str, tuple[torch.Tensor, torch.Tensor]], run: Run, bf16: bool
) -> dict[str, float]:
    """Train for some steps; mean losses of the first and the last tenth, and the accuracy on the held-out clips."""
    steps, rate, warm = run["steps"], run["learning_rate"], run["optimizer"] == "adamw"
    optimizer = make_optimizer(model, run["optimizer"], rate)
    losses = []
    model.train()
    for step, (pixels, labels) in enumerate(batches(*data["train"], size=16, steps=steps, seed=run["seed"])):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) if warm else rate
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(pixels, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        if warm:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    clips, labels = data["test"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        answers = torch.cat([model(part.float() / 255).logits.argmax(1) for part in clips.split(64)])
    tenth = max(1, steps // 10)
    accuracy = (answers == labels).float().mean().item()
    return {"first_loss": mean(losses[:tenth]), "loss": mean(losses[-tenth:]), "accuracy": accuracy}


def read(data_dir: Path, split: str, num_clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips `(N, T, 3, S, S)` uint8 and labels of equally many of each class."""
    rows = load_dataset("dfew", "fold_1", data_dir=data_dir, split=split)
    labels = np.array(rows["label"])
    per_class = num_clips // len(set(labels.tolist()))
    chosen = np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in sorted(set(labels.tolist()))])
    size = {"height": SIZE, "width": SIZE}
    dataset = ClipDataset(rows.select(chosen), STTVideoProcessor(num_frames=NUM_FRAMES, size=size))
    items = [dataset[i] for i in tqdm(range(len(dataset)), desc=f"reading {split} clips")]
    pixels = torch.stack([(255 * item["pixel_values"]).round().to(torch.uint8) for item in items])
    return pixels, torch.tensor([item["labels"] for item in items])


def plan(arguments: argparse.Namespace) -> Iterator[Run]:
    """Keys of each run, seeds in the outermost loop: an interrupted call is complete for fewer of them."""
    training = {name: getattr(arguments, name) for name in ("optimizer", "learning_rate", "steps")}
    for seed in range(arguments.seeds):
        for width in arguments.widths:
            for initialisation in arguments.initialisations:
                if (width, initialisation) != (512, "scaled"):
                    yield {"width": width, **training, "initialisation": initialisation, "seed": seed}


def measure(
    arguments: argparse.Namespace, data: dict[str, tuple[torch.Tensor, torch.Tensor]], done: list[Run]
) -> Iterator[Run]:
    """Yield a row for each run that is not done yet."""
    num_classes = int(data["train"][1].max()) + 1
    some = data["train"][0][torch.randperm(len(data["train"][0]), generator=torch.Generator().manual_seed(0))[:64]]
    for run in plan(arguments):
        if not is_done(run, done):
            model = build(run["width"], run["initialisation"], run["seed"], num_classes)
            share = propagate(model, some.float() / 255)
            yield run | {"share": share} | train(model, data, run, arguments.bf16)


def summarize(runs: list[Run]) -> list[dict[str, Any]]:
    """Mean and deviation over the seeds, and of the differences to 0.02 with the same seed."""
    groups: dict[tuple, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in KEYS), {})[run["seed"]] = run
    rows = []
    for key, by_seed in sorted(groups.items()):
        row = dict(zip(KEYS, key, strict=True)) | {"seeds": len(by_seed)}
        row["share"] = mean(run["share"]["feature"] for run in by_seed.values())
        fixed = groups.get((*key[:-1], "fixed"), {})
        for name in ("first_loss", "loss", "accuracy"):
            row[name] = spread([run[name] for run in by_seed.values()])
            row[f"{name}_gain"] = spread(
                [by_seed[seed][name] - fixed[seed][name] for seed in by_seed if seed in fixed]
            )
        rows.append(row)
    return rows


def main() -> None:
    """Measure all widths and initialisations and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--initialisations", nargs="+", choices=INITIALISATIONS, default=list(INITIALISATIONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--num_clips", type=int, default=2800, help="training clips, equally many of each class")
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"num_clips": arguments.num_clips, "num_frames": NUM_FRAMES, "size": SIZE, "bf16": arguments.bf16}
    try:
        runs = read_runs(arguments.output, settings)
    except ValueError as error:
        parser.error(str(error))
    data = {
        "train": read(arguments.data_dir, "train", arguments.num_clips),
        "test": read(arguments.data_dir, "test", 700),
    }
    found = {"settings": settings, "chance": 1 / len(data["train"][1].unique())}
    for run in measure(arguments, data, runs):
        runs.append(run)
        print(
            f"{run['width']:4} {run['optimizer']} {run['initialisation']:7} seed {run['seed']}: share "
            f"{run['share']['feature']:.3f}, loss {run['loss']:.3f}, accuracy {run['accuracy']:.3f}",
            flush=True,
        )
        if arguments.output:
            summary = {"summary": summarize(runs), "runs": runs}
            write_results(arguments.output, found | summary | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
