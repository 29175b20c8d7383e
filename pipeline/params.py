"""The typed schema of params.yaml. Every error names the key, the value found and what is accepted."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import paths
from pipeline.errors import UserError

Precision = Literal["32-true", "tf32", "bf16-mixed", "16-mixed"]  # Lightning's names; tf32: on a GPU, of fp32 products
Reading = Literal["printed", "coded"]  # what the paper prints, or what its authors' source does
ConvLayer = Literal["conv1", "conv2", "conv3", "conv4", "conv5"]
Architecture = Literal["alexnet", "four_layer", "conv_local_13", "conv_local_11"]
HiddenLayer = Literal["fc6", "fc7"]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
DATASETS = ("fashion_mnist", "cifar10", "imagenet2012", "imagenet2010")


def _keeps_kernels_whole(width: float) -> float:
    if (width * 16) % 1:
        raise ValueError("a multiple of 1/16, which leaves every layer an even number of kernels for its two groups")
    return width


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Strict):
    folder: str | None = Field(min_length=1)  # of images, as README.md says; null: they are fetched
    dataset: Name
    canvas_px: int = Field(ge=1)  # side of the stored square; crops are cut from it
    train_images: int | None = Field(ge=1)  # null: all that validation leaves
    validation_images: int = Field(ge=1)  # taken from the training split, the same number of each class
    test_images: int | None = Field(ge=1)  # null: all
    split_seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.folder is None and self.dataset not in DATASETS:
            known = ", ".join(DATASETS)
            raise ValueError(f"data.dataset = {self.dataset!r}: accepted is {known}, or any name with a data.folder")
        return self


class Net(Strict):
    architecture: Architecture  # the paper's net, or one of its authors' small nets for CIFAR-10
    crop_px: int = Field(ge=1)
    width: Annotated[float, Field(gt=0, le=1), AfterValidator(_keeps_kernels_whole)]  # share of the paper's kernels
    # section 3.2. two: conv2, conv4, conv5 see their own column. joined: every layer sees all. separate: two columns
    # that meet in fc8 alone. half: one column, with half the kernels in conv1-conv4
    columns: Literal["two", "joined", "separate", "half"]
    removed_layer: Literal["conv2", "conv3", "conv4", "conv5"] | None  # sections 1 and 7; its pooling stays
    hold_parameters: bool  # kernels that a removed layer leaves over go to the other layers from conv2 to conv5
    activation: Literal["relu", "tanh", "sigmoid"]  # section 3.1
    norm_layers: list[ConvLayer]  # section 3.3: layers followed by response normalisation
    pool_px: Literal[2, 3]  # section 3.4: window of the pooling, at stride 2
    pool_shapes: Literal["equal", "logged"]  # logged: the maps that the source's own control of pooling had
    dropout_layers: list[HiddenLayer]  # section 4.2
    initialisation: Literal["paper", "framework"]  # section 5, or what PyTorch does unasked
    hidden_bias: float  # section 5: where the paper's biases start at 1
    input_divisor: float = Field(gt=0)  # of the pixels, whose levels run from 0 to 255

    @model_validator(mode="after")
    def _maps_whole(self) -> Self:
        if self.architecture == "alexnet" and (self.crop_px < 67 or self.crop_px % 32 != 3):
            raise ValueError(
                f"net.crop_px = {self.crop_px}: accepted is one of 67, 99, 131, 163, 195, 227: "
                "there 3x3/2 and 2x2/2 pooling give maps of equal size"
            )
        return self


class Recipe(Strict):
    """Which reading each item of pipeline/paper/recipe.yaml follows."""

    weight_std: Reading
    bias_rule: Reading
    lrn_alpha: Reading
    lrn_columns: Reading
    first_norm: Reading
    second_norm: Reading
    colour_noise: Reading
    crop_sharing: Reading


class Train(Strict):
    epochs: int = Field(ge=1)  # at most; a fourth plateau stops earlier
    batch_images: int = Field(ge=1)
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    optimiser: Literal["paper", "adam"]  # section 5's rule, or torch's Adam
    warmup_epochs: int = Field(ge=0)  # over which the rate rises to lr; the paper's starts there
    patience_epochs: int = Field(ge=1)  # without a better validation error before the rate drops
    lr_drops: int = Field(ge=0)  # by 10, each after a plateau; one more plateau ends training. 0: the rate stays
    stop_at_train_error: float | None = Field(gt=0, lt=100)  # %, of an epoch's training batches (Figure 1)
    crops: bool  # section 4.1: at random places; else the centre's
    mirror: bool  # section 4.1
    colour_sigma: float = Field(ge=0)  # section 4.1
    precision: Precision


class Hardware(Strict):
    accelerator: Literal["auto", "cpu", "gpu"]
    threads: int | None = Field(ge=1)  # of each process; null: one for each physical core
    devices: int = Field(ge=1)  # processes that train one run together, each with a GPU or threads of its own
    compile: bool  # the net, by torch.compile


class Tune(Strict):
    studies: list[Name]  # variants; where one trains to a goal, its rate is tuned to get there soonest
    trials: int = Field(ge=0)  # 0: the paper's values are taken over untried
    epochs: int = Field(ge=1)
    seed: int = Field(ge=0)
    lr: Range
    weight_decay: Range
    random_trials: int = Field(ge=1)  # before the sampler models what it has seen
    warmup_epochs: int = Field(ge=0)  # before a trial may be pruned
    storage: str | None  # Optuna's URL; null: an own SQLite file in the resume folder

    @property
    def on_server(self) -> bool:
        return self.storage is not None and self.storage.startswith("postgresql")

    @field_validator("storage")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"(sqlite|postgresql)(\+\w+)?://", url):
            raise ValueError("null, sqlite:///<file> or postgresql+psycopg://<host>/<database>")
        return url

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("lr", "weight_decay"):
            low, high = getattr(self, name)
            if not 0 < low < high:
                raise ValueError(f"tune.{name} = {[low, high]}: accepted is [low, high] with 0 < low < high")
        return self


class Evaluate(Strict):
    ten_crop: list[str]  # variants whose test error is also measured on ten crops
    analyses: list[str]  # variants of whose nets section 6.1's statements, and those about many nets, are measured
    batch_images: int = Field(ge=1)


class Variant(Strict):
    title: str
    section: str  # of the paper
    sentence: str  # what is changed, and only that
    recipe_from: str  # the file that settles learning rate and weight decay
    set: dict[str, dict[str, Any]]  # the settings that differ from the baseline's


class Settings(Strict):
    """All that makes one variant's training what it is."""

    net: Net
    recipe: Recipe
    train: Train


class Params(Strict):
    scale: Name
    title: str
    data: Data
    net: Net
    recipe: Recipe
    train: Train
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    hardware: Hardware
    tune: Tune
    evaluate: Evaluate
    variants: dict[Name, Variant]
    departures: list[str]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.net.crop_px > self.data.canvas_px:
            raise ValueError(
                f"net.crop_px = {self.net.crop_px}: accepted is at most data.canvas_px = {self.data.canvas_px}"
            )
        for name in ("lr", "weight_decay"):
            value, (low, high) = getattr(self.train, name), getattr(self.tune, name)
            if self.tune.trials and not low <= value <= high:
                raise ValueError(f"tune.{name} = {[low, high]}: accepted is a range that holds train.{name} = {value}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: accepted is each seed once")
        if "baseline" not in self.variants or self.variants["baseline"].set:
            raise ValueError("variants.baseline: accepted is a baseline that sets nothing")
        lists = {
            "evaluate.ten_crop": self.evaluate.ten_crop,
            "evaluate.analyses": self.evaluate.analyses,
            "tune.studies": self.tune.studies,
        }
        for key, names in lists.items():
            for name in names:
                if name not in self.variants:
                    raise ValueError(f"{key} = {name!r}: accepted is one of {', '.join(self.variants)}")
        for name in self.variants:
            if problems := _problems(lambda name=name: self.settings(name), f"variants.{name}.set."):
                raise ValueError("\n".join(problems))
        return self

    def settings(self, variant: str, overrides: dict[str, dict[str, Any]] | None = None) -> Settings:
        """The baseline's settings with what `variant` and then `overrides` change."""
        blocks = {name: getattr(self, name).model_dump() for name in Settings.model_fields}
        for change in (self.variants[variant].set, overrides or {}):
            for block, values in change.items():
                blocks[block] = {**blocks.get(block, {}), **values}
        return Settings.model_validate(blocks)

    def used_studies(self) -> list[str]:
        """The studies whose recipe a variant takes over."""
        names = {Path(variant.recipe_from).parent.name for variant in self.variants.values()}
        return [study for study in self.tune.studies if study in names]

    def require_variant(self, name: str) -> Variant:
        if name not in self.variants:
            raise UserError(f"variant {name!r} is not defined; accepted is one of {', '.join(self.variants)}")
        return self.variants[name]


def read_yaml(path: Path) -> Any:
    """The file as YAML 1.2, the dialect that DVC reads. Raises UserError where it is missing or malformed."""
    try:
        return YAML(typ="safe").load(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it, or pass the right folder") from error
    except YAMLError as error:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error


def validate(values: Any, origin: str) -> Params:
    """Check a whole configuration. Raises UserError with one line for each problem."""
    if problems := _problems(lambda: Params.model_validate(values), ""):
        raise UserError("\n".join(f"{origin}: {problem}" for problem in problems))
    return Params.model_validate(values)


@cache
def load(path: Path = paths.PARAMS) -> Params:
    return validate(read_yaml(path), str(path))


def _problems(build: Any, prefix: str) -> list[str]:
    try:
        build()
    except ValidationError as error:
        return [_line(item, prefix, error.title) for item in error.errors(include_url=False)]
    return []


def _line(item: Any, prefix: str, model: str) -> str:
    key = prefix + ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; accepted: {', '.join(_siblings(item['loc'], model))}"
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        return f"{key} = {item['input']!r}: accepted is {message}" if _is_scalar(item["input"]) else f"{message}"
    return f"{key} = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | str)


def _siblings(loc: tuple[Any, ...], model: str) -> list[str]:
    """The keys accepted where `loc` found one that is not."""
    known: type[BaseModel] = Params if model == "Params" else Settings
    for part in loc[:-1]:
        if part in known.model_fields:  # else the name of a variant
            annotation = known.model_fields[part].annotation
            known = next(kind for kind in (annotation, *get_args(annotation)) if _is_model(kind))
    return list(known.model_fields)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
