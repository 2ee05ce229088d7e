"""The configuration refuses what cannot be built, and what it accepts comes back from disk as it was."""

from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_stt import DFEW_CLASSES, STTConfig


def test_defaults_are_those_of_the_paper_and_its_authors_later_code() -> None:
    config = STTConfig()
    assert (config.image_size, config.num_frames, config.attention_order) == (112, 16, "space_time")
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (512, 4, 8)
    assert config.feature_grid(112, 112) == (7, 7)
    assert list(config.id2label.values()) == list(DFEW_CLASSES)
    assert config.label2id == {name: i for i, name in enumerate(DFEW_CLASSES)}
    assert config.num_labels == 7


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        ({"attention_order": "time_then_space"}, ["'time_then_space'", "space_time"]),
        ({"hidden_size": 100, "num_attention_heads": 8}, ["hidden_size=100", "num_attention_heads=8"]),
        ({"image_size": 15}, ["image_size=15", "16"]),
        ({"backbone_widths": (8, 16), "backbone_depths": (1,)}, ["[8, 16]", "[1]"]),
        ({"backbone_widths": (), "backbone_depths": ()}, ["[]"]),
        ({"backbone_depths": (2, 0, 2)}, ["[2, 0, 2]"]),
        ({"num_frames": 0}, ["num_frames=0"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers=0"]),
        ({"num_attention_heads": 0}, ["num_attention_heads=0"]),
        ({"drop_path_rate": 1.0}, ["drop_path_rate=1.0"]),
        ({"hidden_dropout_prob": -0.1}, ["hidden_dropout_prob=-0.1"]),
        ({"temperature": 0.0}, ["temperature=0.0"]),
        ({"temperature": float("nan")}, ["temperature=nan"]),
        ({"min_score": 1.5}, ["min_score=1.5"]),
        ({"logit_bias": [0.0, 1.0]}, ["logit_bias=[0.0, 1.0]", "7 finite numbers"]),
        ({"hidden_size": "512"}, ["hidden_size", "str"]),
        ({"num_frames": 16.0}, ["num_frames", "float"]),
    ],
)
def test_what_cannot_be_built_is_refused_and_quoted(arguments: dict, quoted: list[str]) -> None:
    with pytest.raises(StrictDataclassError) as error:
        STTConfig(**arguments)
    for words in quoted:
        assert words in str(error.value)


@pytest.mark.parametrize("num_labels", [1, 2, 3, 7, 11])
def test_class_names_survive_the_disk_for_every_number_of_classes(num_labels: int, tmp_path: Path) -> None:
    """transformers writes no labels for two classes; read back, those would have been DFEW's seven."""
    config = STTConfig(num_labels=num_labels)
    config.save_pretrained(tmp_path)
    assert STTConfig.from_pretrained(tmp_path).num_labels == num_labels
    names = {i: f"expression {i}" for i in range(num_labels)}
    STTConfig(id2label=names).save_pretrained(tmp_path)
    config = STTConfig.from_pretrained(tmp_path)
    assert config.id2label == names
    assert config.label2id == {name: i for i, name in names.items()}


def test_every_setting_survives_the_disk(tmp_path: Path) -> None:
    config = STTConfig(
        image_size=96,
        num_frames=8,
        backbone_stem_width=32,
        backbone_widths=(32, 64),
        backbone_depths=(1, 3),
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        intermediate_size=200,
        hidden_act="relu",
        hidden_dropout_prob=0,
        drop_path_rate=0.25,
        attention_order="joint",
        qkv_bias=False,
        temperature=1.5,
        min_score=0.4,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is STTConfig
    assert loaded.to_dict() == config.to_dict() | {"_name_or_path": str(tmp_path)}


@pytest.mark.parametrize("size", [16, 31, 32, 33, 112, 113, 224])
def test_feature_grid_is_what_the_backbone_makes(size: int) -> None:
    """The position table is laid out by this number before any clip is seen."""
    import torch

    from modeling_stt.modeling_stt import STTBackbone

    config = STTConfig(backbone_stem_width=2, backbone_widths=(2, 2, 2), backbone_depths=(1, 1, 1))
    with torch.device("meta"):
        feature_map = STTBackbone(config)(torch.empty(1, 3, size, 2 * size))
    assert tuple(feature_map.shape[-2:]) == config.feature_grid(size, 2 * size)


def test_two_configurations_share_no_list() -> None:
    first, second = STTConfig(), STTConfig()
    first.backbone_widths[0] = 1
    assert second.backbone_widths == [64, 128, 256]
