"""Each place that answers with a trained model refuses a damaged folder by one error that names it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification

from helpers.damaged_models import DAMAGES, damage
from helpers.face_videos import save_model, scene, write_video
from helpers.programs import ROOT
from modeling_stt import cli
from modeling_stt.hub.handler import EndpointHandler
from modeling_stt.training.options import RunArguments
from modeling_stt.training.start import build_model

REASONS = DAMAGES | {"another kind": r"holds BertForSequenceClassification\. Expected a trained STT"}


def run_timeline(model: Path, video: Path) -> None:
    cli.main(["timeline", str(video), "--model", str(model)])


def run_explain(model: Path, video: Path) -> None:
    cli.main(["explain", str(video), "--model", str(model), "--output", str(video.with_suffix(".png"))])


def run_predict(model: Path, video: Path) -> None:
    from predict import predict

    predict([str(video), "--model", str(model)])


def open_space(model: Path, video: Path) -> None:
    pytest.importorskip("gradio")
    from app import Page

    Page(str(model))


def open_handler(model: Path, video: Path) -> None:
    EndpointHandler(str(model))


def train_on(model: Path, video: Path) -> None:
    build_model(RunArguments(data_dir=str(video.parent), model=str(model)), ["happy", "sad", "angry"])


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "timeline": run_timeline,
    "explain": run_explain,
    "predict.py": run_predict,
    "Space": open_space,
    "handler": open_handler,
    "train.py --model": train_on,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The damaged models by their damage."""
    home = tmp_path_factory.mktemp("models")
    saved = save_model(home / "whole")
    found = {how: damage(saved, home / how.replace(" ", "_"), how) for how in DAMAGES}
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForSequenceClassification(config).save_pretrained(home / "another_kind")
    return found | {"another kind": home / "another_kind"}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "film.mp4", scene("happy", "", seconds=1))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", REASONS)
def test_a_model_that_is_not_whole_is_refused_everywhere(how, place, folders, video, monkeypatch, capsys, caplog):
    """A head or a layer that was not loaded is random: rows with scores, exit status 0, all of it noise."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    if (how, place) == ("no head", "train.py --model"):
        PLACES[place](folders[how], video)
        assert "it is new, and must be trained before it answers" in caplog.text
        return
    with pytest.raises((ValueError, SystemExit)) as error:
        PLACES[place](folders[how], video)
    out, err = capsys.readouterr()
    if isinstance(error.value, SystemExit):
        assert error.value.code == 2
    said = err if isinstance(error.value, SystemExit) else str(error.value)
    assert str(folders[how]) in said and re.search(REASONS[how], said)
    assert out == "", "nothing answers"


def test_fine_tuning_says_what_it_replaces_and_what_it_may_destroy(folders, tmp_path, caplog):
    """A new head, and the learning rate for training from scratch, were taken without a word."""
    from modeling_stt.training import STTTrainingArguments
    from modeling_stt.training.start import warn_of_learning_rate

    run = RunArguments(data_dir=str(tmp_path), model=str(save_model(tmp_path / "trained")))
    model, _ = build_model(run, ["bored", "keen"])
    assert model.config.class_names == ["bored", "keen"]
    assert "its head is replaced by a new one with random weights" in caplog.text
    caplog.clear()
    build_model(run, ["sad", "angry", "happy"])
    warn_of_learning_rate(run, STTTrainingArguments(output_dir=str(tmp_path), learning_rate=0.001))
    assert caplog.text == ""
    warn_of_learning_rate(run, STTTrainingArguments(output_dir=str(tmp_path)))
    assert "the recipe's for training from scratch, may destroy what it knows" in caplog.text
