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


def several(count: int, one: str) -> str:
    """Return `1 seed` or `3 seeds`."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def count_of_seeds(seeds: Collection[int], more: Collection[int]) -> str:
    """Return `5 seeds`, or `5 or 8 seeds` where some variants have more."""
    return f"{len(seeds)} or {several(len(seeds) + len(more), 'seed')}" if more else several(len(seeds), "seed")


def with_interval(interval: Interval, decimals: int = 2) -> str:
    """Return `mean ± half-width (n seeds)`."""
    if interval.mean is None:
        return NOTHING
    seeds = several(interval.n, "seed")
    if interval.half_width is None:
        return f"{number(interval.mean, decimals)} ({seeds}, no interval)"
    return f"{number(interval.mean, decimals)} ± {number(interval.half_width, decimals)} ({seeds})"


class Notes:
    """Numbered notes beneath a table, where a column of long texts would make it too wide."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """Return what points a cell to the note: ` (3)`; equal texts share a number, and no text has none."""
        if not text:
            return ""
        if text not in self._texts:
            self._texts.append(text)
        return f" ({self._texts.index(text) + 1})"

    def under(self, table: str) -> str:
        """Return the table with the notes beneath it."""
        return "\n\n".join([table, "\n".join(f"{n}. {text}" for n, text in enumerate(self._texts, 1))]).rstrip()


def between(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None or pd.isna(low) else f"[{number(low)}, {number(high)}]"


def either(top1: float | None, top5: float | None) -> str:
    """Return two errors as the paper writes them: `top-1 / top-5`, with one decimal."""
    texts = [NOTHING if value is None else f"{value:.1f}" for value in (top1, top5)]
    return " / ".join(texts)
