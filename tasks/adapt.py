"""Stage `adapt@t`: score drift under the previous adapter, select, train (Eq. 1, 2)."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from spring.engine.settings import Learning
from spring.settings.arm import recipe_of
from spring.settings.train import Train
from tasks.cells.training import TrainJob, train
from tasks.files import DATA, Users, read_parquet, read_train
from tasks.stage import run
from tasks.steps.blocks import Parted
from tasks.steps.choosing import DRIFT, choose
from tasks.steps.experiment import Experiment
from tasks.steps.index import INDEX, carried_on
from tasks.steps.levels import Placed, lay_levels, place_lesson
from tasks.steps.online import set_turns
from tasks.steps.partners import check_partners
from tasks.steps.population import Case, foundations, pool
from tasks.steps.rows import Growing, Rows, by_user, grouped, named, parted
from tasks.steps.sampling import sar_draw

SCORES: dict[str, Any] = {
    "recipe": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "period": pl.Int32,
    "logp_base": pl.Float64,
    "logp_adap": pl.Float64,
    "tokens": pl.Int32,
    "novelty": pl.Float64,
    "quality": pl.Float64,
    "drift_score": pl.Float64,
    "selected": pl.Boolean,
}
CONFIDENCES: dict[str, Any] = {  # of this period's items under the adapter that they met (CAMA)
    "recipe": pl.String,
    "user_id": pl.String,
    "confidence": pl.Float64,
}
CURVES: dict[str, Any] = {
    "recipe": pl.String,
    "user_id": pl.String,
    "period": pl.Int32,
    "step": pl.Int32,
    "loss": pl.Float64,
    "lr": pl.Float64,
    "grad_norm": pl.Float64,
}
TABLES = {"index": INDEX, "curves": CURVES, "confidences": CONFIDENCES, "scores": SCORES}


def main() -> None:
    """The state after period t-1 and period t's rows -> data/adapt/{t}/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--period", type=int, required=True)
    period = parser.parse_args().period
    bench, split = Experiment(), DATA / "split" / f"{period}.parquet"
    until, out = first_query(split), DATA / "adapt" / str(period)
    if bench.params.split.by == "count":  # `split` may have had other arms
        check_partners(bench.params.arms, read_parquet(split, ["user_id"])["user_id"].unique().to_list())
    fresh = out / "adapters.new"  # what an earlier run left stays until all is there
    shutil.rmtree(fresh, ignore_errors=True)
    with ExitStack() as held:
        tables = {name: held.enter_context(Parted(out / f"{name}.parquet")) for name in TABLES}
        for users in bench.blocks(split):
            new, placed = learn(bench, users, until, period) if until else ([], [])
            files = bench.store.link(new, fresh)
            for name, part in tables_of(bench, users, placed, files, period).items():
                tables[name].add(part)
        shutil.rmtree(out / "adapters", ignore_errors=True)
        if fresh.exists():
            fresh.rename(out / "adapters")


def learn(
    bench: Experiment, users: Users, until: datetime, period: int
) -> tuple[list[str], Iterator[Placed]]:
    """Has the adapters of some users learn a period: cells that are new, and all adapters of the period.

    until: its first test query.
    """
    cases = read_cases(bench, users, period)
    choose(bench, cases, period, users)
    cases = pool(cases, until=until, learned_until=bench.learned_until(period - 1))
    set_turns(bench, cases, period, users)
    if period == 0:
        cases = train_foundations(bench, cases, until) + cases
    start_late(bench, cases)
    cases, placed = lay_levels(bench, cases, until=until, period=period)
    jobs = [job_of(bench, case, period) for case in cases]
    keys = train(bench, jobs, f"adapt@{period} train{users.told}")
    lessons = (place_lesson(bench, case, key) for case, key in zip(cases, keys, strict=True))
    return [one.adapter.key for one in placed if one.file is None] + keys, chain(placed, lessons)


def first_query(split: Path) -> datetime | None:
    """The time of a period's first test query, of its last text if it has none; null: nobody wrote."""
    rows = read_parquet(split, ["part", "timestamp"])
    tests = rows.filter(pl.col("part") == "test")
    found = rows["timestamp"].max() if tests.is_empty() else tests["timestamp"].min()
    assert found is None or isinstance(found, datetime), "a column of times"
    return found


def start_late(bench: Experiment, cases: list[Case]) -> None:
    """Sets `previous` of users who come after period 0 and start from what all learned in it."""
    for case in cases:
        if case.previous is None and case.train.foundation is not None and not case.past:
            case.previous = bench.foundation(case.train.foundation)


def train_foundations(bench: Experiment, cases: list[Case], until: datetime) -> list[Case]:
    """Trains the shared adapters that user adapters start from, and sets them as `previous`."""
    members = foundations(cases)
    choose(bench, members, 0)
    known = {case.recipe for case in cases}
    shared = pool(members, until=until, learned_until={})
    keys = train(bench, [job_of(bench, case, 0) for case in shared], "adapt@0 population")
    found = {case.recipe: bench.adapter(key, case.train.lora) for case, key in zip(shared, keys, strict=True)}
    for case in cases:
        if case.train.foundation is not None:
            case.previous = found[case.train.foundation.recipe]
    return [case for case in shared if case.recipe not in known]


def job_of(bench: Experiment, case: Case, period: int) -> TrainJob:
    """What one case asks the engine to learn."""
    start = None if case.train.start == "base" else case.previous
    drawn = case.train.replay_draw
    draw = sar_draw(bench, case, period) if drawn == "sar" else None
    replay = case.chosen if drawn == "own" and case.replay else case.replay
    seed = bench.seed(case.user, period)
    how = learning_of(case.train, case.lesson)
    return TrainJob(how, case.chosen, replay, start, seed, case.turns, draw, case.over)


@cache
def learning_of(train: Train, lesson: int) -> Learning:
    """How the engine learns a lesson; one object for all users."""
    return train.at(lesson).learning


def read_cases(bench: Experiment, users: Users, period: int) -> list[Case]:
    """Every recipe for every one of some users, in a fixed order."""
    rows = read_train(period, users)
    columns = ["interaction_id", "logp", "tokens", "seconds"]
    scored = read_parquet(DATA / "score_base" / f"{period}.parquet", columns, users)
    rows = rows.join(scored, on="interaction_id", how="left", maintain_order="left")
    here = rows["user_id"].unique(maintain_order=True).to_list()
    history, held = rows.clear(), dict[tuple[str, str], Rows]()
    if period > 0:
        folder = DATA / "consolidate" / str(period - 1)
        history = read_parquet(folder / "history.parquet", users=users)
        columns = ["memory", "user_id", "interaction_id"]
        held = grouped(read_parquet(folder / "buffers.parquet", columns, users), "memory", "user_id")
    known = by_user(pl.concat([history, rows], how="diagonal"))
    absent = [user for user in known if user not in set(here)]
    previous = bench.adapters(period - 1, users)
    cases = []
    for recipe, arm in bench.recipes.items():
        how = recipe_of(arm)
        catches_up = how.shared and how.data in ("current", "cumulative")  # with what was too late before
        memory = arm.memory_id if how.replay_share > 0 else None
        for user in here + absent if catches_up else here:
            past, mine = parted(known[user], history.height)
            kept = {row["interaction_id"] for row in held.get((memory or "", user), ())}
            replay = named(past, kept)
            lesson = previous.lessons((recipe, None if how.shared else user))
            cases.append(Case(recipe, user, how, mine, past, replay, previous.of(recipe, user), lesson))
    return cases


def tables_of(
    bench: Experiment, users: Users, placed: Iterable[Placed], files: Mapping[str, str], period: int
) -> dict[str, pl.DataFrame]:
    """Some users' rows of all tables, with those that are carried on; `files`: where new cells lie."""
    index, curves, sure, scores = map(Growing, TABLES.values())
    for one in placed:
        index.add([entry(one, period, one.file or f"adapters/{files[one.adapter.key]}")])
        curves.add(curve_rows(one, period))
        sure.add(one.case.confidences)
        scores.add(score_rows(one.case, period))
    learned, confidences = index.frame(), sure.frame()
    if period > 0:
        before = read_parquet(DATA / "adapt" / str(period - 1) / "confidences.parquet", users=users)
        before = before.filter(pl.col("recipe").is_in(list(bench.recipes)))
        kept = before.join(confidences, on=["recipe", "user_id"], how="anti")
        confidences = pl.concat([confidences, kept])
    index_rows = pl.concat([learned, carried_on(learned, bench.recipes, period, users)])
    return dict(zip(TABLES, (index_rows, curves.frame(), confidences, scores.frame()), strict=True))


def entry(one: Placed, period: int, file: str) -> dict[str, Any]:
    """The row of index.parquet."""
    case, curve = one.case, one.curve
    return {
        "recipe": case.recipe,
        "user_id": case.user,
        "period": period,
        "lesson": case.lesson,
        "cell": one.adapter.key,
        "file": file,
        "bytes": one.size,
        "chosen": [row["interaction_id"] for row in case.chosen],
        "items": curve["items"],
        "steps": len(curve["loss"]),
        "tokens": curve["tokens"],
        "seconds": curve["seconds"],
        "seconds_score": case.seconds_score,
        "until": case.until,
    }


def curve_rows(one: Placed, period: int) -> Iterator[dict[str, Any]]:
    """The rows of curves.parquet."""
    common = {"recipe": one.case.recipe, "user_id": one.case.user, "period": period}
    for step in range(len(one.curve["loss"])):
        yield common | {"step": step} | {name: one.curve[name][step] for name in ("loss", "lr", "grad_norm")}


def score_rows(case: Case, period: int) -> Iterator[dict[str, Any]]:
    """The rows of scores.parquet."""
    for one in case.scores:
        common = {"recipe": case.recipe, "user_id": one.user, "period": period}
        for row, found in zip(one.rows, one.found.tolist(), strict=True):
            named = dict(zip(DRIFT, found, strict=True))
            yield common | {"interaction_id": row["interaction_id"]} | named


if __name__ == "__main__":
    run(main)
