"""DVC, started by a flow run, which ends when that is gone: nobody would take its result any more.

A run holds the other end of this process's input, which is closed however the run ends, `kill -9` too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def end_with_run() -> None:
    """Ends this process, and its group where it leads one, once the input is closed."""
    while os.read(0, 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    os._exit(1)


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # as `python -m dvc` has it
    from dvc.cli import main

    threading.Thread(target=end_with_run, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
