"""Amazon Reviews 2023: reviews with their products, copies and odd ratings counted, nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.benchmarks import Record, bought, sold, write_lines
from kit.sources import check, opened_in, rows_in, skips_in

from spring.data.rows import Reason, SourceError
from spring.data.sources import amazon
from spring.data.sources.amazon import AmazonSource

LEFT = "review of a user with fewer than min_reviews or beyond max_users"
COPY = "exact copy of another review"


def source_of(folder: Path, **changes: Any) -> AmazonSource:
    values = {"reviews": str(folder / "Beauty.jsonl.gz"), "products": str(folder / "meta_Beauty.jsonl"),
              "min_reviews": 1, "max_users": None}  # fmt: skip
    return AmazonSource.model_validate(values | changes)


def write(folder: Path, reviews: list[Record | str], products: list[Record | str]) -> AmazonSource:
    write_lines(folder / "Beauty.jsonl.gz", reviews)
    write_lines(folder / "meta_Beauty.jsonl", products)
    return source_of(folder)


def test_reviews_come_with_their_products(tmp_path: Path) -> None:
    source = write(tmp_path, [bought(1), bought(2, asin="OTHER", parent_asin="B1")], [sold(1), sold(3)])
    items = list(amazon.read(source))
    assert opened_in(items) == {"products": 1, "reviews described by the product's title": 0}
    rows = check(items).interactions
    first = rows.row(0, named=True)
    assert json.loads(first["query"]) == {
        "PRODUCT": "Product 1",
        "DESCRIPTION": "First of 1.\nSecond of 1.",
        "RATING": "2",
        "SUMMARY": "Title 1",
    }
    assert (first["task"], first["rating"], first["response"]) == ("review", 2.0, "Review 1 of ADA is this.")
    assert first["timestamp"] == datetime(2017, 7, 14, 2, 40, 0, 1000, UTC)
    assert rows["interaction_id"].to_list() == ["ADA/V1/1500000000001", "ADA/OTHER/1500000000002"]
    assert rows_in(items)[1].where == "Beauty.jsonl.gz:2"


def test_a_product_without_a_description_is_described_by_its_features_or_its_title(tmp_path: Path) -> None:
    bare = sold(2, description=[], features=[])
    source = write(tmp_path, [bought(1), bought(2)], [sold(1, description=[]), bare, sold(2)])
    items = list(amazon.read(source))
    told = [json.loads(query)["DESCRIPTION"] for query in check(items).interactions["query"]]
    assert told == ["Feature 1", "Product 2"]
    assert opened_in(items)["reviews described by the product's title"] == 1


def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path) -> None:
    reviews = [
        bought(1, rating=0.0), bought(2, parent_asin="B9"), bought(3, timestamp=1_500_000_000),
        bought(4, text=""), "{", bought(5, user_id=None), bought(6, rating=None), bought(7, rating=5.5),
        bought(8, title=["x"]), "",
    ]  # fmt: skip
    products: list[Record | str] = [sold(n) for n in range(1, 8)]
    items = list(amazon.read(write(tmp_path, reviews, [*products, sold(8, title=None)])))
    checked = check(items)
    assert checked.interactions.is_empty() and skips_in(items) == {"blank line": 1}
    assert checked.quarantine.select("where", "field", "reason", "value").rows() == [
        ("Beauty.jsonl.gz:1", "rating", Reason.IMPOSSIBLE_RATING, "0.0"),
        ("Beauty.jsonl.gz:2", "query.PRODUCT", Reason.NO_PRODUCT, "B9"),
        ("Beauty.jsonl.gz:3", "timestamp", Reason.BAD_TIME, "1500000000 milliseconds since 1970"),
        ("Beauty.jsonl.gz:4", "response", Reason.EMPTY, ""),
        ("Beauty.jsonl.gz:5", "line", Reason.MALFORMED, checked.quarantine["value"][4]),
        ("Beauty.jsonl.gz:6", "user_id", Reason.MISSING_USER, None),
        ("Beauty.jsonl.gz:7", "query.RATING", Reason.EMPTY, None),
        ("Beauty.jsonl.gz:8", "rating", Reason.IMPOSSIBLE_RATING, "5.5"),
        ("Beauty.jsonl.gz:9", "query.SUMMARY", Reason.NOT_TEXT, "['x']"),
    ]


def test_copies_are_counted_and_what_differs_is_none(tmp_path: Path) -> None:
    reviews: list[Record | str] = [
        bought(1),
        bought(1, helpful_vote=7),
        bought(1, text="Another text."),
        bought(2),
    ]
    items = list(amazon.read(write(tmp_path, reviews, [sold(1), sold(2)])))
    assert skips_in(items) == {COPY: 1}
    checked = check(items)
    assert checked.interactions.height == 2
    assert checked.quarantine["reason"].to_list() == [Reason.DUPLICATE_ID]


def test_only_reviews_of_users_who_are_kept_are_held(tmp_path: Path) -> None:
    counts = {"ADA": 4, "BEN": 3, "CEM": 3, "DEE": 1}
    reviews: list[Record | str] = [bought(n, user) for user, count in counts.items() for n in range(count)]
    source = write(tmp_path, reviews, [sold(n) for n in range(5)])
    items = list(amazon.read(source.model_copy(update={"min_reviews": 2, "max_users": 2})))
    assert {row.user_id for row in rows_in(items)} == {"ADA", "BEN"} and skips_in(items) == {LEFT: 4}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Nice.<br /><br>Really.", "Nice.\n\nReally."),
        ("[[VIDEOID:4b61b5]] It&#39;s &lt;3 [[not this]]", "It's <3 [[not this]]"),
        ("[[ASIN:B000 A thing]]", ""),
    ],
)
def test_marks_of_the_page_are_no_text_of_the_user(tmp_path: Path, text: str, plain: str) -> None:
    [row] = rows_in(amazon.read(write(tmp_path, [bought(1, text=text, title=f"{text}!")], [sold(1)])))
    assert row.response == plain and row.query["SUMMARY"] == f"{plain}!"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("Beauty.jsonl", None, "is no file"),
        ("Beauty.csv", b"a,b", "must end in .jsonl or .jsonl.gz"),
        ("Beauty.jsonl", b"PAR1", "is a parquet file"),
        ("Beauty.jsonl", b"version https://git-lfs", "git lfs pull"),
        ("Beauty.jsonl.gz", b"\x1f\x8b\x08\x00 no more", "cannot be read"),
    ],
)
@pytest.mark.parametrize("which", ["reviews", "products"])
def test_files_that_cannot_be_read(
    tmp_path: Path, which: str, name: str, data: bytes | None, said: str
) -> None:
    write(tmp_path, [bought(1)], [sold(1)])
    path = tmp_path / "other" / name
    path.parent.mkdir()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SourceError, match=rf"^ingest\.amazon\.{which}: .*{said}"):
        list(amazon.read(source_of(tmp_path, **{which: str(path)})))


maybe = st.sampled_from
reviews = st.builds(
    lambda number, user, change: bought(number, user) | change,
    st.integers(1, 4),
    maybe(["ADA", "BEN", "", None]),
    maybe([{}, {}, {}, {"rating": 9}, {"text": "nan"}, {"timestamp": None}, {"parent_asin": None}]),
)


@settings(deadline=None, max_examples=60)
@given(
    found=st.lists(st.one_of(reviews, maybe(["{", "", "[1]"])), max_size=12),
    products=st.lists(st.builds(sold, st.integers(1, 4)), max_size=4),
    least=st.integers(1, 3),
    most=maybe([None, 1]),
)
def test_nothing_is_lost(
    found: list[Record | str], products: list[Record | str], least: int, most: int | None
) -> None:
    """Each line of the reviews is a row or counted."""
    with TemporaryDirectory() as folder:
        source = write(Path(folder), found, products)
        items = list(amazon.read(source.model_copy(update={"min_reviews": least, "max_users": most})))
    checked = check(items)
    assert checked.read == checked.interactions.height + checked.quarantine.height == len(rows_in(items))
    assert checked.read + sum(skips_in(items).values()) == len(found)
    assert checked.interactions["interaction_id"].is_unique().all()
