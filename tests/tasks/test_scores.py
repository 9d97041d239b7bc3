"""Scores of items: in blocks of users, by several processes, they are what they are at once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from spring.measures.metrics import score_texts
from tasks.measures import scores
from tasks.measures.scores import METRICS, inapplicable, on_cores, score_all, stream
from tasks.params import load_params
from tasks.steps import blocks

ROOT = Path(__file__).parents[2]
WORDS = ["the lamp works", "the old lamp broke", "a cup is red", "*** ...", "never again", "a chair"]


def write(periods: list[int], users: int) -> None:
    """Two arms that answered three test items a user and period; one reference is no word."""
    for t in periods:
        items = [
            {"user_id": f"user {u}", "interaction_id": f"{t}-{u}-{n}", "response": WORDS[(u + n + t) % 6]}
            for u in range(users)
            for n in range(3)
        ]
        said = [
            {
                **item,
                "arm": arm,
                "period": t,
                "text": WORDS[(k + 2 * t) % 6],
                "logp": -float(k),
                "ref_tokens": 4,
            }
            for arm in ("base", "spring")
            for k, item in enumerate(items)
        ]
        for name, rows in ((f"split/{t}", items), (f"generate/{t}/generations", said)):
            file = Path(f"data/{name}.parquet")
            file.parent.mkdir(parents=True, exist_ok=True)
            frame = pl.DataFrame(rows)
            if name.startswith("split"):
                frame = frame.with_columns(part=pl.lit("test"))
            else:
                frame = frame.drop("response").with_columns(pl.col("period").cast(pl.Int32))
            frame.write_parquet(file)


def test_blocks_and_processes_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    write(stream(params), users=5)
    whole = score_all(params)
    assert whole.height == 2 * 5 * 3 * len(stream(params)) and set(METRICS) <= set(whole.columns)
    assert inapplicable(whole)["rouge1"] > 0
    monkeypatch.setattr(blocks, "TOGETHER", 2)
    for processors in (1, 2):
        monkeypatch.setattr(scores, "cores", lambda count=processors: count)
        with on_cores(3) as each:
            assert (each is map) == (processors == 1)
        assert_frame_equal(score_all(params), whole, check_exact=True)


def test_equal_answers_are_scored_once_and_stand_where_they_were() -> None:
    pairs = [
        (WORDS[0], WORDS[1]),
        (WORDS[2], ""),
        (WORDS[0], WORDS[1]),
        (WORDS[3], "x"),
        (WORDS[1], WORDS[1]),
    ]
    found = score_texts(pairs, synonyms=False)
    for number, pair in enumerate(pairs):
        for name, (value,) in score_texts([pair], synonyms=False).items():
            assert found[name][number] == pytest.approx(value, nan_ok=True), (name, pair)
    assert all(len(values) == 0 for values in score_texts([], synonyms=False).values())
