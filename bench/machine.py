"""What this machine can do at best: its rate of matrix products and of reading memory, as measured here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spring.engine.device import pick_device, pick_dtype
from spring.engine.settings import Model
from tasks.files import write_json
from tasks.machine import processor

if TYPE_CHECKING:  # without torch this process is small (`spent`)
    import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft")
MEGABYTE = 1024 if sys.platform != "darwin" else 1024**2  # of ru_maxrss: it counts kilobytes, on macOS bytes


@dataclass(frozen=True)
class Limits:
    """Best rates of this machine, all cores together."""

    flops: float  # operations per second in large matrix products of the model's dtype
    bytes: float  # bytes per second read and written by large copies


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Measures both; the best of several attempts, since others may use the machine."""
    import torch

    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(1 << 28, device=device, dtype=torch.int8)  # 256 MB: larger than any cache
    target = torch.empty_like(source)
    products = best(lambda: a @ b, device)
    copies = best(lambda: target.copy_(source), device)
    return Limits(2 * size**3 / products, 2 * source.numel() / copies)


def best(work: Callable[[], Any], device: torch.device, attempts: int = 12) -> float:
    """Seconds of the fastest of several runs."""
    seconds = []
    for _ in range(attempts):
        began = perf_counter()
        work()
        wait(device)
        seconds.append(perf_counter() - began)
    return min(seconds)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def spent(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> dict[str, float]:
    """What a command takes with all that it starts: seconds, seconds of processors, peak memory (MB).

    It counts the memory of the process that it was forked from, so that this one must stay small.
    """
    began = perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {
        "seconds": perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / MEGABYTE,
    }


def about(model: Model) -> dict[str, Any]:
    """`describe` for the device that the parameters choose."""
    device = pick_device(model.device)
    return describe(device, pick_dtype(model.dtype, device))


def write_result(name: str, about: dict[str, Any], **found: Any) -> None:
    """Writes bench/results/NAME.json: what was found, and on what machine."""
    write_json({"about": about, **found}, RESULTS / f"{name}.json")


def describe(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Machine and versions, to be kept with every figure."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "machine": name,
        "cores": torch.get_num_threads(),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "python": ".".join(map(str, sys.version_info[:3])),
        **{package: version(package) for package in PACKAGES},
    }
