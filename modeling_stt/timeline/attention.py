"""Space-time attention maps: the places and moments of one face's clip that the model attends to.

The maps are an attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928), carried over to attention that is divided
into space and time. From the class token of the last block, which the label is read from, attention is followed back
through all blocks to the tokens that the backbone made: what a token holds is taken to come, in each attention, half
from itself (the residual) and half from the tokens that it attends to, by the mean weights of its heads. Where the
class token is copied to every position or frame and averaged after, as the model does, so is its attention. The result
is one weight for each position of each frame; they are given as a map for each frame and a weight for each frame.

Attention is not a cause: the rollout leaves out values, MLPs and whatever the backbone mixes across the frame, and a
place that is attended to need not have changed the label.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..fonts import literal, readable
from ..loading import refuse_non_finite_scores
from ..modeling_stt import STTForVideoClassification, STTVideoClassifierOutput
from ..video_processing_stt import STTVideoProcessor
from .pictures import Page, class_colors
from .pipeline import Timeline, model_note
from .rows import FACE, Row
from .scorers import STTScorer
from .segments import end_of_stretch, person
from .video import Source
from .windows import TICK_S, Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLUMNS = 16  # frames in a line

# Inches.
LEFT, FRAMES, RIGHT, LARGEST_FRAME = 0.75, 10.9, 3.2, 1.2
TOP, BARS, BELOW_BARS, BOTTOM = 0.45, 0.6, 0.6, 0.45
BAR_COLOR = "#717581"

CAPTION = (
    "Attention rollout of the class token over all blocks, mean of the heads.\n"
    "It shows where the model looks, not why it answers so: attended places need not be causes."
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """The model's attention to one clip of T frames, its map h × w.

    Args:
        frames: `(T, H, W, 3)` uint8 RGB, as the model saw them.
        times_s: `(T,)` seconds at which the frames are shown; None for clips without a frame rate.
        spatial: `(T, h, w)`: how the attention to a frame is spread over it; each map sums to 1.
        temporal: `(T,)`: how the attention is spread over the frames; sums to 1. The joint weight of a position of a
            frame is the product of both.
        scores: A probability for each class by name, in the model's order.
        name: What was explained: the video, and the track and time of its window.
        note: The model, as pictures name it.
    """

    frames: np.ndarray
    times_s: np.ndarray | None
    spatial: np.ndarray
    temporal: np.ndarray
    scores: dict[str, float]
    name: str
    note: str = ""

    @property
    def label(self) -> str:
        """The class of the highest score."""
        return max(self.scores, key=lambda name: self.scores[name])


def explain(video: Source, timeline: Timeline, *, at_s: float | None = None, track: int | None = None) -> Explanation:
    """Explain a window of a video by the model's attention.

    Args:
        video: As for `timeline`, but not live. It is read from its beginning, so that tracks have the ids that its
            rows have, up to the window. To explain many windows of one video, take them from `Timeline.windows` and
            give them to `explain_window`.
        timeline: Reads it. Its model must have been loaded with `attn_implementation="eager"`.
        at_s: A moment of the video in seconds: the window is explained whose middle is nearest. By default the first
            window with a face that can be scored.
        track: Id of the track; by default the largest face in that window.

    Raises:
        ValueError: For an attention back-end that does not return its weights, or if nothing is scored at that time or
            for that track; and as `timeline`.
    """
    refuse_hidden_attention(_stt_of(timeline).model)
    window = _find_window(timeline, video, at_s, track)
    return explain_window(window, timeline, Path(video).name if isinstance(video, str | PathLike) else "frames")


def explain_window(window: Window, timeline: Timeline, name: str = "window") -> Explanation:
    """Explain a window that `Timeline.windows` gave; see `explain`.

    Raises:
        ValueError: For a window without a picture of a face, or another attention back-end than "eager".
    """
    scorer = _stt_of(timeline)
    clip = scorer.sample(window)
    times_s = np.array([sighting.time_s for sighting in clip])
    what = f"{name}, {person(window.track)}, {window.start_s:g} to {window.end_s:g} s"
    return _explain(scorer.model, scorer.processor, scorer.pixels(clip), times_s, what, timeline.note())


def explain_clip(clip: Any, model: STTForVideoClassification, processor: STTVideoProcessor) -> Explanation:
    """Explain a clip that is cropped to one face, as those of data sets are.

    Args:
        clip: One video in any form that the processor takes: a file, a folder of frames, an array. A file or folder
            whose frames are far from the shape that the model takes is warned of: it was hardly cropped.
        model: A loaded model, with `attn_implementation="eager"`.
        processor: Its processor, which samples the frames.

    Raises:
        ValueError: For another kind of model or attention back-end, and as the processor.
        FileNotFoundError: For a missing file.
    """
    if not isinstance(model, STTForVideoClassification):
        raise ValueError(f"{type(model).__name__} is not an STT: only its attention over space and time is explained.")
    inputs = processor(clip, return_tensors="pt", return_metadata=True)
    [metadata] = inputs["video_metadata"]
    name = Path(clip).name if isinstance(clip, str | PathLike) else "clip"
    times_s = np.array(metadata.frames_indices) / metadata.fps if metadata.fps else None
    note = model_note(model.name_or_path) if model.name_or_path else ""
    return _explain(model, processor, inputs["pixel_values"][0], times_s, name, note)


def refuse_hidden_attention(model: STTForVideoClassification) -> None:
    """Refuse a model whose attention back-end does not give its weights.

    Raises:
        ValueError: For another attention back-end than "eager".
    """
    if model.config._attn_implementation != "eager":
        raise ValueError(
            f"attn_implementation={model.config._attn_implementation!r} gives no attention weights: load the model "
            'with attn_implementation="eager", or call model.set_attn_implementation("eager").'
        )


def _stt_of(timeline: Timeline) -> STTScorer:
    if not isinstance(timeline.scorer, STTScorer):
        raise ValueError(
            f"{timeline.scorer.name} is not an STT: only its attention over space and time can be explained."
        )
    return timeline.scorer


def _find_window(timeline: Timeline, video: Source, at_s: float | None, track: int | None) -> Window:
    """The window to be explained; nothing is read beyond the one after it."""

    def scored(pairs: Sequence[tuple[Row, Window]]) -> list[Window]:
        fitting = [window for row, window in pairs if row.state == FACE and track in (None, row.track)]
        return sorted(fitting, key=_face_area, reverse=True)

    name = fspath(video) if isinstance(video, str | PathLike) else "the frames"
    whose = "a face" if track is None else f"track {track}"
    by_time = groupby(timeline.read(video, name, live=False, score=False), key=lambda pair: pair[0].start_s)
    groups = (list(group) for _, group in by_time)
    if at_s is None:
        others: set[int] = set()
        for pairs in groups:
            if scored(pairs):
                return scored(pairs)[0]
            others |= {row.track for row, _ in pairs if row.track is not None and row.state == FACE}
        seen = ", ".join(f"track {each}" for each in sorted(others))
        instead = f"there is: {seen}" if seen else "there is nothing to explain"
        raise ValueError(f"{name} has no window in which {whose} can be scored; {instead}.")
    pairs = _pairs_at(at_s, groups, name)
    if not scored(pairs):
        seen = ", ".join(row.state if row.track is None else f"track {row.track} ({row.state})" for row, _ in pairs)
        raise ValueError(
            f"At {at_s:g} s of {name}, {whose} cannot be scored; there is: {seen}. Choose another time or track."
        )
    return scored(pairs)[0]


def _pairs_at(at_s: float, groups: Iterable[list[tuple[Row, Window]]], name: str) -> list[tuple[Row, Window]]:
    """The rows and windows of all tracks that a chart draws at this time."""
    here: list[tuple[Row, Window]] = []
    for following in groups:
        if here and at_s < end_of_stretch(_times(here), _times(following)):
            break
        here = following
    start_s, end_s = _times(here) if here else (0.0, 0.0)
    if not start_s - TICK_S <= at_s <= end_s + TICK_S:
        raise ValueError(
            f"{name} has no frame at {at_s:g} s; next to it there are those from {start_s:g} to {end_s:g} s."
        )
    return here


def _times(pairs: Sequence[tuple[Row, Window]]) -> tuple[float, float]:
    return pairs[0][1].start_s, pairs[0][1].end_s


def _face_area(window: Window) -> float:
    left, top, right, bottom = window.sightings[len(window.sightings) // 2].box
    return (right - left) * (bottom - top)


@torch.inference_mode()
def _explain(
    model: STTForVideoClassification,
    processor: STTVideoProcessor,
    pixels: torch.Tensor,
    times_s: np.ndarray | None,
    name: str,
    note: str,
) -> Explanation:
    """Explain one clip `(T, 3, H, W)` of the processor's making."""
    model.eval()
    outputs = model(pixels[None].to(model.device), output_attentions=True)
    grid = model.config.feature_grid(*pixels.shape[-2:])
    weights = attention_rollout(outputs, model.config.attention_order, len(pixels), grid[0] * grid[1])
    temporal = weights.sum(dim=1)
    # A frame without any attention has no map of its own and gets an even one.
    spatial = torch.where(temporal[:, None] > 0, weights / temporal[:, None], 1 / weights.shape[1])
    scores = outputs.logits[0].float().softmax(dim=-1).cpu()
    refuse_non_finite_scores(scores, f"The model {model.config._name_or_path}")
    return Explanation(
        frames=to_pictures(pixels, processor),
        times_s=times_s,
        spatial=spatial.unflatten(1, grid).numpy(),
        temporal=(temporal / temporal.sum()).numpy(),
        scores=dict(zip(model.config.class_names, scores.tolist(), strict=True)),
        name=name,
        note=note,
    )


def attention_rollout(
    outputs: STTVideoClassifierOutput, attention_order: str, num_frames: int, num_positions: int
) -> torch.Tensor:
    """Follow the class token's attention back through all blocks; see the module for how.

    Args:
        outputs: What the model returns of one clip with `output_attentions=True`.
        attention_order: The model's.
        num_frames: T of the clip.
        num_positions: P of a frame.

    Returns:
        `(T, P)` float32: the weight of each position of each frame. They sum to 1 less what stays with the class
        token itself.
    """
    kinds = {
        "space": outputs.spatial_attentions,
        "time": outputs.temporal_attentions,
        "joint": outputs.joint_attentions,
    }
    steps = [(kind, weights) for kind in attention_order.split("_") if (weights := kinds.get(kind))]
    token, frames = torch.ones(()), torch.zeros(num_frames, num_positions)
    for depth in reversed(range(len(steps[0][1]))):
        for kind, weights in reversed(steps):
            mean = weights[depth][0].float().mean(dim=-3).cpu()
            mean = mean.reshape(-1, *mean.shape[-2:])  # joint attention has but one group, and no axis for it
            token, frames = _step_back(kind, token, frames, mean)
    return frames


def _step_back(
    kind: str, token: torch.Tensor, frames: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Follow the weights back through one attention, from its outputs to its inputs.

    Args:
        kind: What its groups are: `"space"`, the frames; `"time"`, the positions; `"joint"`, all in one.
        token: Weight of the class token, a scalar.
        frames: `(T, P)` weights of the positions.
        weights: `(G, L, L)` of each group; one longer than the group where the class token is its first.
    """
    groups = {"space": frames, "time": frames.T, "joint": frames.reshape(1, -1)}[kind]
    has_token = weights.shape[-1] > groups.shape[-1]
    if has_token:
        groups = torch.cat([(token / len(groups)).expand(len(groups), 1), groups], dim=1)
    groups = (groups + torch.einsum("gi,gij->gj", groups, weights)) / 2
    if has_token:
        token, groups = groups[:, 0].sum(), groups[:, 1:]
    return token, (groups.T if kind == "time" else groups).reshape(frames.shape)


def to_pictures(pixels: torch.Tensor, processor: STTVideoProcessor) -> np.ndarray:
    """The processor's `(T, 3, H, W)` back to `(T, H, W, 3)` uint8."""
    if processor.do_normalize:
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    return (255 * pixels).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def draw_explanation(explanation: Explanation) -> "Figure":
    """Draw the frames, where in each the attention lies, how much of it each frame has, and the scores.

    A colour is the same multiple of an even spread in all frames, as the scale beside them shows; the frames beneath
    are grey. Clips of more than 16 frames take several lines.

    Raises:
        ImportError: Where matplotlib is missing.
    """
    num_frames = len(explanation.frames)
    columns = min(num_frames, COLUMNS)
    size = min(FRAMES / columns, LARGEST_FRAME)
    right = LEFT + max(columns * size, FRAMES / 2)
    tops = [TOP + line * (2 * size + BARS + BELOW_BARS) for line in range(-(-num_frames // columns) + 1)]
    page = Page(right + RIGHT, tops.pop() + BOTTOM)
    title = f"{explanation.label} {max(explanation.scores.values()):.2f}  ·  {explanation.name}"
    with readable(title, explanation.note, *explanation.scores):
        page.write(LEFT, 0.12, title)
        page.write(LEFT, 0.29, explanation.note, fontsize=7)
        _draw_scores(page.axes(right + 1.5, TOP, RIGHT - 1.75, 2 * size + BARS), explanation.scores)
    heat = _draw_maps(page, explanation, columns, size, tops)
    scale = page.axes(LEFT + columns * size + 0.08, TOP + size, 0.1, 0.96 * size)
    page.figure.colorbar(heat, cax=scale)
    scale.tick_params(labelsize=7)
    scale.set_title("× even", fontsize=7, loc="left")
    for line, top in enumerate(tops):
        frames = range(num_frames)[line * columns : (line + 1) * columns]
        bars = page.axes(LEFT, top + 2 * size + 0.08, columns * size, BARS)
        bars.set_xlim(-0.52, columns - 0.48)
        _draw_temporal(bars, explanation, frames)
    page.write(LEFT, page.height - BOTTOM, CAPTION, fontsize=8)
    return page.figure


def _draw_maps(page: Page, explanation: Explanation, columns: int, size: float, tops: Sequence[float]) -> "AxesImage":
    """Each frame, and below it in grey with its map over it, as multiples of an even spread."""
    relative = explanation.spatial * explanation.spatial[0].size
    height, width = explanation.frames.shape[1:3]
    for i, (frame, relative_map) in enumerate(zip(explanation.frames, relative, strict=True)):
        left, top = LEFT + i % columns * size, tops[i // columns]
        plain, grey = (page.axes(left, top + row * size, 0.96 * size, 0.96 * size) for row in (0, 1))
        plain.imshow(frame)
        grey.imshow(frame.mean(axis=2), cmap="gray", vmin=0, vmax=255)
        heat = grey.imshow(
            relative_map,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bicubic",
            alpha=0.6,
            cmap="inferno",
            vmin=relative.min(),
            vmax=max(relative.max(), relative.min() + 1e-6),
        )
        plain.set_axis_off()
        grey.set_axis_off()
    return heat


def _draw_temporal(axes: "Axes", explanation: Explanation, frames: range) -> None:
    """Bars of what each of these frames has of the attention, beneath them; the dashed line is an even share."""
    axes.bar(range(len(frames)), explanation.temporal[frames.start : frames.stop], color=BAR_COLOR, width=0.8)
    axes.axhline(1 / len(explanation.temporal), color="black", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1.1 * max(explanation.temporal))
    times_s = explanation.times_s
    names = [f"{i + 1}" if times_s is None else f"{times_s[i]:.2f}" for i in frames]
    axes.set_xticks(range(len(frames)), names, fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("share of\nattention", fontsize=7)
    unit = "number of the frame" if times_s is None else "seconds"
    axes.set_xlabel(f"{unit}; the dashed line is an even share", fontsize=7)


def _draw_scores(axes: "Axes", scores: dict[str, float]) -> None:
    colors = class_colors(list(scores))
    bars = axes.barh(range(len(scores)), list(scores.values()), color=list(colors.values()))
    axes.set_yticks(range(len(scores)), [literal(name) for name in scores])
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set(xlim=(0, 1.2), xticks=(0, 0.5, 1))
    axes.tick_params(labelsize=7)
    axes.invert_yaxis()
