"""Where and when the report's runs ran: all that may change when the same code runs again."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from pipeline.claims.results import Results
from pipeline.report.formatting import markdown, number
from pipeline.runtime.escaping import escaped
from pipeline.runtime.git import revision

PACKAGES = (
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
    "matplotlib",
    "pytorch-lightning",
    "optuna",
    "mlflow",
    "dvc",
)


def provenance(results: Results) -> str:
    """Return the page provenance.md."""
    parts = [
        f"# Where the runs of `{results.params.scale}` ran",
        "What this page says may change when the same code runs again; the other files of this folder do not.",
        f"Report made from revision `{revision(results.root) or 'unknown'}` with Python {sys.version.split()[0]}.",
        "## Machines",
        _machines(results),
        "## Wall time by run",
        _times(results),
        "## Versions that made the report",
        markdown(pd.DataFrame([{"package": name, "version": _version(name)} for name in PACKAGES])),
    ]
    trials = pd.concat(results.trials.values()) if results.trials else pd.DataFrame()
    if "seconds" in trials and not trials.empty:
        seconds = pd.to_numeric(trials["seconds"], errors="coerce").sum()
        parts += ["## Tuning", f"{len(trials)} trials took {number(seconds, 0)} s together."]
    return "\n\n".join(parts) + "\n"


def _machines(results: Results) -> str:
    if "where" not in results.runs:
        return "*no run says where it ran*"
    machines = [
        ", ".join(f"{key} {value}" for key, value in sorted(where.items()))
        if isinstance(where, dict)
        else json.dumps(where)
        for where in results.runs["where"]
    ]
    runs = results.runs.assign(where=list(map(escaped, machines)))
    if len(set(runs["where"])) == 1:
        return f"All runs ran on the same kind of machine:\n\n- {runs['where'].iloc[0]}: {len(runs)} runs"
    lines = ["**The runs of this report's tables ran on unlike machines:**", ""]
    for where, group in runs.groupby("where", sort=True):
        lines.append(f"- {where}: {', '.join(f'{run.variant} seed {run.seed}' for run in group.itertuples())}")
    return "\n".join(lines)


def _times(results: Results) -> str:
    shown = ["variant", "seed", "status", "epochs", "stopped", "seconds", "images_per_second", "fingerprint"]
    runs = results.runs.reindex(columns=shown)
    if runs.empty:
        return "*no runs*"
    seconds = pd.to_numeric(runs["seconds"], errors="coerce")
    table = runs.assign(
        seconds=[number(value, 0) for value in seconds],
        images_per_second=[number(value, 0) for value in pd.to_numeric(runs["images_per_second"], errors="coerce")],
        fingerprint=[escaped(str(value)[:12]) for value in runs["fingerprint"]],
        **{name: runs[name].map(escaped, na_action="ignore") for name in ("variant", "status", "stopped")},
    )
    numbers = ("seed", "epochs", "seconds", "images_per_second")
    return f"{markdown(table, numbers)}\n\nAll runs together: {number(seconds.sum() / 60, 1)} minutes of training."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
