"""A worker: a process somewhere on the cluster that holds the model, computes chunks and writes to the store.

It is asked for nothing before it has shown that it would compute what the driver, the process that asks,
would: same code, same libraries, same model and device, the same folders, or the same remote behind them.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spring.code import code_digest
from spring.store.cells import CellStore, StoreError, store_at
from spring.store.remote import REMOTE, remote_url
from spring.store.shared import STORES, Shared
from tasks.cells.cluster.nodes import ClusterError
from tasks.cells.fill import Meter
from tasks.cells.workbench import LIBRARIES, Chunk, Workbench, silent
from tasks.files import DATA, cells_folder

EVERY = 0.5  # seconds between two words on how far a chunk is
Done = tuple[int, float | None]  # how much of a chunk is done, and in training the loss


@dataclass(frozen=True)
class Asked:
    """What the driver is like, and what a worker must find where it runs."""

    project: Path  # absolute, as all paths here
    store: Path
    remote: str | None  # the URL behind the store, without credentials: each machine has its own
    token: str  # what the driver has just made in `writing` of the remote, or of the store without one
    modules: tuple[str, ...]  # whose code computes cells
    code: str  # their digest
    libraries: dict[str, str]
    identity: dict[str, Any]  # of the driver's workbench
    threads: int
    make: bytes  # pickled, as its classes may not be there: makes the workbench on a store


@dataclass(frozen=True)
class Card:
    """Who a worker is; `problem`: why it cannot work."""

    host: str
    pid: int
    problem: str | None


def asked_of(bench: Workbench, token: str, *, threads: int, make: bytes) -> Asked:
    """What workers of this process are asked for."""
    cells = Path(__file__).parents[1].glob("[!_]*.py")
    modules = (type(bench).__module__, *sorted(f"tasks.cells.{file.stem}" for file in cells))
    return Asked(
        Path.cwd(),
        bench.store.root.resolve(),
        bench.store.remote.url if isinstance(bench.store, Shared) else None,
        token,
        modules,
        code_digest(*modules),
        libraries(),
        bench.identity,
        threads,
        make,
    )


def libraries() -> dict[str, str]:
    """Versions of what results depend on."""
    return {name: version(name) for name in LIBRARIES}


class Worker:
    """An actor. `introduce` comes first, and once."""

    bench: Workbench

    def introduce(self, asked: Asked) -> Card:
        """Makes itself ready; says who it is, and what of `asked` it does not find."""
        return Card(platform.node(), os.getpid(), self._begin(asked))

    def _begin(self, asked: Asked) -> str | None:
        problem = differing(asked) or missing_folder(asked)
        if problem:
            return problem
        os.chdir(asked.project)
        try:
            store = store_at(asked.store) if asked.remote is None else own_store(asked)
        except StoreError as error:
            return str(error)
        import torch

        torch.set_num_threads(asked.threads)
        make: Callable[[CellStore], Workbench] = pickle.loads(asked.make)
        self.bench = make(store)
        self.bench.tell = silent
        for name, here in asked.identity.items():
            if (there := self.bench.identity.get(name)) != here:
                return f"its {name} is {there}, and here {here}: such results must not be mixed"
        return None

    def work(self, ticket: int, chunk: Chunk, counter: Any, encoder: str | None) -> list[str]:
        """Computes what is still missing of a chunk, after a worker that was lost perhaps nothing.

        It answers with the segments that hold the chunk's cells, so that the driver need not list them all.

        encoder: what embeddings depend on at the driver, where a key has asked for it.
        """
        if encoder is not None and encoder != self.bench.embedding:
            raise ClusterError(
                f"the worker on {platform.node()} has the encoder {self.bench.embedding}, and the driver "
                f"{encoder}: install the same there"
            )
        if some := self.bench.store.missing(chunk.jobs):
            chunk.only(some).run(self.bench, Sender(ticket, counter))
        return self.bench.store.holding(chunk.jobs)


def differing(asked: Asked) -> str | None:
    """What of code and libraries is another here."""
    for name, wanted in asked.libraries.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            return f"its {name} is {found}, and here {wanted}: install the same there (constraints.txt)"
    try:
        same = code_digest(*asked.modules) == asked.code
    except ValueError:  # a module that is not there
        same = False
    where = Path(__file__).parents[3]
    return None if same else f"its code in {where} is not the driver's: put the same commit there"


def missing_folder(asked: Asked) -> str | None:
    """Which of the shared folders is not there, or another of the same name."""
    if not asked.project.is_dir():
        return f"it has no {asked.project}: the project's folder must be shared under the same path"
    if asked.remote is None and not (asked.store / "writing" / asked.token).is_dir():
        return (
            f"its {asked.store} is not the driver's: the cell store must be shared under the same path, or "
            f"through {REMOTE}"
        )
    if asked.remote is not None and not (asked.project / DATA / "model" / "source.json").exists():
        return f"its {asked.project / DATA} has no model: run `dvc repro model` there"
    return None


def own_store(asked: Asked) -> CellStore:
    """This node's store before the driver's remote; `StoreError` where that is another here."""
    here = os.environ.setdefault(REMOTE, asked.remote or "")
    if remote_url() != asked.remote:
        raise StoreError(f"its {REMOTE} is {here}, and here {asked.remote}")
    store = Shared(cells_folder(), here)
    if not store.remote.has(f"writing/{asked.token}"):
        raise StoreError(
            f"its {here} is not the driver's, which has just written into it: the endpoint must be the same"
        )
    STORES[here] = store
    return store


class Sender(Meter):
    """A worker's meter: tells the counter how much of a chunk is done, now and then."""

    def __init__(self, ticket: int, counter: Any) -> None:
        self.ticket, self.counter = ticket, counter
        self.done, self.sent = 0, time.monotonic()
        self.loss: float | None = None

    def __call__(self, amount: int) -> None:
        """So much more is done."""
        self.done += amount
        self._send()

    def losses(self, losses: Sequence[float]) -> None:
        """The training loss of every adapter at its last step, nats per response token."""
        self.loss = sum(losses) / len(losses)
        self._send()

    def _send(self) -> None:
        if time.monotonic() - self.sent >= EVERY:
            self.sent = time.monotonic()
            self.counter.note.remote(self.ticket, self.done, self.loss)


class Counter:
    """An actor beside the driver: how far the chunks are that are out, each under a ticket of its own.

    A chunk that is begun again has a new ticket, so that nothing counts twice.
    """

    def __init__(self) -> None:
        self.found: dict[int, Done] = {}

    def note(self, ticket: int, done: int, loss: float | None) -> None:
        """So much of a chunk is done by now."""
        self.found[ticket] = done, loss

    def read(self, tickets: Iterable[int]) -> dict[int, Done]:
        """Of these chunks; the others are forgotten."""
        wanted = set(tickets)
        self.found = {ticket: done for ticket, done in self.found.items() if ticket in wanted}
        return self.found
