"""The command that makes the shipped weights, in small: it ends with a run like any other, and resumes."""

import json
from pathlib import Path

import numpy as np

from helpers.models import TINY_MODEL
from helpers.programs import ROOT, run
from modeling_stt.loading import load_model


def test_weights_are_made_from_nothing_and_a_finished_part_is_not_made_again(tmp_path: Path) -> None:
    command = [str(ROOT / "examples" / "train_rendered.py"), f"--output_dir={tmp_path}", "--people=9"]
    command += ["--frame_epochs=1", "--num_train_epochs=1", "--use_cpu=True", "--disable_tqdm=True", "--workers=1"]
    command += [f"--model_config={json.dumps(TINY_MODEL)}"]
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "stt" / "results.json").read_text())
    assert results["synthetic"] is True
    assert results["start"]["backbone_weights"] == str(tmp_path / "backbone" / "backbone.safetensors")
    assert results["recipe"]["augment"]["photometry"]["gray"] == 0.3
    assert list(results["audit"]) == ["shuffled", "reversed", "repeated"]
    model, processor = load_model(tmp_path / "stt")
    assert processor.face_crop["size"] == model.config.image_size
    scores = model(**processor(np.zeros((4, 64, 64, 3), np.uint8), return_tensors="pt")).logits
    assert scores.shape == (1, 7)

    files = [tmp_path / "faces" / "truth.csv", tmp_path / "backbone" / "backbone.safetensors"]
    before = [file.stat().st_mtime_ns for file in files]
    again = run(*command)
    assert again.returncode == 0, again.stderr[-3000:]
    assert [file.stat().st_mtime_ns for file in files] == before
