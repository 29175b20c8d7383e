"""What a comparison of two arms comes to: an effect over seeds and images together, or over seeds alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.claims.censored import censored_ratio
from pipeline.claims.crossed import crossed_effect, image_variance
from pipeline.claims.effects import Effect, paired_effect
from pipeline.claims.results import Results
from pipeline.paper.claims import EPOCH_MEASURES, IMAGE_MEASURES, Key, Side

DIVERGENCE = "divergence_from_dropout_nets"
REACHED = 25.0  # % training error (Figure 1)
LEFT_GUESSING = 0.9  # of a guess's error: with so little training error a net has begun to learn
SMOOTH_EPOCHS = 5  # whose mean validation loss is looked at (section 4.2's convergence)
NEAR_LOWEST = 1.05  # of the lowest such loss: a run has converged when it first comes as near
OPEN_END = 0.9  # of the epochs: a run that comes near its lowest loss later may not have converged
SHIFT = 0.125  # of the crop's side (section 6.1's objects off the center)
HALF_LOST = 50.0  # % of the accuracy above chance
SMALL_SHARE = 0.1  # of a variance


class Unequal(Exception):
    """The two arms saw different images."""


@dataclass(frozen=True)
class Measured:
    effect: Effect
    arms: list[float | None]  # means over the pairs: treatment, control
    images: str = "test images"  # of which another choice would move the effect


def compare(results: Results, measure: str, treatment: Side, control: Side, key: Key, limit: bool = False) -> Measured:
    """Control minus treatment, or control / treatment of epochs and divergences. Raises Unequal.

    For a `limit` the two sides are splits of the same nets.
    """
    results = results.of_common_seeds(treatment.variant, control.variant)
    if measure in IMAGE_MEASURES:
        return _on_images(results, measure, treatment, control, key, limit)
    arms = [_by_seed(results, measure, side) for side in (treatment, control)]
    if measure in EPOCH_MEASURES:
        late = [_censored(results, measure, side) for side in (treatment, control)]
        effect = censored_ratio(*arms, treatment_censored=late[0], control_censored=late[1])
        return Measured(effect, _geometric_means(arms))
    if measure == DIVERGENCE:
        return Measured(paired_effect(*arms, ratio=True), _geometric_means(arms))
    return Measured(paired_effect(*arms), _means(arms))


def absolute(results: Results, side: Side, key: Key) -> Measured:
    """An error by itself, in %."""
    errors = results.on_images(side, key)
    effect = crossed_effect([errors])
    return Measured(effect, _means([pd.Series(errors.mean(1))]))


def unmeasured(results: Results, claim: str, side: Side) -> str:
    """Why an analysis gave no number for a claim, if none of the side's nets got one; else empty."""
    seeds = results.analyses.get(side.variant, {}).get("seeds", {}).values() if side.of else []
    reasons = [str(found[claim]["reason"]) for found in seeds if "reason" in found.get(claim, {})]
    return reasons[0] if reasons and len(reasons) == len(seeds) else ""


def _on_images(results: Results, measure: str, treatment: Side, control: Side, key: Key, limit: bool) -> Measured:
    if limit:
        val, test = results.on_images(treatment, key), results.on_images(control, key)
        effect = crossed_effect([test, -val])
        images = _deciding_images({"test": test, "validation": val})
        return Measured(effect, _means([_mean(val), _mean(test)]), images)
    test = _difference(results, treatment, control, key)
    if measure == "error":
        arms = [_mean(results.on_images(side, key)) for side in (treatment, control)]
        return Measured(crossed_effect([test]), _means(arms))
    sides = [(side, side.model_copy(update={"split": "train"})) for side in (treatment, control)]
    train = _difference(results, sides[0][1], sides[1][1], key)
    arms = [_mean(results.on_images(own, key)) - _mean(results.on_images(seen, key)) for own, seen in sides]
    images = _deciding_images({"test": test, "training": train})
    return Measured(crossed_effect([test, -train]), _means(arms), images)


def _deciding_images(splits: dict[str, np.ndarray]) -> str:
    """The splits whose choice of images makes at least a tenth of what images contribute to the variance."""
    complete = np.logical_and.reduce([np.isfinite(values).all(1) for values in splits.values()])
    if complete.sum() < 2:
        return f"{' and '.join(splits)} images"
    variances = {name: image_variance(values[complete]) for name, values in splits.items()}
    named = [name for name, variance in variances.items() if variance >= SMALL_SHARE * sum(variances.values())]
    return f"{' and '.join(named)} images"


def _difference(results: Results, treatment: Side, control: Side, key: Key) -> np.ndarray:
    """(seeds, images), in percentage points."""
    first, second = results.on_images(treatment, key), results.on_images(control, key)
    if first.shape != second.shape and min(first.shape[1], second.shape[1]) > 1:
        raise Unequal(f"{treatment} was asked about {first.shape[1]} images, {control} about {second.shape[1]}")
    difference: np.ndarray = second - first
    return difference


def _mean(errors: np.ndarray) -> pd.Series:
    return pd.Series(errors.mean(1))


def _means(arms: list[pd.Series]) -> list[float | None]:
    """Over the seeds that have every arm."""
    complete = pd.concat(arms, axis=1).dropna()
    return [None if complete.empty else float(complete.iloc[:, column].mean()) for column in range(len(arms))]


def _geometric_means(arms: list[pd.Series]) -> list[float | None]:
    return [None if mean is None else float(np.exp(mean)) for mean in _means([np.log(arm) for arm in arms])]


def _by_seed(results: Results, measure: str, side: Side) -> pd.Series:
    if measure in EPOCH_MEASURES:
        return epochs_to(results, measure, side.variant).fillna(results.run_fact(side.variant, "epochs"))
    found = results.analyses.get(side.variant, {}).get("seeds", {})
    values = {int(seed): _analyzed(numbers, measure, side.of) for seed, numbers in found.items()}
    return pd.Series(values, dtype=float).reindex(results.params.seeds_of(side.variant))


def epochs_to(results: Results, measure: str, variant: str) -> pd.Series:
    """One of EPOCH_MEASURES by seed; NaN where a run did not get there, or there is none."""
    histories = results.histories[results.histories["variant"] == variant]
    if measure == "epochs_to_converge":
        found = {seed: _converged(history) for seed, history in histories.groupby("seed")}
        return pd.Series(found, dtype=float).reindex(results.params.seeds_of(variant))
    goal = REACHED
    if measure == "epochs_to_leave_guessing":
        goal = LEFT_GUESSING * 100 * (1 - 1 / len(results.classes)) if results.classes else float("nan")
    reached = histories[histories["train_error_top1"] <= goal]
    return reached.groupby("seed")["epoch"].min().astype(float).reindex(results.params.seeds_of(variant))


def _converged(history: pd.DataFrame) -> float:
    """The first epoch whose smoothed validation loss is near the run's lowest; NaN where that is close to the end."""
    loss = history.set_index("epoch")["val_loss"].sort_index().rolling(SMOOTH_EPOCHS).mean()
    first = (loss <= NEAR_LOWEST * loss.min()).idxmax()
    return float(first) if first <= OPEN_END * loss.index.max() else float("nan")


def _censored(results: Results, measure: str, side: Side) -> pd.Series:
    """Runs that ended, as planned or by their schedule, before they got there."""
    return epochs_to(results, measure, side.variant).isna() & results.run_fact(side.variant, "epochs").notna()


def _analyzed(found: dict[str, Any], measure: str, of: str) -> float:
    """One number of one seed's analyses, of which less is better: in %, or nats. NaN where it was not measured."""
    try:
        match measure, of:
            case "accuracy_lost_off_center", "moved":
                errors = {shift["share"]: shift["error_top1"] for shift in found["off_centre"]["shifts"]}
                above_chance = found["off_centre"]["chance"] - errors[0]
                return float(100 * (errors[SHIFT] - errors[0]) / above_chance) if above_chance > 0 else float("nan")
            case "accuracy_lost_off_center", _:
                return HALF_LOST if "shifts" in found["off_centre"] else float("nan")
            case "divergence_from_dropout_nets", of:
                factors = found["dropout_test_half"]["factors"]
                return float(next(entry["kl"] for entry in factors if of == f"factor {entry['factor']}"))
            case _, of:
                colors = found["gpu_specialisation"]
                apart = colors["difference"] if of == "the columns" else colors["by_chance"]["mean"]
                return float(100 - 100 * apart)
    except (KeyError, StopIteration):
        return float("nan")
