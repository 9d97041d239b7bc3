"""What is measured on: real changelog entries of this machine, and generated reviews."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice

from spring.data.checking import check_rows, leave_out
from spring.engine.texts import Text
from spring.method.prompts import Prompter
from tasks.ingest import read_source
from tasks.params import load_params

SOURCES = ("changelogs", "personas")
MAX_CHARS = 1200  # as in experiments/changelogs
Pair = tuple[str, str, str]  # task, query, response


@cache
def writers(source: str, users: int) -> list[list[Pair]]:
    """The interactions of `users` users in the order they were written; changelogs may have fewer users."""
    params = load_params()
    personas = params.ingest.personas.model_copy(update={"users": users})
    limits = params.ingest.model_copy(
        update={"source": source, "max_users": users, "personas": personas, "max_chars": MAX_CHARS}
    )
    rows = read_source(limits, seed=params.seed)
    checked = check_rows(rows, min_chars=limits.min_chars, max_chars=limits.max_chars)
    kept, _ = leave_out(
        checked.placed,
        min_interactions=limits.min_interactions,
        max_users=limits.max_users,
        max_interactions=limits.max_interactions,
    )
    found = []
    for _, frame in checked.rows(kept).group_by("user_id", maintain_order=True):
        found.append([(str(t), str(q), str(r)) for t, q, r in frame["task", "query", "response"].iter_rows()])
    return found


def texts(prompter: Prompter, source: str, count: int) -> list[Text]:
    """`count` texts, one writer after the other by turns."""
    own = writers(source, 32)
    pairs = [user[i] for i in range(max(map(len, own))) for user in own if i < len(user)]
    assert len(pairs) >= count, f"{source} has {len(pairs)} texts, {count} are asked for"
    return [prompter.text(*pair) for pair in pairs[:count]]


def retrieved(prompter: Prompter, source: str, count: int, size: int) -> list[tuple[int, ...]]:
    """`count` contexts of `size` tokens, cut out of what all have written, which comes round and round."""
    written = [token for text in texts(prompter, source, 192) for token in text.response]
    assert len(written) > size, f"{source} has {len(written)} tokens, contexts of {size} are asked for"
    endless = cycle(written)
    return [tuple(islice(endless, size)) for _ in range(count)]


def lessons(prompter: Prompter, source: str, count: int, size: int) -> list[list[Text]]:
    """`count` drift sets of `size` texts, each of one writer."""
    sets = [
        user[start : start + size]
        for user in writers(source, 32)
        for start in range(0, len(user) - size + 1, size)
    ]
    step = max(1, len(sets) // count)  # from all writers
    chosen = sets[::step][:count]
    assert len(chosen) == count, f"{source} has {len(sets)} sets of {size} texts, {count} are asked for"
    return [[prompter.text(*pair) for pair in one] for one in chosen]
