"""Images beside clips: their share of every batch, their head that is not kept, exact however a batch is split."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.models import TINY_MODEL, make_processor
from helpers.programs import ROOT
from helpers.tiny import NAMES, make_images, make_model, make_rows, make_trainer, outcome
from modeling_stt import STTForVideoClassification
from modeling_stt.training import (
    ClipAugment,
    ClipDataset,
    ClipSampler,
    TrainingImages,
    compact_softmax_cross_entropy,
    match_images,
)
from modeling_stt.training.images import ClipsAndImages, MixedSampler

FROZEN: dict[str, Any] = {"batch_norm": "frozen", "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return make_rows(tmp_path_factory.mktemp("clips"))


def _mixed(num_clips: int, num_images: int, share: float, multiple_of: int = 1) -> MixedSampler:
    clips, images = (ClipSampler(np.arange(n) % 3, seed=5) for n in (num_clips, num_images))
    return MixedSampler(clips, images, TrainingImages([], share).exact_share, multiple_of)


@pytest.mark.parametrize(("share", "in_a_batch"), [(0.25, 8), (0.5, 16), (0.1, 3.2)])
def test_every_batch_has_the_share_and_every_clip_is_drawn_once(share: float, in_a_batch: float) -> None:
    sampler = _mixed(100, 70, share)
    drawn = [draw.row for draw in sampler]
    assert len(drawn) == len(sampler) == 100 + int(100 * share / (1 - share) + 1e-9)
    assert sorted(row for row in drawn if row < 100) == list(range(100))
    for start in range(0, len(drawn) - 32, 32):
        assert abs(sum(row >= 100 for row in drawn[start : start + 32]) - in_a_batch) < 1


def test_images_are_not_repeated_before_all_were_drawn_and_an_epoch_is_known_by_its_number() -> None:
    sampler = _mixed(30, 25, 0.25)  # 10 images an epoch: all 25 in two and a half
    epochs = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    images = [draw.row - 30 for draws in epochs for draw in draws if draw.row >= 30]
    assert sorted(images[:25]) == sorted(images[25:50]) == list(range(25))
    sampler.set_epoch(3)
    assert list(sampler) == epochs[3] != epochs[2]
    few = [draw.row for draw in _mixed(30, 3, 0.5) if draw.row >= 30]
    assert [few.count(row) for row in (30, 31, 32)] == [10, 10, 10]
    padded = list(_mixed(30, 25, 0.25, multiple_of=16))
    assert len(padded) == 48 and sum(draw.counted for draw in padded) == 40


def test_labels_of_images_follow_those_of_clips(rows: list[dict[str, Any]]) -> None:
    images = ClipDataset(make_images(rows).rows, make_processor(), augment=ClipAugment(), labels=NAMES)
    voted = [row | {"votes": [1, 1, 2]} for row in rows]
    hard, soft = (
        ClipsAndImages(ClipDataset(given, make_processor(), labels=NAMES, votes=votes), images)
        for given, votes in ((rows, False), (voted, True))
    )
    draws = list(MixedSampler(*(ClipSampler(d.label_ids, seed=0) for d in (hard.clips, images)), Fraction(1, 4), 16))
    for draw in draws:
        image = draw.row >= len(rows)
        own = rows[draw.row - len(rows) + 1 if image else draw.row]["label"]
        label = hard[draw]["labels"]
        assert label == (own + 3 * image if draw.counted else -100)
        expected = F.one_hot(torch.tensor(own + 3), 6) if image else torch.tensor([0.25, 0.25, 0.5, 0, 0, 0])
        assert torch.equal(soft[draw]["labels"], expected.float() if draw.counted else torch.full((6,), -100.0))
    assert sum(draw.row >= len(rows) for draw in draws[:14]) == 3 and not draws[-1].counted


def test_the_first_loss_is_that_of_two_heads(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    options: dict[str, Any] = {"label_smoothing_factor": 0.2, "class_weighting": "inverse", "num_train_epochs": 1}
    trainer = make_trainer(rows, tmp_path, images=make_images(rows), **FROZEN | options)
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = 14
    mixed: Any = trainer.train_dataset
    items = [mixed[draw] for draw in trainer._get_train_sampler()]
    labels = torch.tensor([item["labels"] for item in items])
    untrained = make_model()
    with torch.no_grad():
        outputs = untrained(torch.stack([item["pixel_values"] for item in items]))
        features, images = outputs.pooler_output, labels >= 3
        assert images.sum() == 3
        smoothed = {"label_smoothing": 0.2, "num_items": 14}
        of_clips = compact_softmax_cross_entropy(
            outputs.logits[~images],
            features[~images],
            untrained.classifier.weight,
            labels[~images],
            compact_weight=0.1,
            class_weight=trainer.class_weight,
            **smoothed,
        )
        head = trainer.image_classifier
        of_images = F.cross_entropy(
            head(features[images]),
            labels[images] - 3,
            weight=trainer.image_class_weight,
            label_smoothing=0.2,
            reduction="sum",
        )
    trainer.train()
    assert outcome(trainer)["losses"][0] == pytest.approx((of_clips + of_images / 14).item(), abs=1e-5)


@pytest.mark.parametrize("cut", [(4, 2), (1, 8)])
def test_accumulation_changes_nothing_and_the_head_is_not_kept(
    cut: tuple[int, int], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Micro-batches of one have no clip, or no image."""
    whole = make_trainer(rows, tmp_path / "whole", images=make_images(rows, 0.4), **FROZEN)
    names = whole.model.state_dict().keys()
    whole.train()
    split = {"per_device_train_batch_size": cut[0], "gradient_accumulation_steps": cut[1]}
    parts = make_trainer(rows, tmp_path / "parts", images=make_images(rows, 0.4), **FROZEN | split)
    head = parts.image_classifier.weight.clone()
    parts.train()
    assert outcome(parts)["losses"] == pytest.approx(outcome(whole)["losses"], abs=1e-6)
    torch.testing.assert_close(outcome(parts)["weights"], outcome(whole)["weights"], rtol=0, atol=1e-6)
    assert whole.model.state_dict().keys() == names
    assert not torch.equal(parts.image_classifier.weight, head), "it is trained"
    alone = make_trainer(rows, tmp_path / "alone", **FROZEN)
    alone.train()
    assert not torch.equal(alone.model.classifier.weight, whole.model.classifier.weight)


def test_the_models_own_head_learns_nothing_from_images(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Of images that carry wrong labels, only the encoder and the blocks hear."""
    trainer = make_trainer(rows[:1], tmp_path, images=make_images(rows, 0.9), compact_weight=0.0, **FROZEN)
    items = [trainer.train_dataset[draw] for draw in trainer._get_train_sampler()]
    batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items[1:]]) for name in items[0]}
    trainer.model.image_classifier = trainer.image_classifier
    trainer.compute_loss(trainer.model.train(), batch, num_items_in_batch=torch.tensor(9)).backward()
    assert (batch["pixel_values"].shape[0], trainer.model.classifier.weight.grad.abs().max()) == (9, 0)
    assert trainer.image_classifier.weight.grad.abs().max() > 0
    assert trainer.model.stt.embeddings.projection.weight.grad.abs().max() > 0


def test_a_resumed_run_ends_as_an_unbroken_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    model = {"hidden_dropout_prob": 0.2}
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": None}
    unbroken = make_trainer(rows, tmp_path, model, images=make_images(rows), **options)
    unbroken.train()
    resumed = make_trainer(rows, tmp_path, model, images=make_images(rows), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert torch.equal(unbroken.image_classifier.weight, resumed.image_classifier.weight)
    unbroken.save_model(str(tmp_path / "end"))
    _, info = STTForVideoClassification.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    plain = make_trainer(rows, tmp_path, model, **options)
    with pytest.raises(ValueError, match=r"does not hold the weights .*image_classifier"):
        plain.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_classes_are_matched_by_name(caplog: pytest.LogCaptureFixture) -> None:
    names = ["happy", "happy", "contempt", "sad"]
    rows = [{"clip_id": str(i), "label": name, "frames": ["x"]} for i, name in enumerate(names)]
    assert [row["clip_id"] for row in match_images(rows, NAMES)] == ["0", "1", "3"]
    assert "left out: 1 of contempt" in caplog.text and "no images of angry" in caplog.text
    with pytest.raises(ValueError, match=r"classes contempt, happy, the clips happy, sad, angry.*image_classes"):
        match_images(rows[:3], NAMES)
    with pytest.raises(ValueError, match=r"share=1\.0 of images must lie between 0 and 1"):
        TrainingImages(rows, 1.0)


def test_train_reads_folders_as_people_have_them_and_notes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAF-DB's layout: numbered classes in train and test, of which only train is trained on."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from train import train

    for number, row in enumerate(make_rows(tmp_path / "made", num_clips=18, num_frames=2)):
        clip, image = Path(row["frames"][0]).parent, Path(row["frames"][1])
        shutil.copytree(clip, tmp_path / "clips" / NAMES[number % 3] / clip.name)
        folder = tmp_path / "RAF-DB" / ("test" if number > 8 else "train") / str(1 + number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / f"{number}.jpg")
    (tmp_path / "RAF-DB" / "train_labels.csv").write_text("image,label\n")
    options = {"dataset": "clip_folder", "data_dir": tmp_path / "clips", "fold": 1, "output_dir": tmp_path / "run"}
    options |= {"num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True, "selection": "last"}
    options |= {"verify_data": False, "image_dir": tmp_path / "RAF-DB", "resume_from_checkpoint": "last"}
    options |= {"model_config": json.dumps(TINY_MODEL)}
    with pytest.raises(SystemExit, match=r"images have the classes 1, 2, 3.*'1=surprise,2=fear'"):
        train([f"--{name}={value}" for name, value in options.items()])
    options["image_classes"] = "1=happy,2=sad,3=contempt"
    run = train([f"--{name}={value}" for name, value in options.items()])
    assert run.trainer is not None
    images = run.results["images"]
    assert (images["share"], images["per_class"]) == (0.25, {"happy": 3, "sad": 3})
    assert images["source"] == str(tmp_path / "RAF-DB")
    loaded, info = STTForVideoClassification.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not info["unexpected_keys"] and len(loaded.config.class_names) == 3
    with pytest.raises(ValueError, match=r"images\.share \(0\.25 there, 0\.5 here\)"):
        train([f"--{name}={value}" for name, value in (options | {"image_share": 0.5}).items()])
