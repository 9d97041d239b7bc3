"""Stages in processes of their own that start in no time: forks of this one, which has imported what is slow.

This process must not use polars, torch or tokenizers itself: their threads do not survive a fork. With DVC a
stage starts as everywhere, which takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
Stage = tuple[str, int | None]  # its name and period
BEFORE: tuple[Stage, ...] = tuple((name, None) for name in ("ingest", "split", "model", "score_base", "code"))


@dataclass
class Child:
    """A process, and the pipe that its words come through: a file would stop growing with the others."""

    pid: int
    pipe: int

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        """What it has printed; once, when it has ended."""
        with os.fdopen(self.pipe, encoding="utf-8", errors="replace") as words:
            return words.read()


def child(work: Callable[[], None], folder: Path) -> Child:
    """Begins `work` in a fork of this process, in `folder`."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 1
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        os.chdir(folder)
        torch.set_num_threads(1)
        work()
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def start(stage: Stage, folder: Path, *, limit: int | None = None) -> Child:
    """Begins a stage in `folder`; `limit`: bytes that no file may grow beyond."""
    name, period = stage

    def work() -> None:
        sys.argv = [name, *(["--period", str(period)] if period is not None else [])]
        module = import_module(f"tasks.{name}")
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if stage in BEFORE:
            module.main()
        else:
            os.environ["DVC_STAGE"] = f"{name}@{period}"
            import_module("tasks.stage").run(module.main)

    return child(work, folder)


def finish(process: Child) -> None:
    """Waits for what must end well."""
    if process.wait() != 0:
        raise RuntimeError(f"a stage failed without a fault:\n{process.said()[-3000:]}")


def dvc(folder: Path, *words: str) -> subprocess.Popen[str]:
    """DVC, the program, with stages of this code."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
