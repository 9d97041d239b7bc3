"""A workspace of W&B for the suite at hand; `python -m tasks.tracking.workspace` saves it.

Runs are grouped by arm, so that seeds average by themselves: arms over periods, quality over cost,
differences, learning curves, and parallel coordinates over the settings in which the arms differ. It holds no
numbers: it is saved once, before or after the runs, and shows whatever runs the suite has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spring.settings.params import ParameterError, Params
from tasks.params import load_params
from tasks.reporting.names import METRIC_NAMES, is_headline
from tasks.tracking.naming import experiment_of, plain

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

MOST_AXES = 8  # settings of a parallel coordinates plot
INSTALL = "the package wandb-workspaces is missing: pip install -c constraints.txt -e '.[wandb]'"
MEAN: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}  # over seeds


def main() -> None:
    """Saves the workspace for the parameters at hand."""
    import wandb

    try:
        params = load_params()
        api = wandb.Api(timeout=params.tracking.init_timeout)
        print(workspace(params, params.tracking.entity or str(api.default_entity)).save().url)
    except ParameterError as error:
        sys.exit(f"error: {error}")
    except ImportError:
        sys.exit(f"error: {INSTALL}")
    except wandb.errors.Error as error:
        sys.exit(f"error: W&B took no workspace (`wandb login` first?): {error}")


def workspace(params: Params, entity: str) -> ws.Workspace:
    """The workspace of one suite of an experiment."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    filters = [
        expr.Metric("Group") == params.suite,
        expr.Metric("JobType") == experiment_of(params),  # neither comparisons nor stages
    ]
    return ws.Workspace(
        entity=entity,
        project=params.tracking.project,
        name=f"{experiment_of(params)}, suite {params.suite}",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections(params).items()
        ],
        runset_settings=ws.RunsetSettings(
            filters=filters,
            groupby=[expr.Config("arm")],
            pinned_columns=["run:displayName", *(f"summary:{metric}/mean" for metric in headlines())],
        ),
    )


def sections(params: Params) -> dict[str, list[Any]]:
    """Panels by section."""
    import wandb_workspaces.reports.v2 as wr

    titles, arm = headlines(), wr.Config("arm")
    periods = [
        wr.LinePlot(title=title, x="period", y=[f"by_period/{metric}/mean"], groupby=arm, **MEAN)
        for metric, title in titles.items()
    ]
    cost = [
        wr.ScatterPlot(
            title=f"{title} over seconds",
            x=wr.SummaryMetric("cost/seconds"),
            y=wr.SummaryMetric(f"{metric}/mean"),
            log_x=True,
        )
        for metric, title in titles.items()
    ]
    against = params.evaluate.against
    differences = [
        wr.BarPlot(
            title=f"{title}: difference from {against}",
            metrics=[wr.SummaryMetric(f"{metric}/difference")],
            groupby=arm,
            **MEAN,
        )
        for metric, title in titles.items()
    ]
    curves = wr.LinePlot(title="Training loss", x="train/step", y=["train/loss"], groupby=arm, **MEAN)
    return {
        "Arms over periods": periods,
        "Quality over cost": cost,
        "Differences": differences,
        "What arms differ in": [
            wr.ParallelCoordinatesPlot(title="Settings and quality", columns=axes(params))
        ],
        "Learning curves": [curves],
    }


def axes(params: Params) -> list[Any]:
    """The settings in which arms differ, what they cost, and the likelihood."""
    import wandb_workspaces.reports.v2 as wr

    column = wr.ParallelCoordinatesPlotColumn
    chosen = [column(wr.Config(key), display_name=key) for key in ["arm", *varied(params)][: MOST_AXES + 1]]
    cost = column(wr.SummaryMetric("cost/seconds"), display_name="seconds", log=True)
    quality = "logp_per_token"
    return [*chosen, cost, column(wr.SummaryMetric(f"{quality}/mean"), display_name=METRIC_NAMES[quality])]


def varied(params: Params) -> list[str]:
    """Settings that at least two arms have, not all alike, by their place in the config: `decode.lmbda`."""
    arms = [dict(flat(plain(arm.model_dump(mode="json")))) for arm in params.arms.values()]
    keys = dict.fromkeys(key for arm in arms for key in arm)
    values = {key: [arm[key] for arm in arms if key in arm] for key in keys}
    return [key for key, found in values.items() if len(found) > 1 and len(set(map(str, found))) > 1]


def flat(tree: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """(place, value) of everything that is set; blocks that are off have no settings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{place}{key}.")
        elif value is not None and not isinstance(value, list):
            yield f"{place}{key}", value


def headlines() -> dict[str, str]:
    """Metric -> title of what is drawn."""
    return {metric: title for metric, title in METRIC_NAMES.items() if is_headline(metric)}


if __name__ == "__main__":
    main()
