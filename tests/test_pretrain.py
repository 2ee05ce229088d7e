"""Pre-training without labels: tubes are hidden, the loss falls, runs resume, and training starts from the encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ConvNextConfig, TimmWrapperConfig, ViTModel

from helpers.encoders import ENCODERS
from helpers.programs import ROOT
from helpers.tiny import NAMES, make_processor, make_rows
from modeling_stt.training import ClipAugment, ClipDataset, ClipDraw
from modeling_stt.training.masked import MaskedEncoder, TubeClips, collate_tubes, list_clips
from modeling_stt.training.options import RunArguments
from modeling_stt.training.start import build_model

SMALL = {
    **{"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 16},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    make_rows(folder)
    return folder


def _options(crops: Path, output_dir: Path, **changes: object) -> list[str]:
    options = {"clips": crops, "output_dir": output_dir, "encoder_config": json.dumps(SMALL), "use_cpu": True}
    options |= {"num_train_epochs": 6, "per_device_train_batch_size": 4, "learning_rate": 0.01, "logging_steps": 1}
    options |= {"save_strategy": "epoch", "disable_tqdm": True, "report_to": "none"}
    return [f"--{name}={value}" for name, value in (options | changes).items()]


def test_the_same_patches_are_hidden_in_all_frames_and_others_in_each_draw(crops: Path) -> None:
    tubes = TubeClips(ClipDataset(list_clips(crops), make_processor(), augment=ClipAugment()), num_patches=16)
    first, second = (tubes[ClipDraw(0, (0, 0, position))] for position in (1, 2))
    masks = first["bool_masked_pos"]
    assert masks.shape == (4, 16) and (masks == masks[0]).all() and masks[0].sum() == 14
    assert not torch.equal(masks, second["bool_masked_pos"])
    batch = collate_tubes([first, second])
    assert batch["pixel_values"].shape == (8, 3, 32, 32) and batch["bool_masked_pos"].shape == (8, 16)
    with pytest.raises(ValueError, match="hides 16 of 16 patches"):
        TubeClips(tubes.clips, num_patches=16, share=0.99)


@pytest.mark.parametrize("name", ["ViT", "CLIP", "SigLIP", "DINOv2 with registers", "ConvNeXt", "Swin"])
def test_any_encoder_reconstructs_what_is_hidden_without_seeing_it(name: str) -> None:
    torch.manual_seed(0)
    model = MaskedEncoder(ENCODERS[name][0]).eval()  # without Swin's drop path
    frames = torch.rand(2, 3, 32, 32)
    hidden = torch.zeros(2, model.grid**2, dtype=torch.bool)
    hidden[:, 1:-1] = True
    output = model(frames, hidden)
    output["loss"].backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]
    patch = 32 // model.grid
    assert hidden.sum() == 2 * (model.grid**2 - 2)
    shown = torch.zeros_like(frames, dtype=torch.bool)
    shown[..., :patch, :patch] = shown[..., -patch:, -patch:] = True
    other = torch.where(shown, frames, torch.rand(2, 3, 32, 32))
    again = model(other, hidden)
    torch.testing.assert_close(again["reconstruction"], output["reconstruction"])
    torch.testing.assert_close(again["loss"], (again["reconstruction"] - other)[~shown].abs().mean())


def test_an_encoder_whose_positions_do_not_cover_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="makes 2 × 2 positions of frames of 35 px: expected a square grid"):
        MaskedEncoder(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=8, image_size=35))
    with pytest.raises(ValueError, match="timm_wrapper configuration has image_size=None"):
        MaskedEncoder(TimmWrapperConfig(architecture="vit_tiny_patch16_224"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model_type"),
        ({"model_type": "bert", "image_size": 32}, "bert model cannot encode frames"),
        ({"model_type": "vit", "image_size": "large"}, "image_size"),
    ],
)
def test_what_is_not_an_encoder_ends_with_a_message(
    settings: dict[str, Any], message: str, crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from pretrain import pretrain

    with pytest.raises(SystemExit, match=rf"--encoder_config (.|\n)*{message}"):
        pretrain(_options(crops, tmp_path, encoder_config=json.dumps(settings)))


def test_clips_are_listed_by_folder_and_none_are_refused(crops: Path, tmp_path: Path) -> None:
    rows = list_clips(crops)
    assert [row["clip_id"] for row in rows] == [f"{clip:03}" for clip in range(11)]
    with pytest.raises(ValueError, match="holds no folder of pictures"):
        list_clips(tmp_path)


def test_the_loss_falls_and_the_encoder_is_what_training_starts_from(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from pretrain import pretrain

    trainer = pretrain(_options(crops, tmp_path / "whole"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 18 and sum(losses[-3:]) < sum(losses[:3])
    model, processor = build_model(RunArguments("unused", backbone=str(tmp_path / "whole")), NAMES)
    saved = load_file(tmp_path / "whole" / "model.safetensors")
    loaded = model.stt.backbone.encoder.state_dict()
    own = ViTModel.from_pretrained(tmp_path / "whole").state_dict()  # by the names of today, which files don't have
    assert all(torch.equal(loaded[name], own[name]) for name in loaded)
    assert processor.do_normalize and processor.size["height"] == 32
    # Resumed from an epoch, it ends as the unbroken run.
    pretrain(_options(crops, tmp_path / "broken", num_train_epochs=6, max_steps=-1, save_total_limit=6))
    for checkpoint in (tmp_path / "broken").glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > 9:
            for file in checkpoint.iterdir():
                file.unlink()
            checkpoint.rmdir()
    resumed = pretrain(_options(crops, tmp_path / "broken", resume_from_checkpoint="last"))
    assert resumed.state.global_step == 18
    again = load_file(tmp_path / "broken" / "model.safetensors")
    torch.testing.assert_close(again, saved, rtol=0, atol=1e-5)
