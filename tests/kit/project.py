"""The project's Makefile, parameters and experiments around a stage that notes what it was asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGE = {"cmd": "python work.py", "deps": ["work.py"], "params": list(TREE), "outs": ["data/out"]}
WORK = """
import os, pathlib, time, yaml
asked = yaml.safe_load(open("params.yaml"))
with open("ran", "a") as log:
    print(asked["experiment"], asked["suite"], asked["seed"], *asked["periods"], file=log)
while os.path.exists("wait"):
    time.sleep(0.1)
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data/out").write_text("done")
"""


def git(*words: str) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


def write_project(folder: Path, *, stage: dict[str, Any] = STAGE, work: str = WORK) -> None:
    """The project's Makefile, parameters and experiments around one stage that runs `work`; in git."""
    for name in ("Makefile", "params.yaml", "experiments", "suites", "spring", "tasks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    for name in ("report", "seeds/__main__"):
        (folder / f"tasks/{name}.py").write_text("")
    (folder / "work.py").write_text(work)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"work": stage}}))
    (folder / ".gitignore").write_text("data\nran\nvenv\nwait\n__pycache__\n")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    (folder / "venv/bin").mkdir(parents=True)
    write_programs(folder, Path(sys.executable))
    (folder / "venv/.ready").touch()
    git("init")
    subprocess.run([sys.executable, "-m", "dvc", "--quiet", "init"], check=True)
    shutil.copyfile(ROOT / ".dvc/config", folder / ".dvc/config")  # no look for updates, which takes minutes
    commit("start")


def commit(message: str) -> None:
    git("add", ".")
    git("commit", "--message", message)


def write_programs(folder: Path, python: Path) -> None:
    """What the Makefile starts."""
    for name, command in {"python": "", "dvc": "-m dvc "}.items():
        script = folder / "venv/bin" / name
        script.write_text(f'#!/bin/sh\nexec "{python}" {command}"$@"\n')
        script.chmod(0o755)
