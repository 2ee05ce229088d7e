"""The environment of a run, for results.json: versions, code, git sha, hardware and command."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "av", "numpy")

# Facts of an environment that a run's numbers depend on. Machine, process, commit and command may differ between runs
# that are compared; a commit changes with every file of a checkout, the hash with the code of training alone.
CODE_FACTS = (*_PACKAGES, "sha256_of_code")


_SECRET = re.compile(r"^--?\w*(token|secret|password|key)$", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_\w{8,}")  # of the Hub


def describe_environment() -> dict[str, Any]:
    """Describe versions, git sha, hardware and command of this run, for results.json.

    `git_sha` is that of this package's own checkout, with `-dirty` behind it where files were changed, or None where
    the package was not installed from one. `sha256_of_code` is of the model's and the training's source files.
    Tokens and other secrets in the command are masked.
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "sha256_of_code": _hash_of_code(),
        "git_sha": _git_sha(),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "num_cpus": os.cpu_count(),
        "gpus": gpus,
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
        "command": _without_secrets(sys.argv),
    }


def _without_secrets(words: Sequence[str]) -> str:
    """Join the words of a command line, with the values of options such as `--hub_token` masked."""
    shown: list[str] = []
    for word in words:
        option, equals, _ = word.partition("=")
        if not equals and shown and _SECRET.search(shown[-1]) and not word.startswith("-"):
            shown.append("***")
        elif equals and _SECRET.search(option):
            shown.append(f"{option}=***")
        else:
            shown.append(_TOKEN.sub("***", word))
    return " ".join(shown)


@cache  # files may change during a run of days, which keeps the code that it has loaded
def _hash_of_code() -> str:
    training = Path(__file__).resolve().parent
    files = sorted([*training.glob("*.py"), *training.parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _git_sha() -> str | None:
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent:
        return None  # another repository, around an environment that the package is installed in
    return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
