"""Speed and memory of the model: as a share of the matrix rate, and beside other models.

    python benchmarks/model_speed.py                              # all sections, on the GPU if there is one
    python benchmarks/model_speed.py --sections rate --device cpu
    python benchmarks/model_speed.py --sections rate rivals --compile --precisions "bfloat16 weights"
    python benchmarks/model_speed.py --sections rivals --rivals VideoMAE-B --rival_batch 4
    python benchmarks/model_speed.py --quick                      # fewer repetitions, shorter sweeps

Sections, each runnable alone:

- rate: forward and training step (forward, backward, SGD) in each precision, as a share of the rate of one matrix
  product (3136×512×2048) of the same dtype. Two shares: `share` counts the operations of the model as it is defined,
  every token of every block; `share_done` those that are carried out, without what the class token does not need
- batch: the same forward share for 1 to 16 clips a batch
- rivals: time per clip of STT's blocks on larger frame encoders (CLIP ViT-B/16 at 224 px, DINOv2-S/14 at 98 px), and
  of VideoMAE-B, TimeSformer-B, ViViT-B, R3D-18 and MViTv2-S, each with its own configuration and random weights, over
  STT's in the same mode
- growth: time and peak memory against number of frames, image size and number of blocks, and the fitted exponent
- memory: what a clip adds to the peak of a training step, with and without gradient checkpointing
- recipes: the models of examples/recipes by their sizes, with random weights: time of a forward pass and of a training
  step over the default's, memory that a clip adds to a training step, parameters and trained parameters

What is compared takes turns within one run, so that a machine that slows down slows all; times are the best of the
repetitions, medians stand beside them in the JSON. FLOPs are counted by torch's FlopCounterMode, two a multiply-add,
as in the rate. Memory is PyTorch's own peak on GPUs, and the peak of all live tensors (MemTracker) on CPUs.
With --compile, what rate, batch and rivals time is compiled, for inference with frozen weights. A section's results
replace those it had in the output file and leave those of other sections.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.video import mvit_v2_s, r3d_18
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from modeling_stt import STTConfig, STTForVideoClassification
from modeling_stt.loading import warn_of_slow_bfloat16
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.lora import add_lora
from modeling_stt.training.results import write_results

MATRIX = (3136, 512, 2048)
PRECISIONS = ("float32", "bfloat16 autocast", "bfloat16 weights")
VIT_B = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
VIT_S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518}
SWEEPS: dict[str, tuple[int, ...]] = {
    "num_frames": (8, 16, 32, 64),
    "image_size": (64, 112, 160, 224),
    "num_hidden_layers": (1, 2, 4, 8),
}


class Rival(NamedTuple):
    """A model to compare with: how to make it, and the shape of a clip."""

    make: Callable[[], nn.Module]
    clip_shape: tuple[int, ...]


RIVALS = {
    "STT": Rival(lambda: make_stt(), (16, 3, 112, 112)),
    "STT on CLIP-B/16": Rival(
        lambda: make_stt(backbone_config=CLIPVisionConfig(**VIT_B, patch_size=16), image_size=224), (16, 3, 224, 224)
    ),
    "STT on DINOv2-S/14": Rival(
        lambda: make_stt(backbone_config=Dinov2Config(**VIT_S, patch_size=14), image_size=98), (16, 3, 98, 98)
    ),
    "VideoMAE-B": Rival(lambda: VideoMAEForVideoClassification(VideoMAEConfig()), (16, 3, 224, 224)),
    "TimeSformer-B": Rival(lambda: TimesformerForVideoClassification(TimesformerConfig()), (8, 3, 224, 224)),
    "ViViT-B": Rival(lambda: VivitForVideoClassification(VivitConfig()), (32, 3, 224, 224)),
    "R3D-18": Rival(lambda: r3d_18(weights=None), (3, 16, 112, 112)),
    "MViTv2-S": Rival(lambda: mvit_v2_s(weights=None), (3, 16, 224, 224)),
}


RECIPES: dict[str, Callable[[], STTForVideoClassification]] = {
    "ResNet-18 at 112 px (default)": lambda: make_stt(),
    "CLIP ViT-B/16 at 224 px, adapters of rank 8": lambda: make_clip_lora(),
    "DINOv2-S/14 at 224 px, frozen": lambda: make_frozen(),
}


def make_clip_lora() -> STTForVideoClassification:
    """The model of dfew_clip_lora.yaml."""
    model = make_stt(backbone_config=CLIPVisionConfig(**VIT_B, patch_size=16), image_size=224)
    add_lora(model, 8)
    return model


def make_frozen() -> STTForVideoClassification:
    """The model of dfew_dinov2_frozen.yaml."""
    model = make_stt(backbone_config=Dinov2Config(**VIT_S, patch_size=14), image_size=224)
    model.stt.backbone.requires_grad_(False)
    return model


def make_stt(attention: str = "sdpa", **changes: Any) -> STTForVideoClassification:
    """STT with random weights."""
    return STTForVideoClassification._from_config(STTConfig(**changes), attn_implementation=attention)


def logits_of(outputs: Any) -> torch.Tensor:
    """transformers' models return an output with logits, torchvision's the logits themselves."""
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


class Job:
    """One thing to be timed: a forward pass or a training step of a model on random clips.

    Args:
        model: Is copied, moved to the device and cast.
        clip_shape: Shape of one clip.
        batch_size: Clips a batch.
        precision: One of `PRECISIONS`.
        training: Forward, backward and a step of SGD with momentum, instead of a forward pass without gradients.
        device: Where to run.
        compiled: Run it by torch.compile.
    """

    def __init__(
        self,
        model: nn.Module,
        clip_shape: tuple[int, ...],
        batch_size: int,
        precision: str,
        training: bool,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        self.precision, self.training, self.device, self.batch_size = precision, training, device, batch_size
        self.dtype = torch.float32 if precision == "float32" else torch.bfloat16
        if self.dtype == torch.bfloat16:
            warn_of_slow_bfloat16(device.type)
        weights_dtype = torch.bfloat16 if precision == "bfloat16 weights" else torch.float32
        self.model = copy.deepcopy(model).to(device, weights_dtype).train(training)
        self.clips = torch.rand(batch_size, *clip_shape).to(device, weights_dtype)
        self.labels = torch.randint(0, 2, (batch_size,)).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.call: Callable = self.model
        if compiled:
            self.call = torch.compile(self.model, dynamic=False, options={} if training else {"freezing": True})

    def autocast(self) -> AbstractContextManager:
        """The context of the forward pass."""
        if self.precision != "bfloat16 autocast":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def __call__(self) -> None:
        """Run once."""
        if not self.training:
            with torch.no_grad(), self.autocast():
                self.call(self.clips)
            return
        with self.autocast():
            logits = logits_of(self.call(self.clips))
        nn.functional.cross_entropy(logits.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Product:
    """The matrix product whose rate the machine is judged by."""

    flops = 2 * math.prod(MATRIX)

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        rows, inner, columns = MATRIX
        self.left = torch.randn(rows, inner).to(device, dtype)
        self.right = torch.randn(inner, columns).to(device, dtype)

    def __call__(self) -> None:
        """Multiply once."""
        torch.mm(self.left, self.right)


def seconds(run: Callable[[], None], calls: int, device: torch.device) -> float:
    """Mean time of one of `calls` calls in a row."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return (time.perf_counter() - began) / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(
    runs: Mapping[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Time all runs, one after the other and again; best and median seconds of a call of each.

    A repetition calls a run as often as fills 50 ms, for on a GPU one call alone would time its launch.
    """
    torch.compiler.reset()  # past a number of models, torch.compile would give up and run what follows uncompiled
    calls = {}
    for name, run in runs.items():
        seconds(run, 2, device)
        calls[name] = max(1, math.ceil(0.05 / seconds(run, 1, device)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, calls[name], device))
    return {name: {"best": min(values), "median": median(values)} for name, values in times.items()}


def count_flops(
    make: Callable[[], nn.Module], clip_shape: tuple[int, ...], training: bool = False, **options: Any
) -> int:
    """FLOPs of one clip's forward pass, or of forward and backward, counted on the meta device: nothing is computed.

    The counter knows matrix products, not each device's fused attention, hence plain attention here. `options` go to
    the model's forward.
    """
    with torch.device("meta"):
        model: Any = make().train(training)
        clips = torch.empty(1, *clip_shape)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    with torch.set_grad_enabled(training), FlopCounterMode(display=False) as counter:
        logits = logits_of(model(clips, **options))
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


def peak_memory(job: Job) -> int:
    """The most bytes that one call of the job holds, weights included."""
    job()
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
        job()
        return torch.cuda.max_memory_allocated(job.device)
    tracker = MemTracker()
    tracker.track_external(job.model, job.optimizer, job.clips)
    with tracker:
        job()
    return tracker.get_tracker_snapshot("peak")[job.device]["Total"]


def frozen_as_buffers(model: nn.Module) -> nn.Module:
    """Copy a model with its frozen parameters as buffers: MemTracker fails on parameters without gradients."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return model


def growth(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Exponent e of the power law value ~ size^e that fits best (least squares of the logarithms)."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


# --- sections --------------------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """FLOPs of a clip: of the model as it is defined, and of what is carried out."""

    defined: int
    done: int


def count_work(training: bool) -> Work:
    """STT's FLOPs a clip. Whoever asks for all hidden states gets every token of every block computed."""
    clip_shape = RIVALS["STT"].clip_shape
    defined = count_flops(make_stt, clip_shape, training, output_hidden_states=True)
    return Work(defined=defined, done=count_flops(make_stt, clip_shape, training))


def shares(jobs: dict[str, Job], work: Mapping[bool, Work], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time jobs of STT in turn with the product of their dtype; `work` a clip, by whether it is trained on."""
    device = arguments.device
    products = {str(dtype): Product(dtype, device) for dtype in dict.fromkeys(job.dtype for job in jobs.values())}
    times = take_turns({**products, **jobs}, arguments.repeats, device)
    rows = []
    for name, job in jobs.items():
        rate = Product.flops / times[str(job.dtype)]["best"]
        per_clip = {kind: value / job.batch_size for kind, value in times[name].items()}
        share, share_done = (flops / per_clip["best"] / rate for flops in work[job.training])
        row = {"name": name, "milliseconds_per_clip": in_milliseconds(per_clip), "share": share}
        rows.append(row | {"share_done": share_done, "rate": rate})
        print(
            f"  {name:<48}{1e3 * per_clip['best']:10.3f} ms/clip   {share:6.3f} of {rate / 1e12:7.3f} TFLOP/s, "
            f"done {share_done:6.3f}"
        )
    return rows


def in_milliseconds(times: dict[str, float]) -> dict[str, float]:
    """Best and median, in milliseconds."""
    return {kind: 1e3 * value for kind, value in times.items()}


def measure_rate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and training step in each precision, under SDPA and plain attention, against the matrix rate."""
    work = {training: count_work(training) for training in (False, True)}
    print(
        f"{work[False].defined / 2e9:.2f} G multiply-adds a clip forward, {work[False].done / 2e9:.2f} G of them done"
    )
    rows = []
    for training in (False, True):
        for precision in arguments.precisions:
            jobs = {
                f"{'training step' if training else 'forward'}, {precision}, {attention}": stt_job(
                    arguments, arguments.batch, precision, training, attention
                )
                for attention in arguments.attentions
            }
            rows += shares(jobs, work, arguments)
    flops = {"forward": work[False]._asdict(), "training_step": work[True]._asdict()}
    return {"flops": flops, "batch": arguments.batch, "rows": rows}


def stt_job(
    arguments: argparse.Namespace, batch_size: int, precision: str, training: bool = False, attention: str = "sdpa"
) -> Job:
    """STT as it is by default."""
    clip_shape = RIVALS["STT"].clip_shape
    model = make_stt(attention)
    return Job(model, clip_shape, batch_size, precision, training, arguments.device, arguments.compile)


def measure_batch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward in each precision against the matrix rate, 1 to 16 clips a batch."""
    work = {False: count_work(training=False)}
    rows = []
    for precision in arguments.precisions:
        sizes = (1, 4, 16) if arguments.quick else (1, 2, 4, 8, 16)
        jobs = {f"forward, {precision}, batch {size}": stt_job(arguments, size, precision) for size in sizes}
        rows += shares(jobs, work, arguments)
    return {"rows": rows}


def measure_rivals(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time per clip over STT's: forward in each precision; on GPUs and with --training also a training step."""
    rows = []
    modes = [(precision, False) for precision in arguments.precisions]
    if arguments.training or arguments.device.type == "cuda":
        modes.append(("bfloat16 autocast", True))
    batch_size = arguments.rival_batch
    rivals = {name: RIVALS[name] for name in ("STT", *arguments.rivals)}
    facts = {name: describe_rival(rival) for name, rival in rivals.items()}
    for precision, training in modes:
        mode = f"{'training step' if training else 'forward'}, {precision}"
        jobs = {
            name: Job(
                rival.make(), rival.clip_shape, batch_size, precision, training, arguments.device, arguments.compile
            )
            for name, rival in rivals.items()
        }
        times = take_turns(jobs, arguments.repeats, arguments.device)
        for name, found in times.items():
            ratio = found["best"] / times["STT"]["best"]
            per_clip = in_milliseconds({kind: value / batch_size for kind, value in found.items()})
            rows.append({"name": name, "mode": mode, "milliseconds_per_clip": per_clip, "times_stt": ratio})
            print(f"  {mode:<36}{name:<16}{per_clip['best']:10.3f} ms/clip   {ratio:7.2f} × STT", flush=True)
    return {"batch": batch_size, "models": facts, "rows": rows}


def describe_rival(rival: Rival) -> dict[str, Any]:
    """Shape of a clip, parameters and FLOPs."""
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in rival.make().parameters())
    flops = count_flops(rival.make, rival.clip_shape)
    return {"clip_shape": rival.clip_shape, "parameters": num_parameters, "flops_forward": flops}


def measure_growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and training step against number of frames, image size and number of blocks, bfloat16 autocast.

    One batch of one clip on CPUs, of 16 on GPUs, where the time of a smaller one is that of launching its kernels.
    """
    found = {}
    for setting, sizes in SWEEPS.items():
        sizes = sizes[:3] if arguments.quick else sizes
        rows = [measure_point(setting, size, arguments) for size in sizes]
        exponents = {key: growth(sizes, [row[key] for row in rows]) for key in rows[0] if key != "size"}
        found[setting] = {"rows": rows, "exponents": exponents}
        for row in rows:
            print(f"  {setting:<18}" + "  ".join(f"{key} {value:10.2f}" for key, value in row.items()))
        print(
            f"  {'grows with power':<18}" + "  ".join(f"{key} {e:10.2f}" for key, e in exponents.items()), flush=True
        )
    return found


def measure_point(setting: str, size: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds and MiB of a batch with one value of the configuration changed."""
    changes: dict[str, Any] = {setting: size}
    model = make_stt(**changes)
    config = model.config
    clip_shape = (config.num_frames, config.num_channels, config.image_size, config.image_size)
    row: dict[str, float] = {"size": size}
    for training in (False, True):
        batch_size = 16 if arguments.device.type == "cuda" else 1
        job = Job(model, clip_shape, batch_size, "bfloat16 autocast", training, arguments.device)
        kind = "training" if training else "forward"
        row[f"{kind}_ms"] = 1e3 * take_turns({"": job}, max(2, arguments.repeats // 2), arguments.device)[""]["best"]
        row[f"{kind}_mib"] = peak_memory(job) / 2**20
    return row


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what a further clip adds to the peak of a training step, with and without gradient checkpointing."""
    rows = []
    few, many = (8, 16) if arguments.device.type == "cuda" else (1, 3)
    for precision in arguments.precisions:
        per_clip = {}
        for checkpointing in (False, True):
            model = make_stt()
            if checkpointing:
                model.activation_checkpointing_enable()
            peaks = [
                peak_memory(Job(model, RIVALS["STT"].clip_shape, size, precision, True, arguments.device))
                for size in (few, many)
            ]
            per_clip[checkpointing] = (peaks[1] - peaks[0]) / (many - few) / 2**20
        row = {"precision": precision, "mib_per_clip": per_clip[False], "mib_per_clip_checkpointed": per_clip[True]}
        rows.append(row | {"ratio": per_clip[True] / per_clip[False]})
        print(f"  {precision:<20}" + "  ".join(f"{key} {value:.3f}" for key, value in list(rows[-1].items())[1:]))
    return {"rows": rows}


def measure_recipes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time per clip of each recipe's model over the default's, and memory of a training step."""
    precision, device = "bfloat16 autocast", arguments.device
    batch_size = 8 if device.type == "cuda" else 1
    models = {name: make() for name, make in RECIPES.items()}
    rows: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        trained = model.num_parameters(only_trainable=True)
        rows[name] = {"name": name, "parameters": model.num_parameters(), "trained_parameters": trained}
        shape = (16, 3, model.config.image_size, model.config.image_size)
        tracked, sizes = frozen_as_buffers(model), (batch_size, 2 * batch_size)
        peaks = [peak_memory(Job(tracked, shape, size, precision, True, device)) for size in sizes]
        rows[name]["mib_per_clip"] = (peaks[1] - peaks[0]) / batch_size / 2**20
    for training in (False, True):
        jobs = {
            name: Job(model, (16, 3, *[model.config.image_size] * 2), batch_size, precision, training, device)
            for name, model in models.items()
        }
        times = take_turns(jobs, arguments.repeats, device)
        first = next(iter(times.values()))["best"]
        for name, found in times.items():
            kind = "training_step" if training else "forward"
            per_clip = in_milliseconds({key: value / batch_size for key, value in found.items()})
            rows[name] |= {f"{kind}_milliseconds_per_clip": per_clip, f"{kind}_times_default": found["best"] / first}
            print(f"  {kind:<16}{name:<48}{per_clip['best']:10.1f} ms/clip {found['best'] / first:7.2f}", flush=True)
    return {"precision": precision, "batch": batch_size, "rows": list(rows.values())}


SECTIONS = {
    "rate": measure_rate,
    "batch": measure_batch,
    "rivals": measure_rivals,
    "growth": measure_growth,
    "memory": measure_memory,
    "recipes": measure_recipes,
}


def parse_arguments() -> argparse.Namespace:
    """Options of the command line, defaults by device filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(default_device))
    parser.add_argument("--compile", action="store_true", help="compile what rate, batch and rivals time")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--attentions", nargs="+", choices=("sdpa", "eager"), default=("sdpa", "eager"), help="rate")
    parser.add_argument("--training", action="store_true", help="rivals: training steps also on CPUs")
    parser.add_argument("--batch", type=int, help="clips a batch in rate; 4 on CPUs, 32 on GPUs")
    parser.add_argument(
        "--rivals", nargs="+", choices=list(RIVALS)[1:], default=list(RIVALS)[1:], help="models in rivals"
    )
    parser.add_argument("--rival_batch", type=int, help="clips a batch in rivals; 1 on CPUs, 8 on GPUs")
    parser.add_argument("--repeats", type=int, help="timed turns; 5 on CPUs, 20 on GPUs")
    parser.add_argument("--quick", action="store_true", help="3 turns and shorter sweeps")
    parser.add_argument(
        "--output", type=Path, help="JSON; by default benchmarks/results/model_speed.json, _cuda on GPUs"
    )
    arguments = parser.parse_args()
    on_gpu = arguments.device.type == "cuda"
    arguments.batch = arguments.batch or (32 if on_gpu else 4)
    arguments.rival_batch = arguments.rival_batch or (8 if on_gpu else 1)
    arguments.repeats = arguments.repeats or (3 if arguments.quick else 20 if on_gpu else 5)
    name = "model_speed_cuda.json" if on_gpu else "model_speed.json"
    arguments.output = arguments.output or Path(__file__).parent / "results" / name
    return arguments


def main() -> None:
    """Run the sections and write what they found."""
    arguments = parse_arguments()
    results = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    for section in arguments.sections:
        compiled = arguments.compile and section in ("rate", "batch", "rivals")
        name = f"{section}_compiled" if compiled else section
        if section == "rivals" and arguments.rival_batch != 1:
            name += f"_batch_{arguments.rival_batch}"
        print(f"{name}, {arguments.device}, {torch.get_num_threads()} threads", flush=True)
        torch.manual_seed(0)
        results[name] = SECTIONS[section](arguments) | {
            "device": str(arguments.device),
            "num_threads": torch.get_num_threads(),
            "environment": describe_environment(),
        }
        write_results(arguments.output, results)


if __name__ == "__main__":
    main()
