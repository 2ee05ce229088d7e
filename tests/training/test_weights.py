"""Starting points: backbone weights load whole or not at all, and a head keeps its classes by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet34, resnet50

from helpers.tiny import make_model
from modeling_stt import STTConfig, STTForVideoClassification, STTModel
from modeling_stt.training import hash_weights, load_backbone_weights, set_classes


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return resnet18().state_dict()


def _full_size_model() -> STTForVideoClassification:
    return STTForVideoClassification(STTConfig(hidden_size=32, num_hidden_layers=1, intermediate_size=32))


@pytest.mark.parametrize("form", ["torchvision", "ms-celeb-1m", "safetensors"])
def test_known_forms_of_resnet18_fill_the_backbone(
    form: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth.tar")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "torchvision":
        torch.save(weights, path)
    else:
        # As face recognition repositories save them: wrapped, prefixed, in torch's old file format.
        wrapped = {"epoch": 9, "arch": "resnet18", "state_dict": {f"module.{k}": v for k, v in weights.items()}}
        torch.save(wrapped, path, _use_new_zipfile_serialization=False)
    model = _full_size_model()
    report = load_backbone_weights(model, path)
    loaded = model.stt.backbone.state_dict()
    assert set(report.used) == set(loaded)
    assert all(torch.equal(loaded[key], weights[key]) for key in loaded)
    assert {key.split(".")[0] for key in report.left} == {"layer4", "fc"}
    assert "layer4" in str(report) and str(path) in str(report)


def test_bare_model_takes_weights_too(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "w.pth")
    model = STTModel(STTConfig(hidden_size=32, num_hidden_layers=1, intermediate_size=32))
    assert len(load_backbone_weights(model, tmp_path / "w.pth").used) == 90


@pytest.mark.parametrize("other", [resnet34, resnet50])
def test_networks_of_another_shape_are_refused_whole(other: type, tmp_path: Path) -> None:
    # ResNet-34 has all that ResNet-18 has, and more in each stage: loaded in part it would be neither.
    torch.save(other().state_dict(), tmp_path / "w.pth")
    model = _full_size_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit the backbone, nothing was loaded"):
        load_backbone_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_file_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Missing: conv1\.weight"):
        load_backbone_weights(_full_size_model(), tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken zip"])
def test_a_file_that_does_not_hold_weights_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth is not a file of weights alone"):
        load_backbone_weights(_full_size_model(), tmp_path / "w.pth")


def test_broken_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"w\.safetensors is not a file of weights alone"):
        load_backbone_weights(_full_size_model(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("source", ["resnet18.pth", "runs/nowhere", "ResNet18_Weights.NONE", "Unknown_Weights.V1"])
def test_a_source_that_is_neither_a_file_nor_a_weight_name_is_refused(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"such as ResNet18_Weights\.IMAGENET1K_V1"):
        load_backbone_weights(_full_size_model(), source)


def test_weight_names_of_torchvision_are_looked_up(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The download itself is torchvision's; no test may need the net.
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, *a, **k: weights)
    report = load_backbone_weights(_full_size_model(), "ResNet18_Weights.IMAGENET1K_V1")
    assert len(report.used) == 90


def test_same_classes_in_another_order_keep_what_they_learned() -> None:
    model = make_model().eval()
    clip = torch.rand(2, 4, 3, 32, 32)
    before = model(clip).logits
    set_classes(model, ["angry", "happy", "sad"])
    assert torch.equal(model(clip).logits, before[:, [2, 0, 1]])
    assert model.config.id2label == {0: "angry", 1: "happy", 2: "sad"}
    assert model.config.label2id == {"angry": 0, "happy": 1, "sad": 2}


def test_other_classes_get_a_new_head(tmp_path: Path) -> None:
    # Three classes again: a head of the same shape must not pass for one that knows them.
    model = make_model()
    old = model.classifier.weight.clone()
    set_classes(model, ["yes", "no", "maybe"])
    assert not torch.equal(model.classifier.weight, old)
    assert torch.count_nonzero(model.classifier.bias) == 0
    model.save_pretrained(tmp_path)
    assert STTForVideoClassification.from_pretrained(tmp_path).config.id2label == {0: "yes", 1: "no", 2: "maybe"}


def test_the_hash_depends_on_the_weights_and_not_on_their_place(tmp_path: Path) -> None:
    """A fold that starts from a model that was retrained in between does not belong to the same cross-validation."""
    model = make_model()
    model.save_pretrained(tmp_path / "here")
    there = STTForVideoClassification.from_pretrained(tmp_path / "here")
    assert hash_weights(there) == hash_weights(model)
    with torch.no_grad():
        there.classifier.weight[0, 0] += 1e-6
    assert hash_weights(there) != hash_weights(model)


def test_class_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        set_classes(make_model(), ["yes", "yes"])
