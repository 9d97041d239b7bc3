"""What of the cluster needs no Ray: how many workers, which chunk is next, who may take part."""

from __future__ import annotations

import pickle
import socket
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from kit.params import TREE, changed

from spring.settings.execution import Execution
from spring.settings.params import ParameterError, Params, parse
from spring.store.cells import CellStore, StoreError
from spring.store.keys import cell_key
from spring.store.remote import REMOTE
from spring.store.segments import opened
from spring.store.shared import Shared
from tasks.cells import fill
from tasks.cells.cluster import nodes, queue
from tasks.cells.cluster.crew import Progress
from tasks.cells.cluster.nodes import ClusterError, check_answers, plan
from tasks.cells.cluster.queue import LOST, Queue
from tasks.cells.cluster.worker import (
    Asked,
    Counter,
    Sender,
    differing,
    libraries,
    missing_folder,
    own_store,
)
from tasks.cells.fill import Packing, parts
from tasks.cells.workbench import Chunk
from tasks.steps.experiment import Experiment
from tasks.steps.index import read_held

GB = 10**9
KEYS = [cell_key("spring.code", number=i) for i in range(6)]


# --- parameters -------------------------------------------------------------------------------------------


def test_execution_reaches_nothing_that_names_a_result() -> None:
    ray = parse(
        {**TREE, "execution": {"engine": "ray", "address": "auto", "workers": 3, "users_per_task": 4}}
    )
    assert ray.execution == Execution(engine="ray", address="auto", workers=3, users_per_task=4)
    assert ray.model_dump() == parse(TREE).model_dump() and "execution" not in ray.model_dump_json()
    old = {key: value for key, value in TREE.items() if key != "execution"}
    assert parse(old).execution == parse(TREE).execution == Execution()


def test_it_is_a_parameter_of_no_stage() -> None:
    stages = (Path(__file__).parents[2] / "dvc.yaml").read_text(encoding="utf-8")
    assert "execution" in Params.model_fields and "execution" not in stages


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("engine", "spark", "execution.engine is 'spark': must be 'local' or 'ray'"),
        ("address", "ray://head:10001", "execution.address is 'ray://head:10001': must be host:port"),
        ("address", "head", "execution.address is 'head': must be host:port, as in 10.0.0.1:6379, or auto"),
        ("workers", 0, "execution.workers is 0: must be greater than or equal to 1"),
        ("users_per_task", 0, "execution.users_per_task is 0: must be greater than or equal to 1"),
        ("nodes", 2, "execution.nodes: no such key; allowed are address, engine, users_per_task, workers"),
    ],
)
def test_bad_values_are_refused_by_name(key: str, value: object, told: str) -> None:
    with pytest.raises(ParameterError, match=told):
        parse(changed(f"execution.{key}", value))


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nodes, "find_spec", lambda name: None)
    params = parse(changed("execution.engine", "ray"))
    with pytest.raises(ClusterError, match=r"package ray is not installed: run .*\[cluster\]"):
        Experiment(params, CellStore(tmp_path))


def test_an_address_that_does_not_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        told = f"^execution.address is {address}, and nothing answers there within 5 s .*: start a cluster"
        with pytest.raises(ClusterError, match=told):
            check_answers(address)
        free.listen()
        check_answers(address)


# --- how many workers -------------------------------------------------------------------------------------


def node(cpus: float, gb: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "memory": gb * GB, "GPU": gpus}


def test_as_many_workers_as_cores_and_memory() -> None:
    """8 cores and room for 5; 2 cores and room for 8: 5 + 2."""
    found = plan([node(8, 10), node(2, 16), node(0, 16)], "auto", needed=2 * GB)
    assert (found.count, found.threads) == (7, 1)
    assert found.options == {"num_cpus": 1, "memory": 2 * GB}
    assert plan([], "auto", needed=GB).count == 0
    assert plan([node(4, 1)], "auto", needed=2 * GB).count == 1, "one is tried where the estimate is too high"


def test_a_number_of_workers_shares_the_cores_out() -> None:
    found = plan([node(8, 16)], 2, needed=GB)
    assert (found.count, found.threads, found.options) == (2, 4, {"num_cpus": 4})
    assert plan([node(2, 16), node(8, 16)], 3, needed=GB).threads == 2, "none has more than a node"
    assert plan([node(2, 16)], 3, needed=GB).threads == 1
    assert plan([], 3, needed=GB).threads == 1


def test_one_worker_a_gpu_and_more_of_a_small_model() -> None:
    """80 GB: one of 50, two of 40, four of 3, for which 26 would have room."""
    for needed, each in ((50, 1), (40, 2), (3, 4)):
        found = plan([node(16, 64, 2), node(16, 64)], "auto", needed=needed * GB, gpu=80 * GB)
        assert (found.count, found.options) == (2 * each, {"num_gpus": 1 / each, "num_cpus": 1})


# --- chunks on their way ----------------------------------------------------------------------------------


def chunk(keys: list[str], amount: int = 1) -> Chunk:
    return Chunk(print, None, dict.fromkeys(keys, "job"), dict.fromkeys(keys, amount))


def write(store: CellStore, keys: list[str]) -> None:
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": key.encode()}


def test_the_longest_chunk_is_next_and_only_what_is_seen_is_done(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    found = Queue(store, [chunk(KEYS[:1], 5), chunk(KEYS[1:3], 4), chunk(KEYS[3:], 1)])
    first, sent = found.take() or pytest.fail("nothing")
    assert list(sent.jobs) == KEYS[1:3] and len(found) == 3
    assert not store.claims._take(KEYS[1], "a") and store.claims._take(KEYS[0], "a")
    (tmp_path / "claims" / KEYS[0]).unlink()
    write(CellStore(tmp_path), KEYS[1:2])
    found.back(first, [])
    assert found.finished == 0 and len(found) == 3 and first.due > 0, "its second cell is not there"
    first.due = 0
    assert list((found.take() or pytest.fail("nothing"))[1].jobs) == KEYS[:1]
    third = found.take() or pytest.fail("nothing")
    again, rest = found.take() or pytest.fail("nothing")
    assert list(third[1].jobs) == KEYS[3:]
    assert again is first and list(rest.jobs) == KEYS[2:3], "what is there does not go out again"
    write(CellStore(tmp_path), KEYS[2:3])
    found.back(first, [])
    assert found.finished == 8 and len(found) == 2 and found.take() is None
    found.release()
    assert not list((tmp_path / "claims").iterdir())


def test_segments_that_are_named_need_no_list_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four chunks, each written by somebody else: all segments are listed once, for the first."""
    store, worker, looks = CellStore(tmp_path), CellStore(tmp_path), []
    monkeypatch.setattr(store, "_names", lambda: looks.append(1) or CellStore._names(store))
    found = Queue(store, [chunk([key]) for key in KEYS[:4]])
    while found:
        task, sent = found.take() or pytest.fail("nothing")
        write(worker, list(sent.jobs))
        found.back(task, worker.holding(sent.jobs))
    assert found.finished == 4 and looks == [1]


def test_segments_are_packed_while_others_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven segments of one group two times three become one; another group's is left alone."""
    monkeypatch.setattr(fill, "UNPACKED", 3)
    store = CellStore(tmp_path)
    packing, many = Packing(store), [cell_key("spring.code", number=i) for i in range(8)]
    for key, group in zip(many, "aaabaaaa", strict=True):
        write(store, [key])
        packing.add(group, [key])
    assert [len(opened(str(file.resolve())).keys) for file in store.segments()].count(3) == 2
    assert len(store.segments()) == 4 and CellStore(tmp_path).missing(many) == []


def test_what_another_process_computes_is_left_to_it(tmp_path: Path) -> None:
    store, other = CellStore(tmp_path), CellStore(tmp_path)
    found = Queue(store, [chunk(KEYS[:3])])
    with other.claim(KEYS[:2]):
        task, sent = found.take() or pytest.fail("nothing")
        assert list(sent.jobs) == KEYS[2:3]
        write(other, KEYS[2:3])
        found.back(task, [])
        task.due = 0
        assert found.take() is None and len(found) == 1
        write(other, KEYS[:2])
    task.due = 0
    assert found.take() is None and len(found) == 0 and found.finished == 3


def test_a_chunk_that_ends_its_workers_stops_the_stage(tmp_path: Path) -> None:
    found = Queue(CellStore(tmp_path), [chunk(KEYS[:2])])
    for left in range(LOST, 0, -1):
        task, _ = found.take() or pytest.fail("nothing")
        if left > 1:
            found.lose(task, "killed")
            assert not list((tmp_path / "claims").iterdir())
    with pytest.raises(ClusterError, match=f"{LOST} workers ended over the same 2 cells .killed.: if memory"):
        found.lose(task, "killed")


def test_cells_that_never_appear_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Queue(CellStore(tmp_path), [chunk(KEYS[:1])])
    found.back((found.take() or pytest.fail("nothing"))[0], [])
    monkeypatch.setattr(queue, "LAG", -1.0)
    found.waiting[0].due = 0
    with pytest.raises(ClusterError, match=f"wrote cells into {tmp_path} that do not appear here"):
        found.back((found.take() or pytest.fail("nothing"))[0], [])


def test_parts_are_those_of_one_process() -> None:
    assert parts(KEYS, 4) == [KEYS[:4], KEYS[4:]] and parts([], 4) == []


# --- workers ----------------------------------------------------------------------------------------------


def asked(tmp_path: Path, **changes: Any) -> Asked:
    from spring.code import code_digest

    modules, code = ("spring.code",), code_digest("spring.code")
    usual = Asked(tmp_path, tmp_path, None, str(tmp_path), modules, code, libraries(), {}, 1, b"")
    return replace(usual, **changes)


def test_another_library_or_code_is_named(tmp_path: Path) -> None:
    assert differing(asked(tmp_path)) is missing_folder(asked(tmp_path)) is None
    torch = version("torch")
    assert differing(asked(tmp_path, libraries={"torch": "1.0"})) == (
        f"its torch is {torch}, and here 1.0: install the same there (constraints.txt)"
    )
    told = differing(asked(tmp_path, libraries={"no-such-package": "1.0"}))
    assert told is not None and told.startswith("its no-such-package is missing, and here 1.0")
    for change in ({"code": "0"}, {"modules": ("spring.newer",)}):
        told = differing(asked(tmp_path, **change))
        assert told is not None and told.endswith("is not the driver's: put the same commit there")


def test_another_folder_of_the_same_name_is_told(tmp_path: Path) -> None:
    lacks = tmp_path / "none"
    assert f"it has no {lacks}" in (missing_folder(asked(tmp_path, project=lacks)) or "")
    assert f"its {tmp_path} is not the driver's" in (missing_folder(asked(tmp_path, token=lacks)) or "")


def test_a_node_without_a_common_disk_has_a_store_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the driver's remote, which it is told of unless it knows one; another is refused."""
    url = f"file://{tmp_path}/far"
    driver = Shared(tmp_path / "driver", url)
    write(driver, KEYS)
    driver.remote.create("writing/token", b"")
    wanted = asked(tmp_path, remote=url, token="token")
    assert missing_folder(wanted) == f"its {tmp_path}/data has no model: run `dvc repro model` there"
    monkeypatch.setenv("SPRING_CELLS", str(tmp_path / "node"))
    monkeypatch.setenv(REMOTE, f"file://{tmp_path}/other")
    with pytest.raises(StoreError, match=f"its {REMOTE} is file://{tmp_path}/other, and here {url}"):
        own_store(wanted)
    monkeypatch.delenv(REMOTE)
    assert own_store(wanted).root == tmp_path / "node"
    with pytest.raises(StoreError, match=f"its {url} is not the driver's"):
        own_store(replace(wanted, token="other"))
    adapter = pickle.loads(pickle.dumps(partial(read_held, tmp_path / "data/adapt/0/x", KEYS[0], driver)))
    assert adapter() == {"value": KEYS[0].encode()}, "of an index of the driver's, whose data/ is not there"
    assert len(list((tmp_path / "node/segments").iterdir())) == 1


def test_a_store_is_sent_as_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = CellStore(Path("cells"))
    write(store, KEYS)
    sent = pickle.dumps([store, store.read])
    monkeypatch.chdir("/")
    found, read = pickle.loads(sent)
    assert len(sent) < 400 and found.root == tmp_path / "cells"
    assert read(KEYS[3]) == {"value": KEYS[3].encode()} and pickle.loads(sent)[0] is found


# --- progress ---------------------------------------------------------------------------------------------


class Remote:
    """An actor's method, called at once."""

    def __init__(self, method: Any) -> None:
        self.remote = method


def test_the_counter_holds_what_each_chunk_has_done_and_forgets_the_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chunk of 10 is at 6 and then lost: its second try counts from 0."""
    counter = Counter()
    monkeypatch.setattr("tasks.cells.cluster.worker.EVERY", 0.0)
    handle = type("Handle", (), {"note": Remote(counter.note)})()
    first = Sender(1, handle)
    first(4)
    first(2)
    first.losses([1.0, 3.0])
    assert counter.read([1]) == {1: (6, 2.0)}
    told: list[int] = []
    shown = Progress(told.append, None)  # type: ignore[arg-type]
    monkeypatch.setattr(shown, "_read", lambda out: setattr(shown, "heard", counter.read(out)))
    monkeypatch.setattr(
        shown, "meter", type("Bar", (), {"__call__": lambda _, n: told.append(n), "losses": print})()
    )
    shown.show(20, {1: 10})
    shown.show(20, {})
    Sender(2, handle)(3)
    shown.show(20, {2: 10})
    shown.show(30, {})
    assert told == [26, -6, 3, 7]
