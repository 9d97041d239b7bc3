"""Writes adapters as folders that PEFT, vLLM and others load.

    python -m tasks.export FOLDER [--arm spring] [--period 4] [--user ID ...]

A folder per user, `USER@PERIOD`: its id made readable and safe as a name, with a fingerprint behind it.
`users.json` beside them says whose is which. Without --arm the first one that learns; without --period the
last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from spring.settings.params import Params
from tasks.files import DATA, write_json
from tasks.params import load_params
from tasks.steps.index import INDEX, read_held, read_index, user_folder

BESIDE = {"curve.json", "uses.json", "carried.safetensors"}  # what only this project reads


class ExportError(Exception):
    """What was asked for is not there; the message says what is."""


def main() -> None:
    """Writes the folders, and says how many."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arm")
    parser.add_argument("--period", type=int)
    parser.add_argument("--user", nargs="+", metavar="ID", help="all, without it")
    asked = parser.parse_args()
    try:
        params = load_params()
        period = max(params.periods) if asked.period is None else asked.period
        rows = find(params, asked.arm, period, asked.user)
        export(rows, period, asked.folder)
    except (ExportError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{rows.height} adapters, as they were after period {period}, are in {asked.folder}")


def find(params: Params, arm: str | None, period: int, users: Iterable[str] | None) -> pl.DataFrame:
    """The rows of the index (`INDEX`) that are meant; raises `ExportError`."""
    learning = [name for name, one in params.arms.items() if one.recipe is not None]
    name = arm or next(iter(learning), None)
    if name not in learning:
        raise ExportError(f"no arm {name} of this experiment learns; those that do: {', '.join(learning)}")
    if period not in params.periods:
        raise ExportError(f"there is no period {period}; there are {', '.join(map(str, params.periods))}")
    rows = read_index(period).filter(pl.col("recipe") == params.arms[name].recipe)
    if users is None:
        return rows
    unknown = sorted(set(users) - set(rows["user_id"].drop_nulls()))
    if unknown:
        raise ExportError(f"{', '.join(unknown)} has no adapter of {name} after period {period}")
    return rows.filter(pl.col("user_id").is_in(list(users)))


def export(rows: pl.DataFrame, period: int, to: Path) -> None:
    """Writes the adapters of `rows` below `to`."""
    assert rows.schema == INDEX, rows.schema
    names = {}
    for user, file, cell in rows.select("user_id", "file", "cell").iter_rows():
        name = f"{user_folder(user)}@{period}"
        names[name] = user
        (to / name).mkdir(parents=True, exist_ok=True)
        for part, content in read_held(DATA / f"adapt/{period}" / file, cell).items():
            if part not in BESIDE:
                (to / name / part).write_bytes(content)
    write_json(names, to / "users.json")


if __name__ == "__main__":
    main()
