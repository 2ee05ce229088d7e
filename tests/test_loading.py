"""A model is loaded as a whole or refused by name: nothing answers with weights that were not loaded."""

import json
import logging
import time
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from helpers.damaged_models import DAMAGES, damage
from helpers.face_videos import make_model, make_processor, save_model
from helpers.hub_models import PROCESSORS, save_hub_model
from helpers.tiny import make_arguments
from modeling_stt import STTForVideoClassification
from modeling_stt.loading import ModelError, choose_device, load_model, warn_of_slow_bfloat16


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stt"))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_model_is_refused_with_its_folder_and_what_is_missing(saved, tmp_path, how):
    with pytest.raises(ModelError, match=DAMAGES[how]) as error:
        load_model(damage(saved, tmp_path / "damaged", how))
    assert "damaged" in str(error.value)


def test_an_intact_model_is_the_one_that_was_saved(saved):
    model, processor = load_model(saved)
    assert isinstance(model, STTForVideoClassification)
    assert not model.training
    for name, weight in make_model(face_crop=None).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight)
    assert processor.num_frames == make_processor().num_frames
    assert load_model(saved, dtype="bfloat16")[0].dtype == torch.bfloat16


def test_a_new_head_is_accepted_only_where_it_is_asked_for_and_announced(saved, tmp_path, caplog):
    folder = damage(saved, tmp_path / "headless", "no head")
    with caplog.at_level(logging.WARNING):
        model, _ = load_model(folder, new_head=True)
    assert "has no classifier.bias, classifier.weight: it is new" in caplog.text
    assert model.classifier.weight.isfinite().all()
    with pytest.raises(ModelError, match=r"stt\.layers\.1\."):
        load_model(damage(saved, tmp_path / "worse", "a layer missing"), new_head=True)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_classifiers_of_the_hub_are_loaded_with_old_and_new_processor_files(tmp_path, kind):
    model, processor = load_model(save_hub_model(tmp_path / kind, kind))
    assert model.config.model_type == kind.partition("_")[0]
    assert "rocessor" in type(processor).__name__


def test_a_model_of_another_kind_is_refused_by_name(tmp_path):
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"holds BertForSequenceClassification\. Expected a trained STT"):
        load_model(tmp_path)


def test_a_folder_that_needs_remote_code_is_refused_without_the_flag(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}, "architectures": ["OwnModel"]})
    )
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(tmp_path)


def test_a_name_that_is_nowhere_is_refused_at_once(monkeypatch):
    """Without a network, transformers tried for 23 seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(ModelError, match="There is no folder user/absent-model, and from the Hub"):
        load_model("user/absent-model")
    assert time.monotonic() - started < 15


def test_devices_that_a_machine_lacks_are_refused():
    with pytest.raises(ValueError, match="device='gpu' is unknown to torch"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="device='meta' cannot be used on this machine"):
        choose_device("meta")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device='mps' cannot be used on this machine"):
            choose_device("mps")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("device", "cpu", "warned"),
    [
        ("cpu", {"avx2": True, "avx512_f": True, "avx512_vnni": True}, "has avx2, avx512_f, nothing for bfloat16"),
        ("cpu", {"neon": True, "bf16": False}, "has neon, nothing for bfloat16"),
        ("cpu", {"avx2": True, "avx512_bf16": True}, ""),
        ("cpu", {"neon": True, "bf16": True}, ""),
        ("cuda", {"avx2": True}, ""),
    ],
)
def test_bfloat16_without_instructions_for_it_is_warned_of_once(device, cpu, warned, caplog, monkeypatch):
    cpu |= {"cpu_name": "Old Chip", "architecture": "x86_64"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    warn_of_slow_bfloat16.cache_clear()
    for _ in range(2):
        warn_of_slow_bfloat16(device)
    assert len(caplog.records) == bool(warned)
    assert warned in caplog.text
    assert ("Old Chip" in caplog.text) == bool(warned)


def test_loading_and_training_in_bfloat16_warn_on_a_cpu_without_it(saved, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    for ask in (
        lambda: load_model(saved, dtype="bfloat16"),
        lambda: load_model(saved, dtype=torch.bfloat16, device="cpu"),
        lambda: make_arguments(tmp_path, bf16=True),
    ):
        warn_of_slow_bfloat16.cache_clear()
        caplog.clear()
        ask()
        assert "many times slower than float32" in caplog.text
    warn_of_slow_bfloat16.cache_clear()
    caplog.clear()
    load_model(saved), make_arguments(tmp_path)
    assert "bfloat16" not in caplog.text
