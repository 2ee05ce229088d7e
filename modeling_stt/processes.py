"""Programs that run alone or as one of several processes: training, cross-validation, reading videos."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MEETING_S = 600.0  # seconds within which the processes of one launch find each other

_PACKAGE = Path(__file__).resolve().parent
_watching = threading.Event()


def end_with_launcher(meeting_s: float = MEETING_S) -> None:
    """End this process when its launcher is gone: a launcher that is killed outright ends none of its workers.

    Such workers would train on unnoticed, or hold their GPUs and wait for each other. A daemon thread checks once a
    second, even while the process waits for the others. Call this before imports that take seconds, so that a launcher
    that is killed meanwhile is noticed. A worker that started too late even for that ends if it has not joined the
    others after `meeting_s` seconds. Does nothing in a process that `accelerate launch` did not start as one of
    several, and nothing when called again.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or _watching.is_set():
        return
    _watching.set()
    launcher, deadline = os.getppid(), time.monotonic() + meeting_s

    def watch() -> None:
        while (reason := _reason_to_end(launcher, deadline)) is None:
            time.sleep(1)
        try:
            print(reason, file=sys.stderr)
            os.kill(os.getpid(), signal.SIGTERM)  # so that unfinished work can be put away
            time.sleep(5)
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reason_to_end(launcher: int, deadline: float) -> str | None:
    if os.getppid() != launcher:
        return f"The launcher of this process (PID {launcher}) is gone, so it ends as well."
    if time.monotonic() > deadline and not _have_met():
        return "The other processes did not join this one in time, so it ends. Start all of them again."
    return None


def _have_met() -> bool:
    distributed = sys.modules.get("torch.distributed")  # not imported here: that takes seconds
    return distributed is not None and distributed.is_initialized()


def run_program(program: Callable[[Sequence[str]], object]) -> None:
    """Run a function of the command-line arguments as a program, in one process or as one of several.

    Errors that this package raises itself (an output folder in use, missing data) end the program with their message
    alone; errors from elsewhere keep their traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    end_with_launcher()
    try:
        program(sys.argv[1:])
    except (OSError, ValueError) as error:
        if not _is_refusal(error):
            raise
        raise SystemExit(str(error)) from error
    if _have_met():
        import torch

        # Without this, gloo's threads occasionally abort a process that has finished its work.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _is_refusal(error: BaseException) -> bool:
    """Check if this package or `dataset_scripts` raised the error itself, and not a library that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = Path(trace.tb_frame.f_code.co_filename).resolve() if trace else Path()
    return _PACKAGE in file.parents or _PACKAGE.with_name("dataset_scripts") in file.parents
