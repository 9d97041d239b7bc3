"""What Ray's dashboard shows of a filling: a task for each chunk of the bar, under the bar's name."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.cluster import add_node, bench_of, loopback, train_all, use_all, write_project
from kit.pipeline import run

from tasks import model
from tasks.cells.cluster.crew import Crew
from tasks.cells.cluster.queue import Queue
from tasks.steps.experiment import Experiment

for name, extra in {"ray": "ray", "aiohttp_cors": "ray[default], Ray's dashboard,"}.items():
    pytest.importorskip(name, reason=f"{extra} is not installed: {name} is missing")
pytestmark = pytest.mark.slow
LONG = 6  # epochs: a chunk takes long enough to be interrupted


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Experiment]:
    """A workbench with a crew of two, on a cluster with a dashboard."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch, loopback(include_dashboard=True) as cluster:
        add_node(cluster)
        patch.chdir(folder)
        patch.delenv("SPRING_CELLS", raising=False)
        write_project(folder, tiny_model_folder, cluster.address)
        run(model, patch)
        yield (found := bench_of(Path("store")))
        crew_of(found).close()


def crew_of(bench: Experiment) -> Crew:
    assert isinstance(bench.crew, Crew)
    return bench.crew


def shown(name: str, patience: float = 60) -> Counter[str]:
    """How many tasks of this name the dashboard has in every state, once none of them is under way."""
    from ray.util.state import list_tasks

    until = time.monotonic() + patience
    while True:
        states = Counter(one.state for one in list_tasks(filters=[("name", "=", name)], limit=1000))
        if (states and not states.keys() - {"FINISHED", "FAILED"}) or time.monotonic() > until:
            return states
        time.sleep(0.5)


@pytest.fixture
def told(bench: Experiment, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the bar says."""
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(bench, "tell", events.append)
    return events


def test_every_chunk_is_a_finished_task_of_the_bars_name(
    bench: Experiment, told: list[dict[str, Any]]
) -> None:
    """80 of each: lessons of two recipes of 40 users, 16 at a time; scores, 16; answers, 48."""
    use_all(bench, train_all(bench))
    ends = {event["what"]: event for event in told}
    assert all(event["done"] == event["of"] for event in ends.values())
    assert {name: shown(name) for name in ends} == {
        "train": {"FINISHED": 6},
        "score": {"FINISHED": 5},
        "answer": {"FINISHED": 2},
    }


def test_a_chunk_whose_worker_was_killed_counts_once_more_as_failed(
    bench: Experiment, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dashboard has as many tasks more than chunks as workers were lost over one, and the bar none."""
    before, losses, lose = shown("train"), list[str](), Queue.lose
    killed: list[int] = []

    def note(queue: Queue, task: Any, reason: str) -> None:
        losses.append(reason)
        lose(queue, task, reason)

    def follow(event: dict[str, Any]) -> None:
        told.append(event)
        if event["done"] and not killed:
            busy = next(one for one in crew_of(bench).members if one.task and one.card)
            assert busy.card is not None
            killed.append(busy.card.pid)
            os.kill(busy.card.pid, signal.SIGKILL)

    monkeypatch.setattr(Queue, "lose", note)
    monkeypatch.setattr(bench, "tell", follow)
    train_all(bench, epochs=LONG, seed=100)
    assert told[-1]["done"] == told[-1]["of"] and losses
    more = shown("train") - before
    assert more == {"FINISHED": 6, "FAILED": len(losses)}
