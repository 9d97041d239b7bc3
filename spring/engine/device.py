"""Where and in which number format the model runs. torch is imported only where the answer needs it.

Every stage asks, for the keys of its cells, and most of the time has nothing to compute: importing torch
would take longer than all the rest of it.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from spring.engine.weights import ModelError

if TYPE_CHECKING:
    import torch

ACCELERATORS = ("nvidiactl", "nvidia0", "dxg", "kfd")  # in /dev: NVIDIA's, the same under WSL, AMD's
BFLOAT16 = {"avx512_bf16", "amx_tile"}  # flags of processors that compute in it


def pick_device(device: str) -> torch.device:
    """`auto`: CUDA where there is one."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch sees no GPU; use auto or cpu")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the processor computes in it, float32 elsewhere."""
    import torch

    if dtype != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def device_name(device: str) -> str:
    """The type of `pick_device`, as `cpu`; without torch on a machine that has no accelerator."""
    if device == "cpu" or (device == "auto" and has_no_accelerator()):
        return "cpu"
    return pick_device(device).type


def dtype_name(dtype: str, device: str) -> str:
    """The name of `pick_dtype`, as `torch.bfloat16`; `device`: as asked for. Without torch as above."""
    if dtype == "auto" and device_name(device) == "cpu" and (flags := processor_flags()):
        dtype = "bfloat16" if BFLOAT16 & flags else "float32"
    return f"torch.{dtype}" if dtype != "auto" else str(pick_dtype(dtype, pick_device(device)))


def has_no_accelerator(devices: Path = Path("/dev")) -> bool:
    """Whether this is a Linux without the device of any; elsewhere only torch can tell."""
    return platform.system() == "Linux" and not any((devices / name).exists() for name in ACCELERATORS)


def processor_flags(info: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What an x86-64 processor can do, in Linux's words; nothing where only torch can tell."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return frozenset()
    with info.open(encoding="utf-8") as lines:
        return next((frozenset(line.split()[2:]) for line in lines if line.startswith("flags")), frozenset())
