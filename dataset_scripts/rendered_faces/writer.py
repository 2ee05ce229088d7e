"""Write rendered clips as a data set in DFEW's on-disk layout, with the truth about each clip beside them."""

import csv
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from openpyxl import Workbook
from PIL import Image
from tqdm import tqdm

from . import FRAMES_PER_SECOND, MARKER
from .actions import CLASS_NAMES
from .clips import check_sizes, render_clip
from .motion import SHOWN
from .truth import clip_facts, save_truth, write_facts
from .world import MARGIN

NUM_FOLDS = 5
BALANCES = ("neutral", "equal", "dfew", "footage")

# DFEW's single-labelled clips a class, in the order of CLASS_NAMES.
_DFEW_COUNTS = np.array([2445, 1894, 2669, 2173, 1469, 145, 902])

Array = np.ndarray


class _Plan(NamedTuple):
    """A clip before it is rendered."""

    clip_id: int
    label: int  # 1..7, or 0: annotators did not agree
    fold: int  # 1..5, the fold whose test set it is in; 0: in none, for want of a label or of faces
    identity: int
    has_faces: bool


class _Options(NamedTuple):
    """Options that all clips share; see `write_rendered_dfew`."""

    root: Path
    low: int
    high: int
    image_size: int
    frames_per_second: float
    margin: float
    order_only: bool
    plain: bool
    seed: int
    videos: bool


def write_rendered_dfew(
    root: str | Path,
    *,
    num_clips: int = 500,
    clips_per_person: int = 5,
    num_frames: int | tuple[int, int] = 40,
    image_size: int = 112,
    frames_per_second: float = FRAMES_PER_SECOND,
    margin: float = MARGIN,
    balance: str = "neutral",
    order_only: bool = False,
    plain: bool = False,
    seed: int = 0,
    num_workers: int | None = None,
    videos: bool = True,
    progress: bool = True,
) -> Path:
    """Write a tree of rendered clips laid out as DFEW is, and return `root`. The same arguments write the same files.

    As in DFEW, a few clips more than `num_clips` are in `annotation.xlsx`: some without a single label (label 0), some
    whose faces were not found (no frames). Folds follow DFEW's closed rule, and no person is on both sides of one. In
    some clips the faces of a few frames are missing. The stronger the expression of a clip, the more the votes of the
    ten annotators agree. `truth.csv` and `Truth/` hold the ground truth; see truth.py.

    Args:
        root: New or empty folder, or a tree that this function wrote before, which is replaced.
        num_clips: Clips of the splits, as DFEW's 11,697 are; at least 35 (5 folds of 7 classes).
        clips_per_person: How many clips show the same person, on average.
        num_frames: Length of the originals, or their lowest and highest length.
        image_size: Width and height in pixels.
        frames_per_second: How fast time passes in a clip; 8 makes a clip of 16 frames two seconds long.
        margin: Of the cut around the face, as a share of its square's side: `FaceCrop.margin`.
        balance: `neutral` gives neutral a quarter of the clips and the other classes equal shares, `equal` gives all
            classes the same share, `dfew` takes DFEW's proportions, with at least one clip a fold, and `footage` makes
            neutral 40 %, happy 20 % and each other class 8 %, closer to what ordinary videos show.
        order_only: `fear` clips are made as `surprise` clips are, with the order of their frames reversed: the two
            classes differ in nothing else. It proves that a model sees time; such fear is not realistic.
        plain: Strong expressions in clean, frontal, exact pictures without speech, which few clips suffice to learn.
        seed: Of everything random.
        num_workers: Processes; default: all cores; 1: this one. It does not change what is written.
        videos: False leaves out `Clip/original/*.mp4`.
        progress: Show a progress bar.

    Raises:
        FileExistsError: For a folder with other content, or a file.
        ValueError: For values out of range.
    """
    low, high = (num_frames, num_frames) if isinstance(num_frames, int) else num_frames
    _check(num_clips, clips_per_person, low, high, image_size, frames_per_second)
    plans = _plan_clips(num_clips, clips_per_person, balance, seed)
    root = Path(root).expanduser()
    _clear(root)
    (root / MARKER).write_text(
        "Rendered faces in DFEW's layout, made by dataset_scripts.rendered_faces: no real person, no DFEW data.\n"
        f"{num_clips=} {clips_per_person=} num_frames={low}..{high} {image_size=} {frames_per_second=} {margin=} "
        f"{balance=} {order_only=} {plain=} {seed=} {videos=}\n"
    )
    options = _Options(root, low, high, image_size, frames_per_second, margin, order_only, plain, seed, videos)
    _write_tables(root, plans, _render_all(plans, options, num_workers or os.cpu_count() or 1, progress), seed)
    return root


def _render_all(plans: list[_Plan], options: _Options, num_workers: int, progress: bool) -> dict[int, dict[str, Any]]:
    """Render and write the clips; their facts by clip id."""
    facts: dict[int, dict[str, Any]] = {}
    with tqdm(total=len(plans), desc="rendering faces", unit="clip", disable=not progress) as bar:
        for found in _map(partial(_write_clips, options=options), _by_person(plans), num_workers):
            facts |= {fact["clip_id"]: fact for fact in found}
            bar.update(len(found))
    return facts


def _check(
    num_clips: int, clips_per_person: int, low: int, high: int, image_size: int, frames_per_second: float
) -> None:
    check_sizes(low, high, image_size)
    if num_clips < NUM_FOLDS * len(CLASS_NAMES):
        raise ValueError(f"num_clips is {num_clips}; {NUM_FOLDS} folds of {len(CLASS_NAMES)} classes need at least 35")
    if clips_per_person < 1 or not frames_per_second > 0:
        raise ValueError(f"{clips_per_person=} must be at least 1 and {frames_per_second=} above 0")


def _clear(root: Path) -> None:
    """Make `root` an empty folder, if it is new, empty, or our own."""
    if root.exists() and not (root / MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and holds no {MARKER}, so this program did not write it and will not replace it; "
            "name a new or an empty folder"
        )
    for name in ("EmoLabel_DataSplit", "Annotation", "Clip", "Truth"):
        if (root / name).exists():
            shutil.rmtree(root / name)
    root.mkdir(parents=True, exist_ok=True)


def _class_counts(num_clips: int, balance: str) -> list[int]:
    """Clips a class, in the order of `CLASS_NAMES`, at least one a fold."""
    if balance not in BALANCES:
        raise ValueError(f"balance is {balance!r}; expected one of {', '.join(BALANCES)}")
    share = _DFEW_COUNTS if balance == "dfew" else np.ones(len(CLASS_NAMES))
    if balance == "neutral":
        share = np.where(np.array(CLASS_NAMES) == "neutral", 2, 1)  # 2 of 8
    if balance == "footage":
        share = np.array([{"neutral": 10, "happy": 5}.get(name, 2) for name in CLASS_NAMES])  # of 25
    ends = np.round(num_clips * np.cumsum([0, *share]) / share.sum())
    counts = np.maximum(NUM_FOLDS, np.diff(ends)).astype(int)
    while counts.sum() > num_clips:  # the rarest classes were given more than their share
        counts[counts.argmax()] -= 1
    return counts.tolist()


def _plan_clips(num_clips: int, clips_per_person: int, balance: str, seed: int) -> list[_Plan]:
    """Ids, labels, folds and people of all clips, by id.

    DFEW's closed rule: within each class the clips, by id, are cut into five contiguous blocks, larger ones first, and
    block k is the test set of fold k. Each block has people of its own, the same in every class; they come one after
    the other by id, so that neighbouring ids show the same person as DFEW's show the same film.
    """
    rng = np.random.default_rng([seed, 2])
    extra = 1 + num_clips // 50
    labels = np.repeat([*range(1, 8), 0, -1], [*_class_counts(num_clips, balance), extra, extra])
    rng.shuffle(labels)
    folds, identities = np.zeros_like(labels), np.zeros_like(labels)
    people = max(1, round(num_clips / NUM_FOLDS / clips_per_person))
    for label in range(1, 8):
        for fold, block in enumerate(np.array_split(np.flatnonzero(labels == label), NUM_FOLDS), start=1):
            folds[block] = fold
            identities[block] = fold * people + np.sort(rng.integers(0, people, len(block)))
    identities[folds == 0] = rng.integers(0, people, 2 * extra)
    faceless = labels == -1
    labels[faceless] = rng.integers(1, 8, extra)
    rows = zip(labels.tolist(), folds.tolist(), identities.tolist(), (~faceless).tolist(), strict=True)
    return [_Plan(clip_id, *row) for clip_id, row in enumerate(rows, start=1)]


def _by_person(plans: Sequence[_Plan]) -> list[list[_Plan]]:
    """The clips of each person together: a person is made once."""
    people: dict[int, list[_Plan]] = {}
    for plan in plans:
        people.setdefault(plan.identity, []).append(plan)
    return list(people.values())


def _map(
    work: Callable[[list[_Plan]], list[dict[str, Any]]], people: Sequence[list[_Plan]], num_workers: int
) -> Iterator[list[dict[str, Any]]]:
    if num_workers == 1:
        yield from map(work, people)
    else:
        # Not forked: the caller may hold threads of PyTorch, with which forking can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_end_with_parent) as pool:
            yield from pool.map(work, people)


def _end_with_parent() -> None:
    """End this worker when its parent has ended, killed or not: otherwise it would wait for work forever."""

    def end_after(parent: BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=end_after, args=(parent,), daemon=True).start()


def _write_clips(plans: Sequence[_Plan], options: _Options) -> list[dict[str, Any]]:
    return [_write_clip(plan, options) for plan in plans]


def _write_clip(plan: _Plan, options: _Options) -> dict[str, Any]:
    """Render a clip, write its face images, its original and its truth; what is random here ignores the class."""
    rng = np.random.default_rng([options.seed, 3, plan.clip_id])
    bounds = [options.low, 55, 0], [options.high + 1, 96, 2**31]
    num_frames, quality, clip_seed = (int(number) for number in rng.integers(*bounds))
    num_missing = rng.integers(1, 1 + num_frames // 8) if num_frames >= 8 and rng.random() < 0.2 else 0
    missing = {1 + int(number) for number in rng.choice(num_frames, num_missing, replace=False)}
    clip = render_clip(
        CLASS_NAMES[plan.label - 1] if plan.label else None,
        identity_seed=_identity_seed(options.seed, plan.identity),
        clip_seed=clip_seed,
        num_frames=num_frames,
        image_size=options.image_size,
        frames_per_second=options.frames_per_second,
        margin=options.margin,
        order_only=options.order_only,
        plain=options.plain,
    )
    if plan.has_faces:
        folder = options.root / "Clip" / "clip_224x224" / f"{plan.clip_id:05d}"
        folder.mkdir(parents=True)
        for number, frame in enumerate(clip.frames, start=1):
            if number not in missing:
                Image.fromarray(frame).save(folder / f"{plan.clip_id:05d}_{number:05d}.jpg", quality=quality)
    if options.videos:
        part = f"part_{(plan.clip_id - 1) // 1600 + 1}"
        path = options.root / "Clip" / "original" / part / f"{plan.clip_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, options.frames_per_second)
    save_truth(options.root, plan.clip_id, clip)
    return clip_facts(plan.clip_id, plan.identity, clip)


def _identity_seed(seed: int, identity: int) -> int:
    return int(np.random.SeedSequence([seed, 4, identity]).generate_state(1, np.uint64)[0])


def write_video(path: Path, frames: Array, frames_per_second: float = FRAMES_PER_SECOND) -> None:
    """Write frames `(T, H, W, 3)` uint8 as an .mp4.

    Every frame is coded for itself with one quantizer, so that a video's coding does not show its direction.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=round(frames_per_second))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", 1
        stream.codec_context.qmin = stream.codec_context.qmax = 4
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def _write_tables(root: Path, plans: Sequence[_Plan], facts: dict[int, dict[str, Any]], seed: int) -> None:
    """The split lists, the annotators' votes, who is shown in which clip, and the facts about each clip."""
    for fold in range(1, NUM_FOLDS + 1):
        for split in ("train", "test"):
            chosen = [plan for plan in plans if plan.fold and (plan.fold == fold) == (split == "test")]
            path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
            _write_csv(path, ["video_name", "label"], [(plan.clip_id, plan.label) for plan in chosen])
    _write_csv(root / "identities.csv", ["id", "identity"], [(plan.clip_id, plan.identity) for plan in plans])
    write_facts(root, [facts[plan.clip_id] for plan in plans])
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("annotation")
    sheet.append([f"{n}{name}" for n, name in enumerate(CLASS_NAMES, start=1)] + ["order", "label"])
    for plan in plans:
        sheet.append([*_votes(plan, facts[plan.clip_id], seed), plan.clip_id, plan.label])
    (root / "Annotation").mkdir()
    workbook.save(root / "Annotation" / "annotation.xlsx")


def _votes(plan: _Plan, fact: dict[str, Any], seed: int) -> list[int]:
    """Ten annotators' votes over the seven classes: more than six for the label, or at most six for any."""
    rng = np.random.default_rng([seed, 5, plan.clip_id])
    neutral = CLASS_NAMES.index("neutral")
    first = plan.label - 1 if plan.label else CLASS_NAMES.index(fact["expression"])
    if plan.label == 0:
        agreed = int(rng.integers(4, 7))
    else:
        clear = (fact["shown_level"] - SHOWN) / (1 - SHOWN) if first != neutral else 1 - fact["shown_level"] / SHOWN
        agreed = 7 + int(rng.binomial(3, np.clip(0.1 + 0.9 * clear, 0, 1)))
    # Annotators who miss the expression vote for neutral or for another class.
    share = np.where(np.arange(7) == neutral, 3.0, 1.0)
    share[first] = 0
    votes = np.bincount(rng.choice(7, 10 - agreed, p=share / share.sum()), minlength=7)
    votes[first] += agreed
    return votes.tolist()


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
