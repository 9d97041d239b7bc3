"""The parameters of a live project: where updates of data that arrive are committed (docs/live.md)."""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import Field

from spring.engine.strict import Name, Strict, added
from spring.settings.ingest import Ingest


class Live(Strict):
    """That updates are committed, and where."""

    branch: Annotated[str, Field(min_length=1)]  # of Git; on another one nothing is updated
    arm: Annotated[Name | None, added(None)]  # whose adapters are served; null: the first one that learns


def unfit(ingest: Ingest, *, by: str, start: datetime.date | None) -> str:
    """Why updates cannot work with these settings; empty where they can."""
    if ingest.source != "inbox":
        return f"ingest.source is {ingest.source!r}; a live project takes its data from an inbox"
    if by != "calendar":
        return f"split.by is {by!r}; a live project needs the calendar's periods"
    if start is None:
        return "split.start is null; a live project needs the day on which period 0 begins"
    if ingest.table.arrived is not None:
        return (
            f"ingest.table.arrived is {ingest.table.arrived!r}; of an inbox it must be null: when rows "
            f"arrive is noted as they are taken"
        )
    free = {"min_interactions": 1, "max_users": None, "max_interactions": None}
    for key, nothing in free.items():
        if (value := getattr(ingest, key)) != nothing:
            return (
                f"ingest.{key} is {value}; it counts all there is, and what arrives would change closed "
                f"periods: a live project needs {'null' if nothing is None else nothing}"
            )
    return ""
