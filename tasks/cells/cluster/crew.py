"""The crew: workers on the cluster, and the driver's loop that hands chunks to whichever is free.

A worker that is lost, or its node, costs the chunk it computes, which goes to another. Workers are hired as
long as there is room, also on nodes that join later.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spring.engine.weights import one_line
from spring.settings.execution import Execution
from spring.store.cells import CellStore, StoreError
from spring.store.disk import new_name
from spring.store.shared import Shared
from tasks.cells.cluster.nodes import (
    ClusterError,
    Plan,
    bytes_needed,
    check_installed,
    connect,
    gpu_bytes,
    plan,
)
from tasks.cells.cluster.queue import LOST, Queue, Task
from tasks.cells.cluster.worker import Asked, Card, Counter, Worker, asked_of
from tasks.cells.fill import Meter
from tasks.cells.workbench import Chunk, Workbench

TICK = 0.25  # seconds between two looks at what has come back
LOOK = 2.0  # seconds between two looks for nodes with room
ALONE = 30.0  # seconds without any worker after which that is told


@dataclass(eq=False)
class Member:
    """A worker: its actor, what it was asked last, its card once it has come, and the chunk it computes."""

    actor: Any
    answer: Any  # Ray's reference; null: it is free
    card: Card | None = None
    task: Task | None = None
    ticket: int = 0


class Crew:
    """Workers of one process, hired when there is first something to compute; they end with it."""

    def __init__(self, bench: Workbench, how: Execution, make: Callable[[CellStore], Workbench]) -> None:
        """`make` gives a worker its workbench."""
        check_installed()
        self.bench, self.how, self.make = bench, how, make
        self.per_task = how.users_per_task
        self.members: list[Member] = []
        self.counter: Any = None
        self.plan: Plan | None = None
        self.asked: Asked | None = None
        self.tickets = self.failed = 0  # `failed`: workers that did not start, one after the other
        self.looked = 0.0

    def compute(self, chunks: Sequence[Chunk], meter: Meter, what: str) -> None:
        """Returns when all their cells are in the store."""
        connect(self.how.address)
        queue = Queue(self.bench.store, chunks)
        self.counter = self.counter or count_here()
        progress, began = Progress(meter, self.counter), time.monotonic()
        try:
            while queue:
                self._hire(len(queue))
                self._hand_out(queue, what)
                self._listen(queue)
                out = {one.ticket: one.task.amount for one in self.members if one.task}
                progress.show(queue.finished, out)
                if began and time.monotonic() - began > ALONE:
                    began = 0.0
                    self._tell_if_alone()
        except BaseException:
            self.close()  # what failed here must not go on elsewhere
            raise
        finally:
            queue.release()

    def close(self) -> None:
        """Ends the workers at once; what they have finished is kept."""
        import ray

        for actor in [*(one.actor for one in self.members), self.counter]:
            if actor is not None:
                ray.kill(actor)
        self.members, self.counter = [], None

    # --- hiring -------------------------------------------------------------------------------------------

    def _hire(self, chunks: int) -> None:
        """Asks for as many workers as have room, but no more than there are chunks."""
        import ray

        if time.monotonic() - self.looked < LOOK and self.members:
            return
        self.looked = time.monotonic()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        model = self.bench.settings
        found = plan(nodes, self.how.workers, needed=bytes_needed(model), gpu=gpu_bytes(model))
        self.plan = self.plan or found  # threads and shares stay as they are
        self.asked = self.asked or self._ask(self.plan)
        for _ in range(min(found.count, chunks) - len(self.members)):
            actor = ray.remote(Worker).options(max_restarts=0, **self.plan.options).remote()
            self.members.append(Member(actor, actor.introduce.remote(self.asked)))

    def _ask(self, chosen: Plan) -> Asked:
        from ray import cloudpickle

        token, store = new_name(), self.bench.store
        if isinstance(store, Shared):
            store.remote.create(f"writing/{token}", b"")
            atexit.register(take_back, store, token)
        else:
            (store.root / "writing" / token).mkdir()
            atexit.register(shutil.rmtree, store.root.resolve() / "writing" / token, ignore_errors=True)
        return asked_of(self.bench, token, threads=chosen.threads, make=cloudpickle.dumps(self.make))

    def _tell_if_alone(self) -> None:
        if not any(one.card for one in self.members):
            why = "starting, or waiting for room" if self.members else "no node has room for one"
            print(f"no worker of the cluster after {ALONE:.0f} s: {why}", file=sys.stderr)

    # --- work ---------------------------------------------------------------------------------------------

    def _hand_out(self, queue: Queue, what: str) -> None:
        """Gives every free worker a chunk."""
        for member in self.members:
            if member.answer is None and (taken := queue.take()):
                member.task, chunk = taken
                self.tickets += 1
                member.ticket = self.tickets
                encoder = vars(self.bench).get("embedding")  # known once a key has asked for it
                member.answer = member.actor.work.options(name=what).remote(
                    member.ticket, chunk, self.counter, encoder
                )

    def _listen(self, queue: Queue) -> None:
        """Waits for answers, but not for long."""
        import ray

        asked = {one.answer: one for one in self.members if one.answer is not None}
        if not asked:
            time.sleep(TICK)
            return
        for answer in ray.wait(list(asked), timeout=TICK)[0]:
            self._hear(asked[answer], queue)

    def _hear(self, member: Member, queue: Queue) -> None:
        """Takes an answer: a worker's card, that a chunk is done, or that either went wrong."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            said = ray.get(member.answer)
        except RayTaskError as error:  # the worker's own: it stops the stage as it would here
            cause = error.cause
            cause.add_note(f"in a worker:\n{error}")
            raise cause from None
        except RayError as error:  # the worker, or its node, is gone
            self._lose(member, error, queue)
            return
        member.answer = None
        if member.task is not None:
            queue.back(member.task, said)
            member.task = None
            return
        member.card, self.failed = said, 0
        if said.problem:
            raise ClusterError(f"the worker on {said.host} cannot take part: {said.problem}")

    def _lose(self, member: Member, error: Exception, queue: Queue) -> None:
        import ray

        self.members.remove(member)
        ray.kill(member.actor)  # one that only cannot be reached must not come back
        if member.task is not None:
            queue.lose(member.task, reason(error))
        elif member.card is None:
            self.failed += 1
            if self.failed == LOST:
                raise ClusterError(f"{LOST} workers did not start: {reason(error)}")


def take_back(store: Shared, token: str) -> None:
    """Removes what was shown to workers, if that can be."""
    with suppress(StoreError):
        store.remote.remove([f"writing/{token}"])


def count_here() -> Any:
    """The counter, on the driver's node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Counter).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()


def reason(error: Exception) -> str:
    """Why a worker is gone: the last of what Ray says."""
    return one_line(Exception(str(error).strip().rsplit("\n", 1)[-1]))


class Progress:
    """The bar of chunks that are out and done, from absolute numbers: what is lost is taken back."""

    def __init__(self, meter: Meter, counter: Any) -> None:
        self.meter, self.counter = meter, counter
        self.shown, self.reading = 0, None
        self.heard: dict[int, tuple[int, float | None]] = {}

    def show(self, finished: int, out: Mapping[int, int]) -> None:
        """`finished`: amount of what is done; `out`: that of every chunk that is out, by ticket."""
        self._read(out)
        known = {ticket: self.heard[ticket] for ticket in out if ticket in self.heard}
        done = finished + sum(min(amount, out[ticket]) for ticket, (amount, _) in known.items())
        if done != self.shown:
            self.meter(done - self.shown)
            self.shown = done
            if losses := [loss for _, loss in known.values() if loss is not None]:
                self.meter.losses(losses)

    def _read(self, out: Mapping[int, int]) -> None:
        """Takes what the counter has answered, if it has, and asks again."""
        import ray
        from ray.exceptions import RayError

        if self.reading is not None:
            if not ray.wait([self.reading], timeout=0)[0]:
                return
            with suppress(RayError):  # it starts again, and hears of all that is out
                self.heard = ray.get(self.reading)
        self.reading = self.counter.read.remote(list(out))
