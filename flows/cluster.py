"""Ray, begun once for all stages of a run instead of by each of them: where `execution.address` is null.

A process beside the run begins it when a stage first has something to compute (`ask_run` in
tasks/cells/cluster/nodes.py), and ends with the run, however that ends, `kill -9` too: its input is closed
then (child.py). Without it a stage begins one of its own.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.child import end_with_run
from flows.stages import started
from spring.settings.execution import Execution
from tasks.cells.cluster.nodes import SHARED, WANTED, begin_shared

MODE = "RAY_AUTH_MODE"  # whether Ray asks for a token: one that it begins on this machine does
LOOK = 0.1  # seconds between two looks whether a stage asks


@contextmanager
def shared_cluster(execution: Execution, place: Path) -> Iterator[None]:
    """Stages that are started inside the block, in the folder `place`, have one Ray for all of them."""
    if execution.engine != "ray" or execution.address is not None:
        yield
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        told({SHARED: folder} | of_its_own()),
        started([sys.executable, "-m", "flows.cluster", folder], place),
    ):
        yield


def of_its_own() -> dict[str, str]:
    """What lets the run and its stages into their cluster, and nobody else; unless it is settled how."""
    if MODE in os.environ:
        return {}
    return {MODE: "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def told(words: dict[str, str]) -> Iterator[None]:
    """Processes that are started inside the block have these variables."""
    before = {name: os.environ.get(name) for name in words}
    os.environ.update(words)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def keep(folder: Path) -> None:
    """Waits until a stage asks, begins, and stays."""
    threading.Thread(target=end_with_run, daemon=True).start()
    while not (folder / WANTED).exists():
        time.sleep(LOOK)
    begin_shared(folder)
    threading.Event().wait()


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
