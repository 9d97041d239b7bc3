"""Which users changed and when, by their labels; and a matrix with a cell missing."""

from __future__ import annotations

import polars as pl
import pytest

from tasks.measures.matrix import cube, kinds_of, probes, read_swapped

LABELS = pl.DataFrame(
    [
        ("a", 0, "test", "stable", False),
        ("a", 1, "train", "abrupt", True),
        ("a", 1, "test", "abrupt", True),
        ("b", 0, "test", "stable", False),
        ("b", 0, "test", "noise", False),  # one of two tests says nothing of habits
        ("b", 1, "test", "recurring", None),  # comes back: neither new nor stable
        ("b", 1, "train", "transient", False),
    ],
    schema=["user_id", "period", "part", "drift", "is_drift"],
    orient="row",
)


def test_a_kind_has_the_users_in_whom_it_lasts_or_returns():
    assert kinds_of(LABELS) == {"a": ["abrupt"], "b": ["recurring"]}
    assert kinds_of(LABELS.clear()) == {}


def test_a_period_is_new_stable_or_a_return_if_all_its_tests_are():
    found = {name: where.tolist() for name, where in probes(LABELS, ["a", "b"], 2).items()}
    assert found == {
        "changed": [[False, True], [False, False]],
        "stable": [[True, False], [False, False]],
        "returned": [[False, False], [False, True]],
    }


def test_the_cube_is_in_order_and_without_holes():
    rows = [(u, i, j, 100 * "ba".index(u) + 10 * i + j) for j in (1, 0) for u in "ab" for i in (0, 1)]
    frame = pl.DataFrame(rows, schema=["user_id", "learned", "tested", "value"], orient="row")
    assert cube(frame, ["a", "b"], 2, 2).tolist() == [[[100, 101], [110, 111]], [[0, 1], [10, 11]]]
    with pytest.raises(AssertionError, match="7 cells"):
        cube(frame.head(7), ["a", "b"], 2, 2)


def test_who_has_no_adapter_in_some_period_has_no_personal_part():
    rows = [
        ("a", "swapped", 1, -1.0),
        ("a", "swapped", 0, -2.0),
        ("a", "own", 0, -9.0),
        ("b", "swapped", 1, -3.0),
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "adapter", "tested", "value"], orient="row")
    assert {user: of.tolist() for user, of in read_swapped(frame, 2).items()} == {"a": [-2.0, -1.0]}
