"""Time and memory of every stage of the experiment: `python -m bench.stages`.

Runs what is out of date, one stage after another as `dvc repro` would, and prints seconds and the peak
memory of each stage and of the whole. Stages of several periods are added up; memory is the largest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from time import perf_counter

from flows.experiment import dvc, environment, stages_in_order

MEGABYTE = 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss counts kilobytes, on macOS bytes


def run(stage: str) -> tuple[float, float]:
    """Seconds and peak memory (MB) of one stage with everything it starts."""
    began = perf_counter()
    command = dvc("--quiet", "--wait-for-lock", "repro", "--single-item", stage)
    process = subprocess.Popen(command, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stage {stage} failed")
    return perf_counter() - began, usage.ru_maxrss / MEGABYTE


def main() -> None:
    """Runs all stages and prints the table."""
    seconds: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    for stage in stages_in_order():
        name = stage.partition("@")[0]
        took, peak = run(stage)
        seconds[name] += took
        memory[name] = max(memory[name], peak)
    print("| stage | seconds | peak MB |\n|---|---:|---:|")
    for name in seconds:
        print(f"| `{name}` | {seconds[name]:.0f} | {memory[name]:.0f} |")
    print(f"| all | {sum(seconds.values()):.0f} | {max(memory.values()):.0f} |")


if __name__ == "__main__":
    main()
