"""Lessons that go text by text: what the methods of `train.online` are told, and the turns they give."""

from __future__ import annotations

from collections.abc import Sequence

from spring.rivals.online import Stream
from tasks.cells.vectors import FollowJob, follow_all
from tasks.files import EVERYBODY, Users
from tasks.steps.experiment import Experiment
from tasks.steps.index import vector_id
from tasks.steps.population import Case
from tasks.steps.vectors import read_profile_vectors


def set_turns(bench: Experiment, cases: Sequence[Case], period: int, users: Users = EVERYBODY) -> None:
    """Sets `turns` of all cases that learn online; the others stay as they are."""
    drifts = measure_drifts(bench, cases, period, users)
    for i, case in enumerate(cases):
        if case.train.online is not None:
            mine = [drifts[i][row["interaction_id"]] for row in case.chosen] if i in drifts else None
            stream = Stream(case.chosen, mine, bench.seed(case.user, period))
            case.turns = case.train.online.turns(stream)


def measure_drifts(
    bench: Experiment, cases: Sequence[Case], period: int, users: Users
) -> dict[int, dict[str, float]]:
    """Drift of every train row of the period, learned or not, by case and interaction, where it is needed."""
    before = read_profile_vectors(period - 1, users)
    places, jobs = [], []
    for i, case in enumerate(cases):
        how = case.train.online.profiling if case.train.online else None
        if how is not None:
            assert case.user is not None, "params refuse to share what is learned online"
            known = before.get((vector_id(how), case.user))
            places.append(i)
            jobs.append(FollowJob(how, case.user, case.rows, known))
    found = follow_all(bench, jobs, f"adapt@{period} profiles{users.told}")
    return {
        i: {row["interaction_id"]: drift for row, drift in zip(job.rows, one.drifts, strict=True)}
        for i, job, one in zip(places, jobs, found, strict=True)
    }
