import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.coverage import (
    BOOTSTRAP,
    COLUMNS,
    HALF_WIDTHS,
    IN_USE,
    LEAST,
    MOST,
    SEEDS,
    SETTINGS,
    SIMULATIONS,
    TABLE,
    Pigeonhole,
    holding,
    simulate,
)
from benchmarks.simulation import Setting, both_below, draw, fitted, latent_of
from pipeline.claims.crossed import mean_squares
from pipeline.claims.margins import half_width

FEW = 300
KEY = ["method", "setting", "seeds"]


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parents[1] / TABLE)


def binomial_sd(p: "pd.Series[float] | float", n: int) -> "pd.Series[float] | float":
    return (p * (1 - p) / n) ** 0.5


def test_the_committed_table_has_every_cell(committed: pd.DataFrame) -> None:
    assert list(committed.columns) == COLUMNS
    cells = {(method, s.name, n) for method in [*HALF_WIDTHS, BOOTSTRAP] for s in SETTINGS for n in SEEDS}
    assert set(committed[KEY].itertuples(index=False, name=None)) == cells
    assert (committed["simulations"] == SIMULATIONS).all()


def test_the_method_in_use_is_the_narrowest_that_holds(committed: pd.DataFrame) -> None:
    assert holding(committed)[0] == IN_USE


def test_a_method_holds_where_it_covers_enough_and_not_too_much_at_most_seeds() -> None:
    cells = [("wide", 3, 0.99, 9.0), ("wide", 10, 0.98, 5.0), ("good", 3, 0.94, 4.0), ("good", 10, 0.975, 3.0)]
    cells += [("better", 3, 0.99, 3.0), ("better", 10, 0.95, 3.0), ("narrow", 3, 0.92, 1.0), ("narrow", 10, 0.95, 1.0)]
    cells += [("at the edge", 3, 0.93, 2.0), ("at the edge", 10, 0.95, 2.0)]
    table = pd.DataFrame(cells, columns=["method", "seeds", "coverage", "mean_width"]).assign(simulations=2000)
    assert holding(table) == ["better", "good"]


def test_fewer_simulations_give_the_committed_coverage_again(committed: pd.DataFrame) -> None:
    """All cells within 4 standard deviations of the difference of two shares; the method in use holds within 3."""
    again = simulate(simulations=FEW, resamples=0)
    both = again.merge(committed, on=KEY, suffixes=("", "_committed"))
    assert len(both) == len(HALF_WIDTHS) * len(SETTINGS) * len(SEEDS)
    assert both["mean_width"].to_numpy() == pytest.approx(both["mean_width_committed"].to_numpy(), rel=0.1)
    p = both["coverage_committed"].clip(0.5, 1 - 1 / FEW)
    allowed = 4 * np.hypot(binomial_sd(p, FEW), binomial_sd(p, SIMULATIONS))
    assert ((both["coverage"] - both["coverage_committed"]).abs() < allowed).all()
    used = both[both["method"] == IN_USE]
    assert (used["coverage"] > LEAST - 3 * binomial_sd(LEAST, FEW)).all()
    assert (used["coverage"][used["seeds"] == max(SEEDS)] < MOST + 2 * binomial_sd(MOST, FEW)).all()


def test_the_seeds_alone_do_not_hold(committed: pd.DataFrame) -> None:
    assert "seeds alone" not in holding(committed)


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0])
def test_the_method_in_use_holds_at_any_ratio_of_the_images_part_to_the_seeds_part(n: int, ratio: float) -> None:
    """Normal effects; within 3 standard deviations of a share of 500."""
    rng = np.random.default_rng(9)
    errors = rng.normal(0, math.sqrt(1 + ratio), 500)
    spreads = np.sqrt(n * rng.chisquare(n - 1, 500) / (n - 1))
    covered = np.mean([abs(e) <= half_width(n, sd, ratio) for e, sd in zip(errors, spreads, strict=True)])
    assert covered > LEAST - 3 * float(binomial_sd(LEAST, 500))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_draws_have_the_settings_true_effect_and_variances(setting: Setting) -> None:
    """Moments averaged over 60 draws of 10 seeds; fewer images with the same ratios in the variance of their mean."""
    small = replace(setting, images=2000, image_sd=setting.image_sd * math.sqrt(setting.images / 2000))
    rng = np.random.default_rng(10)
    drawn = [draw(small, 10, rng) for _ in range(60)]
    assert {-100.0, 0.0, 100.0} == set(np.unique(drawn[0]))
    sd = math.sqrt(small.seed_sd**2 / 10 + small.image_sd**2 + 0.12 * 100**2 / 2000 / 10)
    assert np.mean(drawn) == pytest.approx(small.truth, abs=3 * sd / math.sqrt(60))
    found = [fitted("", one, np.zeros_like(one)) for one in drawn]
    assert np.mean([f.differ for f in found]) == pytest.approx(small.differ, rel=0.02)
    assert np.mean([f.image_sd**2 for f in found]) == pytest.approx(small.image_sd**2, rel=0.05)
    squares = [mean_squares(one) for one in drawn]  # their difference, unlike a fitted variance, may be negative
    of_seeds, residual = np.mean([s.seeds for s in squares]) / 2000, np.mean([s.residual for s in squares]) / 2000
    seeds_sd = stats.chi2(9).std() / 9 / math.sqrt(60)  # of the mean of 60 variances over 10 seeds, relative
    allowed = 3.5 * seeds_sd * (small.seed_sd**2 + residual) + 0.05 * small.seed_sd**2
    assert of_seeds - residual == pytest.approx(small.seed_sd**2, abs=allowed)


def test_latent_shares_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ValueError, match="no latent share gives"):
        latent_of(replace(SETTINGS[0], image_sd=2.0))


@pytest.mark.parametrize(("a", "b", "correlation"), [(-0.84, -0.7, 0.86), (0.3, -1.0, 0.2), (-0.8, -0.8, 0.999)])
def test_both_below_is_scipys_bivariate_normal(a: float, b: float, correlation: float) -> None:
    expected = stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([a, b])
    assert both_below(a, b, correlation) == pytest.approx(float(expected), abs=1e-6)


def test_where_all_seeds_agree_the_pigeonhole_bootstrap_is_the_plain_one() -> None:
    rng = np.random.default_rng(11)
    image_effects = rng.normal(3, 2, 400)
    plain = stats.bootstrap((image_effects,), np.mean, method="percentile", n_resamples=4000, rng=rng)
    pigeonhole = Pigeonhole(400, 4000, rng).intervals(np.tile(image_effects, (max(SEEDS), 1)))
    for _, _, low, high in pigeonhole:
        assert (low, high) == pytest.approx(tuple(plain.confidence_interval), abs=0.02)
