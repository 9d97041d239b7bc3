"""How this process gets its memory from the C library. Imports nothing that could have started a thread."""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h


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
