"""The fleet view of an update's page: counts, intervals and ranges of made-up tables, and how it is drawn."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.adapt import SCORES
from tasks.reporting.fleet import MOST, FleetPeriod, Range, bounds, fleet_periods, place, scores_file
from tasks.reporting.update import News, page
from tasks.steps.index import INDEX
from tasks.steps.verdicts import VERDICTS, verdicts_file

KEPT = Path("live")


def write(path: Path, rows: list[dict[str, Any]], schema: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema).write_parquet(path)


def lay(period: int, scores: list[float | None], rulings: list[tuple[str, float]] | None) -> None:
    """A period in which the served arm and another one scored texts and learned."""
    mine, other = {"recipe": "mine"}, {"recipe": "other", "drift_score": 99.0, "selected": True}
    rows = [mine | {"drift_score": score, "selected": i % 4 == 0} for i, score in enumerate(scores)]
    write(scores_file(period), [*rows, other], SCORES)
    lessons = [mine | {"user_id": f"u{i}", "items": int(i != 1)} for i in range(3)]
    write(
        scores_file(period).parent / "index.parquet", [*lessons, other | {"user_id": "x", "items": 1}], INDEX
    )
    if rulings is not None:
        verdicts = [
            {"user_id": f"u{i}", "ruling": ruling, "difference": gain, "drift_before": 0.1 * i}
            for i, (ruling, gain) in enumerate(rulings)
        ]
        write(verdicts_file(KEPT, period), verdicts, VERDICTS)


def view(closed: int) -> list[FleetPeriod]:
    return fleet_periods(KEPT, "mine", closed, lambda period: f"day {period}")


def shown(fleet: list[FleetPeriod], alarm_at: float | None = 0.5) -> str:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    news = News(1, now, [], {}, [], [], {}, KEPT / "parts", fleet=fleet, alarm_at=alarm_at)
    return re.sub(r"\s*\n\s*", " ", page(news))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_period_is_of_the_served_arm_alone() -> None:
    lay(0, [-1.0, 0.0, None, 1.0, 2.0], [("improved", 0.2), ("held", -0.1), ("refused", -0.3), ("same", 0.0)])
    (one,) = view(1)
    assert one.learned == 2 and one.days == "day 0"
    assert one.drift == Range(pytest.approx(-0.7), 0.5, pytest.approx(1.7), 4) and one.selected == 0.5
    assert {name: share.count for name, share in one.rulings.items()} == dict.fromkeys(one.rulings, 1)
    assert one.withheld is not None and (one.withheld.count, one.withheld.of) == (2, 4)
    assert one.gain is not None and one.gain.mean == pytest.approx(-0.05)
    assert one.gain.low is not None and one.gain.low < one.gain.mean < (one.gain.high or -1)
    assert one.moved == Range(pytest.approx(0.03), pytest.approx(0.15), pytest.approx(0.27), 4)


def test_periods_come_newest_first_and_what_is_not_here_is_left_out() -> None:
    for period in (0, 1, 3):
        lay(period, [0.1], None)
    assert [one.period for one in view(4)] == [3, 1, 0]
    assert [one.period for one in view(2)] == [1, 0]
    assert view(0) == []
    (first, *_) = view(4)
    assert first.rulings == {} and first.withheld is None and first.gain is None and first.moved is None


def test_only_so_many_periods_are_shown() -> None:
    for period in range(MOST + 2):
        lay(period, [], None)
    assert [one.period for one in view(MOST + 2)] == list(range(MOST + 1, 1, -1))
    assert all(one.drift is None and one.selected is None for one in view(MOST + 2))


def test_what_is_no_number_is_in_no_range() -> None:
    assert Range.of(pl.Series([None, np.nan, np.inf, 3.0])) == Range(3.0, 3.0, 3.0, 1)
    assert Range.of(pl.Series([np.nan])) is None


def test_an_axis_holds_all_ranges_and_nought() -> None:
    ends = bounds([Range(1, 2, 3, 1), None, Range(2, 3, 5, 1)])
    assert ends == (0, 5) and [place(x, ends) for x in (0, 2.5, 5)] == [0, 50, 100]
    assert bounds([Range(-2, -1, -1, 1)]) == (-2, 0) and place(0, bounds([])) == 0


def test_the_page_says_and_draws_it() -> None:
    lay(0, [0.5, 1.0], [("improved", 0.25)])
    lay(1, [-0.5, 0.5], [("refused", -0.25), ("held", 0.05), ("same", 0.0)])
    text = shown(view(2))
    assert text.index("day 1") < text.index("day 0")
    assert '<i class="held" style="width: 33.33%"></i><i class="refused" style="width: 33.33%"></i>' in text
    assert "1 same, 1 held, 1 refused" in text and '<span class="figures">1 improved</span>' in text
    assert "67% withheld (21 to 94)</span> <strong>alarm</strong>" in text
    assert text.count("<strong>alarm</strong>") == 1 and "alarm above 50%" in text
    assert '<td class="number">+0.250</td>' in text  # of one user: no interval
    assert '0.00 <span class="note">(-0.40 to 0.40), 2</span>' in text and "u0" not in text


def test_without_a_gate_drift_alone_is_shown() -> None:
    lay(0, [0.5, 1.0], None)
    text = shown(view(1), None)
    assert "Drift scores of texts" in text and "Rulings" not in text and "alarm" not in text
    assert "<h2>The fleet</h2>" not in shown([])
