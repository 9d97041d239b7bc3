"""params.yaml with its suite, read and checked.

`python -m tasks.params` checks it and says in at most five lines what is wrong, before any work is begun.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl

from spring.settings.params import ParameterError, Params
from tasks.suites import lay, parse_suite, parse_with_suite, read_suite
from tasks.tree import read_tree

PARAMS = Path("params.yaml")


def load_params(path: Path = PARAMS, *, suite: Path | None = None) -> Params:
    """Reads and checks the parameter file with its suite (`ParameterError` names every bad key).

    The suite is the one of suites/ that the file names, unless `suite` says where one lies.
    """
    try:
        tree = read_tree(path)
    except FileNotFoundError:
        raise ParameterError(f"{path} does not exist; run from the root of the project") from None
    return parse_with_suite(tree, str(path), suite=suite)


def load_start(path: Path = PARAMS, *, suite: Path | None = None) -> dict[str, Any]:
    """The block `arm`, what every arm starts from, with the suite's changes; of a file that can be used."""
    tree = read_tree(path)
    start: dict[str, Any] = lay(tree, parse_suite(suite) if suite else read_suite(tree.get("suite")))["arm"]
    return start


def sample_users(params: Params, frame: pl.DataFrame) -> list[str]:
    """The users shown one by one, in the report and to W&B: the first by name."""
    return sorted(frame["user_id"].unique())[: params.report.sample_users]


def main() -> None:
    """Checks the parameters."""
    try:
        load_params()
    except ParameterError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
