"""Cards as whole texts, and that they claim nothing but what was measured.

After a change of card_template.md: `STT_WRITE_CARDS=1 pytest tests/hub/test_card.py`, and read what changed in cards/.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import ViTConfig

from dataset_scripts import BUILDERS
from helpers.models import make_processor, make_scorer
from helpers.runs import change_results, make_results, write_folds, write_run
from modeling_stt.hub import make_card, read_run
from modeling_stt.hub.card import SOURCES
from modeling_stt.hub.run import PROCESSOR_FILE
from modeling_stt.training.weights import hash_weights, read_weights

CARDS = Path(__file__).parent / "cards"
SYNTHETIC: dict[str, Any] = {
    "synthetic": True,
    "verification": {"comparable": False, "failed": ["counts: 14 of 14 are not the published ones"], "warning": []},
}


def compare(name: str, card: str) -> None:
    if os.environ.get("STT_WRITE_CARDS"):
        (CARDS / name).write_text(card)
    assert card == (CARDS / name).read_text()


def test_card_of_one_fold(tmp_path: Path) -> None:
    compare("one_fold.md", make_card(read_run(write_run(tmp_path / "run")), "user/stt-dfew"))


def test_card_of_some_folds_of_synthetic_faces(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "runs", **SYNTHETIC)
    compare("synthetic_folds.md", make_card(read_run(folder, fold=2), "user/stt-demo"))


def card_of(folder: Path, **changes: Any) -> ModelCard:
    change_results(folder, **changes)
    return ModelCard(make_card(read_run(folder), "user/stt"))


def test_scores_on_synthetic_faces_never_carry_the_name_of_a_real_data_set(tmp_path: Path) -> None:
    card = card_of(write_run(tmp_path / "run"), **SYNTHETIC)
    [result] = {(entry.dataset_type, entry.dataset_name) for entry in card.data.eval_results}
    assert result == ("synthetic-faces", "synthetic faces in the layout of DFEW (rendered; no data of DFEW)")
    assert "dfew" not in card.data.tags
    assert "> **Trained and evaluated on synthetic faces" in card.text
    assert (card.data.license, "license_name" in card.data.to_dict()) == ("apache-2.0", False)


def test_numbers_on_other_data_than_those_of_papers_are_marked(tmp_path: Path) -> None:
    card = card_of(write_run(tmp_path / "run"), verification={"comparable": False, "failed": ["counts: few"]})
    [name] = {entry.dataset_name for entry in card.data.eval_results}
    assert name == "a copy of DFEW that differs from the one that papers report on"
    assert "> **The numbers below cannot be compared with papers:**" in card.text
    assert "the data are **not** those that papers report on. counts: few." in card.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"protocol": {"selection": "test", "selection_means": "best on the test fold", "select_by": "war"}},
            "WAR, epoch chosen on the test fold (%)",
        ),
        ({"verification": None}, "Data check before training (`stt verify`): not made."),
        ({"train_seconds": None}, "| training time | unknown: the run was interrupted and resumed |"),
        ({"fold": None, "configuration": "default"}, "| split | WAR | UAR |"),
        ({"data_options": {"frames": "16f"}}, "with the options `{'frames': '16f'}`"),
        (
            {"start": {"model": None, "backbone_weights": "/home/jane/ms1m.pth"}},
            "- **Start:** backbone weights `ms1m.pth`.",
        ),
    ],
)
def test_deviations_of_a_run_are_on_its_card(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in card_of(write_run(tmp_path / "run"), **changes).content


def test_face_crop_and_carbon_are_reported_if_they_are_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "| carbon | not measured |" in card_of(folder).text
    (folder / "emissions.csv").write_text("emissions,country_name\n0.0101,Norway\n0.0022,Norway\n")
    processor = json.loads((folder / PROCESSOR_FILE).read_text())
    (folder / PROCESSOR_FILE).write_text(json.dumps(processor | {"face_crop": {"margin": 0.1, "align": True}}))
    card = card_of(folder)
    assert "| carbon | 12.3 g CO₂ equivalent, estimated by codecarbon in Norway |" in card.text
    assert card.data.co2_eq_emissions["emissions"] == 12.3
    assert "`{'margin': 0.1, 'align': True}`" in card.text


CALIBRATION = {
    "fitted": {"temperature": 1.5, "min_score": 0.6, "num_clips": 40},
    "expected_calibration_error": {"before": 0.12, "after": 0.05},
    "accuracy_at_coverage": {"1": 0.75, "0.9": 0.8, "0.5": 0.9},
    "at_min_score": {"coverage": 0.7, "accuracy": 0.88},
}


def test_calibration_is_reported_if_it_was_measured(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "- Probabilities are not calibrated." in card_of(folder).text
    text = card_of(folder, calibration=CALIBRATION).text
    assert "calibrated by a temperature of 1.50" in text and "not calibrated" not in text
    assert "0.120 without and 0.050 with a fitted temperature" in text
    assert "| clips answered | 100 % | 90 % | 50 % |\n|---|---|---|---|\n| WAR | 75.00 | 80.00 | 90.00 |\n" in text
    unfitted = {"fitted": None, "expected_calibration_error": {"before": 0.12, "after": None}}
    text = card_of(folder, calibration=CALIBRATION | unfitted).text
    assert "- Probabilities are not calibrated." in text and "0.120 without a fitted temperature" in text


def test_an_audit_and_a_number_of_steps_are_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "Use of time" not in card_of(folder).text and "| epochs | 3 |" in card_of(folder).text
    recipe = json.loads((folder / "results.json").read_text())["recipe"] | {"num_train_epochs": None, "max_steps": 60}
    text = card_of(folder, audit={"shuffled": {"war": 0.5, "uar": 0.25}}, recipe=recipe).text
    assert "| order of frames | WAR | UAR |\n|---|---|---|\n| shuffled | 50.00 | 25.00 |\n" in text
    assert "| steps | 60 |" in text and "| epochs |" not in text


def test_another_frame_encoder_and_images_beside_the_clips_are_named(tmp_path: Path) -> None:
    encoder = ViTConfig(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    folder = write_run(tmp_path / "run")
    model = make_scorer(backbone_config=encoder)
    model.save_pretrained(folder)
    images = {"source": "/home/jane/RAF-DB", "share": 0.25, "per_class": {"happy": 3, "sad": 2}, "sha256_of_ids": "x"}
    of_model = {"model": make_results(model, make_processor(), 1)["model"]}
    of_model["sha256_of_weights"] = hash_weights(read_weights(folder))  # files have older names of weights
    text = card_of(folder, images=images, **of_model).text
    assert "in place of its ResNet a `vit` of transformers, 2 blocks" in text
    assert "5 with labels, 25 % of every batch, through a head of their own that was not kept (happy 3, sad 2)" in text
    assert "jane" not in text


def test_another_reading_of_the_loss_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "cross entropy + 0.1 · [mean (1 − cos(f, w_y))" in card_of(folder).text
    recipe = json.loads((folder / "results.json").read_text())["recipe"]
    text = card_of(folder, recipe=recipe | {"compact_loss": "running_means"}).text
    assert "cross entropy + 0.1 × the term `running_means` of" in text and "cos(f, w_y)" not in text


def test_results_without_a_value_that_the_card_reports_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    change_results(folder, recipe={"seed": 1})
    with pytest.raises(ValueError, match=r"lacks a value that the card reports: .*compact_weight"):
        make_card(read_run(folder), "user/stt")
    change_results(folder, dataset="unheard_of")
    with pytest.raises(ValueError, match="The data set unheard_of is unknown"):
        make_card(read_run(folder), "user/stt")


def test_every_data_set_is_known_with_its_home_page(tmp_path: Path) -> None:
    assert set(SOURCES) == set(BUILDERS)
    for name, source in SOURCES.items():
        if name != "clip_folder":
            text = (Path(__file__).parents[2] / "dataset_scripts" / f"{name}.py").read_text()
            assert f'"{source.url}"' in text
