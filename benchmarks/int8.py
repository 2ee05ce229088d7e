"""Effect of exporting and int8 on a model's answers, speed and size.

    make demo
    pip install -e '.[onnx]' openvino
    python benchmarks/int8.py --output benchmarks/results/int8.json

Answers are those of the demo's model on the test fold of its synthetic faces, against its eager answers in float32.
Time and size are of that model and of one of STT's full size (random weights, which decide neither). All formats take
turns on the same clips with the same number of threads, and the least time of each counts; times are ratios to the
eager model's. Formats whose packages are missing are left out, and named.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType
from torch.export import Dim
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, exporters

from dataset_scripts import load_dataset
from modeling_stt import STTConfig, STTForVideoClassification
from modeling_stt.training import ClipDataset
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.metrics import score
from modeling_stt.training.results import write_results

EAGER = "eager, float32"
Answer = Callable[[torch.Tensor], torch.Tensor]  # pixel_values (B, T, 3, H, W) to logits (B, K)


class Format(NamedTuple):
    """A way to export: what goes to the exporter's configuration, and how the result is run."""

    export_format: str
    quantizer: exporters.ExportQuantizer | None
    runner: dict[str, Any]


def make_formats(calibration: list[dict[str, torch.Tensor]]) -> dict[str, Format]:
    """All formats whose packages are here. int8 with calibration sees these clips, one a batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    onnx = {"session_options": options}
    products = partial(exporters.OnnxRuntimeDynamicConfig, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    unsigned = products(weight_type=QuantType.QUInt8, extra_options={"WeightSymmetric": True})
    # Signed weights of 8 bits are left out: their products overflow on CPUs without VNNI (docs/export.md).
    everything = exporters.OnnxRuntimeStaticConfig(per_channel=True, reduce_range=True)
    formats = {
        "ONNX, float32": Format("onnx", None, onnx),
        "ONNX, int8 matrix products": Format("onnx", exporters.OnnxRuntimeQuantizer(unsigned), onnx),
        "ONNX, 7-bit matrix products": Format(
            "onnx", exporters.OnnxRuntimeQuantizer(products(reduce_range=True)), onnx
        ),
        "ONNX, 7 bits, calibrated": Format("onnx", exporters.OnnxRuntimeQuantizer(everything, calibration), onnx),
    }
    if find_spec("openvino"):
        own = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        float32 = own | {"INFERENCE_PRECISION_HINT": "f32"}
        formats["OpenVINO, float32"] = Format("openvino", None, {"config": float32})
        formats["OpenVINO, its own choice"] = Format("openvino", None, {"config": own})
    else:
        print("Left out OpenVINO: pip install openvino")
    return formats


def export(model: STTForVideoClassification, form: Format, folder: Path) -> tuple[Answer, int]:
    """Export for any batch, save, load again; what answers, and the bytes of the program with its weights."""
    config = model.config
    clips = torch.rand(2, config.num_frames, 3, config.image_size, config.image_size)
    any_batch = {"pixel_values": {0: Dim("batch")}}
    options = {"export_format": form.export_format, "dynamic_shapes": any_batch, "quantizer": form.quantizer}
    export_config = exporters.AutoExportConfig.from_dict(options)
    exporter = exporters.AutoHfExporter.from_config(export_config)
    exporter.export(model, {"pixel_values": clips}, export_config).save_pretrained(folder)
    exported = exporters.ExportedModel.from_pretrained(folder, **form.runner)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".data", ".xml", ".bin"))
    return lambda pixel_values: exported(pixel_values=pixel_values).logits, size


def export_all(
    model: STTForVideoClassification, formats: dict[str, Format], folder: Path
) -> tuple[dict[str, Answer], dict[str, int]]:
    """The eager model and every export of it: answers and sizes in bytes, by name."""
    answers: dict[str, Answer] = {EAGER: lambda pixel_values: model(pixel_values=pixel_values).logits}
    sizes = {EAGER: sum(p.numel() * p.element_size() for p in model.state_dict().values())}
    for name, form in formats.items():
        answers[name], sizes[name] = export(model, form, folder / name)
    return answers, sizes


def time_side_by_side(answers: dict[str, Answer], clips: torch.Tensor, rounds: int) -> dict[str, float]:
    """Least seconds a clip of each, taking turns."""
    seconds = dict.fromkeys(answers, float("inf"))
    for turn in range(rounds + 1):
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(clips)
            if turn:  # the first is for warming up
                seconds[name] = min(seconds[name], (time.perf_counter() - start) / len(clips))
    return seconds


def stack(clips: ClipDataset, indices: Iterable[int]) -> tuple[torch.Tensor, np.ndarray]:
    """Some clips of a data set as `(B, T, 3, H, W)`, and their labels `(B,)`."""
    items = [clips[int(index)] for index in indices]
    return torch.stack([item["pixel_values"] for item in items]), np.array([item["labels"] for item in items])


def measure_answers(answers: dict[str, Answer], clips: ClipDataset, names: list[str]) -> dict[str, dict[str, float]]:
    """Scores of each on these clips, and how far its logits are from the eager model's."""
    pixel_values, labels = stack(clips, range(len(clips)))
    logits = {name: torch.cat([answer(batch) for batch in pixel_values.split(16)]) for name, answer in answers.items()}
    rows = {}
    for name, found in logits.items():
        scores = score(labels, found.argmax(dim=1).numpy(), names)
        rows[name] = {
            "war": scores.war,
            "uar": scores.uar,
            "same_class": (found.argmax(dim=1) == logits[EAGER].argmax(dim=1)).float().mean().item(),
            "largest_logit_difference": (found - logits[EAGER]).abs().max().item(),
        }
    return rows


def measure_speed(
    model: STTForVideoClassification, answers: dict[str, Answer], sizes: dict[str, int], batch_size: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Time a clip, as it is and in units of the eager model's, and size."""
    config = model.config
    clips = torch.rand(batch_size, config.num_frames, 3, config.image_size, config.image_size)
    seconds = time_side_by_side(answers, clips, rounds)
    return {
        name: {"seconds": seconds[name], "time_ratio": seconds[name] / seconds[EAGER], "bytes": sizes[name]}
        for name in answers
    }


def print_table(answers: dict[str, dict[str, float]], speed: dict[str, dict[str, dict[str, float]]]) -> None:
    """The numbers as a table in Markdown."""
    print("| | WAR | UAR | same class | largest logit difference | demo: time, MB | full size: time, MB |")
    print("|---|---|---|---|---|---|---|")
    for name, row in answers.items():
        shares = [f"{100 * row[key]:.1f}" for key in ("war", "uar", "same_class")]
        costs = [f"{rows[name]['time_ratio']:.2f}, {rows[name]['bytes'] / 1e6:.1f}" for rows in speed.values()]
        cells = [name, *shares, f"{row['largest_logit_difference']:.1e}", *costs]
        print(f"| {' | '.join(cells)} |")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("demo/compact"))
    parser.add_argument("--data_dir", type=Path, default=Path("demo/RenderedDFEW"))
    parser.add_argument("--num_calibration_clips", type=int, default=64, help="drawn from the training fold")
    parser.add_argument("--batch_size", type=int, default=4, help="clips at a time, for the times")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each format, for the times")
    parser.add_argument("--output", type=Path, help="JSON to write")
    return parser.parse_args()


def load_fold(split: str, model: STTForVideoClassification, arguments: argparse.Namespace) -> ClipDataset:
    """The clips of one side of the demo's fold."""
    rows = load_dataset("dfew", "fold_1", data_dir=arguments.data_dir, split=split)
    return ClipDataset(rows, AutoVideoProcessor.from_pretrained(arguments.model), labels=model.config.class_names)


@torch.no_grad()
def main() -> None:
    """Export both models in every format, measure, print, write."""
    arguments = parse_arguments()
    demo = AutoModelForVideoClassification.from_pretrained(arguments.model).eval()
    full_size = STTForVideoClassification(STTConfig()).eval()
    training, test = (load_fold(split, demo, arguments) for split in ("train", "test"))
    drawn = np.random.default_rng(0).permutation(len(training))[: arguments.num_calibration_clips]
    calibration = {
        "demo": [{"pixel_values": clip[None]} for clip in stack(training, drawn)[0]],
        "full_size": [{"pixel_values": torch.rand(1, 16, 3, 112, 112)}],  # of random weights only the speed counts
    }
    answers, speed = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in {"demo": demo, "full_size": full_size}.items():
            exported, sizes = export_all(model, make_formats(calibration[name]), Path(folder) / name)
            if name == "demo":
                answers = measure_answers(exported, test, demo.config.class_names)
            speed[name] = measure_speed(model, exported, sizes, arguments.batch_size, arguments.rounds)
    print_table(answers, speed)
    if arguments.output:
        packages = [name for name in ("onnx", "onnxruntime", "onnxscript", "openvino") if find_spec(name)]
        settings = {name: getattr(arguments, name) for name in ("batch_size", "rounds", "num_calibration_clips")}
        found = {
            "data": "synthetic faces",
            "num_clips": len(test),
            "answers": answers,
            "speed": speed,
            "settings": settings | {"num_threads": torch.get_num_threads()},
            "environment": describe_environment() | {name: version(name) for name in packages},
        }
        write_results(arguments.output, found)


if __name__ == "__main__":
    main()
