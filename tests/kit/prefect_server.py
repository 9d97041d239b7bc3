"""A Prefect server and a worker, real ones, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_UI_STATIC_DIRECTORY,
    temporary_settings,
)

from flows.prepare import wait_for_server

ROOT, PYTHON = Path(__file__).parents[2], sys.executable


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A server with an empty database in `home`; the address of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"http://127.0.0.1:{port}/api"
    settings = {PREFECT_API_URL: address, PREFECT_HOME: home}
    settings |= {PREFECT_SERVER_UI_STATIC_DIRECTORY: str(home / "ui")}
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_API_PORT": port, "PREFECT_API_URL": address}
    own |= {"PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"), "DO_NOT_TRACK": "1"}
    command = [PYTHON, "-m", "prefect", "server", "start"]
    process = subprocess.Popen(command, env={**os.environ, **own}, start_new_session=True, cwd=ROOT)
    try:
        assert wait_for_server(address, 90)
        with temporary_settings(settings), pytest.MonkeyPatch.context() as patch:
            for name, value in own.items():
                patch.setenv(name, value)
            yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def becomes(true: Callable[[], bool], patience: float) -> bool:
    """Whether something is so before `patience` seconds are over."""
    until = time.monotonic() + patience
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.3)
    return True


@contextmanager
def worker(folder: Path, environment: dict[str, str]) -> Iterator[Callable[[], None]]:
    """A worker; what kills it and all that it started, as happens at the end too."""
    command = [PYTHON, "-m", "prefect", "worker", "start", "--pool", "spring-pool"]
    process = subprocess.Popen(command, cwd=folder, env=environment)

    def kill() -> None:
        if process.poll() is None:
            for one in [process.pid, *descendants(process.pid)]:
                os.kill(one, signal.SIGKILL)
            process.wait()

    try:
        yield kill
    finally:
        kill()


def descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text(encoding="utf-8").split()]
    return [each for child in children for each in [child, *descendants(child)]]
