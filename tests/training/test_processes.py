"""Several processes, on CPUs and gloo, by the configurations that are shipped, give the results of one process.

Started by `accelerate launch`, this file is also what the processes run: see `main`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from dataset_scripts.rendered_faces import write_rendered_dfew
from helpers.tiny import make_images, make_model, make_rows, make_trainer, outcome
from modeling_stt import STTConfig, STTForVideoClassification
from modeling_stt.training import STTTrainer

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "examples" / "accelerate"
sys.path.insert(0, str(ROOT / "examples"))

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TINY_MODEL = {k: v for k, v in make_model().config.to_diff_dict().items() if k in STTConfig.__annotations__}
# From small weights, two epochs magnify the rounding of sums in another order less than the bounds below allow.
TINY_MODEL["initializer_range"] = 0.02
# Eleven clips: no whole number of batches, of processes' batches, or of accumulation steps.
WHOLE = {"batch_norm": "frozen", "per_device_train_batch_size": 8}
CUT = {"2x4": WHOLE | {"per_device_train_batch_size": 4}}
CUT["2x2x2"] = WHOLE | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
# A reading of the compact loss that needs class means, which all processes move together.
MEANS = {"compact_loss": "running_means", "compact_weight": 1.0}


def launcher(configuration: str, num_processes: int, *words: str | Path, **env: str) -> dict[str, Any]:
    """Command and environment that start this file in processes by a configuration that is shipped."""
    command = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={num_processes}"]
    command += ["--config_file", str(CONFIGURATIONS / configuration), __file__, *map(str, words)]
    found = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))  # helpers
    own = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
    return {"args": command, "env": os.environ | own | env, "text": True}


def launch(*words: Any, **env: str) -> subprocess.CompletedProcess[str]:
    """Run what `launcher` starts to its end."""
    return subprocess.run(**launcher(*words, **env), capture_output=True, timeout=300, check=False)


def fold_options(tree: Path, output_dir: Path, batch_size: int, **options: Any) -> list[str]:
    """The command line of train.py: a tiny model, two epochs."""
    options = {"data_dir": tree, "output_dir": output_dir, "per_device_train_batch_size": batch_size} | options
    options |= {"fold": 1, "num_train_epochs": 2, "use_cpu": True, "disable_tqdm": True, "batch_norm": "frozen"}
    return [f"--{name}={value}" for name, value in options.items()] + [f"--model_config={json.dumps(TINY_MODEL)}"]


def pretrain_in(folder: Path, batch_size: int) -> Path:
    """Pre-train a tiny encoder without labels, and return the file of its weights."""
    from pretrain import pretrain

    encoder = {"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    encoder |= {"num_attention_heads": 2, "intermediate_size": 32}
    options = {"clips": folder / "clips", "output_dir": folder / f"encoder_{batch_size}", "use_cpu": True}
    options |= {"encoder_config": json.dumps(encoder), "per_device_train_batch_size": batch_size, "max_steps": 4}
    options |= {"save_strategy": "no", "disable_tqdm": True, "report_to": "none", "learning_rate": 0.01}
    pretrain([f"--{name}={value}" for name, value in options.items()])
    return folder / f"encoder_{batch_size}" / "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clips of `make_rows`, for the processes to read."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "rows.json").write_text(json.dumps(make_rows(folder / "clips")))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """One process, batches of eight, without micro-batches."""
    trainer = make_trainer(json.loads((folder / "rows.json").read_text()), folder / "whole", **WHOLE)
    trainer.train()
    result = outcome(trainer)
    assert len(result["losses"]) == 4
    # Far enough from the start for the comparisons to mean something.
    before = make_model().state_dict()
    assert max((weight - result["weights"][name]).abs().max() for name, weight in before.items()) > 0.01
    return result


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DFEW's layout with 61 rendered clips: 48 or 49 to train on, in batches of eight."""
    tree = tmp_path_factory.mktemp("home") / "DFEW"
    write_rendered_dfew(tree, num_clips=61, num_frames=6, image_size=32, num_workers=1, progress=False)
    return tree


def assert_same(a: dict[str, Any], b: dict[str, Any], *, atol: float = 1e-6) -> None:
    """Losses of all steps, scores and weights within 1e-6, logits within 1e-5."""
    assert a["losses"] == pytest.approx(b["losses"], abs=atol)
    assert a["scores"] == pytest.approx(b["scores"], abs=atol)
    torch.testing.assert_close(a["logits"], b["logits"], rtol=0, atol=10 * atol)
    torch.testing.assert_close(a["weights"], b["weights"], rtol=0, atol=atol)


def assert_same_fold(a: Path, b: Path) -> None:
    """Scores of the test fold are the same, losses and the model's weights within 1e-5."""
    results, expected = (json.loads((run / "results.json").read_text()) for run in (a, b))
    for name in ("confusion_matrix", "num_clips", "war", "uar"):
        assert results["test"][name] == expected["test"][name], name
    assert results["test"]["num_clips"] == sum(results["clips"]["test"]["per_class"].values())
    assert results["test"]["loss"] == pytest.approx(expected["test"]["loss"], abs=1e-5)
    assert results["selected"]["step"] == expected["selected"]["step"]
    assert len(results["history"]) == len(expected["history"])
    for entry, other in zip(results["history"], expected["history"], strict=True):
        assert entry == pytest.approx(other, abs=1e-5)
    torch.testing.assert_close(*(load_file(run / "model.safetensors") for run in (a, b)), rtol=0, atol=1e-5)


def test_two_processes_change_nothing(folder: Path, whole: dict[str, Any]) -> None:
    """Training in two, with accumulation, images, and without labels; resumed within an epoch; moving batch norms.

    Of eleven clips accelerate would repeat five in two processes, and count them. The sampler must be told the epoch:
    accelerate's does not reach it in a resumed process, and epoch 0 would be drawn again.
    """
    done = launch("cpu.yaml", 2, "trainings", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = torch.load(folder / "outcomes.pt", weights_only=False)
    for name in CUT:
        assert_same(outcomes[name], whole)
    with_means = make_trainer(json.loads((folder / "rows.json").read_text()), folder / "means", **WHOLE | MEANS)
    with_means.train()
    assert_same(outcomes["means"], outcome(with_means))
    rows = json.loads((folder / "rows.json").read_text())
    with_images = make_trainer(rows, folder / "images", images=make_images(rows), **WHOLE)
    with_images.train()
    assert_same(outcomes["images"], outcome(with_images))
    encoders = [load_file(file) for file in (folder / "encoder_2" / "model.safetensors", pretrain_in(folder, 4))]
    torch.testing.assert_close(*encoders, rtol=0, atol=1e-5)
    assert len(outcomes["resumed"]["losses"]) == 6  # four of them from the checkpoint
    assert_same(outcomes["resumed"], outcomes["unbroken"])
    # Each process has moved its batch norms by clips of its own; both must evaluate the model that is saved.
    alone = make_trainer(rows, folder / "alone", batch_norm="batch")
    alone.model.load_state_dict(outcomes["moving"]["weights"])
    torch.testing.assert_close(outcomes["moving"]["logits"], outcome(alone)["logits"], rtol=0, atol=1e-5)


def test_four_processes_run_a_fold_as_one_does_and_only_one_writes(tree: Path, tmp_path: Path) -> None:
    """Each process is given an output folder of its own, so that what it writes can be told."""
    from train import train

    train(fold_options(tree, tmp_path / "one", 8, selection="last"))
    done = launch("cpu.yaml", 4, "fold", *fold_options(tree, tmp_path / "RANK", 2, selection="last"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_fold(tmp_path / "0", tmp_path / "one")
    assert done.stdout.count("dfew fold 1: WAR") == 1
    for rank in range(1, 4):
        # The state of its random numbers is a process's own, and all that only it can save.
        names = {path.name for path in (tmp_path / str(rank)).rglob("*") if path.is_file()}
        assert names == {f"rng_state_{rank}.pth"}


def test_a_killed_process_ends_all_and_the_run_is_resumed_to_the_same_end(tree: Path, tmp_path: Path) -> None:
    """Killed within the second epoch, without a chance to clean up, as by the kernel when memory runs out."""
    from train import train

    train(fold_options(tree, tmp_path / "one", 8))
    options = fold_options(tree, tmp_path / "two", 4, resume_from_checkpoint="last")
    killed = launch("cpu.yaml", 2, "fold", *options, KILL_AT=str(tmp_path / "killed.json"))
    ended = time.time()
    told = json.loads((tmp_path / "killed.json").read_text())
    assert killed.returncode != 0
    assert f"Signal 9 (SIGKILL) received by PID {told['pid']}" in killed.stderr
    assert ended - told["time"] < 60
    with pytest.raises(ProcessLookupError):
        os.kill(told["survivor"], 0)
    assert not (tmp_path / "two" / "results.json").exists()
    assert [path.name for path in (tmp_path / "two").glob("checkpoint-*")] == [f"checkpoint-{told['steps_an_epoch']}"]
    resumed = launch("cpu.yaml", 2, "fold", *options)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same_fold(tmp_path / "two", tmp_path / "one")


def test_processes_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    """They used to go on without it: they trained to the end, or held their GPUs and waited."""
    with subprocess.Popen(**launcher("cpu.yaml", 2, "wait", tmp_path), stderr=subprocess.PIPE) as started:
        while len(list(tmp_path.iterdir())) < 2:
            assert started.poll() is None, started.communicate()[1]
            time.sleep(0.1)
        started.kill()
        _, told = started.communicate(timeout=20)  # till the last of them has closed its stderr
    assert told.count(f"The launcher of this process (PID {started.pid}) is gone") == 2


@pytest.mark.skipif(torch.__version__ < "2.11", reason="STTTrainer refuses FSDP2 with a torch before 2.11")
@pytest.mark.parametrize(
    ("device", "num_processes", "atol"), [("cpu", 2, 1e-6), pytest.param("cuda", 1, 1e-4, marks=NEEDS_GPU)]
)
def test_fsdp_changes_nothing(
    device: str, num_processes: int, atol: float, folder: Path, whole: dict[str, Any]
) -> None:
    """Weights sharded between two processes: training, resuming, a whole checkpoint with the model's code, bfloat16.

    accelerate leaves FSDP out on CPUs, and says nothing; the processes tell it that theirs are GPUs.
    """
    shutil.rmtree(folder / "fsdp", ignore_errors=True)
    shown = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    done = launch("fsdp2.yaml", num_processes, "fsdp", folder, **shown)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = torch.load(folder / "fsdp.pt", weights_only=False)
    for name in outcomes.keys() - {"bf16"}:
        assert_same(outcomes[name], whole, atol=atol)
    model = STTForVideoClassification.from_pretrained(folder / "fsdp" / "checkpoint-4")
    torch.testing.assert_close(model.state_dict(), whole["weights"], rtol=0, atol=atol)
    assert set(model.config.auto_map.values()) >= {"modeling_stt.STTForVideoClassification"}
    files = {path.name for path in (folder / "fsdp" / "checkpoint-4").glob("*.py")}
    assert files == {"modeling_stt.py", "configuration_stt.py", "video_processing_stt.py", "video_reading_stt.py"}
    # Seen on CPUs: FSDP stays in float32 if bf16=True comes from the Trainer alone, so there is nothing to compare.
    if device == "cpu":
        return
    rows = json.loads((folder / "rows.json").read_text())
    one = make_trainer(rows, folder / "bf16", bf16=True, **WHOLE)
    one.train()
    # Rounding to bfloat16 (2e-3 of a number) differs with the order of sums.
    assert_same(outcomes["bf16"], outcome(one), atol=2e-3)


def test_processes_that_do_not_know_of_each_other_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started on a machine without GPUs and without --use_cpu, each would train by itself, into the same folder."""
    trainer = make_trainer(json.loads((folder / "rows.json").read_text()), tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, but each would train alone.*--use_cpu"):
        trainer._prepare_devices()


def test_the_best_model_of_another_machine_is_missed(folder: Path, tmp_path: Path) -> None:
    """transformers would warn, and this machine would score the last model, the others the best."""
    trainer = make_trainer(json.loads((folder / "rows.json").read_text()), tmp_path)
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-3")
    with pytest.raises(FileNotFoundError, match="checkpoint-3 is not on this machine"):
        trainer._load_best_model()


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_read_by_accelerate(path: Path) -> None:
    """Unknown keys are refused by accelerate, but those for FSDP passed over: its launcher must know them."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    load_config_from_file(str(path))
    known = vars(launch_command_parser().parse_args([str(path)]))
    assert set(yaml.safe_load(path.read_text()).get("fsdp_config", {})) <= set(known)


# What the processes run.


def run_trainings(folder: Path) -> None:
    """Trainings whose results must be those of one process."""
    rows, outcomes = json.loads((folder / "rows.json").read_text()), {}
    for name, options in (CUT | {"means": CUT["2x2x2"] | MEANS}).items():
        trainer = make_trainer(rows, folder / name, **options)
        trainer.train()
        outcomes[name] = outcome(trainer)
    # Micro-batches of two clips have an image or none.
    trainer = make_trainer(rows, folder / "images", images=make_images(rows), **CUT["2x2x2"])
    trainer.train()
    outcomes["images"] = outcome(trainer)
    pretrain_in(folder, 2)
    # Three steps an epoch: the checkpoint at step 4 lies within the second.
    unbroken = {"batch_norm": "frozen", "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 4}
    for name, checkpoint in (("unbroken", None), ("resumed", str(folder / "resumed" / "checkpoint-4"))):
        trainer = make_trainer(rows, folder / "resumed", **unbroken)
        trainer.train(resume_from_checkpoint=checkpoint)
        outcomes[name] = outcome(trainer)
    trainer = make_trainer(rows, folder / "moving", batch_norm="batch", learning_rate=0.1)
    trainer.train()
    outcomes["moving"] = outcome(trainer)
    if trainer.is_world_process_zero():
        torch.save(outcomes, folder / "outcomes.pt")


def run_fold(options: list[str]) -> None:
    """train.py, with `RANK` in the options replaced; with KILL_AT, the last process is killed in the second epoch."""
    from train import train

    training_step = STTTrainer.training_step

    def killing_step(trainer: STTTrainer, *args: Any) -> torch.Tensor:
        steps = trainer.state.max_steps // 2
        if trainer.state.global_step == steps + 2:
            pids: list[int] = [0, 0]
            dist.all_gather_object(pids, os.getpid())
            if dist.get_rank() == 1:
                told = {"pid": pids[1], "survivor": pids[0], "time": time.time(), "steps_an_epoch": steps}
                Path(os.environ["KILL_AT"]).write_text(json.dumps(told))
                os.kill(os.getpid(), signal.SIGKILL)
        return training_step(trainer, *args)

    if "KILL_AT" in os.environ:
        STTTrainer.training_step = killing_step
    train([option.replace("RANK", os.environ["RANK"]) for option in options])


class CutAfterForward(TrainerCallback):
    """Makes FSDP reshard the classifier after the forward pass, as older versions of accelerate do."""

    def on_train_begin(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        """Called by the Trainer."""
        model.set_reshard_after_forward(True, recurse=False)


def run_fsdp(folder: Path) -> None:
    """Trainings under FSDP2."""
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        dist.init_process_group("gloo")
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)  # type: ignore
    torch.backends.cudnn.allow_tf32 = False
    rows, outcomes = json.loads((folder / "rows.json").read_text()), {}
    options = {"use_cpu": not torch.cuda.is_available(), "save_total_limit": None}
    cut = WHOLE | options | {"per_device_train_batch_size": 8 // int(os.environ["WORLD_SIZE"])}
    # Two steps an epoch: the checkpoint at step 3 lies within the second.
    saved = cut | {"save_strategy": "steps", "save_steps": 1}
    runs = {"fsdp": saved, "resumed": saved, "cut after forward": cut, "bf16": cut | {"bf16": True}}
    for name, options in runs.items():
        AcceleratorState._reset_state()  # it would keep the precision of the first trainer
        trainer = make_trainer(rows, folder / name, **options)
        assert trainer.is_fsdp_enabled
        if name == "cut after forward":
            trainer.add_callback(CutAfterForward())
        trainer.train(resume_from_checkpoint=str(folder / "fsdp" / "checkpoint-3") if name == "resumed" else None)
        outcomes[name] = outcome(trainer) | {"weights": trainer.accelerator.get_state_dict(trainer.model)}
        assert isinstance(next(trainer.model.parameters()), dist.tensor.DTensor)
    if trainer.is_world_process_zero():
        torch.save(outcomes, folder / "fsdp.pt")


def wait(words: Sequence[str]) -> None:
    """Take longer than a test has patience for."""
    (Path(words[1]) / os.environ["RANK"]).touch()
    time.sleep(60)


def main(job: str, *words: str) -> None:
    """Run the job that `launch` has asked for."""
    if job == "wait":
        from train import run_program

        run_program(wait)
    elif job == "fold":
        run_fold(list(words))
    else:
        {"trainings": run_trainings, "fsdp": run_fsdp}[job](Path(words[0]))
    # Without these, gloo now and then aborts at exit.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
