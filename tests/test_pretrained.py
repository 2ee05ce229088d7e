"""The weights that are shipped: they load offline, belong to their results, and tell smiling from resting people."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_scripts.rendered_faces import render_clip
from modeling_stt import pretrained
from modeling_stt.loading import load_model
from modeling_stt.timeline import Timeline
from modeling_stt.training.weights import hash_weights, read_weights


def test_the_weights_are_small_and_belong_to_their_results() -> None:
    folder = pretrained.folder()
    assert folder == Path(pretrained.__file__).parent / "stt_rendered"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 25e6
    results = json.loads((folder / "results.json").read_text())
    assert results["sha256_of_weights"] == hash_weights(read_weights(folder))
    assert results["synthetic"] is True
    card = (folder / "README.md").read_text()
    for order in ("shuffled", "reversed", "repeated"):
        assert f"{100 * results['audit'][order]['uar']:.1f} %" in card


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(FileNotFoundError, match="no weights called 'stt_dfew', only stt_rendered"):
        pretrained.folder("stt_dfew")


def test_smiling_and_resting_people_whom_the_weights_have_not_seen_are_told_apart() -> None:
    model, processor = load_model(pretrained.folder())
    right = []
    for label in ("happy", "neutral"):
        for number in range(6):
            frames = render_clip(
                label,
                identity_seed=990_000 + number,
                clip_seed=number,
                num_frames=8,
                image_size=96,
                frames_per_second=4,
                margin=pretrained.face_crop()["margin"],
                full=True,
            ).frames
            with torch.inference_mode():
                scores = model(**processor(np.ascontiguousarray(frames), return_tensors="pt")).logits[0]
            right.append(model.config.class_names[int(scores.argmax())] == label)
    assert sum(right) >= 10


def test_without_a_model_the_weakness_of_the_default_weights_is_stated(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who names no model must not take the answers for those of a model that was tested on real faces."""
    Timeline(detector=lambda images: [[] for _ in images])
    assert "weak on real ones" in caplog.text
