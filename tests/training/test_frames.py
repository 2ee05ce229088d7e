"""Pre-training on frames: targets follow the level that a frame shows; an interrupted run ends as a whole one."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.models import make_model
from modeling_stt.training import ClipAugment, load_backbone_weights
from modeling_stt.training.frames import WEIGHTS_FILE, FrameRecipe, Frames, load_frames, mix_styles, pretrain_backbone

CLASSES = ["happy", "neutral", "sad"]
STILL = ClipAugment(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_probability=0.0)


@pytest.fixture
def rows(tmp_path: Path) -> datasets.Dataset:
    """Two clips of three frames, each frame in a colour of its own."""
    files = []
    for number in range(6):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.full((40, 40, 3), 40 * number, np.uint8)).save(files[-1])
    return datasets.Dataset.from_dict(
        {
            "frames": [files[:3], files[3:]],
            "truth_expression": ["happy", "sad"],
            "truth_level": [[0.0, 0.3, 0.9], [0.4, 0.1, 0.0]],
            "truth_action_units": [[[0.0, 1.0]] * 3, [[0.5, 0.5]] * 3],
        }
    )


def test_a_frame_shows_as_much_of_its_class_as_its_level_says(rows: datasets.Dataset) -> None:
    frames = load_frames(rows, CLASSES, 32, hidden=0.2, shown=0.4)
    assert frames.pixels.shape == (6, 3, 32, 32)
    assert frames.pixels.float().mean((1, 2, 3)).tolist() == [0, 40, 80, 120, 160, 200]
    wanted = [[0, 1, 0], [0.5, 0.5, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert torch.allclose(frames.classes, torch.tensor(wanted), atol=1e-6)
    assert frames.units[3].tolist() == [0.5, 0.5]


def test_rows_without_truth_are_refused(rows: datasets.Dataset) -> None:
    with pytest.raises(ValueError, match="truth_level must be added first"):
        load_frames(rows.remove_columns("truth_level"), CLASSES, 32, 0.2, 0.4)
    with pytest.raises(ValueError, match="sad, which is not among the classes"):
        load_frames(rows, ["happy", "neutral"], 32, 0.2, 0.4)


def _frames(count: int = 320) -> Frames:
    """Bright frames are happy, dark ones neutral."""
    bright = torch.arange(count) % 2 == 0
    noise = torch.randint(0, 60, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    pixels = (noise + 150 * bright.view(-1, 1, 1, 1)).to(torch.uint8)
    classes = torch.stack([bright, ~bright, torch.zeros(count)], dim=1).float()
    return Frames(pixels, classes, bright.float()[:, None])


def test_the_backbone_learns_and_an_interrupted_run_ends_as_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, recipe = make_model().config, FrameRecipe(epochs=3, learning_rate=3e-3, style_mixing=0.5, averaging=0.6)
    caplog.set_level("INFO")
    whole = tmp_path / "whole" / WEIGHTS_FILE
    pretrain_backbone(config, _frames(), tmp_path / "whole", STILL, recipe, held_out=_frames(16))
    losses = [
        float(record.message.split("loss ")[1].split(",")[0]) for record in caplog.records if "loss" in record.message
    ]
    assert losses[-1] < 0.7 * losses[0]

    save = torch.save

    def stop_after_the_first(state: dict, file: Path) -> None:
        save(state, file)
        if state["epoch"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        pretrain_backbone(config, _frames(), tmp_path / "cut", STILL, recipe)
    monkeypatch.setattr(torch, "save", save)
    pretrain_backbone(config, _frames(), tmp_path / "cut", STILL, recipe)
    assert whole.read_bytes() == (tmp_path / "cut" / WEIGHTS_FILE).read_bytes()

    model = make_model()
    load_backbone_weights(model, whole)
    assert torch.equal(model.stt.backbone.conv1.weight, load_file(whole)["conv1.weight"])


def test_mixed_styles_keep_what_a_map_shows() -> None:
    """Each channel stays the same up to a factor and a shift; the styles lie between those of two frames."""
    torch.manual_seed(0)
    features = torch.randn(8, 4, 6, 6) * torch.linspace(0.5, 3, 8).view(-1, 1, 1, 1) + torch.arange(8.0).view(
        -1, 1, 1, 1
    )
    mixed = mix_styles(features)
    before, after = (maps.flatten(2) - maps.flatten(2).mean(-1, keepdim=True) for maps in (features, mixed))
    assert torch.allclose(torch.cosine_similarity(before, after, dim=-1), torch.ones(8, 4), atol=1e-4)
    means = features.mean((2, 3))
    assert not torch.allclose(mixed.mean((2, 3)), means, atol=0.5)
    assert (mixed.mean((2, 3)) >= means.amin(0) - 1e-3).all() and (mixed.mean((2, 3)) <= means.amax(0) + 1e-3).all()


def test_styles_are_mixed_in_training_alone(tmp_path: Path) -> None:
    """Another share gives other weights; the saved model answers without chance."""
    config, files = make_model().config, []
    for share in (0.0, 1.0):
        recipe = FrameRecipe(epochs=1, style_mixing=share, averaging=0.5)
        model = pretrain_backbone(config, _frames(64), tmp_path / str(share), STILL, recipe)
        pixels = _frames(16).pixels.float() / 255
        assert torch.equal(model(pixels)[0], model(pixels)[0])
        files.append((tmp_path / str(share) / WEIGHTS_FILE).read_bytes())
    assert files[0] != files[1]


def test_a_run_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    config = make_model().config
    pretrain_backbone(config, _frames(32), tmp_path, STILL, FrameRecipe(epochs=1))
    with pytest.raises(ValueError, match="name another folder"):
        pretrain_backbone(config, _frames(32), tmp_path, STILL, FrameRecipe(epochs=1, seed=7))


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        FrameRecipe(batch_size=12)
    with pytest.raises(ValueError, match=r"averaging in \[0, 1\)"):
        FrameRecipe(averaging=1.0)
    with pytest.raises(ValueError, match="16 frames are fewer than one batch of 32"):
        pretrain_backbone(make_model().config, _frames(16), tmp_path, STILL)
