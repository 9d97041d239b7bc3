"""A single question, answered as the stage `generate` answers test queries; nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Formatter

from spring.live.aliases import Version
from spring.method.prompts import Prompt
from spring.settings.execution import Execution
from spring.settings.params import Params
from spring.store.cells import CellStore
from spring.store.segments import Files
from tasks.cells.decoding import GenerateJob, generate
from tasks.cells.workbench import Row
from tasks.files import DATA, only, read_parquet
from tasks.generate import adapter_for
from tasks.steps.experiment import Experiment
from tasks.steps.gate import Found, read_gates
from tasks.steps.memory import Library
from tasks.steps.profiles import Profiles
from tasks.steps.steers import Steers
from tasks.steps.vectors import read_profile_vectors


class AskError(ValueError):
    """A question that cannot be put; the message says what is missing."""


@dataclass(frozen=True)
class Memory:
    """An interaction that retrieval found, how near it is to the query, and its weight: heard if above 0."""

    interaction_id: str
    timestamp: datetime
    response: str
    score: float
    weight: float


@dataclass(frozen=True)
class Answer:
    """An answer, and what it was made with."""

    text: str
    tokens: int
    lmbda: float  # weight of the path that sees memories
    sigma: float | None  # the gate's threshold; null: it has none
    memories: list[Memory]  # best first


class Unkept(CellStore):
    """Cells of this process alone: nothing of them reaches a disk."""

    def __init__(self) -> None:
        self.cells: dict[str, Files] = {}

    def missing(self, keys: Iterable[str], *, seen: float = 0.0) -> list[str]:
        """Those keys that have no cell yet."""
        return [key for key in keys if key not in self.cells]

    def read(self, key: str, only: Collection[str] | None = None) -> dict[str, bytes]:
        """The files of a cell, or those of some names."""
        return {name: file for name, file in self.cells[key].items() if only is None or name in only}

    @contextmanager
    def claim(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """All of `keys`: nobody else is there."""
        yield list(keys)

    @contextmanager
    def batch(self) -> Iterator[dict[str, Files]]:
        """Cells, by key, to be put into it."""
        yield self.cells

    def pack(self, keys: Sequence[str]) -> None:
        """Nothing: there are no files."""


def ask(
    params: Params, arm: str, version: Version, query: str, *, task: str, when: datetime | None = None
) -> Answer:
    """The answer of an arm to a user's query, from the state after the version's period.

    `query` is a JSON object as in the column `query` of the interactions; without `when` it is asked now.
    """
    alone = params.model_copy(update={"execution": Execution()})  # no cluster is told of a question
    bench, settings = Experiment(alone, Unkept()), params.arms[arm]
    user, period = version.user, version.period
    folder, mine = DATA / "consolidate" / str(period), only(user)
    history, buffers = (
        read_parquet(folder / f"{name}.parquet", users=mine) for name in ("history", "buffers")
    )
    library = Library(bench, history, buffers, period, read_profile_vectors(period, mine))
    gate = read_gates({arm: settings}, period)[arm]
    row: Row = {
        "interaction_id": "asked",
        "user_id": user,
        "task": task,
        "query": query,
        "response": "",
        "timestamp": when or max([datetime.now(UTC), *history["timestamp"]]),
        "period": period,
    }
    found = gate.search(row, library, user)
    requests = Steers(bench, period).steer(settings, user, [gate.request_with(row, found)])
    adapter = adapter_for(bench, settings, bench.adapters(period), user)
    profile = Profiles.after(period, mine).of(settings, user, queries=[row])
    job = GenerateJob(arm, user, requests, settings.decode.decoding, adapter, profile)
    [[result]] = generate(bench, [job], "ask")
    [request] = requests
    return Answer(result["text"], result["tokens"], request.lmbda, request.sigma, memories_of(found))


def memories_of(found: Found | None) -> list[Memory]:
    """What retrieval found for a query, each with its score and the weight that the gate gave it."""
    if found is None:
        return []
    return [
        Memory(item["interaction_id"], item["timestamp"], item["response"], float(score), float(weight))
        for item, score, weight in zip(found.items, found.scores, found.weights, strict=True)
    ]


def task_of(params: Params, version: Version, named: str | None) -> str:
    """The task of a question: the one that is named, or else the only one that the user's texts have."""
    if named is not None:
        if named not in params.prompts:
            raise AskError(f"no prompt is called {named}; there are {', '.join(sorted(params.prompts))}")
        return named
    history = read_parquet(DATA / f"consolidate/{version.period}/history.parquet", ["user_id", "task"])
    tasks = sorted(history.filter(user_id=version.user)["task"].unique())
    if len(tasks) != 1:
        raise AskError(f"{version.user} has texts of {', '.join(tasks) or 'no task'}: say which with --task")
    return str(tasks[0])


def query_of(words: Sequence[str], prompt: Prompt, task: str) -> str:
    """The query that FIELD=TEXT words say; a prompt of one field takes a single text without its name."""
    fields = [name for _, name, _, _ in Formatter().parse(prompt.user) if name is not None]
    fields = list(dict.fromkeys(fields))
    asked: dict[str, str] = {}
    for word in words:
        name, is_pair, text = word.partition("=")
        if is_pair and name in fields:
            if name in asked:
                raise AskError(f"the field {name} is given twice")
            asked[name] = text
        elif len(words) == 1 == len(fields) and not (is_pair and name.isidentifier() and name.isupper()):
            asked[fields[0]] = word
        else:
            raise AskError(f"{word!r} is no field of the prompt {task}; they are {_form(fields)}")
    if lacking := [name for name in fields if not asked.get(name, "").strip()]:
        raise AskError(f"the prompt {task} asks for {', '.join(lacking)}; a question is {_form(fields)}")
    return json.dumps(asked, ensure_ascii=False, sort_keys=True)  # as interactions have it


def _form(fields: Sequence[str]) -> str:
    return " ".join(f'{name}="..."' for name in fields)
