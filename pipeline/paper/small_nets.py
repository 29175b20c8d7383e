"""The layer tables of the authors' small nets for CIFAR-10 (sections 3.1 and 3.3)."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.params import Strict, read_yaml

SMALL_NETS_EPOCHS = 520  # that the files of the published source train the nets of section 3.3 for


class Norm(Strict):
    within_map: bool = False  # over n x n places of one map (the source's rnorm), else over n maps (its cmrnorm)
    n: int
    k: float
    alpha: float


class SmallLayer(Strict):
    name: str
    kind: Literal["conv", "local", "full"]  # local: a convolution whose kernels differ from place to place
    kernels: int = 0  # of a fully connected layer: the classes
    size: int = 0
    padding: int = 0
    weight_std: float
    decay: float
    pool: Literal["max", "average"] | None = None
    norm: Literal["before_pool", "after_pool"] | None = None


class SmallNet(Strict):
    section: str
    norm: Norm
    layers: list[SmallLayer] = Field(min_length=1)


@cache
def small_nets() -> dict[str, SmallNet]:
    tables = read_yaml(Path(__file__).with_name("small_nets.yaml"))
    return {name: SmallNet.model_validate(table) for name, table in tables.items()}
