"""Keeping a run: its metrics, tables without text or user ids, parameters and suite, under its seed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from spring.settings.params import Params
from spring.store.keys import fingerprint
from tasks.evaluate import METRICS_FILE, over_periods, read_metrics, settings
from tasks.files import DATA, read_parquet, write_parquet
from tasks.measures.scores import METRICS
from tasks.params import PARAMS, load_params
from tasks.suites import FOLDER as SUITES

FOLDER = DATA / "seeds"
KEPT = ("users", "transfer", "detection")  # tables of data/evaluate
SUITE = "suite.yaml"  # in a kept run: the suite as it was
# May be of some runs alone: of chrF what all have is pooled; earlier runs do not say what scored them
OPTIONAL = ("transfer", "chrf", "scored_by")
FILES = ("metrics.json", PARAMS.name, SUITE, *(f"{name}.parquet" for name in KEPT))
MACHINE = "machine.json"  # of a kept run: what it was computed on, where that was recorded
Run = tuple[dict[str, Any], dict[str, pl.DataFrame]]  # metrics, and the tables of `KEPT`


class SeedError(RuntimeError):
    """Runs that cannot be pooled; the message says why and what to do."""


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
    machine = DATA / f"generate/{max(params.periods)}" / MACHINE
    if machine.exists():
        shutil.copyfile(machine, part / MACHINE)
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


def params_of(folder: Path) -> Params:
    """The parameters that kept runs were made with: of any of them, they differ in the seed alone."""
    found = sorted(folder.glob(f"*/{SUITE}"))
    if not found:
        raise SeedError(f"{folder} holds no kept runs (SEED/{PARAMS.name} and SEED/{SUITE})")
    return load_params(found[0].with_name(PARAMS.name), suite=found[0])


def differences(some: dict[str, str], others: dict[str, str]) -> str:
    """Names of the settings that are not the same; those of `OPTIONAL` may be missing in one."""
    names = sorted(some.keys() | others.keys())
    names = [name for name in names if name not in OPTIONAL or (name in some and name in others)]
    return ", ".join(name for name in names if some.get(name) != others.get(name))


def scoring(metrics: dict[str, Any]) -> dict[str, str]:
    """How texts were compared: METEOR knows synonyms where WordNet is installed.

    What counts as a word has changed once. A run that was kept before may be of texts that this concerns or
    not, which nothing that is kept can tell, so it is not pooled with later ones.
    """
    return {name: metrics[name] for name in ("rouge", "meteor", "chrf", "scored_by") if name in metrics}


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
