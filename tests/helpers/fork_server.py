"""Python programs as forks of a process that has imported the slow libraries, which would take each of them 5 s.

A program is still a process of its own, with its own words, folder, environment, files and exit status. It imports our
modules itself; only other packages are there already. Programs that need those to be absent or new, for
example to measure imports or to set variables that are read at import, start Python themselves.

`ForkServer` starts the server, `ForkServer.run` runs a program. The programs of test_docs.py's folder bin/ call
`run_at`, so this file imports nothing that takes time.
"""

import atexit
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

SLOW = (
    *("torch", "torchvision.transforms.v2", "transformers.trainer", "transformers.pipelines", "datasets"),
    *("accelerate.commands.accelerate_cli", "pandas", "matplotlib.pyplot", "scipy.optimize", "av"),
)
ADDRESS = "FORK_SERVER"  # the variable that names the server to the programs of bin/


class ForkServer:
    """A server, in a process of its own that ends with this one.

    Args:
        environment: Variables of the server, which the slow libraries read when they are imported.
        modules: What it imports.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = SLOW) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.address = os.path.join(self.folder.name, "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen(64)
            command = [sys.executable, __file__, str(listening.fileno()), *modules]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
                env=environment,
            )

    def run(
        self,
        words: Sequence[str],
        folder: str | os.PathLike,
        environment: Mapping[str, str],
        text: str = "",
        timeout: float = 300,
        merged: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python` with these words to its end; `text` is its standard input.

        Raises:
            subprocess.TimeoutExpired: For a program that was killed after `timeout` seconds.
        """
        with ExitStack() as stack:
            given, out, errors = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            given.write(text)
            given.seek(0)
            files = (given, out, out if merged else errors)
            status = run_at(self.address, words, folder, environment, files, timeout=timeout)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(["python", *words], status, out.read(), errors.read())

    def close(self) -> None:
        """End the server."""
        self.process.communicate()
        self.folder.cleanup()


def run_at(
    address: str,
    words: Sequence[str],
    folder: str | os.PathLike,
    environment: Mapping[str, str],
    files: Sequence[IO[Any]],
    executable: str = sys.executable,
    timeout: float | None = None,
) -> int:
    """Run `python` with these words by the server at an address; return the exit status, negative for a signal.

    Args:
        address: Of the server's socket.
        words: A script, `-m` and a module, or `-c` and code, and the program's arguments.
        folder: Where it runs.
        environment: Its variables.
        files: Its standard input, output and error.
        executable: Its `sys.executable`.
        timeout: Seconds after which it is killed.
    """
    request = {"words": list(words), "folder": os.fspath(folder), "environment": dict(environment)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        socket.send_fds(connection, [b"3"], [file.fileno() for file in files])
        connection.sendall(json.dumps(request | {"executable": executable}).encode() + b"\n")
        try:
            answer = connection.makefile().readline()
        except TimeoutError as error:
            raise subprocess.TimeoutExpired(["python", *words], timeout or 0) from error
    return int(answer)


def serve(listening: socket.socket, modules: Sequence[str]) -> None:
    """Import modules, and fork a process for every program, until standard input ends."""
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    while True:
        with suppress(ChildProcessError):  # have those that ended forgotten
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run the program that is asked for, in a fork, and send its exit status; kill it if nobody waits any more."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    program = os.fork()
    if not program:
        become(files, **request)
    while not (ended := os.waitpid(program, os.WNOHANG))[0]:
        if select.select([connection], [], [], 0.02)[0]:  # it was closed
            os.kill(program, signal.SIGKILL)
    with suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
    os._exit(0)


def become(
    files: Sequence[int], words: list[str], folder: str, environment: dict[str, str], executable: str
) -> NoReturn:
    """Turn this process into the program, as `python` with these words would."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    sys.executable = executable
    status = 1
    try:
        execute(words, folder)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    # Python would now take apart all that is imported, which takes a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def execute(words: list[str], folder: str) -> None:
    """Execute a script, a module or code as the main program."""
    place, *rest = words
    if place == "-m":
        sys.path[0], sys.argv = folder, rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif place == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[0], sys.argv = str(Path(place).resolve().parent), words
        runpy.run_path(place, run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
