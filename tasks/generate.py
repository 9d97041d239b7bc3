"""Stage `generate@t`: gated retrieval, interpolated generation and reference likelihood (Eq. 5-8).

data/generate/{t}/generations.parquet   every arm's answers
data/generate/{t}/machine.json          what they were written on, for the report
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import polars as pl

from spring.measures.threads import cores
from spring.settings.arm import Arm
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.workbench import Adapter
from tasks.files import DATA, Users, read_parquet, read_tests, write_json, write_parquet
from tasks.machine import processor
from tasks.stage import run
from tasks.steps.blocks import Parted
from tasks.steps.experiment import Adapters, Experiment
from tasks.steps.gate import Gate, Requests, read_gates
from tasks.steps.memory import Library
from tasks.steps.profiles import Profiles
from tasks.steps.rows import Growing, by_user
from tasks.steps.steers import Steers
from tasks.steps.vectors import read_profile_vectors

GENERATIONS: dict[str, Any] = {
    "arm": pl.String,
    "user_id": pl.String,
    "interaction_id": pl.String,
    "period": pl.Int32,
    "text": pl.String,
    "tokens": pl.Int32,
    "logp": pl.Float64,
    "ref_tokens": pl.Int32,
    "contexts": pl.List(pl.String),
    "candidates": pl.Int32,
    "lmbda": pl.Float64,
    "sigma": pl.Float64,
    "row_steps": pl.Int32,
    "seconds": pl.Float64,
}


def main() -> None:
    """The state after period t and its test queries -> data/generate/{t}/generations.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--period", type=int, required=True)
    period = parser.parse_args().period
    out = DATA / "generate" / str(period) / "generations.parquet"
    if period == 0:  # the profiling period is not evaluated
        write_parquet(pl.DataFrame(schema=GENERATIONS), out)
        return
    bench = Experiment()
    gates = read_gates(bench.params.arms, period)
    with Parted(out) as table:
        for users in bench.blocks(DATA / "consolidate" / str(period) / "history.parquet"):
            table.add(answers_of(bench, gates, users, period))
    tell_closed(gates, period)
    write_json(ran_on(bench), out.with_name("machine.json"))


def answers_of(bench: Experiment, gates: dict[str, Gate], users: Users, period: int) -> pl.DataFrame:
    """Every arm's answers to the test queries of some users (`GENERATIONS`)."""
    jobs, found = ask(bench, gates, users, period), Growing(GENERATIONS)
    for job, cell in zip(jobs, generate(bench, jobs, f"generate@{period}{users.told}"), strict=True):
        names = {"arm": job.arm, "user_id": job.user, "period": period}
        found.add(names | told(request, cell[i]) for i, request in enumerate(job.requests))
    return found.frame()


def ask(bench: Experiment, gates: dict[str, Gate], users: Users, period: int) -> list[GenerateJob]:
    """What every arm is asked by some users, with what their memories give."""
    folder = DATA / "consolidate" / str(period)
    history, buffers = (
        read_parquet(folder / f"{name}.parquet", users=users) for name in ("history", "buffers")
    )
    library = Library(bench, history, buffers, period, read_profile_vectors(period, users))
    test = by_user(read_tests(period, users))
    adapters, profiles = bench.adapters(period, users), Profiles.after(period, users)
    steers = Steers(bench, period)
    jobs = []
    for name, arm in bench.params.arms.items():
        gate, decode = gates[name], arm.decode.decoding
        for user, rows in test.items():
            gated = Requests(rows, [gate.request(row, library, user) for row in rows])
            adapter = adapter_for(bench, arm, adapters, user)
            profile = profiles.of(arm, user, queries=rows)
            jobs.append(GenerateJob(name, user, steers.steer(arm, user, gated), decode, adapter, profile))
    return jobs


def told(request: Request, result: dict[str, Any]) -> dict[str, Any]:
    """What generations.parquet says of one answer."""
    return {
        "interaction_id": request.row["interaction_id"],
        "contexts": [row["interaction_id"] for row in request.context],
        "candidates": request.candidates,
        "lmbda": request.lmbda,
        "sigma": request.sigma,
        **result,
    }


def ran_on(bench: Experiment) -> dict[str, Any]:
    """The processor, how much of it, and where, in which number format and on which road the model ran."""
    device, dtype, _ = bench.identity["run"]
    return {
        "processor": processor(),
        "cores": cores(),
        "device": device,
        "dtype": dtype.removeprefix("torch."),
        "road": bench.road,
    }


def adapter_for(bench: Experiment, arm: Arm, adapters: Adapters, user: str) -> Adapter | None:
    """The adapter that answers: the user's own, or in the control `adapter: swapped` another user's."""
    swapped = arm.adapter == "swapped"
    owner = adapters.partner(arm.recipe, user, seed=bench.params.seed) if swapped else user
    adapter = adapters.of(arm.recipe, owner)
    assert (adapter is None) == (arm.recipe is None), (arm.recipe, owner)
    return adapter


def tell_closed(gates: dict[str, Gate], period: int) -> None:
    """Says which learned gates stayed closed for want of a pair that helped."""
    for name, gate in gates.items():
        if gate.closed:
            print(
                f"generate@{period}: the learned gate of {name} stays closed for {gate.closed} queries: "
                f"no memory is known to have helped before them",
                file=sys.stderr,
            )


if __name__ == "__main__":
    run(main)
