"""Code blocks of the documentation and their execution.

The first word of a block is its language. ```` ```python ```` and ```` ```bash ```` run in the order of the page, all
Python of a page in one process, as in a notebook. Words after the language change that:

    not-run="why"     the block is only shown: it needs several machines, a GPU, a network, hours
    needs=openvino    the block is left out if one of these modules or programs is not installed
    without=torch,av  (Python) the block runs in a separate process that cannot import these
    exit=1            (bash) its commands end with this status or 0, as `stt verify` on the small data of tests

Blocks of other languages (SHOWN) are output or input of a program.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.fork_server import ADDRESS, SLOW, ForkServer
from helpers.programs import ROOT

RUN = ("python", "bash")
SHOWN = ("text", "json", "yaml", "csv", "bibtex")

# Program that runs the blocks of a page. Tracebacks name the page and its lines.
NOTEBOOK = """
import json, subprocess, sys

names = {"__name__": "__main__"}
for page, line, language, code in json.load(sys.stdin):
    print(f"--- {page}:{line}", flush=True)
    if language == "bash":
        subprocess.run(["bash", "-uo", "pipefail", "-c", code], check=True, stdin=subprocess.DEVNULL)
    elif language == "alone":
        subprocess.run([sys.executable, "-c", code], check=True)
    else:
        exec(compile("\\n" * line + code, page, "exec"), names)
    sys.stdout.flush()
"""

# Precedes a block of commands: the first one with another exit status ends the block.
STOP = """
trap 'status=$?; [ $status = {exit} ] || exit $status' ERR
"""

# Precedes a block: these modules cannot be imported, as if they were not installed.
BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


class Block(NamedTuple):
    """A code block of a page; `line` is that of its fence."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str
    needs: list[str]
    without: list[str]
    exit: int

    def is_run(self) -> bool:
        return self.language in RUN and not self.not_run

    def missing(self) -> list[str]:
        """Modules and programs that the block needs and that are not installed."""
        return [name for name in self.needs if not (importlib.util.find_spec(name) or shutil.which(name))]


def read_blocks(page: Path) -> list[Block]:
    """Read all code blocks of a page, in order; unknown words after a language are refused."""
    blocks = []
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        language, *rest = shlex.split(found[2]) or [""]
        words = dict(word.split("=", 1) if "=" in word else (word, "") for word in rest)
        known = {"not-run", "needs", {"python": "without", "bash": "exit"}.get(language)}
        assert set(words) <= known, f"{page.name}:{line}: ```{found[2]}"
        needs, without = (words[key].split(",") if key in words else [] for key in ("needs", "without"))
        blocks.append(
            Block(
                page=page,
                line=line,
                language=language,
                code=textwrap.dedent(found[3]),
                not_run=words.get("not-run", ""),
                needs=needs,
                without=without,
                exit=int(words.get("exit", 0)),
            )
        )
    return blocks


def run_blocks(
    blocks: list[Block], folder: Path, timeout: float = 1200, modules: Sequence[str] = SLOW, **variables: str
) -> str:
    """Run blocks of one page one after the other in a folder; returns their output.

    Programs of `folder/bin` are found first. `variables` are added to the environment of this process. `modules` are
    imported only once, for all blocks. If a block fails, an AssertionError contains the end of the output.
    """
    pieces = []
    for block in blocks:
        language, code = block.language, block.code
        if language == "bash":
            code = STOP.format(exit=block.exit) + code + "true\n"
        elif block.without:
            language, code = "alone", BLOCKED.format(names=block.without) + code
        pieces.append((str(block.page), block.line, language, code))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "huggingface"), "OMP_NUM_THREADS": "1"}
    environment |= variables
    environment["PATH"] = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    server = ForkServer(environment, modules)
    try:
        environment |= {ADDRESS: server.address}
        done = server.run(["-c", NOTEBOOK], folder, environment, json.dumps(pieces), timeout, merged=True)
    finally:
        server.close()
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def skip_without_exporters() -> None:
    """Skip if the exporters of transformers, or their requirements, are missing or too old."""
    exporters = pytest.importorskip("transformers.exporters")
    pytest.importorskip("onnxruntime")
    try:
        exporters.OnnxExporter()
    except ImportError as error:
        pytest.skip(str(error))
