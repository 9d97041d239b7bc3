"""A Ray cluster on loopback, and lessons, scores and answers of a tiny model that are computed on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.pipeline import WORDS, write_params
from spring.settings.execution import Execution
from spring.store.cells import CellStore
from spring.store.segments import Segment
from tasks.cells.decoding import GenerateJob, Request, generate
from tasks.cells.scoring import ScoreJob, score
from tasks.cells.training import TrainJob, train
from tasks.cells.workbench import Adapter, Row, Workbench
from tasks.params import load_params
from tasks.steps.experiment import Experiment

ROOT = Path(__file__).parents[2]
USERS = 40  # three chunks of lessons a recipe
STORE = 80 * 2**20  # bytes of Ray's object store; it takes no less
SECONDS = {"seconds", "ref_seconds"}  # what two runs differ in


@contextmanager
def loopback(*, dashboard: bool = False) -> Iterator[Any]:
    """A head with one core, to which nodes can be added; its processes are gone when the block ends."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(path).resolve()) for path in paths if path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": dashboard}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more node, of one core."""
    return cluster.add_node(num_cpus=1, object_store_memory=STORE)


def write_project(folder: Path, model_folder: Path, address: str) -> None:
    """params.yaml of a project whose missing cells are computed on the cluster at `address`."""
    arms = {"spring": {}, "fast": {"train": {"lr": 0.05}}, "base": {"train": None, "memory": None}}
    write_params(folder, model_folder, arms=arms)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["execution"] = {"engine": "ray", "address": address, "workers": "auto", "users_per_task": None}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


def bench_of(store: Path, **execution: Any) -> Experiment:
    """A workbench of the project in the current folder, with changes to `execution`."""
    params = load_params()
    changed = Execution(**{**dict(params.execution), **execution})
    return Experiment(params.model_copy(update={"execution": changed}), CellStore(store))


def rows_of(user: int, count: int) -> list[Row]:
    """Short texts, other ones for every user."""
    return [
        {
            "user_id": f"user {user}",
            "task": "commit",
            "query": json.dumps({"SUBJECT": f"{WORDS[(user + n) % len(WORDS)]} {user}"}),
            "response": " ".join(WORDS[(user * 7 + n * 3 + k) % len(WORDS)] for k in range(4 + user % 5)),
        }
        for n in range(count)
    ]


def lessons(bench: Experiment, *, epochs: int, seed: int) -> list[TrainJob]:
    """One for every user under two recipes, of 2 to 5 texts."""
    return [
        TrainJob(
            arm.train.learning.model_copy(update={"epochs": epochs}),
            rows_of(user, 2 + user % 4),
            [],
            None,
            seed=seed + user,
        )
        for arm in (bench.params.arms["spring"], bench.params.arms["fast"])
        for user in range(USERS)
        if arm.train is not None
    ]


def train_all(bench: Experiment, *, epochs: int = 2, seed: int = 0) -> list[Adapter]:
    """The adapters of all lessons."""
    jobs = lessons(bench, epochs=epochs, seed=seed)
    keys = train(bench, jobs, "train")
    return [bench.adapter(key, job.how.lora) for key, job in zip(keys, jobs, strict=True)]


def use_all(bench: Experiment, adapters: list[Adapter]) -> None:
    """Scores and answers under them."""
    score(bench, [ScoreJob(rows_of(n, 2), adapter) for n, adapter in enumerate(adapters)], "score")
    decode = bench.params.arms["spring"].decode.decoding
    asked = [Request(rows_of(n, 3)[2], rows_of(n, 2), 0.5, 2, None) for n in range(len(adapters))]
    generate(
        bench,
        [GenerateJob("spring", f"{n}", [asked[n]], decode, one) for n, one in enumerate(adapters)],
        "answer",
    )


def cells_of(store: Path) -> dict[str, dict[str, bytes]]:
    """What every cell holds; each is in one segment."""
    found: dict[str, dict[str, bytes]] = {}
    for path in CellStore(store).segments():
        segment = Segment(path)
        for key in segment.keys:
            assert key not in found, "a cell is there twice"
            found[key] = segment.read(key)
    return found


def contents(store: Path) -> dict[str, dict[str, Any]]:
    """What every cell holds, but for seconds."""
    return {
        key: {name: timeless(content) for name, content in files.items()}
        for key, files in cells_of(store).items()
    }


def timeless(content: bytes) -> Any:
    """A file's bytes; of JSON its values without seconds."""
    try:
        value = json.loads(content)
    except ValueError:
        return content
    return without_seconds(value)


def without_seconds(value: Any) -> Any:
    if isinstance(value, list):
        return [without_seconds(one) for one in value]
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if key not in SECONDS}
    return value


def to_a_full_disk(bench: Workbench, shared: object, jobs: dict[str, object], meter: object) -> None:
    """A computation whose result has no room."""
    Path("/dev/full").write_bytes(b"x")
