"""What the padded road costs (docs/models.md): `python -m bench.roads`.

The jobs of `bench.engine` with the default model on either road, by turns; both give the same (the tests of
the survey see to that). Written to bench/results/roads.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

from tqdm import tqdm

from bench.jobs import JOBS
from bench.machine import describe, limits, wait, write_result
from bench.sides import Bench
from spring.engine.roads import Road, road_of, set_road

SOURCE, TIMED = "personas", ("score", "train", "generate")


def roads(own: Road) -> dict[str, Road]:
    """The ways that are timed; without a cache an answer of n tokens would be read n times."""
    return {"packed": own, "padded": replace(own, padded=True)}


def timed(bench: Bench, rounds: int) -> list[dict[str, Any]]:
    """Useful tokens per second of every job on every road, the median of the rounds."""
    machine = limits(bench.base.device, bench.model.dtype)
    own, found = road_of(bench.model), []
    with tqdm(total=len(TIMED) * len(roads(own)) * rounds, unit="job") as bar:
        for job in TIMED:
            set_road(bench.model, own)
            made = JOBS[job](bench, SOURCE, machine)
            rates: dict[str, list[float]] = {name: [] for name in roads(own)}
            for _ in range(rounds):
                for name, taken in rates.items():
                    set_road(bench.model, roads(own)[name])
                    began = perf_counter()
                    useful, _ = made.engine()
                    wait(bench.base.device)
                    taken.append(useful / (perf_counter() - began))
                    bar.update()
            base = rates["packed"]
            for name, taken in rates.items():
                ratios = [one / other for one, other in zip(taken, base, strict=True)]
                found.append({"job": job, "road": name, "tokens_per_second": median(taken), "ratios": ratios})
    set_road(bench.model, own)
    return found


def main() -> None:
    """Times, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    bench = Bench("auto", options.dtype)
    rows = timed(bench, options.rounds)
    for row in rows:
        ratio = median(row["ratios"])
        print(f"{row['job']:9} {row['road']:7} {row['tokens_per_second']:7.0f} tok/s  {ratio:.2f} x packed")
    write_result("roads", describe(bench.base.device, bench.model.dtype), rows=rows)


if __name__ == "__main__":
    main()
