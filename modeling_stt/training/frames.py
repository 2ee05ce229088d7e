"""Pre-training of the backbone on single frames whose expression and action units are known.

A clip's label says nothing about its single frames, and most frames of a clip look alike. A network learns more from
single frames of many clips, if the expression of each frame is known. For rendered faces it is.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ..configuration_stt import STTConfig
from ..modeling_stt import STTForVideoClassification
from .clips import ClipAugment

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "backbone.safetensors"
ALIKE = 8  # frames, of different clips, that are augmented by one draw
STYLE_STAGES = 2  # after the backbone's first stages, which hold colours and textures; later ones hold what is seen


class Frames(NamedTuple):
    """Pictures of faces and what they show.

    Args:
        pixels: `(N, 3, S, S)` uint8.
        classes: `(N, K)`, how much of each class a frame shows; rows sum to 1.
        units: `(N, U)`, intensities of action units; 1 is full.
    """

    pixels: torch.Tensor
    classes: torch.Tensor
    units: torch.Tensor


@dataclass(frozen=True)
class FrameRecipe:
    """Settings of the pre-training.

    Args:
        epochs: Passes over all frames.
        batch_size: Frames per step, a multiple of 8: every 8 frames share one draw of the augmentation.
        learning_rate: Highest rate of AdamW, after a warm-up; it falls to zero as a cosine.
        weight_decay: AdamW's.
        unit_weight: Weight of the action units' loss beside the classes'.
        style_mixing: Share of steps, [0, 1], in which frames exchange their styles: mean and deviation of each channel
            of the first stages' maps are mixed with those of another frame (MixStyle, arXiv 2104.02008), so that
            colour, light and texture of a picture mean less.
        averaging: Decay of the running mean of the weights, [0, 1), which is what is saved; 0 saves the last weights.
        seed: Of weights, order and augmentation.
        bf16: Compute in bfloat16, which is faster on CPUs and GPUs that have instructions for it.

    Raises:
        ValueError: For numbers out of range.
    """

    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    unit_weight: float = 1.0
    style_mixing: float = 0.0
    averaging: float = 0.0
    seed: int = 42
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.epochs < 1 or self.batch_size < ALIKE or self.batch_size % ALIKE or not self.learning_rate > 0:
            raise ValueError(
                f"Expected at least one epoch, a batch_size that is a multiple of {ALIKE} and a positive "
                f"learning_rate, got {self}."
            )
        if not 0 <= self.style_mixing <= 1 or not 0 <= self.averaging < 1:
            raise ValueError(f"Expected style_mixing in [0, 1] and averaging in [0, 1), got {self}.")


def load_frames(rows: Dataset, class_names: Sequence[str], size: int, hidden: float, shown: float) -> Frames:
    """Read all frames of rows into memory, with their truth: 27 kB each at 96 px.

    Args:
        rows: Rows with the columns `frames` (image files), `truth_level`, `truth_action_units` and
            `truth_expression`, as `dataset_scripts.rendered_faces.add_truth` makes them.
        class_names: Classes, `"neutral"` among them.
        size: Side that the pictures are brought to, in pixels.
        hidden: Level of an expression up to which a frame is neutral.
        shown: Level from which it shows the expression; in between it is both, in proportion.

    Raises:
        ValueError: For rows without these columns, and an expression that is not a class.
    """
    wanted = ("frames", "truth_level", "truth_action_units", "truth_expression")
    if missing := [column for column in wanted if column not in rows.column_names]:
        raise ValueError(f"Rows have the columns {rows.column_names}; {', '.join(missing)} must be added first.")
    names = list(class_names)
    if unknown := sorted({*rows["truth_expression"], "neutral"} - set(names)):
        raise ValueError(f"The frames show {', '.join(unknown)}, which is not among the classes {names}.")
    pixels: list[np.ndarray] = []
    levels: list[float] = []
    expressions: list[int] = []
    units: list[list[float]] = []
    for row in tqdm(rows, desc="reading frames", unit="clip"):
        pixels += [_read_image(file, size) for file in row["frames"]]
        levels += row["truth_level"]
        units += row["truth_action_units"]
        expressions += [names.index(row["truth_expression"])] * len(row["frames"])
    share = ((torch.tensor(levels) - hidden) / (shown - hidden)).clamp(0, 1)[:, None]
    neutral = F.one_hot(torch.tensor(names.index("neutral")), len(names))
    classes = share * F.one_hot(torch.tensor(expressions), len(names)) + (1 - share) * neutral
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Frames(stacked, classes, torch.tensor(units))


def _read_image(file: str | PathLike, size: int) -> np.ndarray:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
        return np.asarray(image if image.size == (size, size) else image.resize((size, size)))


class FrameModel(nn.Module):
    """The backbone of an STT with a linear head on the mean of its feature map: classes first, then action units."""

    def __init__(self, config: STTConfig, num_classes: int, num_units: int) -> None:
        super().__init__()
        # Taken from a whole model, so that its weights are initialised as there.
        self.backbone = STTForVideoClassification(config).stt.backbone
        self.num_classes = num_classes
        self.head = nn.Linear(config.backbone_channels, num_classes + num_units)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(N, 3, S, S)` in [0, 1] to logits `(N, K)` and units `(N, U)`, as float32."""
        outputs = self.head(self.backbone(pixels).mean((2, 3))).float()
        return outputs[:, : self.num_classes], outputs[:, self.num_classes :]


def mix_styles(features: torch.Tensor) -> torch.Tensor:
    """Give each map of `(N, C, h, w)` a mixture of its own style and that of another; see MixStyle, arXiv 2104.02008.

    The style of a map is the mean and the standard deviation of each channel. Random by torch's generator.
    """
    deviation, mean = torch.std_mean(features.detach().float(), dim=(2, 3), keepdim=True)
    share = torch.distributions.Beta(0.1, 0.1).sample((len(features), 1, 1, 1)).to(features.device)
    other = torch.randperm(len(features))
    normal = (features - mean) / (deviation + 1e-5)
    mixed = share * deviation + (1 - share) * deviation[other], share * mean + (1 - share) * mean[other]
    return (normal * mixed[0] + mixed[1]).to(features.dtype)


def _hook_styles(backbone: nn.Module, share_of_steps: float) -> None:
    """Mix styles after the first stages in a share of the training steps."""

    def hook(module: nn.Module, arguments: Any, features: torch.Tensor) -> torch.Tensor | None:
        return mix_styles(features) if module.training and torch.rand(()) < share_of_steps else None

    for name in getattr(backbone, "stage_names", [])[:STYLE_STAGES] if share_of_steps else []:
        getattr(backbone, name)[-1].register_forward_hook(hook)


def pretrain_backbone(
    config: STTConfig,
    frames: Frames,
    output_dir: str | PathLike,
    augment: ClipAugment,
    recipe: FrameRecipe = FrameRecipe(),
    held_out: Frames | None = None,
) -> FrameModel:
    """Train the backbone of an STT on frames; an interrupted run resumes at its last epoch.

    The loss is the cross entropy with the frame's classes, and the squared error of the action units in units of
    their standard deviation. Runs on a GPU if there is one.

    Args:
        config: Configuration of the STT that will take the weights.
        frames: Frames to train on.
        output_dir: Folder for `backbone.safetensors`, which `load_backbone_weights` and `train.py --backbone_weights`
            take, and for `state.pt`, from which a run resumes.
        augment: Augmentation of the frames.
        recipe: Settings.
        held_out: Frames to report on after each epoch.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: For a `state.pt` of other settings, and for fewer frames than a batch.
    """
    if len(frames.pixels) < recipe.batch_size:
        raise ValueError(f"{len(frames.pixels)} frames are fewer than one batch of {recipe.batch_size}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    model = FrameModel(config, frames.classes.shape[1], frames.units.shape[1]).to(device)
    _hook_styles(model.backbone, recipe.style_mixing)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    final = cast(FrameModel, averaged.module)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    state_file = Path(output_dir) / "state.pt"
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    first = _resume(state_file, recipe, model, averaged, optimizer) if state_file.is_file() else 0
    for epoch in range(first, recipe.epochs):
        loss = _train_epoch(model, averaged, optimizer, frames, augment, recipe, epoch, device)
        state = {"epoch": epoch + 1, "recipe": asdict(recipe), "model": model.state_dict()}
        state |= {"averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, state_file)
        scores = "" if held_out is None else f", held out: {_describe(final, held_out, device)}"
        logger.info("Frames, epoch %d of %d: loss %.3f%s", epoch + 1, recipe.epochs, loss, scores)
    weights = {name: value.cpu().contiguous() for name, value in final.backbone.state_dict().items()}
    save_file(weights, Path(output_dir) / WEIGHTS_FILE)
    return final.eval()


def _resume(
    file: Path, recipe: FrameRecipe, model: FrameModel, averaged: AveragedModel, optimizer: torch.optim.Optimizer
) -> int:
    state: dict[str, Any] = torch.load(file, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise ValueError(f"{file} is of a run with {state['recipe']}, not {asdict(recipe)}: name another folder.")
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def _train_epoch(
    model: FrameModel,
    averaged: AveragedModel,
    optimizer: torch.optim.Optimizer,
    frames: Frames,
    augment: ClipAugment,
    recipe: FrameRecipe,
    epoch: int,
    device: torch.device,
) -> float:
    """Train for one pass over the frames in random order; return the mean loss."""
    model.train()
    random = np.random.default_rng([recipe.seed, epoch])
    torch.manual_seed(int(random.integers(2**63)))  # of the styles
    mean, deviation = frames.units.mean(0).to(device), frames.units.std(0).to(device) + 0.02
    steps = len(frames.pixels) // recipe.batch_size
    order = torch.from_numpy(random.permutation(len(frames.pixels)))[: steps * recipe.batch_size]
    total = 0.0
    for step, chosen in enumerate(tqdm(order.view(steps, -1), desc=f"epoch {epoch + 1}", leave=False)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(epoch * steps + step, recipe.epochs * steps)
        pixels = _augmented(frames.pixels[chosen], augment, random).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            logits, units = model(pixels)
        wanted = ((frames.units[chosen].to(device) - mean) / deviation).clamp(-3, 3)
        loss = F.cross_entropy(logits, frames.classes[chosen].to(device))
        loss = loss + recipe.unit_weight * F.mse_loss(units, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        averaged.update_parameters(model)
        total += loss.item()
    return total / steps


def _augmented(pixels: torch.Tensor, augment: ClipAugment, random: np.random.Generator) -> torch.Tensor:
    size = (pixels.shape[-2], pixels.shape[-1])
    groups = [augment(group, size, int(random.integers(2**63))) for group in pixels.split(ALIKE)]
    return torch.cat(groups).float() / 255


def _rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: a short rise, then half a cosine."""
    return min(1.0, (step + 1) / (0.03 * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _describe(model: FrameModel, frames: Frames, device: torch.device) -> str:
    """Recall of the classes that frames show clearly."""
    model.eval()
    logits = torch.cat([model(pixels.to(device).float() / 255)[0].cpu() for pixels in frames.pixels.split(64)])
    height, label = frames.classes.max(dim=1)
    clear = height > 0.9
    right = (logits.argmax(dim=1) == label).float()
    recalls = [right[clear & (label == k)].mean().item() for k in range(logits.shape[1])]
    return f"UAR {np.nanmean(recalls):.3f} (" + ", ".join(f"{recall:.2f}" for recall in recalls) + ")"
