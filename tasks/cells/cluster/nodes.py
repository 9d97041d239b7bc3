"""The Ray cluster: reaching it, and how many workers of which size have room there."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from spring.engine.device import device_name
from spring.engine.settings import Model
from spring.engine.weights import one_line
from tasks.files import DATA, write_text

ANSWER = 5.0  # seconds that an address has to answer
SPEECH = 40.0  # seconds in which another process must have joined
STORE = 256 * 2**20  # bytes of Ray's own object store: what is sent is small, results go to the cell store
PYTHON = 10**9  # bytes that a worker needs beside weights and batches
MOST_ON_A_GPU = 4  # more workers would only wait for one another
STEP = 10_000  # Ray counts shares of a GPU in steps of 1 / STEP
START = 120.0  # seconds in which the cluster of a run must have begun
LOOK = 0.1  # seconds between two looks for the address of the run's cluster
SHARED = "SPRING_CLUSTER"  # names the folder in which a run and its stages speak of the cluster they share
WANTED, ADDRESS = "wanted", "address"  # the files there: by a stage, and by the run's process
Resources = Mapping[str, float]  # of a node, in Ray's words


class ClusterError(RuntimeError):
    """The cluster cannot be used as asked; the message says why, and what to do."""


def check_installed() -> None:
    """`ClusterError` without the package ray."""
    if find_spec("ray") is None:
        raise ClusterError(
            "execution.engine is ray, but the package ray is not installed: run "
            "`.venv/bin/pip install -c constraints.txt -e '.[cluster]'`, or set execution.engine to local"
        )


def connect(address: str | None) -> None:
    """Joins the cluster at `address`; null: one of this machine's cores, the run's or one of this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    if address not in (None, "auto"):
        check_answers(address)
        check_speaks(address)
    shared = ask_run(Path(os.environ[SHARED])) if address is None and SHARED in os.environ else None
    try:
        begin(address or shared)
    except Exception as error:  # of no narrower kind where Ray's own processes do not start
        raise ClusterError(
            f"execution.address is {address or 'null'}: Ray cannot be used there: {one_line(error)}"
        ) from None


def begin(address: str | None) -> str:
    """Joins a cluster, or begins one that ends with this process (null); its address."""
    import ray

    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE}
    ray.init(address or "local", logging_level=logging.ERROR, **({} if address else own))
    return str(ray.get_runtime_context().gcs_address)


def begin_shared(folder: Path) -> None:
    """Begins the cluster of a run, and says in its folder where it is; nothing where it does not begin."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = ""
    try:
        address = begin(None)
    finally:
        write_text(address, folder / ADDRESS)


def ask_run(folder: Path) -> str | None:
    """The cluster of the run of Prefect that this stage is part of (flows/cluster.py); null: it has none."""
    until = time.monotonic() + START
    try:
        (folder / WANTED).touch()
        while not (folder / ADDRESS).exists() and time.monotonic() < until:
            time.sleep(LOOK)
        if address := (folder / ADDRESS).read_text(encoding="utf-8"):
            check_answers(address)
            return address
    except (FileNotFoundError, ClusterError):
        pass
    print("the run has no Ray that answers: this stage begins one of its own", file=sys.stderr)
    return None


def check_answers(address: str) -> None:
    """`ClusterError` where nothing answers at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"execution.address is {address}, and nothing answers there within {ANSWER:.0f} s ({error}): "
            f"start a cluster with `ray start --head --port={port}`, or set it to null"
        ) from None


def check_speaks(address: str) -> None:
    """`ClusterError` where something else than Ray answers: Ray itself would try for many minutes."""
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
    try:
        subprocess.run([sys.executable, "-c", code, address], timeout=SPEECH, capture_output=True)
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"execution.address is {address}, and what answers there is no Ray cluster (or takes more than "
            f"{SPEECH:.0f} s): it must be the address that `ray start --head` shows, usually of port 6379"
        ) from None


def bytes_needed(model: Model) -> int:
    """What a worker takes of memory: Python and torch, the weights as they lie on the disk, one batch."""
    from spring.engine.model import read_place

    weights = sum(file.stat().st_size for file in read_place(DATA / "model").glob("*.safetensors"))
    return PYTHON + weights + int(model.memory_gb * 1e9)


def gpu_bytes(model: Model) -> int | None:
    """The memory of this machine's GPU, like which all are taken to be; null: cells are a processor's."""
    if device_name(model.device) != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


@dataclass(frozen=True)
class Plan:
    """How many workers there should be, what each is given of a node, and how many threads it computes on."""

    count: int
    threads: int = 1
    options: dict[str, float] = field(default_factory=dict)  # Ray's, of an actor


def plan(
    nodes: Sequence[Resources], workers: int | Literal["auto"], *, needed: int, gpu: int | None = None
) -> Plan:
    """Workers for these nodes, each of which takes `needed` bytes; on a GPU of `gpu` bytes, or on processors.

    On GPUs: one each, and as many as fit if the model is small. On processors `auto` is one of one thread for
    every core, where the memory suffices; a number shares the cores out.
    """
    if gpu is not None:
        each = max(1, min(MOST_ON_A_GPU, gpu // needed))
        room = sum(int(node.get("GPU", 0)) * each for node in nodes)
        options: dict[str, float] = {"num_gpus": (STEP // each) / STEP, "num_cpus": 1}
        return Plan(room if workers == "auto" else workers, options=options)
    able = [node for node in nodes if node.get("CPU", 0) >= 1]
    if workers == "auto":
        needed = min([needed, *(int(node["memory"]) for node in able)])
        room = sum(int(min(node["CPU"], node["memory"] // needed)) for node in able)
        return Plan(room, options={"num_cpus": 1, "memory": needed})
    cores = [int(node["CPU"]) for node in able]
    threads = max(1, min([sum(cores) // workers, *cores]))
    return Plan(workers, threads, {"num_cpus": threads})
