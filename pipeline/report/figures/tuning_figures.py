"""The landscape that a study saw: what each trial tried, and how well it did."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline import paths
from pipeline.claims.results import TRIAL_COLUMNS, Results, missing_file
from pipeline.report.figures.style import (
    HERE,
    INK,
    LANDSCAPE,
    LATER,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    Drawn,
    common_legend,
    log_x,
)
from pipeline.report.formatting import several
from pipeline.report.tuning_tables import OBJECTIVES
from pipeline.runtime.checksums import damage
from pipeline.runtime.escaping import escaped

GOAL = "epochs_to_goal"  # the study of one value, the learning rate
NUMBERS = ["lr", "weight_decay", "value", "epochs"]
TUNED = {"lr": "learning rate", "weight_decay": "weight decay"}
SLICED = 8  # complete trials, from which on each value is looked at by itself
SIZE = 110  # of a trial, points squared


def landscape(results: Results, study: str) -> Drawn:
    """Draw learning rate against weight decay, colored by outcome; outcome against rate where that alone was tuned."""
    trials, complete = _trials(results, study)
    if complete.empty:
        return f"no trial of the study {escaped(study)} was completed"
    objective = str(complete["objective"].iloc[0])
    own = results.params.settings(study).train
    best = complete.sort_values("value", kind="stable").iloc[0]
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    log_x(axes, TUNED["lr"])
    alone = objective == GOAL or not (trials["weight_decay"] > 0).all()
    if alone:
        _against_rate(axes, trials, complete, best, own.lr, objective)
    else:
        _map(figure, axes, trials, complete, best, (own.lr, own.weight_decay), objective)
    common_legend(figure, [axes], 5)
    return figure, _caption(study, trials, complete, best, objective, alone)


def can_be_sliced(results: Results, study: str) -> bool:
    """Return whether several values were tuned, in trials enough to look at each by itself."""
    _, complete = _trials(results, study)
    return len(complete) >= SLICED and bool((complete["weight_decay"] > 0).all())


def slices(results: Results, study: str) -> Drawn:
    """Draw the outcome against each tuned value, and beside them how much each decides, where the study says so."""
    _, complete = _trials(results, study)
    objective = str(complete["objective"].iloc[0])
    shares = _shares(results, study)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2 + bool(shares))
    for panel, (name, label) in zip(panels, TUNED.items(), strict=False):
        panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.grid(axis="y")
        points = panel.scatter(
            complete[name], complete["value"], c=complete["number"], s=SIZE, cmap=LATER, edgecolors=INK, linewidths=0.8,
            zorder=3,
        )  # fmt: skip
    log_x(panels[0], TUNED["lr"])
    panels[0].set_ylabel(OBJECTIVES.get(objective, objective))
    panels[1].sharey(panels[0])
    figure.colorbar(points, ax=panels[:2], label="trial", ticks=MaxNLocator(integer=True))
    if shares:
        panels[2].barh([TUNED[name] for name in shares], list(shares.values()), color=HERE)
        panels[2].invert_yaxis()
        panels[2].set_xlim(0, 1)
        panels[2].set_xlabel("importance")
    deciding = "; ".join(f"{TUNED[name]} {share:.2f}" for name, share in shares.items())
    return figure, (
        f"Each value that Optuna tuned for {escaped(study)} by itself: the outcome "
        f"({OBJECTIVES.get(objective, objective)}) of {several(len(complete), 'complete trial')}, the darker the later."
        + (f" Importance, as shares by PED-ANOVA: {deciding}." if shares else "")
    )


def _trials(results: Results, study: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all trials but those that were cut off, which were tried again; and of these the complete ones."""
    trials = results.trials[study].reindex(columns=TRIAL_COLUMNS).copy()
    trials[NUMBERS] = trials[NUMBERS].apply(pd.to_numeric, errors="coerce")
    trials = trials[(trials["lr"] > 0) & (trials["state"] != "FAIL")]
    return trials, trials[(trials["state"] == "COMPLETE") & trials["value"].notna()]


def _shares(results: Results, study: str) -> dict[str, float]:
    """Return how much each tuned value decides, the most first; nothing where the study had too few trials to say."""
    path = results.root / paths.tune(results.params.scale, study) / "importance.csv"
    if not path.exists():
        return {}
    if damage(path):
        results.missing.append(missing_file(path, results.root))
        return {}
    return {str(name): float(share) for name, share in pd.read_csv(path).to_numpy()}


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
