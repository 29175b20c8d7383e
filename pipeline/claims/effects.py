"""What an ingredient gains, where each seed gives one number: paired over seeds, adjusted for the number of tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from pipeline.claims.margins import LEVEL as LEVEL
from pipeline.claims.margins import half_width


@dataclass(frozen=True)
class Interval:
    """Mean over seeds and its 95 % interval. No mean without a value, no interval with fewer than two."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Censored:
    """Pairs of which a side never got to what is counted within the epochs it was trained."""

    treatment: int = 0
    control: int = 0
    both: int = 0  # these say nothing and are not among the interval's n


ALL_ARRIVED = Censored()


@dataclass(frozen=True)
class Effect:
    """`interval` is in the unit asked for (points or ratio), `sd` in that of the differences (points or logarithms)."""

    interval: Interval
    sd: float | None
    left_out: int  # pairs with a failed or missing side
    image_variance: float = 0.0  # of the mean, from the choice of test images: the part that seeds do not shrink
    censored: Censored = ALL_ARRIVED


def mean_interval(values: pd.Series) -> Interval:
    """Student's t interval of one number for each seed; NaN: no result."""
    return interval_over_seeds(values.dropna().to_numpy(float))


def interval_over_seeds(values: np.ndarray, image_variance: float = 0.0) -> Interval:
    """`values` (seeds,): one mean for each seed. `image_variance`: of their mean, from the choice of images."""
    n = values.size
    if n == 0:
        return Interval(0)
    mean = float(values.mean())
    if n == 1:
        return Interval(1, mean)
    sd = _spread(values)
    half = half_width(n, sd, image_variance)
    return Interval(n, mean, mean - half, mean + half, sd)


def paired_effect(treatment: pd.Series, control: pd.Series, *, ratio: bool = False) -> Effect:
    """Control minus treatment (or control / treatment), seed by seed. Both are indexed by seed; NaN: no result.

    Ratios are averaged as logarithms.
    """
    pairs = pd.DataFrame({"treatment": treatment, "control": control})
    complete = pairs.dropna()
    logarithm = np.log if ratio else (lambda values: values)
    interval = mean_interval(logarithm(complete["control"]) - logarithm(complete["treatment"]))
    return Effect(exponential(interval) if ratio else interval, interval.sd, len(pairs) - len(complete))


def exponential(interval: Interval) -> Interval:
    """From logarithms back to ratios."""
    mean, low, high = (
        None if value is None else math.exp(value) for value in (interval.mean, interval.low, interval.high)
    )
    return Interval(interval.n, mean, low, high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment over all tests that gave a p; None stays None."""
    known = [p for p in p_values if p is not None]
    if not known:
        return list(p_values)
    adjusted = iter(multipletests(known, method="holm")[1])
    return [None if p is None else float(next(adjusted)) for p in p_values]


def _spread(values: np.ndarray) -> float:
    """Standard deviation; exactly zero where the values differ by rounding only."""
    if np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return 0.0
    return float(values.std(ddof=1))
