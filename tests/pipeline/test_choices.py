"""Scorers, retention policies and BM25 variants through the stages on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from kit.pipeline import experiment
from rank_bm25 import BM25Okapi

from spring.engine.embedding import Embedder
from spring.method.retrieval import document_text, query_text
from spring.words import terms
from tasks.params import load_params

pytestmark = pytest.mark.slow

ALONE: dict[str, Any] = {"memory": None, "decode": {"lmbda": 0.0}}
ALL: dict[str, Any] = {"data": "current"}
OPEN: dict[str, Any] = {"gate": None}
ARMS: dict[str, Any] = {
    "base": {"train": None, "memory": None},
    "embedding": {"train": {"select": {"scorer": "embedding"}}, **ALONE},
    "sequence": {"train": {"select": {"normalise": "sequence"}}, "retrieve": OPEN},
    "bottom": {"train": {"select": {"scorer": "bottom"}}, **ALONE},
    "okapi": {"train": None, "memory": {"scope": "history"}, "retrieve": {"by": "okapi", **OPEN}},
    "recent": {"train": ALL, "memory": {"policy": "recent", "capacity": 3}, "retrieve": OPEN},
    "novelty": {"train": ALL, "memory": {"policy": "novelty", "capacity": 3}, "retrieve": OPEN},
    "cluster-wise": {"train": ALL, "memory": {"policy": "cluster-wise", "capacity": 3}, "retrieve": OPEN},
    "cluster-round": {"train": ALL, "memory": {"policy": "cluster-round", "capacity": 3}, "retrieve": OPEN},
}
KEEPING = ("recent", "novelty", "cluster-wise", "cluster-round")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Path]:
    """All arms through three periods, in the current folder."""
    folder = tmp_path_factory.mktemp("choices")
    with experiment(folder, tiny_model_folder, arms=ARMS):
        yield folder


def rows_of(project: Path, *periods: int) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(project / f"data/split/{t}.parquet") for t in periods)


def scores_of(project: Path, name: str, period: int) -> pl.DataFrame:
    scores = pl.read_parquet(project / f"data/adapt/{period}/scores.parquet")
    return scores.filter(pl.col("recipe") == load_params().arms[name].recipe)


def test_embedding_drift_is_the_distance_to_the_mean_of_the_past(project: Path) -> None:
    """One minus the cosine to the mean embedding of the user's train items of all earlier periods."""
    embedder = Embedder(load_params().model.embedding)
    rows = rows_of(project, 0, 1, 2).filter(pl.col("part") == "train")
    texts = [document_text(*pair) for pair in rows.select("query", "response").iter_rows()]
    vectors = dict(zip(rows["interaction_id"], embedder.embed(texts), strict=True))
    found = scores_of(project, "embedding", 2)
    assert found.height > 0
    for (user,), mine in found.group_by("user_id"):
        past = rows.filter((pl.col("user_id") == user) & (pl.col("period") < 2))["interaction_id"]
        centre = np.mean([vectors[item] for item in past], axis=0)
        for item, score in mine.select("interaction_id", "drift_score").iter_rows():
            cosine = vectors[item] @ centre / np.linalg.norm(centre)
            assert score == pytest.approx(1 - cosine, abs=1e-4)
        chosen = mine.filter("selected")["drift_score"].min()
        assert chosen >= mine.filter(~pl.col("selected"))["drift_score"].max()


def test_scores_per_sequence_are_those_per_token_times_tokens(project: Path) -> None:
    """In period 1 nothing has been selected yet: adapters are alike, and the bottom is the negative."""
    found = scores_of(project, "sequence", 1).sort("interaction_id")
    bottom = scores_of(project, "bottom", 1).sort("interaction_id")
    expected = -bottom["drift_score"] * bottom["tokens"]
    np.testing.assert_allclose(found["drift_score"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", KEEPING)
def test_a_full_buffer_keeps_what_its_policy_says(project: Path, name: str) -> None:
    """Three of the items that periods 1 and 2 offer, each with the score that it had as a candidate."""
    memory = load_params().arms[name].memory_id
    held = pl.read_parquet(project / "data/consolidate/2/buffers.parquet").filter(pl.col("memory") == memory)
    offered = pl.read_parquet(project / "data/consolidate/2/candidates.parquet")
    offered = offered.filter(pl.col("memory") == memory)
    times = rows_of(project, 1, 2).select("interaction_id", "timestamp")
    for (user,), mine in held.group_by("user_id"):
        candidates = offered.filter(pl.col("user_id") == user).join(times, on="interaction_id")
        kept = candidates.join(mine.select("interaction_id", "score"), on="interaction_id")
        assert kept.height == mine.height == 3 < candidates.height
        assert kept["score"].to_list() == kept["score_right"].to_list()
        dropped = candidates.join(mine, on="interaction_id", how="anti")
        if name == "recent":
            assert kept["timestamp"].min() > dropped["timestamp"].max()


def test_okapi_shows_what_rank_bm25_finds(project: Path) -> None:
    """The two best of the user's past by its scores; ties go to the later one."""
    said = pl.read_parquet(project / "data/generate/2/generations.parquet").filter(pl.col("arm") == "okapi")
    rows = rows_of(project, 0, 1, 2)
    tests = {row["interaction_id"]: row for row in rows.filter(pl.col("part") == "test").to_dicts()}
    for user, item, contexts in said.select("user_id", "interaction_id", "contexts").iter_rows():
        past = rows.filter((pl.col("user_id") == user) & (pl.col("part") == "train")).to_dicts()
        documents = [terms(document_text(row["query"], row["response"])) for row in past]
        scores = BM25Okapi(documents).get_scores(terms(query_text(tests[item]["query"])))
        shown = [scores[[row["interaction_id"] for row in past].index(one)] for one in contexts]
        np.testing.assert_allclose(sorted(shown), sorted(scores)[-2:])
