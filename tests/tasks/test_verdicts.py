"""Who is judged on which texts, and what stands in service: made-up tables, no model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from spring.settings.live import Gate
from tasks.steps.candidates import Asked, News, find_news, give_tests
from tasks.steps.index import INDEX
from tasks.steps.verdicts import VERDICTS, is_judged, question, split, worse

GATE = Gate.model_validate(
    {"margin": 0.1, "level": 0.2, "items": 3, "least": 1, "alarm": 1}
    | {"drift": {"base": None, "before": None}}
)
KEPT = Path("live")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(rows: list[dict[str, Any]], path: Path, schema: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=schema).write_parquet(path)


def learn(period: int, cells: dict[str | None, str], recipe: str = "r") -> None:
    """The state after a period, cells named after that of their lesson; another recipe's lie beside it."""
    rows = [
        {"recipe": name, "user_id": user, "cell": f"{cell}{more}"}
        | {"file": "adapters/a" if cell[1:] in ("ll", str(period)) else f"../{cell[1]}/adapters/a"}
        for name, more in ((recipe, ""), ("other", "!"))
        for user, cell in cells.items()
    ]
    write(rows, Path(f"data/adapt/{period}/index.parquet"), INDEX)


def test_who_has_news_and_against_what(folder: Path) -> None:
    """ann: a0 in service, a1 and a2 refused; bob: b1, his first, refused, no news since; cem: c1."""
    learn(0, {"ann": "a0"})
    learn(1, {"ann": "a1", "bob": "b1", "cem": "c1"})
    learn(2, {"ann": "a2", "bob": "b1", "cem": "c1"})
    learn(3, {"ann": "a3", "bob": "b1", "cem": "c3", None: "all"})
    news = find_news(Asked("r", 3, 2, {"ann": 0, "bob": None, "cem": 1}))
    assert [(one.user, one.cell, one.served, one.against) for one in news] == [
        ("ann", "a3", 0, "a0"),
        ("cem", "c3", 1, "c1"),
    ]
    assert len(find_news(Asked("r", 0, -1, {}))) == 1
    rolled_back = find_news(Asked("r", 3, 2, {"cem": 0, "ann": 1}))
    assert [(one.user, one.served, one.against) for one in rolled_back] == [
        ("ann", 1, "a1"),
        ("cem", None, None),  # of period 0 there is no adapter of his
    ]


def test_a_table_is_of_these_rules_and_these_adapters() -> None:
    news = [News("ann", "a1", 0, "a0")]
    row = {"user_id": "ann", "cell": "a1", "question": question(news[0], GATE)}
    table = pl.DataFrame([row], schema=VERDICTS)
    assert is_judged(table, news, GATE) and is_judged(table, [], GATE)
    assert not is_judged(table, [*news, News("bob", "b1", 0, "b0")], GATE)
    assert not is_judged(table, [News("ann", "a2", 0, "a0")], GATE)
    assert not is_judged(table, [News("ann", "a1", 0, "other")], GATE)
    assert not is_judged(table, news, GATE.model_copy(update={"margin": 0.2}))


def test_the_latest_held_out_texts(folder: Path) -> None:
    """Of ann: her one of period 1 and two of period 0, or three where they are older and it is new."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    kinds = {"user_id": pl.String, "period": pl.Int32, "part": pl.String}
    kinds |= {"interaction_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}
    days = {0: {"ann": "tttxt", "bob": "xt"}, 1: {"ann": "xxt"}, 2: {"ann": "xx"}}  # t: held out
    for period, users in days.items():
        rows = [
            {"user_id": user, "period": period, "part": "test" if kind == "t" else "train"}
            | {"interaction_id": f"{user}{period}{n}", "timestamp": start + timedelta(10 * period + n)}
            for user, parts in users.items()
            for n, kind in enumerate(parts)
        ]
        write(rows, Path(f"data/split/{period}.parquet"), kinds)
    for served, older in ((None, 2), (1, 2), (0, 3)):
        news = [News("ann", "a2", served, None), News("bob", "b2", None, None), News("dee", "d2", None, None)]
        give_tests(news, 2, 3)
        ann, bob, dee = ([[row["interaction_id"] for row in rows] for rows in one.tests] for one in news)
        assert ann == [["ann12"], ["ann04", "ann02", "ann01"][:older]]
        assert (bob, dee) == ([["bob01"]], [])


def test_every_new_period_is_asked(folder: Path) -> None:
    """Two at most of each new period, of older ones two in all; each apart."""
    kinds = {"user_id": pl.String, "period": pl.Int32, "part": pl.String}
    kinds |= {"timestamp": pl.Datetime("us", "UTC")}
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for period in range(5):
        rows = [
            {
                "user_id": "ann",
                "period": period,
                "part": "test",
                "timestamp": start + timedelta(10 * period + n),
            }
            for n in range(1 if period == 1 else 3)
        ]
        write(rows, Path(f"data/split/{period}.parquet"), kinds)
    ann = News("ann", "a4", 2, "a2")
    give_tests([ann], 4, 2)
    days = [[(row["timestamp"] - start).days for row in rows] for rows in ann.tests]
    assert days == [[42, 41], [32, 31], [22, 21]]
    gained = [[0.1, 0.2], [0.3, 0.4], [-0.1, -0.2]]
    assert split(ann, gained) == ([[0.1, 0.2], [0.3, 0.4]], [-0.1, -0.2])
    bob = News("ann", "a4", None, None)
    give_tests([bob], 4, 7)
    assert [len(rows) for rows in bob.tests] == [3, 3, 1] and split(bob, [[0.1]] * 3) == ([[0.1]] * 3, [])


def test_the_slice_in_the_table() -> None:
    """Texts of periods after the version in service are new; without one, all are."""
    tests = [[{"task": "a", "period": 2}, {"task": "b", "period": 2}], [{"task": "b", "period": 1}]]
    found = worse(News("ann", "a2", 1, "a1", tests), [[0.5, -0.1], [-0.3]])
    assert found == {"worse_by": "age", "worse": "old", "worse_items": 1, "worse_difference": -0.3}
    found = worse(News("ann", "a2", None, None, tests), [[0.5, -0.1], [-0.3]])
    assert (found["worse_by"], found["worse"], found["worse_difference"]) == ("task", "b", -0.2)
    assert set(worse(News("ann", "a2", 1, "a1", tests), [[0.5, 0.1], [0.3]]).values()) == {None}
