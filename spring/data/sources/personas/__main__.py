"""Measures and shows the benchmark: `python -m spring.data.sources.personas --seed 1` (docs/personas.md)."""

from __future__ import annotations

import argparse

import polars as pl

from spring.data.sources.personas.generate import PersonasSource, generate
from spring.data.sources.personas.measures import separability, texture


def main() -> None:
    """Prints the measurements and one user's reviews around its first change."""
    parser = argparse.ArgumentParser(description="Measures and shows the benchmark personas.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--interactions", type=int, default=50)
    parser.add_argument("--show", type=int, default=0, help="the user of whom six reviews are shown")
    given = parser.parse_args()
    source = PersonasSource(
        users=given.users,
        interactions=given.interactions,
        drift=("abrupt", "gradual", "recurring", "transient", "noise"),
        noise_share=0.1,
    )
    frame = generate(source, seed=given.seed)
    for name, value in (texture(frame) | separability(frame, source.drift, seed=given.seed)).items():
        print(f"{name:32} {value:8.3f}")
    print(frame["drift"].value_counts(sort=True), frame["is_drift"].value_counts(sort=True))
    for row in frame.filter(pl.col("user_id") == f"persona-{given.show:02d}")[21:27].iter_rows(named=True):
        print(f"\n{row['interaction_id']} {row['drift']} {row['query']}\n{row['response']}")


if __name__ == "__main__":
    main()
