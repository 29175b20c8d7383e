"""The paper's Figure 1: training error over epochs of the four-layer nets, up to the 25 % that they race for."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.claims.measures import REACHED
from pipeline.claims.results import Results
from pipeline.report.figures.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    SMALL,
    VERMILION,
    WIDTH,
    Drawn,
    common_legend,
    legible,
)
from pipeline.report.formatting import several

RELU, TANH = "four_layer_relu", "four_layer_tanh"
FAMILY = "four_layer_"
LONGEST_TITLE = 48  # characters
BELOW = 7  # points of the axis under the goal
LINES = {"relu": "-", "tanh": "--", "sigmoid": ":"}  # as in the paper
COLORS = {"relu_rate": ORANGE, "framework": GREEN, "unit_inputs": PURPLE}  # how an arm differs from the main two
MAIN_COLORS = {"relu": BLUE, "tanh": VERMILION, "sigmoid": MUTED}


@dataclass(frozen=True)
class Arm:
    """One variant's runs: training error by epoch (rows) and seed (columns), each up to the epoch in which it ended."""

    name: str
    title: str
    errors: pd.DataFrame

    @property
    def median(self) -> pd.Series:
        """Return the median over seeds, up to the goal; a run that ended keeps its last error."""
        middle = self.errors.ffill().median(axis="columns")
        arrived = middle.index[middle <= REACHED]
        return middle.loc[: arrived[0]] if len(arrived) else middle

    @property
    def arrivals(self) -> dict[int, float]:
        """Return by seed the epoch in which it reached the goal; infinity where it ended without."""
        found = {}
        for seed, errors in self.errors.items():
            reached = errors.index[errors <= REACHED]
            found[int(str(seed))] = float(reached[0]) if len(reached) else math.inf
        return found

    @property
    def median_epochs(self) -> tuple[float, bool]:
        """Return the median of the epochs to the goal, and whether it is a bound because that run ended without."""
        median = pd.Series(self.arrivals).median()
        if math.isfinite(median):
            return float(median), False
        ends = self.errors.notna().mul(self.errors.index, axis="index").max()
        return float(np.median(np.minimum(list(self.arrivals.values()), ends))), True

    @property
    def activation(self) -> str:
        return self.name.removeprefix(FAMILY).split("_")[0]

    @property
    def line(self) -> str:
        return LINES.get(self.activation, "-.")

    @property
    def color(self) -> str:
        ending = self.name.removeprefix(f"{FAMILY}{self.activation}").removeprefix("_")
        return COLORS.get(ending) or MAIN_COLORS.get(self.activation, MUTED)


def exists(results: Results) -> bool:
    return {RELU, TANH} <= set(results.params.variants)


def figure1(results: Results) -> Drawn:
    """Draw the two nets of the paper's figure with each of their seeds; beside them the other ways to set the race."""
    histories = results.histories
    arms = [
        Arm(name, variant.title, runs.pivot_table("train_error_top1", "epoch", "seed"))
        for name, variant in results.params.variants.items()
        if name.startswith(FAMILY) and not (runs := histories[histories["variant"] == name]).empty
    ]
    main, others = ([arm for arm in arms if (arm.name in (RELU, TANH)) == is_main] for is_main in (True, False))
    if len(main) < 2:
        return f"{RELU} or {TANH} has no history"
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    panels = figure.subplots(1, 2 if others else 1, sharey=True, squeeze=False).flatten()
    for arm in main:
        _draw(panels[0], arm, thick=True)
    verdict = _ratio(*sorted(main, key=lambda arm: arm.name))
    panels[0].set_title(verdict.replace(" (", "\n("))
    for arm in others:
        _draw(panels[1], arm, thick=False)
    if others:
        panels[1].set_title("the race in other settings")
    for panel in panels:
        panel.axhline(REACHED, color=MUTED, linewidth=1, zorder=1)
        panel.set_xlim(0, None)
        panel.set_xlabel("epoch")
    panels[0].annotate(
        f"{REACHED:g} %", (0, REACHED), (3, -3), xycoords=panels[0].get_yaxis_transform(), textcoords="offset points",
        ha="left", va="top", color=MUTED, fontsize=SMALL,
    )  # fmt: skip
    panels[0].set_ylabel("training error in % (mean over the epoch)")
    panels[0].set_ylim(REACHED - BELOW, None)
    common_legend(figure, panels, 3, "outside lower center")
    return figure, (
        f"Training error over epochs of the four-layer nets, solid with ReLUs and dashed with tanh, up to {REACHED:g} "
        f"%: {verdict}. Thin: each seed; thick: their median; a dot where a run got there, a cross where it ended "
        "without. "
        f"Median epochs: {'; '.join(_told(arm) for arm in arms)}."
    )


def _ratio(relu: Arm, tanh: Arm) -> str:
    """Return tanh's epochs over ReLU's in words, as far as they are known."""
    (fast, fast_is_bound), (slow, slow_is_bound) = relu.median_epochs, tanh.median_epochs
    if fast_is_bound and slow_is_bound:
        return f"neither median run reached {REACHED:g} %"
    bound = "at least " if slow_is_bound else "at most " if fast_is_bound else ""
    return f"tanh takes {bound}{slow / fast:.1f} times ReLU's epochs (medians {slow:g} and {fast:g})"


def _told(arm: Arm) -> str:
    epochs, is_bound = arm.median_epochs
    late = sum(map(math.isinf, arm.arrivals.values()))
    never = f" ({late} of {several(len(arm.arrivals), 'seed')} never)" if late else ""
    return f"{arm.name} {'over ' if is_bound else ''}{epochs:g}{never}"


def _draw(panel: Axes, arm: Arm, thick: bool) -> None:
    """Draw the median, and each seed up to where it got there (a dot) or ended without (a cross)."""
    title = legible(arm.title.removeprefix("four layers, ").replace("relu", "ReLU", 1), LONGEST_TITLE, arm.name)
    label = title.lstrip("_") or arm.name  # matplotlib leaves labels out that begin with an underscore
    median, arrivals = arm.median, arm.arrivals
    panel.plot(median.index, median, arm.line, color=arm.color, linewidth=3 if thick else 1.8, label=label, zorder=3)
    for seed, errors in arm.errors.items():
        known = errors.dropna()
        if known.empty:
            continue
        if thick and len(arrivals) > 1:
            panel.plot(known.index, known, arm.line, color=arm.color, linewidth=1.1, alpha=0.6, zorder=2)
        arrived = math.isfinite(arrivals[int(str(seed))])
        marker, edge, width = ("o", "white", 1.0) if arrived else ("x", arm.color, 2.2)
        panel.plot(
            known.index[-1:], known.iloc[-1:], marker, color=arm.color, markersize=8 if thick else 6,
            markeredgecolor=edge, markeredgewidth=width, clip_on=False, zorder=4,
        )  # fmt: skip
