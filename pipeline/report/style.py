"""One look for every figure: text that is readable at half size, colours that every kind of colour vision tells apart.

Nothing is said by colour alone: line styles, shapes, fillings and words say the same.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Side = Literal["outside upper center", "outside lower center"]
Drawn = tuple[Figure, str] | str  # the figure and its caption, or why there is none

WIDTH = 9.0  # inches, of every figure that has no reason to be narrower
DPI = 150
TEXT, SMALL, SMALLEST = 11, 10, 9  # points; at half size 9 are as high as 4.5

# Okabe and Ito's colours
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, MUTED, QUIET, FAINT = "#222222", "#5f5f5f", "#b5b5b5", "#f1f1f1"
HERE, PAPER, WRONG = BLUE, VERMILION, VERMILION
HERE_PALE, PAPER_PALE = "#b9d6ea", "#f6c19b"  # behind text
LANDSCAPE = "cividis"  # of what should be low: dark is better

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "figure.labelsize": TEXT,
    "figure.titlesize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "lines.linewidth": 2.0,
    "lines.markersize": 7,
    "grid.color": QUIET,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.6,
    "axes.axisbelow": True,
    "savefig.dpi": DPI,
}


def applied() -> AbstractContextManager[None]:
    """Figures that are made and painted within look alike, whatever the user's own settings of matplotlib."""
    return matplotlib.style.context(["default", RC])


def common_legend(figure: Figure, panels: Iterable[Axes], columns: int, side: Side = "outside upper center") -> None:
    """One legend beside all panels; what several of them show is named once."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc=side, ncols=columns)


def minus(text: str) -> str:
    """With the typographic sign, as matplotlib writes the numbers of its axes."""
    return text.replace("-", "−")


def several(count: int, one: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
