"""What is said of a run: the card, what does not hold, and a table."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from bench.machine import describe


def about(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The card, what drives it, and the code."""
    found: dict[str, Any] = {**describe(device, dtype), "date": datetime.now(UTC).date().isoformat()}
    found["commit"] = _said(["git", "describe", "--always", "--dirty"])
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found["memory_gb"] = card.total_memory / 1e9
        found["capability"] = f"{card.major}.{card.minor}"
        found["cuda"] = torch.version.cuda
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = (_said(asked) or "").partition("\n")[0] or None
    return found


def _said(command: Sequence[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of everything, as they stand in docs/gpu.md."""
    parts = [_head(result), _speed(result), _inside(result), _checks(result)]
    return "\n\n".join(part for part in parts if part)


def _head(result: Mapping[str, Any]) -> str:
    said, limits = result["about"], result["about"].get("limits", {"flops": 0.0, "bytes": 0.0})
    card = ", ".join(
        f"{name} {said[name]}"
        for name in ("driver", "cuda", "torch", "transformers", "peft")
        if said.get(name) is not None
    )
    return (
        f"{said['machine']}, {card}, {said['date']}, commit {said['commit']}. Measured limits in "
        f"{said['dtype']}: {limits['flops'] / 1e12:.3g} TFLOP/s, {limits['bytes'] / 1e12:.3g} TB/s."
    )


def _speed(result: Mapping[str, Any]) -> str:
    lines = [
        "| model | job | users | PEFT, tok/s | engine, tok/s | times faster | of the limit | peak, GB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["jobs"]:
        spread = f"{min(row['ratios']):.1f} to {max(row['ratios']):.1f}"
        memory = f"{row['peak_gb']:.1f}" if row["peak_gb"] is not None else "–"
        lines.append(
            f"| {row['model']} | {row['job']} | {row['users']} | {row['peft_tokens_per_second']:.0f} "
            f"| {row['tokens_per_second']:.0f} | {row['ratio']:.1f} ({spread}) | {row['of_limit']:.1%} "
            f"| {memory} |"
        )
    return "\n".join(lines) if result["jobs"] else ""


def _inside(result: Mapping[str, Any]) -> str:
    lines = [
        f"- {kind}, {name}: {_short(value)}"
        for kind, one in result["inside"].items()
        for name, value in one.items()
        if value
    ]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} ({_short(one)})" if isinstance(one, Mapping) else f"{name} {_short(one)}"
            for name, one in value.items()
        )
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _checks(result: Mapping[str, Any]) -> str:
    lines = [
        "| check | model | in | road | error | at most | PEFT's own |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for row in result["checks"]:
        peft = _number(row["peft"]) if row["peft"] is not None else "–"
        error = _number(row["error"]) if row["holds"] else f"**{_number(row['error'])}**"
        lines.append(
            f"| {row['check']} | {row['model']} | {row['dtype']} | {row['road']} | {error} "
            f"| {_number(row['bound'])} | {peft} |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "no number" if value is None else "0" if value == 0 else f"{value:.1e}"


def verdict(result: Mapping[str, Any]) -> list[str]:
    """What the last lines say: all that is wrong, or that nothing is."""
    wrong = [
        f"WRONG: {row['check']} ({row['model']}, {row['dtype']}, {row['road']}): "
        f"{_number(row['error'])}, at most {_number(row['bound'])}"
        for row in result["checks"]
        if not row["holds"]
    ]
    wrong += [f"FAILED: {one['part']}: {one['error']}" for one in result["failed"]]
    left = [f"left out: {one['part']} ({one['why']})" for one in result["left_out"]]
    if not wrong and not complete(result):
        wrong = ["Not everything was checked: see what was left out."]
    if not wrong:
        wrong = [f"All {len(result['checks'])} checks hold."]
    return left + wrong


def complete(result: Mapping[str, Any]) -> bool:
    """Whether all was compared on small models; what is timed may be left out."""
    left = {one["part"] for one in result["left_out"]}
    return not any(part.endswith(("checks", "beside the model")) for part in left)


def passed(result: Mapping[str, Any]) -> bool:
    """Whether everything was checked and nothing is wrong."""
    return complete(result) and not result["failed"] and all(row["holds"] for row in result["checks"])
