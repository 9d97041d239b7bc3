"""How far a long stage is, told to W&B while it runs: through a pipe to a process of its own.

The process (tasks/tracking/live.py) starts when something has been computed for `PATIENCE` seconds: a stage
that finds its cells costs nothing, and one that waits for a network is never held up. Nothing here is W&B's,
and no cell depends on it: what follows a computation must not change its key.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spring.store.keys import fingerprint

if TYPE_CHECKING:
    from spring.settings.params import Params

STAGE = "DVC_STAGE"  # DVC's variable: which stage a process is of, as adapt@1
PATIENCE = 15.0  # seconds of computing before anybody is told
EVERY = 2.0  # seconds between two messages
LOG = Path("wandb/live.log")  # what that process could not do
_open: list[Teller] = []  # of this process


class Teller:
    """Passes on what a filling tells (tasks/cells/fill.py), now and then; told too much, it forgets."""

    def __init__(self, params: Params, address: str) -> None:
        self.run = describe(params, address)
        self.latest: dict[str, Any] = {}
        self.began = self.told = 0.0
        self.pipe: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        """Takes news of a filling: `what`, `unit`, `done`, `of`, and in training `loss`."""
        if not self.lock.acquire(blocking=False):  # another thread is telling
            return
        try:
            same = event["what"] == self.latest.get("what")
            self.latest = self.latest | event if same else event
            now = time.monotonic()
            self.began = self.began or now
            due = now - self.told >= EVERY or event["done"] >= event["of"]
            if due and now - self.began >= PATIENCE:
                self.told = now
                self.send(self.latest)
        finally:
            self.lock.release()

    def send(self, message: dict[str, Any]) -> None:
        """Writes a line to the process, started for the first one; what it has no room for is lost."""
        if self.process is None:
            self.process = start()
            assert self.process.stdin is not None
            self.pipe = self.process.stdin.fileno()
            os.set_blocking(self.pipe, False)
            _open.append(self)
            self.send(self.run)
        if self.pipe is None:
            return
        try:
            os.write(self.pipe, json.dumps(message).encode() + b"\n")
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it has ended, and its log says why
            self.pipe = None


def teller(params: Params) -> Teller | None:
    """Who tells W&B of the stage that this process is; null: nobody does."""
    address = os.environ.get(STAGE)
    return Teller(params, address) if address and params.tracking.mode != "disabled" else None


def finished() -> None:
    """The stage has done what it should: without this its run ends as failed."""
    for one in _open:
        one.send({"finished": True})


def describe(params: Params, address: str) -> dict[str, Any]:
    """What the process is told first: how to reach W&B, and which run it is."""
    shaping = params.model_dump(mode="json", exclude={"report", "tracking"})
    named = ("seed", "suite", "experiment")
    id = f"{params.experiment}-{params.seed}-{address.replace('@', '-')}-{fingerprint(shaping)}"
    return {
        "tracking": params.tracking.model_dump(mode="json"),
        "id": id,
        "name": f"{address}/{params.seed}",
        "group": params.suite,
        "job_type": "stage",
        "config": {"stage": address, **{name: shaping[name] for name in named}},
    }


def start() -> subprocess.Popen[bytes]:
    """The process that reads the pipe; it outlives this one by as long as W&B takes."""
    LOG.parent.mkdir(exist_ok=True)
    paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with LOG.open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.tracking.live"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # who reads this process's output must not wait for that one
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
