"""Stage `ingest`: a source -> data/ingest/*.parquet, and what became of every row -> data/ingest.json."""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from spring.data.forgotten import read_forgotten, without
from spring.data.quarantine import Checked, check_rows, leave_out
from spring.data.rows import Opened, RawRow, Reason, Skip, SourceError, rows_of
from spring.data.sources.registry import SOURCES
from spring.method.prompts import Prompt
from spring.settings.ingest import Ingest
from spring.settings.params import ParameterError
from tasks.code import note_read
from tasks.files import DATA, write_json, write_parquet
from tasks.params import load_params
from tasks.stage import run, text_of

log = logging.getLogger(__name__)

LABELS = {"interaction_id": pl.String, "drift": pl.String, "is_drift": pl.Boolean}
COUNTS = DATA / "ingest.json"
TABLES = ("interactions", "labels", "quarantine", "left_out")
# Not in data/ingest, which DVC empties before each attempt: what stopped the stage stays readable.
REFUSED = DATA / "ingest-quarantine.parquet"


class QuarantineError(SourceError):
    """So many rows are bad that the source or its mapping must be wrong."""


def main() -> None:
    """Reads the source, checks every row, applies the limits and writes tables and counts."""
    params = load_params()
    rows, labels = read_source(params.ingest, seed=params.seed)
    checked = check_rows(rows, min_chars=params.ingest.min_chars, max_chars=params.ingest.max_chars)
    stop_if_spoiled(checked, params.ingest)
    interactions, left_out = leave_out(
        checked.interactions,
        min_interactions=params.ingest.min_interactions,
        max_users=params.ingest.max_users,
        max_interactions=params.ingest.max_interactions,
    )
    metrics = count(checked, interactions, left_out)
    if interactions.is_empty():
        raise SourceError(
            f"no user has ingest.min_interactions = {params.ingest.min_interactions} usable interactions: "
            f"lower it, or see where they went: {metrics}"
        )
    check_prompts(interactions, params.prompts)
    labels = interactions.select("interaction_id").join(labels, "interaction_id", maintain_order="left")
    for name, table in zip(TABLES, (interactions, labels, checked.quarantine, left_out), strict=True):
        write_parquet(table, DATA / f"ingest/{name}.parquet")
    before = text_of(COUNTS)
    write_json({"source": params.ingest.source, **metrics}, COUNTS)
    if text_of(COUNTS) != before:  # of a source outside it runs every time, and says what is new only
        log.info("ingest: %s", ", ".join(f"{name} {value}" for name, value in metrics.items() if value))
    for line in remarks(checked, params.ingest):
        log.warning("%s", line)
    REFUSED.unlink(missing_ok=True)


def read_source(ingest: Ingest, *, seed: int) -> tuple[Iterable[RawRow | Skip | Opened], pl.DataFrame]:
    """Raw rows of the source in use, and labels of those whose drift is known; without who was forgotten."""
    source, forgotten = SOURCES[ingest.source], read_forgotten(kept_folder(ingest))
    if source.make is not None:
        frame = source.make(ingest.block, seed=seed)
        labels = frame.select(pl.col(name).cast(kind) for name, kind in LABELS.items())
        return without(rows_of(frame), forgotten), labels
    assert source.read is not None, "a source is read or made"
    return without(source.read(ingest.block), forgotten), pl.DataFrame(schema=LABELS)


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


def count(checked: Checked, interactions: pl.DataFrame, left_out: pl.DataFrame) -> dict[str, object]:
    """What became of every row: rows_read = kept + quarantined + left out."""
    left = int(left_out["interactions"].sum())
    assert checked.read == interactions.height + checked.quarantine.height + left, "a row was lost"
    users_all, users = (frame["user_id"].n_unique() for frame in (checked.interactions, interactions))
    by_reason = left_out.group_by("reason").agg(pl.col("interactions").sum()).sort("reason")
    return {
        "rows_read": checked.read,
        "rows_kept": interactions.height,
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


def check_prompts(interactions: pl.DataFrame, prompts: dict[str, Prompt]) -> None:
    """Raises `ParameterError` if a task has no prompt or its prompt asks for a field that a query lacks."""
    for (task,), rows in interactions.group_by("task", maintain_order=True):
        if task not in prompts:
            raise ParameterError(
                f"the rows are of task {task!r}, which prompts lacks: add prompts.{task} "
                f"(there are {sorted(prompts)})"
            )
        given = set.intersection(*(set(json.loads(query)) for query in rows["query"]))
        prompt = prompts[str(task)]
        unknown = sorted(fields_of(prompt.user, f"prompts.{task}.user") - given)
        if unknown:
            raise ParameterError(
                f"prompts.{task}.user asks for {unknown}; the queries of ingest have {sorted(given)}. "
                f"A brace itself is written {{{{ or }}}}"
            )
        try:
            prompt.user.format_map(json.loads(rows["query"][0]))
        except (ValueError, LookupError, AttributeError) as error:
            raise ParameterError(
                f"prompts.{task}.user cannot be filled: {error}; a field is written {{NAME}}, a brace itself "
                f"{{{{ or }}}}"
            ) from None
        unfilled = [name for name in sorted(given) if f"{{{name}}}" in prompt.system]
        if unfilled:
            raise ParameterError(
                f"prompts.{task}.system holds {{{unfilled[0]}}}, but it is read as it stands: move the field "
                f"to prompts.{task}.user"
            )


def fields_of(template: str, key: str) -> set[str]:
    """The fields that a prompt asks for; raises `ParameterError` where it is no template."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ParameterError(f"{key}: {error}; a brace itself is written {{{{ or }}}}") from None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(main)
    note_read()
