"""What runs and artifacts of W&B are called: by what they hold, so that nothing counts twice.

A run's id follows from experiment, suite, seed, arm and the fingerprint of what shapes that arm's numbers:
its own settings, the data and the model. So a rerun overwrites, an arm more leaves the others' runs as they
are, and what only decides how arms are compared or shown (`evaluate`, `report`, `tracking`) changes no id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import polars as pl

from spring.settings.params import Params
from spring.store.keys import fingerprint
from tasks.files import DATA, read_parquet
from tasks.suites import MAIN

LONGEST = 128  # characters of an id, a group, or an artifact's name that W&B takes
ROW = ("user_id", "interaction_id", "timestamp", "period", "part", "query", "response")
Pseudonym = Callable[[str | None], str]


def experiment_of(params: Params) -> str:
    """The experiment's own name, without that of its suite."""
    return params.experiment if params.suite == MAIN else params.experiment.removesuffix(f"-{params.suite}")


def short(*parts: object) -> str:
    """Parts joined by '-', at most `LONGEST` characters; a cut one ends in a fingerprint of the whole."""
    whole = "-".join(map(str, parts))
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 13]}-{fingerprint(whole)}"


def run_id(params: Params, what: str, shape: str) -> str:
    """The id of a run of `what` (an arm, the comparison, a stage), which `shape` is the fingerprint of."""
    parts = [experiment_of(params), params.suite, params.seed, what, shape]
    readable = "-".join(map(str, parts[:-1])).replace("@", "-")
    return f"{readable[: LONGEST - 16]}-{fingerprint(parts)}"  # leaves room for a number behind it


class Identity:
    """What the numbers of all arms follow from beside their own settings."""

    def __init__(self, params: Params) -> None:
        rows = pl.concat(read_parquet(DATA / f"split/{t}.parquet") for t in params.periods)
        source = json.loads((DATA / "model/source.json").read_text(encoding="utf-8"))
        self.params, self.users, self.interactions = params, rows["user_id"].n_unique(), rows.height
        self._content = content(rows)  # kept here: with it, users' names could be tried
        self.data = fingerprint(["data", self._content])
        exclude = {"memory_gb", "device", "id"}  # of which numbers do not depend
        self.model = {
            "id": params.model.id,
            "digest": source["digest"],
            **params.model.model_dump(mode="json", exclude=exclude),
        }

    def shape(self, arm: str) -> str:
        """The fingerprint of all that one arm's numbers follow from, save the seed."""
        params = self.params
        task = params.prompts.get(params.ingest.task)
        model = {key: value for key, value in self.model.items() if key != "id"}
        return fingerprint([params.arms[arm], self.data, model, task])

    @property
    def comparison(self) -> str:
        """The fingerprint of all arms with how they are compared."""
        params = self.params
        shapes = {arm: self.shape(arm) for arm in params.arms}
        return fingerprint([shapes, params.evaluate.against, params.transfer])

    def pseudonym(self, user: str | None) -> str:
        """What stands for a user in W&B: the same wherever the data are, and no use without them.

        A plain digest of a name could be found by trying names; this one holds all the data besides.
        """
        return "all-users" if user is None else fingerprint([self._content, user])

    def config(self, arm: str) -> dict[str, Any]:
        """One arm's settings at the top level, as params.yaml has them, and what they were run on."""
        settings = plain(self.params.arms[arm].model_dump(mode="json"))
        return {"arm": arm, **self.common(), "fingerprint": self.shape(arm), **settings}

    def common(self) -> dict[str, Any]:
        """What all runs of an experiment have in common."""
        params = self.params
        data = {
            "source": params.ingest.source,
            "fingerprint": self.data,
            "users": self.users,
            "interactions": self.interactions,
            "periods": len(params.periods),
            "hold_out": params.split.hold_out,
        }
        return {
            "experiment": experiment_of(params),
            "suite": params.suite,
            "seed": params.seed,
            "model": self.model,
            "data": data,
        }


def content(rows: pl.DataFrame) -> str:
    """sha256 of interactions, whatever file they were read from."""
    found = hashlib.sha256()
    for row in rows.select(ROW).with_columns(pl.col("timestamp").cast(pl.String)).iter_rows():
        found.update(json.dumps(row).encode())
    return found.hexdigest()


def anonymous(rows: pl.DataFrame, pseudonym: Pseudonym) -> pl.DataFrame:
    """Rows with pseudonyms for users, in an order that tells nothing of their names."""
    names = {user: pseudonym(user) for user in rows["user_id"].unique().to_list()}
    user = pl.col("user_id").replace_strict(names, return_dtype=pl.String).alias("user")
    others = [column for column in rows.columns if column != "user_id"]
    return rows.select(user, *others).sort("user", "period", maintain_order=True)


def plain(value: Any) -> Any:
    """Infinity as a word: W&B draws no axis through it."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, float) and value in (float("inf"), -float("inf")) else value
