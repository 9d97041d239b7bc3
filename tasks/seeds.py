"""One experiment under several seeds: runs are kept side by side and compared together.

    python -m tasks.seeds --keep                    puts the run in data/ under data/seeds/EXPERIMENT/SEED/
    python -m tasks.seeds                           pools what is kept of this experiment: tables and drawings
    python -m tasks.seeds results/personas-plus     the same for runs that were moved elsewhere
    python -m tasks.seeds results/personas-plus --against parametric
                                                    differences from another arm: prints them, writes nothing

What is kept holds no text, its own params.yaml and suite, and fingerprints in place of user ids: it can be
published, and is read by what it was made with, whatever the suites have become.
A seed makes other personas, so there every user of every seed is one more user. Users of other sources are
the same people under every seed: their values are averaged over seeds first, and users stay the unit. The
matrix of transfer, which is dear, may be of some seeds alone: its measures are of their users. Of seconds
the median over seeds is taken, of other costs and whatever else has no unit of its own the mean.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import polars as pl

from spring.measures.transfer import Follow
from spring.settings.params import ParameterError, Params
from spring.store import fingerprint
from tasks.evaluate import (
    METRICS,
    METRICS_FILE,
    arm_metrics,
    metrics_in,
    over_periods,
    read_metrics,
    settings,
)
from tasks.files import DATA, read_parquet, write_json, write_parquet
from tasks.measures.comparison import compare_arms
from tasks.measures.detection import drift_metrics
from tasks.measures.matrix import compare_measures, following, summarise
from tasks.params import PARAMS, load_params
from tasks.reporting.findings import significance_table, transfer_tests_table
from tasks.reporting.summary import summarise_runs
from tasks.reporting.table import as_plain, paired_table
from tasks.suites import FOLDER as SUITES
from tasks.suites import parse_suite

FOLDER = DATA / "seeds"
KEPT = ("users", "transfer", "detection")  # tables of data/evaluate
SUITE = "suite.yaml"  # in a kept run: the suite as it was
FILES = ("metrics.json", PARAMS.name, SUITE, *(f"{name}.parquet" for name in KEPT))
Run = tuple[dict[str, Any], dict[str, pl.DataFrame]]  # metrics, and the tables of `KEPT`


class SeedError(RuntimeError):
    """Runs that cannot be pooled; the message says why and what to do."""


def main() -> None:
    """Keeps the run in hand, or pools the kept ones."""
    parser = argparse.ArgumentParser(prog="python -m tasks.seeds", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the run in data/ under its seed")
    parser.add_argument("folder", nargs="?", type=Path, help="kept runs (default: data/seeds/EXPERIMENT)")
    parser.add_argument("--against", metavar="ARM", help="print differences from this arm and write nothing")
    arguments = parser.parse_args()
    try:
        if arguments.keep:
            keep(load_params())
            return
        params = params_of(arguments.folder) if arguments.folder else load_params()
        folder = arguments.folder or FOLDER / params.experiment
        runs = read_kept(params, folder)
        if left := lacking(runs):
            print(f"left out, as not every run in {folder} has it: {', '.join(left)}", file=sys.stderr)
        if arguments.against:
            metrics = pool(compared_with(params, arguments.against), runs)
            for table in (paired_table, significance_table, transfer_tests_table):
                if (found := table(metrics, list(params.arms))).rows:
                    print(as_plain(found))
            return
        metrics = pool(params, runs)
        suite = parse_suite(folder / str(min(runs)) / SUITE)
    except (SeedError, ParameterError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    summarise_runs(params, metrics, folder, suite)
    write_json(metrics, folder / "metrics.json")
    seeds = ", ".join(map(str, metrics["seeds"]))
    print(f"{metrics['users']} users, seeds {seeds}. Tables and drawings: {folder}/tables/, plots/")


def keep(params: Params) -> None:
    """Copies what pooling needs of the run in data/; a kept run of the same seed is replaced."""
    metrics = read_metrics()
    if (metrics["experiment"], metrics["seed"]) != (params.experiment, params.seed):
        raise SeedError(
            f"{METRICS_FILE} is of {metrics['experiment']} with seed {metrics['seed']}, params.yaml says "
            f"{params.experiment} with seed {params.seed}: run `dvc repro` first"
        )
    odd = differences(metrics.get("settings", {}), settings(params))
    if odd:
        raise SeedError(
            f"{METRICS_FILE} was made under other settings ({odd}) than params.yaml has now: "
            f"run `dvc repro` first"
        )
    tables = {name: read_parquet(DATA / f"evaluate/{name}.parquet") for name in KEPT}
    check_same_run(params, metrics, tables["users"])
    folder = FOLDER / params.experiment / str(params.seed)
    part = folder.with_name(f".{params.seed}.part")  # becomes the kept run when it is whole
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(METRICS_FILE, part / "metrics.json")
    shutil.copyfile(PARAMS, part / PARAMS.name)
    shutil.copyfile(SUITES / f"{params.suite}.yaml", part / SUITE)
    for name, frame in tables.items():
        hidden = frame.with_columns(pl.col("user_id").map_elements(fingerprint, pl.String))
        write_parquet(hidden, part / f"{name}.parquet")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def check_same_run(params: Params, metrics: dict[str, Any], users: pl.DataFrame) -> None:
    """`SeedError` where the table of users does not have the means of `metrics`, which alone is in Git."""
    for arm in params.arms:
        means = over_periods(users, arm)
        for metric in METRICS:
            here = means[metric].mean() if metric in means.columns else None
            there = metrics["arms"][arm].get(metric, {}).get("mean")
            near = isinstance(here, float) and isinstance(there, float) and abs(here - there) < 1e-4
            if here != there and not near:
                raise SeedError(
                    f"{DATA}/evaluate is not of the run in {METRICS_FILE}: the mean {metric} of {arm} is "
                    f"{here!r} in the one and {there!r} in the other; run `dvc checkout` or `dvc repro` first"
                )


def compared_with(params: Params, arm: str) -> Params:
    """The same parameters with another arm to take differences from."""
    if arm not in params.arms:
        raise SeedError(f"--against {arm}: no such arm; there are {', '.join(params.arms)}")
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"against": arm})})


def params_of(folder: Path) -> Params:
    """The parameters that kept runs were made with: of any of them, they differ in the seed alone."""
    found = sorted(folder.glob(f"*/{SUITE}"))
    if not found:
        raise SeedError(f"{folder} holds no kept runs (SEED/{PARAMS.name} and SEED/{SUITE})")
    return load_params(found[0].with_name(PARAMS.name), suite=found[0])


def differences(some: dict[str, str], others: dict[str, str]) -> str:
    """Names of the settings that are not the same; the matrix of transfer may be missing in one."""
    names = sorted(some.keys() | others.keys())
    if not ("transfer" in some and "transfer" in others):
        names = [name for name in names if name != "transfer"]
    return ", ".join(name for name in names if some.get(name) != others.get(name))


def scoring(metrics: dict[str, Any]) -> dict[str, str]:
    """How texts were compared: METEOR knows synonyms where WordNet is installed."""
    return {name: metrics[name] for name in ("rouge", "meteor")}


def read_kept(params: Params, kept: Path) -> dict[int, Run]:
    """Seed -> every run in `kept`; `SeedError` where one has other settings."""
    found: dict[int, Run] = {}
    here = settings(params)
    for folder in sorted(kept.glob("*/"), key=lambda path: path.name):
        if not folder.name.isdigit():
            continue
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing:
            raise SeedError(
                f"{folder} lacks {', '.join(missing)}: it was kept by an earlier version or in part; delete "
                f"it, run its seed again and keep it with `python -m tasks.seeds --keep`"
            )
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        odd = differences(metrics.get("settings", {}), here)
        if odd:
            raise SeedError(
                f"{folder} was kept under other settings ({odd}) than those it is pooled with: "
                f"delete it, or set params.yaml and its suite back"
            )
        first = next(iter(found.values()))[0] if found else metrics
        if odd := differences(scoring(metrics), scoring(first)):
            raise SeedError(
                f"{folder} was scored with another {odd} than the seeds before it: delete it, or run "
                f"all of them again"
            )
        found[int(folder.name)] = metrics, {name: read_parquet(folder / f"{name}.parquet") for name in KEPT}
    if not found:
        raise SeedError(
            f"nothing is kept of {params.experiment}: after each run, `python -m tasks.seeds --keep`, "
            f'or all at once `make ablate SUITE={params.suite} SEEDS="0 1 2"`'
        )
    return dict(sorted(found.items()))


def lacking(runs: dict[int, Run]) -> list[str]:
    """The metrics that not every run has: some were kept before there was such a metric."""
    there = [metrics_in(tables["users"]) for _, tables in runs.values()]
    return [metric for metric in METRICS if not all(metric in found for found in there)]


def without(run: Run, left: list[str]) -> Run:
    """A run less some metrics of answers."""
    metrics, tables = run
    arms = {name: leave_out(found, left) for name, found in metrics["arms"].items()}
    transfer = {
        name: found | {"generated": leave_out(found["generated"], left)}
        for name, found in metrics["transfer"].items()
    }
    users = tables["users"].drop(left, strict=False)
    measured = tables["transfer"].filter(~pl.col("metric").is_in(left))
    return metrics | {"arms": arms, "transfer": transfer}, tables | {"users": users, "transfer": measured}


def leave_out(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A mapping less some names."""
    return {name: value for name, value in found.items() if name not in names}


def pool(params: Params, runs: dict[int, Run]) -> dict[str, Any]:
    """A metrics.json of all runs together, with the metrics that all of them have."""
    params = params.model_copy(update={"seed": min(runs)})  # of the resampling, whichever run was the last
    left = lacking(runs)
    runs = {seed: without(run, left) for seed, run in runs.items()}
    every = [metrics for metrics, _ in runs.values()]
    users, measured, detected = (
        together(params, {seed: tables[name] for seed, (_, tables) in runs.items()}, ["arm", "user_id", key])
        for name, key in zip(KEPT, ("period", "metric", "kind"), strict=True)
    )
    means = {name: over_periods(users, name) for name in params.arms}
    pooled: dict[str, Any] = average(every)
    del pooled["seed"]
    if params.ingest.seeded:
        pooled["interactions"] = sum(metrics["interactions"] for metrics in every)
    for name in params.arms:
        pooled["arms"][name] |= arm_metrics(params, users.filter(pl.col("arm") == name), means[name])
    if not measured.is_empty():
        with_matrix = [metrics for metrics in every if metrics["transfer"]]
        pooled["transfer"] = average([metrics["transfer"] for metrics in with_matrix])
        pool_transfer(params, pooled["transfer"], with_matrix, measured)
    return pooled | {
        "users": users["user_id"].n_unique(),
        "seeds": list(runs),
        "against": params.evaluate.against,
        "periods": every[0]["periods"],
        "paired": compare_arms(params, means, metrics_in(users)),
        "by_seed": by_seed(params, [tables["users"] for _, tables in runs.values()]),
        "transfer_paired": compare_measures(params, measured),
        "drift": drift_metrics(params, detected),
    }


def by_seed(params: Params, every: list[pl.DataFrame]) -> dict[str, dict[str, list[float]]]:
    """Arm -> metric -> mean difference from `evaluate.against` in each run, from their tables of users."""
    metrics = metrics_in(every[0])
    found = [
        {
            arm: over_periods(users, arm).select(pl.col(metrics).mean()).row(0, named=True)
            for arm in params.arms
        }
        for users in every
    ]
    against = params.evaluate.against
    return {
        arm: {name: [means[arm][name] - means[against][name] for means in found] for name in metrics}
        for arm in params.arms
        if arm != against
    }


def pool_transfer(
    params: Params, pooled: dict[str, Any], every: list[dict[str, Any]], measured: pl.DataFrame
) -> None:
    """Puts the measures of all users in the place of means over runs, in the block `transfer` of metrics."""
    curves = {
        name: follow_together([metrics["transfer"][name]["follow"] for metrics in every])
        for name in params.arms
    }
    for name, said in following(curves).items():
        found = summarise(params, measured.filter(pl.col("arm") == name))
        for metric, measures in found.pop("generated").items():
            pooled[name]["generated"][metric] |= measures
        pooled[name] |= found | said


def together(params: Params, runs: dict[int, pl.DataFrame], keys: list[str]) -> pl.DataFrame:
    """One row per `keys`: users that a seed makes apart, others once with their means over seeds."""
    if params.ingest.seeded:
        named = (
            frame.with_columns(user_id=pl.format("{}/{}", pl.lit(seed), "user_id"))
            for seed, frame in runs.items()
        )
        return pl.concat(named)
    rows = pl.concat(runs.values())
    groups = rows.group_by(keys, maintain_order=True)
    return groups.agg(pl.exclude(pl.Float64).first(), pl.col(pl.Float64).mean()).select(rows.columns)


def follow_together(curves: list[dict[str, Any]]) -> list[Follow]:
    """The curves of several runs as one: every change counts once."""
    found = []
    for periods in sorted({int(periods) for curve in curves for periods in curve}):
        points = [curve[str(periods)] for curve in curves if str(periods) in curve]
        changes = sum(point["changes"] for point in points)
        excess = sum(point["excess"] * point["changes"] for point in points) / changes
        found.append(Follow(periods, excess, changes))
    return found


def average(values: list[Any], middle: Callable[[list[Any]], float] = fmean) -> Any:
    """Means of numbers at the same place in equally built values; what is no number is the first one's.

    Of seconds the median: a machine that did other work beside one of the seeds made no method slower.
    """
    first = values[0]
    if isinstance(first, dict):
        return {
            key: average(
                [value[key] for value in values if key in value],
                median if key.startswith("seconds") else middle,
            )
            for key in first
        }
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not numbers:
        return first
    found = middle(numbers)
    return round(found) if all(isinstance(number, int) for number in numbers) else found


if __name__ == "__main__":
    main()
