"""Programs end with their launcher, and refuse in one line; see tests/training/test_processes.py for trainings."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.programs import ROOT

LONELY = "from modeling_stt.processes import end_with_launcher; end_with_launcher({}); import time; time.sleep(60)"


def _worker(*command: str) -> subprocess.Popen[str]:
    """A process that believes to be one of several of a launcher, which is this process."""
    variables = {"TORCHELASTIC_RUN_ID": "none", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *command], env=os.environ | variables, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_a_worker_that_never_meets_the_others_ends() -> None:
    """Its launcher may have been killed before it could watch it; the first meeting then waited for ever."""
    with _worker("-c", LONELY.format("0.5")) as worker:
        _, error = worker.communicate(timeout=40)
    assert worker.returncode != 0
    assert "did not join this one in time" in error


def test_a_worker_watches_its_launcher_before_the_imports_that_take_seconds(tmp_path: Path) -> None:
    """A launcher killed within its first second left its workers for ever."""
    pid_file = tmp_path / "pid"
    launcher = (
        "import os, subprocess, sys\n"
        "worker = subprocess.Popen([sys.executable, 'examples/train.py', '--help'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(worker.pid))\n"
        "worker.wait()\n"
    )
    # In place of torch, which takes seconds to import, a module that takes for ever.
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(120)\n")
    variables = {"TORCHELASTIC_RUN_ID": "none", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        [sys.executable, "-c", launcher], env=os.environ | variables, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as started:
        while not pid_file.is_file() or not pid_file.read_text():
            time.sleep(0.05)
        time.sleep(2)  # Python starts, and is at the import
        started.kill()
        _, error = started.communicate(timeout=40)  # until the worker has closed its stderr
    assert f"The launcher of this process (PID {started.pid}) is gone" in error


@pytest.mark.parametrize(
    ("raising", "is_refused"),
    [
        ("from modeling_stt.training.protocol import FoldProtocol; FoldProtocol(selection='best')", True),
        ("int('seven')", False),
    ],
)
def test_refusals_are_one_line_and_other_errors_keep_their_traceback(raising: str, is_refused: bool) -> None:
    program = (
        f"from modeling_stt.processes import run_program\ndef program(words):\n    {raising}\nrun_program(program)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False, timeout=200
    )
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) != is_refused
    assert ("selection='best'" if is_refused else "seven") in done.stderr.splitlines()[-1]
