"""What the gate keeps out: users whose last period is somebody else's texts or gibberish.

    python -m bench.poison --model smollm2-135m-instruct --users 8

Personas learn three periods; of some of them all texts of the third, held-out ones too, are a burst. The gate
(spring/live/verdict.py) judges the third adapter against the second. Then both are read on the fourth period,
which nobody has seen: harm is how much less likely those texts became, nats per token.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import yaml

from bench.processes import ROOT
from spring.settings.live import Gate
from tasks.cells.scoring import ScoreJob, score
from tasks.files import read_parquet, write_parquet
from tasks.steps.experiment import Experiment
from tasks.steps.verdicts import Asked, judge_all

LEARNED, BURST, UNSEEN = 3, 2, 3  # periods, the one of the burst, the one that is read at last
EACH = 10  # texts of a user and period
KINDS = ("stranger", "gibberish", "clean", "clean")  # users in turn
GATE: dict[str, Any] = {"margin": 0.02, "level": 0.2, "items": 16, "least": 2, "alarm": 0.5}
GATE |= {"drift": {"base": None, "before": None}}


def main() -> None:
    """Prints each user's verdict and harm, and what is published with and without the gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gate", type=yaml.safe_load, default={}, help="changes, as {margin: 0.05}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_params(asked.model, asked.users, asked.seed)
        found = measure(Gate(**(GATE | asked.gate)), asked.seed)
    print(found)
    for (arm, kind), rows in found.group_by(["arm", "kind"], maintain_order=True):
        print(f"{arm}, {kind}: {in_words(rows)}")


def write_params(model: str, users: int, seed: int) -> None:
    """Personas of four periods; an arm that selects what it learns, and one that learns all."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["periods"] = {str(t): t - 1 if t else "base" for t in range(UNSEEN + 1)}
    tree["ingest"]["personas"] |= {"users": users, "interactions": EACH * (UNSEEN + 1)}
    tree["model"] |= {"id": model, "device": "cpu"}
    tree["split"]["test_share"] = 0.2
    tree["arms"] = {"base": tree["arms"]["base"], "spring": {}, "current": {"train": {"data": "current"}}}
    tree["seed"], tree["tracking"]["mode"] = seed, "disabled"
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def measure(gate: Gate, seed: int) -> pl.DataFrame:
    """A row per arm and user: kind, ruling, differences on held-out and on unseen texts, drift."""
    for stage in ("ingest", "split"):
        run(stage)
    kinds = poison(Path(f"data/split/{BURST}.parquet"), seed)
    for stage in ("model", "score_base"):
        run(stage)
    for period in range(LEARNED):
        for stage in ("adapt", "consolidate"):
            run(stage, "--period", str(period))
    bench = Experiment()
    return pl.concat(of_arm(bench, name, kinds, gate) for name in ("spring", "current"))


def of_arm(bench: Experiment, name: str, kinds: dict[str, str], gate: Gate) -> pl.DataFrame:
    """The rows of one arm, its users by kind."""
    recipe = bench.params.arms[name].recipe
    assert recipe is not None, "it learns"
    served = dict.fromkeys(kinds, BURST - 1)
    table = judge_all(bench, Asked(recipe, BURST, BURST - 1, served), gate)
    users = sorted(kinds, key=lambda user: kinds[user])
    shown = pl.DataFrame({"arm": name, "user_id": users, "kind": [kinds[user] for user in users]})
    shown = shown.with_columns(unseen=pl.Series(gains(bench, recipe, users)))
    columns = ("ruling", "items", "difference", "low", "high", "drift_base", "drift_before")
    found = table.select("user_id", *columns, "worse", "worse_difference")
    return shown.join(found, on="user_id", how="left", maintain_order="left")


def run(stage: str, *arguments: str) -> None:
    """A stage in this process."""
    before, sys.argv = sys.argv, [stage, *arguments]
    import_module(f"tasks.{stage}").main()
    sys.argv = before


def poison(file: Path, seed: int) -> dict[str, str]:
    """Makes the period of some users a burst; user -> what became of it."""
    rows = read_parquet(file)
    users = rows["user_id"].unique(maintain_order=True).to_list()
    kinds = {user: KINDS[i % len(KINDS)] for i, user in enumerate(users)}
    texts = {user: rows.filter(user_id=user)["response"].to_list() for user in users}
    made: list[str] = []
    for i, user in enumerate(users):
        if kinds[user] == "gibberish":
            made += [gibberish(text, f"{seed} {user} {n}") for n, text in enumerate(texts[user])]
        else:
            made += texts[users[(i + 2) % len(users)] if kinds[user] == "stranger" else user]  # a clean one's
    assert rows["user_id"].to_list() == [user for user in users for _ in texts[user]], "rows lie by user"
    write_parquet(rows.with_columns(response=pl.Series(made)), file)
    return kinds


def gibberish(text: str, chance: str) -> str:
    """The letters of a text in any order."""
    letters = list(text)
    Random(chance).shuffle(letters)
    return " ".join("".join(letters).split())


def gains(bench: Experiment, recipe: str, users: list[str]) -> list[float]:
    """Per user: mean log-likelihood per token of the unseen texts under the third adapter less the second."""
    rows = read_parquet(Path(f"data/split/{UNSEEN}.parquet"))
    mine = [rows.filter(user_id=user).to_dicts() for user in users]
    means = []
    for period in (BURST, BURST - 1):
        adapters = bench.adapters(period)
        jobs = [ScoreJob(own, adapters.of(recipe, user)) for user, own in zip(users, mine, strict=True)]
        found = score(bench, jobs, f"unseen, adapters of {period}")
        means.append(np.array([(one.logp / one.tokens).mean() for one in found]))
    return (means[0] - means[1]).tolist()


def in_words(rows: pl.DataFrame) -> str:
    """What is published with and without the gate, and what it does to unseen texts."""
    refused = rows["ruling"].to_numpy() == "refused"
    every = rows["unseen"].to_numpy()
    kept = np.where(refused, 0.0, every)  # the version before goes on answering
    parts = [f"{refused.sum()} of {len(rows)} refused"]
    for name, values in (("without the gate", every), ("with it", kept)):
        parts.append(f"{name} {values.mean():+.3f} nats per token, worst user {values.min():+.3f}")
    return json.dumps(parts)[1:-1].replace('"', "")


if __name__ == "__main__":
    pl.Config.set_tbl_cols(-1)
    pl.Config.set_tbl_rows(-1)
    pl.Config.set_tbl_width_chars(200)
    main()
