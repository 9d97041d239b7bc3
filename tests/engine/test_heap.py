"""Threads of a stage share one heap."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import {first}
import ctypes, threading, torch
threads = [threading.Thread(target=lambda: torch.ones(300_000).sum()) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
@pytest.mark.parametrize(("first", "shared"), [("tasks", True), ("bench", True), ("spring", False)])
def test_threads_of_stages_share_one_heap(first: str, shared: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(first=first)], capture_output=True, text=True, check=True
    )
    assert (done.stdout.count("<heap ") == 1) is shared
