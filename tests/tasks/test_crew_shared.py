"""A Ray cluster whose nodes have folders of cells of their own: what they share is a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.cluster import USERS, add_node, bench_of, contents, loopback, train_all, use_all, write_project
from kit.pipeline import run
from kit.s3 import SECRET, Server, bucket, s3_server

from spring.store.adopting import NEW, Adopting
from spring.store.cells import CellStore
from spring.store.remote import REMOTE
from spring.store.shared import Shared, open_store
from tasks import model
from tasks.cells.cluster.crew import Crew
from tasks.cells.cluster.nodes import ClusterError
from tasks.steps.experiment import Experiment

pytest.importorskip("ray", reason="the extra `cluster` is not installed: ray is missing")
pytestmark = pytest.mark.slow
NODES = ("head", "node")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def bench(
    server: Server, tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path
) -> Iterator[Experiment]:
    """A driver with a crew; each node has credentials of its own, and is not told the URL."""
    folder = tmp_path_factory.mktemp("project")
    with bucket(server, "cluster") as url, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv(REMOTE)
        homes = [{"SPRING_CELLS": str(folder / name)} for name in NODES]
        with loopback(env_vars=homes[0]) as cluster:
            add_node(cluster, env_vars=homes[1])
            write_project(folder, tiny_model_folder, cluster.address)
            run(model, patch)
            patch.setenv(REMOTE, url)
            found = bench_of(Path("driver"))
            yield found
            assert isinstance(found.crew, Crew)
            found.crew.close()


def test_nodes_without_a_common_disk_compute_what_one_process_does(bench: Experiment) -> None:
    """Adapters, then scores and answers under them: each worker reads what the other has trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(REMOTE)
        one = bench_of(Path("one"), engine="local")
    for each in (one, bench):
        use_all(each, train_all(each))
    assert isinstance(bench.store, Shared)
    found = contents(Path("driver"))
    assert len(found) == 6 * USERS and found == contents(Path("one"))
    held = [set(CellStore(Path(name))) for name in NODES]
    assert all(held), "each node has computed some, or fetched"
    assert bench.store.remote.listed("claims") == {}
    logs = Path("/tmp/ray/session_latest/logs").resolve()
    assert not [file for file in logs.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


def test_another_remote_of_the_same_name_is_refused(bench: Experiment) -> None:
    crew = bench.crew
    assert isinstance(crew, Crew) and crew.asked is not None
    crew.close()
    asked = crew.asked
    try:
        for change, told in (
            (
                {"token": "unknown"},
                "its s3://cluster/cells is not the driver's, which has just written into it",
            ),
            ({"remote": "s3://elsewhere/cells"}, "there is no elsewhere"),
        ):
            crew.asked = replace(asked, **change)
            with pytest.raises(ClusterError, match=f"^the worker on .* cannot take part: .*{told}"):
                train_all(bench, epochs=1, seed=400)
    finally:
        crew.asked = asked


def test_while_somebody_is_forgotten_the_driver_computes(bench: Experiment, tmp_path: Path) -> None:
    store: Any = open_store(tmp_path)
    assert Experiment(bench.params, Adopting(store)).crew is None and os.environ[REMOTE]
    assert isinstance(Experiment(bench.params, store).crew, Crew) and (tmp_path / NEW).exists()
