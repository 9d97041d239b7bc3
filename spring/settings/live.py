"""Parameters of a live project: where updates are committed, what new adapters are asked (docs/live.md)."""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import Field, model_validator

from spring.engine.strict import Name, PositiveInt, Share, Strict, added
from spring.live.verdict import MOST, MOST_PERIODS
from spring.settings.ingest import Ingest


class Drift(Strict):
    """How far outputs on neutral texts may shift, nats per token; null: as far as they like."""

    base: Annotated[float, Field(gt=0)] | None  # from the base model's
    before: Annotated[float, Field(gt=0)] | None  # from those of the adapter in service


class Gate(Strict):
    """What is asked of a new adapter before it takes the place of the one in service."""

    margin: Annotated[float, Field(ge=0)]  # log-likelihood per token, nats: less is no change
    level: Annotated[float, Field(gt=0, lt=0.5)]  # probability that one worse by just the margin is refused
    items: Annotated[int, Field(ge=1, le=MOST)]  # a user's latest held-out texts, new and older ones, at most
    least: PositiveInt  # with fewer, likelihood is not asked
    # how many periods' new texts must bear out what makes older ones worse: a burst of fewer is kept out
    confirm: Annotated[int, Field(ge=1, le=MOST_PERIODS), added(2)]
    drift: Drift
    alarm: Share  # of the users judged: when more were held or refused, the update says so by its exit code

    @model_validator(mode="after")
    def _least_can_be_reached(self) -> Gate:
        if self.least > self.items:
            raise ValueError(
                f"live.gate.least is {self.least}, live.gate.items {self.items}: likelihood would never be "
                f"asked; set least to {self.items} or less"
            )
        return self


class Live(Strict):
    """That updates are committed, and where."""

    branch: Annotated[str, Field(min_length=1)]  # of Git; on another one nothing is updated
    arm: Annotated[Name | None, added(None)]  # whose adapters are served; null: the first one that learns
    gate: Annotated[Gate | None, added(None)]  # null: every new adapter is published


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
