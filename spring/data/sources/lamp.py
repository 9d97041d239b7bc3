"""LaMP (Salemi et al., arXiv 2304.11406), time-separated setting: headlines of articles, titles of papers.

`{train,dev,test}_questions.json` hold `id`, `input` and a `profile` of dated items, `..._outputs.json` beside
them the answers. Users have no names: questions whose profiles are the same for the most part are of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import model_validator

from spring.data.rows import Opened, Problem, RawRow, Reason, Skip, SourceError
from spring.data.sources.fields import date_of, digest_of, read_fields, text_of
from spring.data.sources.formats import json_array
from spring.data.sources.formats.record import Part
from spring.data.sources.formats.text import read_text
from spring.data.sources.same_users import find_users
from spring.data.sources.splits import find_splits
from spring.data.values import MISSING, fold_words, parse_time
from spring.engine.strict import PositiveInt, Strict, added

KEY = "ingest.lamp.path"
_YEAR = re.compile(r"\d{4}")
_LABELS = "its answers are labels of a classification, and here texts are generated"
REFUSED = {
    "LaMP-1": _LABELS,
    "LaMP-2": _LABELS,
    "LaMP-3": _LABELS,
    "LaMP-6": "its mails are those of the Avocado collection, which LaMP may not pass on",
    "LaMP-7": "its profiles hold tweets without the sentences that they paraphrase, so that past tweets have "
    "no query",
}


@dataclass(frozen=True)
class Task:
    """One of LaMP's tasks: what its files call things, and what they are called here."""

    prompt: str  # which of `prompts`
    field: str  # of that prompt
    query: str  # key of an item
    response: str  # key of an item
    asked: str  # what `input` says before the text that is the query

    @property
    def columns(self) -> dict[str, str]:
        """Our names of what an item holds -> its keys."""
        return {f"query.{self.field}": self.query, "response": self.response}


TASKS = {
    "LaMP-4": Task(
        "headline", "ARTICLE", "text", "title", "Generate a headline for the following article:"
    ),
    "LaMP-5": Task(
        "title", "ABSTRACT", "abstract", "title", "Generate a title for the following abstract of a paper:"
    ),
}  # fmt: skip


class LampSource(Strict):
    """LaMP's JSON files of the time-separated setting."""

    path: str  # a folder with *_questions.json and *_outputs.json of one task, or with the folder LaMP_4
    task: Literal["LaMP-1", "LaMP-2", "LaMP-3", "LaMP-4", "LaMP-5", "LaMP-6", "LaMP-7"]
    questions: Literal["last"] | None  # as late as the last item of their profile; null: left out
    max_users: PositiveInt | None  # those with most items, before anything is refused
    missing: Annotated[tuple[str, ...], added(MISSING)]  # words that stand for no value

    @model_validator(mode="after")
    def _its_answers_are_texts_of_users_with_queries(self) -> LampSource:
        if self.task in REFUSED:
            raise ValueError(
                f"task: {self.task} is not read: {REFUSED[self.task]}. Read are {' and '.join(TASKS)}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a user wrote."""

    where: str
    texts: dict[str, str]  # `query.FIELD` and `response`
    damage: Problem | None
    time: str | None = None

    @property
    def digest(self) -> str:
        """The same for equal items."""
        return digest_of([self.texts, self.damage])


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the digests of its profile, and the item that it is itself, if it has an answer."""

    name: str  # split and id
    profile: list[str]
    own: Item | None


def prompt_of(source: LampSource) -> str:
    """Which of `prompts` the rows answer."""
    return TASKS[source.task].prompt


def read(source: LampSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows, user by user in the order of their first questions: profiles, then the questions themselves.

    Raises SourceError if the files are missing, cannot be read or are another task's.
    """
    files = find_splits(Path(source.path), _folder(source), ending="_questions.json", key=KEY)
    yield Opened("files", len(files))
    items: dict[str, Item] = {}
    questions: list[Question] = []
    rows = 0
    for part in files:
        for found in _questions(part, source, items):
            if isinstance(found, Question):
                questions.append(found)
            else:
                rows += 1
                yield replace(found, row=rows)
    users = [[questions[place] for place in places] for places in find_users([q.profile for q in questions])]
    yield Opened("users", len(users))
    kept = {user[0].name for user in sorted(users, key=lambda user: -_size(user))[: source.max_users]}
    for user in users:
        if user[0].name not in kept:
            yield from [Skip("question of a user beyond max_users")] * len(user)
            continue
        for row in _history(user, items, source):
            if isinstance(row, Skip):
                yield row
            else:
                rows += 1
                yield replace(row, row=rows)


def _folder(source: LampSource) -> str:
    """The task as LaMP writes it in its files."""
    return source.task.replace("-", "_")


def _questions(part: Part, source: LampSource, items: dict[str, Item]) -> Iterator[Question | RawRow]:
    """The questions of a file, whose profiles go to `items`; rows for what is none."""
    task, words = TASKS[source.task], fold_words(source.missing)
    answers = _answers(part, _folder(source))
    split, names = part.path.name.removesuffix("_questions.json"), set[str]()
    for where, record in json_array.read(part, ("id", "input", "profile"), key=KEY):
        assert not isinstance(record, Skip), "an array has no blank lines"
        damage = record if isinstance(record, Problem) else _find_damage(record, names)
        if damage is not None or isinstance(record, Problem):
            yield RawRow(row=0, where=where, damage=damage)
            continue
        id, digests = str(text_of(record["id"])), []
        names.add(id)
        for place, entry in enumerate(record["profile"]):
            item = _item(entry, task, f"{where} profile[{place}]", words)
            digests.append(digest := item.digest)
            items.setdefault(digest, item)
        own = _own(record.get("input"), answers[id], task, where, words) if id in answers else None
        yield Question(f"{split}-{id}", digests, own)


def _find_damage(record: dict[str, Any], names: set[str]) -> Problem | None:
    """What keeps a record from being a question, if anything does."""
    id = text_of(record.get("id"))
    if not (id or "").strip():
        return Problem("id", Reason.MISSING_ID, id)
    if id in names:
        return Problem("id", Reason.DUPLICATE_ID, id)
    if not isinstance(record.get("profile"), list):
        return Problem("profile", Reason.MALFORMED, repr(record.get("profile")))
    return None


def _answers(part: Part, name: str) -> dict[str, Any]:
    """The answers beside a file of questions, by id; none where LaMP keeps them to itself."""
    path = part.path.with_name(part.path.name.replace("_questions", "_outputs"))
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path, key=KEY))
        task, answers = found["task"], {str(gold["id"]): gold["output"] for gold in found["golds"]}
    except (json.JSONDecodeError, LookupError, TypeError, RecursionError) as error:
        raise SourceError(
            f"{KEY}: {path} holds no golds as LaMP has them ({error!r}): fetch it again"
        ) from None
    if task != name:
        raise SourceError(
            f"{KEY}: {path} is of {task}, and ingest.lamp.task asks for {name}: name its folder"
        )
    return answers


def _item(entry: object, task: Task, where: str, words: frozenset[str]) -> Item:
    if not isinstance(entry, dict):
        return Item(where, {}, Problem("profile", Reason.NOT_TEXT, repr(entry)))
    time = (text_of(entry.get("date")) or "").strip()
    dated = date_of(time) if _YEAR.fullmatch(time) else time
    return Item(where, *read_fields(entry, task.columns, words), dated)


def _own(asked: object, answer: object, task: Task, where: str, words: frozenset[str]) -> Item:
    """The item that a question is, from its words and its answer."""
    before, found, text = str(asked or "").partition(task.asked)
    if not found or before.strip():
        return Item(where, {}, Problem("input", Reason.MALFORMED, str(asked)))
    return Item(where, *read_fields({task.query: text.strip(), task.response: answer}, task.columns, words))


def _size(user: list[Question]) -> int:
    return len({digest for question in user for digest in question.profile})


def _history(user: list[Question], items: dict[str, Item], source: LampSource) -> Iterator[RawRow | Skip]:
    """A user's items, each of them once."""
    name, seen = user[0].name, set[str]()
    for digest in (digest for question in user for digest in question.profile):
        if digest in seen:
            yield Skip("item that its user already has")
        else:
            seen.add(digest)
            yield _row(items[digest], name, source, items[digest].time)
    for question in user:
        if question.own is None:
            yield Skip("question without an answer")
        elif question.own.digest in seen:
            yield Skip("item that its user already has")
        elif source.questions is None:
            yield Skip("question, which has no date")
        else:
            seen.add(question.own.digest)
            yield _row(question.own, name, source, _last([items[digest] for digest in question.profile]))


def _last(profile: list[Item]) -> str | None:
    """The latest time in a profile."""
    times = [(time, item.time) for item in profile if (time := parse_time(item.time or ""))]
    return max(times)[1] if times else None


def _row(item: Item, user: str, source: LampSource, time: str | None) -> RawRow:
    task = TASKS[source.task]
    return RawRow(
        row=0,  # until all are counted
        where=item.where,
        user_id=user,
        interaction_id=f"{user}/{item.digest}",
        timestamp=time,
        task=task.prompt,
        query={task.field: item.texts.get(f"query.{task.field}")},
        response=item.texts.get("response"),
        damage=item.damage,
    )
