"""Who is to be forgotten: their rows in the parts and in the inbox, and what tells of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flows.live.versions import LiveError
from spring.data.inbox.files import Found, look
from spring.data.inbox.ledger import clear as clear_writing
from spring.data.inbox.ledger import read_parts
from spring.data.inbox.removing import Cleared, clear
from spring.data.rows import RawRow, SourceError
from spring.data.sources.table import read_file
from spring.data.values import name_user
from spring.engine.strict import nearest
from spring.live.aliases import VersionError
from spring.live.traces import Traces
from spring.settings.params import Params
from tasks.files import DATA, read_parquet
from tasks.serving.registry import read_aliases

Row = dict[str, Any]  # of a part, or what a file's row has of that


@dataclass
class Known:
    """All rows of a live project, theirs and those of others, and all users."""

    theirs: list[Row] = field(default_factory=list)
    others: list[Row] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    taken: int = 0  # of theirs, those in the parts


def find(user: str, params: Params, kept: Path) -> tuple[Traces, Known]:
    """What tells of a user; `VersionError` where nobody is called so."""
    known = Known(users=set(read_aliases(kept).users))
    for part in read_parts(kept) if params.live else read_ingested():
        for row in part.iter_rows(named=True):
            _put(row, user, known)
    known.taken = len(known.theirs)
    for found in tables(params) if params.live else ():
        for raw in _rows_of(found, params):
            _put(as_part(raw), user, known)
    if user not in known.users:
        near = nearest(user, known.users)
        raise VersionError(f"nobody is called {user}{near and f'; {near}'}")
    if known.users == {user}:
        raise LiveError(f"{user} is the only one: nothing would be left to serve. Remove the whole project")
    names = {row["user_id"] for row in known.theirs if row["user_id"]}
    ids = {row["interaction_id"] for row in known.theirs if row.get("interaction_id")}
    texts = {text for row in known.theirs for text in _texts(row)}
    others = {text for row in known.others for text in (*_texts(row), *_names(row))} | (known.users - {user})
    return Traces.of(user, names, ids, texts, others), known


def read_ingested() -> Iterator[pl.DataFrame]:
    """The rows of a project that is not live, as the stage ingest gave them."""
    for name in ("interactions", "quarantine"):
        if (file := DATA / f"ingest/{name}.parquet").exists():
            yield read_parquet(file)


def _put(row: Row, user: str, known: Known) -> None:
    name = name_user(row["user_id"] or "")
    if name:
        known.users.add(name)
    (known.theirs if name == user else known.others).append(row)


def _texts(row: Row) -> Iterator[str]:
    texts = json.loads(row["query"]).values() if row.get("query") else ()
    yield from filter(None, (*texts, row.get("response"), row.get("value")))


def _names(row: Row) -> Iterator[str]:
    yield from filter(None, (row["user_id"], row.get("interaction_id"), row.get("rating")))


def as_part(raw: RawRow) -> Row:
    """What a row of a file has of a part's row."""
    damage = raw.damage
    return {
        "user_id": raw.user_id,
        "interaction_id": raw.interaction_id,
        "query": json.dumps(raw.query),
        "response": raw.response,
        "rating": raw.rating,
        "reason": damage and str(damage.reason),
        "value": damage and damage.value,
    }


def theirs(traces: Traces) -> Callable[[Row], bool]:
    """Whether a row is theirs; one that nobody could read is, if it holds them."""

    def is_theirs(row: Row) -> bool:
        name = name_user(row["user_id"] or "")
        if name or row["reason"] is None:
            return name == traces.user
        return traces.in_text(row["value"] or "")

    return is_theirs


def tables(params: Params) -> Iterator[Found]:
    """The tables in the inbox that rest; of others the search says whether they hold somebody."""
    inbox = Path(params.ingest.inbox.folder)
    return look(inbox, [], []) if inbox.exists() else iter(())


def _rows_of(found: Found, params: Params) -> Iterable[RawRow]:
    try:
        rows = list(read_file(params.ingest.table, found.path, found.name))
    except SourceError:  # refused by every update, too: the search says whether it holds them
        return []
    return [row for row in rows if isinstance(row, RawRow)]


def cleared(params: Params, kept: Path, traces: Traces, rename: Callable[[str], str]) -> dict[str, Cleared]:
    """The files of the inbox as they are without them, by name; those that cannot be read are left out."""
    clear_writing(kept)
    is_theirs, files = theirs(traces), {}
    for found in tables(params):
        try:
            files[found.name] = clear(
                found, params.ingest.table, kept, lambda raw: is_theirs(as_part(raw)), rename(found.name)
            )
        except SourceError:
            continue
    return files
