"""A made-up experiment as the stages before evaluate would have left it, its texts hostile to a page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from tasks import evaluate, report
from tasks.params import load_params

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('text')</script><!-- {{ 7 * 7 }}"
HOSTILE_USER = '"><img src=https://example.org/x.png>$x$'
WORDS = ("the", "drift", "of", "user", "is", "learned", "from", "what", "changed", "and", "not", "stayed")
TYPES = ("abrupt", "gradual", "noise")
KEYS: dict[str, Any] = {"recipe": pl.String, "user_id": pl.String, "period": pl.Int32}
PARTS = {"logp_adap": pl.Float64, "tokens": pl.Int32, "novelty": pl.Float64, "quality": pl.Float64}
SCORES = KEYS | {"interaction_id": pl.String, "drift_score": pl.Float64, "selected": pl.Boolean} | PARTS
CURVES = KEYS | {"step": pl.Int32, "loss": pl.Float64}
INDEX = KEYS | {
    "file": pl.String,
    "bytes": pl.Int64,
    "chosen": pl.List(pl.String),
    "tokens": pl.Int64,
    "seconds": pl.Float64,
    "seconds_score": pl.Float64,
}


def write_params(root: Path, **changes: object) -> None:
    """The repository's parameters, with three periods and few resamples."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["periods"] = {"0": "base", "1": 0, "2": 1}
    tree["evaluate"] |= {"resamples": 200}
    tree["transfer"] = "likelihood"
    tree["report"] |= {"title": f"A report {HOSTILE}", "sample_users": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(tree | changes, sort_keys=False), encoding="utf-8")


def write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def write_experiment(root: Path, users: int = 5, labelled: bool = True, per_period: int = 8) -> None:
    """Everything that the stages before evaluate would have written under `root`/data."""
    params, random = load_params(root / "params.yaml"), np.random.default_rng(0)
    names = [HOSTILE_USER, *(f"user-{place}" for place in range(1, users))]
    recipes = evaluate.arms_by_recipe(params)
    kinds: dict[str, str] = {}
    for period in params.periods:
        rows = []
        for place, user in enumerate(names):
            for turn in range(per_period):
                key = f"{place}-{period}-{turn}"
                kind = TYPES[place % 3] if random.random() < 0.4 else "stable"
                kinds[key] = kind
                rows.append(
                    {
                        "user_id": user,
                        "interaction_id": key,
                        "timestamp": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=100 * period + turn),
                        "task": "review",
                        "query": json.dumps({"PRODUCT": f"thing {HOSTILE}"}),
                        "response": f"{HOSTILE} {' '.join(random.choice(WORDS, 12))}",
                        "rating": None,
                        "period": period,
                        "part": "test" if turn >= per_period - 1 else "train",
                    }
                )
        split = pl.DataFrame(rows, schema_overrides={"rating": pl.Float64, "period": pl.Int32})
        write(split, root / f"data/split/{period}.parquet")
        write_adapt(root, split, list(recipes), kinds, random)
        write_memory(root, split, [arm.memory_id for arm in params.arms.values() if arm.memory_id])
        if period:
            write_generations(root, split, list(params.arms), random)
            write_machine(root, period)
    write_transfer(root, list(params.arms), list(params.periods))
    table = pl.DataFrame({"interaction_id": list(kinds), "drift": list(kinds.values())})
    table = table.with_columns(is_drift=pl.col("drift").is_in(["abrupt", "gradual"]))
    write(table if labelled else table.clear(), root / "data/ingest/labels.parquet")


def write_adapt(
    root: Path,
    split: pl.DataFrame,
    recipes: list[str],
    kinds: dict[str, str],
    random: np.random.Generator,
) -> None:
    period = split["period"][0]
    scores, curves, index = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for place, recipe in enumerate(recipes):
        for (user,), rows in split.filter(pl.col("part") == "train").group_by("user_id", maintain_order=True):
            lift = np.array(
                [{"stable": 0.0, "noise": -1.0}.get(kinds[key], 0.8) for key in rows["interaction_id"]]
            )
            drift = random.normal(-2, 0.5, rows.height) + lift
            least = np.sort(drift)[-2]
            keys = {"recipe": recipe, "user_id": user, "period": period}
            scores += [
                {
                    **keys,
                    "interaction_id": item,
                    "drift_score": score if period else None,
                    "selected": score >= least,
                    "logp_adap": -20.0 - 10 * score,  # hardness 2 + drift
                    "tokens": 10,
                    "novelty": score,
                    "quality": -score,
                }
                for item, score in zip(rows["interaction_id"], drift.tolist(), strict=True)
            ]
            chosen = [row["interaction_id"] for row in scores[-rows.height :] if row["selected"]]
            steps = 6 + 4 * place
            loss = 2.5 * np.exp(-np.arange(steps) / 6) + 1.2 - 0.1 * period + random.normal(0, 0.12, steps)
            curves += [keys | {"step": step, "loss": value} for step, value in enumerate(loss.tolist())]
            costs = {"bytes": 10, "tokens": 100, "seconds": 1.5, "seconds_score": 0.5}
            index.append(keys | {"file": "none", "chosen": chosen} | costs)
    for name, made, schema in (
        ("scores", scores, SCORES),
        ("curves", curves, CURVES),
        ("index", index, INDEX),
    ):
        write(pl.DataFrame(made, schema), root / f"data/adapt/{period}/{name}.parquet")


def write_memory(root: Path, split: pl.DataFrame, memories: list[str]) -> None:
    """The history so far, of which buffers hold each user's first item."""
    period = split["period"][0]
    folder = root / "data/consolidate"
    rows = split.filter(pl.col("part") == "train")
    if period:
        rows = pl.concat([pl.read_parquet(folder / f"{period - 1}/history.parquet"), rows])
    write(rows, folder / f"{period}/history.parquet")
    first = rows.filter(pl.col("interaction_id").str.ends_with("-0-0")).select("interaction_id")
    held = pl.concat(first.with_columns(memory=pl.lit(memory), seconds=0.25) for memory in memories)
    write(held, folder / f"{period}/buffers.parquet")
    turns = pl.col("interaction_id").str.split("-").list.last().cast(pl.Float64)
    keys = rows.select("user_id", "interaction_id", score=turns, loss=-turns)
    offered = pl.concat(keys.with_columns(memory=pl.lit(memory)) for memory in memories)
    write(offered, folder / f"{period}/candidates.parquet")


def write_transfer(root: Path, arms: list[str], periods: list[int]) -> None:
    """scores[i, j] = -3 + arm / 10 * (i + 1) + user / 100; the base model is at -3 + user / 100.

    Arms from the third on have adapters of their users' own: another user's is 0.05 (i + 1) worse.
    """
    rows, scored = [], []
    for tested in periods:
        split = pl.read_parquet(root / f"data/split/{tested}.parquet").filter(pl.col("part") == "test")
        for item, user in split.select("interaction_id", "user_id").iter_rows():
            place = int(item.split("-")[0])
            scored.append({"interaction_id": item, "period": tested, "logp": -30 + place / 10, "tokens": 10})
            for learned in periods:
                for gain, arm in enumerate(arms):
                    logp = -30 + gain * (learned + 1) + place / 10
                    row = {"arm": arm, "user_id": user, "interaction_id": item, "learned": learned}
                    row |= {"tested": tested, "ref_tokens": 10}
                    rows.append(row | {"adapter": "own", "logp": logp})
                    if learned == tested and gain >= 2:
                        rows.append(row | {"adapter": "swapped", "logp": logp - 0.5 * (learned + 1)})
    write(pl.DataFrame(rows), root / "data/transfer/likelihoods.parquet")
    for (period,), table in pl.DataFrame(scored).group_by("period"):
        write(table, root / f"data/score_base/{period}.parquet")


def write_generations(root: Path, split: pl.DataFrame, arms: list[str], random: np.random.Generator) -> None:
    rows = []
    for place, arm in enumerate(arms):
        for test in split.filter(pl.col("part") == "test").iter_rows(named=True):
            kept = [word for word in test["response"].split() if random.random() < 0.35 + 0.1 * place]
            rows.append(
                {
                    "arm": arm,
                    "user_id": test["user_id"],
                    "interaction_id": test["interaction_id"],
                    "period": test["period"],
                    "text": " ".join(kept),
                    "tokens": len(kept),
                    "logp": -10.0 * (3 - 0.3 * place) + random.normal(0, 1),
                    "ref_tokens": 10,
                    "contexts": [f"{test['interaction_id'].split('-')[0]}-0-0"] if place % 2 else [],
                    "candidates": 2,
                    "sigma": None,
                    "seconds": 0.25,
                    "row_steps": 4,
                }
            )
    schema: dict[str, Any] = {"period": pl.Int32, "contexts": pl.List(pl.String), "sigma": pl.Float64}
    period = split["period"][0]
    write(pl.DataFrame(rows, schema_overrides=schema), root / f"data/generate/{period}/generations.parquet")


def write_machine(root: Path, period: int) -> None:
    """What stage generate says of where it ran."""
    machine = {"processor": "A processor <b>", "cores": 2, "device": "cpu", "dtype": "float32"}
    path = root / f"data/generate/{period}/machine.json"
    path.write_text(json.dumps(machine), encoding="utf-8")


def run(root: Path) -> None:
    """Both stages, without the hook for W&B."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("SOURCE_DATE_EPOCH", "1767225600")  # pages of equal input are equal
        evaluate.main()
        report.build(load_params(), report.read_metrics())
