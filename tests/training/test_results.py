"""results.json is whole or absent, and pictures are drawn."""

import json
import subprocess
from pathlib import Path

import pytest

from modeling_stt.training import results
from modeling_stt.training.results import describe_environment, plot_confusion_matrix, write_results


def test_numbers_that_json_cannot_hold_leave_the_old_file(tmp_path: Path) -> None:
    path = write_results(tmp_path / "run" / "results.json", {"war": 0.5, "names": ["é"]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, {"war": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"war": 0.5, "names": ["é"]}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_environment_names_versions_and_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = describe_environment()
    assert environment["torch"] and environment["num_cpus"] >= 1 and environment["num_processes"] == 1
    monkeypatch.setattr(
        results, "__file__", str(Path(results.__file__).parents[2] / "venv/lib/stt/training/results.py")
    )
    assert describe_environment()["git_sha"] is None, "the sha of a repository around an installed copy is not ours"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert describe_environment()["git_sha"] is None, "a machine without git has no sha, and no crash"


def test_confusion_matrix_is_drawn_also_with_an_absent_class(tmp_path: Path) -> None:
    path = plot_confusion_matrix([[3, 1], [0, 0]], ["happy", "sad"], tmp_path / "pictures" / "c.png", "WAR 75")
    assert path.read_bytes().startswith(b"\x89PNG")
