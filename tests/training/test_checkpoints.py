"""Checkpoints of models on frame encoders of transformers: their weights are resumed, and chosen as the best."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SwinConfig, TrainerCallback, ViTConfig

from helpers.tiny import make_arguments, make_model, make_processor, make_rows
from modeling_stt import STTForVideoClassification
from modeling_stt.training import STTTrainer
from modeling_stt.training.lora import add_lora

# Files of both have older names of weights than the models.
ENCODERS = {
    "ViT": ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    ),
    "Swin": SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
}


class _BestIsFirst(TrainerCallback):
    """Makes the first evaluation the best, whatever the scores are."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        metrics["eval_war"] = 1.0 - state.epoch / 10


def _train(rows: list[dict[str, Any]], folder: Path, encoder: str, lora: bool, **options: Any) -> STTTrainer:
    model = make_model(backbone_config=ENCODERS[encoder])
    if lora:
        pytest.importorskip("peft")
        add_lora(model, 2)
    resume = options.pop("resume_from_checkpoint", None)
    arguments = make_arguments(folder, learning_rate=0.05, save_strategy="epoch", **options)
    trainer = STTTrainer(model, arguments, rows, rows, processing_class=make_processor())
    trainer.add_callback(_BestIsFirst())
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_resumed_run_ends_as_an_unbroken_one_to_the_bit(encoder: str, lora: bool, tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "clips")
    unbroken = _train(rows, tmp_path / "run", encoder, lora).model
    first = tmp_path / "run" / "checkpoint-3"
    resumed = _train(rows, tmp_path / "again", encoder, lora, resume_from_checkpoint=str(first)).model
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    if not lora:  # a checkpoint is a model of its own, and so is what is saved at the end, by older names
        STTTrainer(resumed, make_arguments(tmp_path), processing_class=make_processor()).save_model(tmp_path / "end")
        loaded = STTForVideoClassification.from_pretrained(tmp_path / "end")
        torch.testing.assert_close(loaded.state_dict(), unbroken.state_dict(), rtol=0, atol=0)
        last = STTForVideoClassification.from_pretrained(tmp_path / "run" / "checkpoint-6")
        torch.testing.assert_close(last.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("lora", [False, True])
def test_the_best_epochs_model_is_loaded_whole(lora: bool, tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "clips")
    options = {"eval_strategy": "epoch", "metric_for_best_model": "war", "save_total_limit": 2}
    best = _train(rows, tmp_path / "best", "ViT", lora, load_best_model_at_end=True, **options)
    assert best.state.best_global_step == 3 and best.state.global_step == 6
    only = _train(rows, tmp_path / "one", "ViT", lora, num_train_epochs=1).model
    for name, weight in only.state_dict().items():
        assert torch.equal(weight, best.model.state_dict()[name]), name


def test_a_checkpoint_without_the_models_weights_is_refused(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "clips")
    _train(rows, tmp_path / "run", "ViT", lora=False, num_train_epochs=1)
    checkpoint = tmp_path / "run" / "checkpoint-3"
    other = make_model(backbone_config=ENCODERS["Swin"])
    shutil.copytree(checkpoint, tmp_path / "swin")
    (tmp_path / "swin" / "model.safetensors").unlink()
    other.save_pretrained(tmp_path / "swin")
    with pytest.raises(ValueError, match="does not hold the weights of this training's model"):
        _train(rows, tmp_path / "again", "ViT", lora=False, resume_from_checkpoint=str(tmp_path / "swin"))
