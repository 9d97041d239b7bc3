"""Artifacts and their lineage: data -> runs of arms -> adapters; data -> the comparison -> metrics, report.

Data and adapters are references: W&B gets names, sizes and digests, and the bytes stay where they are.
`tracking.adapters: upload` sends the adapters themselves. No artifact names a user; texts are in the report
alone, which is logged where `tracking.log_text` is true.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from spring.settings.params import Params
from tasks.cells.training import CURVE, USES
from tasks.evaluate import METRICS_FILE, arms_by_recipe
from tasks.files import DATA, read_parquet
from tasks.steps.index import read_held, read_index
from tasks.tracking.naming import Identity, anonymous, experiment_of, short

if TYPE_CHECKING:
    import wandb

REPORT = DATA / "report"
DRAWN = (
    "answer",
    "leads",
    "periods",
    "paired",
    "measures",
    "transfer",
    "curves",
    "cost",
)  # that name no user
UNTOLD = {CURVE, USES}  # beside adapters, no part of them


def use_data(run: wandb.Run, params: Params, identity: Identity) -> None:
    """The interactions as an input of a run: digests of their files, no text."""
    import wandb

    name = short(experiment_of(params), "data", f"seed{params.seed}")
    data = wandb.Artifact(name, type="dataset", metadata=identity.common()["data"])
    for period in params.periods:
        data.add_reference((DATA / f"split/{period}.parquet").resolve().as_uri(), name=f"{period}.parquet")
    use(run, data)


def use(run: wandb.Run, artifact: wandb.Artifact) -> None:
    """Declares a new artifact an input of the run.

    What `run.use_artifact` does with a new one, but for waiting until it is sent; offline it refuses to.
    """
    run._log_artifact(artifact, use_after_commit=True)


def log_adapters(run: wandb.Run, params: Params, arm: str, identity: Identity) -> None:
    """An arm's adapters after the last period; arms that share them use those of the first one."""
    recipe = params.arms[arm].recipe
    if recipe is None or params.tracking.adapters is None:
        return
    sharing = arms_by_recipe(params)[recipe]
    adapters = adapters_of(params, sharing, recipe, identity)
    if arm == sharing[0]:
        run.log_artifact(adapters, aliases=["latest", f"period-{max(params.periods)}"])
    else:
        use(run, adapters)


def adapters_of(params: Params, sharing: list[str], recipe: str, identity: Identity) -> wandb.Artifact:
    """The adapters of a recipe after the last period, a folder per user, or where they lie on this machine.

    Of type `lora`, which PEFT loads, with the base model in the metadata as W&B asks for it; of type `model`
    where they lie over shared levels.
    """
    import wandb

    last, train = max(params.periods), params.arms[sharing[0]].train
    assert train is not None, "a recipe is of an arm that learns"
    index = read_index(last).filter(pl.col("recipe") == recipe)
    kind = "lora" if train.experts is None else "model"
    artifact = wandb.Artifact(  # W&B takes one type under a name
        short(experiment_of(params), params.suite, sharing[0], f"seed{params.seed}", kind),
        type=kind,
        description=f"Adapters after period {last}, one folder per user",
        metadata={
            "wandb.base_model": params.model.id,
            "base_model": identity.model,
            "lora": train.lora.model_dump(mode="json"),
            "arms": sharing,
            "recipe": recipe,
            "period": last,
            "adapters": index.height,
            "experiment": experiment_of(params),
            "suite": params.suite,
            "seed": params.seed,
        },
    )
    folder = DATA / f"adapt/{last}"
    if params.tracking.adapters == "upload":
        for user, file, cell in index.select("user_id", "file", "cell").iter_rows():
            add_adapter(artifact, read_held(folder / file, cell), identity.pseudonym(user))
        return artifact
    for file in index["file"].unique().sort():  # it names no user, nor does cells.json
        path = (folder / file).resolve()
        artifact.add_reference(path.as_uri(), name=path.name)
    with artifact.new_file("cells.json", encoding="utf-8") as out:
        rows = index.select("user_id", "file", "cell").iter_rows()
        places = {identity.pseudonym(user): [Path(file).name, cell] for user, file, cell in rows}
        json.dump(places, out, indent=2)
    return artifact


def add_adapter(artifact: wandb.Artifact, files: Mapping[str, bytes], who: str) -> None:
    """A folder of one adapter, without the users that the shared levels of PROPER's name."""
    for name, content in files.items():
        if name in UNTOLD:
            continue
        with artifact.new_file(f"{who}/{name}", mode="wb") as out:
            out.write(unnamed(content) if name.endswith(".json") else content)


def unnamed(described: bytes) -> bytes:
    """What an adapter is, less whose."""
    told: dict[str, Any] = json.loads(described)
    told.pop("users", None)
    return json.dumps(told, indent=2).encode()


def log_results(run: wandb.Run, params: Params, identity: Identity) -> None:
    """Metrics, users under pseudonyms; drawings and, where texts may be sent, the page."""
    import wandb

    about = {"experiment": experiment_of(params), "suite": params.suite, "seed": params.seed}
    about |= {"fingerprint": identity.comparison}
    name = (experiment_of(params), params.suite, f"seed{params.seed}")
    metrics = wandb.Artifact(short(*name, "metrics"), type="metrics", metadata=about)
    metrics.add_file(str(METRICS_FILE), name="metrics.json", skip_cache=True)
    users = anonymous(read_parquet(DATA / "evaluate/users.parquet"), identity.pseudonym)
    with metrics.new_file("users.parquet", mode="wb") as out:
        users.write_parquet(out)
    run.log_artifact(metrics)
    report = wandb.Artifact(short(*name, "report"), type="report", metadata=about)
    for file in shown(params):
        report.add_file(str(file), name=str(file.relative_to(REPORT)), skip_cache=True)
    run.log_artifact(report)


def shown(params: Params) -> list[Path]:
    """The drawings and the page that may be sent: without leave, only what is known to name no user."""
    drawings = sorted((REPORT / "plots").glob("*.svg"))
    if params.tracking.log_text:
        return [*drawings, REPORT / "report.html"]
    return [file for file in drawings if file.stem in DRAWN]
