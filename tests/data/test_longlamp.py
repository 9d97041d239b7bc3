"""LongLaMP: of all rows of a user one history, each item once, dated or in a stated order, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.benchmarks import (
    Record,
    asked_paper,
    asked_post,
    asked_review,
    paper,
    post,
    review,
    write_longlamp,
)
from kit.sources import check, opened_in, rows_in, skips_in
from pydantic import ValidationError

from spring.data.rows import Reason, SourceError
from spring.data.sources import longlamp
from spring.data.sources.longlamp import LongLampSource

ROOT = Path(__file__).parents[2]
HAS = "item that its user already has"
UNDATED = "question's own item, which has no year"


def source_of(folder: Path | str, **changes: Any) -> LongLampSource:
    values = {"id": str(folder), "revision": None, "task": "abstract", "setting": "user", "order": "year",
              "max_users": None}  # fmt: skip
    return LongLampSource.model_validate(values | changes)


def in_file_order(folder: Path, task: str) -> LongLampSource:
    return source_of(folder, task=task, order="file")


# --- abstracts --------------------------------------------------------------------------------------------


def test_a_users_rows_of_all_splits_are_one_history(tmp_path: Path) -> None:
    """By hand: Ada's profiles overlap in papers 1 and 2, and stand in no order of time."""
    write_longlamp(
        tmp_path,
        "abstract_generation_user",
        test=[asked_paper("Ada", 9, [paper(3), paper(2)])],
        train=[asked_paper("Ada", 8, [paper(2), paper(1)]), asked_paper("Ben", 7, [paper(5)])],
        val=[asked_paper("Ada", 6, [paper(1, extra=None)])],
    )
    items = list(longlamp.read(source_of(tmp_path)))
    assert opened_in(items) == {"files": 3}
    assert skips_in(items) == {HAS: 2, UNDATED: 4}
    checked = check(items)
    assert checked.interactions.select("user_id", "interaction_id").rows() == [
        ("Ada", "Ada/p1"), ("Ada", "Ada/p2"), ("Ada", "Ada/p3"), ("Ben", "Ben/p5")
    ]  # fmt: skip
    first = checked.interactions.row(0, named=True)
    assert first["timestamp"] == datetime(2001, 7, 1, tzinfo=UTC) and first["task"] == "abstract"
    assert json.loads(first["query"]) == {"TITLE": "Paper 1"} and first["response"] == paper(1)["abstract"]
    assert [row.where for row in rows_in(items)][-1] == (
        "abstract_generation_user/test-00000-of-00001.parquet:1 profile[0]"
    )


def test_in_the_files_order_the_questions_are_items_too(tmp_path: Path) -> None:
    """Paper 8 is Ada's own in train and stands in the profile of test: it is there once."""
    write_longlamp(
        tmp_path,
        "abstract_generation_user",
        train=[asked_paper("Ada", 8, [paper(2), paper(1)])],
        test=[asked_paper("Ada", 9, [paper(8), paper(3)])],
    )
    items = list(longlamp.read(in_file_order(tmp_path, "abstract")))
    rows = check(items).interactions
    titles = [json.loads(query)["TITLE"] for query in rows["query"]]
    assert titles == ["Paper 2", "Paper 1", "Paper 8", "Paper 3", "Paper 9"]
    assert rows["timestamp"].is_sorted() and set(rows["timestamp"].dt.year()) == {2000}
    assert "no dates" in str(opened_in(items)["timestamps"]) and skips_in(items) == {HAS: 1}


def test_what_is_wrong_with_an_item_is_told_with_its_place(tmp_path: Path) -> None:
    profile = [paper(1), paper(2, title="nan"), paper(3, abstract=""), paper(4, id=None), paper(5, year=3000),
               paper(6) | {"id": "p1"}, None, paper(7) | {"year": None}]  # fmt: skip
    write_longlamp(tmp_path, "abstract_generation_user", train=[asked_paper("Ada", 8, profile)])
    checked = check(longlamp.read(source_of(tmp_path)))
    assert checked.quarantine.select("field", "reason").rows() == [
        ("query.TITLE", Reason.MISSING_WORD),
        ("response", Reason.EMPTY),
        ("interaction_id", Reason.MISSING_ID),
        ("timestamp", Reason.BAD_TIME),
        ("interaction_id", Reason.DUPLICATE_ID),
        ("profile", Reason.NOT_TEXT),
        ("timestamp", Reason.MISSING_TIME),
    ]
    assert checked.quarantine["where"][0].endswith("train-00000-of-00001.parquet:1 profile[1]")


def test_the_same_abstract_under_two_authors_stays_with_the_earliest(tmp_path: Path) -> None:
    long = paper(1, abstract="An abstract of two authors. " * 10)
    rows = [asked_paper("Ada", 8, [long]), asked_paper("Ben", 9, [long])]
    checked = check(
        longlamp.read(source_of(write_longlamp(tmp_path, "abstract_generation_user", train=rows)))
    )
    assert checked.interactions["interaction_id"].to_list() == ["Ada/p1"]
    assert checked.quarantine["reason"].to_list() == [Reason.REPEATED]


def test_profiles_that_are_json_are_read_too(tmp_path: Path) -> None:
    """As some copies of the data have them."""
    rows = [asked_paper("Ada", 8, json.dumps([paper(1), paper(2)])), asked_paper("Ben", 9, "[{")]
    write_longlamp(tmp_path, "abstract_generation_user", train=rows)
    checked = check(longlamp.read(source_of(tmp_path, max_users=2)))
    assert checked.interactions["interaction_id"].to_list() == ["Ada/p1", "Ada/p2"]
    assert checked.quarantine.select("field", "reason", "value").rows() == [
        ("profile", Reason.MALFORMED, "'[{'")
    ]


def test_the_users_with_the_longest_profiles_are_kept(tmp_path: Path) -> None:
    rows = [asked_paper(name, 9, [paper(n) for n in range(1, count + 1)])
            for name, count in [("Ada", 1), ("Ben", 3), ("Cem", 2), ("Dee", 2)]]  # fmt: skip
    write_longlamp(tmp_path, "abstract_generation_temporal", train=rows)
    items = list(longlamp.read(source_of(tmp_path, setting="temporal", max_users=2)))
    assert Counter(row.user_id for row in rows_in(items)) == {"Ben": 3, "Cem": 2}
    assert skips_in(items)["question of a user beyond max_users"] == 2


# --- reviews and posts ------------------------------------------------------------------------------------


def test_reviews_have_no_time_and_no_id(tmp_path: Path) -> None:
    write_longlamp(
        tmp_path,
        "product_review_user",
        train=[asked_review("A1", 3, [review(2), review(1)])],
        val=[asked_review("A1", 4, [review(3), review(2), review(5, description=None)])],
    )
    items = list(longlamp.read(in_file_order(tmp_path, "review")))
    checked = check(items)
    summaries = [json.loads(query)["SUMMARY"] for query in checked.interactions["query"]]
    assert summaries == [f"Summary {n}" for n in (2, 1, 3, 4)] and skips_in(items) == {HAS: 2}
    first = checked.interactions.row(0, named=True)
    assert (first["task"], first["rating"]) == ("product-review", 3.0)
    assert json.loads(first["query"]) == {
        "DESCRIPTION": review(2)["description"], "RATING": "3", "SUMMARY": "Summary 2"
    }  # fmt: skip
    assert checked.quarantine.select("field", "reason").rows() == [("query.DESCRIPTION", Reason.EMPTY)]
    assert checked.interactions["interaction_id"].is_unique().all()


def test_posts(tmp_path: Path) -> None:
    rows = [asked_post("ada", 3, [post(1), post(2)]), asked_post("ada", 4, [post(3)], input="Write!")]
    write_longlamp(tmp_path, "topic_writing_user", train=rows)
    items = list(longlamp.read(in_file_order(tmp_path, "topic")))
    checked = check(items)
    assert [json.loads(query)["SUMMARY"] for query in checked.interactions["query"]] == [
        "that 1", "that 2", "that 3"
    ]  # fmt: skip
    assert checked.quarantine.select("field", "reason", "value").rows() == [
        ("input", Reason.MALFORMED, "Write!")
    ]


@pytest.mark.parametrize("task", ["review", "topic"])
def test_an_order_in_time_that_nobody_gives_is_refused(task: str) -> None:
    with pytest.raises(ValidationError, match=r"order: year, and LongLaMP gives no time .*`order: file`"):
        source_of("x", task=task)


# --- what cannot be read ----------------------------------------------------------------------------------


def refused(source: LongLampSource) -> str:
    with pytest.raises(SourceError) as caught:
        list(longlamp.read(source))
    assert str(caught.value).startswith("ingest.longlamp.id") and "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_do_not_hold_it(tmp_path: Path) -> None:
    write_longlamp(tmp_path, "topic_writing_user", train=[asked_post("ada", 3, [post(1)])])
    assert "no *.parquet files; there are the folders topic_writing_user" in refused(source_of(tmp_path))
    inside = source_of(tmp_path / "topic_writing_user")
    assert "has no column name, as files of abstract_generation have; it has author" in refused(inside)
    (tmp_path / "empty").mkdir()
    assert "has for abstract_generation_user no *.parquet files" in refused(source_of(tmp_path / "empty"))


def test_half_a_download(tmp_path: Path) -> None:
    folder = write_longlamp(tmp_path, "abstract_generation_user", train=[asked_paper("Ada", 8, [paper(1)])])
    file = folder / "abstract_generation_user/train-00000-of-00001.parquet"
    half = file.rename(file.with_name("train-00001-of-00002.parquet"))
    assert "has 1 of the 2 files of train, and lacks number 00000" in refused(source_of(folder))
    half.rename(file).write_bytes(b"PAR1")
    assert "is no parquet file that can be read" in refused(source_of(folder))


HUB = """
import sys
from spring.data.rows import RawRow, SourceError
from spring.data.sources import longlamp
from spring.data.sources.longlamp import LongLampSource
how = {"revision": None, "task": "abstract", "setting": "user", "order": "year", "max_users": None}
source = LongLampSource(id=sys.argv[1], **how)
try:
    for item in longlamp.read(source):
        print(item.interaction_id if isinstance(item, RawRow) else tuple(item))
except SourceError as error:
    print(error)
"""


def from_hub(cache: Path, name: str) -> str:
    """In a process of its own: the hub's package reads where its cache is when it is imported."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", HUB, name], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_hub_gave_before_is_read_where_it_does_not_answer(tmp_path: Path) -> None:
    """A cache as the hub's own package leaves it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    kept = tmp_path / "datasets--LongLaMP--LongLaMP"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text(commit)
    write_longlamp(
        kept / "snapshots" / commit, "abstract_generation_user", train=[asked_paper("Ada", 8, [paper(1)])]
    )
    told = from_hub(tmp_path, "LongLaMP/LongLaMP").splitlines()
    assert told == ["('files', 1)", f"('revision', '{commit}')", "Ada/p1", f'("{UNDATED}",)']


def test_a_hub_that_does_not_answer_says_what_to_do(tmp_path: Path) -> None:
    told = from_hub(tmp_path, "LongLaMP/LongLaMP")
    assert told.startswith("ingest.longlamp.id is 'LongLaMP/LongLaMP': neither a folder")
    assert "hf download LongLaMP/LongLaMP --repo-type dataset" in told and len(told.splitlines()) == 1
    assert "neither a folder" in from_hub(tmp_path, "no such/name at all")


@pytest.mark.slow  # the hub's package tries again for some seconds
@pytest.mark.parametrize(
    ("module", "file"),
    [("spring.data.sources.hub", "c/train-00000-of-00001.parquet"), ("spring.engine.folders", "config.json")],
)
def test_a_download_that_breaks_off_says_what_to_do(tmp_path: Path, module: str, file: str) -> None:
    """Of a server on this machine; the error that it comes with is no OSError."""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, str(ROOT / "tests/kit/hub.py"), module, file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("refused: the.key is 'some/set': neither a folder"), done.stderr


# --- nothing is lost --------------------------------------------------------------------------------------

reviews = st.builds(
    lambda n, change: review(n) | change,
    st.integers(1, 6),
    st.sampled_from(
        [{}, {}, {"summary": "nan"}, {"reviewText": ""}, {"overall": None}, {"description": "é"}]
    ),
)
questions = st.builds(
    lambda name, n, profile, change: asked_review(name, n, profile) | change,
    st.sampled_from(["A1", "A2", "A3", None]),
    st.integers(1, 9),
    st.lists(reviews, max_size=5),
    st.sampled_from([{}, {}, {"input": "Write."}, {"output": None}]),
)


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])  # a process each
@given(train=st.lists(questions, min_size=10, max_size=25), most=st.sampled_from([None, 1, 2]))
def test_nothing_is_lost(train: list[Record], most: int | None) -> None:
    """Each item of each profile, and each question, is a row or counted; no interaction comes twice."""
    train = [asked_review("A1", 1, [review(1)]), *train]  # so that polars knows the types
    with TemporaryDirectory() as folder:
        write_longlamp(Path(folder), "product_review_user", train=train)
        source = source_of(folder, task="review", order="file", max_users=most)
        items = list(longlamp.read(source))
    checked, skipped = check(items), skips_in(items)
    assert [row.row for row in rows_in(items)] == list(range(1, checked.read + 1))
    assert checked.read == checked.interactions.height + checked.quarantine.height
    every = sum(len(row["profile"]) + 1 for row in train)
    users = Counter(row["reviewerId"] for row in train)
    if most is None:
        assert checked.read + skipped[HAS] == every
    else:
        left = skipped["question of a user beyond max_users"]
        assert left in {sum(users.values()) - sum(users[name] for name in some)
                        for some in combinations(users, min(most, len(users)))}  # fmt: skip
    assert checked.interactions["interaction_id"].is_unique().all()
    assert checked.interactions.select("user_id", "query", "response").is_unique().all()
