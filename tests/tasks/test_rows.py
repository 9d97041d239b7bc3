"""Rows that become dicts only while they are read: the same rows, in little memory."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import numpy as np
import polars as pl

from tasks.steps import rows as module
from tasks.steps.calibration import Known
from tasks.steps.rows import Growing, Rows, by_user, chained, grouped, named, parted, pick, those

USERS = 300


def table(users: int = USERS, each: int = 9) -> pl.DataFrame:
    """Rows of all users by turns, so that nobody's lie together."""
    numbers = pl.int_range(users * each, eager=True)
    return pl.select(
        user_id=pl.format("user {}", numbers % users),
        interaction_id=pl.format("{}", numbers),
        text=pl.format("what {} wrote " + 30 * "again ", numbers),
        period=numbers // (3 * users),
    )


def test_each_user_has_the_rows_of_a_group(monkeypatch: Any) -> None:
    """Also of a table whose blocks have long been dropped, read from both ends."""
    monkeypatch.setattr(module, "KEPT", 2)
    frame = table(users=40)
    found = by_user(frame)
    parts = {str(key): part.to_dicts() for (key,), part in frame.group_by("user_id", maintain_order=True)}
    assert list(found) == list(parts)
    assert found == parts and dict(reversed(found.items())) == parts
    places = grouped(frame, "user_id", "period")
    assert all(len(rows) == 3 for rows in places.values()) and len(places) == 120
    assert grouped(frame.clear(), "user_id") == {}


def test_null_is_a_place_of_its_own() -> None:
    frame = pl.DataFrame({"recipe": ["a", "a"], "user_id": [None, "x"], "cell": ["shared", "own"]})
    found = grouped(frame, "recipe", "user_id")
    assert found["a", None][0]["cell"] == "shared" and found["a", "x"][0]["cell"] == "own"


def test_parts_of_rows_are_what_they_are_of_lists() -> None:
    mine = by_user(table())["user 7"]
    as_list = list(mine)
    assert mine[-1] == as_list[-1] and mine[2:5] == as_list[2:5] and isinstance(mine[2:5], Rows)
    assert pick(mine, [3, 1]) == pick(as_list, [3, 1]) == [as_list[3], as_list[1]]
    assert not pick(mine, ()) and not named(mine, set())
    late = those(mine, lambda row: row["period"] == 2)
    assert isinstance(late, Rows) and late == as_list[6:]
    assert named(mine, {"7", as_list[8]["interaction_id"]}) == [as_list[0], as_list[8]]
    first, rest = parted(mine, 600)  # of all rows; its third is number 607
    assert (first, rest) == (as_list[:2], as_list[2:])
    assert isinstance(chained(first, rest), Rows) and chained(first, rest) == as_list
    assert chained((), rest) is rest and chained(as_list[:2], rest) == as_list


def test_another_process_is_sent_a_list_and_not_the_table() -> None:
    sent = pickle.dumps(by_user(table())["user 7"])
    assert len(sent) < 5_000 and type(pickle.loads(sent)) is list


def test_a_user_costs_little_however_often_its_rows_are_read() -> None:
    """As dicts its nine rows take more than 5 kB; of these few blocks are kept."""
    frame = table()
    tracemalloc.start()
    found = by_user(frame)
    assert tracemalloc.get_traced_memory()[0] / USERS < 600
    assert all(len(list(rows)) == 9 for rows in found.values())
    kept = tracemalloc.get_traced_memory()[0]
    dicts = frame.to_dicts()
    eagerly = tracemalloc.get_traced_memory()[0] - kept
    tracemalloc.stop()
    assert eagerly / USERS > 5_000 and kept < eagerly
    assert len(dicts) == 9 * USERS


def test_a_growing_table_is_that_of_all_its_rows(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "COLLECTED", 4)
    schema = {"name": pl.String, "ids": pl.List(pl.String), "value": pl.Float64}
    rows = [{"name": f"{n}", "ids": [str(n)] * (n % 3), "value": n / 3 or None} for n in range(11)]
    growing = Growing(schema)
    for row in rows:
        growing.add([row])
    assert growing.frame().equals(pl.DataFrame(rows, schema=schema)) and growing.frame().n_chunks() == 1
    assert Growing(schema).frame().equals(pl.DataFrame(schema=schema))


def test_scores_are_known_from_their_time_on() -> None:
    times = [pl.datetime(2024, 1, day, time_zone="UTC") for day in (5, 2, 2, 9)]
    scores = pl.select(known_at=pl.concat_list(times).explode()).with_columns(
        score=pl.Series([1.0, 2.0, 3.0, 4.0])
    )
    known = Known(scores)
    moments = [scores["known_at"][place] for place in (1, 0, 3)]
    assert [known.until(when) for when in moments] == [2, 3, 4]
    assert Known(scores, at_once=True).until(moments[0]) == 4
    standing = [float(known.standing(np.array([2.5]), when)[0]) for when in moments]
    assert standing == [0.5, 2 / 3, 0.5]
