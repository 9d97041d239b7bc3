"""How this process gets its memory from the C library, and when it looks for what can be freed.

Imports nothing that could have started a thread.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h
USUAL = gc.get_threshold()  # new objects before Python looks for circles among them, then among older ones
SELDOM = (100_000, 10, 10)


def keep_heap() -> None:
    """Has all threads of this process share one heap that keeps what is freed; glibc only.

    By default large blocks go back to the system with every operation and come again page by page, and every
    thread has a heap of its own, which keeps that thread's peak: training on two cores would hold twice the
    memory that it uses at any time. Call it before there are threads: glibc does not reduce its heaps later.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 1 << 30)):
            mallopt(option, value)


def collect_seldom() -> None:
    """Has Python look for circles of garbage seldom, until `collect_as_usual`.

    Importing torch and transformers makes 700,000 objects that all stay, and by default Python looks through
    them seven times: a quarter of the time until a model is there. Nor does it once more when it ends.
    """
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)


def collect_as_usual() -> None:
    """Sets what is there aside for good, and has circles found soon again: they may hold tensors."""
    if gc.get_threshold() == SELDOM:
        gc.freeze()
        gc.set_threshold(*USUAL)
