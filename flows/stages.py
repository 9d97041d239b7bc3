"""The stages of dvc.yaml, one DVC command each, in a folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO

LAST_LINES = 15  # of a failed stage, in the message of its task
GRACE = 10  # seconds that a stage has to end after being asked to
CHILD = Path(__file__).with_name("child.py")


class StageError(RuntimeError):
    """DVC or a stage did not end well; the message holds the last lines and says what to do."""


def stages_in_order(folder: Path = Path()) -> dict[str, list[str]]:
    """Every stage of the project in `folder` with the stages it needs, each after those: `dvc dag`."""
    command = [sys.executable, "-m", "dvc", "dag", "--dot"]
    drawn = subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True)
    if drawn.returncode != 0:
        raise StageError(f"DVC cannot read the stages of dvc.yaml:\n{drawn.stderr.strip()}")
    needs: dict[str, list[str]] = {}
    for first, second in re.findall(r'^"([^"]+)"(?: -> "([^"]+)")?;$', drawn.stdout, flags=re.MULTILINE):
        needs.setdefault(first, [])
        if second:
            needs.setdefault(second, []).append(first)
    return {stage: needs[stage] for stage in TopologicalSorter(needs).static_order()}


def reproduce(stage: str, folder: Path, hear: Callable[[str], None]) -> None:
    """Runs one stage if it is out of date, its lines going to `hear`; raises `StageError` if it fails.

    `--single-item`: what it needs was brought up to date before it, and need not be checked once more.
    """
    repro = [sys.executable, str(CHILD), "--wait-for-lock", "repro", "--single-item", stage]
    remedy = (
        f"Mend the cause and start the flow again, or try this stage alone: cd {folder} && "
        f"dvc repro --single-item {stage}"
    )
    follow(repro, folder, hear, what=f"Stage {stage}", remedy=remedy)


def follow(command: list[str], folder: Path, hear: Callable[[str], None], *, what: str, remedy: str) -> None:
    """Runs a command, which ends with this process, its lines going to `hear`; `StageError` if it fails."""
    last, code = _follow(command, folder, hear)
    if code != 0:
        raise StageError(
            f"{what} failed (exit code {code}). Its last lines:\n  " + "\n  ".join(last) + "\n"
            f"{why_killed(code, last)}What was finished is kept. {remedy}"
        )


def _follow(command: list[str], folder: Path, hear: Callable[[str], None]) -> tuple[list[str], int]:
    last = deque[str](maxlen=LAST_LINES)
    with started(command, folder) as process:
        assert process.stdout is not None
        for line in lines(process.stdout):
            hear(line)
            last.append(line)
        return list(last), process.wait()


def why_killed(code: int, last: Iterable[str]) -> str:
    """A line for a stage that the system ended (SIGKILL: -9, in a shell's words 137); else nothing.

    DVC's own code is 255 then; the stage's stands in what DVC says.
    """
    said = re.search(r"exited with (-9|137)\b", "\n".join(last))
    if code not in (-9, 137) and not said:
        return ""
    return "It was killed, most likely for memory: lower model.memory_gb, or end other programs.\n"


def environment() -> dict[str, str]:
    """That of this process, so changed that stages find the same Python and their output is not held back."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which ends with the block: after a timeout, Ctrl-C or cancellation."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,  # closed when this process is gone: child.py
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert process.stdin is not None
        process.stdin.close()


def lines(output: IO[str]) -> Iterator[str]:
    """Lines with something on them."""
    return (line.rstrip() for line in output if line.strip())
