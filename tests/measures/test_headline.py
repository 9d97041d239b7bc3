"""data/headline.json: few numbers, the most telling first, and only where there is one."""

from __future__ import annotations

from typing import Any

from kit.tracking import made_metrics

from tasks.measures.headline import headline


def five_arms() -> dict[str, Any]:
    """Metrics of five arms, the second the most likely."""
    metrics = made_metrics()
    arms = {f"arm-{number}": metrics["arms"]["spring"] | {} for number in range(5)}
    for number, arm in enumerate(arms):
        arms[arm]["logp_per_token"] = {"mean": -3.0 - abs(number - 1)}
    paired = {
        arm: {"logp_per_token": {"difference": 1.0 - number}} for number, arm in enumerate(arms) if number
    }
    return metrics | {"arms": arms, "paired": paired}


def numbers(value: Any) -> int:
    return sum(map(numbers, value.values())) if isinstance(value, dict) else isinstance(value, float)


def test_five_arms_are_25_numbers_and_who_leads_comes_first() -> None:
    found = headline(five_arms())
    assert list(found) == ["lead", "gain", "logp", "rouge1", "rougeL", "meteor"]
    assert found["lead"] == {"arm": "arm-1", "gain": 0.0}
    assert found["gain"] == {"arm-1": 0.0, "arm-2": -1.0, "arm-3": -2.0, "arm-4": -3.0}
    assert found["logp"]["arm-4"] == -6.0 and numbers(found) == 25


def test_the_arm_compared_with_may_lead_and_what_no_text_has_is_left_out() -> None:
    metrics = five_arms()
    metrics["arms"]["arm-0"] |= {"logp_per_token": {"mean": -1.0}, "meteor": {"mean": None}}
    found = headline(metrics)
    assert found["lead"] == {"arm": "arm-0", "gain": 0.0} and "arm-0" not in found["gain"]
    assert list(found["meteor"]) == ["arm-1", "arm-2", "arm-3", "arm-4"]
