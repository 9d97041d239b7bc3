"""E-mail addresses: out of texts and names (nobody's style, somebody's privacy), and whose they are."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from spring.data.values import name_user

# getty@tty1.service and its like are units of systemd, not addresses
_UNITS = "service|socket|timer|target|mount|slice|scope|path|device|swap|conf"
_ADDRESS = re.compile(
    r"[ \t]?(?:<(?:mailto:)?[^<>\s]+@[^<>\s]+>"
    rf"|\(?(?:mailto:)?\b[\w.+%-]+@(?:[\w-]+\.)+(?!(?:{_UNITS})\b)[A-Za-z]{{2,}}\b\)?)"
)
_LIST = re.compile(r"@(lists|packages|alioth-lists)\.")
# What programs fill in where nobody gave an address: whoever uses these, they are not one person
_NOBODY = re.compile(
    r"^(no-?reply|none|nobody|root|unknown)@|^you@example\.com$|@(localhost(\.localdomain)?|null)$"
)


def without_addresses(text: str) -> str:
    """The text without e-mail addresses, the brackets around them and the blank before."""
    return _ADDRESS.sub("", text)


def clean_name(name: str) -> str | None:
    """A person's name without addresses and quotes, as `name_user` has it; None if nothing is left."""
    return name_user(without_addresses(name).strip().strip("\"'")) or None


def usual_names(signed: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """For each address of one person the name most often used with it (ties: the first by alphabet).

    Addresses that several persons use have none: mailing lists, and what programs fill in.
    """
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for name, mail in signed:
        if name is not None and mail and not _LIST.search(mail) and not _NOBODY.search(mail):
            used[mail][name] += 1
    return {
        mail: min(counts.items(), key=lambda item: (-item[1], item[0]))[0] for mail, counts in used.items()
    }
