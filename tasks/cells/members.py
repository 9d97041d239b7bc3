"""Cells of what the shared level of PROPER knows of one user (spring/rivals/proper)."""

from __future__ import annotations

from spring.rivals.proper.fits import Layered
from spring.store.keys import cell_key
from tasks.cells.workbench import Workbench


def write_member(bench: Workbench, over: Layered, user: str) -> str:
    """The cell's key. It holds the user's embedding, or the mean of all for one it has not seen."""
    key = cell_key(__name__, kind="member", shared=over.key, user=user)
    if key not in bench.store:
        from spring.rivals.proper.files import USER, USERS, read_shared, writers

        beneath = over.read()
        embeddings, row = read_shared(beneath)[USERS], writers(beneath).get(user)
        mine = embeddings.mean(0) if row is None else embeddings[row].clone()
        with bench.store.batch() as batch:
            batch[key] = over.files({USER: mine}, base_model=bench.settings.id)
    return key
