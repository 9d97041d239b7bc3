"""One experiment under several seeds: runs are kept side by side and compared together.

    python -m tasks.seeds --keep                    puts the run in data/ under data/seeds/EXPERIMENT/SEED/
    python -m tasks.seeds                           pools what is kept of this one: page, tables, drawings
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
import sys
from pathlib import Path

from spring.settings.params import ParameterError, Params
from tasks.files import write_json, write_text
from tasks.params import load_params
from tasks.reporting.findings import significance_table, transfer_tests_table
from tasks.reporting.page import render
from tasks.reporting.summary import summarise_runs
from tasks.reporting.table import as_plain, paired_table
from tasks.seeds.keeping import FOLDER, SeedError, keep, params_of, read_kept
from tasks.seeds.pages import content_of
from tasks.seeds.pooling import lacking, pool


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
        content = content_of(params, runs, metrics, folder)
    except (SeedError, ParameterError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    summarise_runs(content, folder)
    write_text(render(content), folder / "report.html")
    write_json(metrics, folder / "metrics.json")
    seeds = ", ".join(map(str, metrics["seeds"]))
    print(f"{metrics['users']} users, seeds {seeds}. Page: {folder}/report.html, beside tables/ and plots/")


def compared_with(params: Params, arm: str) -> Params:
    """The same parameters with another arm to take differences from."""
    if arm not in params.arms:
        raise SeedError(f"--against {arm}: no such arm; there are {', '.join(params.arms)}")
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"against": arm})})


if __name__ == "__main__":
    main()
