"""Damaged and hostile inputs at random: videos for all readers, data trees for all builders, requests for the handler.

    python tests/fuzz.py --minutes 10 --output benchmarks/results/fuzz.json
    python tests/fuzz.py --only videos:123          # one case again, with its traceback

A case is made from the seed and its number alone. It passes if every reader answers it or refuses it with an error
that names the file, within `LIMIT_S` seconds. It fails if the process crashes or hangs, if another error is raised, or
if one answer contradicts another. `test_fuzz.py` runs a few cases of each kind.
"""

import argparse
import base64
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from PIL import Image

import dataset_scripts
from dataset_scripts.clip_files import count_video_frames
from dataset_scripts.verify import verify
from helpers.copies import COPIES
from helpers.face_videos import HalvesDetector, make_timeline, save_model, scene
from helpers.hub_models import save_hub_model
from helpers.videos import write_video
from modeling_stt.hub.handler import EndpointHandler
from modeling_stt.timeline import DamagedVideoError, write_annotated_video
from modeling_stt.timeline.limits import VideoLimits
from modeling_stt.timeline.video import read_frames
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results
from modeling_stt.video_reading_stt import read_video_frames

LIMIT_S = 60.0
NUM_FRAMES = 30

# Outcome of each reader, by its name.
Outcomes = dict[str, str]


# --- Damage to a file ------------------------------------------------------------------------------------------------


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def cut_head(content: bytes, rng: random.Random) -> bytes:
    return content[rng.randrange(len(content) // 2 + 1) :]


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 32)) if content else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flip_head(content: bytes, rng: random.Random) -> bytes:
    """Headers are small, and what they state is believed by many a reader."""
    return flip(content[:400], rng) + content[400:]


def flip_tail(content: bytes, rng: random.Random) -> bytes:
    return content[:-1500] + flip(content[-1500:], rng)


def blank(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + bytes(min(len(content) - start, rng.choice((16, 512, 4096)))) + content[start + 4096 :]


def noise(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(rng.choice((1, 188, 4096))) + content[start:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * rng.choice((1, 3)) + content[end:]


def exchange(content: bytes, rng: random.Random) -> bytes:
    first, second, third = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return content[:first] + content[second:third] + content[first:second] + content[third:]


def zeros(content: bytes, rng: random.Random) -> bytes:
    return bytes(rng.choice((0, 1, 100, 10_000)))


def huge_field(content: bytes, rng: random.Random) -> bytes:
    return content + b'\n"' + b"9" * 200_000


def utf_16(content: bytes, rng: random.Random) -> bytes:
    return content.decode("latin-1").encode("utf-16")


Damage = Callable[[bytes, random.Random], bytes]
OF_VIDEOS: list[Damage] = [
    *(cut, cut_head, flip, flip, flip, flip_head, flip_tail, blank, noise, repeat, exchange, zeros),
]
OF_LISTS: list[Damage] = [cut, flip, zeros, huge_field, utf_16]


# --- Videos ----------------------------------------------------------------------------------------------------------


def write_bases(folder: Path) -> None:
    """Whole videos of 30 frames, in many containers and codecs."""
    images = scene("happy", "sad", seconds=NUM_FRAMES / 25, size=48)
    fragments = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
    settings: dict[str, dict[str, Any]] = {
        "h264.mp4": {"container_options": {"movflags": "faststart"}},
        "h264_index_at_the_end.mp4": {"bf": 0},
        "h264_in_fragments.mp4": fragments,
        "h264.mkv": {},
        "h264.avi": {},
        "h264.ts": {},
        "h264.flv": {},
        "without_container.h264": {},
        "hevc.mp4": {"codec": "libx265"},
        "mpeg4.mov": {"codec": "mpeg4"},
        "mpeg4.avi": {"codec": "mpeg4"},
        "mpeg2.mpg": {"codec": "mpeg2video"},
        "vp9.webm": {"codec": "libvpx-vp9", "bf": 0},
        "wide_pixels.mp4": {"aspect": 2},
        "with_sound.mp4": {"sound": True},
        "with_sound.ts": {"sound": True},
    }
    for name, options in settings.items():
        write_video(folder / name, images, **options)
    pictures = [Image.fromarray(image) for image in images]
    for name in ("animation.gif", "animation.png"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:], duration=40)


LIMITS = VideoLimits(megabytes=1, seconds=60, frames=2000, side=2000)


def read_all(path: Path) -> np.ndarray:
    return read_video_frames(path)[0].numpy()


def read_timed(path: Path) -> str:
    last_s = -np.inf
    try:
        for frame in read_frames(str(path)):
            assert frame.time_s > last_s and frame.image.dtype == np.uint8 and frame.image.ndim == 3
            last_s = frame.time_s
    except DamagedVideoError as error:
        assert path.name in str(error)
        return "read until it broke off"
    return "read"


def read_limited(path: Path) -> str:
    LIMITS.check(path, path.name)
    with_damage = "read"
    try:
        assert all(max(frame.image.shape) <= LIMITS.side for frame in LIMITS.read(path, path.name))
    except DamagedVideoError:
        with_damage = "read until it broke off"
    return with_damage


def annotate(path: Path) -> str:
    try:
        rows = list(write_annotated_video(path, make_timeline(), path.with_name("annotated.mp4")))
        assert rows
    except DamagedVideoError:
        return "read until it broke off"
    return "read"


def count(path: Path) -> str:
    assert count_video_frames(str(path)) > 0
    return "read"


READERS: dict[str, Callable[[Path], str]] = {
    "timeline": read_timed,
    "timeline with limits": read_limited,
    "annotated video": annotate,
    "frame count of the builders": count,
}


def video_case(rng: random.Random, folder: Path, bases: Path) -> Outcomes:
    base = rng.choice(sorted(bases.iterdir()))
    content = base.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2))):
        content = rng.choice(OF_VIDEOS)(content, rng)
    path = folder / base.name
    path.write_bytes(content)
    outcomes = {name: _outcome(lambda read=read: read(path), path.name) for name, read in READERS.items()}
    whole: list[np.ndarray] = []
    outcomes["processor, all frames"] = _outcome(lambda: whole.append(read_all(path)) or "read", path.name)
    outcomes["processor, some frames"] = _outcome(lambda: _read_some(path, whole, rng), path.name)
    return outcomes


def _read_some(path: Path, whole: Sequence[np.ndarray], rng: random.Random) -> str:
    """Chosen frames must be those that decoding everything gives, where both are possible.

    Damage may hide a frame from the decoder that its packet announced. Then the numbers of frames differ.
    """
    shares = sorted(rng.random() for _ in range(4))

    def choose(metadata: Any) -> np.ndarray:
        return np.array([int(share * metadata.total_num_frames) for share in shares])

    frames, metadata = read_video_frames(path, choose)
    if whole and metadata.total_num_frames != len(whole[0]):
        return "read; a packet gives no frame"
    if whole and whole[0].shape[1:] == tuple(frames.shape[1:]):
        assert (frames.numpy() == whole[0][metadata.frames_indices]).all(), "other frames than by decoding everything"
    return "read"


def _outcome(read: Callable[[], str], name: str) -> str:
    """What a reader did; other errors than refusals that name the file are raised."""
    try:
        return read()
    except (ValueError, OSError) as error:
        assert name in str(error), f"names no file: {error!r}"
        return "refused"


# --- Trees of data sets ----------------------------------------------------------------------------------------------


def _victim(root: Path, rng: random.Random) -> Path:
    """A list or table where there is one and, more often than not, else a clip's file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lists = [path for path in files if path.suffix in (".csv", ".txt", ".xlsx", ".xml")]
    return rng.choice(lists if lists and rng.random() < 0.6 else files)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone")


def become_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def odd_name(path: Path) -> None:
    os.rename(path, os.fsencode(path.parent) + b"/\xff1\xe9" + os.fsencode(path.suffix))


def loop(path: Path) -> None:
    (path.parent / "loop").symlink_to(path.parent.parent, target_is_directory=True)


OF_PLACES: list[Callable[[Path], None]] = [become_folder, become_broken_link, become_link_to_itself, odd_name, loop]


def tree_case(rng: random.Random, folder: Path, copy_name: str) -> Outcomes:
    """Each builder reads the tree or names the file in its error, and `verify` always gives a report."""
    copy = COPIES[copy_name]
    root = folder / "tree"
    copy.write(root)
    path = _victim(root, rng)
    if rng.random() < 0.5:
        rng.choice(OF_PLACES)(path)
    else:
        path.write_bytes(rng.choice(OF_LISTS)(path.read_bytes(), rng))
    options = {"cache_dir": folder / "cache", **copy.options}
    name = str(root)
    outcome = _outcome(
        lambda: dataset_scripts.load_dataset(copy.set, copy.name, data_dir=root, **options) and "read", name
    )
    report = verify(copy.set, root, configurations=[copy.name or "default"], progress=False, **copy.options)
    assert str(report).encode()
    return {copy_name: outcome}


# --- Requests to the handler -----------------------------------------------------------------------------------------

ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 3, 2**70, 0.5, 1e308, float("nan"), float("inf"), "", "\0", "../../etc/passwd", "x" * 5000),
    *("\ud800", "file:///etc/passwd", "http://127.0.0.1/", "data:,", b"", [], {}, [[[]]], {"path": {"path": "."}}),
    *({1: 2}, "face.mp4", ".", "loop.mp4"),
]
PARAMETERS = ("top_k", "timeline", "window_s", "stride_s", "other", 7)


@cache
def _handlers(folder: Path) -> list[EndpointHandler]:
    handlers = [
        EndpointHandler(str(save_model(folder / "stt"))),
        EndpointHandler(str(save_hub_model(folder / "vit", "vit"))),
    ]
    for handler in handlers:
        handler.detector = HalvesDetector()
    return handlers


def payload_case(rng: random.Random, folder: Path, bases: Path) -> Outcomes:
    """An answer is plain JSON; a refusal is a ValueError that names no folder of the server."""
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    shutil.copy(bases / "h264.mp4", folder / "face.mp4")
    os.environ["STT_VIDEO_FOLDER"] = str(folder)
    kind, handler = rng.choice(list(zip(("stt", "vit"), _handlers(bases.parent / "models"), strict=True)))
    request = _request(rng, bases)
    try:
        json.dumps(handler(request), allow_nan=False)
        return {f"handler, {kind}": "answered"}
    except ValueError as error:
        text = str(error)
        for place in (folder, bases, Path(tempfile.gettempdir())):
            assert str(place) not in text, f"names a folder of the server: {text[:300]}"
        return {f"handler, {kind}": "refused"}


def _request(rng: random.Random, bases: Path) -> Any:
    content = rng.choice(sorted(bases.iterdir())).read_bytes()
    if rng.random() < 0.4:
        content = rng.choice(OF_VIDEOS)(content, rng)
    text: Any = base64.b64encode(content).decode()
    if rng.random() < 0.2:
        text = rng.choice((cut, flip, noise))(text.encode(), rng).decode("latin-1")
    inputs: Any = rng.choice((text, content, {"video": text}, {"video": content}, {"path": "face.mp4"}))
    request: Any = {"inputs": inputs}
    if rng.random() < 0.7:
        request["parameters"] = {"timeline": rng.random() < 0.5, "window_s": 0.5, "stride_s": 0.25, "top_k": 2}
    for _ in range(rng.choice((0, 1, 1, 2))):
        _spoil(request, rng)
    return request if rng.random() < 0.97 else rng.choice(ODD_VALUES)


def _spoil(request: dict[Any, Any], rng: random.Random) -> None:
    """Put an odd value, or nothing, somewhere into a request."""
    places = [request, *[value for value in request.values() if isinstance(value, dict)]]
    place = rng.choice(places)
    key = rng.choice([*place, *(PARAMETERS if place is request.get("parameters") else ("inputs", "parameters"))])
    if rng.random() < 0.2:
        place.pop(key, None)
    else:
        place[key] = rng.choice(ODD_VALUES)


# --- Running ---------------------------------------------------------------------------------------------------------

KINDS = ("videos", "trees", "payloads")


def run_case(kind: str, number: int, seed: int, bases: Path) -> Outcomes:
    """Make one case, and give its outcomes.

    Raises:
        AssertionError: For an answer or a refusal that is not as promised; any other error is a failure, too.
    """
    rng = random.Random(f"{seed} {kind} {number}")
    with tempfile.TemporaryDirectory() as folder:
        if kind == "trees":
            return tree_case(rng, Path(folder), list(COPIES)[number % len(COPIES)])
        return (video_case if kind == "videos" else payload_case)(rng, Path(folder), bases)


def _run_measured(kind: str, number: int, seed: int, bases: Path) -> tuple[Outcomes, str, float, float]:
    """In the worker: outcomes, traceback of a failure, seconds, and peak memory of the process in MiB."""
    started = time.monotonic()
    outcomes, failure = {}, ""
    try:
        outcomes = run_case(kind, number, seed, bases)
    except Exception:
        failure = traceback.format_exc()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcomes, failure, time.monotonic() - started, memory


def cases(kinds: Sequence[str], num_cases: int | None, minutes: float | None) -> Iterator[tuple[str, int]]:
    """Kinds in turn and their numbers, until either limit is reached."""
    end = time.monotonic() + 60 * (minutes or np.inf)
    number = 0
    while (num_cases is None or number < num_cases) and time.monotonic() < end:
        yield from ((kind, number) for kind in kinds)
        number += 1


def fuzz(
    kinds: Sequence[str] = KINDS, num_cases: int | None = None, minutes: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """Run cases in a process of their own, which is replaced when it crashes or hangs.

    Returns:
        For each kind the number of cases, the outcomes by reader, the longest case, and the failures, each with the
        name that `--only` takes; and the largest memory of the worker.
    """
    found: dict[str, Any] = {
        kind: {"num_cases": 0, "outcomes": {}, "longest_s": 0.0, "failures": {}} for kind in kinds
    }
    peak = 0.0
    with tempfile.TemporaryDirectory() as home:
        bases = Path(home, "bases")
        bases.mkdir()
        write_bases(bases)
        pool = _new_pool()
        for kind, number in cases(kinds, num_cases, minutes):
            each = found[kind]
            each["num_cases"] += 1
            try:
                answer = pool.submit(_run_measured, kind, number, seed, bases).result(LIMIT_S)
                outcomes, failure, seconds, memory = answer
            except (BrokenProcessPool, TimeoutError) as error:
                outcomes, failure, seconds, memory = {}, f"crash or hang: {error!r}", LIMIT_S, 0.0
                _kill(pool)
                pool = _new_pool()
            if failure:
                each["failures"][f"{kind}:{number}"] = failure
            for reader, outcome in outcomes.items():
                each["outcomes"].setdefault(reader, Counter())[outcome] += 1
            each["longest_s"] = max(each["longest_s"], round(seconds, 2))
            peak = max(peak, memory)
        pool.shutdown()
    return found | {"seed": seed, "peak_mib": round(peak)}


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("fork"))


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in (pool._processes or {}).values():
        process.kill()
    pool.shutdown(wait=False)


def main() -> int:
    """Run cases, print and write what came of them; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--only", metavar="KIND:NUMBER", help="run this case alone, in this process")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    for quiet in (datasets.disable_progress_bars, transformers.utils.logging.disable_progress_bar):
        quiet()
    logging.disable(logging.WARNING)
    if arguments.only:
        kind, _, number = arguments.only.partition(":")
        with tempfile.TemporaryDirectory() as home:
            bases = Path(home, "bases")
            bases.mkdir()
            write_bases(bases)
            print(run_case(kind, int(number), arguments.seed, bases))
        return 0
    found = fuzz(arguments.kinds, minutes=arguments.minutes, seed=arguments.seed)
    for kind in arguments.kinds:
        print(kind, found[kind]["num_cases"], "cases, the longest of", found[kind]["longest_s"], "s")
        for reader, outcomes in found[kind]["outcomes"].items():
            print(f"  {reader}: " + ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
        for name, failure in found[kind]["failures"].items():
            print(f"FAILED {name}\n{failure}", file=sys.stderr)
    failed = any(found[kind]["failures"] for kind in arguments.kinds)
    if arguments.output:
        for kind in arguments.kinds:  # their tracebacks, with this machine's folders, were printed
            found[kind]["failures"] = list(found[kind]["failures"])
        write_results(arguments.output, found | {"environment": describe_environment()})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
