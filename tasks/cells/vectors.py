"""Cells of profile vectors: where a user's profile stands after a period (spring/rivals/asls.py).

A cell continues the cell of the period before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spring.engine.device import device_name
from spring.method.retrieval import document_text
from spring.rivals.asls import Profile, feedback_weight, follow
from spring.rivals.online import Profiling
from spring.store.keys import cell_key
from tasks.cells.fill import Meter, fill
from tasks.cells.workbench import Row, Workbench, plain

COMMIT = 64  # users that become visible together


@dataclass(frozen=True)
class Known:
    """A profile and the key of the cell that it comes from."""

    key: str
    profile: Profile


@dataclass(frozen=True)
class FollowJob:
    """One user's train rows of a period, in time order, and the profile before them (null: none yet)."""

    how: Profiling
    user: str
    rows: Sequence[Row]
    before: Known | None


@dataclass(frozen=True)
class Followed:
    """The profile after a job's rows, and the drift of each row [N]."""

    known: Known
    drifts: list[float]


def follow_all(bench: Workbench, jobs: Sequence[FollowJob], what: str) -> list[Followed]:
    """The profiles after all jobs, in order; only missing cells are computed."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: None,
        at_once=COMMIT,
        amount=lambda job: len(job.rows),
        what=what,
        unit="text",
    )
    return [_read(bench, key) for key in keys]


def _key(bench: Workbench, job: FollowJob) -> str:
    return cell_key(
        __name__,
        kind="profile vector",
        libraries=bench.identity["libraries"],
        embedding=[bench.embedding, device_name(bench.settings.device)],
        how=job.how,
        before=job.before.key if job.before else None,
        rows=[[plain(row), row["rating"]] for row in job.rows],
    )


def _compute(bench: Workbench, _: None, jobs: dict[str, FollowJob], done: Meter) -> None:
    """Each user's texts are embedded by themselves: nobody else's can move a bit of the profile."""
    with bench.store.batch() as batch:
        for key, job in jobs.items():
            vectors = bench.embedder.embed([document_text(r["query"], r["response"]) for r in job.rows])
            start = job.before.profile if job.before else Profile(np.zeros(bench.embedder.width, np.float32))
            weights = [feedback_weight(row["rating"], job.how.feedback) for row in job.rows]
            profile, drifts = follow(start, vectors, weights, rho=job.how.rho)
            state = {"vector": profile.vector.tolist(), "mean": profile.mean, "count": profile.count}
            batch[key] = {"profile.json": json.dumps({**state, "drifts": drifts}).encode()}
            done(len(job.rows))


def _read(bench: Workbench, key: str) -> Followed:
    cell = json.loads(bench.store.read(key)["profile.json"])
    profile = Profile(np.array(cell["vector"], np.float32), cell["mean"], cell["count"])
    return Followed(Known(key, profile), cell["drifts"])
