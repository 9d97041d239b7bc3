"""Where missing cells are computed: here, or on a Ray cluster. No result depends on it, nor any key."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from spring.engine.strict import PositiveInt, Strict


class Execution(Strict):
    """How a stage computes what is missing (docs/scale.md); all but `engine` is read by `ray` alone."""

    engine: Literal["local", "ray"] = "local"
    address: str | None = None  # of a cluster that runs, `auto`: this machine's; null: one for each stage
    workers: PositiveInt | Literal["auto"] = "auto"  # processes with the model; auto: all that have room
    users_per_task: PositiveInt | None = None  # cells of one task; null: as many as one process takes at once

    @field_validator("address")
    @classmethod
    def _an_address(cls, address: str | None) -> str | None:
        if address in (None, "auto"):
            return address
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise ValueError("must be host:port, as in 10.0.0.1:6379, or auto, or null")
        return address
