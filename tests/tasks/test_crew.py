"""Missing cells on a Ray cluster of two nodes: bit for bit those of one process, whatever is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kit.cluster import (
    ROOT,
    USERS,
    add_node,
    bench_of,
    cells_of,
    contents,
    loopback,
    to_a_full_disk,
    train_all,
    use_all,
    write_project,
)
from kit.pipeline import run, write_params, write_table

from spring.store.cells import CellStore
from tasks import ingest, model, split, stage
from tasks.cells.cluster import nodes
from tasks.cells.cluster.crew import Crew
from tasks.cells.cluster.nodes import ClusterError
from tasks.cells.cluster.queue import Queue
from tasks.cells.fill import progress
from tasks.cells.workbench import Chunk
from tasks.steps.experiment import Experiment

pytest.importorskip("ray", reason="the extra `cluster` is not installed: ray is missing")
pytestmark = pytest.mark.slow
LONG = 6  # epochs: a chunk takes long enough to be interrupted
CELLS = 2 * USERS
DRIVER = """
import torch
torch.set_num_threads(1)
from pathlib import Path
from kit.cluster import bench_of, train_all
train_all(bench_of(Path("again")), epochs=int({epochs}), seed=300)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[Any]:
    """Two nodes of one core; a project in the current folder, its model prepared."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch, loopback() as found:
        add_node(found)
        patch.chdir(folder)
        patch.delenv("SPRING_CELLS", raising=False)
        write_project(folder, tiny_model_folder, found.address)
        run(model, patch)
        yield found


@pytest.fixture(scope="module")
def bench(cluster: Any) -> Iterator[Experiment]:
    """A workbench with a crew, its workers the same in all tests as far as they live."""
    found = bench_of(Path("many"))
    yield found
    crew_of(found).close()


def crew_of(bench: Experiment) -> Crew:
    assert isinstance(bench.crew, Crew)
    return bench.crew


def alone(store: str, **lessons: int) -> dict[str, dict[str, Any]]:
    """What one process computes for the same lessons."""
    train_all(bench_of(Path(store), engine="local"), **lessons)
    return contents(Path(store))


class Follower:
    """Is told how far a filling is; does something once, in the middle of a chunk."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.events = act, list[dict[str, Any]]()

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self.act and event["done"]:
            act, self.act = self.act, lambda: None
            act()

    def assert_counted_once(self) -> None:
        assert self.events[-1]["done"] == self.events[-1]["of"]
        assert all(0 <= event["done"] <= event["of"] for event in self.events)
        assert any("loss" in event for event in self.events)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells of every chunk whose worker was lost."""
    found: list[str] = []
    before = Queue.lose

    def lose(self: Queue, task: Any, reason: str) -> None:
        found.extend(task.chunk.jobs)
        before(self, task, reason)

    monkeypatch.setattr(Queue, "lose", lose)
    return found


def test_many_processes_compute_what_one_does(bench: Experiment) -> None:
    """Adapters, scores and answers: 80 of each, in chunks of 16, 16 and 48; all bits but those of seconds."""
    one = bench_of(Path("one"), engine="local")
    for each in (one, bench):
        use_all(each, train_all(each))
    found = contents(Path("many"))
    assert len(found) == 3 * CELLS and found == contents(Path("one"))
    assert len({one.card.pid for one in crew_of(bench).members if one.card} - {os.getpid()}) == 2


def test_a_killed_worker_costs_its_chunk(
    bench: Experiment, monkeypatch: pytest.MonkeyPatch, lost: list[str]
) -> None:
    before = set(contents(Path("many")))

    def kill() -> None:
        busy = next(one for one in crew_of(bench).members if one.task and one.card)
        assert busy.card is not None
        os.kill(busy.card.pid, signal.SIGKILL)

    follower = Follower(kill)
    monkeypatch.setattr(bench, "tell", follower)
    train_all(bench, epochs=LONG, seed=100)
    found = contents(Path("many"))
    assert {key: found[key] for key in found if key not in before} == alone("killed", epochs=LONG, seed=100)
    assert 0 < len(lost) <= 16
    follower.assert_counted_once()


def test_a_node_is_lost_and_another_joins(
    cluster: Any, bench: Experiment, monkeypatch: pytest.MonkeyPatch, lost: list[str]
) -> None:
    """In the middle of a stage: the chunk of the lost node goes elsewhere, the new node gets a worker."""
    before, old = set(contents(Path("many"))), {one.card.pid for one in crew_of(bench).members if one.card}

    def change() -> None:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        add_node(cluster)

    follower = Follower(change)
    monkeypatch.setattr(bench, "tell", follower)
    train_all(bench, epochs=3 * LONG, seed=200)
    found = contents(Path("many"))
    expected = alone("changed", epochs=3 * LONG, seed=200)
    assert {key: found[key] for key in found if key not in before} == expected
    assert 0 < len(lost) <= 16
    new = {one.card.pid for one in crew_of(bench).members if one.card}
    assert len(new) == 2 and len(new & old) == 1
    follower.assert_counted_once()


def test_a_driver_that_was_killed_goes_on(bench: Experiment) -> None:
    """What its workers had finished is not computed again; they end with it."""
    crew_of(bench).close()  # it makes room for the other driver's
    child = subprocess.Popen([sys.executable, "-c", DRIVER.format(epochs=LONG)])
    store, until = CellStore(Path("again")), time.monotonic() + 240
    while len(store.missing(keys := list(store))) == len(keys):
        assert child.poll() is None and time.monotonic() < until, "nothing is computed"
        time.sleep(0.1)
    child.kill()
    child.wait(30)
    early = cells_of(Path("again"))
    assert 0 < len(early) < CELLS
    again = bench_of(Path("again"))
    train_all(again, epochs=LONG, seed=300)
    crew_of(again).close()
    late = cells_of(Path("again"))
    assert {key: late[key] for key in early} == early, "with the seconds of the first time"
    assert contents(Path("again")) == alone("not killed", epochs=LONG, seed=300)
    assert not list(Path("again/claims").iterdir())


def test_a_stage_with_a_cluster_of_its_own(tmp_path: Path, tiny_model_folder: Path) -> None:
    """`address: null`: begun by the stage's process and gone with it; the tables are those of one process."""
    scores = {}
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.delenv("SPRING_CELLS", raising=False)
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
            write_table(folder / "table.csv", users=3, items=18)
            write_params(folder, tiny_model_folder, execution={"engine": engine, "workers": 1})
            for each in (ingest, split, model):
                run(each, patch)
            done = subprocess.run(
                [sys.executable, "-m", "tasks.score_base"], capture_output=True, text=True, timeout=240
            )
        assert done.returncode == 0, done.stderr
        tables = [pl.read_parquet(folder / f"data/score_base/{t}.parquet") for t in range(3)]
        scores[engine] = pl.concat(tables).drop("seconds")
    assert scores["ray"].height == 54 and scores["ray"].equals(scores["local"])


# --- what is refused --------------------------------------------------------------------------------------


def test_a_full_disk_of_a_worker_is_told_as_ones_own(bench: Experiment) -> None:
    chunk = Chunk(to_a_full_disk, None, {"0" * 64: None}, {"0" * 64: 1})
    said = []
    for run_it in (
        lambda: to_a_full_disk(bench, None, {}, None),
        lambda: compute(bench, chunk),
    ):
        with pytest.raises(SystemExit) as refused:
            stage.run(run_it)
        said.append(str(refused.value))
    assert said[0] == said[1] and said[1].startswith("error: a full disk: [Errno 28] ")
    assert not list((bench.store.root / "claims").iterdir())


def test_an_address_where_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which accepts, and says nothing."""
    monkeypatch.setattr(nodes, "SPEECH", 6.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        nodes.check_answers(address)
        with pytest.raises(ClusterError, match=f"is {address}, and what answers there is no Ray"):
            nodes.check_speaks(address)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"libraries": {"torch": "1.0"}}, "its torch is [0-9].*, and here 1.0: install the same there"),
        ({"code": "another"}, "its code in /.* is not the driver's: put the same commit there"),
        ({"token": Path("/elsewhere")}, "its /.*/many is not the driver's: the cell store must be shared"),
        ({"project": Path("/elsewhere")}, "it has no /elsewhere: the project's folder must be shared"),
    ],
)
def test_workers_that_would_compute_something_else_are_refused(
    bench: Experiment, change: dict[str, Any], told: str
) -> None:
    crew, before = crew_of(bench), set(bench.store)
    assert crew.asked is not None
    crew.close()
    asked, crew.asked = crew.asked, replace(crew.asked, **change)
    try:
        with pytest.raises(ClusterError, match=f"^the worker on .* cannot take part: {told}"):
            train_all(bench, epochs=1, seed=400)
    finally:
        crew.asked = asked
    assert set(bench.store) == before and not crew.members


def compute(bench: Experiment, chunk: Chunk) -> None:
    with progress(1, "test", "cell") as meter:
        crew_of(bench).compute([chunk], meter, "test")
