"""A timeline's speed, where its time goes, what sharing saves, and its memory.

    python benchmarks/timeline_speed.py                    # all, some five minutes on two cores
    python benchmarks/timeline_speed.py --only speed stages

- speed: a minute of video, 640×360, 25 fps, one face, windows of 2 s every second, as a multiple of real time;
- stages: what a second of that video costs, stage by stage, on one thread;
- sharing: logits and time of the model with the backbone's maps shared between windows, and without;
- memory: peak of a process that reads an hour, and of one that reads a minute (160×120, 5 fps).

The face is rendered (`dataset_scripts.rendered_faces`), and the models have random weights: neither changes the time.
Needs the extra `timeline`. Run it on a machine with nothing else to do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from video_files import repeat_video, write_h264

from dataset_scripts.rendered_faces import CLASS_NAMES, render_clip
from modeling_stt import STTConfig, STTForVideoClassification, STTVideoProcessor
from modeling_stt.loading import warn_of_slow_bfloat16
from modeling_stt.timeline import FaceCrop, FaceTracker, Timeline, load_detector, read_frames
from modeling_stt.timeline.detection import find_faces
from modeling_stt.timeline.scorers import STTScorer
from modeling_stt.timeline.windows import Sighting, Window
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

# What stands in examples/recipes/demo.yaml; the demo takes 64 px and 8 frames.
SMALL = {"backbone_stem_width": 16, "backbone_widths": [16, 32, 64], "backbone_depths": [1, 1, 1], "hidden_size": 96}
SMALL |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192, "image_size": 64}
MODELS: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "full size, bfloat16": ({}, torch.bfloat16),
    "full size, float32": ({}, torch.float32),
    "small, float32": (SMALL | {"num_frames": 8}, torch.float32),
}


def make_model(name: str) -> tuple[STTForVideoClassification, STTVideoProcessor]:
    """A model of this size with random weights."""
    settings, dtype = MODELS[name]
    if dtype == torch.bfloat16:
        warn_of_slow_bfloat16("cpu")
    torch.manual_seed(0)
    config = STTConfig(**settings)
    size = {"height": config.image_size, "width": config.image_size}
    model = STTForVideoClassification(config).to(dtype)  # type: ignore[arg-type]
    crop = FaceCrop(size=config.image_size).to_dict()
    return model, STTVideoProcessor(num_frames=config.num_frames, size=size, face_crop=crop)


def make_timeline(name: str, **options: Any) -> Timeline:
    """A timeline with the default detector."""
    model, processor = make_model(name)
    return Timeline(model, processor=processor, **options)


def draw_frames(width: int, height: int, num_frames: int, face: int) -> Iterator[np.ndarray]:
    """A rendered face of `face` px wanders over a room and changes its expression every four seconds of 25 frames."""
    rng = np.random.default_rng(0)
    room = np.kron(rng.integers(40, 200, (6, 8, 3)), np.ones((height // 6 + 1, width // 8 + 1, 1)))
    room = room[:height, :width].astype(np.uint8)
    clip = np.empty(0)
    for n in range(num_frames):
        if n % 100 == 0:
            label = CLASS_NAMES[n // 100 % len(CLASS_NAMES)]
            clip = render_clip(label, identity_seed=1, clip_seed=n, num_frames=100, image_size=face, plain=True).frames
        x = int((width - face) * (0.5 + 0.4 * np.sin(n / 60)))
        y = int((height - face) * (0.5 + 0.4 * np.cos(n / 45)))
        frame = room.copy()
        frame[y : y + face, x : x + face] = clip[n % 100]
        yield frame


def measure_speed(video: Path, seconds: int) -> list[dict[str, Any]]:
    """Measure speed as a multiple of real time: by model, frames searched, and torch's threads."""
    rows = []
    for name, detect_fps, num_threads in product(("full size, bfloat16", "small, float32"), (None, 15), (1, 2)):
        torch.set_num_threads(num_threads)
        reader = make_timeline(name, detect_fps=detect_fps)
        next(reader(video)).to_dict(reader.class_names)  # first calls are slower
        began = time.perf_counter()
        states = [row.state for row in reader(video)]
        elapsed = time.perf_counter() - began
        # Where one clip follows another the face may jump too far to be the same person's.
        assert set(states) <= {"face", "lost"} and states.count("face") >= seconds - 1
        row = {"model": name, "detect_fps": detect_fps, "num_threads": num_threads}
        rows.append(row | {"times_real_time": seconds / elapsed})
        looked = f"faces searched for in {detect_fps or 'all'} frames a second, {num_threads} threads"
        print(f"{name:<22}{looked:<56}{seconds / elapsed:5.1f} times real time", flush=True)
    return rows


def measure_stages(video: Path, seconds: int = 10) -> dict[str, Any]:
    """Milliseconds that a second of video takes in each stage, on one thread."""
    torch.set_num_threads(1)
    costs: dict[str, float] = {}
    began = time.perf_counter()
    frames = [frame for frame, _ in zip(read_frames(video), range(25 * seconds), strict=False)]
    costs["decode"] = time.perf_counter() - began
    detector, tracker, crop = load_detector(frames_at_once=1), FaceTracker(), FaceCrop()
    detector.detect([frames[0].image])
    began = time.perf_counter()
    faces = [found or [] for _, found, _ in find_faces(frames, detector)]
    costs["detect"] = time.perf_counter() - began
    began = time.perf_counter()
    for frame, found in zip(frames, faces, strict=True):
        tracker.update(frame.time_s, frame.image, found)
    costs["track"] = time.perf_counter() - began
    began = time.perf_counter()
    crops = [crop(frame.image, found[0]) for frame, found in zip(frames, faces, strict=True)]
    costs["crop"] = time.perf_counter() - began
    stages = {name: 1e3 * cost / seconds for name, cost in costs.items()}
    rows = {}
    for name in MODELS:
        windows = cut_windows(crops)
        scorer = STTScorer(*make_model(name))
        scorer.logits(windows[:1])
        elapsed = time_scorer(scorer, windows[1:])
        rows[name] = stages | {"model": 1e3 * elapsed / (len(windows) - 1)}
        total = sum(rows[name].values())
        shares = ", ".join(f"{stage} {cost:.0f} ({cost / total:.0%})" for stage, cost in rows[name].items())
        print(f"{name:<22}ms for a second of video: {shares}; {total:.0f} in all", flush=True)
    return rows


def cut_windows(crops: list[np.ndarray]) -> list[Window]:
    """Windows of two seconds every second."""
    seen = [Sighting(n / 25, (0, 0, 1, 1), crop) for n, crop in enumerate(crops)]
    starts = range(0, len(seen) - 50, 25)
    return [Window(n / 25, n / 25 + 2, 0, seen[n : n + 51], 51) for n in starts]


def time_scorer(scorer: STTScorer, windows: list[Window]) -> float:
    """Seconds for all windows, eight at a time as a timeline does by default."""
    began = time.perf_counter()
    for first in range(0, len(windows), 8):
        scorer.logits(windows[first : first + 8])
    return time.perf_counter() - began


def measure_sharing(video: Path, seconds: int = 10) -> dict[str, Any]:
    """Logits and time with the backbone's maps shared between windows, and without."""
    frames = [frame for frame, _ in zip(read_frames(video), range(25 * seconds + 1), strict=False)]
    detector, crop = load_detector(), FaceCrop()
    crops = [crop(frame.image, detector.detect([frame.image])[0][0]) for frame in frames]
    rows = {}
    for name in MODELS:
        model, processor = make_model(name)
        scorers = {share: STTScorer(model, processor, share_maps=share) for share in (True, False)}
        logits = {share: scorer.logits(cut_windows(crops)) for share, scorer in scorers.items()}
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(2):  # in turn, so that a machine that slows down slows both
            for share, scorer in scorers.items():
                times[share].append(time_scorer(scorer, cut_windows(crops)))
        difference = (logits[True] - logits[False]).abs().max().item()
        spread = logits[False].std(dim=0).mean().item()
        rows[name] = {"faster": min(times[False]) / min(times[True]), "largest_difference": difference}
        rows[name]["spread_of_logits"] = spread
        print(
            f"{name:<22}shared maps: {rows[name]['faster']:.2f} times as fast; logits differ by {difference:.1e} at "
            f"most, between windows by {spread:.1e}",
            flush=True,
        )
    return rows


def read_alone(video: str) -> None:
    """Read a video and print rows and the peak of memory in MiB: for a process of its own."""
    num_rows = sum(1 for _ in make_timeline("small, float32")(video))
    # Not ru_maxrss: it begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
    print(json.dumps({"rows": num_rows, "peak_mib": int(peak) / 1024}))


def measure_memory(folder: Path) -> dict[str, Any]:
    """Peak memory of reading an hour, and a minute."""
    minute = write_h264(folder / "minute.mp4", draw_frames(160, 120, 5 * 60, 110), 5, crf="23")
    videos = {"a minute": minute, "an hour": repeat_video(folder / "hour.mp4", minute, 60)}
    found: dict[str, Any] = {}
    for name, video in videos.items():
        command = [sys.executable, __file__, "--read_alone", str(video)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {found[name]['rows']} rows, peak {found[name]['peak_mib']:.0f} MiB", flush=True)
    found["ratio"] = found["an hour"]["peak_mib"] / found["a minute"]["peak_mib"]
    print(f"an hour takes {found['ratio']:.3f} times a minute's memory", flush=True)
    return found


def main() -> None:
    """Measure what is asked for, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("speed", "stages", "sharing", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--read_alone", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "timeline_speed.json")
    arguments = parser.parse_args()
    if arguments.read_alone:
        read_alone(arguments.read_alone)
        return
    found = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        video = write_h264(Path(name) / "face.mp4", draw_frames(640, 360, 25 * 60, 300), 25, group=250, crf="23")
        measure = {
            "speed": lambda: measure_speed(video, 60),
            "stages": lambda: measure_stages(video),
            "sharing": lambda: measure_sharing(video),
            "memory": lambda: measure_memory(Path(name)),
        }
        for part in arguments.only:
            found[part] = {"measured": measure[part](), "environment": describe_environment()}
            write_results(arguments.output, found)  # parts measured before stay


if __name__ == "__main__":
    main()
