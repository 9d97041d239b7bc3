"""Cells of profiles in words: what the model wrote about one user (spring/rivals/pag.py, popi.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spring.engine.settings import Decoding
from spring.method.mixing import Mixture
from spring.method.retrieval import query_text
from spring.store.keys import cell_key
from tasks.cells.decoding import COMMIT, decode_all
from tasks.cells.fill import Meter, fill
from tasks.cells.workbench import Row, Workbench, plain


class Writer(Protocol):
    """Settings of a method that has the model write profiles."""

    item_tokens: int  # read of each item's query, and of its response; the rest is cut
    max_new_tokens: int  # of the profile
    repetition_penalty: float

    def ask(self, items: Sequence[str], previous: str) -> tuple[str, str]:
        """The system's and the user's turn that ask for a profile."""
        ...


@dataclass(frozen=True)
class ProfileJob:
    """One user's profile under some settings: what it is written from, and the text that is carried on."""

    settings: Writer
    rows: Sequence[Row]
    previous: str  # empty: nothing is


def write(bench: Workbench, jobs: Sequence[ProfileJob], what: str) -> list[tuple[str, dict[str, Any]]]:
    """Per job its cell's key, and the text with its tokens and seconds; all missing ones in one batch."""
    keys = fill(
        bench,
        jobs,
        key=_key,
        compute=_compute,
        group=lambda job: _loop(job.settings),
        at_once=COMMIT,
        amount=lambda _: 1,
        what=what,
        unit="profile",
    )
    return [(key, json.loads(bench.store.read(key)["profile.json"])) for key in keys]


def _loop(settings: Writer) -> Decoding:
    """How a profile is written: greedily, by the one decode loop."""
    return Decoding(
        repetition_penalty=settings.repetition_penalty, max_new_tokens=settings.max_new_tokens, join=Mixture()
    )


def _key(bench: Workbench, job: ProfileJob) -> str:
    return cell_key(
        __name__,
        kind="profile",
        **bench.identity,
        settings=job.settings,
        previous=job.previous,
        rows=[plain(row) for row in job.rows],
    )


def _compute(bench: Workbench, decode: Decoding, jobs: dict[str, ProfileJob], done: Meter) -> None:
    from spring.engine.queries import Query

    queries = [Query(_prompt(bench, job), None, 0.0) for job in jobs.values()]
    answers = decode_all(bench, None, queries, decode, done)
    prompter = bench.prompter
    with bench.store.batch() as batch:
        for key, answer in zip(jobs, answers, strict=True):
            text = prompter.cut(prompter.plain(prompter.decode(answer.tokens)), decode.max_new_tokens)
            cell = {"text": text, "tokens": len(answer.tokens), "seconds": answer.seconds}
            batch[key] = {"profile.json": json.dumps(cell).encode()}


def _prompt(bench: Workbench, job: ProfileJob) -> tuple[int, ...]:
    """Token ids that ask for a profile."""
    prompter, most = bench.prompter, job.settings.item_tokens
    pairs = [(query_text(row["query"]), row["response"]) for row in job.rows]
    items = ["\n".join(prompter.cut(prompter.plain(text), most) for text in pair) for pair in pairs]
    return prompter.turn(*job.settings.ask(items, job.previous))
