"""What processes that a launcher started have in common, whether they train or read videos."""

import os
import signal
import sys
import threading
import time


def end_with_launcher() -> None:
    """End this process when the launcher that started it is gone: killed outright, it ends none of its own.

    They would go on unseen, or hold their GPUs and wait for each other. A thread looks every second, for it also can
    while a process waits for the others. Does nothing in a process that `accelerate launch` did not start as one of
    several.
    """
    import torch

    if not torch.distributed.is_torchelastic_launched():
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        try:
            print(f"The launcher of this process (PID {launcher}) is gone, so it ends as well.", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGTERM)  # who has something to put away does so
            time.sleep(5)
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
