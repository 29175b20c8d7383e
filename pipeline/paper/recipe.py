"""The training recipe in its two readings: as the paper prints it, and as its authors' source runs it."""

from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pipeline.params import Reading, Recipe, Strict, read_yaml

LRN_N, LRN_K = 5, 2.0  # section 3.3
DROPOUT_P = 0.5  # section 4.2
LR_DROPS, LR_DROP_FACTOR = 3, 10  # section 5

T = TypeVar("T")


class Readings(Strict, Generic[T]):
    section: str
    printed: T
    coded: T

    def of(self, reading: Reading) -> T:
        return self.printed if reading == "printed" else self.coded


class BiasRule(Strict):
    lr_factor: float
    decays: bool
    drops: bool


class WithinMap(Strict):
    n: int
    k: float
    alpha: float


class ColorNoise(Strict):
    until: float
    divisor: float


class BothReadings(Strict):
    weight_std: Readings[dict[str, float]]
    bias_rule: Readings[BiasRule]
    lrn_alpha: Readings[float]
    lrn_columns: Readings[int]
    first_norm: Readings[Literal["after_activation", "before_activation"]]
    second_norm: Readings[WithinMap | None]
    color_noise: Readings[ColorNoise]
    crop_sharing: Readings[int]


@cache
def both_readings() -> BothReadings:
    return BothReadings.model_validate(read_yaml(Path(__file__).with_name("recipe.yaml")))


def item(recipe: Recipe, name: str) -> Any:
    """The value of one item in the reading that `recipe` chose for it."""
    readings: Readings[Any] = getattr(both_readings(), name)
    return readings.of(getattr(recipe, name))
