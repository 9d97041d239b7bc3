"""Where every artifact of the experiment lies, and how it is read and written.

data/code/STAGE                 a digest of the code that the stage can reach (stage code)
data/model/                     the base model            (stage model)
data/ingest.json                what became of every row; data/ingest-quarantine.parquet: of a refused source
data/ingest/                    interactions.parquet, labels.parquet, quarantine.parquet, left_out.parquet
data/split/{t}.parquet          interactions of period t with their part: train or test
data/split/waiting.parquet      of calendar periods: too few yet to be learned
data/score_base/{t}.parquet     log-likelihoods under the base model
data/adapt/{t}/                 scores.parquet, confidences.parquet, curves.parquet, index.parquet,
                                adapters/SEGMENT.safetensors (docs/scale.md)
                                ({t} is base before anything is learned, here and below)
data/consolidate/{t}/           history.parquet, buffers.parquet, candidates.parquet; profiles.parquet
                                (in words) and vectors.parquet; for gates: gate_scores.parquet,
                                transductive.parquet, gains.parquet; for steering: steers.parquet,
                                steer_seconds.parquet, steers/SEGMENT.safetensors
data/generate/{t}/              generations.parquet
data/transfer/                  likelihoods.parquet, texts.parquet
data/evaluate/                  items.parquet, users.parquet, transfer.parquet, detection.parquet, plots/*.csv
data/metrics.json               every number of the report
data/headline.json              the few that DVC compares between runs
data/report/                    report.html, tables and plots
data/.vega/VERSION.js           what the report's page draws with, as one script
data/seeds/EXPERIMENT/          SEED/ (kept runs, no text); metrics.json, tables/ and plots/ of all seeds
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spring.store.disk import sync

if TYPE_CHECKING:
    import polars as pl

DATA = Path("data")
GROUP = 16_384  # rows of a table that are read at once, where only some are wanted


class Users(NamedTuple):
    """Those whose ids are not before `first` and before `end`, by code points; null: there is no such bound.

    told: how a stage's bar calls them.
    """

    first: str | None = None
    end: str | None = None
    told: str = ""


EVERYBODY = Users()


def cells_folder() -> Path:
    """Where the cell store lies."""
    return Path(os.environ.get("SPRING_CELLS", ".cells"))


def read_parquet(path: Path, columns: list[str] | None = None, users: Users = EVERYBODY) -> pl.DataFrame:
    """A table that an earlier stage wrote, or some columns of it, or the rows of some users."""
    return scan_parquet(path, users).select(columns or "*").collect()


def scan_parquet(path: Path, users: Users = EVERYBODY) -> pl.LazyFrame:
    """The same, to be read when it is collected; a row without a user is of all."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro`, which runs the stage that writes it")
    import polars as pl  # here: the stage `code` runs before every other and needs none

    return of_users(users, pl.scan_parquet(path, glob=False, hive_partitioning=False))


def of_users(users: Users, table: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of some users, and those of all."""
    import polars as pl

    user = pl.col("user_id")
    if users.first is not None:
        table = table.filter(user.is_null() | (user >= users.first))
    if users.end is not None:
        table = table.filter(user.is_null() | (user < users.end))
    return table


def only(user: str) -> Users:
    """One user."""
    return Users(user, user + "\0")


def read_tests(period: int, users: Users = EVERYBODY, columns: list[str] | None = None) -> pl.DataFrame:
    """The test items of a period, or some columns of them."""
    tests = scan_parquet(DATA / f"split/{period}.parquet", users).filter(part="test")
    return tests.select(columns or "*").collect()


def read_train(period: int, users: Users = EVERYBODY) -> pl.DataFrame:
    """The train items of a period."""
    return scan_parquet(DATA / f"split/{period}.parquet", users).filter(part="train").collect()


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table; half a file is never left behind."""
    with atomic(path) as temporary:
        frame.write_parquet(temporary, row_group_size=GROUP)


def write_text(text: str, path: Path) -> None:
    """Writes a text file; half a file is never left behind."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Writes JSON, sorted and indented so that differences read well."""
    write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


class atomic:
    """Gives a temporary path beside `path` and moves it there when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".writing-", suffix=self.path.suffix)
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            umask = os.umask(0)
            os.umask(umask)
            self.temporary.chmod(0o666 & ~umask)
            sync(self.temporary)
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)
