"""What the gate keeps out, and what it holds back: bursts, noise and true changes in personas' third period.

    python -m bench.poison --model smollm2-135m-instruct --users 12

Of some users all texts of the third period, held-out ones too, are somebody else's or gibberish, and later
ones their own; others truly change their habits in it. The gate (spring/live/verdict.py) judges the third
adapter and the fourth. What is in service then is read on the next period, which it has not learned, with and
without the gate: how much likelier those texts are than under the second adapter, nats per token.
"""

from __future__ import annotations

import argparse
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
from spring.data.sources.personas.generate import PersonasSource, generate
from spring.live.verdict import WITHHELD
from spring.settings.live import Gate
from tasks.cells.scoring import ScoreJob, score
from tasks.files import read_parquet, write_parquet
from tasks.params import load_params
from tasks.steps.candidates import Asked
from tasks.steps.experiment import Experiment
from tasks.steps.verdicts import judge_all

BURST, LEARNED = 2, 4  # the period of the burst; how many are learned, and one more is read
BEFORE = BURST - 1  # whose adapters are in service when the burst comes
EACH = 10  # texts of a user and period
# Users in turn. Personas of odd numbers change ten texts later: those that change have even ones
KINDS = ("abrupt", "stranger", "gradual", "gibberish", "noise", "stable")
DRIFTS = {"abrupt": ("abrupt",), "gradual": ("gradual",), "noise": ("noise",)}  # of the others: none
DONOR = KINDS.index("stable") - KINDS.index("stranger")  # users from a burst's to those of whom the texts are
ARMS: dict[str, Any] = {"current": {"train": {"data": "current"}}, "spring": {}}  # learns all, or selects
GATE: dict[str, Any] = {"margin": 0.02, "level": 0.2, "items": 16, "least": 2, "alarm": 0.5}
GATE |= {"drift": {"base": None, "before": None}}


def main() -> None:
    """Prints each user's verdicts, and what is in service with and without the gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--gate", type=yaml.safe_load, default={}, help="changes, as {margin: 0.05}")
    asked = parser.parse_args()
    if asked.users % len(KINDS):
        parser.error(f"--users: {len(KINDS)} or a multiple of it")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_params(asked.model, asked.users, asked.seed, asked.arms)
        found = measure(Gate(**(GATE | asked.gate)), asked.arms)
    print(found)
    for (arm, period, kind), rows in found.group_by(["arm", "period", "kind"], maintain_order=True):
        print(f"{arm}, period {period}, {kind}: {in_words(rows)}")


def write_params(model: str, users: int, seed: int, arms: list[str]) -> None:
    """Personas of five periods."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree["periods"] = {str(t): t - 1 if t else "base" for t in range(LEARNED + 1)}
    tree["ingest"]["personas"] |= {"users": users, "interactions": EACH * (LEARNED + 1), "drift": []}
    tree["model"] |= {"id": model, "device": "cpu"}
    tree["split"]["test_share"] = 0.2
    tree["arms"] = {"base": tree["arms"]["base"]} | {name: ARMS[name] for name in arms}
    tree["seed"], tree["tracking"]["mode"] = seed, "disabled"
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def measure(gate: Gate, arms: list[str]) -> pl.DataFrame:
    """A row per arm, judged period and user: kind, ruling, likelihood with and without the gate."""
    run("ingest")
    params = load_params()
    kinds = give_habits(params.ingest.personas, params.seed)
    run("split")
    poison(Path(f"data/split/{BURST}.parquet"), kinds, params.seed)
    for stage in ("model", "score_base"):
        run(stage)
    for period in range(LEARNED):
        for stage in ("adapt", "consolidate"):
            run(stage, "--period", str(period))
    bench = Experiment()
    return pl.concat(of_arm(bench, name, kinds, gate) for name in arms)


def give_habits(source: PersonasSource, seed: int) -> dict[str, str]:
    """Makes the habits of some users change; user -> kind."""
    file = Path("data/ingest/interactions.parquet")
    rows = read_parquet(file)
    users = rows["user_id"].unique(maintain_order=True).to_list()
    kinds = {user: KINDS[i % len(KINDS)] for i, user in enumerate(users)}
    for kind, drift in DRIFTS.items():
        mine = [user for user in users if kinds[user] == kind]
        changed = generate(source.model_copy(update={"drift": drift}), seed=seed).select(rows.columns)
        of_kind = pl.col("user_id").is_in(mine)
        rows = pl.concat([rows.filter(~of_kind), changed.filter(of_kind)])
    write_parquet(rows.sort("user_id", "timestamp"), file)
    return kinds


def of_arm(bench: Experiment, name: str, kinds: dict[str, str], gate: Gate) -> pl.DataFrame:
    """The rows of one arm, by period and kind."""
    recipe = bench.params.arms[name].recipe
    assert recipe is not None, "it learns"
    users = sorted(kinds, key=lambda user: (KINDS.index(kinds[user]), user))
    served: dict[str, int | None] = dict.fromkeys(users, BEFORE)
    tables = []
    for period in range(BURST, LEARNED):
        table = judge_all(bench, Asked(recipe, period, period - 1, served), gate)
        withheld = table.filter(pl.col("ruling").is_in(WITHHELD))["user_id"].to_list()
        served = {user: t if user in withheld else period for user, t in served.items()}
        read = {t: likelihoods(bench, recipe, users, t, period + 1) for t in range(BEFORE, period + 1)}
        shown = pl.DataFrame({"arm": name, "period": period, "user_id": users}).with_columns(
            kind=pl.Series([kinds[user] for user in users]),
            without=pl.Series(read[period] - read[BEFORE]),
            gated=pl.Series(
                [read[served[user] or 0][i] - read[BEFORE][i] for i, user in enumerate(users)],
                dtype=pl.Float64,
            ),
        )
        columns = ("ruling", "items", "difference", "old_items", "old_difference", "old_high", "drift_before")
        tables.append(
            shown.join(table.select("user_id", *columns), on="user_id", how="left", maintain_order="left")
        )
    return pl.concat(tables)


def run(stage: str, *arguments: str) -> None:
    """A stage in this process."""
    before, sys.argv = sys.argv, [stage, *arguments]
    import_module(f"tasks.{stage}").main()
    sys.argv = before


def poison(file: Path, kinds: dict[str, str], seed: int) -> None:
    """Makes the period of some users a burst."""
    rows, users = read_parquet(file), list(kinds)
    texts = {user: rows.filter(user_id=user)["response"].to_list() for user in users}
    made: list[str] = []
    for i, user in enumerate(users):
        if kinds[user] == "gibberish":
            made += [gibberish(text, f"{seed} {user} {n}") for n, text in enumerate(texts[user])]
        else:
            made += texts[users[i + DONOR] if kinds[user] == "stranger" else user]
    assert rows["user_id"].to_list() == [user for user in users for _ in texts[user]], "rows lie by user"
    write_parquet(rows.with_columns(response=pl.Series(made)), file)


def gibberish(text: str, chance: str) -> str:
    """The letters of a text in any order."""
    letters = list(text)
    Random(chance).shuffle(letters)
    return " ".join("".join(letters).split())


def likelihoods(bench: Experiment, recipe: str, users: list[str], after: int, period: int) -> np.ndarray:
    """Per user: mean log-likelihood per token of all texts of a period under the adapter after another."""
    rows, adapters = read_parquet(Path(f"data/split/{period}.parquet")), bench.adapters(after)
    jobs = [ScoreJob(rows.filter(user_id=user).to_dicts(), adapters.of(recipe, user)) for user in users]
    found = score(bench, jobs, f"period {period}, adapters of {after}")
    return np.array([(one.logp / one.tokens).mean() for one in found])


def in_words(rows: pl.DataFrame) -> str:
    """What is in service with and without the gate, and what it does to unseen texts."""
    counts = rows["ruling"].value_counts(sort=True).sort("ruling").iter_rows()
    parts = [", ".join(f"{count} {ruling}" for ruling, count in counts)]
    for name, values in (("without the gate", rows["without"]), ("with it", rows["gated"])):
        each = ", ".join(f"{value:+.3f}" for value in values)
        parts.append(f"{name} {values.to_numpy().mean():+.3f} nats per token ({each})")
    return "; ".join(parts)


if __name__ == "__main__":
    pl.Config.set_tbl_cols(-1)
    pl.Config.set_tbl_rows(-1)
    pl.Config.set_tbl_width_chars(200)
    main()
