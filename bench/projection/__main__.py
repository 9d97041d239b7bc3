"""Larger experiments, simulated: `python -m bench.projection [--check] [--draw]`.

Prints the paper's experiment on one GPU, and one more period of 10^4 to 10^7 users on 1 to 1,000 workers.
--check: what the same parts say of 10,000 users and of two workers here, beside what was measured.
"""

from __future__ import annotations

import argparse

from bench.projection import check, drawing, measured
from bench.projection.paper import ABSTRACTS, DOLLARS_PER_HOUR, GEMMA, H100, PERIODS, REVIEWS, operations
from bench.projection.paper import generation_seconds as answering
from bench.projection.period import Found, one_period, rates

USERS = (10**4, 10**5, 10**6, 10**7)
WORKERS = (1, 3, 10, 30, 100, 300, 1000)


def paper() -> str:
    """The paper's experiment on one GPU: its work alone."""
    share = {job: measured.share(job) for job in ("score", "train", "generate")}
    lines = ["| | score, min | train, min | generate, min | all, GPU hours | dollars | adapters |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, task in (("abstracts", ABSTRACTS), ("reviews", REVIEWS)):
        work = operations(task, periods=PERIODS, first=True)
        minutes = {job: 100 * value / H100.flops / share[job] / 60 for job, value in work.items()}
        queries = (PERIODS - 1) * task.interactions / PERIODS * 0.1
        minutes["generate"] = 100 * answering(task, queries) / share["generate"] / 60
        hours = sum(minutes.values()) / 60
        lines.append(
            f"| paper: 100 users, {name} | {minutes['score']:,.1f} | {minutes['train']:,.1f} "
            f"| {minutes['generate']:,.1f} | {hours:,.2f} | {hours * DOLLARS_PER_HOUR:,.2f} "
            f"| {100 * PERIODS * GEMMA.lora * 4 / 1e9:,.0f} GB |"
        )
    return "\n".join(lines)


def table(found: list[Found]) -> str:
    """A period, by users and workers."""
    lines = [
        "| users | workers | hours | of these the driver | dollars | moved, TB | stored, TB | index, MB |"
    ]
    lines.append("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for one in found:
        lines.append(
            f"| {one.users:,} | {one.workers:,} | {one.all_hours:,.1f} | {sum(one.driven.values()):,.1f} "
            f"| {one.dollars:,.0f} | {one.moved / 1e12:,.1f} | {one.stored / 1e12:,.1f} "
            f"| {one.index / 1e6:,.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints, or checks, or draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="predicted beside measured, of here")
    parser.add_argument("--draw", action="store_true", help="write docs/img/projection.svg")
    asked = parser.parse_args()
    if asked.check:
        print(check.table(check.users() + check.workers()))
        return
    print(paper())
    known = rates()
    found = [one_period(users, workers, known) for users in USERS for workers in WORKERS]
    print(table(found))
    if asked.draw:
        drawing.write(found)


if __name__ == "__main__":
    main()
