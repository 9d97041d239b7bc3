"""The page of kept runs, and an index of all of results/.

    python -m tasks.seeds.pages results/personas-plus     writes results/personas-plus/report.html
    python -m tasks.seeds.pages                           every folder's of results/, and results/index.html

Pages are as of a run at hand, less what is not kept: texts, names, learning curves. They can be made again at
any time and are not in Git. Kept runs that cannot be pooled are told, and left out of the index.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from spring.settings.params import ParameterError, Params
from tasks.files import write_text
from tasks.params import PARAMS, load_start
from tasks.reporting.answer import answer_of
from tasks.reporting.looks import COLOURS
from tasks.reporting.page import Content, environment, render
from tasks.reporting.provenance import of_kept
from tasks.seeds.keeping import SUITE, Run, SeedError, params_of, read_kept
from tasks.seeds.pooling import lacking, pool, together
from tasks.suites import parse_suite

RESULTS = Path("results")


@dataclass(frozen=True)
class Entry:
    """One row of the index."""

    folder: str
    question: str
    sentence: str
    users: int
    seeds: int
    arms: int


def main() -> None:
    """Writes the pages that are asked for; without any, all and the index."""
    parser = argparse.ArgumentParser(prog="python -m tasks.seeds.pages", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="kept runs (default: all of results/)")
    folders = parser.parse_args().folders
    entries: list[Entry] = []
    for folder in folders or sorted(path.parent.parent for path in RESULTS.glob(f"*/*/{SUITE}")):
        if entries and entries[-1].folder == folder.name:  # another seed of the one before
            continue
        try:
            entries.append(write_page(folder))
        except (SeedError, ParameterError, FileNotFoundError) as error:
            if folders:
                sys.exit(f"error: {error}")
            print(f"left out: {error}", file=sys.stderr)
            continue
        print(f"{folder}/report.html")
    if not folders:
        page = environment().get_template("index.html.j2").render(entries=entries, colours=COLOURS)
        write_text(page, RESULTS / "index.html")
        print(f"{RESULTS}/index.html")


def write_page(folder: Path) -> Entry:
    """Pools the runs in `folder` and writes its report.html; its row of the index."""
    params = params_of(folder)
    runs = read_kept(params, folder)
    content = content_of(params, runs, pool(params, runs), folder)
    write_text(render(content), folder / "report.html")
    metrics = content.metrics
    return Entry(
        folder=folder.name,
        question=content.suite.question,
        sentence=content.answer.sentence,
        users=metrics["users"],
        seeds=len(metrics["seeds"]),
        arms=len(metrics["arms"]),
    )


def content_of(params: Params, runs: dict[int, Run], metrics: dict[str, Any], folder: Path) -> Content:
    """What a page shows of kept runs."""
    first = folder / str(min(runs))
    left = lacking(runs)
    tables: dict[int, pl.DataFrame] = {
        seed: frames["users"].drop(left, strict=False) for seed, (_, frames) in runs.items()
    }
    params = params.model_copy(update={"seed": min(runs)})
    suite = parse_suite(first / SUITE)
    users = together(params, tables, ["arm", "user_id", "period"])
    found = answer_of(params, metrics, suite, users)
    title = f"{params.report.title}: {params.suite}" if params.suite != "main" else params.report.title
    params = params.model_copy(update={"report": params.report.model_copy(update={"title": title})})
    return Content(
        params=params,
        metrics=metrics,
        suite=suite,
        start=load_start(first / PARAMS.name, suite=first / SUITE),
        users=users,
        answer=found,
        provenance=of_kept(params, metrics, folder),
        root=f"{os.path.relpath(Path.cwd(), folder)}/",
        files={
            "tables": "md",
            "tables as files": "tables/",
            "drawings as files": "plots/",
            "settings": f"{min(runs)}/{PARAMS.name}",
            "the suite": f"{min(runs)}/{SUITE}",
            "all results": "../index.html",
        },
    )


if __name__ == "__main__":
    main()
