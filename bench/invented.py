"""Results of the stages between split and evaluate, made up for as many users as there are: no model runs.

`python -m bench.invented` reads params.yaml and data/split of the current folder and writes the tables that
evaluate and report read, as the stages write them; adapters are there by name only, since what they cost is
measured elsewhere (bench/storage.py). Equal rows give equal numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from spring.settings.params import Params
from tasks.adapt import CURVES, SCORES
from tasks.evaluate import arms_by_recipe
from tasks.files import DATA, read_parquet, read_tests, write_json, write_parquet
from tasks.generate import GENERATIONS
from tasks.measures.scores import stream
from tasks.params import load_params
from tasks.score_base import SCORED
from tasks.steps.buffers import BUFFERS, CANDIDATES
from tasks.steps.index import INDEX
from tasks.transfer import LIKELIHOODS

ADAPTER_BYTES = 8_000
LEARNED = 0.3  # share of a user's texts that are learned in a period
STEPS = 4
WORDS = pl.col("response").str.split(" ")
KEYS = ("user_id", "interaction_id", "period")


def main() -> None:
    """Everything that evaluate and report read of other stages."""
    params, random = load_params(), np.random.default_rng(0)
    labels = read_parquet(DATA / "ingest/labels.parquet")
    write_json({"digest": "none"}, DATA / "model/source.json")
    for period in params.periods:
        rows = with_tokens(read_parquet(DATA / f"split/{period}.parquet"), random)
        write(rows.with_columns(seconds=0.01), SCORED, f"score_base/{period}")
        train = rows.filter(part="train").join(labels, "interaction_id", maintain_order="left")
        write_learned(params, period, train, random)
        write_kept(params, period, train)
        asked = rows.filter(part="test") if period in stream(params) else rows.clear()
        write_answers(params, period, asked, random)
    write_transfer(params, random)


def write(rows: pl.DataFrame, schema: dict[str, Any], name: str) -> None:
    """A table with the columns of a stage's; those that nobody fills are null."""
    missing = {column: pl.lit(None) for column in schema if column not in rows.columns}
    rows = rows.with_columns(**missing).select(pl.col(column).cast(kind) for column, kind in schema.items())
    write_parquet(rows, DATA / f"{name}.parquet")


def with_tokens(rows: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """Rows with `tokens` and the `logp` of a base model, users apart."""
    rows = rows.with_columns(tokens=(WORDS.list.len() * 1.3).cast(pl.Int32) + 1)
    apart = pl.col("user_id").rank("dense") % 7 / 10
    noise = pl.Series(random.normal(0, 0.2, rows.height))
    return rows.with_columns(logp=-pl.col("tokens") * (2.5 + apart + noise))


def write_learned(params: Params, period: int, train: pl.DataFrame, random: np.random.Generator) -> None:
    """What every recipe scored, selected and learned."""
    lift = pl.when("is_drift").then(0.8).when(pl.col("drift") == "noise").then(-1.0).otherwise(0.0)
    noise = pl.Series(random.normal(0, 0.5, train.height))
    scored = train.with_columns(novelty=lift + noise, quality=pl.Series(random.normal(0, 0.5, train.height)))
    scored = scored.with_columns(
        drift_score=pl.col("novelty") + pl.col("quality"),
        logp_base="logp",
        logp_adap=pl.col("logp") * (0.8 - 0.05 * pl.col("novelty")),
    )
    place = pl.col("drift_score").rank("ordinal", descending=True).over("user_id")
    scored = scored.with_columns(selected=place <= (LEARNED * pl.len().over("user_id")).round().clip(1))
    lessons = scored.filter("selected").group_by("user_id", maintain_order=True)
    index = lessons.agg(
        chosen="interaction_id", items=pl.len(), tokens=pl.col("tokens").sum(), seconds=0.5, seconds_score=0.1
    )
    index = index.with_columns(period=pl.lit(period), lesson=pl.lit(period), bytes=pl.lit(ADAPTER_BYTES))
    curves = index.select("user_id", "period").join(pl.DataFrame({"step": range(STEPS)}), how="cross")
    loss = 2.5 - 0.3 * pl.col("step") + pl.Series(random.normal(0, 0.2, curves.height))
    curves = curves.with_columns(loss=loss, lr=0.01, grad_norm=1.0)
    tables = {"scores": (scored, SCORES), "index": (index, INDEX), "curves": (curves, CURVES)}
    for name, (rows, schema) in tables.items():
        of_recipes = [rows.with_columns(recipe=pl.lit(recipe)) for recipe in arms_by_recipe(params)]
        write(pl.concat(of_recipes), schema, f"adapt/{period}/{name}")


def write_kept(params: Params, period: int, train: pl.DataFrame) -> None:
    """The history so far, and buffers that hold of every user the longest texts."""
    history = train.drop("drift", "is_drift")
    if period:
        history = pl.concat([read_parquet(DATA / f"consolidate/{period - 1}/history.parquet"), history])
    write_parquet(history, DATA / f"consolidate/{period}/history.parquet")
    score = pl.col("tokens").cast(pl.Float64)
    place = pl.col("tokens").rank("ordinal", descending=True).over("user_id").cast(pl.Int32)
    offered = history.with_columns(score=score, loss=-pl.col("logp") / score, rank=place, seconds=0.01)
    memories = {arm.memory_id: arm.memory for arm in params.arms.values() if arm.memory_id and arm.memory}
    every = [
        offered.with_columns(memory=pl.lit(memory), kept=pl.col("rank") <= how.capacity)
        for memory, how in memories.items()
    ]
    write(pl.concat(every), CANDIDATES, f"consolidate/{period}/candidates")
    kept = pl.concat(every).filter("kept").with_columns(from_period="period", seen="rank")
    write(kept, BUFFERS, f"consolidate/{period}/buffers")


def write_answers(params: Params, period: int, tests: pl.DataFrame, random: np.random.Generator) -> None:
    """Every arm's answers: the beginning of the user's own text, longer for later arms, and a stranger's."""
    stranger = pl.col("response").shift(1, fill_value=pl.col("response").last()).str.split(" ")
    seen = pl.concat_list("interaction_id")
    every = []
    for place, arm in enumerate(params.arms):
        own = WORDS.list.head((WORDS.list.len() * (0.2 + 0.1 * place)).cast(pl.Int64))
        gain = pl.Series(random.normal(0.4 * place, 0.3, tests.height))
        answers = tests.with_columns(
            arm=pl.lit(arm),
            text=pl.concat_list(own, stranger.list.tail(10)).list.join(" "),
            logp=pl.col("logp") + pl.col("tokens") * gain,
            ref_tokens="tokens",
            contexts=seen if place % 2 else seen.list.head(0),
            candidates=2,
            row_steps=pl.col("tokens") * 2,
            seconds=0.1,
        )
        every.append(answers)
    write(pl.concat(every), GENERATIONS, f"generate/{period}/generations")
    machine = {"processor": "none", "cores": 1, "device": "cpu", "dtype": "float32"}
    write_json(machine, DATA / f"generate/{period}/machine.json")


def write_transfer(params: Params, random: np.random.Generator) -> None:
    """Every state on every period's tests: the later the better, with a stranger's adapter less so."""
    every = []
    for tested in params.periods:
        tests = with_tokens(read_tests(tested), random).with_columns(tested=pl.lit(tested))
        for place, (name, arm) in enumerate(params.arms.items()):
            adapters = ("own",) if arm.recipe is None else ("own", "swapped")
            for learned in params.periods:
                for adapter in adapters if learned == tested else ("own",):
                    gain = 0.1 * place * (learned + 1) * (0.5 if adapter == "swapped" else 1)
                    noise = pl.Series(random.normal(gain, 0.1, tests.height))
                    state = tests.with_columns(arm=pl.lit(name), adapter=pl.lit(adapter), ref_tokens="tokens")
                    state = state.with_columns(
                        learned=pl.lit(learned), contexts=pl.lit([], pl.List(pl.String))
                    )
                    every.append(state.with_columns(logp=pl.col("logp") + pl.col("tokens") * noise))
    write(pl.concat(every), LIKELIHOODS, "transfer/likelihoods")


if __name__ == "__main__":
    main()
