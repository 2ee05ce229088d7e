"""Adapters: only they are trained in the frame encoder, and merging them does not change the answers."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, ViTConfig, ViTImageProcessor, ViTModel

from helpers.tiny import NAMES, make_arguments, make_model, make_rows
from modeling_stt import STTForVideoClassification
from modeling_stt.training import STTTrainer
from modeling_stt.training.lora import add_lora, merge_lora, save_adapter
from modeling_stt.training.options import RunArguments
from modeling_stt.training.start import build_model

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights and its image processor, as a folder of transformers."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    ).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        folder
    )
    return folder


def _run_arguments(encoder: Path, **options: Any) -> RunArguments:
    blocks = (
        '{"num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "drop_path_rate": 0, '
    )
    blocks += '"intermediate_size": 32, "hidden_dropout_prob": 0}'
    return RunArguments("unused", backbone=str(encoder), model_config=blocks, **options)


def test_a_new_model_takes_weights_size_and_normalisation_of_its_encoder(encoder: Path) -> None:
    model, processor = build_model(_run_arguments(encoder), NAMES)
    own = ViTModel.from_pretrained(encoder).state_dict()
    loaded = model.stt.backbone.encoder.state_dict()
    assert all(torch.equal(loaded[name], own[name]) for name in loaded)
    assert (processor.size["height"], processor.num_frames) == (32, 4)
    own_mean = AutoImageProcessor.from_pretrained(encoder).image_mean
    assert list(processor.image_mean) == list(own_mean) == [0.4] * 3


def test_adapters_alone_are_trained_and_merge_to_the_same_answers(encoder: Path, tmp_path: Path) -> None:
    model, processor = build_model(_run_arguments(encoder, lora_rank=2), NAMES)
    before = {name: weight.clone() for name, weight in model.stt.backbone.state_dict().items()}
    rows = make_rows(tmp_path / "clips")
    arguments = make_arguments(tmp_path / "run", learning_rate=0.1, num_train_epochs=2)
    trainer = STTTrainer(model, arguments, rows, rows, processing_class=processor)
    trainer.train()
    moved = {name for name, weight in model.stt.backbone.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(".lora_" in name for name in moved)
    adapter = save_adapter(model, tmp_path / "run")
    unmerged = trainer.predict(rows).predictions[0]
    assert merge_lora(model) > 0 and merge_lora(model) == 0
    torch.testing.assert_close(trainer.predict(rows).predictions[0], unmerged, rtol=1e-4, atol=1e-5)
    # What is saved is an ordinary STT, and the adapter is one that peft loads onto the encoder it came from.
    model.save_pretrained(tmp_path / "saved")
    loaded = STTForVideoClassification.from_pretrained(tmp_path / "saved")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert adapter is not None
    adapted = peft.PeftModel.from_pretrained(ViTModel.from_pretrained(encoder), adapter).merge_and_unload()
    own = {name: weight for name, weight in adapted.state_dict().items() if "pooler" not in name}
    torch.testing.assert_close(own, {k: v for k, v in model.stt.backbone.encoder.state_dict().items() if k in own})


def test_what_has_no_linear_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lora_rank=2 .* ResNet-18 has none"):
        add_lora(make_model(), 2)
    with pytest.raises(SystemExit, match="name one by --backbone"):
        build_model(RunArguments("unused", lora_rank=2), NAMES)


def test_adapters_in_a_frozen_encoder_are_refused(encoder: Path, tmp_path: Path) -> None:
    """They would be frozen as well, and the saved adapter would do nothing."""
    model, processor = build_model(_run_arguments(encoder, lora_rank=2), NAMES)
    rows = make_rows(tmp_path / "clips")
    with pytest.raises(ValueError, match="freeze_backbone=True would freeze the adapters"):
        STTTrainer(model, make_arguments(tmp_path / "run", freeze_backbone=True), rows, processing_class=processor)


def test_what_is_not_an_encoder_ends_with_a_message(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--backbone \S*nowhere: expected a folder, or a name on the Hub"):
        build_model(_run_arguments(tmp_path / "nowhere"), NAMES)
    copytree(encoder, tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        SystemExit, match=r"--model_config .* with --backbone \S*text: (.|\n)*bert model cannot encode frames"
    ):
        build_model(_run_arguments(tmp_path / "text"), NAMES)


def test_options_of_two_encoders_are_refused(encoder: Path) -> None:
    with pytest.raises(SystemExit, match="--backbone has its own weights"):
        build_model(_run_arguments(encoder, backbone_weights="w.pth"), NAMES)
