"""How far a mean over seeds, and over test images where there are any, may lie from the truth.

Its variance has two parts: that of the seeds, sd² / n, known with n - 1 degrees of freedom only, and that of the
images, known so well from thousands of them that its own are left out. The sum is given the degrees of freedom whose
reciprocal is the mean of both reciprocals, weighted by the parts: n - 1 divided by the seeds' share.

Chosen by simulation (benchmarks/coverage.py, reports/coverage.csv). Of the methods whose 95 % interval covers the truth
at least 93 times in 100 with 3, 5, 8 and 10 seeds (by more than the simulation's standard error), and at most 97.5
times with 10, this one is the narrowest: it covers 94 to 96 times. Satterthwaite (1946) weights by the squared parts:
narrower, and too narrow at 3 seeds, where a seed variance that came out small by chance counts as well known; with the
residual left in, it still is. The mean of the two critical values (Cochran and Cox 1957), to which this is equal to the
first order in the reciprocals, holds too and is wider. A t interval over the seeds alone covers less the more the
images matter, and n - 1 degrees of freedom for the whole cover too much.
"""

import math

from scipy import stats

LEVEL = 0.95


def half_width(n: int, sd: float, image_variance: float = 0.0) -> float:
    """Of the 95 % interval. `sd`: over n seeds, in the mean's unit. `image_variance`: of the mean, in its square."""
    critical = float(stats.t.ppf((1 + LEVEL) / 2, _degrees_of_freedom(n, sd, image_variance)))
    return critical * math.sqrt(sd**2 / n + image_variance)


def p_value(distance: float, n: int, sd: float, image_variance: float = 0.0) -> float:
    """Two-sided, of a true distance of zero where this one was found."""
    variance = sd**2 / n + image_variance
    if variance == 0:
        return 1.0 if abs(distance) < 1e-9 else 0.0
    return float(2 * stats.t.sf(abs(distance) / math.sqrt(variance), _degrees_of_freedom(n, sd, image_variance)))


def p_less(distance: float, n: int, sd: float, image_variance: float = 0.0) -> float:
    """One-sided, of a true distance of zero or more where this one was found."""
    variance = sd**2 / n + image_variance
    if variance == 0:
        return 0.0 if distance < -1e-9 else 1.0
    return float(stats.t.cdf(distance / math.sqrt(variance), _degrees_of_freedom(n, sd, image_variance)))


def _degrees_of_freedom(n: int, sd: float, image_variance: float) -> float:
    seeds_share = sd**2 / n / (sd**2 / n + image_variance) if sd else 0.0
    return (n - 1) / seeds_share if seeds_share else math.inf
