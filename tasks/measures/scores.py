"""The scores of all items: one row per arm and test item, texts in memory for a block of users at a time.

Of many users blocks are scored on several cores at once, by processes that read them; the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

import polars as pl
from tqdm import tqdm

from spring.measures.meteor import wordnet_is_installed
from spring.measures.metrics import TEXT_METRICS, score_texts
from spring.measures.threads import cores
from spring.settings.params import Params
from tasks.files import DATA, EVERYBODY, Users, read_parquet, read_tests
from tasks.steps.blocks import blocks

METRICS = (*TEXT_METRICS, "logp_per_token")
PROCESSES = 8  # at once: each takes some 300 MB
KEYS = ["user_id", "interaction_id"]
ORDER = ("arm", "user_id", "period", "interaction_id")
ANSWERS = ["arm", *KEYS, "period", "text", "logp", "ref_tokens"]  # what scores are of


def stream(params: Params) -> list[int]:
    """The periods that are evaluated: all but the profiling period 0."""
    return [period for period in params.periods if period > 0]


def read_generations(periods: list[int], columns: list[str], users: Users = EVERYBODY) -> pl.DataFrame:
    """Some columns of every arm's generations in some periods."""
    files = [DATA / f"generate/{t}/generations.parquet" for t in periods]
    return pl.concat(read_parquet(file, columns, users) for file in files)


def score_all(params: Params) -> pl.DataFrame:
    """The scores of all items, sorted by arm, user and period."""
    periods = stream(params)
    cut = blocks(DATA / f"split/{t}.parquet" for t in periods)
    one = partial(score_block, periods, synonyms=wordnet_is_installed())
    with on_cores(len(cut)) as each:
        bar = tqdm(each(one, cut), "evaluate texts", len(cut), unit="block", disable=len(cut) == 1)
        return pl.concat(bar).sort(*ORDER)


@contextmanager
def on_cores(jobs: int) -> Iterator[Any]:
    """`map`, over so many jobs, on the cores that there are; of one job here."""
    at_once = min(jobs, cores(), PROCESSES)
    if at_once < 2:
        yield map
        return
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        yield pool.map


def score_block(periods: list[int], users: Users, *, synonyms: bool) -> pl.DataFrame:
    """The scores of some users' items."""
    tests = pl.concat(read_tests(t, users) for t in periods)
    return score_items(read_generations(periods, ANSWERS, users), tests, synonyms=synonyms)


def score_items(generations: pl.DataFrame, tests: pl.DataFrame, *, synonyms: bool) -> pl.DataFrame:
    """One row per arm and test item with all `METRICS`, sorted by arm, user and period.

    Null where a metric does not apply, which the reference decides, so that it is the same for every arm.
    """
    rows = generations.join(tests.select(*KEYS, "response"), on=KEYS, how="inner", validate="m:1")
    rows = rows.sort(*ORDER)
    scores = score_texts(list(rows.select("response", "text").iter_rows()), synonyms=synonyms)
    items = rows.select(
        "arm", *KEYS, "period", (pl.col("logp") / pl.col("ref_tokens")).alias("logp_per_token")
    )
    assert items["logp_per_token"].is_finite().all(), "generate left a reference without a likelihood"
    items = items.with_columns(pl.Series(name, values).fill_nan(None) for name, values in scores.items())
    return items.select("arm", *KEYS, "period", *METRICS)


def inapplicable(items: pl.DataFrame) -> dict[str, int]:
    """Metric -> to how many test items it does not apply, of the metrics that have such items."""
    nulls = items.group_by("arm").agg(pl.col(METRICS).null_count()).drop("arm").unique()
    assert nulls.height == 1, f"a metric applies to an answer and not to the text that it answers: {nulls}"
    return {metric: count for metric, count in nulls.row(0, named=True).items() if count}
