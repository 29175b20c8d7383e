"""What tuning tried, and whether it paid."""

import pandas as pd

from pipeline.claims.results import TRIAL_COLUMNS, Results
from pipeline.claims.table import Row
from pipeline.report.formatting import NOTHING, between, markdown, number, signed

OBJECTIVES = {"val_error_top1": "last validation error, %", "epochs_to_goal": "epochs to 25 % training error"}


def trials(results: Results, study: str) -> str:
    """Return every trial of the study. One that was cut off was tried again, and is left out."""
    table = results.trials[study].reindex(columns=TRIAL_COLUMNS).sort_values("number", kind="stable")
    table = table[table["state"] != "FAIL"]
    if table.empty:
        return "No trials are made at this scale: the paper's values are taken over."
    objective = str(table["objective"].iloc[0])
    value = OBJECTIVES.get(objective, objective)
    shown = pd.DataFrame(
        {
            "trial": [str(number) for number in range(len(table))],
            "state": table["state"],
            "learning rate": [_short(value) for value in table["lr"]],
            "weight decay": [_short(value) for value in table["weight_decay"]],
            value: [
                _value(objective, state, value) for state, value in zip(table["state"], table["value"], strict=True)
            ],
            "epochs": [number(value, 0) for value in pd.to_numeric(table["epochs"], errors="coerce")],
        }
    )
    if objective == "epochs_to_goal":
        shown = shown.drop(columns="weight decay")
    return markdown(shown, numbers=("trial", "learning rate", "weight decay", value, "epochs"))


def best(results: Results, study: str) -> str:
    """Return what the study chose, in words; nothing where it could not be read."""
    chosen = results.chosen.get(study, {})
    train = results.params.settings(study).train
    named = [f"{name} = {value:.3g} (instead of {getattr(train, name):.3g})" for name, value in sorted(chosen.items())]
    return f", the best with {', '.join(named)}" if named else ""


def answer(results: Results, rows: list[Row]) -> str:
    """Return whether the tuned values beat the paper's on the test images; nothing where that is not asked."""
    row = next((row for row in rows if row.id == "tuned_vs_paper"), None)
    if row is None:
        return ""
    chosen = results.chosen.get("baseline", {})
    if chosen and all(getattr(results.params.train, name) == value for name, value in chosen.items()):
        return "No trial did better than the baseline's own values, so that `tuned` is the baseline once more."
    if row.effect.mean is None:
        return f"There is no answer here: {row.verdict.reason}."
    interval = between(row.effect.low, row.effect.high)
    figures = f"{signed(row.effect.mean)} points, 95 % interval {interval}, {row.effect.n} pairs"
    if row.verdict.word != "differs":
        return f"On the test images no difference was seen between the tuned and the paper's values ({figures})."
    beaten = "beat" if row.effect.mean > 0 else "did not beat"
    return f"On the test images the tuned values {beaten} the paper's ({figures}; positive: tuning gains)."


def _value(objective: str, state: str, value: object) -> str:
    """Return a trial's outcome, or that it ended without its goal."""
    known = float(str(value)) if str(value) not in ("", "nan") else None
    if objective == "epochs_to_goal":
        return f"{known:.0f}" if known and state == "COMPLETE" and known.is_integer() else "not reached"
    return number(known)


def _short(value: object) -> str:
    try:
        text = f"{float(str(value)):.3g}"
    except ValueError:
        return NOTHING
    return NOTHING if text == "nan" else text
