"""The parameters of an experiment as strict, frozen models.

The values live in `params.yaml` and nowhere else; this module says which keys exist, what they mean and
what is allowed. Keys that are unknown, missing or out of range are refused by name. Off is `null`.

An arm is written in `params.yaml` as its difference from the block `arm`, which is SPRInG with the paper's
settings: `spring: {}` is the method itself, `current: {train: {data: current}}` one change to it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from spring.data.calendar import read_every, read_zone
from spring.engine.settings import Model
from spring.engine.strict import Name, PositiveInt, Strict, added
from spring.method.prompts import Prompt
from spring.settings.arm import Arm
from spring.settings.complaints import Place, complaints, first_of, holds
from spring.settings.execution import Execution
from spring.settings.idle import Change, idle_keys
from spring.settings.ingest import Ingest
from spring.settings.live import Live, unfit


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names key, value, constraint and remedy."""


# --- what is read -----------------------------------------------------------------------------------------


class Split(Strict):
    """Where periods end, and the chronological split of each user's interactions inside each period."""

    test_share: Annotated[float, Field(gt=0, lt=1)]
    hold_out: Literal["test", "validation"]  # validation: choose hyperparameters without the test items
    by: Annotated[Literal["count", "calendar"], added("count")]  # equal counts per user; or dates
    every: Annotated[str | None, added(None)]  # how long a period of the calendar is: 1d, 2w, 1mo, 1q, 1y
    start: Annotated[datetime.date | None, added(None)]  # of period 0; null: the first interaction's unit
    time_zone: Annotated[str, added("UTC")]  # whose midnights periods begin at
    min_train: Annotated[PositiveInt, added(1)]  # a user's fewer train items of a period wait for the next

    @field_validator("every")
    @classmethod
    def _a_duration(cls, every: str | None) -> str | None:
        if every is not None:
            read_every(every)
        return every

    @field_validator("time_zone")
    @classmethod
    def _a_zone(cls, name: str) -> str:
        read_zone(name)
        return name

    @model_validator(mode="after")
    def _the_calendar_is_whole(self) -> Split:
        if self.by == "calendar" and self.every is None:
            raise ValueError("split.every is null; split.by calendar needs the length of a period, as in 1mo")
        for key in ("every", "start", "time_zone", "min_train") if self.by == "count" else ():
            value, usual = getattr(self, key), type(self).model_fields[key].default
            if value != usual:
                raise ValueError(
                    f"split.{key} is {value}: only split.by calendar reads it; set it to "
                    f"{'null' if usual is None else usual}, or split.by to calendar"
                )
        return self


# --- what is made of it -----------------------------------------------------------------------------------


class Evaluate(Strict):
    """Metrics and their uncertainty."""

    against: Name  # the arm that paired differences are taken from
    resamples: PositiveInt  # of the bootstrap
    confidence: Annotated[float, Field(gt=0, lt=1)]
    detect: Annotated[float, Field(gt=0)]  # relative difference for which the number of users needed is given
    power: Annotated[float, Field(gt=0, lt=1)]  # probability of detecting it


class Report(Strict):
    """Tables, plots and the page."""

    title: str
    sample_users: PositiveInt  # users shown one by one


Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s,][^\r\n\t,]*$")]  # as W&B takes them


class Tracking(Strict):
    """Weights & Biases."""

    mode: Literal["offline", "online", "disabled"]
    project: Name
    entity: Name | None  # user or team; null: that of the key
    tags: tuple[Tag, ...]
    log_text: bool  # sample generations and the page hold user text: off unless asked for
    # digests and where they lie; their bytes; nothing
    adapters: Annotated[Literal["reference", "upload"] | None, added("reference")]
    init_timeout: PositiveInt  # seconds

    @field_validator("tags")
    @classmethod
    def _every_tag_once(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({tag for tag in tags if tags.count(tag) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice; name every tag once")
        return tags


class Params(Strict):
    """A whole `params.yaml`."""

    experiment: Name
    suite: Name  # suites/NAME.yaml is laid over params.yaml
    seed: Annotated[int, Field(ge=0)]
    periods: dict[int, int | Literal["base"]]  # each period, and the state its learning starts from
    ingest: Ingest
    prompts: dict[str, Prompt]
    split: Split
    model: Model
    arms: dict[Name, Arm] = Field(min_length=1)
    transfer: Literal["likelihood", "generation"] | None  # every state on every period's tests; null: off
    evaluate: Evaluate
    report: Report
    tracking: Tracking
    live: Annotated[Live | None, added(None)]  # null: no live project
    execution: Execution = Field(default=Execution(), exclude=True)  # shapes no result

    @model_validator(mode="after")
    def _is_live_by_calendar(self) -> Params:
        if self.live is not None and (why := unfit(self.ingest, by=self.split.by, start=self.split.start)):
            raise ValueError(f"{why} (live.branch is {self.live.branch})")
        learning = [name for name, arm in self.arms.items() if arm.recipe is not None]
        if self.live is not None and self.live.arm not in (None, *learning):
            raise ValueError(f"live.arm is {self.live.arm!r}, not one of the arms that learn: {learning}")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        expected: dict[int, int | str] = {t: t - 1 if t else "base" for t in range(len(self.periods))}
        if list(self.periods.items()) != list(expected.items()) or len(expected) < 2:
            raise ValueError(
                f"periods is {dict(self.periods)}; it must be a chain of at least two periods, in order, "
                f"each starting from the one before, as in {{0: base, 1: 0, 2: 1}}"
            )
        least, most = 2 * len(self.periods), self.ingest.max_interactions
        if most is not None and most < least and self.split.by == "count":
            raise ValueError(
                f"ingest.max_interactions is {most}; {len(self.periods)} periods need {least} of every user, "
                f"one train and one test item each"
            )
        if self.evaluate.against not in self.arms:
            raise ValueError(
                f"evaluate.against is {self.evaluate.against!r}, not one of the arms {sorted(self.arms)}"
            )
        return self

    @model_validator(mode="after")
    def _arms_fit_model_and_periods(self) -> Params:
        longest, last = self.model.max_length, max(self.periods)
        for name, arm in self.arms.items():
            for block, what in (("profile", "a profile"), ("decode", "an answer")):
                settings = getattr(arm, block)
                if settings and settings.max_new_tokens >= longest:
                    raise ValueError(
                        f"arms.{name}.{block}.max_new_tokens is {settings.max_new_tokens}; {what} must be "
                        f"shorter than model.max_length, {longest}"
                    )
            if arm.memory and arm.memory.scope == "buffer" and arm.memory.first_period > last:
                raise ValueError(
                    f"arms.{name}.memory.first_period is {arm.memory.first_period}; it must be at most "
                    f"{last}, the last period, since a buffer that starts later stays empty"
                )
            if arm.train and arm.train.replay_share > 0 and arm.memory and arm.memory.first_period == last:
                raise ValueError(
                    f"arms.{name}.train.replay_share is {arm.train.replay_share}, but nothing would ever be "
                    f"replayed: memory.first_period is {last}, the last period, and what is kept is learned "
                    f"again in later ones"
                )
        return self


def merge(base: Any, change: Any) -> Any:
    """`change` laid over `base`: mappings are merged key by key, everything else is replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in change.items()}}
    return change


def parse(tree: dict[str, Any], where: str = "params.yaml") -> Params:
    """Checks a parsed parameter file; raises `ParameterError` that names every bad key."""
    tree = dict(tree)
    base, arms = tree.pop("arm", None), tree.get("arms")
    tree.pop("suite_values", None)  # suites have taken what they name of it (tasks/suites.py)
    if not isinstance(base, dict) or not isinstance(arms, dict):
        raise ParameterError(
            f"{where}: needs the block `arm` (what every arm starts from) and the block `arms`"
        )
    periods = tree.get("periods")
    if isinstance(periods, dict) and any(not isinstance(key, str) for key in periods):
        raise ParameterError(
            f'{where}: write the keys of `periods` in quotes, as in {{"0": base, "1": 0}}; '
            f"DVC makes no stages of unquoted ones"
        )
    tree["arms"] = {name: merge(base, {} if change is None else change) for name, change in arms.items()}

    def written(place: Place) -> Place:
        """`arm`, for what an arm has from there, or lacks because it is missing there."""
        key = place[2:]
        if place[:1] != ("arms",) or not key or holds(arms[place[1]], key):
            return place
        own = not holds(base, key) and len(key) > 1 and holds(arms[place[1]], key[:-1])
        return place if own else ("arm", *key)

    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        found = complaints(error, Params, written=written)
        raise ParameterError(f"{where} cannot be used, nothing was run:\n{found}") from None
    flags = {".".join(map(str, written(place))): value for place, value in truths(tree, params)}
    bad = [f"{key} is {value}: must be a number" for key, value in flags.items()]
    for name, arm in params.arms.items():
        bad += [f"arms.{name}.{line}" for line in idle_keys(arm, Change(base, arms[name] or {}))]
    if bad:
        lines = first_of([f"  {line}" for line in bad])
        raise ParameterError(f"{where} cannot be used, nothing was run:\n{lines}")
    return params


def truths(written: Any, read: Any) -> Iterator[tuple[tuple[str, ...], bool]]:
    """(place, value) where true or false was written for a number, which pydantic takes for 1 or 0."""
    for key, value in written.items():
        found = read.get(key) if isinstance(read, dict) else getattr(read, key)
        if isinstance(value, dict) and found is not None:
            yield from (((key, *inner), truth) for inner, truth in truths(value, found))
        elif isinstance(value, bool) and not isinstance(found, bool):
            yield (key,), value
