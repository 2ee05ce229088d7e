"""The examples as programs."""

import atexit
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from helpers.fork_server import ForkServer

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, offline, on one thread; with options of its own (`-I`), as a new process."""
    words = [str(word) for word in command]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    if words[0].startswith("-") and words[0] not in ("-m", "-c"):
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300
        )
    return _server().run(words, cwd, environment)


@cache
def _server() -> ForkServer:
    server = ForkServer(ENVIRONMENT)
    atexit.register(server.close)
    return server
