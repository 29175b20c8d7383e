"""What the study in coverage.py draws from: errors of pairs of nets with a known true effect, as noisy as real runs.

A net errs on an image where a normal latent number falls below the arm's threshold. The number is the sum of the
image's difficulty (shared by all nets), its difficulty to the arm (shared by the arm's seeds), the seed's (shared by
all its images) and a rest: seeds and images are crossed, as in real runs, and the differences have three values. The
shares of the latent variance follow from the moments of the differences, through the bivariate normal distribution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq

from pipeline.claims.crossed import PER_CENT, image_variance, mean_squares

CLOSE_TO_ONE = 1 - 1e-9


@dataclass(frozen=True)
class Setting:
    """What a comparison of two arms looks like. Errors in percent, effects in points."""

    name: str
    control_error: float
    treatment_error: float
    differ: float  # % of the images on which one net of a pair is right and the other wrong
    seed_sd: float  # of the effect of one pair, over seeds, were there images without end
    image_sd: float  # of the mean effect, over choices of `images` images, were there seeds without end
    images: int

    @property
    def truth(self) -> float:
        return self.control_error - self.treatment_error


@dataclass(frozen=True)
class Latent:
    """Two thresholds, and shares of the unit variance of the latent number."""

    control: float
    treatment: float
    image: float
    image_and_arm: float
    seed: float


def fitted(name: str, control: np.ndarray, treatment: np.ndarray) -> Setting:
    """The setting that real runs come from: errors (seeds, images), 0 or 100 %, as of `crossed.errors_by_seed`."""
    differences = control - treatment
    found = mean_squares(differences)
    images = differences.shape[1]
    return Setting(
        name=name,
        control_error=float(control.mean()),
        treatment_error=float(treatment.mean()),
        differ=PER_CENT * float((differences != 0).mean()),
        seed_sd=math.sqrt(max(0.0, found.seeds - found.residual) / images),
        image_sd=math.sqrt(image_variance(differences)),
        images=images,
    )


def draw(setting: Setting, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Control minus treatment: (seeds, images) of -100, 0 or 100 points."""
    latent = latent_of(setting)
    difficulty = _normal(rng, latent.image, 1, setting.images)
    errs = [
        difficulty
        + _normal(rng, latent.image_and_arm, 1, setting.images)
        + _normal(rng, latent.seed, seeds, 1)
        + _normal(rng, 1 - latent.image - latent.image_and_arm - latent.seed, seeds, setting.images)
        < threshold
        for threshold in (latent.control, latent.treatment)
    ]
    differences: np.ndarray = np.float32(PER_CENT) * (errs[0].astype(np.float32) - errs[1].astype(np.float32))
    return differences


@cache
def latent_of(setting: Setting) -> Latent:
    """The latent shares that give the setting's moments."""
    p = np.array([setting.control_error, setting.treatment_error]) / PER_CENT
    control, treatment = (float(z) for z in stats.norm.ppf(p))
    image_variance_of_one = setting.images * (setting.image_sd / PER_CENT) ** 2
    seed_variance = (setting.seed_sd / PER_CENT) ** 2

    def disagreement(share: float) -> float:
        return float(p.sum()) - 2 * both_below(control, treatment, share)

    image = _solve(disagreement, setting.differ / PER_CENT, setting)

    def of_images(share: float) -> float:
        """Covariance of the differences of two seeds on one image."""
        same = both_below(control, control, share) + both_below(treatment, treatment, share)
        return same - 2 * both_below(control, treatment, image) - float(p[0] - p[1]) ** 2

    def of_seeds(share: float) -> float:
        """Covariance of the differences of one pair of nets on two images."""
        return both_below(control, control, share) + both_below(treatment, treatment, share) - float(p @ p)

    image_and_arm = max(0.0, _solve(of_images, image_variance_of_one, setting) - image)
    return Latent(control, treatment, image, image_and_arm, _solve(of_seeds, seed_variance, setting))


@cache
def both_below(a: float, b: float, correlation: float) -> float:
    """P(X < a, Y < b) of standard normals: Plackett (1954), d/dr of it is their density at (a, b)."""

    def density(r: float) -> float:
        return math.exp(-(a * a - 2 * r * a * b + b * b) / (2 * (1 - r * r))) / (2 * math.pi * math.sqrt(1 - r * r))

    return float(stats.norm.cdf(a) * stats.norm.cdf(b)) + float(quad(density, 0, correlation)[0])


def _normal(rng: np.random.Generator, variance: float, *shape: int) -> np.ndarray:
    return np.float32(math.sqrt(variance)) * rng.standard_normal(shape, dtype=np.float32)


def _solve(moment: Callable[[float], float], target: float, setting: Setting) -> float:
    """The share, between 0 and 1, at which the moment has this value."""
    low, high = moment(0.0), moment(CLOSE_TO_ONE)
    if not min(low, high) <= target <= max(low, high):
        raise ValueError(f"{setting}: no latent share gives {target:.3g}, only {low:.3g} to {high:.3g} can be had")
    return float(brentq(lambda share: moment(share) - target, 0.0, CLOSE_TO_ONE))
