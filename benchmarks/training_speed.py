"""Speed and memory of train.py, and the time of an epoch by phase.

    python benchmarks/training_speed.py --output benchmarks/results/training_speed.json
    python benchmarks/training_speed.py --small        # a small model, for machines without a GPU

Trains on synthetic faces by `accelerate launch` with each configuration of examples/accelerate that one GPU can run,
with and without gradient checkpointing, three epochs each: one to warm up; one that is timed as it is, for clips per
second and peak memory; one in which every phase waits for the device before and after, which tells the phases apart
and takes a little longer. Without a GPU the CPU is used, and memory is that of the whole process. Options that are not
known here go to train.py, such as `--tf32 True` or `--dataloader_num_workers 8`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import accelerate.data_loader
import torch
from transformers import TrainerCallback

import modeling_stt.training.protocol
from dataset_scripts.rendered_faces import write_rendered_dfew
from modeling_stt.training import STTTrainer
from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results
from train import train

ROOT = Path(__file__).parents[1]

# Name in the table, configuration, options of `accelerate launch`.
CONFIGURATIONS = {
    "one_gpu": ("one_gpu", []),
    "bf16": ("bf16", []),
    "fsdp2": ("fsdp2", ["--num_processes=1"]),
    "fsdp2 bf16": ("fsdp2", ["--num_processes=1", "--mixed_precision=bf16"]),
}
PHASES = ("data wait", "host to device", "forward", "backward", "optimizer", "evaluation", "checkpoint", "other")
SMALL_MODEL = {
    "image_size": 64,
    "num_frames": 8,
    "backbone_stem_width": 16,
    "backbone_widths": [16, 32, 64],
    "backbone_depths": [1, 1, 1],
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
}
TIMED_EPOCH, PHASES_EPOCH = 1, 2  # counted from 0


class _Clock(TrainerCallback):
    """Times one epoch as it is, and the phases of another."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.phases: dict[str, float] = defaultdict(float)
        self.running: list[str] = []
        self.epoch = -1
        self.began = self.since = 0.0

    def now(self) -> float:
        """Seconds, when all that the device was given is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def switch(self) -> None:
        """Give the time since the last change to the phase that has been running."""
        now = self.now()
        self.phases[self.running[-1] if self.running else "other"] += now - self.since
        self.since = now

    def enter(self, phase: str) -> None:
        """A phase begins; the one around it pauses."""
        if self.epoch == PHASES_EPOCH:
            self.switch()
            self.running.append("evaluation" if "evaluation" in self.running else phase)

    def leave(self) -> None:
        """The phase that began last ends."""
        if self.epoch == PHASES_EPOCH and self.running:
            self.switch()
            self.running.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of this context as this phase's."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer, as the following are."""
        self.epoch = round(state.epoch or 0)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.began = self.since = self.now()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.epoch == TIMED_EPOCH:
            self.found["train_seconds"] = self.now() - self.began
            self.found["peak_memory_gib"] = peak_memory()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.enter("optimizer")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.leave()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.epoch == PHASES_EPOCH:
            self.switch()
            self.found["epoch_seconds"] = self.since - self.began
            self.epoch = -1


def peak_memory() -> float:
    """The most memory used so far, in GiB: of the GPU since the epoch began, else of this process since its start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class _TimedTrainer(STTTrainer):
    """STTTrainer that reports its phases to a clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.clock = _Clock()
        super().__init__(*args, **kwargs)
        self.add_callback(self.clock)
        backward, send = self.accelerator.backward, accelerate.data_loader.send_to_device

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            with self.clock.phase("backward"):
                backward(*args, **kwargs)

        def timed_send(*args: Any, **kwargs: Any) -> Any:
            with self.clock.phase("host to device"):
                return send(*args, **kwargs)

        self.accelerator.backward = timed_backward
        accelerate.data_loader.send_to_device = timed_send

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("data wait"):
            return super().get_batch_samples(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("forward"):
            return super().compute_loss(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("evaluation"):
            return super().evaluation_loop(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.clock.phase("checkpoint"):
            super()._save_checkpoint(*args, **kwargs)


def work(path: Path, options: list[str]) -> None:
    """Run what `accelerate launch` starts: one training by train.py, its findings written to `path`."""
    modeling_stt.training.protocol.STTTrainer = _TimedTrainer  # type: ignore[misc]
    finished = train(options)
    trainer = finished.trainer
    assert isinstance(trainer, _TimedTrainer)
    clock, num_clips = trainer.clock, len(trainer.train_dataset)  # type: ignore[arg-type]
    busy = sum(clock.phases[name] for name in ("forward", "backward", "optimizer"))
    found = clock.found | {
        "clips": {"train": num_clips, "evaluation": len(trainer.eval_dataset)},  # type: ignore[arg-type]
        "clips_per_second": num_clips / clock.found["train_seconds"],
        "clips_per_second_without_data": num_clips / busy,
        "phases": {name: clock.phases[name] for name in PHASES},
        "fsdp": trainer.is_fsdp_enabled,
        "mixed_precision": trainer.accelerator.mixed_precision,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32},
        "last_train_loss": next(e["loss"] for e in reversed(trainer.state.log_history) if "loss" in e),
        "environment": describe_environment(),
    }
    write_results(path, found)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def measure(name: str, checkpointing: bool, arguments: argparse.Namespace, options: list[str]) -> dict[str, Any]:
    """Train by one configuration, in a process of its own."""
    configuration, launch = CONFIGURATIONS[name]
    run = arguments.work_dir / f"{name.replace(' ', '_')}_{checkpointing}_{time.time_ns()}"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch]
    command += ["--config_file", str(ROOT / "examples" / "accelerate" / f"{configuration}.yaml")]
    command += [__file__, "--work", f"{run}.json", "--", f"--data_dir={tree(arguments)}", f"--output_dir={run}"]
    command += ["--fold=1", "--verify_data=False", f"--num_train_epochs={PHASES_EPOCH + 1}", "--disable_tqdm=True"]
    command += [f"--gradient_checkpointing={checkpointing}", f"--per_device_train_batch_size={arguments.batch_size}"]
    command += [f"--per_device_eval_batch_size={arguments.batch_size}", f"--use_cpu={not torch.cuda.is_available()}"]
    if arguments.small:
        command += ["--model_config", json.dumps(SMALL_MODEL)]
    if arguments.num_workers:
        command += [f"--dataloader_num_workers={arguments.num_workers}", "--dataloader_persistent_workers=True"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    found = json.loads(Path(f"{run}.json").read_text(encoding="utf-8"))
    return {"configuration": name, "gradient_checkpointing": checkpointing, **found}


def tree(arguments: argparse.Namespace) -> Path:
    """The folder of the synthetic clips, named by what is in it."""
    kind = "small" if arguments.small else "full"
    return arguments.work_dir / f"synthetic_{kind}_{arguments.num_clips}"


def print_row(row: dict[str, Any]) -> None:
    """One line of the table: rates, memory, and each phase's share of the epoch in per cent."""
    name = row["configuration"] + (", checkpointing" if row["gradient_checkpointing"] else "")
    shares = "".join(f"{100 * row['phases'][phase] / row['epoch_seconds']:15.1f}" for phase in PHASES)
    rates = f"{row['clips_per_second']:10.1f}{row['clips_per_second_without_data']:14.1f}"
    print(f"{name:<26}{rates}{row['peak_memory_gib']:10.2f}{shares}", flush=True)


def main() -> None:
    """Measure all that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, help="default: all that run here")
    parser.add_argument("--gradient_checkpointing", choices=("off", "on", "both"), default="both")
    parser.add_argument("--small", action="store_true", help="a small model and few clips")
    parser.add_argument("--num_clips", type=int, help="clips of the synthetic set; four fifths are trained on")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="processes that load clips")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/training_speed"))
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    if arguments.work:
        return work(arguments.work, options)
    arguments.num_clips = arguments.num_clips or (100 if arguments.small else 1600)
    if not tree(arguments).is_dir():
        # 224 pixels, as DFEW's frames.
        write_rendered_dfew(tree(arguments), num_clips=arguments.num_clips, num_frames=16, image_size=224)
    # accelerate leaves FSDP out on CPUs.
    here = [name for name in CONFIGURATIONS if torch.cuda.is_available() or "fsdp" not in name]
    print("Clips per second end to end and without waiting for data, peak memory in GiB, phases in % of an epoch")
    print(f"{'':<26}{'clips/s':>10}{'without data':>14}{'GiB':>10}" + "".join(f"{phase:>15}" for phase in PHASES))
    rows = []
    for name in arguments.configurations or here:
        for checkpointing in {"off": [False], "on": [True], "both": [False, True]}[arguments.gradient_checkpointing]:
            rows.append(measure(name, checkpointing, arguments, options))
            print_row(rows[-1])
            if arguments.output:
                settings = {
                    name: getattr(arguments, name) for name in ("small", "num_clips", "batch_size", "num_workers")
                }
                write_results(arguments.output, {"data": "synthetic faces", **settings, "rows": rows})


if __name__ == "__main__":
    main()
