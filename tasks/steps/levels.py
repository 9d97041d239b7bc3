"""The levels of arms with `train.experts` (spring/rivals/proper/levels.py), each of them a cell.

What all users share is learned in period 0 and handed on from period to period as it is: one cell, listed
without a user, which also answers for whoever has no adapter. What lies on top is the user's own: at level
`user` a lesson in every period, at level `group` the user's embedding alone, at level `population` nothing.
Like all that users share, the shared lessons hold nothing later than `until`, the first test query of period
0 of any user (tasks/cells/population.py), unless `experts.scope` is transductive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from spring.rivals.proper.fits import Founding, Layered
from spring.settings.train import Train
from tasks.cells.members import write_member
from tasks.cells.training import CURVE, TrainJob, train
from tasks.cells.workbench import Adapter
from tasks.steps.experiment import Experiment
from tasks.steps.index import from_before, read_index
from tasks.steps.population import Case, pool

UNTRAINED: dict[str, Any] = {"loss": [], "lr": [], "grad_norm": [], "items": 0, "tokens": 0, "seconds": 0.0}


@dataclass(frozen=True)
class Placed:
    """An adapter of the period: whose it is, its learning curve, and its size in bytes."""

    case: Case
    adapter: Adapter
    curve: dict[str, Any]
    size: int
    file: str | None = None  # where data/ has it already, from the period's folder; null: the store has it


def place_lesson(bench: Experiment, case: Case, key: str) -> Placed:
    """An adapter that was learned, with its curve; that it is whole was seen when its key was looked for."""
    found, lengths = bench.store.read_some(key, (CURVE,))
    return Placed(case, bench.adapter(key, case.train.lora), json.loads(found[CURVE]), size_of(lengths))


def size_of(lengths: Mapping[str, int]) -> int:
    """Bytes of an adapter, and of what its recipe keeps beside it, by those of its files."""
    return sum(length for name, length in lengths.items() if name != CURVE)


def lay_levels(
    bench: Experiment, cases: Sequence[Case], *, until: datetime, period: int
) -> tuple[list[Case], list[Placed]]:
    """The cases that have a lesson of their own in this period, and what is placed without one."""
    layered = [case for case in cases if case.train.group is not None]
    shared = learn_shared(bench, layered, until) if period == 0 else hand_on(bench, layered, period)
    lessons = [case for case in cases if case.train.group is None]
    placed = list(shared.values())
    for case in layered:
        beneath, experts = shared[case.recipe], case.train.experts
        if experts is None or experts.level == "population":
            continue
        case.over = Layered(case.train.lora, experts, beneath.adapter.key, beneath.adapter.read)
        if experts.level == "group":
            placed.append(member(bench, case, case.over))
        else:
            if case.previous and (period == 0 or not own(case.previous)):
                case.previous = None  # a shared level: it lies beneath, the user starts afresh
            lessons.append(case)
    return lessons, placed


def scored_apart(case: Case) -> dict[str, Any]:
    """What a shared part does not list beside users that have rows of their own: how items were chosen."""
    apart: dict[str, Any] = {} if case.train.foundation_alone else {"confidences": [], "seconds_score": 0.0}
    return {"scores": []} | apart


def own(adapter: Adapter) -> bool:
    """Whether an adapter is of level 3."""
    return isinstance(adapter.over, Layered) and adapter.over.experts.level == "user"


def learn_shared(bench: Experiment, cases: Sequence[Case], until: datetime) -> dict[str, Placed]:
    """The shared part of every recipe; each case's `previous` is the population LoRA it lies on."""
    lessons = [replace(case, train=_group(case), **scored_apart(case)) for case in cases]
    shared = pool(lessons, until=until, learned_until={})
    keys = train(bench, [shared_job(bench, case) for case in shared], "adapt@0 groups")
    found = {}
    for case, key in zip(shared, keys, strict=True):
        placed = place_lesson(bench, case, key)
        if case.train.experts is not None:  # its cost is that of both levels
            assert case.previous is not None
            before = json.loads(case.previous.read()[CURVE])
            placed = replace(placed, curve=joined(before, placed.curve))
        found[case.recipe] = placed
    return found


def shared_job(bench: Experiment, case: Case) -> TrainJob:
    """Level 2 on the population LoRA; where the arm stops at level 1, that again."""
    how = case.train
    if how.experts is None:
        return TrainJob(how.learning, case.chosen, [], None, bench.seed(None, 0))
    assert case.previous is not None
    users = tuple(sorted({row["user_id"] for row in case.chosen}))
    over = Founding(how.lora, how.experts, case.previous.key, users, case.previous.read)
    return TrainJob(how.learning, case.chosen, [], None, bench.seed(None, -1), over=over)


def hand_on(bench: Experiment, cases: Sequence[Case], period: int) -> dict[str, Placed]:
    """The shared parts of the period before; its case lists what the users were given meanwhile."""
    adapters = bench.adapters(period - 1)
    index = read_index(period - 1).filter(pl.col("user_id").is_null())
    files = dict(index.select("recipe", from_before(period)).iter_rows())
    found = {}
    for case in cases:
        if case.recipe not in found:
            adapter = adapters.shared(case.recipe)
            everybody = [row for other in cases if other.recipe == case.recipe for row in other.chosen]
            shared = replace(
                case, user=None, train=_group(case), chosen=everybody, until=None, **scored_apart(case)
            )
            size = size_of({name: len(content) for name, content in adapter.read().items()})
            found[case.recipe] = Placed(shared, adapter, UNTRAINED, size, files[case.recipe])
    return found


def member(bench: Experiment, case: Case, over: Layered) -> Placed:
    """What level 2 knows of one user."""
    key = write_member(bench, over, case.user or "")
    adapter = bench.adapter(key, case.train.lora)
    return Placed(case, adapter, UNTRAINED, size_of(bench.store.read_some(key, ())[1]))


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One lesson after the other, of the same items."""
    return {key: second[key] if key == "items" else first[key] + second[key] for key in second}


def _group(case: Case) -> Train:
    assert case.train.group is not None
    return case.train.group
