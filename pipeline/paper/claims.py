"""The paper's claims, and our own questions, as data: what each says, its figures, and what would test it."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.params import Name, Strict, read_yaml

Unit = Literal["points", "ratio", "count", "percent"]
Kind = Literal["effect", "absolute", "limit", "exact", "observation"]
Key = Literal["top1", "top5", "value"]
Views = Literal["one_crop", "ten_crop"]
Agreement = Literal["equal", "leading_digits", "at_most"]

IMAGE_MEASURES = ("error", "overfitting")  # of each image, by each seed's net
EPOCH_MEASURES = (  # a ratio; some runs may end before
    "epochs_to_25_train_error",
    "epochs_to_leave_guessing",
    "epochs_to_converge",
)
ANALYSIS_MEASURES = (  # one number for each seed, of the baseline's nets
    "accuracy_lost_off_center",
    "divergence_from_dropout_nets",
    "likeness_of_the_columns_colors",
)
RUN_MEASURES = (*IMAGE_MEASURES, *EPOCH_MEASURES, *ANALYSIS_MEASURES)


class Side(Strict):
    """One arm of a comparison: whose error, on which split, on how many crops of each image."""

    variant: Name
    split: Literal["train", "val", "test"] = "test"
    views: Views = "one_crop"
    of: str = ""  # which of the numbers that an analysis gives

    def __str__(self) -> str:
        marks = [
            mark for mark, usual in ((self.split, "test"), (self.views, "one_crop"), (self.of, "")) if mark != usual
        ]
        return f"{self.variant} ({', '.join(marks)})" if marks else self.variant


class Figures(Strict):
    """What the paper gives: the effect (or the value itself), and the two arms where it prints them."""

    effect: float | None = None
    treatment: float | None = None
    control: float | None = None


class Step(Strict):
    """One of several comparisons that a claim makes at once."""

    treatment: Side
    control: Side


class Claim(Strict):
    id: Name
    title: str  # as people call it
    says: str = ""  # what the paper says of it, for the summary
    section: str
    statement: str
    kind: Kind
    unit: Unit
    measure: Name
    primary: bool = False  # Holm's adjustment spans these, all other main metrics, and the top-5 rows, each by itself
    figures: dict[Key, Figures] = Field(min_length=1)  # the main metric first
    treatment: Side | None = None
    control: Side | None = None
    steps: list[Step] = Field(default_factory=list)  # the claim holds if all of them do: the weakest is shown
    data: list[str] = Field(default_factory=list)  # where a run counts as the paper's own experiment
    net: Literal["alexnet", "small"] = "alexnet"  # small: the authors' nets for CIFAR-10
    agreement: Agreement = "equal"
    not_run: str | None = None
    cannot_run: str | None = None

    @model_validator(mode="after")
    def _testable_or_explained(self) -> Self:
        if self.kind == "observation" and not (self.not_run or self.cannot_run):
            raise ValueError(f"{self.id}: an observation says under not_run or cannot_run why it has no result")
        if self.kind in ("effect", "limit") and not (self.steps or (self.treatment and self.control)):
            raise ValueError(f"{self.id}: accepted is a treatment and a control, or steps that have them")
        return self

    def metric(self, key: Key) -> str:
        prefix = ""
        if self.measure == "error" and (self.treatment or self.steps):
            split = self.treatment.split if self.treatment else self.steps[0].treatment.split
            prefix = "test_minus_val_" if self.kind == "limit" else f"{split}_"
        return f"{prefix}{self.measure}" + ("" if key == "value" else f"_{key}")

    def row_id(self, key: Key) -> str:
        return f"{self.id}_top5" if key == "top5" else self.id


class Question(Strict):
    id: Name
    title: str
    statement: str
    treatment: Side
    control: Side
    measure: Name = "error"
    unit: Literal["points", "ratio"] = "points"
    recipe: Literal["printed", "mixed"] | None = None  # the question makes sense for a baseline with this recipe only

    def metric(self, key: Key) -> str:
        prefix = f"{self.treatment.split}_" if self.measure == "error" else ""
        return f"{prefix}{self.measure}" + ("" if key == "value" else f"_{key}")

    @property
    def keys(self) -> tuple[Key, ...]:
        return ("top1", "top5") if self.measure in IMAGE_MEASURES else ("value",)


class Registry(Strict):
    claims: list[Claim]
    questions: list[Question]

    def claim(self, name: str) -> Claim:
        return next(claim for claim in self.claims if claim.id == name)


@cache
def registry() -> Registry:
    return Registry.model_validate(read_yaml(Path(__file__).with_name("claims.yaml")))
