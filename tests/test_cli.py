"""The ``stt`` command: what goes in and out, exit status included; what it calls is tested elsewhere."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from dataset_scripts import BUILDERS, dfew
from helpers import dfew_trees as trees
from modeling_stt import cli


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    """A small tree whose own counts stand for the published ones."""
    names = trees.CLASS_NAMES
    sides = {fold: trees.fold_members(trees.LABELS, fold) for fold in range(1, 6)}
    published = {
        f"fold_{fold}": {
            side: {name: sum(trees.LABELS[i] == 1 + names.index(name) for i in members) for name in names}
            for side, members in zip(("train", "test"), both, strict=True)
        }
        for fold, both in sides.items()
    }
    monkeypatch.setattr(dfew.DFEW, "PUBLISHED", published)
    monkeypatch.setattr(dfew, "NUM_SHORT_CLIPS", len(trees.IDS))
    return trees.write_dfew(tmp_path / "DFEW")


def test_stt_is_installed_as_a_command():
    [command] = entry_points(group="console_scripts", name="stt")
    assert command.load() is cli.main


def test_stt_runs_as_a_module(tmp_path):
    # Without an end of its own the module would do nothing and exit with 0, which passes for a good copy.
    command = [sys.executable, "-m", "modeling_stt.cli", "verify", "dfew", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(cli.__file__).parents[1], timeout=120)
    assert done.returncode == 1
    assert "There is no folder" in done.stdout


def test_verify_comparable_copy(tree, tmp_path, capsys):
    assert cli.main(["verify", "dfew", str(tree), "--json", str(tmp_path / "out" / "report.json")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"dfew in {tree}: fold_1 … fold_5\n")
    assert out.endswith("Numbers from this copy are comparable with papers.\n")
    assert err == ""  # no progress bar where nobody watches
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["comparable"] is True
    assert report["verdict"] in out
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "report.json"]


def test_verify_progress_bar_on_a_terminal(tree, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert cli.main(["verify", "dfew", str(tree)]) == 0
    out, err = capsys.readouterr()
    assert "42/42" in err
    assert "42/42" not in out


def test_verify_copy_that_is_not_comparable(tree, tmp_path, capsys):
    (tree / "Clip" / "clip_224x224" / "00001" / "00001_00001.jpg").write_bytes(b"")
    assert cli.main(["verify", "dfew", str(tree), "--json", str(tmp_path / "report.json")]) == 1
    assert "are empty files (00001_00001.jpg)" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["comparable"] is False


def test_verify_passes_options_on(tree, capsys):
    trees.write_16f(tree / "faces")
    arguments = ["--frames", "16f", "--clip_dir", "faces", "--label_base", "1", "--votes", "--deep"]
    assert cli.main(["verify", "dfew", str(tree), "--configuration", "fold_1", "fold_3", *arguments]) == 0
    out = capsys.readouterr().out
    assert "fold_1, fold_3, frames=16f, clip_dir=faces, votes=True, label_base=1\n" in out
    assert "all clips have 16 frames" in out


def test_verify_tree_that_cannot_be_opened_says_why_without_a_traceback(tmp_path, capsys):
    arguments = ["verify", "dfew", str(tmp_path / "nowhere"), "--json", str(tmp_path / "report.json")]
    assert cli.main(arguments) == 1
    assert "There is no folder" in capsys.readouterr().out
    [check] = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert check["outcome"] == "failed"
    assert "There is no folder" in check["text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["verfy"], "invalid choice: 'verfy'"),
        (["verify"], "required: SET"),
        (["verify", "dfow", "DFEW"], "invalid choice: 'dfow'"),
        (["verify", "dfew"], "required: DIR"),
        (["verify", "dfew", "DFEW", "--frames", "half"], "frames='half' is not one of"),
        (["verify", "dfew", "DFEW", "--label_base", "one"], "invalid int value: 'one'"),
        (["verify", "dfew", "DFEW", "--configuration", "fold_6"], "no configuration 'fold_6'"),
        (["verify", "dfew", "DFEW", "--missing", "skip"], "unrecognized arguments: --missing skip"),
    ],
)
def test_wrong_usage_exits_with_2_and_leaves_the_old_json(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text("old")
    if len(arguments) > 3:
        arguments = [*arguments, "--json", "report.json"]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "old"


def test_json_that_cannot_be_written(tree, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        cli.main(["verify", "dfew", str(tree), "--json", str(tmp_path / "file" / "report.json")])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert "comparable with papers" in out  # the work is not lost
    assert str(tmp_path / "file") in err


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_help_of_each_set_shows_its_own_options(name, capsys):
    """Options are taken from the configuration's fields, so a type that argparse cannot read shows here."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["verify", name, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--clip_dir" in out or "Attributes:" in out
    assert "--missing" not in out
    assert "--configuration" in out
