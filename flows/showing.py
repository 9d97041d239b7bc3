"""What a run shows on its page: a table first, the drawings, and a link to the report.

The server's page also serves files (`server.ui.static_directory` in prefect.toml). A finished run puts a copy
of its report into `.prefect/reports/RUN/`, which later runs leave as it is; the page has it as
/reports/RUN/report.html.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.settings import get_current_settings

HEADLINE = {"logp_per_token": "log-likelihood per token", "rouge1": "ROUGE-1"}
FIRST = ("paired", "arms")  # of the tables: differences, then means


def name_of_folder() -> str:
    """The name of this run, as that of a folder."""
    return re.sub(r"[^\w.-]", "-", flow_run.get_name() or "run")


def copy_report(name: str, *sources: Path) -> Path:
    """Copies files, and what is in folders, to `.prefect/reports/NAME`, and says where that is."""
    target = get_current_settings().home / "reports" / name
    target.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target / source.name)
    return target


def serve_reports() -> None:
    """Lays all reports beside the page's own files, which a new version of Prefect makes anew."""
    kept, page = get_current_settings().home / "reports", get_current_settings().server.ui.static_directory
    if not page or not kept.exists():
        return
    for path in (path for path in kept.rglob("*") if path.is_file()):
        served = Path(page) / "v1/reports" / path.relative_to(kept)
        served.parent.mkdir(parents=True, exist_ok=True)
        served.unlink(missing_ok=True)
        os.link(path, served)


def show(report: Path, name: str, *, seeds: list[int]) -> None:
    """The artifacts of a run whose report was copied: `summary` and `tables`."""
    serve_reports()
    at = f"/reports/{name}"
    links = [f"[Open the report]({at}/report.html)"] if (report / "report.html").exists() else []
    links += [f"[seed {seed}]({at}/seed-{seed}/report.html)" for seed in seeds if len(seeds) > 1]
    drawings = [f"![{path.stem}]({at}/plots/{path.name})" for path in sorted(report.glob("plots/*.svg"))]
    create_markdown_artifact(
        "\n\n".join([" · ".join(links), headline(report), *drawings]),
        key="summary",
        description="Differences, drawings, and the report",
    )
    tables = {path.stem: path.read_text(encoding="utf-8").strip() for path in report.glob("tables/*.md")}
    order = sorted(tables, key=lambda table: (FIRST.index(table) if table in FIRST else len(FIRST), table))
    create_markdown_artifact(
        "\n\n".join(tables[table] for table in order), key="tables", description="All tables of the report"
    )


def headline(report: Path) -> str:
    """How much every arm leads, best first, in the two metrics that count most."""
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    paired: dict[str, dict[str, Any]] = metrics["paired"]
    first, *_ = HEADLINE
    arms = sorted(paired, key=lambda arm: paired[arm][first]["difference"], reverse=True)
    heads = ["arm", *HEADLINE.values()]
    rows = [[arm, *(difference(paired[arm][metric]) for metric in HEADLINE)] for arm in arms]
    lines = [heads, ["---", *["---:"] * len(HEADLINE)], *rows]
    seeds = ", ".join(map(str, metrics.get("seeds") or [metrics["seed"]]))
    return (
        f"**Differences from {metrics['against']}** ({metrics['users']} users, seed {seeds}; intervals over "
        f"users)\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
    )


def difference(found: dict[str, Any]) -> str:
    """A difference with its interval."""
    text = f"{found['difference']:+.3f}"
    if found["low"] is None:
        return text
    return f"{text} [{found['low']:+.3f}, {found['high']:+.3f}]"
