"""The Trainer: exact however a batch is split, resumes like an unbroken run, scores each clip once, paper's recipe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from torch import nn
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, HfArgumentParser

from helpers.tiny import NAMES, make_arguments, make_model, make_processor, make_rows, make_trainer, outcome
from modeling_stt.training import (
    ClipAugment,
    ClipDataset,
    STTTrainer,
    STTTrainingArguments,
    class_distances,
    class_weights,
    compact_softmax_cross_entropy,
    score,
)

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Eleven clips: no whole number of batches, of processes' batches, or of accumulation steps."""
    return make_rows(tmp_path_factory.mktemp("clips"))


def _assert_same(a: dict[str, Any], b: dict[str, Any], *, atol: float = 1e-6) -> None:
    assert a["losses"] == pytest.approx(b["losses"], abs=atol)
    assert a["scores"] == pytest.approx(b["scores"], abs=atol)
    torch.testing.assert_close(a["logits"], b["logits"], rtol=0, atol=10 * atol)
    torch.testing.assert_close(a["weights"], b["weights"], rtol=0, atol=atol)


@pytest.fixture(scope="module")
def whole(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process, batches of eight, uncut."""
    trainer = make_trainer(rows, tmp_path_factory.mktemp("whole"), batch_norm="frozen", per_device_train_batch_size=8)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    result = outcome(trainer)
    assert len(result["losses"]) == 4
    # Far enough from the start for the comparisons to mean something.
    moved = max((result["weights"][name] - before[name]).abs().max().item() for name in before)
    assert moved > 0.01
    return result


def test_training_resets_what_was_calibrated_for_other_weights(rows: Rows, tmp_path: Path) -> None:
    trainer = make_trainer(
        rows, tmp_path, {"temperature": 2.0, "min_score": 0.4, "logit_bias": 3 * [0.5]}, max_steps=1
    )
    assert trainer.model.config.temperature == 2.0, "evaluation alone leaves it"
    trainer.train()
    config = trainer.model.config
    assert (config.temperature, config.min_score, config.logit_bias) == (1.0, None, None)


def test_accumulation_changes_nothing(rows: Rows, whole: dict[str, Any], tmp_path: Path) -> None:
    trainer = make_trainer(
        rows, tmp_path, batch_norm="frozen", per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    trainer.train()
    _assert_same(outcome(trainer), whole)


def test_the_reading_with_class_means_is_exact_under_accumulation_and_when_resumed(rows: Rows, tmp_path: Path) -> None:
    options: dict[str, Any] = {"compact_loss": "running_means", "compact_weight": 1.0, "batch_norm": "frozen"}
    whole = make_trainer(rows, tmp_path / "whole", per_device_train_batch_size=8, **options)
    whole.train()
    options |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    parts = make_trainer(rows, tmp_path / "parts", save_strategy="steps", save_steps=2, **options)
    parts.train()
    _assert_same(outcome(parts), outcome(whole))
    resumed = make_trainer(rows, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    _assert_same(outcome(resumed), outcome(whole))
    plain = make_trainer(rows, tmp_path / "plain", **options | {"compact_weight": 0.0})
    plain.train()
    assert outcome(plain)["losses"] != pytest.approx(outcome(whole)["losses"], abs=1e-3)


def test_the_card_claims_no_result_that_was_not_measured_on_test_clips(rows: Rows, tmp_path: Path) -> None:
    trainer = make_trainer(rows, tmp_path / "user-model", eval_strategy="epoch")
    trainer.train()
    trainer.create_model_card(model_name="stt-mine")
    card = (tmp_path / "user-model" / "README.md").read_text()
    assert "# stt-mine" in card and "No result is claimed" in card and "Prohibited uses" in card
    assert "0 happy, 1 sad, 2 angry" in card and "after epoch 2.0: WAR" in card
    assert "model-index" not in card and "{" not in card


@pytest.mark.parametrize("save_steps", [3, 4])
def test_a_resumed_run_ends_as_an_unbroken_one(rows: Rows, tmp_path: Path, save_steps: int) -> None:
    """From the end of an epoch and from within one, with dropout, moving batch norms and loader workers."""
    model = {"hidden_dropout_prob": 0.2, "drop_path_rate": 0.1, "num_hidden_layers": 2}
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": save_steps, "lr_decay_epochs": 1}
    unbroken = make_trainer(rows, tmp_path, model, **options)
    unbroken.train()
    resumed = make_trainer(rows, tmp_path, model, dataloader_num_workers=2, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{save_steps}"))
    _assert_same(outcome(resumed), outcome(unbroken))


def test_every_epoch_has_its_own_clips(rows: Rows, tmp_path: Path) -> None:
    """With a learning rate of nothing, only the draws change the loss from epoch to epoch."""
    trainer = make_trainer(
        rows, tmp_path, learning_rate=0.0, batch_norm="frozen", per_device_train_batch_size=11, num_train_epochs=3
    )
    trainer.train()
    assert len({round(loss, 6) for loss in outcome(trainer)["losses"]}) == 3


def test_evaluation_counts_every_clip_once_in_its_loss_and_scores(rows: Rows, tmp_path: Path) -> None:
    """Against the model's outputs by hand. (That several processes give the same: test_processes.py.)"""
    trainer = make_trainer(rows, tmp_path, label_smoothing_factor=0.1, class_weighting="inverse")
    clips = trainer.eval_dataset
    assert isinstance(clips, ClipDataset)
    items = [clips[i] for i in range(len(clips))]
    labels = torch.tensor([item["labels"] for item in items])
    trainer.model.eval()
    with torch.no_grad():
        outputs = trainer.model(torch.stack([item["pixel_values"] for item in items]))
    expected = compact_softmax_cross_entropy(
        outputs.logits,
        outputs.pooler_output,
        trainer.model.classifier.weight,
        labels,
        label_smoothing=0.1,
        class_weight=class_weights(clips.label_ids, 3, "inverse"),
    )
    metrics = trainer.evaluate()
    scores = score(labels.numpy(), outputs.logits.argmax(1).numpy(), NAMES)
    distances = class_distances(outputs.pooler_output.numpy(), labels.numpy())
    assert metrics["eval_loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert (metrics["eval_war"], metrics["eval_uar"]) == (scores.war, scores.uar)
    assert [metrics[f"eval_recall_{name}"] for name in NAMES] == scores.recalls
    assert metrics["eval_intra_distance"] == pytest.approx(distances.intra, abs=1e-5)
    assert metrics["eval_inter_distance"] == pytest.approx(distances.inter, abs=1e-5)
    assert trainer.state.log_history[-1]["eval_war"] == scores.war


def test_options_reach_the_loss(rows: Rows, tmp_path: Path) -> None:
    """The first step's loss is that of the untrained model on the sampler's first batch, by hand."""
    options: dict[str, Any] = {"compact_weight": 0.7, "label_smoothing_factor": 0.2, "class_weighting": "inverse_sqrt"}
    trainer = make_trainer(rows[:10], tmp_path, batch_norm="frozen", per_device_train_batch_size=10, **options)
    untrained = make_model().eval()
    clips = trainer.train_dataset
    items = [clips[draw] for draw in trainer._get_train_sampler()]
    with torch.no_grad():
        outputs = untrained(torch.stack([item["pixel_values"] for item in items]))
    expected = compact_softmax_cross_entropy(
        outputs.logits,
        outputs.pooler_output,
        untrained.classifier.weight,
        torch.tensor([item["labels"] for item in items]),
        compact_weight=0.7,
        label_smoothing=0.2,
        class_weight=class_weights(np.array([0, 1, 2] * 3 + [0]), 3, "inverse_sqrt"),
    )
    trainer.train()
    assert outcome(trainer)["losses"][0] == pytest.approx(expected.item(), abs=1e-5)


def test_soft_labels_of_certain_votes_train_like_hard_ones(rows: Rows, whole: dict[str, Any], tmp_path: Path) -> None:
    """transformers counts K labels for every clip with soft ones."""
    voted = [row | {"votes": [10 * (row["label"] == k) for k in range(3)]} for row in rows]
    trainer = make_trainer(
        rows, tmp_path, batch_norm="frozen", per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    trainer.train_dataset = ClipDataset(voted, make_processor(), augment=ClipAugment(), labels=NAMES, votes=True)
    trainer.train()
    _assert_same(outcome(trainer), whole)


def test_the_balanced_sampler_is_drawn_from(rows: Rows, tmp_path: Path) -> None:
    few = [row for row in rows if row["label"] == 0 or row["clip_id"] == "001"]
    drawn = [
        few[draw.row]["label"]
        for draw in make_trainer(few, tmp_path, class_balanced_sampler=True)._get_train_sampler()
    ]
    assert sorted((drawn.count(0), drawn.count(1))) == [2, 3]  # of four clips and one


@pytest.mark.parametrize(("batch_norm", "moves"), [("batch", True), ("frozen", False)])
def test_frozen_batch_norms_keep_their_statistics_and_still_learn(
    rows: Rows, tmp_path: Path, batch_norm: str, moves: bool
) -> None:
    trainer = make_trainer(rows, tmp_path, batch_norm=batch_norm, num_train_epochs=1)
    norm = trainer.model.stt.backbone.bn1
    trainer.train()
    assert bool(norm.running_mean.abs().max() > 0) == moves
    assert (norm.weight != 1).any()


def test_a_frozen_backbone_stays_and_the_rest_learns(rows: Rows, tmp_path: Path) -> None:
    trainer = make_trainer(rows, tmp_path, {"hidden_dropout_prob": 0.1}, freeze_backbone=True, num_train_epochs=1)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    moved = {name for name, weight in trainer.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and not any("backbone" in name for name in moved)


def test_the_backbone_has_a_rate_of_its_own(rows: Rows, tmp_path: Path) -> None:
    trainer = make_trainer(
        rows, tmp_path, learning_rate=0.02, backbone_learning_rate=0.001, lr_decay_epochs=1, num_train_epochs=2
    )
    optimizer = trainer.create_optimizer()
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    rates = {names[id(w)]: group["lr"] for group in optimizer.param_groups for w in group["params"]}
    assert set(rates) == set(names.values())
    assert all(rate == (0.001 if "backbone" in name else 0.02) for name, rate in rates.items())
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)
    trainer.train()
    assert {round(group["lr"], 9) for group in trainer.optimizer.param_groups if group["params"]} == {2e-4, 1e-5}


def test_the_rate_falls_by_epochs_also_under_accumulation(rows: Rows, tmp_path: Path) -> None:
    """Eleven clips by fours are three batches, two steps: a tenth every two epochs is a tenth every four steps."""
    trainer = make_trainer(
        rows, tmp_path, num_train_epochs=5, gradient_accumulation_steps=2, lr_decay_epochs=2, batch_norm="frozen"
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 4 + [0.0001] * 2)


def test_rows_are_trained_on_as_clips_of_the_recipe(rows: Rows, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_norm": "frozen", "num_train_epochs": 1}
    own = make_trainer(rows, tmp_path, **options)
    given = STTTrainer(
        make_model(), make_arguments(tmp_path, **options), rows, {"all": rows}, processing_class=make_processor()
    )
    for trainer in (own, given):
        trainer.train()
    assert [entry.get("loss") for entry in given.state.log_history] == [
        entry.get("loss") for entry in own.state.log_history
    ]
    assert given.evaluate(rows)["eval_loss"] == own.evaluate()["eval_loss"]
    np.testing.assert_array_equal(given.predict(rows).predictions[0], own.predict(own.eval_dataset).predictions[0])
    assert "eval_all_war" in given.evaluate()


def test_the_defaults_are_the_papers_recipe(rows: Rows, tmp_path: Path) -> None:
    arguments = STTTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (arguments.num_train_epochs, arguments.per_device_train_batch_size, arguments.seed) == (100, 32, 42)
    assert (arguments.lr_decay_epochs, arguments.lr_decay_factor, arguments.max_grad_norm) == (40, 0.1, 0)
    assert (arguments.compact_weight, arguments.report_to) == (0.1, [])
    trainer = make_trainer(rows, tmp_path)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"]) == (0.01, 0.9)
        assert group["weight_decay"] == 1e-4 or not group["params"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(trainer.model.parameters()))


def test_arguments_are_read_from_a_command_line(tmp_path: Path) -> None:
    line = ["--output_dir", str(tmp_path), "--use_cpu", "--class_weighting", "inverse", "--batch_norm", "frozen"]
    (arguments,) = HfArgumentParser(STTTrainingArguments).parse_args_into_dataclasses(line)
    assert (arguments.class_weighting, arguments.batch_norm) == ("inverse", "frozen")


def test_training_lowers_the_loss_and_a_checkpoint_loads_with_its_processor(rows: Rows, tmp_path: Path) -> None:
    trainer = make_trainer(
        rows, tmp_path, num_train_epochs=40, learning_rate=0.002, save_strategy="steps", save_steps=120
    )
    trainer.train()
    losses = outcome(trainer)["losses"]
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "checkpoint-120")
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "checkpoint-120")
    with torch.no_grad():
        logits = model(**processor(rows[0]["frames"], return_tensors="pt")).logits
    torch.testing.assert_close(logits[0], outcome(trainer)["logits"][0], rtol=0, atol=1e-5)


def test_what_would_be_silently_wrong_is_refused(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, processor = make_arguments(tmp_path), make_processor()
    turned = ClipDataset(rows, processor, labels=NAMES[::-1])
    with pytest.raises(ValueError, match="train_dataset has the classes"):
        STTTrainer(make_model(), arguments, turned)
    with pytest.raises(ValueError, match="test has the classes"):
        STTTrainer(make_model(), arguments, eval_dataset={"test": turned})
    with pytest.raises(TypeError, match=r"train_dataset is a list of rows: give processing_class=STTVideoProcessor"):
        STTTrainer(make_model(), arguments, rows)
    with pytest.raises(TypeError, match=r'train_dataset is a DatasetDict; expected rows .*split="train"'):
        STTTrainer(make_model(), arguments, DatasetDict(), processing_class=processor)
    with pytest.raises(ValueError, match="2 GPUs in one process"):
        several = make_arguments(tmp_path)
        several._n_gpu = 2
        STTTrainer(make_model(), several)
    with (
        pytest.raises(ValueError, match=r"torch 2.8.0 gives other results under FSDP2"),
        monkeypatch.context() as old,
    ):
        old.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.8.0"))
        trainer = STTTrainer(make_model(), make_arguments(tmp_path))
        trainer.is_fsdp_enabled = True
        trainer._prepare_devices()
    with pytest.raises(ValueError, match="works on GPUs only"):
        monkeypatch.setattr(STTTrainingArguments, "world_size", 2)
        STTTrainer(make_model(), make_arguments(tmp_path, batch_norm="sync"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataloader_drop_last": True}, "leave clips out of evaluation"),
        ({"average_tokens_across_devices": False}, "leave it on"),
        ({"class_balanced_sampler": True, "class_weighting": "inverse"}, "twice: choose one"),
        ({"train_sampling_strategy": "group_by_length"}, "ClipSampler"),
        ({"compact_weight": -1.0}, "compact_weight=-1.0"),
        ({"label_smoothing_factor": 1.5}, "label_smoothing_factor=1.5"),
        ({"lr_decay_factor": 0.0}, "lr_decay_factor=0.0"),
        ({"backbone_learning_rate": 0.1, "freeze_backbone": True}, "cannot be combined with freeze_backbone"),
        ({"compact_loss": "island"}, "compact_loss='island' is unknown"),
        ({"batch_norm": "group"}, "batch_norm='group' is unknown"),
        ({"class_weighting": "balanced"}, "class_weighting='balanced' is unknown"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **changes)


def test_synchronised_batch_norms_are_put_in_for_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synchronising is tested by torch; here, that they are put in and save as before."""
    arguments = make_arguments(tmp_path, batch_norm="sync")
    model = make_model()
    names = list(model.state_dict())
    trainer = STTTrainer(model, arguments)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())  # one process: nothing to do
    monkeypatch.setattr(STTTrainingArguments, "world_size", 2)
    monkeypatch.setattr(STTTrainingArguments, "device", torch.device("cuda"))
    trainer._prepare_devices()
    assert isinstance(trainer.model.stt.backbone.layer2[0].downsample[1], nn.SyncBatchNorm)
    assert list(model.state_dict()) == names
