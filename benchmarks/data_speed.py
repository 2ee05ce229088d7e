"""Speed of reading clips from disk: JPEG folders, video files, and through a DataLoader.

    python benchmarks/data_speed.py                    # all sections, writes benchmarks/results/data_speed.json
    python benchmarks/data_speed.py --sections jpeg
    python benchmarks/data_speed.py --quick            # fewer repetitions, small videos only

Sections, each runnable alone:

- jpeg: clips per second from folders of JPEGs with DFEW's statistics (256 px, quality 90, lengths lognormal with
  median 70 and 5 to 95 % from about 33 to 155), by STTVideoProcessor.read_clip; against decoding every frame and
  sampling then, and against OpenCV, Pillow and torchvision on the same chosen frames
- clip: three seconds of H.264 video, 75 frames, short and long groups of pictures (12 and 250 frames)
- window: three seconds out of the middle of a ten-minute file
- loader: clips per second out of a DataLoader over ClipDataset for 0, 1, 2, … workers, testing and training

Each way makes the same uint8 tensor (16, 3, H, W) with one thread; the largest difference of a pixel to the plain way
is measured and stands in the table. The plain way decodes everything to RGB, then samples; "plain, lean" converts only
the chosen frames to RGB. Of the window, "plain" is that lean one, as ten minutes in RGB fit no memory; "plain, stops"
also stops after the window. What is compared takes turns within one run. Times are medians, of the process's CPU time,
which a busy machine disturbs less than wall-clock time (the loader's rates are by the wall clock); "times as long" is
the median over the turns of the ratio within each. All repetitions stand beside them in the JSON. Contents are
synthetic faces; files lie in the page cache.
OpenCV (opencv-python-headless) and torchcodec take part where they are installed and run. A section's results replace
those it had in the output file and leave those of other sections.
"""

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_image
from video_files import repeat_video, write_h264

from dataset_scripts.rendered_faces import CLASS_NAMES, render_clip
from modeling_stt import STTVideoProcessor, sample_frame_indices
from modeling_stt.training.clips import ClipAugment, ClipDataset
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results
from modeling_stt.video_reading_stt import ONE_THREAD, list_frame_files, read_frame_files, read_video_frames

try:
    import cv2
except ImportError:
    cv2 = None
try:
    import torchcodec
    from torchcodec.decoders import VideoDecoder

    TORCHCODEC = f"runs, {torchcodec.__version__}"
except (ImportError, OSError, RuntimeError) as error:  # torchcodec raises the last where it finds no FFmpeg
    VideoDecoder = None
    TORCHCODEC = f"does not run here: {str(error).strip().splitlines()[0]}"

HEIGHTS = {360: 640, 720: 1280, 1080: 1920}
GROUPS = {"short": 12, "long": 250}
FPS, SECONDS = 25, 3
LOOPS = 10  # a ten-minute file is a minute, ten times

Way = Callable[[Any], torch.Tensor]


def to_clip(frames: list[np.ndarray]) -> torch.Tensor:
    """Frames (H, W, 3) to a clip (T, 3, H, W)."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


# JPEG folders.


def write_folders(root: Path, num_clips: int, seed: int = 0) -> list[Path]:
    """Folders of JPEGs with DFEW's numbers of frames."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(70), 0.47, num_clips))), 11, 847).astype(int)
    folders = []
    for i, length in enumerate(lengths):
        folder = root / f"{i:05}_{length}"
        folders.append(folder)
        if (folder / f"{length}.jpg").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        label = CLASS_NAMES[i % len(CLASS_NAMES)]
        faces = render_clip(label, identity_seed=i, clip_seed=i, num_frames=int(length), image_size=256).frames
        for number, face in enumerate(faces, 1):
            Image.fromarray(face).save(folder / f"{number}.jpg", quality=90)
    return folders


def jpeg_everything(files: list[Path]) -> torch.Tensor:
    """The plain way: decode every frame, then sample. By the same decoder as ours."""
    return read_frame_files(files)[sample_frame_indices(len(files))]


def jpeg_chosen(decode: Callable[[list[Path]], torch.Tensor], files: list[Path]) -> torch.Tensor:
    """Decode the chosen frames."""
    return decode([files[index] for index in sample_frame_indices(len(files))])


def decode_pillow(files: list[Path]) -> torch.Tensor:
    """JPEGs by Pillow."""
    return to_clip([np.asarray(Image.open(file).convert("RGB")) for file in files])


def decode_opencv(files: list[Path]) -> torch.Tensor:
    """JPEGs by OpenCV."""
    return to_clip([cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) for file in files])


def decode_torchvision(files: list[Path]) -> torch.Tensor:
    """JPEGs by torchvision."""
    return torch.stack([decode_image(str(file), ImageReadMode.RGB) for file in files])


def measure_jpeg(arguments: argparse.Namespace) -> dict[str, Any]:
    """Section jpeg."""
    clips = [list_frame_files(folder) for folder in write_folders(arguments.work_dir / "jpeg", arguments.num_clips)]
    ways: dict[str, Way] = {
        "STT": STTVideoProcessor().read_clip,
        "plain": jpeg_everything,
        "Pillow, chosen frames": partial(jpeg_chosen, decode_pillow),
        "torchvision, chosen frames": partial(jpeg_chosen, decode_torchvision),
    }
    if cv2:
        ways["OpenCV, chosen frames"] = partial(jpeg_chosen, decode_opencv)
    found = compare(ways, clips, arguments.repetitions, "plain")
    print_ways("JPEG folders", found)
    return {
        "num_clips": len(clips),
        "mean_num_frames": float(np.mean([len(clip) for clip in clips])),
        "median_num_frames": float(median(len(clip) for clip in clips)),
        "mean_bytes": float(np.mean([file.stat().st_size for clip in clips for file in clip])),
        "ways": found,
    }


# Video files.


def draw_frames(height: int, width: int, num_frames: int) -> Iterable[np.ndarray]:
    """A face that moves before a slowly panning background, with a camera's noise."""
    rng = np.random.default_rng(0)
    size = min(height, 480) // 2 * 2
    faces = render_clip("surprise", identity_seed=0, clip_seed=0, num_frames=3 * FPS, image_size=size).frames
    spots = rng.integers(0, 255, (height // 40 + 2, width // 40 + 3, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(spots).resize((2 * width, height), Image.Resampling.BICUBIC))
    top = (height - size) // 2
    for i in range(num_frames):
        pan, left = i % width, (width - size) // 2 + int(40 * np.sin(i / 12))
        frame = background[:, pan : pan + width].astype(np.int16)
        frame[top : top + size, left : left + size] = faces[i % len(faces)]
        frame += rng.integers(-4, 5, (height, width, 1), dtype=np.int16)
        yield frame.clip(0, 255).astype(np.uint8)


def chosen_of(num_frames: int) -> list[int]:
    """The frames to read: of all, or of three seconds from the middle of a longer file, where there is no keyframe."""
    if num_frames == FPS * SECONDS:
        return sample_frame_indices(num_frames).tolist()
    return (num_frames // 2 + 137 + sample_frame_indices(FPS * SECONDS)).tolist()


def video_stt(path: Path) -> torch.Tensor:
    """Ours."""
    return read_video_frames(path, lambda metadata: np.array(chosen_of(metadata.total_num_frames)))[0]


def video_plain(path: Path) -> torch.Tensor:
    """The plain way: decode everything to one RGB array, then sample."""
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = np.stack([f.to_ndarray(format="rgb24", **ONE_THREAD) for f in container.decode(video=0)])
    return to_clip(list(frames[chosen_of(len(frames))]))


def video_lean(path: Path, stop: bool = False) -> torch.Tensor:
    """The plain way that converts only the chosen frames to RGB, and may stop after the last."""
    frames = {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        chosen = chosen_of(stream.frames)
        for index, frame in enumerate(container.decode(stream)):
            if index in chosen:
                frames[index] = frame.to_ndarray(format="rgb24", **ONE_THREAD)
            if stop and index == chosen[-1]:
                break
    return to_clip([frames[index] for index in chosen])


def video_torchcodec(path: Path) -> torch.Tensor:
    """By torchcodec, which scans the file first too ("exact")."""
    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_at(chosen_of(decoder.metadata.num_frames)).data


def video_opencv(path: Path) -> torch.Tensor:
    """By OpenCV: go to the first chosen frame, from there on convert the chosen ones only."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    chosen = chosen_of(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    if chosen[0] > FPS * SECONDS:
        capture.set(cv2.CAP_PROP_POS_FRAMES, chosen[0])
    start = chosen[0] if chosen[0] > FPS * SECONDS else 0
    frames = []
    for index in range(start, chosen[-1] + 1):
        capture.grab()
        if index in chosen:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    return to_clip(frames)


def measure_videos(arguments: argparse.Namespace, ways: dict[str, Way], plain: str, minutes: int) -> dict[str, Any]:
    """Sections clip and window: the same ways over files of all heights and groups of pictures."""
    others: dict[str, Way] = {}
    if VideoDecoder:
        others["torchcodec"] = video_torchcodec
    if cv2:
        others["OpenCV"] = video_opencv
    found = {}
    for height in arguments.heights:
        for name, group in GROUPS.items():
            seconds = 60 if minutes else SECONDS
            path = arguments.work_dir / "video" / f"{height}p_{name}_{seconds}s.mp4"
            frames = draw_frames(height, HEIGHTS[height], FPS * seconds)
            path = write_h264(path, frames, FPS, group, preset="veryfast", crf="23")
            if minutes:
                path = repeat_video(path.with_stem(f"{height}p_{name}_{minutes}min"), path, LOOPS)
            rows = compare(ways | others, [path], arguments.repetitions if not minutes else arguments.rounds, plain)
            found[f"{height}p, {name} groups"] = {"bytes": path.stat().st_size, "ways": rows}
            print_ways(f"{'window of ten minutes' if minutes else 'three seconds'}, {height}p, {name} groups", rows)
    return found


def measure_clip(arguments: argparse.Namespace) -> dict[str, Any]:
    """Section clip."""
    ways: dict[str, Way] = {"STT": video_stt, "plain": video_plain, "plain, lean": video_lean}
    return measure_videos(arguments, ways, "plain", 0)


def measure_window(arguments: argparse.Namespace) -> dict[str, Any]:
    """Section window."""
    ways: dict[str, Way] = {"STT": video_stt, "plain": video_lean, "plain, stops": partial(video_lean, stop=True)}
    return measure_videos(arguments, ways, "plain", LOOPS)


# The loader.


def measure_loader(arguments: argparse.Namespace) -> dict[str, Any]:
    """Section loader: clips per second of a pass over the folders, after the workers have started."""
    folders = write_folders(arguments.work_dir / "jpeg", arguments.num_clips)
    rows = [
        {"clip_id": folder.name, "label": i % len(CLASS_NAMES), "frames": list(map(str, list_frame_files(folder)))}
        for i, folder in enumerate(folders)
    ]
    passes = 4 * rows  # long enough to forget the first and the last batch
    found: dict[str, dict[str, list[float]]] = {"testing": {}, "training": {}}
    for _ in range(max(3, arguments.repetitions // 3)):
        for mode, rates in found.items():
            data = ClipDataset(passes, STTVideoProcessor(), augment=ClipAugment() if mode == "training" else None)
            for workers in arguments.workers:
                rates.setdefault(str(workers), []).append(clips_per_second(data, workers))
    print("\nDataLoader of JPEG clips to (16, 3, 112, 112), batches of 8: clips/s, median")
    for mode, rates in found.items():
        print(f"{mode:<10}" + "".join(f"{n + ' workers':>12}{median(r):>8.1f}" for n, r in rates.items()), flush=True)
    return {"num_cpus": os.cpu_count(), "batch_size": 8, "clips_per_second": found}


def clips_per_second(data: ClipDataset, workers: int) -> float:
    """The rate from the first batch on."""
    batches = iter(DataLoader(data, batch_size=8, num_workers=workers))
    next(batches)
    began = time.perf_counter()
    num_clips = sum(len(batch["labels"]) for batch in batches)
    return num_clips / (time.perf_counter() - began)


def compare(ways: dict[str, Way], sources: list[Any], repetitions: int, plain: str) -> dict[str, dict[str, Any]]:
    """Time all ways in turns over all sources, and compare their pixels with the plain way's."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    differences = dict.fromkeys(ways, 0)
    for repetition in range(repetitions):
        totals = dict.fromkeys(ways, 0.0)
        # Each way comes after each other: what one leaves in memory and caches must not always meet the same.
        order = np.roll(list(ways), repetition).tolist()[:: -1 if repetition % 2 else 1]
        for source in sources:
            clips = {}
            for name in order:
                began = time.process_time()
                clip = ways[name](source)
                totals[name] += time.process_time() - began
                if repetition == 0:
                    clips[name] = clip
                del clip
            for name in clips:
                difference = int((clips[name].int() - clips[plain].int()).abs().max())
                differences[name] = max(differences[name], difference)
        for name, total in totals.items():
            seconds[name].append(total / len(sources))
    ratios = {n: median(t / stt for t, stt in zip(seconds[n], seconds["STT"], strict=True)) for n in ways}
    return {
        name: {
            "clips_per_cpu_second": 1 / median(times),
            "times_as_long_as_stt": ratios[name],
            "largest_difference": differences[name],
            "least_cpu_seconds": min(times),
            "cpu_seconds": times,
        }
        for name, times in seconds.items()
    }


def print_ways(title: str, ways: dict[str, dict[str, Any]]) -> None:
    """A table of one comparison."""
    print(f"\n{title:<44}{'clips/CPU s':>12}{'times as long':>16}{'largest difference':>21}")
    for name, row in ways.items():
        cells = (
            f"{row['clips_per_cpu_second']:>12.2f}{row['times_as_long_as_stt']:>16.2f}{row['largest_difference']:>21}"
        )
        print(f"{name:<44}{cells}", flush=True)


SECTIONS = {"jpeg": measure_jpeg, "clip": measure_clip, "window": measure_window, "loader": measure_loader}


def describe_decoders() -> dict[str, Any]:
    """Versions of what is compared, beyond those in every result."""
    return {
        **{name: importlib.metadata.version(name) for name in ("av", "pillow", "torchvision")},
        "opencv": cv2.__version__ if cv2 else "not installed",
        "torchcodec": TORCHCODEC,
        "ffmpeg_of_pyav": {name: ".".join(map(str, version)) for name, version in av.library_versions.items()},
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure all that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--heights", type=int, nargs="+", choices=HEIGHTS, help="of videos, default: all")
    parser.add_argument("--num_clips", type=int, default=40, help="JPEG folders")
    parser.add_argument("--repetitions", type=int, help="default: 9, 3 with --quick")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions over ten-minute files")
    parser.add_argument("--workers", type=int, nargs="+", help="default: 0 to the number of CPUs, and twice that")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, small videos only")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/data_speed"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "data_speed.json")
    arguments = parser.parse_args()
    arguments.heights = arguments.heights or ([360] if arguments.quick else list(HEIGHTS))
    arguments.repetitions = arguments.repetitions or (3 if arguments.quick else 9)
    cpus = os.cpu_count() or 1
    arguments.workers = arguments.workers or [*range(cpus + 1), 2 * cpus]
    torch.set_num_threads(1)
    if cv2:
        cv2.setNumThreads(1)
    print(f"torchcodec {TORCHCODEC}")
    results = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    for section in arguments.sections:
        about = {"decoders": describe_decoders(), "environment": describe_environment()}
        results[section] = SECTIONS[section](arguments) | about
        write_results(arguments.output, results)


if __name__ == "__main__":
    main()
