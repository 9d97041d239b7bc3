"""A DVC project of six stages that note that they ran, in Git; and a report as if it had been made."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import yaml

from flows.workspace import FOLDER
from kit.tracking import made_metrics, write_params

# By name, `above` would come before what it needs.
STAGES: dict[str, dict[str, object]] = {
    "zero": {"cmd": "echo zero >> ran; echo 0 > zero", "params": ["seed"], "outs": ["zero"]},
    "each": {
        "foreach": "${periods}",
        "do": {"cmd": "echo each@${key} >> ran; echo 1 > ${key}", "deps": ["zero"], "outs": ["${key}"]},
    },
    "above": {"cmd": "echo above >> ran; sh ./script", "deps": ["0", "1", "2", "script"], "outs": ["result"]},
    "last": {"cmd": "echo last >> ran", "deps": ["result"]},
}
ALL = ["zero", "each@0", "each@1", "each@2", "above", "last"]
WORKS = "echo something to read; echo 1 > result"
IGNORED = "/.prefect/\n/ran\n/zero\n/0\n/1\n/2\n/result\n"
# In place of the project's `tasks.seeds`: keeps a note of each seed, and pools to the metrics that lie there.
SEEDS = """
import pathlib, shutil, sys, yaml
seed = yaml.safe_load(open("params.yaml"))["seed"]
kept = pathlib.Path("data/seeds/made-up-lambda")
kept.mkdir(parents=True, exist_ok=True)
if sys.argv[1:] == ["--keep"]:
    (kept / str(seed)).touch()
else:
    print("pooled:", *sorted(path.name for path in kept.iterdir()))
    shutil.copyfile("data/metrics.json", kept / "metrics.json")
"""


def make_toy(root: Path) -> None:
    """Writes the project and commits it."""
    write_params(root)
    for name in ("data/report/plots", "tasks"):
        (root / name).mkdir(parents=True)
    files = {"script": WORKS, "dvc.yaml": yaml.safe_dump({"stages": STAGES}), ".gitignore": IGNORED}
    files |= {
        "tasks/__init__.py": "",
        "tasks/seeds.py": SEEDS,
        "data/metrics.json": json.dumps(made_metrics()),
    }
    files |= {"data/report/report.html": "<h1>A report</h1>", "data/report/plots/cost.svg": "<svg/>"}
    files |= {
        ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
        ".dvc/.gitignore": "*",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for words in (["init"], ["add", ".", "-f", ".dvc/config"], ["commit", "--message", "start"]):
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


def ran(root: Path) -> list[str]:
    """Which stages ran in the folder of runs since this was last asked, in order."""
    notes = root / FOLDER / "ran"
    names = notes.read_text(encoding="utf-8").split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return names


def ended(process: int) -> bool:
    """Whether a process is gone, or will be in a moment."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False
