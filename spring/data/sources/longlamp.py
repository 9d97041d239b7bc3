"""LongLaMP (Kumar et al., arXiv 2407.11016): abstracts, product reviews and posts, per author.

A row of its parquet files is one question: a user, `input` and `output`, and a `profile` of further items of
that user. The items of all rows of a user, whatever the split, are one history, each of them once. Only
abstracts carry a time, their year, and only in profiles.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import model_validator

from spring.data.rows import Opened, Problem, RawRow, Reason, Skip, SourceError
from spring.data.sources.fields import date_of, digest_of, read_fields
from spring.data.sources.formats.parquet_files import read_frames
from spring.data.sources.formats.record import Part
from spring.data.sources.hub import locate
from spring.data.sources.splits import find_splits
from spring.data.values import MISSING, fold_words, parse_number
from spring.engine.strict import PositiveInt, Strict, added

KEY = "ingest.longlamp.id"
START = datetime(2000, 1, 1)  # of timestamps that say an order only, a minute apart
_USER, _ROW = "", "row of the file"  # keys of what files do not have: an item's user, a row's number
Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One of LongLaMP's tasks: what its files call things, and what they are called here."""

    config: str  # of the hub's data set, without _user or _temporal
    prompt: str  # which of `prompts`
    user: str
    query: dict[str, str]  # field of the prompt -> key of an item
    response: str
    question: re.Pattern[str]  # `input`, with the keys of an item as groups
    id: str | None = None
    year: str | None = None
    rating: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Our names of what an item holds -> its keys."""
        others = {"interaction_id": self.id, "year": self.year, "rating": self.rating}
        named = {"user_id": _USER, "response": self.response, **others}
        asked = {f"query.{name}": key for name, key in self.query.items()}
        return {name: key for name, key in named.items() if key is not None} | asked


TASKS = {
    "abstract": Task(
        config="abstract_generation", prompt="abstract", user="name", query={"TITLE": "title"},
        response="abstract", id="id", year="year",
        question=re.compile(
            r'for the title\s+"?(?P<title>.+?)"?\s*(?:using the following items:.*)?$', re.S
        ),
    ),
    "review": Task(
        config="product_review", prompt="product-review", user="reviewerId",
        query={"DESCRIPTION": "description", "RATING": "overall", "SUMMARY": "summary"},
        response="reviewText", rating="overall",
        question=re.compile(
            r'overall rating of "(?P<overall>[^"]*)" for a product with description "(?P<description>.*)"\. '
            r'The summary of the review text is "(?P<summary>.*)"', re.S
        ),
    ),
    "topic": Task(
        config="topic_writing", prompt="topic", user="author", query={"SUMMARY": "summary"},
        response="content", id="id",
        question=re.compile(r"content for a reddit post\s+(?P<summary>.+)$", re.S),
    ),
}  # fmt: skip


class LongLampSource(Strict):
    """LongLaMP's parquet files, from the hub or a folder."""

    id: str  # a data set of the hub, or a folder
    revision: str | None  # of the hub
    task: Literal["abstract", "review", "topic"]
    setting: Literal["user", "temporal"]
    order: Literal["year", "file"]  # of a user's items: by year, or as they stand in the files
    max_users: PositiveInt | None  # those with the longest profiles, before anything is refused
    missing: Annotated[tuple[str, ...], added(MISSING)]  # words that stand for no value

    @model_validator(mode="after")
    def _there_is_such_an_order(self) -> LongLampSource:
        if self.order == "year" and TASKS[self.task].year is None:
            raise ValueError(
                f"order: year, and LongLaMP gives no time for task {self.task}: "
                f"`order: file` takes items as they stand in the files, which nobody says is their order in "
                f"time"
            )
        return self


def prompt_of(source: LongLampSource) -> str:
    """Which of `prompts` the rows answer."""
    return TASKS[source.task].prompt


def read(source: LongLampSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows in the order of the files: train, validation, test; a profile before its row's own item.

    Raises SourceError if files are missing, cannot be read or are another task's.
    """
    task = TASKS[source.task]
    config = f"{task.config}_{source.setting}"
    folder, commit = locate(
        source.id, key=KEY, revision=source.revision, patterns=[f"{config}/*", f"*/{config}/*"]
    )
    parts = find_splits(folder, config, ending=".parquet", key=KEY)
    yield Opened("files", len(parts))
    if commit is not None:
        yield Opened("revision", commit)
    if source.order == "file":
        yield Opened("timestamps", f"no dates: a minute each from {START:%Y-%m-%d} on, in the files' order")
    history = _History(source, task)
    chosen = None if source.max_users is None else _longest(parts, task, source.max_users)
    for part in parts:
        frame = _frame(part, task).with_row_index(_ROW, offset=1)
        theirs = frame if chosen is None else frame.filter(pl.col(task.user).is_in(chosen, nulls_equal=True))
        yield from [Skip("question of a user beyond max_users")] * (frame.height - theirs.height)
        for row in theirs.iter_rows(named=True):
            yield from history.items(row, f"{part.name}:{row[_ROW]}")


@dataclass
class _History:
    """What was read so far of every user."""

    source: LongLampSource
    task: Task
    number: int = 0
    seen: set[tuple[str | None, str]] = field(default_factory=set)
    counts: Counter[str | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.words = fold_words(self.source.missing)

    def items(self, row: Record, where: str) -> Iterator[RawRow | Skip]:
        """The profile of a row, then its own item."""
        profile = as_profile(row["profile"])
        if profile is None:
            yield self._damaged(where, Problem("profile", Reason.MALFORMED, repr(row["profile"])))
            profile = []
        for place, item in enumerate(profile):
            yield self._item(item, row, f"{where} profile[{place}]", own=False)
        if self.source.order == "year":
            yield Skip("question's own item, which has no year")
            return
        asked = self.task.question.search(str(row["input"] or ""))
        if asked is None:
            yield self._damaged(where, Problem("input", Reason.MALFORMED, str(row["input"])))
        else:
            own = asked.groupdict() | {self.task.response: row["output"]}
            yield self._item(own, row, where, own=True)

    def _item(self, item: object, row: Record, where: str, *, own: bool) -> RawRow | Skip:
        if not isinstance(item, dict):
            return self._damaged(where, Problem("profile", Reason.NOT_TEXT, repr(item)))
        columns = self.task.columns
        texts, damage = read_fields({**item, _USER: row[self.task.user]}, columns, self.words)
        for name in ("query.RATING", "rating"):
            if (stars := parse_number(texts.get(name, ""))) is not None:
                texts[name] = f"{stars:g}"
        user, id = texts.get("user_id"), texts.get("interaction_id")
        query = {name: texts.get(f"query.{name}") for name in self.task.query}
        digest = digest_of([query, texts.get("response")] if damage is None else repr(item))
        if (user, digest) in self.seen:
            return Skip("item that its user already has")
        self.seen.add((user, digest))
        self.number += 1
        self.counts[user] += 1
        named = id if self.task.id and not own else digest
        return RawRow(
            row=self.number,
            where=where,
            user_id=user,
            interaction_id=named and f"{user}/{named}",
            timestamp=self._time(user, texts),
            task=self.task.prompt,
            query=query,
            response=texts.get("response"),
            rating=texts.get("rating"),
            damage=damage,
        )

    def _time(self, user: str | None, texts: dict[str, str]) -> str | None:
        if self.source.order == "year":
            return date_of(texts.get("year", ""))
        return (START + timedelta(minutes=self.counts[user])).isoformat()

    def _damaged(self, where: str, problem: Problem) -> RawRow:
        self.number += 1
        return RawRow(row=self.number, where=where, damage=problem)


def as_profile(value: object) -> list[Any] | None:
    """The items of a profile, which some copies of the data have as JSON; None if it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _longest(parts: list[Part], task: Task, most: int) -> set[str]:
    """The users with the longest profiles; ties: by name."""
    longest: dict[str, int] = defaultdict(int)
    for part in parts:
        frame = _frame(part, task)
        if isinstance(frame.schema["profile"], pl.List):
            counted = frame.select(task.user, pl.col("profile").list.len()).iter_rows()
        else:
            counted = ((user, len(as_profile(text) or [])) for user, text in
                       frame.select(task.user, "profile").iter_rows())  # fmt: skip
        for user, length in counted:
            longest[user] = max(longest[user], length or 0)
    return set(sorted(longest, key=lambda user: (-longest[user], str(user)))[:most])


def _frame(part: Part, task: Task) -> pl.DataFrame:
    """The columns of a file that are read."""
    wanted = [task.user, "input", "output", "profile"]
    [(columns, frame)] = read_frames([part], wanted, key=KEY)
    if missing := [name for name in wanted if name not in columns]:
        raise SourceError(
            f"{KEY}: {part.path} has no column {', '.join(missing)}, as files of {task.config} have; it has "
            f"{', '.join(columns[:20])}. Is ingest.longlamp.task the one that it is of?"
        )
    return frame
