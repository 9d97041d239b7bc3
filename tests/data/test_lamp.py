"""LaMP: users found by their profiles, each item once, questions dated as it is said, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.benchmarks import Record, article, asked_article, write_lamp
from kit.sources import check, opened_in, rows_in, skips_in
from pydantic import ValidationError

from spring.data.rows import Reason, SourceError
from spring.data.sources import lamp
from spring.data.sources.lamp import LampSource
from spring.data.sources.same_users import find_users

HAS = "item that its user already has"


def source_of(folder: Path, **changes: Any) -> LampSource:
    values = {"path": str(folder), "task": "LaMP-4", "questions": "last", "max_users": None}
    return LampSource.model_validate(values | changes)


def articles(*numbers: int) -> list[Record]:
    return [article(number) for number in numbers]


def test_questions_of_one_user_are_one_history(tmp_path: Path) -> None:
    """By hand: 11 and 12 share two of three items; 21 has one of them, as another reporter may."""
    write_lamp(
        tmp_path,
        {"11": 4, "12": 5, "21": 9},
        train=[asked_article("11", 4, articles(2, 1)), asked_article("21", 9, articles(1, 7, 8))],
        dev=[asked_article("12", 5, articles(1, 2, 4))],
        test=[asked_article("13", 6, articles(1, 2, 4, 5))],
    )
    items = list(lamp.read(source_of(tmp_path)))
    assert opened_in(items) == {"files": 3, "users": 2}
    assert skips_in(items) == {HAS: 5 + 2, "question without an answer": 1}
    rows = check(items).interactions
    headlines = {user: group["response"].to_list() for (user,), group in rows.group_by("user_id")}
    assert headlines == {
        "train-11": ["Headline 1", "Headline 2", "Headline 4", "Headline 5"],
        "train-21": ["Headline 1", "Headline 7", "Headline 8", "Headline 9"],
    }
    last = rows.row(-1, named=True)
    assert json.loads(last["query"]) == {"ARTICLE": article(9)["text"]} and last["task"] == "headline"
    assert last["timestamp"].day == 8  # as late as the last of its profile, and behind it


def test_questions_have_no_date_of_their_own(tmp_path: Path) -> None:
    write_lamp(tmp_path, {"1": 4}, train=[asked_article("1", 4, articles(2, 1))])
    items = list(lamp.read(source_of(tmp_path, questions=None)))
    assert len(rows_in(items)) == 2 and skips_in(items) == {"question, which has no date": 1}


def test_titles_of_papers_of_a_year(tmp_path: Path) -> None:
    profile = [{"id": "7", "title": "On Looms", "abstract": "Looms weave.", "date": "2009"}]
    asked = "Generate a title for the following abstract of a paper: Cards have holes."
    folder = tmp_path / "LaMP_5/train"
    folder.mkdir(parents=True)
    (folder / "train_questions.json").write_text(
        json.dumps([{"id": "1", "input": asked, "profile": profile}])
    )
    golds = {"task": "LaMP_5", "golds": [{"id": "1", "output": "On Cards"}]}
    (folder / "train_outputs.json").write_text(json.dumps(golds))
    rows = check(lamp.read(source_of(tmp_path, task="LaMP-5"))).interactions
    assert rows["response"].to_list() == ["On Looms", "On Cards"]
    assert [str(time)[:10] for time in rows["timestamp"]] == ["2009-07-01"] * 2


def test_what_is_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    profile = [article(1, "May 3"), article(2, text=None), article(3, title=["a"]), 7, article(4)]
    bad = [asked_article("2", 9, None), asked_article("", 9, []), asked_article("1", 9, [])]
    odd = asked_article("3", 9, articles(4), input="Paraphrase: x")
    train = [asked_article("1", 9, profile), *bad, odd]
    write_lamp(tmp_path, {"1": 9, "3": 9}, train=train)
    checked = check(lamp.read(source_of(tmp_path)))
    assert checked.quarantine.select("where", "field", "reason").rows() == [
        ("train_questions.json[1]", "profile", Reason.MALFORMED),
        ("train_questions.json[2]", "id", Reason.MISSING_ID),
        ("train_questions.json[3]", "id", Reason.DUPLICATE_ID),
        ("train_questions.json[0] profile[0]", "timestamp", Reason.BAD_TIME),
        ("train_questions.json[0] profile[1]", "query.ARTICLE", Reason.EMPTY),
        ("train_questions.json[0] profile[2]", "response", Reason.NOT_TEXT),
        ("train_questions.json[0] profile[3]", "profile", Reason.NOT_TEXT),
        ("train_questions.json[4]", "input", Reason.MALFORMED),
    ]


@pytest.mark.parametrize(
    ("task", "said"), [("LaMP-2", "labels of a classification"), ("LaMP-7", "past tweets have no query")]
)
def test_tasks_that_have_no_answers_of_users_are_refused(tmp_path: Path, task: str, said: str) -> None:
    with pytest.raises(ValidationError, match=rf"task: {task} is not read: .*{said}.*LaMP-4 and LaMP-5"):
        source_of(tmp_path, task=task)


def refused(source: LampSource) -> str:
    with pytest.raises(SourceError) as caught:
        list(lamp.read(source))
    assert str(caught.value).startswith("ingest.lamp.path") and "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_missing_cut_off_or_another_tasks(tmp_path: Path) -> None:
    assert "is no folder" in refused(source_of(tmp_path / "nowhere"))
    assert "no *_questions.json files" in refused(source_of(tmp_path))
    write_lamp(tmp_path, {"1": 4}, task="LaMP_5", train=[asked_article("1", 4, articles(2, 1))])
    assert "train_outputs.json is of LaMP_5, and ingest.lamp.task asks for LaMP_4" in refused(
        source_of(tmp_path)
    )
    (tmp_path / "train_outputs.json").write_text('{"golds": 3}')
    assert "holds no golds as LaMP has them" in refused(source_of(tmp_path))
    (tmp_path / "train_outputs.json").unlink()
    questions = tmp_path / "train_questions.json"
    questions.write_text(questions.read_text()[:-2])
    assert "is no JSON array: " in refused(source_of(tmp_path))


# --- who is who -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profiles", "users"),
    [
        (["ab", "abc"], [[0, 1]]),
        (["abcd", "cdef"], [[0], [1]]),  # a third in common
        (["ab", "abcde"], [[0], [1]]),  # all of one is the other's
        (["abc", "bcd", "cde", "xyz"], [[0], [1], [2], [3]]),  # half is not more than half
        (["abcde", "bcdef", "cdefg"], [[0, 1, 2]]),  # a chain
        (["cdefg", "x", "abcde", "bcdef"], [[0, 2, 3], [1]]),
        (["b", "ab", "b"], [[0, 2], [1]]),
        (["", ""], [[0], [1]]),
        ([], []),
    ],
)
def test_users_by_hand(profiles: list[str], users: list[list[int]]) -> None:
    assert find_users(profiles) == users


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=8))
def test_users_against_all_pairs(profiles: list[list[str]]) -> None:
    """Users are what chains of pairs with more than half in common reach."""
    sets = [set(profile) for profile in profiles]
    near = [[2 * len(a & b) > len(a | b) for b in sets] for a in sets]
    reach = [{place} for place in range(len(sets))]
    for _ in sets:
        reach = [set().union(some, *({c for c, is_near in enumerate(near[b]) if is_near} for b in some))
                 for some in reach]  # fmt: skip
    assert find_users(profiles) == [list(user) for user in dict.fromkeys(tuple(sorted(r)) for r in reach)]


# --- nothing is lost --------------------------------------------------------------------------------------

profiles = st.lists(st.builds(article, st.integers(1, 9)), max_size=5)


@settings(deadline=None, max_examples=60)
@given(
    found=st.lists(profiles, max_size=5),
    answered=st.sets(st.sampled_from("01234")),
    questions=st.sampled_from(["last", None]),
    most=st.sampled_from([None, 1, 2]),
)
def test_nothing_is_lost(
    found: list[list[Record]], answered: set[str], questions: str | None, most: int | None
) -> None:
    asked = [asked_article(str(number), 20 + number, profile) for number, profile in enumerate(found)]
    with TemporaryDirectory() as folder:
        write_lamp(Path(folder), {id: 20 + int(id) for id in answered}, train=asked)
        items = list(lamp.read(source_of(Path(folder), questions=questions, max_users=most)))
    checked, skipped = check(items), skips_in(items)
    assert checked.read == checked.interactions.height + checked.quarantine.height == len(rows_in(items))
    assert [row.row for row in rows_in(items)] == list(range(1, checked.read + 1))
    if most is None:
        assert checked.read + sum(skipped.values()) == sum(len(profile) + 1 for profile in found)
    assert checked.interactions["user_id"].n_unique() <= (most or 5)
    assert checked.interactions["interaction_id"].is_unique().all()
