"""A made-up experiment: its parameters, and its metrics with as many numbers as there are places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from spring.measures.statistics import EVERY
from tasks.reporting.plots import TRANSFER_NAMES
from tasks.tracking import METRICS

ROOT = Path(__file__).parents[2]
ARMS = {"base": {"train": None, "memory": None}, "spring": {}}


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
