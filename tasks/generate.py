"""Stage `generate@t`: gated retrieval, interpolated generation and reference likelihood (Eq. 5-8)."""

from __future__ import annotations

import argparse
import math
from typing import Any

import polars as pl

from spring.params import Arm
from spring.retrieval import effective_lambda, query_text, relevance_gate, scale_from, sigma_from
from tasks.adapt import by_user
from tasks.decoding import GenerateJob, Request, generate
from tasks.files import DATA, read_parquet, write_parquet
from tasks.memory import Library
from tasks.workbench import Row, Workbench

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
    bench = Workbench()
    folder = DATA / "consolidate" / str(period)
    library = Library(
        bench, read_parquet(folder / "history.parquet"), read_parquet(folder / "buffers.parquet"), period
    )
    past = read_parquet(folder / "gate_scores.parquet")
    test = by_user(read_parquet(DATA / "split" / f"{period}.parquet").filter(pl.col("part") == "test"))
    adapters = bench.adapters(period)
    jobs = []
    for name, arm in bench.params.arms.items():
        gate = Gate(arm, past)
        for user, rows in test.items():
            requests = [gate.request(row, library, user) for row in rows]
            adapter = adapters[arm.recipe, user] if arm.recipe else None
            jobs.append(GenerateJob(name, user, requests, arm.decode, adapter))
    found = []
    for job, cell in zip(jobs, generate(bench, jobs, f"generate@{period}"), strict=True):
        for request, result in zip(job.requests, cell, strict=True):
            found.append(
                {
                    "arm": job.arm,
                    "user_id": job.user,
                    "interaction_id": request.row["interaction_id"],
                    "period": period,
                    "contexts": [row["interaction_id"] for row in request.context],
                    "candidates": request.candidates,
                    "lmbda": request.lmbda,
                    "sigma": request.sigma,
                    **result,
                }
            )
    write_parquet(pl.DataFrame(found, schema=GENERATIONS), out)


class Gate:
    """Retrieval and relevance gate of one arm, calibrated on past scores alone (Eq. 5, 6)."""

    def __init__(self, arm: Arm, past: pl.DataFrame) -> None:
        self.arm = arm
        mine = (pl.col("memory") == (arm.memory_id or "")) & (pl.col("by") == arm.retrieve.by)
        self.past = past.filter(mine).sort("known_at")

    def request(self, row: Row, library: Library, user: str) -> Request:
        """One test query with the context that passes the gate.

        Only scores known at the query's time calibrate the gate: periods of different users overlap.
        """
        arm = self.arm
        if arm.memory_id is None or arm.decode.lmbda == 0:
            return Request(row, [], 0.0, 0, None)
        known = self.past.filter(pl.col("known_at") <= row["timestamp"])["score"].to_numpy()
        sigma = sigma_from(known, arm.retrieve.sigma)
        shelf = library.shelf(arm.memory_id, user, arm.retrieve.by)
        items, scores = shelf.top(query_text(row["query"]), arm.retrieve.top_k)
        weights = relevance_gate(scores, gate=arm.retrieve.gate, sigma=sigma, scale=scale_from(known))
        context = [item for item, weight in zip(items, weights, strict=True) if weight > 0]
        late = [item["interaction_id"] for item in context if item["timestamp"] > row["timestamp"]]
        assert not late, f"{late} are later than the query {row['interaction_id']} they would serve"
        lmbda = effective_lambda(arm.decode.lmbda, weights)
        used = sigma if arm.retrieve.gate and math.isfinite(sigma) else None
        return Request(row, context, lmbda, len(items), used)


if __name__ == "__main__":
    main()
