"""What an ingredient gains: paired over seeds, with a 95 % t interval, and adjusted for the number of tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean over seeds and its 95 % t interval. No mean without a value, no interval with fewer than two."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Effect:
    """`interval` is in the unit asked for (points or ratio), `sd` in that of the differences (points or logarithms)."""

    interval: Interval
    sd: float | None
    p: float | None  # two-sided, against no effect
    left_out: int  # pairs with a failed or missing side


def mean_interval(values: pd.Series) -> Interval:
    known = values.dropna().to_numpy(float)
    if known.size == 0:
        return Interval(0)
    mean = float(known.mean())
    if known.size == 1:
        return Interval(1, mean)
    sd = _spread(known)
    half = float(stats.t.ppf((1 + LEVEL) / 2, known.size - 1)) * sd / math.sqrt(known.size)
    return Interval(known.size, mean, mean - half, mean + half, sd)


def paired_effect(treatment: pd.Series, control: pd.Series, *, ratio: bool = False, limit: float = 0.0) -> Effect:
    """Control minus treatment (or control / treatment), seed by seed. Both are indexed by seed; NaN: no result.

    Ratios are averaged as logarithms. With a `limit`, p is that of a difference as large as the limit, on the nearer
    side, instead of no difference.
    """
    pairs = pd.DataFrame({"treatment": treatment, "control": control})
    complete = pairs.dropna()
    logarithm = np.log if ratio else (lambda values: values)
    differences = logarithm(complete["control"]) - logarithm(complete["treatment"])
    interval = mean_interval(differences)
    no_effect = math.copysign(limit, interval.mean or 0.0)
    return Effect(
        interval=_exponential(interval) if ratio else interval,
        sd=interval.sd,
        p=_p_value(interval, no_effect),
        left_out=len(pairs) - len(complete),
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment over all tests that gave a p; None stays None."""
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if p is None else float(next(adjusted)) for p in p_values]


def pairs_needed(sd: float, half_width: float) -> int:
    """The smallest number of pairs whose interval, at this spread, has a smaller half-width."""

    def suffices(n: int) -> bool:
        return bool(stats.t.ppf((1 + LEVEL) / 2, n - 1) * sd / math.sqrt(n) < half_width)

    low, high = 1, 2
    while not suffices(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _spread(values: np.ndarray) -> float:
    """Standard deviation; exactly zero where the values differ by rounding only."""
    if np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return 0.0
    return float(values.std(ddof=1))


def _p_value(interval: Interval, no_effect: float) -> float | None:
    if interval.mean is None or interval.sd is None:
        return None
    distance = interval.mean - no_effect
    if interval.sd == 0:
        return 1.0 if abs(distance) < 1e-9 else 0.0
    return float(2 * stats.t.sf(abs(distance) / (interval.sd / math.sqrt(interval.n)), interval.n - 1))


def _exponential(interval: Interval) -> Interval:
    mean, low, high = (
        None if value is None else math.exp(value) for value in (interval.mean, interval.low, interval.high)
    )
    return Interval(interval.n, mean, low, high)
