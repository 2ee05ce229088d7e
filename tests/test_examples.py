"""The examples work as their users would call them, on a small tree of synthetic faces."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_scripts.synthetic_faces import write_synthetic_dfew

ROOT = Path(__file__).parents[1]
TINY = ["--recipe=examples/recipes/demo.yaml", "--num_train_epochs=2", "--use_cpu", "--disable_tqdm=True"]
TINY += [
    "--model_config",
    '{"image_size": 32, "num_frames": 4, "backbone_stem_width": 8, "backbone_widths": [8, 16], '
    '"backbone_depths": [1, 1], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
    '"intermediate_size": 32}',
]


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "DFEW"
    return write_synthetic_dfew(folder, num_clips=70, num_frames=8, image_size=40, num_workers=1, progress=False)


@pytest.fixture(scope="module")
def trained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained by two processes, as `accelerate launch` starts them."""
    output_dir = tmp_path_factory.mktemp("runs") / "two"
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    command = ["examples/train.py", *TINY, "--dataset=dfew", f"--data_dir={data_dir}", "--fold=1"]
    done = run(*launch, *command, f"--output_dir={output_dir}", ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("dfew fold 1: WAR") == 1, "one process reports"
    return output_dir


def test_train_writes_model_results_and_picture(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert results["dataset"] == "dfew" and results["fold"] == 1
    assert results["environment"]["num_processes"] == 2
    assert results["test"]["num_clips"] == 14, "each clip of the test fold is counted once"
    assert results["classes"] == ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
    assert (trained / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert {"model.safetensors", "modeling_stt.py", "video_processing_stt.py"} <= {p.name for p in trained.iterdir()}


def test_train_refuses_a_folder_that_holds_a_run(trained: Path, data_dir: Path) -> None:
    done = run("examples/train.py", *TINY, f"--data_dir={data_dir}", f"--output_dir={trained}")
    assert done.returncode != 0
    assert "holds a finished run" in done.stderr


def test_train_says_what_is_missing_of_the_data(tmp_path: Path) -> None:
    done = run("examples/train.py", *TINY, f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr.splitlines()[-1] or "DFEW" in done.stderr


def test_predict_names_expressions_and_survives_bad_videos(trained: Path, data_dir: Path, tmp_path: Path) -> None:
    video = next((data_dir / "Clip" / "original").rglob("*.mp4"))
    frames = next((data_dir / "Clip" / "clip_224x224").iterdir())
    text = shutil.copy(ROOT / "README.md", tmp_path / "text.mp4")
    picture = tmp_path / "picture.png"
    command = ["examples/predict.py", video, text, tmp_path / "missing.mp4", frames, f"--model={trained}", "--top_k=2"]
    done = run(*command, f"--picture={picture}")
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(video), str(frames)]
    assert all(len(line.split(", ")) == 2 for line in lines)
    assert f"{text}: not classified" in done.stderr and "missing.mp4: not classified" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_finetuning_starts_from_a_trained_model(trained: Path, data_dir: Path, tmp_path: Path) -> None:
    options = [f"--data_dir={data_dir}", f"--model={trained}", f"--output_dir={tmp_path / 'run'}", "--learning_rate=0"]
    done = run("examples/train.py", *TINY, *options, "--warmup_steps=0", "--batch_norm=frozen")
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (
        json.loads((folder / "results.json").read_text())["test"] for folder in (trained, tmp_path / "run")
    )
    assert after["confusion_matrix"] == before["confusion_matrix"], "nothing was learned at rate 0, so nothing changed"
