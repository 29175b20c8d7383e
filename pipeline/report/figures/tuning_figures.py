"""The landscape that a study saw: what each trial tried, and how well it did."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pipeline.claims.results import TRIAL_COLUMNS, Results
from pipeline.report.figures.style import (
    HERE,
    INK,
    LANDSCAPE,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    Drawn,
    common_legend,
)
from pipeline.report.formatting import several
from pipeline.report.tuning_tables import OBJECTIVES
from pipeline.runtime.escaping import escaped

GOAL = "epochs_to_goal"  # the study of one value, the learning rate
NUMBERS = ["lr", "weight_decay", "value", "epochs"]
SIZE = 110  # of a trial, points squared


def landscape(results: Results, study: str) -> Drawn:
    """Draw learning rate against weight decay, colored by outcome; outcome against rate where that alone was tuned."""
    trials = results.trials[study].reindex(columns=TRIAL_COLUMNS).copy()
    trials[NUMBERS] = trials[NUMBERS].apply(pd.to_numeric, errors="coerce")
    trials = trials[(trials["lr"] > 0) & (trials["state"] != "FAIL")]  # one that was cut off was tried again
    complete = trials[(trials["state"] == "COMPLETE") & trials["value"].notna()]
    if complete.empty:
        return f"no trial of the study {escaped(study)} was completed"
    objective = str(complete["objective"].iloc[0])
    own = results.params.settings(study).train
    best = complete.sort_values("value", kind="stable").iloc[0]
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    alone = objective == GOAL or not (trials["weight_decay"] > 0).all()
    if alone:
        _against_rate(axes, trials, complete, best, own.lr, objective)
    else:
        _map(figure, axes, trials, complete, best, (own.lr, own.weight_decay), objective)
    common_legend(figure, [axes], 5)
    return figure, _caption(study, trials, complete, best, objective, alone)


def _map(
    figure: Figure,
    axes: Axes,
    trials: pd.DataFrame,
    complete: pd.DataFrame,
    best: pd.Series,
    own: tuple[float, float],
    objective: str,
) -> None:
    axes.set_yscale("log")
    axes.set_ylabel("weight decay")
    low, high = float(complete["value"].min()), float(complete["value"].max())
    norm = LogNorm(low, high) if 0 < low < high else None
    _pruned(axes, trials, "weight_decay")
    points = axes.scatter(
        complete["lr"], complete["weight_decay"], c=complete["value"], s=SIZE, cmap=LANDSCAPE, norm=norm,
        edgecolors=INK, linewidths=0.8, label="complete", zorder=3,
    )  # fmt: skip
    axes.plot(
        *own, "D", fillstyle="none", color=PAPER, markersize=15, markeredgewidth=2, label="before tuning", zorder=4
    )
    _circle(axes, float(best["lr"]), float(best["weight_decay"]), float(best["value"]))
    bar = figure.colorbar(points, ax=axes, label=OBJECTIVES.get(objective, objective))
    ticks = list(np.geomspace(low, high, 5)) if norm else [low]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.minorticks_off()
    bar.ax.invert_yaxis()


def _against_rate(
    axes: Axes, trials: pd.DataFrame, complete: pd.DataFrame, best: pd.Series, own: float, objective: str
) -> None:
    axes.set_ylabel(OBJECTIVES.get(objective, objective))
    axes.grid(axis="y")
    _pruned(axes, trials, "value" if objective != GOAL else "epochs")
    reached = complete["value"].map(lambda value: objective != GOAL or float(value).is_integer())
    for mask, marker, label in ((reached, "o", "complete"), (~reached, "x", "ended without getting there")):
        if mask.any():
            chosen = complete[mask]
            axes.scatter(
                chosen["lr"], chosen["value"], s=SIZE, marker=marker, color=HERE, linewidths=2, label=label, zorder=3
            )
    axes.axvline(own, color=PAPER, linewidth=1.6, linestyle="--", zorder=1)
    foot = axes.get_xaxis_transform()
    (mark,) = axes.plot(own, 0, "D", color=PAPER, markersize=10, label="before tuning", zorder=6, transform=foot)
    mark.set_clip_on(False)
    _circle(axes, float(best["lr"]), float(best["value"]), float(best["value"]))
    axes.set_ylim(0, None)


def _pruned(axes: Axes, trials: pd.DataFrame, height: str) -> None:
    """Draw pruned trials as hollow dots where complete ones would stand."""
    chosen = trials[(trials["state"] == "PRUNED") & trials[height].notna()]
    if not chosen.empty:
        axes.scatter(
            chosen["lr"], chosen[height], s=SIZE * 0.7, facecolors="none", edgecolors=MUTED, linewidths=1.5,
            label="pruned", zorder=2,
        )  # fmt: skip


def _circle(axes: Axes, x: float, y: float, value: float) -> None:
    axes.plot(x, y, "o", fillstyle="none", color=INK, markersize=20, markeredgewidth=2, label="best", zorder=5)
    axes.annotate(
        f"{value:.4g}",
        (x, y),
        (0, 14),
        textcoords="offset points",
        ha="center",
        fontsize=SMALL,
        fontweight="bold",
        zorder=6,
    )


def _caption(
    study: str, trials: pd.DataFrame, complete: pd.DataFrame, best: pd.Series, objective: str, alone: bool
) -> str:
    pruned = int((trials["state"] == "PRUNED").sum())
    at = f"{best['lr']:.3g}" if alone else f"{best['lr']:.3g} and a weight decay of {best['weight_decay']:.3g}"
    what = "outcome against learning rate" if alone else "learning rate against weight decay, the darker the better"
    lowest, highest = (f"{value:.4g}" for value in (complete["value"].min(), complete["value"].max()))
    outcome = OBJECTIVES.get(objective, objective)
    beside = f", beside {pruned} pruned (hollow)" if pruned else ""
    return (
        f"What Optuna tried for {escaped(study)}: {what}. In {several(len(complete), 'complete trial')} the outcome "
        f"({outcome}) went from {lowest} to {highest}{beside}. The best (circled) has "
        f"{lowest} at a learning rate of {at}; the values before tuning are marked by a diamond."
    )
