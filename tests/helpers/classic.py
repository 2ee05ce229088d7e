"""Builders as loading scripts of datasets 3, in the Python that STT_DATASETS3_PYTHON names."""

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

PYTHON = os.environ.get("STT_DATASETS3_PYTHON")
NEEDS_DATASETS3 = pytest.mark.skipif(not PYTHON, reason="STT_DATASETS3_PYTHON names no Python that has datasets 3")

# Rows prepared in one process, in two, and streamed must be the same.
PROGRAM = """
import datasets, json, sys
script, name, root, options = sys.argv[1:]
name, options = json.loads(name), json.loads(options)
def load(**more):
    return datasets.load_dataset(
        script, name, data_dir=root, cache_dir="classic", trust_remote_code=True, **options, **more
    )
prepared = load()
splits = {side: list(rows) for side, rows in prepared.items()}
parallel = {side: list(rows) for side, rows in load(num_proc=2, download_mode="force_redownload").items()}
stream = {side: list(rows) for side, rows in load(streaming=True).items()}
assert splits == parallel == stream
print(json.dumps([datasets.__version__, splits, prepared["train"].features["label"].names]))
"""


class Classic(NamedTuple):
    """Data read by datasets 3: split → rows, and the names of the labels."""

    splits: dict[str, list[dict[str, Any]]]
    class_names: list[str]


def load_classic(module: ModuleType, root: str | Path, home: Path, name: str | None = None, **options: Any) -> Classic:
    """Load a data set by its builder's file.

    Args:
        module: the builder's.
        root: data_dir; a relative one counts from ``home``.
        home: working folder, in which datasets 3 keeps its caches.
        name: the configuration.
        **options: the configuration's.
    """
    command = [str(PYTHON), "-c", PROGRAM, str(module.__file__), json.dumps(name), str(root), json.dumps(options)]
    environment = {**os.environ, "HF_HOME": str(home / "home"), "PYTHONPATH": ""}
    run = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    version, splits, class_names = json.loads(run.stdout)
    assert version.startswith("3.")
    return Classic(splits, class_names)
