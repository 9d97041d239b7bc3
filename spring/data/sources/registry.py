"""The sources by name. A new one is a module beside these, with its settings and its `read`, and a line here.

All settings are read whichever source is in use, so what is slow to import belongs inside `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import polars as pl

from spring.data.rows import Opened, RawRow, Skip
from spring.data.sources import amazon, changelogs, git, inbox, lamp, longlamp, table
from spring.data.sources.personas import generate as personas
from spring.engine.strict import Strict


@dataclass(frozen=True)
class Source:
    """Where interactions come from; either `read` or `make`, which take the block `ingest.NAME`."""

    settings: type[Strict]
    task: str | Callable[[Any], str]  # which of `prompts` the rows answer; or where the settings say it
    read: Callable[[Any], Iterable[RawRow | Skip | Opened]] | None = None  # rows as they stand there
    make: Callable[..., Iterable[pl.DataFrame]] | None = None  # (settings, seed=...): parts, with labels
    columns: str | None = None  # the source whose block says the task and the columns; null: its own
    required: bool = False  # its block must be in params.yaml; blocks of sources that came later need not

    def __post_init__(self) -> None:
        assert (self.read is None) != (self.make is None), "a source is read or made"


SOURCES: dict[str, Source] = {
    "personas": Source(personas.PersonasSource, personas.TASK, make=personas.parts, required=True),
    "changelogs": Source(changelogs.ChangelogsSource, changelogs.TASK, changelogs.read, required=True),
    "git": Source(git.GitSource, git.TASK, git.read, required=True),
    "table": Source(table.TableSource, attrgetter("task"), table.read, required=True),
    "longlamp": Source(longlamp.LongLampSource, longlamp.prompt_of, longlamp.read),
    "lamp": Source(lamp.LampSource, lamp.prompt_of, lamp.read),
    "amazon": Source(amazon.AmazonSource, amazon.TASK, amazon.read),
    "inbox": Source(inbox.InboxSource, attrgetter("task"), inbox.read, columns="table"),
}
