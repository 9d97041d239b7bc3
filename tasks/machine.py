"""The machine a stage runs on, in words: no name of it, nothing that tells whose it is."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_machine(folder: Path) -> dict[str, Any]:
    """What the answers in a folder were written on, by tasks/generate.py; empty where nobody has noted it."""
    file = folder / "machine.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
