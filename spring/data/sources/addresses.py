"""E-mail addresses out of texts and names: they are nobody's style and somebody's privacy."""

from __future__ import annotations

import re

# getty@tty1.service and its like are units of systemd, not addresses
_UNITS = "service|socket|timer|target|mount|slice|scope|path|device|swap|conf"
_ADDRESS = re.compile(
    r"[ \t]?(?:<(?:mailto:)?[^<>\s]+@[^<>\s]+>"
    rf"|\(?(?:mailto:)?\b[\w.+%-]+@(?:[\w-]+\.)+(?!(?:{_UNITS})\b)[A-Za-z]{{2,}}\b\)?)"
)


def without_addresses(text: str) -> str:
    """The text without e-mail addresses, the brackets around them and the blank before."""
    return _ADDRESS.sub("", text)


def clean_name(name: str) -> str | None:
    """A person's name without addresses, quotes and doubled blanks; None if nothing is left."""
    return " ".join(without_addresses(name).strip().strip("\"'").split()) or None
