"""A Prefect server and a worker, real ones, for tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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
DATABASE = "prefect.db"


@contextmanager
def prefect_server(home: Path, empty: Path) -> Iterator[str]:
    """A server with a copy of the database `empty` in `home`, which has none; the address of its API.

    Where `empty` is not there, this server makes its own, which takes 13 seconds, and leaves a copy there.
    """
    with empty.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if empty.exists():
            shutil.copyfile(empty, home / DATABASE)
            fcntl.flock(file, fcntl.LOCK_UN)
        with _server(home) as address:
            if not empty.exists():
                with closing(sqlite3.connect(home / DATABASE)) as made:
                    made.execute("VACUUM INTO ?", [str(empty)])
                fcntl.flock(file, fcntl.LOCK_UN)
            yield address


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """A server on the database in `home`, or on a new one."""
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
    """A worker that asks for work often; what kills it and all that it started, as happens at the end too."""
    command = [PYTHON, "-m", "prefect", "worker", "start", "--pool", "spring-pool"]
    often = {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    process = subprocess.Popen(command, cwd=folder, env=environment | often)

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
