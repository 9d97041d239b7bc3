"""Offline runs of W&B read back; a made-up experiment: parameters, and metrics with a number everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from spring.measures.statistics import EVERY
from tasks.measures.scores import METRICS
from tasks.reporting.names import TRANSFER_NAMES

ROOT = Path(__file__).parents[2]
ARMS = {"base": {"train": None, "memory": None}, "spring": {}}


class Run:
    """One offline run as W&B's own reader sees it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.folder, self.history, self.artifacts = folder, [], []
        self.summary: dict[str, Any] = {}
        self.axes: dict[str, str] = {}  # metric or pattern -> what it is drawn over
        self.exit: int | None = None
        for record in map(json.loads, printed.splitlines()):
            self._take(record["type"], record.get(record["type"]))

    def _take(self, kind: str, body: Any) -> None:
        if kind == "run":
            self.about, self.config = body, body["config"]["update"]
        elif kind == "history":
            self.history.append(body["item"])
        elif kind == "summary":
            self.summary |= body["update"]
        elif kind == "metric" and "step_metric" in body:
            self.axes[body.get("glob_name") or body["name"]] = body["step_metric"]
        elif kind == "artifact" and body["type"] != "run_table":
            self.artifacts.append(body)
        elif kind == "exit":
            self.exit = body["exit_code"]

    def table(self, name: str) -> pl.DataFrame:
        """A table that was logged."""
        [file] = (self.folder / "files/media/table").glob(f"{name}_*.table.json")
        content = json.loads(file.read_text(encoding="utf-8"))
        return pl.DataFrame(content["data"], schema=content["columns"], orient="row")

    @staticmethod
    def contents(artifact: dict[str, Any]) -> dict[str, Any]:
        """The entries of an artifact by path."""
        return {entry["path"]: entry for entry in artifact["manifest"].get("contents", [])}


def read_runs(root: Path) -> dict[str, Run]:
    """The offline runs of a project by name, each ended well."""
    found = [Run(folder) for folder in sorted((root / "wandb").glob("offline-run-*"))]
    assert all(run.exit == 0 for run in found)
    return {run.about["display_name"]: run for run in found}


def change(folder: Path, **changes: object) -> None:
    """Sets keys of params.yaml: `report__title="..."`."""
    file = folder / "params.yaml"
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = tree
        for key in parents:
            at = at[key]
        at[last] = value
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")


def bytes_under(folder: Path) -> bytes:
    """All files and their names below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)


def made_metrics() -> dict[str, Any]:
    """A data/metrics.json of two arms and two periods with as many different numbers as there are places."""
    numbers = iter(range(1, 1000))

    def number() -> float:
        return next(numbers) / 1000 + 0.000001

    arms: dict[str, Any] = {}
    for arm in ARMS:
        arms[arm] = {
            metric: {"mean": number(), "low": number(), "high": number()}
            | {"periods": {"1": number(), "2": number()}}
            for metric in METRICS
        }
        arms[arm] |= {"pass_rate": None, "seconds_train": number()}
        arms[arm] |= {"seconds_score": number(), "seconds_generate": number()}
        arms[arm] |= {
            "tokens_trained": 100,
            "tokens_generated": 200,
            "rows_per_step": 1.5,
            "adapter_bytes": 300,
        }
        arms[arm] |= {"memory_bytes": 400}
    arms["base"]["rouge1"] |= {"low": None, "high": None}  # one user: no interval
    arms["spring"]["pass_rate"] = 0.25
    keys = ("difference", "low", "high", "p", "p_holm", "d_z", "users_needed")
    paired = {metric: {key: number() for key in keys} | {"users_needed": 60} for metric in METRICS}
    nothing = {"mean": None, "low": None, "high": None, "users": 0}
    drift = {
        kind: {
            "auroc": {"mean": number(), "low": number(), "high": number(), "users": 1},
            "average_precision": {"mean": number(), "low": None, "high": None, "users": 1},
            **dict.fromkeys(("chance", "precision", "blind"), nothing),
        }
        for kind in (EVERY, "abrupt")
    }
    transfer: dict[str, Any] = {
        name: {"mean": number(), "low": number(), "high": number(), "users": 1}
        for name in ("average", "backward", "forward", "forgetting", "personal")
    }
    transfer |= {"held": nothing}
    transfer |= {"untrained": {"0": number()}, "matrix": {"0": {"0": number()}}, "kinds": {}, "generated": {}}
    return {
        "experiment": "made-up",
        "users": 1,
        "interactions": 9,
        "periods": [1, 2],
        "seed": 0,
        "against": "base",
        "arms": arms,
        "paired": {"spring": paired},
        "transfer": {"spring": transfer},
        "transfer_paired": {"spring": dict.fromkeys(TRANSFER_NAMES, paired["rouge1"])},
        "drift": {"spring": drift},
        "correlations": {"spring": {"novelty ~ quality": -number()}},
    }


def write_params(root: Path, **tracking: object) -> None:
    """The repository's parameters with two arms and three periods."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree |= {"experiment": "made-up", "arms": ARMS, "periods": {"0": "base", "1": 0, "2": 1}}
    tree["evaluate"]["against"] = "base"
    tree["tracking"] |= {"mode": "offline", "tags": ["a-tag"], "log_text": False} | tracking
    (root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
