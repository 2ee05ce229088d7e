"""WAR and UAR as a metric of Hugging Face evaluate, offline."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import pytest

from modeling_stt.training import WAR_UAR_METRIC, score

NAMES = ["happy", "sad", "neutral"]
LABELS = [0, 0, 0, 1, 1, 2, 2, 0]
PREDICTIONS = [0, 1, 0, 1, 1, 0, 2, 0]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network at all: a look-up of a name would fail."""
    import socket

    def refuse(*args: object) -> None:
        raise AssertionError(f"network was asked for: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)


def _load(tmp_path: Path, **kwargs: object) -> evaluate.EvaluationModule:
    return evaluate.load(WAR_UAR_METRIC, cache_dir=str(tmp_path), **kwargs)


def test_it_gives_the_scores_of_metrics(tmp_path: Path) -> None:
    result = _load(tmp_path).compute(predictions=PREDICTIONS, references=LABELS, class_names=NAMES)
    assert result == score(LABELS, PREDICTIONS, NAMES).to_dict()


def test_it_takes_batches(tmp_path: Path) -> None:
    metric = _load(tmp_path)
    metric.add_batch(predictions=PREDICTIONS[:3], references=LABELS[:3])
    metric.add_batch(predictions=PREDICTIONS[3:], references=LABELS[3:])
    assert metric.compute(class_names=NAMES) == score(LABELS, PREDICTIONS, NAMES).to_dict()


def test_it_combines(tmp_path: Path) -> None:
    combined = evaluate.combine({"test": _load(tmp_path)}, force_prefix=True)
    result = combined.compute(predictions=PREDICTIONS, references=LABELS, class_names=NAMES)
    assert result["test_uar"] == score(LABELS, PREDICTIONS, NAMES).uar


def test_two_processes_give_the_scores_of_all_clips(tmp_path: Path) -> None:
    def run(process_id: int) -> dict | None:
        metric = _load(tmp_path, num_process=2, process_id=process_id, experiment_id="two")
        metric.add_batch(predictions=PREDICTIONS[process_id::2], references=LABELS[process_id::2])
        return metric.compute(class_names=NAMES)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert second is None
    assert first is not None and first["uar"] == score(LABELS, PREDICTIONS, NAMES).uar
    assert first["num_clips"] == len(LABELS)


def test_it_asks_for_the_class_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Name the classes"):
        _load(tmp_path).compute(predictions=[0], references=[0])
