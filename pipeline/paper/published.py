"""Results that others published: the paper's rivals, public reproductions, small-scale anchors, the nets' lineage."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.params import Name, Strict, read_yaml

Number = int | float  # an integer stays one, so that a table prints the digits that were published


class Marked(Strict):
    """What stands beside a value: a remark, and whether it was computed from the layer table or is from memory."""

    note: str = ""
    calculated: bool = False
    unverified: bool = False

    @property
    def remarks(self) -> list[str]:
        marks = {"calculated": self.calculated, "unverified": self.unverified}
        return [text for text in (self.note, *(mark for mark, holds in marks.items() if holds)) if text]


class Errors(Marked):
    """%. null: not published."""

    top1: Number | None = None
    top5: Number | None = None


class Count(Marked):
    value: Number


class Sourced(Strict):
    source: str = Field(min_length=1)


class Contestant(Sourced):
    """One line of the paper's comparisons with others; `own` is one of the paper's nets, as in `claim`."""

    data: str
    split: Literal["val", "test"]
    method: str
    own: bool = False
    claim: Name | None = None
    errors: Errors


class Training(Errors):
    """What one training came to."""

    epochs: Number | None = None
    epochs_unverified: bool = False
    crops: Literal[1, 10] | None = None


class Seeds(Strict):
    """Repetitions with unlike seeds, and how many of them began to learn."""

    runs: int
    learned: int


class Reproduction(Sourced):
    project: str
    framework: str
    data: str
    results: list[Training] = Field(min_length=1)
    seeds: Seeds | None = None
    departures: str
    went_wrong: str | None = None


class Anchor(Sourced):
    """A result on small images, or early in training, against which a run can be held."""

    data: str
    model: str
    error: Errors
    up_to: Number | None = None  # where a range of top-1 errors was published
    log_loss: Number | None = None
    differs: str = ""  # how it differs from a scale here on the same data, whose report has it beside its own errors

    @model_validator(mode="after")
    def _has_a_figure(self) -> Self:
        if self.error.top1 is None and self.log_loss is None:
            raise ValueError(f"{self.model}: accepted is a top-1 error or a log loss")
        return self


class Architecture(Sourced):
    """One net of the lineage. Errors on ILSVRC-2012's validation images unless the note says otherwise."""

    family: Literal["LeNet-5", "AlexNet", "ZFNet", "GoogLeNet", "VGG", "ResNet"]
    name: str
    year: int
    one_crop: list[Errors] = Field(default_factory=list)
    ten_crops: list[Errors] = Field(default_factory=list)
    best_single: list[Errors] = Field(default_factory=list)
    ensemble: list[Errors] = Field(default_factory=list)
    parameters: list[Count] = Field(min_length=1)
    multiply_adds: Count
    key_change: str
    layers_in: str


class Published(Strict):
    contestants: list[Contestant]
    reproductions: list[Reproduction]
    anchors: list[Anchor]
    architectures: list[Architecture]


@cache
def published() -> Published:
    return Published.model_validate(read_yaml(Path(__file__).with_name("published.yaml")))
