"""STT's blocks on vision models of transformers: tiny random ones of many families behave as ResNet-18 does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.export import Dim
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessor,
    TimmWrapperConfig,
    ViTImageProcessor,
)
from transformers.image_utils import PILImageResampling

from helpers.encoders import ENCODERS, TIMM_VIT, VIT
from helpers.models import TINY_MODEL
from helpers.pages import skip_without_exporters
from modeling_stt import STTConfig, STTForVideoClassification, STTModel, STTVideoProcessor
from modeling_stt.training import load_backbone_weights
from modeling_stt.training.lora import add_lora, merge_lora

FIVE = ("ViT", "CLIP", "SigLIP", "DINOv2 with registers", "ConvNeXt")


def make_model(name: str, **changes: Any) -> STTForVideoClassification:
    if name == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = {"backbone_config": ENCODERS[name][0], "num_labels": 3, "max_positions": 9}
    settings |= {"hidden_dropout_prob": 0.0, "drop_path_rate": 0.0}
    model = STTForVideoClassification(STTConfig(**(TINY_MODEL | settings | changes)))
    with torch.no_grad():
        for parameter in model.parameters():  # so that no part is left at zero or one
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def make_clips(num_clips: int = 2) -> torch.Tensor:
    return torch.rand(num_clips, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ENCODERS)
def test_forward_and_backward(name: str) -> None:
    model = make_model(name).train()
    _, channels, num_special = ENCODERS[name]
    output = model.config.encoder_output(32, 32)
    assert (output.channels, output.num_special) == (channels, num_special)
    maps = model.stt.encode_frames(make_clips())
    assert maps.shape == (2, 4, channels, 3, 3), "4 × 4 positions are pooled to the 9 that max_positions allows"
    model(make_clips(), labels=torch.tensor([0, 2])).loss.backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    model.eval()
    whole = model(make_clips(3)).logits
    assert_close(torch.cat([model(clip[None]).logits for clip in make_clips(3)]), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_maps_are_the_patches_of_the_model_itself_in_their_places(name: str) -> None:
    """Without pooling, position (row, column) is that patch's token, class and register tokens left out."""
    model = make_model(name, max_positions=16)
    frames = make_clips(1)[0]
    encoder = model.stt.backbone.encoder
    output = encoder(frames).last_hidden_state
    maps = model.stt.encode_frames(frames)
    if output.ndim == 4:
        assert_close(maps, output)
        return
    for position in range(16):
        assert_close(maps[:, :, position // 4, position % 4], output[:, ENCODERS[name][2] + position])


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_saved_loaded_and_switched(name: str, tmp_path: Path) -> None:
    model, clips = make_model(name), make_clips()
    expected = model(clips)
    model.save_pretrained(tmp_path)
    loaded = STTForVideoClassification.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert [key for key, _ in loaded.named_parameters()] == [key for key, _ in model.named_parameters()]
    assert torch.equal(loaded(clips).logits, expected.logits)
    assert isinstance(AutoModel.from_pretrained(tmp_path), STTModel)
    for implementation in ("eager", "sdpa", "eager"):
        loaded.set_attn_implementation(implementation)
        assert loaded.config._attn_implementation == implementation
        assert_close(loaded(clips).logits, expected.logits, atol=1e-5, rtol=1e-4)
    outputs = loaded(clips, output_attentions=True, output_hidden_states=True)
    assert outputs.spatial_attentions[0].shape == (2, 4, 2, 9, 9)
    assert outputs.temporal_attentions[0].shape == (2, 9, 2, 5, 5)
    assert len(outputs.hidden_states) == 2
    eager = STTForVideoClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert_close(eager(clips).logits, expected.logits, atol=1e-5, rtol=1e-4)
    half = STTForVideoClassification.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half(clips).logits.dtype == torch.bfloat16
    assert_close(half(clips).logits.float(), expected.logits, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", FIVE)
def test_checkpointing_and_compiling_change_nothing(name: str) -> None:
    model, clips, labels = make_model(name).train(), make_clips(), torch.tensor([0, 2])
    model(clips, labels=labels).loss.backward()
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(clips, labels=labels).loss.backward()
    assert_close({key: p.grad for key, p in model.named_parameters()}, gradients, atol=1e-5, rtol=1e-4)
    model.gradient_checkpointing_disable()
    with torch.no_grad():
        compiled = torch.compile(model.eval(), backend="eager")(clips).logits
        assert_close(compiled, model(clips).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FIVE)
@torch.no_grad()
def test_merged_adapters_answer_as_before_and_are_exported_to_onnx(name: str, tmp_path: Path) -> None:
    skip_without_exporters()
    pytest.importorskip("peft")
    from transformers.exporters import ExportedModel, OnnxConfig, OnnxExporter

    model = make_model(name)
    keys, untouched = list(model.state_dict()), model(make_clips()).logits
    add_lora(model, 2)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad and "backbone" in key}
    assert trained and all(".lora_" in key for key in trained)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:  # zero at first, so that an adapter does nothing
            parameter += torch.randn_like(parameter)
    unmerged = model(make_clips()).logits
    assert (unmerged - untouched).abs().max() > 1e-3
    assert merge_lora(model) == len(trained) / 2
    assert list(model.state_dict()) == keys
    assert_close(model(make_clips()).logits, unmerged, atol=1e-5, rtol=1e-4)
    axes = OnnxConfig(dynamic_shapes={"pixel_values": {0: Dim("batch")}})
    OnnxExporter().export(model, {"pixel_values": make_clips()}, axes).save_pretrained(tmp_path)
    for num_clips in (1, 3):
        logits = ExportedModel.from_pretrained(tmp_path)(pixel_values=make_clips(num_clips)).logits
        assert_close(logits, model(make_clips(num_clips)).logits, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_frames_of_another_size_are_read_on_request() -> None:
    model = make_model("ViT")
    clips = torch.rand(1, 4, 3, 48, 32)
    with pytest.raises(ValueError, match="4 frames of 48×32 px don't fit"):
        model(clips)
    assert model.config.encoder_output(48, 32).grid == (6, 4)
    assert model.config.feature_grid(48, 32) == (3, 2)
    assert model(clips, interpolate_pos_encoding=True).logits.shape == (1, 3)
    smaller = make_model("ViT", image_size=24)  # than the encoder's own 32
    assert smaller(torch.rand(1, 4, 3, 24, 24)).logits.shape == (1, 3)


@pytest.mark.parametrize("name", ["ViT", "CLIP", "ConvNeXt"])
def test_pretrained_weights_are_loaded_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrained = AutoModel.from_config(ENCODERS[name][0])
    pretrained.save_pretrained(tmp_path / "encoder")
    model = make_model(name)
    report = load_backbone_weights(model, tmp_path / "encoder")
    own = model.stt.backbone.encoder.state_dict()
    assert own.keys() == set(report.used)
    for key, values in own.items():
        assert torch.equal(values, pretrained.state_dict()[key])
    other = make_model("DeiT")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit the model's backbone_config.*Missing: .*AutoConfig"):
        load_backbone_weights(other, tmp_path / "encoder")
    assert_close(dict(other.state_dict()), before)


@pytest.mark.parametrize("name", ["DINOv2", "CLIP"])
def test_a_file_that_lacks_a_layer_is_not_filled_with_random_weights(name: str, tmp_path: Path) -> None:
    config = ENCODERS[name][0]
    if name == "CLIP":  # a pair's file has a prefix before the names of the vision tower
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = CLIPConfig(text_config=text, vision_config=config.to_dict())
    AutoModel.from_config(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {key: value for key, value in load_file(file).items() if "vision_model" in key or name == "DINOv2"}
    lost = [key for key in weights if "layer.1." in key or "layers.1." in key]
    save_file({key: weights[key] for key in weights if key not in lost}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"nothing was loaded\. Missing: .* and {len(lost) - 4} more"):
        load_backbone_weights(make_model(name), tmp_path)


def test_the_vision_tower_of_a_pair_is_taken(tmp_path: Path) -> None:
    pair = CLIPConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, vision_config=VIT
    )
    config = STTConfig(**(TINY_MODEL | {"backbone_config": pair.to_dict(), "num_labels": 3}))
    assert config.backbone_config.model_type == "clip_vision_model"
    AutoModel.from_config(pair).save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    model = STTForVideoClassification(STTConfig(**(TINY_MODEL | {"backbone_config": read, "num_labels": 3})))
    assert "left" in str(load_backbone_weights(model, tmp_path))


def test_the_processor_takes_size_mean_and_spread_from_the_encoders_own(tmp_path: Path) -> None:
    ViTImageProcessor(size={"height": 96, "width": 96}, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
        tmp_path
    )
    processor = STTVideoProcessor.from_encoder(tmp_path, num_frames=4)
    assert (dict(processor.size), processor.do_normalize) == ({"height": 96, "width": 96}, True)
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.5] * 3, [0.25] * 3)
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 36, "width": 36}).save_pretrained(tmp_path)
    clip_processor = STTVideoProcessor.from_encoder(tmp_path)
    assert dict(clip_processor.size) == {"height": 36, "width": 36}
    assert list(clip_processor.image_mean) == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)
    clip = torch.randint(0, 256, (20, 3, 50, 60), dtype=torch.uint8)
    assert clip_processor(clip, return_tensors="pt")["pixel_values"].shape == (1, 16, 3, 36, 36)


def test_the_processor_takes_them_from_timms_configuration_too(tmp_path: Path) -> None:
    """timm's models come without a file of the image processor: their config.json has the values."""
    pytest.importorskip("timm")
    values = {"input_size": [3, 48, 40], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=TIMM_VIT, pretrained_cfg=values)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    processor = STTVideoProcessor.from_encoder(tmp_path)
    assert dict(processor.size) == {"height": 48, "width": 40}
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.5] * 3, [0.25] * 3)
    assert (processor.do_normalize, processor.resample) == (True, PILImageResampling.BICUBIC)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "bert"}, "bert model cannot encode frames"),
        ({"model_type": "vit_mae", **VIT}, "whose class tokens are not known"),
        ({"model_type": "vit", **VIT, "patch_size": 64}, "vit model cannot encode frames of 32×32 px"),
        ("vit", "backbone_config is a str"),
    ],
)
def test_what_cannot_encode_frames_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        STTConfig(**(TINY_MODEL | {"backbone_config": settings}))
