"""Every kind of arm over periods of the calendar in which users come late, write once or stay away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kit.months import by_calendar, closed, finish, learn, write_rows
from kit.pipeline import cells, run

from tasks import adapt, consolidate, generate

pytestmark = pytest.mark.long

BATCHES = [
    {"ann": 4, "bob": 5},
    {"ann": 3, "cem": 4},  # bob is away, cem is new
    {"bob": 1},  # a single text, which nobody asks for
    {"ann": 6, "cem": 2, "dee": 3},
]
ALONE: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}
BASE: dict[str, Any] = {"base": {"train": None, "memory": None}}
BUFFER: dict[str, Any] = {"policy": "reservoir", "first_period": 0, "capacity": 4}
REPLAYS: dict[str, Any] = {"replay_share": 0.5}
EXPERTS = {"name": "proper", "scope": "population", "count": 2, "constraint": 0.1, "user_embedding": 3}
EXPERTS |= {"population_epochs": 1, "group_epochs": 1}
RANKED = {"by": "dense", "gate": None, "profile": {"rho": 0.1, "feedback": None, "weight": 0.5}}
ONLINE = {"method": "asls", "steps": 2, "learn": "each", "feedback": None, "retune": {"rho": 0.1, "limit": 3}}
HOW: dict[str, Any] = {"items": 3, "item_tokens": 26, "max_new_tokens": 7, "repetition_penalty": 1.2}
PAG, POPI = {"by": "pag", "scope": "period", **HOW}, {"by": "popi", **HOW}
ARMS: dict[str, dict[str, Any]] = {
    "shared": {
        "swapped": {"adapter": "swapped", **ALONE},
        "population": {"train": {"scope": "population", "data": "current"}},
        "transductive": {"train": {"scope": "population-transductive"}},
        "cumulative": {"train": {"scope": "population", "data": "cumulative"}, **ALONE},
        "on-top": {"train": {"start": "population"}, **ALONE},
    },
    "levels": {
        level: {"train": {"data": "current", "experts": EXPERTS | {"level": level}}, **ALONE}
        for level in ("user", "group", "population")
    },
    "continual": {
        "cama": {"train": {"data": "confident", **REPLAYS}, "memory": BUFFER},
        "sar": {"train": {"data": "current", "replay_draw": "sar", **REPLAYS}, "memory": BUFFER},
        "o-lora": {"train": {"data": "current", "rule": {"method": "o-lora", "lambda1": 0.5}}, **ALONE},
        "ewc": {
            "train": {"data": "current", "rule": {"method": "ewc-lora", "lmbda": 1000, "gamma": 1.0}},
            **ALONE,
        },
        "each": {"train": {"start": "base", "data": "current"}, "memory": {"scope": "period"}},
    },
    "profiles": {
        "pag": {"train": None, "memory": None, "profile": PAG},
        "popi": {
            "profile": POPI,
            "memory": {"scope": "history"},
            "retrieve": {"gate": "learned", "pairs": 3},
        },
    },
    "online": {
        "asls": {
            "train": {"data": "current", "epochs": 1, "batch_size": 1, "warmup_ratio": 0, "online": ONLINE},
            "memory": {"scope": "history"},
            "retrieve": RANKED,
        },
        "fints": {"train": None, "memory": None, "steer": {"method": "fints"}},
    },
}


@pytest.mark.parametrize("family", list(ARMS))
def test_every_kind_of_arm(folder: Path, monkeypatch, tiny_model_folder: Path, family: str):
    """Each gives numbers of the same users, and closed periods stay when the last one comes."""
    arms = BASE | ARMS[family]
    write_rows(folder / "table.csv", BATCHES[:3])
    by_calendar(folder, tiny_model_folder, periods=3, arms=arms)
    learn(monkeypatch, 3)
    before = closed(folder, 3)
    write_rows(folder / "table.csv", BATCHES)
    by_calendar(folder, tiny_model_folder, periods=4, arms=arms)
    learn(monkeypatch, 4, after=3)
    known = cells(folder)
    for t in range(3):
        for stage in (adapt, consolidate, generate):
            run(stage, monkeypatch, t)
    assert closed(folder, 3) == before and cells(folder) == known
    metrics = finish(monkeypatch)
    users = (
        pl.read_parquet("data/evaluate/users.parquet").group_by("arm").agg(pl.col("user_id").unique().sort())
    )
    assert dict(users.iter_rows()) == {arm: ["ann", "cem", "dee"] for arm in arms}
    for arm in arms:
        assert metrics["arms"][arm]["logp_per_token"]["mean"] < 0
        assert metrics["transfer"][arm]["average"]["users"] == 2  # ann and cem


def test_what_came_too_late_for_all_is_learned_next_though_its_user_is_away(
    folder, monkeypatch, tiny_model_folder
):
    """Bob's texts after ann's query of period 0 are in the shared lesson of period 1, in which he is away."""
    arms = BASE | {"population": ARMS["shared"]["population"]}
    write_rows(folder / "table.csv", [{"ann": 2, "bob": 9}, {"ann": 3}])
    by_calendar(folder, tiny_model_folder, periods=2, arms=arms)
    learn(monkeypatch, 2)
    rows = pl.read_parquet("data/split/0.parquet").filter(user_id="bob", part="train")
    lessons = [pl.read_parquet(f"data/adapt/{t}/index.parquet").row(0, named=True) for t in (0, 1)]
    late = set(rows.filter(pl.col("timestamp") > lessons[0]["until"])["interaction_id"])
    assert late and not late & set(lessons[0]["chosen"]) and late <= set(lessons[1]["chosen"])
