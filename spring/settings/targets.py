"""Layers that arms adapt, against those that the model has."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from spring.engine.weights import ModelError
from spring.settings.arm import Arm


def check_targets(arms: Mapping[str, Arm], there: Collection[str], *, model_id: str) -> None:
    """Raises `ModelError` for an arm that adapts layers which the model does not have."""
    for name, arm in arms.items():
        asked = arm.train.lora.target_modules if arm.train else ()
        unknown = [target for target in asked if target not in there]
        if unknown:
            raise ModelError(
                f"arms.{name}.train.lora.target_modules is {list(asked)}, and adapters cannot lie on "
                f"{', '.join(unknown)} of {model_id}: let arm.train.lora.target_modules be some of "
                f"{', '.join(sorted(there))}"
            )
