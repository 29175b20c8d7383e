"""One look for every figure: text that is readable at half size, colors that every kind of color vision tells apart.

Nothing is said by color alone: line styles, shapes, fillings and words say the same.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache
from typing import Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from pipeline.runtime.escaping import cut, one_line

Side = Literal["outside upper center", "outside lower center"]
Drawn = tuple[Figure, str] | str  # the figure and its caption, or why there is none

WIDTH = 9.0  # inches, of every figure that has no reason to be narrower
DPI = 150
TEXT, SMALL, SMALLEST = 11, 10, 9  # points; at half size 9 are as high as 4.5

# Okabe and Ito's colors
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, MUTED, QUIET, FAINT = "#222222", "#5f5f5f", "#b5b5b5", "#f1f1f1"
HERE, PAPER, WRONG = BLUE, VERMILION, VERMILION
HERE_PALE, PAPER_PALE = "#b9d6ea", "#f6c19b"  # behind text
LANDSCAPE = "cividis"  # of what should be low: dark is better
LATER = "cividis_r"  # of what comes one after another: dark is later

FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine
RC = {
    "font.family": FONT,
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
    """Return a context in which all figures look alike, whatever the user's own settings of matplotlib."""
    return matplotlib.style.context(["default", RC])


def common_legend(figure: Figure, panels: Iterable[Axes], columns: int, side: Side = "outside upper center") -> None:
    """Draw one legend beside all panels, in which what several of them show is named once."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(list(handles.values()), list(handles), loc=side, ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)


def log_x(axes: Axes, label: str) -> None:
    """Let the horizontal axis be logarithmic over a decade or two, with numbers such as 0.01, 0.02, 0.05."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    """Fill the panel with an image: height, width, one or three channels."""
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")


def legible(text: str, width: int, otherwise: str) -> str:
    """Return text from outside in one line, cut in the middle; `otherwise` if the font lacks one of its letters.

    The caller draws it with parse_math=False: dollars, carets and underscores are letters.
    """
    line = cut(one_line(text), width)
    return line if all(ord(letter) in _letters() for letter in line) else otherwise


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def minus(text: str) -> str:
    """Return the text with the typographic minus, as matplotlib writes the numbers of its axes."""
    return text.replace("-", "−")
