"""Cell stores that share a bucket of a real S3 server: two processes, a killed one, refusals, requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.cluster import contents, write_project
from kit.pipeline import run
from kit.s3 import SECRET, SETTINGS, Server, bucket, s3_server
from kit.warm import Warm

from spring.store.cells import StoreError
from spring.store.keys import cell_key
from spring.store.remote import REMOTE
from spring.store.shared import Shared
from tasks import model
from tasks.cells.fill import ours

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
KEYS = [cell_key("spring.code", number=i) for i in range(20)]
COMPUTE = """
import sys, time
from pathlib import Path
from spring.store.shared import open_store
from tasks.cells.fill import ours

store, keys = open_store(Path(sys.argv[1])), sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
for some in ours(store, keys, 4):
    time.sleep(0.2)
    with store.batch() as batch:
        for key in some:
            batch[key] = {"value": key.encode(), "who": sys.argv[1].encode()}
            print(key, flush=True)
store.pack(keys)
assert not store.missing(keys)
"""


STAGE = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from kit.cluster import bench_of, rows_of
from tasks.cells import fill
from tasks.cells.scoring import ScoreJob, score

def told(store, names, at_once, ours=fill.ours):
    for some in ours(store, names, at_once):
        print(*some, sep="\\n", flush=True)
        yield some

fill.ours = told
bench = bench_of(Path(sys.argv[1]), engine="local")
bench.base
print("ready", flush=True)
sys.stdin.readline()
score(bench, [ScoreJob(rows_of(n, 6), None) for n in range(48)], "score")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as found:
        yield found


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    with bucket(server, name[-60:].strip("-")) as found:
        yield found


def write(store: Shared, keys: list[str]) -> None:
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": key.encode()}


def start(
    server: Server,
    url: str,
    folder: Path,
    code: str = COMPUTE,
    *,
    python: str = sys.executable,
    at: Path = ROOT,
) -> subprocess.Popen[str]:
    environment = {**os.environ, **server.environment(url)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [python, "-c", code, str(folder), *KEYS], cwd=at, env=environment, text=True, **pipes
    )


def refuse(server: Server, after: str) -> None:
    """Has the server ask who somebody is, from so many requests on."""
    place, kind = f"{server.address}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(place, after.encode(), kind)).close()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_machines_compute_nothing_twice(server: Server, url: str, tmp_path: Path) -> None:
    """Each has a folder of its own; what they share is the bucket."""
    both = [start(server, url, tmp_path / name) for name in ("one", "two")]
    for process in both:
        let_go(process)
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = [out.split() for out, _ in said]
    assert sorted(done[0] + done[1]) == sorted(KEYS) and all(done)
    stores = [Shared(tmp_path / name, url) for name in ("one", "two", "three")]
    assert not stores[2].missing(KEYS)
    for key in KEYS:
        assert stores[0].read(key) == stores[1].read(key) == stores[2].read(key)
    assert stores[0].remote.listed("claims") == {}
    assert len(stores[2].segments()) == 1, "packed, by both to the same bytes or by one"
    secrets = {SECRET.encode(), SETTINGS["AWS_ACCESS_KEY_ID"].encode()}
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    told = "".join(out + err for out, err in said).encode()
    assert files and not any(secret in content for secret in secrets for content in [told, *files])


def test_two_machines_compute_a_stage_as_one_does(
    server: Server,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model_folder: Path,
    warm_python: Warm,
) -> None:
    """Scores under the tiny model: none twice, and bit for bit those of a process alone, but for seconds."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, tiny_model_folder, "auto")
    run(model, monkeypatch)
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    how: dict[str, Any] = {"code": STAGE, "python": str(warm_python.folder / "python"), "at": tmp_path}
    both = [start(server, url, Path(name), **how) for name in ("one", "two")]
    for process in both:
        let_go(process)
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = [out.split() for out, _ in said]
    assert all(done) and len({*done[0], *done[1]}) == len(done[0]) + len(done[1]) == 48
    alone = start(server, "", Path("alone"), **how)
    let_go(alone)
    alone.communicate(timeout=240)
    assert contents(Path("one")) == contents(Path("two")) == contents(Path("alone"))


def test_a_killed_writer_costs_what_it_had_not_put(server: Server, url: str, tmp_path: Path) -> None:
    """One is killed holding claims; one between its folder and the bucket, whose cells its next run puts."""
    halt = "import os, signal\nfrom spring.store import far\n"
    halt += "far.Far.put = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    killed = start(server, url, tmp_path / "one", halt + COMPUTE)
    let_go(killed)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    other = Shared(tmp_path / "two", url)
    assert other.missing(KEYS) == KEYS and len(other.remote.listed("claims")) == 5
    again = Shared(tmp_path / "one", url)
    assert len(again.missing(KEYS)) == 16 and len(other.missing(KEYS)) == 16
    for some in ours(other, KEYS, 4):
        assert not set(some) & (set(KEYS) - set(again.missing(KEYS)))
        write(other, some)
    assert again.missing(KEYS) == [] and other.remote.listed("claims") == {}


def test_an_object_with_a_flipped_byte_is_refused_and_computed_again(url: str, tmp_path: Path) -> None:
    one = Shared(tmp_path / "one", url)
    write(one, KEYS)
    [name] = one.remote.listed("segments")
    whole = one.remote.read(f"segments/{name}")
    one.remote.write(f"segments/{name}", whole[:-1] + bytes([whole[-1] ^ 1]))
    two = Shared(tmp_path / "two", url)
    [lost] = two.missing(KEYS)
    write(two, [lost])
    assert [two.read(key)["value"].decode() for key in KEYS] == KEYS
    assert name not in two.remote.listed("segments")


def test_large_segments_go_in_parts(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipart uploads and ranges of downloads; the second writer finds it there."""
    from s3fs import core

    monkeypatch.setattr(core, "calculate_chunksize", lambda *_, **__: 5 * 2**20)
    monkeypatch.setattr(core.S3FileSystem, "default_block_size", 2**20)
    stores = [Shared(tmp_path / name, url) for name in ("one", "two")]
    content = os.urandom(11 * 2**20)
    for store in stores:
        with store.batch() as batch:
            batch[KEYS[0]] = {"value": content}
    assert stores[1].read(KEYS[0]) == {"value": content} and len(stores[0].remote.listed("segments")) == 1
    stores[0].far.put(stores[0].segments()[0])
    assert Shared(tmp_path / "three", url).missing(KEYS[:1]) == []


def test_what_cannot_be_used_is_one_line_without_secrets(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        StoreError, match=f"^{REMOTE} is s3://no-such-bucket/cells: there is no no-such-bucket: make"
    ):
        Shared(tmp_path / "cells", "s3://no-such-bucket/cells")
    refuse(server, "0")
    try:
        with pytest.raises(
            StoreError, match=f"^{REMOTE} is {url}: PermissionError: .*see to network"
        ) as refused:
            Shared(tmp_path / "cells", url)
    finally:
        refuse(server, "inf")
    assert not [word for word in SETTINGS.values() if len(word) > 10 and word in str(refused.value)]
    assert "\n" not in str(refused.value)


def test_what_a_stage_asks_for(server: Server, url: str, tmp_path: Path) -> None:
    """By kinds that providers charge: 64 cells in chunks of 16, and a second machine that finds them.

    A chunk is 16 claims, a sign of life and a segment to be put; the first needs a put to try the store, too.
    Claims, what is missing and what others have written meanwhile are a listing each, one more where a folder
    is empty; whether all is there at the end, none.
    """
    keys, asked = [cell_key("spring.code", number=i) for i in range(64)], list[dict[str, int]]()

    def count(before: Counter[str]) -> Counter[str]:
        asked.append(server.since(before))
        return server.counted.copy()

    before = server.counted.copy()
    one = Shared(tmp_path / "one", url)
    before = count(before)
    for some in ours(one, keys, 16):
        write(one, some)
    before = count(before)
    one.pack(keys)
    before = count(before)
    two = Shared(tmp_path / "two", url)
    assert not two.missing(keys)
    before = count(before)
    assert not two.missing(keys) and two.read(keys[0])
    count(before)
    opened, filled, packed, found, again = asked
    assert opened == {"HEAD": 1, "LIST": 6}
    assert filled == {"PUT": 4 * 18 + 1, "LIST": 4 * 3 + 2, "DELETE": 4}
    assert packed == {"PUT": 3, "LIST": 2, "DELETE": 1}
    assert found == {"LIST": 4, "GET": 5 + 1}, "headers, and what is packed"
    assert again == {}
