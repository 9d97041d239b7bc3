"""Builds of the project: a commit in a worktree of its own, and its experiment run from nothing.

An experiment is one `dvc repro` in the build's own worktree, and a stage lasts from the line in which DVC
says that it runs to the next such line. So every build runs as its own dvc.yaml says, whatever stages,
periods and arguments that has, and what DVC does around a stage counts: it is what a newcomer waits for. A
worktree has no remote, no cache and no cells; each run has a new one, removed afterwards.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from bench.machine import MEGABYTE
from flows.stages import LAST_LINES

PARAMS = "params.yaml"
RUNS = re.compile(r"^Running stage '([^']+)'")
PLAIN = {  # what `make repro` sets
    "DO_NOT_TRACK": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}
IMPORTED = "import spring, tasks; print(spring.__file__, tasks.__file__, sep='\\n')"
Tree = dict[str, Any]


class BuildError(RuntimeError):
    """A build that cannot be run; the message says why."""


@dataclass(frozen=True)
class Build:
    """A commit of this repository."""

    name: str  # as it was asked for
    commit: str


@dataclass(frozen=True)
class Run:
    """One experiment from nothing: seconds of every stage and of all, peak memory, and its metrics."""

    stages: dict[str, float]
    seconds: float
    peak_mb: float
    metrics: Tree


def git(*words: str) -> str:
    """What git answers; `BuildError` where it refuses."""
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def find(name: str) -> Build:
    """The commit that a name stands for."""
    return Build(name, git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"))


def params_of(build: Build) -> Tree:
    """The build's own parameters."""
    tree: Tree = yaml.safe_load(git("show", f"{build.commit}:{PARAMS}"))
    return tree


def count_stages(build: Build, tree: Tree) -> int:
    """How many stages the build runs with parameters `tree`."""
    stages = yaml.safe_load(git("show", f"{build.commit}:dvc.yaml"))["stages"].values()
    lists = [re.fullmatch(r"\$\{(\w+)\}", str(stage.get("foreach"))) for stage in stages]
    return sum(len(tree[found[1]]) if found else 1 for found in lists)


@contextmanager
def worktree(build: Build) -> Iterator[Path]:
    """The build in a temporary folder, without what earlier runs left in the repository."""
    with tempfile.TemporaryDirectory(prefix="spring-against-") as parent:
        folder = Path(parent) / "build"
        try:
            git("worktree", "add", "--quiet", "--detach", str(folder), build.commit)
            for left in ("dvc.lock", "data/metrics.json"):
                (folder / left).unlink(missing_ok=True)
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], capture_output=True)
            subprocess.run(["git", "worktree", "prune"], capture_output=True)


def environment(folder: Path) -> dict[str, str]:
    """This Python and its packages, but the code in `folder`: this checkout may be installed as editable."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "SPRING_", "PYTHON"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    caches = {"DVC_SITE_CACHE_DIR": str(folder.parent / "dvc")}
    return {**own, **PLAIN, **caches, "PATH": path, "PYTHONPATH": str(folder)}


def check_code(folder: Path) -> None:
    """`BuildError` unless stages in `folder` import the code that lies there."""
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    places = done.stdout.split("\n")[:2]
    if done.returncode or not all(Path(place).is_relative_to(folder.resolve()) for place in places):
        raise BuildError(f"in {folder} other code is imported than lies there: {done.stdout}{done.stderr}")


def run(build: Build, tree: Tree, hear: Callable[[str], object]) -> Run:
    """The build's experiment with parameters `tree`; `hear` is told of every stage that begins."""
    with worktree(build) as folder:
        (folder / PARAMS).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        check_code(folder)
        stages, seconds, peak = repro(folder, hear)
        metrics: Tree = json.loads((folder / "data/metrics.json").read_text(encoding="utf-8"))
    return Run(stages, seconds, peak, metrics)


def repro(folder: Path, hear: Callable[[str], object]) -> tuple[dict[str, float], float, float]:
    """`dvc repro`: seconds by stage (`dvc`: before the first), all seconds, peak memory of a process (MB)."""
    began = last = perf_counter()
    name, found, said = "dvc", dict[str, float](), deque[str](maxlen=LAST_LINES)
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line)
            if begins := RUNS.match(line):
                now = perf_counter()
                found[name], name, last = now - last, begins[1], now
                hear(name)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # an interrupted measurement keeps nothing
            process.wait()
    ended = perf_counter()
    found[name] = ended - last
    if process.returncode:
        raise BuildError(f"{name} failed in {folder}:\n{''.join(said)}")
    return found, ended - began, usage.ru_maxrss / MEGABYTE
