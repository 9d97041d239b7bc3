"""Stage `ingest`: a source -> data/ingest/*.parquet, and what became of every row -> data/ingest.json.

Texts of rows that are checked wait in files, and are read again and written in blocks of users.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from spring.data.checking import Checked, check_rows, leave_out
from spring.data.forgotten import read_forgotten, without
from spring.data.rows import Opened, RawRow, Reason, Skip, SourceError, rows_of
from spring.data.sources.registry import SOURCES
from spring.method.prompts import Prompt
from spring.settings.ingest import Ingest
from tasks.code import note_read
from tasks.files import DATA, of_users, write_json, write_parquet
from tasks.params import load_params
from tasks.stage import run, text_of
from tasks.steps.blocks import Parted, in_blocks
from tasks.steps.fields import Fields

log = logging.getLogger(__name__)

LABELS = {"interaction_id": pl.String, "drift": pl.String, "is_drift": pl.Boolean}
COUNTS = DATA / "ingest.json"
TABLES = DATA / "ingest"
WAITING = ".checking-"  # begins the names of folders in which texts wait
# Not in data/ingest, which DVC empties before each attempt: what stopped the stage stays readable.
REFUSED = DATA / "ingest-quarantine.parquet"


class QuarantineError(SourceError):
    """So many rows are bad that the source or its mapping must be wrong."""


def main() -> None:
    """Reads the source, checks every row, applies the limits and writes tables and counts."""
    params = load_params()
    labels = [pl.DataFrame(schema=LABELS)]
    rows = read_source(params.ingest, seed=params.seed, labels=labels)
    how = params.ingest
    with waiting_room() as folder:
        checked = check_rows(rows, min_chars=how.min_chars, max_chars=how.max_chars, folder=folder)
        stop_if_spoiled(checked, how)
        kept, left_out = leave_out(
            checked.placed,
            min_interactions=how.min_interactions,
            max_users=how.max_users,
            max_interactions=how.max_interactions,
        )
        metrics = count(checked, kept, left_out)
        if kept.is_empty():
            raise SourceError(
                f"no user has ingest.min_interactions = {how.min_interactions} usable interactions: "
                f"lower it, or see where they went: {metrics}"
            )
        write_interactions(checked, kept, params.prompts)
    known = kept.select("interaction_id").join(pl.concat(labels), "interaction_id", maintain_order="left")
    write_parquet(known, TABLES / "labels.parquet")
    write_parquet(checked.quarantine, TABLES / "quarantine.parquet")
    write_parquet(left_out, TABLES / "left_out.parquet")
    before = text_of(COUNTS)
    write_json({"source": how.source, **metrics}, COUNTS)
    if text_of(COUNTS) != before:  # of a source outside it runs every time, and says what is new only
        log.info("ingest: %s", ", ".join(f"{name} {value}" for name, value in metrics.items() if value))
    for line in remarks(checked, how):
        log.warning("%s", line)
    REFUSED.unlink(missing_ok=True)


@contextmanager
def waiting_room() -> Iterator[Path]:
    """A folder beside the tables in which texts wait; gone with the block, as is what a killed run left."""
    TABLES.mkdir(parents=True, exist_ok=True)
    for killed in TABLES.glob(f"{WAITING}*"):
        shutil.rmtree(killed)
    try:
        with tempfile.TemporaryDirectory(dir=TABLES, prefix=WAITING) as folder:
            yield Path(folder)
    finally:
        if not any(TABLES.iterdir()):  # of a source that was refused
            TABLES.rmdir()


def read_source(
    ingest: Ingest, *, seed: int, labels: list[pl.DataFrame] | None = None
) -> Iterable[RawRow | Skip | Opened]:
    """Raw rows of the source in use, without who was forgotten.

    labels: where labels of rows whose drift is known go, as the rows are read.
    """
    source, forgotten = SOURCES[ingest.source], read_forgotten(kept_folder(ingest))
    if source.make is not None:
        return without(_made(source.make(ingest.block, seed=seed), labels), forgotten)
    assert source.read is not None, "a source is read or made"
    return without(source.read(ingest.block), forgotten)


def _made(parts: Iterable[pl.DataFrame], labels: list[pl.DataFrame] | None) -> Iterator[RawRow]:
    """Rows of a source that makes tables, numbered through."""
    first = 1
    for part in parts:
        if labels is not None:
            labels.append(part.select(pl.col(name).cast(kind) for name, kind in LABELS.items()))
        yield from rows_of(part, first=first)
        first += part.height


def write_interactions(checked: Checked, kept: pl.DataFrame, prompts: dict[str, Prompt]) -> None:
    """The canonical table, in blocks of users. Raises `ParameterError` if its rows do not fit the prompts."""
    fields = Fields()
    with Parted(TABLES / "interactions.parquet") as table:
        for users in in_blocks(kept["user_id"].unique()):
            rows = checked.rows(of_users(users, kept.lazy()).collect())
            fields.add(rows)
            table.add(rows)
        fields.check(prompts)


def kept_folder(ingest: Ingest) -> Path:
    """Where it stands who was forgotten: beside an inbox's ledger, of any other source in live/."""
    return Path(ingest.inbox.kept) if ingest.source == "inbox" else Path("live")


def stop_if_spoiled(checked: Checked, ingest: Ingest) -> None:
    """Raises `QuarantineError` if more rows than `max_quarantined` are bad, or none was read at all."""
    if checked.read == 0:
        raise QuarantineError(
            f"ingest.{ingest.source} gave no rows (skipped: {checked.skipped}): check that block"
        )
    share = checked.quarantine.height / checked.read
    if share > ingest.max_quarantined:
        write_parquet(checked.quarantine, REFUSED)
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in count_reasons(checked.quarantine).items())
        raise QuarantineError(
            f"{checked.quarantine.height} of {checked.read} rows ({share:.1%}) cannot be used, and "
            f"ingest.max_quarantined allows {ingest.max_quarantined:.1%}. By reason: {reasons}. Each is in "
            f"{REFUSED} with row, field and value. Mend the source or the block ingest.{ingest.source}, or "
            f"raise ingest.max_quarantined to go on without these rows."
        )


def count(checked: Checked, kept: pl.DataFrame, left_out: pl.DataFrame) -> dict[str, object]:
    """What became of every row: rows_read = kept + quarantined + left out."""
    left = int(left_out["interactions"].sum())
    assert checked.read == kept.height + checked.quarantine.height + left, "a row was lost"
    users_all, users = (frame["user_id"].n_unique() for frame in (checked.placed, kept))
    by_reason = left_out.group_by("reason").agg(pl.col("interactions").sum()).sort("reason")
    return {
        "rows_read": checked.read,
        "rows_kept": kept.height,
        "rows_quarantined": checked.quarantine.height,
        "rows_left_out": left,
        "users_kept": users,
        "users_left_out": users_all - users,
        "quarantined": count_reasons(checked.quarantine),
        "left_out": dict(by_reason.iter_rows()),
        "skipped": dict(sorted(checked.skipped.items())),
        **({"users_joined": len(checked.joined)} if checked.joined else {}),
        **({"opened": checked.opened} if checked.opened else {}),
    }


def remarks(checked: Checked, ingest: Ingest) -> list[str]:
    """What was decided for the source and may be wrong: users made one, words taken for missing values."""
    told = []
    if checked.joined:
        ways = [f"{user!r} from {', '.join(map(repr, spelled))}" for user, spelled in checked.joined.items()]
        told.append(
            f"{len(ways)} users are written in several ways that differ in blanks, invisible characters or "
            f"Unicode's forms alone, and were made one: {'; '.join(ways[:10])}{' ...' if ways[10:] else ''}"
        )
    words = checked.quarantine.filter(pl.col("reason") == str(Reason.MISSING_WORD))
    if words.height:
        found = sorted({f"{field} {value!r}" for field, value in words.select("field", "value").iter_rows()})
        told.append(
            f"{words.height} rows have a word for a missing value: {', '.join(found[:10])}. If such a word "
            f"is meant, leave it out of a list ingest.{ingest.source}.missing of your own (docs/data.md)"
        )
    return told


def count_reasons(quarantine: pl.DataFrame) -> dict[str, int]:
    """Rows in quarantine by reason, most frequent first."""
    counts = quarantine.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return dict(counts.iter_rows())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
    note_read()
