"""Numbers and tables as Markdown."""

import math
from collections.abc import Collection

import pandas as pd

from pipeline.claims.effects import Interval

NOTHING = "–"


def markdown(frame: pd.DataFrame, numbers: Collection[str] = ()) -> str:
    """Return the frame as a Markdown table, with the columns named in `numbers` aligned right."""
    if frame.empty:
        return "*none*"
    cells = frame.astype(object).where(frame.notna(), NOTHING).astype(str)
    cells = cells.map(_cell).rename(columns=_cell)
    text: str = cells.to_markdown(
        index=False,
        disable_numparse=True,
        colalign=["right" if column in numbers else "left" for column in frame.columns],
    )
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: float | None, decimals: int = 2) -> str:
    """Return the number with thousands apart, and without a sign before a zero."""
    if value is None or pd.isna(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def signed(value: float | None, decimals: int = 2) -> str:
    text = number(value, decimals)
    return f"+{text}" if value is not None and not pd.isna(value) and value > 0 and text.strip("0.,") else text


def with_interval(interval: Interval) -> str:
    """Return `mean ± half-width (n seeds)`."""
    if interval.mean is None:
        return NOTHING
    seeds = "1 seed" if interval.n == 1 else f"{interval.n} seeds"
    if interval.half_width is None:
        return f"{number(interval.mean)} ({seeds}, no interval)"
    return f"{number(interval.mean)} ± {number(interval.half_width)} ({seeds})"


def between(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None or pd.isna(low) else f"[{number(low)}, {number(high)}]"


def either(top1: float | None, top5: float | None) -> str:
    """Return two errors as the paper writes them: `top-1 / top-5`, with one decimal."""
    texts = [NOTHING if value is None else f"{value:.1f}" for value in (top1, top5)]
    return " / ".join(texts)
