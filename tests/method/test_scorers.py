"""Scorers: numbers derived by hand, and what a new one needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from spring.method.drift import Batch, Floats, select_drift
from spring.method.scorers import SCORERS, Scorer, Select, score

# Three responses of 2, 4 and 5 tokens. Per token: base -2, -3, -1; adapted -1, -3, -2.
ROWS = {"logp_base": [-4.0, -12.0, -5.0], "logp_adap": [-2.0, -12.0, -10.0], "tokens": [2, 4, 5]}
SELECT = {"scorer": "likelihood", "alpha": 1.0, "share": 0.3, "normalise": "token"}


def batch(**changes: Any) -> Batch:
    return Batch(**{**ROWS, "alpha": 1.0, "normalise": "token", "seed": 0, **changes})


def test_likelihood_uses_the_parameters() -> None:
    assert score("likelihood", batch(alpha=0.5)).tolist() == [-2.0, -1.5, 0.5]
    assert score("likelihood", batch(normalise="sequence")).tolist() == [-6.0, -12.0, 0.0]


def test_bottom_selects_what_likelihood_would_leave() -> None:
    assert select_drift(score("likelihood", batch(alpha=0.0)), share=0.3).tolist() == [2]
    assert select_drift(score("bottom", batch(alpha=0.0)), share=0.3).tolist() == [0]


def test_loss_ignores_the_base_model() -> None:
    assert score("loss", batch()).tolist() == [1.0, 3.0, 2.0]
    assert score("loss", batch(normalise="sequence", logp_base=[0, 0, 0])).tolist() == [2.0, 12.0, 10.0]


def test_random_is_decided_by_the_seed_alone() -> None:
    assert score("random", batch(seed=7)).tolist() == score("random", batch(seed=7)).tolist()
    assert score("random", batch(seed=7)).tolist() != score("random", batch(seed=8)).tolist()


def test_embedding_by_hand() -> None:
    """The past [2, 0], [0, 2] has mean [1, 1]: cosine 1 to [3, 3], 0 to [1, -1], sqrt(1/2) to [1, 0]."""
    scores = score(
        "embedding",
        batch(embeddings=[[3.0, 3.0], [1.0, -1.0], [1.0, 0.0]], past_embeddings=[[2.0, 0.0], [0.0, 2.0]]),
    )
    np.testing.assert_allclose(scores, [0.0, 1.0, 1 - math.sqrt(0.5)], atol=1e-12)


@pytest.mark.parametrize("past", [np.zeros((0, 2)), [[1.0, 0.0], [-1.0, 0.0]]])
def test_embedding_without_a_direction_of_the_past_is_refused(past: Any) -> None:
    with pytest.raises(ValueError, match="embedding"):
        score("embedding", batch(embeddings=np.eye(3)[:, :2] + 1, past_embeddings=past))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_scorer_reads_no_more_than_it_says(name: str) -> None:
    """What it does not say it reads may be missing, as it is not paid for; that is left out here."""
    vectors = {"embeddings": np.eye(3), "past_embeddings": np.ones((2, 3))}
    whole = batch(**vectors)
    reads = SCORERS[name].reads
    there = {"base": ["logp_base"], "adapter": ["logp_adap"], "embeddings": list(vectors)}
    missing = {key: None for what, keys in there.items() if what not in reads for key in keys}
    assert score(name, batch(**vectors | missing)).tolist() == score(name, whole).tolist()


def test_unknown_scorers_are_refused_as_a_literal_would() -> None:
    for value in ("magic", 1, ["likelihood"], None):
        with pytest.raises(ValidationError) as found:
            Select.model_validate(SELECT | {"scorer": value})
        (error,) = found.value.errors()
        assert (error["type"], error["loc"], error["input"]) == ("literal_error", ("scorer",), value)
        assert error["msg"] == "Input should be 'likelihood', 'loss', 'embedding', 'random' or 'bottom'"


def test_a_new_scorer_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings take its name, say it to who writes another, and it scores; ([1] tokens, negated)."""

    def shortest(batch: Batch) -> Floats:
        return -np.asarray(batch.tokens, dtype=np.float64)

    monkeypatch.setitem(SCORERS, "shortest", Scorer(shortest))
    select = Select.model_validate(SELECT | {"scorer": "shortest"})
    assert select.model_dump() == SELECT | {"scorer": "shortest"}
    assert score(select.scorer, batch()).tolist() == [-2.0, -4.0, -5.0]
    with pytest.raises(ValidationError, match="'random', 'bottom' or 'shortest'"):
        Select.model_validate(SELECT | {"scorer": "longest"})
