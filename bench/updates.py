"""What becomes of a live project whose updates are killed: `python -m bench.faults --kinds update`.

A small live project with two closed weeks (bench/live.py) is updated undisturbed: a file of a third week,
rows added to one that was taken, a file with other columns. Then again and again from the same state, killed
at a random moment, or shortly after a line that it printed, or while DVC writes dvc.lock, and run until it
ends well. What must hold: the same ledger, the same bytes in data/, one version more, what somebody had
staged still staged.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from tqdm import tqdm

from bench.live import (
    BATCHES,
    START,
    WEEK,
    call,
    environment,
    make_live,
    rest,
    state,
    told,
    update_command,
    write_batch,
)
from bench.tiny import save_tiny

MOST = 3  # attempts after which an update has not recovered
SOON = 1.0  # seconds after a line, in which updates are killed
WRITINGS = 6  # of dvc.lock in an update, at least
NOW = START + 3 * WEEK + timedelta(hours=2)


@dataclass
class Running:
    """An update at work, and when it printed each line."""

    process: subprocess.Popen[str]
    began: float
    lines: list[tuple[float, str]]  # seconds since it began
    reader: Thread

    @property
    def pid(self) -> int | None:
        """The process of the update, which may be a child of what was started; null: it has not begun."""
        return int(self.lines[0][1]) if self.lines else None

    def wait(self) -> int:
        """Its exit status."""
        ended = self.process.wait()
        self.reader.join()
        return ended

    def kill(self) -> bool:
        """Kills it with its group, where it leads one; whether it was still there."""
        if self.process.poll() is not None:
            return False
        pid = self.pid or self.process.pid
        os.killpg(pid, signal.SIGKILL) if os.getpgid(pid) == pid else os.kill(pid, signal.SIGKILL)
        return self.wait() != 0


def begin(folder: Path, python: str) -> Running:
    """Starts an update."""
    process = subprocess.Popen(
        update_command(NOW, python),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[tuple[float, str]] = []
    began = time.perf_counter()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.perf_counter() - began, line.rstrip()))

    reader = Thread(target=read, daemon=True)
    reader.start()
    return Running(process, began, lines, reader)


def prepare(folder: Path, python: str) -> None:
    """A live project of two closed weeks, with news in its inbox and a file that somebody has staged."""
    save_tiny(folder.parent / "tiny")
    make_live(folder, folder.parent / "tiny", python=python)
    inbox = folder / "inbox"
    for week in (0, 1):
        write_batch(inbox / f"week-{week}.jsonl", week, BATCHES[week])
    for week in (0, 1):
        call(update_command(START + (week + 1) * WEEK + timedelta(hours=2), python), folder)
    write_batch(inbox / "week-2.jsonl", 2, BATCHES[2])
    grown = (inbox / "week-1.jsonl").read_text(encoding="utf-8")
    late = {"who": "dee", "id": "late", "when": "2024-01-09", "subject": "late", "body": "the old lamp"}
    rest(inbox / "week-1.jsonl", f"{grown}{json.dumps(late)}\n")
    rest(inbox / "strange.csv", "name,words\nann,good\n")
    (folder / "notes.txt").write_text("of somebody else\n", encoding="utf-8")
    call(["git", "add", "notes.txt"], folder)


def result(folder: Path) -> dict[str, Any]:
    """What must be the same, whatever happened on the way."""
    return {
        "ledger": told(folder),
        "files": state(folder),
        "versions": call(["git", "log", "--format=%s"], folder),
        "committed": call(["git", "show", "--format=", "--name-only", "HEAD"], folder),
        "status": call(["git", "status", "--porcelain"], folder),
        "params": (folder / "params.yaml").read_text(encoding="utf-8"),
        "page": (folder / "live/pages/00003.html").is_file(),
    }


def kill(running: Running, whole: list[float], chance: random.Random, lock: Path) -> bool:
    """Kills an update at some moment; whether it was at work. `whole`: when one prints its lines."""
    moment = chance.choice(("any", "any", "line", "line", "lock"))
    if moment == "any":
        time.sleep(chance.uniform(0, whole[-1]))
    elif moment == "line":
        after = chance.randrange(len(whole))
        while len(running.lines) <= after and running.process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, SOON))
    else:
        await_writing(lock, chance.randint(1, WRITINGS), running.process)
    return running.kill()


def await_writing(lock: Path, times: int, process: subprocess.Popen[str]) -> None:
    """Until a file has become smaller so often: it is being written anew."""
    size = lock.stat().st_size
    while times and process.poll() is None:
        now = lock.stat().st_size
        times -= now < size
        size = now


def strike(folder: Path, *, tries: int, seed: int, python: str = sys.executable) -> dict[str, Any]:
    """How often an update was killed, what came of it, and how many runs it needed."""
    home, before, chance = folder / "home", folder / "before", random.Random(seed)
    prepare(home, python)
    shutil.copytree(home, before, symlinks=True)
    undisturbed = begin(home, python)
    if undisturbed.wait() != 0:
        raise RuntimeError(f"an update failed without a fault: {undisturbed.lines}")
    whole = [*(at for at, _ in undisturbed.lines), time.perf_counter() - undisturbed.began]
    expected = result(home)
    ends, attempts, wrong = Counter[str](), 0, 0
    for _ in tqdm(range(tries), desc="update", unit="try"):
        shutil.rmtree(home)
        shutil.copytree(before, home, symlinks=True)
        ends["killed" if kill(begin(home, python), whole, chance, home / "dvc.lock") else "too late"] += 1
        needed, said = 1, begin(home, python)
        while said.wait() != 0 and needed < MOST:
            needed, said = needed + 1, begin(home, python)
        found = result(home)
        if found != expected:
            wrong += 1
            tqdm.write(f"{said.lines[-3:]}: {[name for name in expected if found[name] != expected[name]]}")
        attempts = max(attempts, needed)
    return {"tries": tries, "ends": dict(ends), "most_attempts": attempts, "wrong": wrong}
