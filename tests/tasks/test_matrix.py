"""Which users changed and when, by their labels; and a matrix with a cell missing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tasks.measures.matrix import check_matrix, cube, kinds_of, probes, read_swapped

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


def test_the_cube_is_in_order_and_nan_where_there_is_nothing():
    rows = [(u, i, j, 100 * "ba".index(u) + 10 * i + j) for j in (1, 0) for u in "ab" for i in (0, 1)]
    frame = pl.DataFrame(rows, schema=["user_id", "learned", "tested", "value"], orient="row")
    assert cube(frame, ["a", "b"], 2, 2).tolist() == [[[100, 101], [110, 111]], [[0, 1], [10, 11]]]
    holed = cube(frame.head(7), ["a", "b"], 2, 2)
    assert np.isnan(holed[1, 1, 0]) and np.isfinite(holed).sum() == 7


def test_a_matrix_that_lacks_a_test_of_its_split_is_refused():
    rows = [(arm, "a", "own", t, t, -1.0) for arm in ("base", "spring") for t in (0, 2)]
    columns = ["arm", "user_id", "adapter", "learned", "tested", "value"]
    matrix = pl.DataFrame(rows, schema=columns, orient="row")
    alone = pl.DataFrame({"user_id": ["a", "a"], "tested": [0, 2], "value": [-2.0, -2.0]})
    check_matrix(matrix, alone, ["base", "spring"])
    with pytest.raises(ValueError, match=r"lacks 1 values.*spring/a/2.*--force transfer"):
        check_matrix(matrix.head(3), alone, ["base", "spring"])


def test_who_has_no_adapter_in_some_period_has_no_personal_part():
    rows = [
        ("a", "swapped", 1, -1.0),
        ("a", "swapped", 0, -2.0),
        ("a", "own", 0, -9.0),
        ("b", "swapped", 1, -3.0),
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "adapter", "tested", "value"], orient="row")
    there = {"a": np.arange(2), "b": np.arange(2)}
    assert {user: of.tolist() for user, of in read_swapped(frame, there).items()} == {"a": [-2.0, -1.0]}
    there["b"] = np.array([1])  # the only period in which b is asked anything
    assert set(read_swapped(frame, there)) == {"a", "b"}
