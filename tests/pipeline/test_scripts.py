"""A language without blanks, through all stages on a tiny model: memories are found, and answers measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from kit.pipeline import experiment

from spring.measures.metrics import score_texts
from tasks.measures.scores import METRICS

pytestmark = pytest.mark.slow

THINGS = ["傘", "椅子", "カメラ", "お茶", "자전거"]  # as many as a period has train items; one is Korean
OPINIONS = ["色がきれい", "少し重い", "とても軽い", "よく壊れる"]


def write_reviews(table: Path) -> None:
    """Two users, 18 reviews each; things come again, and those of the two differ in how they end."""
    rows = [
        {
            "who": user,
            "when": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n)).isoformat(),
            "subject": f"{THINGS[n % len(THINGS)]}の話",
            "body": f"{THINGS[n % len(THINGS)]}は{OPINIONS[n % len(OPINIONS)]}{end}",
        }
        for user, end in (("太郎", "です。"), ("花子", "よ！"))
        for n in range(18)
    ]
    pl.DataFrame(rows).write_csv(table)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scripts")
    arms = {
        "base": {"train": None, "memory": None},
        "rag": {"train": None, "memory": {"scope": "history"}, "retrieve": {"top_k": 1}},  # strict, sigma q3
    }
    with experiment(folder, tiny_model_folder, prepare=write_reviews, arms=arms):
        yield folder


def test_the_strict_gate_opens_for_what_is_about_the_same(project: Path) -> None:
    """The first that is found is of the same thing as the query."""
    rows = pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in range(3))
    things = dict(rows.select("interaction_id", "query").iter_rows())
    answers = pl.concat(pl.read_parquet(project / f"data/generate/{t}/generations.parquet") for t in (1, 2))
    answers = answers.filter(pl.col("arm") == "rag")
    passed = answers.filter(pl.col("contexts").list.len() > 0)
    assert passed.height == answers.height == 2 * 2
    for item, contexts in passed.select("interaction_id", "contexts").iter_rows():
        assert [things[context] for context in contexts] == [things[item]]


def test_answers_are_measured_in_every_metric(project: Path) -> None:
    metrics = json.loads((project / "data/metrics.json").read_text())
    assert metrics["inapplicable"] == {}
    for found in metrics["arms"].values():
        assert all(found[metric]["mean"] is not None for metric in METRICS)
    texts = pl.read_parquet(project / "data/split/1.parquet")["response"].to_list()
    itself = score_texts([(text, text) for text in texts], synonyms=False)
    others = score_texts(list(zip(texts, reversed(texts), strict=True)), synonyms=False)
    for metric, values in itself.items():
        assert values == pytest.approx([1] * len(texts))
        assert others[metric].min() < 0.6 and others[metric].max() > 0  # similar ends and words
