"""The split in time: hand-made cases, properties, and leaks that must be found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.data.rows import INTERACTIONS
from spring.data.split import (
    LONG_TEXT,
    LeakageError,
    SplitError,
    check_leakage,
    hold_out_validation,
    split,
)

START = datetime(2020, 1, 1, tzinfo=UTC)


def interactions(hours: dict[str, list[int]], responses: dict[str, str] | None = None) -> pl.DataFrame:
    """One interaction per hour given, named USER-PLACE; its response is its own name unless given."""
    rows = []
    for user, times in hours.items():
        for place, hour in enumerate(times):
            name = f"{user}-{place}"
            text = (responses or {}).get(name, name)
            rows.append((user, name, START + timedelta(hours=hour), "commit", "{}", text, None))
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def layout(frame: pl.DataFrame, user: str) -> list[tuple[str, int, str]]:
    mine = frame.filter(pl.col("user_id") == user)
    return mine.select("interaction_id", "period", "part").rows()


def test_seven_items_in_two_periods() -> None:
    """7 = 4 + 3; a tenth of 4 or of 3 rounds to none, so the last one of each is test."""
    frame = split(interactions({"a": [6, 5, 4, 3, 2, 1, 0]}), periods=2, test_share=0.1)
    assert layout(frame, "a") == [
        ("a-6", 0, "train"),
        ("a-5", 0, "train"),
        ("a-4", 0, "train"),
        ("a-3", 0, "test"),
        ("a-2", 1, "train"),
        ("a-1", 1, "train"),
        ("a-0", 1, "test"),
    ]
    assert frame.schema["period"] == pl.Int32


@pytest.mark.parametrize(("items", "tests"), [(2, 1), (10, 1), (14, 1), (15, 2), (25, 3), (100, 10)])
def test_share_of_test_items_is_rounded(items: int, tests: int) -> None:
    frame = split(interactions({"a": list(range(2 * items))}), periods=2, test_share=0.1)
    assert frame.filter((pl.col("part") == "test") & (pl.col("period") == 1)).height == tests


def test_at_least_one_train_item_is_left() -> None:
    frame = split(interactions({"a": list(range(4))}), periods=2, test_share=0.9)
    assert [part for _, _, part in layout(frame, "a")] == ["train", "test", "train", "test"]


def test_ties_keep_the_order_they_came_in() -> None:
    frame = split(interactions({"b": [1, 1, 1, 1], "a": [0, 0, 0, 0]}), periods=2, test_share=0.1)
    assert [name for name, _, _ in layout(frame, "b")] == ["b-0", "b-1", "b-2", "b-3"]
    assert frame["user_id"].to_list() == ["a"] * 4 + ["b"] * 4
    assert check_leakage(frame) == 0


def test_too_few_interactions_names_users_and_remedy() -> None:
    with pytest.raises(SplitError, match=r"1 user\(s\) .* short \(5\).*min_interactions to 6"):
        split(interactions({"short": [0, 1, 2, 3, 4], "enough": list(range(6))}), periods=3, test_share=0.1)


users = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.integers(0, 40), min_size=10, max_size=60), min_size=1, max_size=3
)


@settings(deadline=None, max_examples=60)
@given(hours=users, periods=st.integers(2, 5), test_share=st.floats(0.01, 0.99))
def test_properties(hours: dict[str, list[int]], periods: int, test_share: float) -> None:
    given_rows = interactions(hours)
    frame = split(given_rows, periods=periods, test_share=test_share)
    assert check_leakage(frame) == 0
    # a partition: every row once, nothing but the two columns added
    assert frame.select(given_rows.columns).sort("interaction_id").equals(given_rows.sort("interaction_id"))
    for (_,), mine in frame.group_by("user_id"):
        assert mine["timestamp"].is_sorted() and mine["period"].is_sorted()
        sizes = [mine.filter(pl.col("period") == period).height for period in range(periods)]
        assert sum(sizes) == mine.height
        assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
        for period in range(periods):
            parts = mine.filter(pl.col("period") == period)["part"].to_list()
            tests = parts.count("test")
            assert 1 <= tests < len(parts)
            assert parts == ["train"] * (len(parts) - tests) + ["test"] * tests


@settings(deadline=None, max_examples=60)
@given(hours=users, periods=st.integers(2, 5))
def test_another_period_leaves_the_earlier_ones_alone(hours: dict[str, list[int]], periods: int) -> None:
    longer = {user: times + [99] * (len(times) // periods) for user, times in hours.items()}
    before = split(interactions(hours), periods=periods, test_share=0.1)
    after = split(interactions(longer), periods=periods + 1, test_share=0.1)
    assert after.filter(pl.col("period") < periods).equals(before)
    assert after.height > before.height


def changed(frame: pl.DataFrame, name: str, **values: object) -> pl.DataFrame:
    """`frame` with other values in the row of one interaction."""
    row = pl.col("interaction_id") == name
    columns = {
        key: pl.when(row).then(pl.lit(value, dtype=frame.schema[key])).otherwise(pl.col(key))
        for key, value in values.items()
    }
    return frame.with_columns(**columns)


LONG = "the very same words " * (LONG_TEXT // 20)


@pytest.fixture
def clean() -> pl.DataFrame:
    """Two users, two periods of three items: a-0, a-1 train, a-2 test; a-3, a-4 train, a-5 test."""
    frame = split(interactions({"a": list(range(6)), "b": list(range(6))}), periods=2, test_share=0.1)
    assert check_leakage(frame) == 0
    return frame


def test_an_item_before_the_period_before_it_is_leakage(clean: pl.DataFrame) -> None:
    with pytest.raises(LeakageError, match="out of time order: a-3"):
        check_leakage(changed(clean, "a-3", timestamp=START + timedelta(hours=1)))


def test_a_test_item_before_a_train_item_is_leakage(clean: pl.DataFrame) -> None:
    with pytest.raises(LeakageError, match="out of time order: b-2"):
        check_leakage(changed(clean, "b-2", timestamp=START))


def test_swapped_parts_are_leakage(clean: pl.DataFrame) -> None:
    with pytest.raises(LeakageError, match="out of time order: a-3"):
        check_leakage(changed(changed(clean, "a-3", part="test"), "a-5", part="train"))


def test_an_id_twice_is_leakage(clean: pl.DataFrame) -> None:
    with pytest.raises(LeakageError, match="1 interaction ids stand twice: b-5"):
        check_leakage(changed(clean, "a-5", interaction_id="b-5"))


@pytest.mark.parametrize("train", ["a-0", "a-4"])
def test_a_long_text_seen_in_training_is_leakage(clean: pl.DataFrame, train: str) -> None:
    assert len(LONG) >= LONG_TEXT
    planted = changed(changed(clean, train, response=LONG), "a-5", response=LONG)
    with pytest.raises(LeakageError, match="repeat a train item's text: a-5"):
        check_leakage(planted)


def test_a_short_text_seen_in_training_is_counted(clean: pl.DataFrame) -> None:
    short = LONG[: LONG_TEXT - 1]
    assert check_leakage(changed(changed(clean, "a-0", response=short), "a-5", response=short)) == 1


@pytest.mark.parametrize("train", ["a-0", "a-4"])
def test_a_long_text_that_another_user_learns_is_leakage(clean: pl.DataFrame, train: str) -> None:
    """Arms that learn from all users would have read it, in the transductive ones whatever its period."""
    planted = changed(changed(clean, train, response=LONG), "b-2", response=LONG)
    with pytest.raises(LeakageError, match="repeat a train item's text: b-2"):
        check_leakage(planted)


def test_a_text_of_a_later_period_or_another_users_query_is_no_leakage(clean: pl.DataFrame) -> None:
    assert check_leakage(changed(changed(clean, "a-3", response=LONG), "a-2", response=LONG)) == 0
    assert check_leakage(changed(changed(clean, "a-5", response=LONG), "b-5", response=LONG)) == 0


def test_validation_never_shows_a_test_item():
    """20 items in 2 periods: 9 train + 1 test each; validation holds out the last of the 9."""
    rows = pl.DataFrame(
        {
            "user_id": ["u"] * 20,
            "interaction_id": [f"i{n:02}" for n in range(20)],
            "timestamp": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(20)],
            "response": [f"text {n}" for n in range(20)],
        }
    )
    frame = split(rows, periods=2, test_share=0.1)
    kept = hold_out_validation(frame, test_share=0.1)
    assert sorted(set(frame["interaction_id"]) - set(kept["interaction_id"])) == ["i09", "i19"]
    assert kept.filter(pl.col("part") == "test")["interaction_id"].to_list() == ["i08", "i18"]


def test_validation_needs_two_train_items_per_period():
    rows = pl.DataFrame(
        {
            "user_id": ["u"] * 4,
            "interaction_id": list("abcd"),
            "timestamp": [datetime(2024, 1, n, tzinfo=UTC) for n in range(1, 5)],
            "response": list("abcd"),
        }
    )
    with pytest.raises(SplitError, match="hold_out is validation"):
        hold_out_validation(split(rows, periods=2, test_share=0.1), test_share=0.1)
