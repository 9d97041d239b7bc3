"""Stage `consolidate@t`: what each arm remembers after period t (Eq. 3, 4), and how memories score.

Arms with a profile also get what the model writes about each user (tasks/cells/profiles.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from tasks.cells.vectors import FollowJob, follow_all
from tasks.cells.workbench import Row
from tasks.files import DATA, Users, read_parquet, read_tests, read_train
from tasks.stage import run
from tasks.steps.blocks import Parted
from tasks.steps.buffers import BUFFERS, overflown, tell_what_decided_nothing, update_buffers
from tasks.steps.calibration import GAINS, Known, gain_pairs, known_after, score_pairs, searches
from tasks.steps.experiment import Experiment
from tasks.steps.index import vector_id
from tasks.steps.memory import Library
from tasks.steps.profiles import Profiles, write_profiles
from tasks.steps.rows import Rows, by_user, those
from tasks.steps.steering import write_vectors
from tasks.steps.vectors import profilings, read_profile_vectors, table

GROWING = ("gate_scores", "gains", "transductive")  # tables that begin with the rows of the period before
TABLES = ("history", "buffers", "candidates", "vectors", "profiles", *GROWING)


def main() -> None:
    """The state after adapt@t and the memory of period t-1 -> data/consolidate/{t}/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--period", type=int, required=True)
    period = parser.parse_args().period
    bench, out = Experiment(), folder_of(period)
    known = gate_scores(bench, period - 1)
    seen = [folder_of(period - 1) / "history.parquet"] if period else []
    full: set[str] = set()
    with ExitStack() as held:
        tables = {
            name: held.enter_context(Parted(out / f"{name}.parquet", behind=earlier(name, period)))
            for name in TABLES
        }
        for users in bench.blocks(DATA / "split" / f"{period}.parquet", *seen):
            parts = remember(bench, users, known, period)
            full |= overflown(parts["buffers"])
            for name in TABLES:
                tables[name].add(parts[name])
    if period == max(bench.params.periods):
        tell_what_decided_nothing(bench.memories, full)
    write_vectors(bench, by_user(read_parquet(out / "history.parquet")) if bench.steers else {}, period)


def remember(
    bench: Experiment, users: Users, known: Mapping[str, Known], period: int
) -> dict[str, pl.DataFrame]:
    """Some users' rows of all tables; `known`: what was known of each learned gate's scores."""
    arms = list(bench.params.arms.values())
    history = remembered(period, users)
    news = of_period(by_user(history), period)
    gains = measure_gains(bench, users, news, known, period)
    before = read_before("buffers", BUFFERS, period, users)
    buffers, candidates = update_buffers(bench, users, history, before, period)
    library = Library(bench, history, buffers, period)
    tested = searches(arms, sigma_from="transductive")
    queries = by_user(read_tests(period, users)) if tested else {}
    return {
        "history": history,
        "buffers": buffers,
        "candidates": candidates,
        "gate_scores": score_pairs(library, news, searches(arms)),
        "gains": gains,
        "transductive": score_pairs(library, queries, tested),
        "vectors": move_profiles(bench, users, news, period),
        "profiles": write_profiles(bench, users, library.history, period, news=set(news)),
    }


def folder_of(period: int) -> Path:
    """What a period leaves."""
    return DATA / "consolidate" / str(period)


def earlier(name: str, period: int) -> Path | None:
    """The table of the period before whose rows stand before those of this one; null: this one has all."""
    return folder_of(period - 1) / f"{name}.parquet" if period and name in GROWING else None


def remembered(period: int, users: Users) -> pl.DataFrame:
    """All train rows so far, with their likelihoods under the base model."""
    rows = read_train(period, users)
    columns = ["interaction_id", "logp", "tokens"]
    scored = read_parquet(DATA / "score_base" / f"{period}.parquet", columns, users)
    history = rows.join(scored, on="interaction_id", how="left", maintain_order="left")
    if period == 0:
        return history
    before = read_before("history", history.schema, period, users)
    return pl.concat([before, history]).sort("user_id", "timestamp", maintain_order=True)


def read_before(name: str, schema: Mapping[str, Any], period: int, users: Users) -> pl.DataFrame:
    """A table that the period before left; before period 0 there is none."""
    if period == 0:
        return pl.DataFrame(schema=schema)
    return read_parquet(folder_of(period - 1) / f"{name}.parquet", users=users)


def of_period(users: Mapping[str, Rows], period: int) -> dict[str, Sequence[Row]]:
    """The rows of a period, of all users who have some."""
    found = {user: those(rows, lambda row: row["period"] == period) for user, rows in users.items()}
    return {user: rows for user, rows in found.items() if rows}


def gate_scores(bench: Experiment, period: int) -> dict[str, Known]:
    """The scores that the memory of each learned gate had after a period, of all users."""
    if period < 0:
        return {}
    return {
        name: known_after(period, arm.memory_id or "", arm.retrieve.by) for name, arm in bench.gates.items()
    }


def measure_gains(
    bench: Experiment,
    users: Users,
    news: Mapping[str, Sequence[Row]],
    known: Mapping[str, Known],
    period: int,
) -> pl.DataFrame:
    """The period's pairs of learned gates (`GAINS`)."""
    if period == 0 or not bench.gates:
        return pl.DataFrame(schema=GAINS)
    history, buffers = (read_before(name, {}, period, users) for name in ("history", "buffers"))
    library, profiles = Library(bench, history, buffers, period - 1), Profiles.after(period - 1, users)
    adapters = bench.adapters(period - 1, users)
    return gain_pairs(bench, library, news, known, profiles, adapters, period, told=users.told)


def move_profiles(
    bench: Experiment, users: Users, news: Mapping[str, Sequence[Row]], period: int
) -> pl.DataFrame:
    """Every profile of some users after the train rows of the period; of who has none, as it was."""
    before = read_profile_vectors(period - 1, users)
    jobs = [
        FollowJob(how, user, rows, before.get((vector_id(how), user)))
        for how in profilings(list(bench.params.arms.values()))
        for user, rows in news.items()
    ]
    moved = table(jobs, follow_all(bench, jobs, f"consolidate@{period} profiles{users.told}"))
    if period == 0:
        return moved
    kept = read_before("vectors", {}, period, users)
    ways = [vector_id(how) for how in profilings(list(bench.params.arms.values()))]
    kept = kept.filter(pl.col("profile").is_in(ways))
    return pl.concat([moved, kept.join(moved, on=["profile", "user_id"], how="anti")])


if __name__ == "__main__":
    run(main)
