"""Forest plots: one line for each comparison, its effect as a dot with a 95 % interval, numbers and words beside it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from pipeline.claims.effects import Interval
from pipeline.report.figures.style import FAINT, HERE, INK, MUTED, PAPER, SMALL, WIDTH, common_legend, minus
from pipeline.report.formatting import number, signed
from pipeline.runtime.escaping import cut

LINE_INCHES, LONG_LINE_INCHES, FRAME_INCHES, HEAD_INCHES = 0.26, 0.36, 0.85, 0.45
FAR = 5.0  # times as far out as the median line: not drawn to scale, and its effect written
TICKS = (1, 2, 5)  # of each decade
EFFECT_AT, PAIRS_AT, WORD_AT = 48, 88, 102  # points to the right of the axes
LONGEST_NAME = 44  # characters, of a variant or a comparison of two
LONGEST_WORD = 24  # characters of a verdict before it is broken


@dataclass(frozen=True)
class Line:
    name: str
    effect: Interval
    excluded: bool  # no effect is, after Holm's adjustment
    word: str
    paper: float | None = None


@dataclass(frozen=True)
class Panel:
    lines: Sequence[Line]
    label: str
    ratio: bool = False  # on a logarithmic axis, no effect is 1

    @property
    def nothing(self) -> float:
        return 1.0 if self.ratio else 0.0

    def text(self, value: float) -> str:
        return f"{number(value)}×" if self.ratio else minus(signed(value))


def forest(panels: Sequence[Panel]) -> Figure:
    """Draw the panels one above the other."""
    words = [line.word for panel in panels for line in panel.lines]
    inches = LONG_LINE_INCHES if any("\n" in broken(word) for word in words) else LINE_INCHES
    height = HEAD_INCHES + sum(FRAME_INCHES + inches * len(panel.lines) for panel in panels)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[len(panel.lines) for panel in panels])[:, 0]
    for axes, panel in zip(column, panels, strict=True):
        _draw(axes, panel)
    first: Axes = column[0]
    lines = [line for panel in panels for line in panel.lines]
    found = {line.excluded for line in lines if line.effect.mean is not None}
    for filled, label in ((True, "here: an effect is shown"), (False, "here: none is shown")):
        if filled in found:
            first.plot([], [], "-", label=label, **_dot(filled))
    if any(line.paper is not None for line in lines):
        first.plot([], [], label="the paper's figure", **DIAMOND)
    common_legend(figure, [first], 3)
    return figure


def limits(panel: Panel) -> tuple[float, float]:
    """Return the axis' limits: around all lines but those so far out, or so long, that the rest would be points."""
    scale: Callable[[float], float] = math.log if panel.ratio else float
    found = [(line.effect.low, line.effect.mean, line.effect.high) for line in panel.lines]
    ends = [
        [scale(end) for end in line if end is not None and math.isfinite(end) and (end > 0 or not panel.ratio)]
        for line in found
    ]
    reaches = [max(map(abs, values)) for values in ends if values]
    bound = (FAR * median(reaches) or max(reaches)) if reaches else 0.0
    papers = [
        scale(line.paper) for line in panel.lines if line.paper is not None and (line.paper > 0 or not panel.ratio)
    ]
    near = [values for values in ends if values and (max(map(abs, values)) <= bound or panel.ratio)]
    inside = [0.0, *papers, *(value for values in near for value in values)]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low) or 1.0
    return (math.exp(low - margin), math.exp(high + margin)) if panel.ratio else (low - margin, high + margin)


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.ratio:
        axes.set_xscale("log")
    axes.set_xlim(*limits(panel))
    axes.axvline(panel.nothing, color=MUTED, linewidth=1.2, zorder=1)
    for place, line in enumerate(panel.lines):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color=FAINT, linewidth=0, zorder=0)
        _interval(axes, place, line.effect)
        _mean(axes, place, line, panel)
        if line.paper is not None:
            axes.plot([line.paper], [place], **DIAMOND)
        _cells(axes, place, line, panel)
    for at, align, text in ((EFFECT_AT, "right", "effect"), (PAIRS_AT, "right", "pairs"), (WORD_AT, "left", "verdict")):
        axes.annotate(
            text,
            (1, 1),
            (at, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=align,
            color=MUTED,
            fontsize=SMALL,
        )
    axes.set_yticks(range(len(panel.lines)), [cut(line.name, LONGEST_NAME) for line in panel.lines])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", length=0, pad=10)
    axes.set_ylim(len(panel.lines) - 0.5, -0.5)
    axes.set_xlabel(panel.label)
    if panel.ratio:
        left, right = axes.get_xlim()
        decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in TICKS]
        axes.set_xticks([tick for tick in ticks if left <= tick <= right])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_locator(NullLocator())


def _interval(axes: Axes, place: int, effect: Interval) -> None:
    """Draw the interval from end to end, with an arrow where an end lies beyond the axis or nowhere."""
    if effect.low is None or effect.high is None:
        return
    left, right = axes.get_xlim()
    axes.plot(
        [max(effect.low, left), min(effect.high, right)], [place, place], color=HERE, solid_capstyle="butt", zorder=3
    )
    for beyond, edge, marker in ((effect.low < left, left, "<"), (effect.high > right, right, ">")):
        if beyond:
            axes.plot([edge], [place], marker, color=HERE, markersize=8, clip_on=False, zorder=3)


def _mean(axes: Axes, place: int, line: Line, panel: Panel) -> None:
    """Draw a dot, or write the number beside the edge that it lies beyond."""
    mean, (left, right) = line.effect.mean, axes.get_xlim()
    if mean is None:
        return
    if left <= mean <= right:
        axes.plot([mean], [place], zorder=5, **_dot(line.excluded))
        return
    edge, marker, offset, align = (right, ">", -9, "right") if mean > right else (left, "<", 9, "left")
    axes.plot([edge], [place], clip_on=False, zorder=5, **{**_dot(line.excluded), "marker": marker, "markersize": 9})
    axes.annotate(
        panel.text(mean), (edge, place), (offset, 0), textcoords="offset points", ha=align, va="center", fontsize=SMALL,
        color=HERE, fontweight="bold", zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _cells(axes: Axes, place: int, line: Line, panel: Panel) -> None:
    """Write the columns to the right of the axes."""
    effect = "–" if line.effect.mean is None else panel.text(line.effect.mean)
    color = INK if line.excluded else MUTED
    for at, align, text, size in (
        (EFFECT_AT, "right", effect, SMALL),
        (PAIRS_AT, "right", str(line.effect.n), SMALL),
        (WORD_AT, "left", broken(line.word), SMALL),
    ):
        axes.annotate(
            text, (1, place), (at, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha=align, va="center", fontsize=size, color=color, linespacing=1.0, annotation_clip=False,
        )  # fmt: skip


def broken(word: str) -> str:
    """Return the word in two lines where it is long and has a comma."""
    return word.replace(", ", ",\n", 1) if len(word) > LONGEST_WORD else word


def _dot(filled: bool) -> dict[str, Any]:
    return {"marker": "o", "color": HERE, "markerfacecolor": HERE if filled else "white", "markeredgewidth": 1.8}


DIAMOND: dict[str, Any] = {
    "marker": "D",
    "color": PAPER,
    "markersize": 9,
    "markeredgecolor": "white",
    "linestyle": "none",
    "zorder": 4,
}
