"""The README's Python runs and prints what it is said to print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_stt import DFEW_CLASSES

ROOT = Path(__file__).parents[1]


def _block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]


@pytest.mark.skipif(not (ROOT / "demo" / "compact" / "results.json").is_file(), reason="needs `make demo` first")
def test_python_of_the_readme_runs_after_the_demo() -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _block("python")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Trained on another machine, the model may think otherwise of the clip; all else is as printed in the README.
    shape = re.compile(r"(\S+\.mp4) \['(\w+) \d\.\d\d', '(\w+) \d\.\d\d'\]")
    printed, promised = shape.fullmatch(done.stdout.strip()), shape.fullmatch(_block("text").strip())
    assert printed and promised
    assert printed[1] == promised[1]
    assert {printed[2], printed[3]} <= set(DFEW_CLASSES)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", _block("bash"), re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
