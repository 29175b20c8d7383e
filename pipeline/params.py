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
from pipeline.runtime.cores import usable_cores

Precision = Literal["32-true", "tf32", "bf16-mixed"]  # Lightning's names; tf32: on a GPU, of fp32 products
Reading = Literal["printed", "coded"]  # what the paper prints, or what its authors' source does
ConvLayer = Literal["conv1", "conv2", "conv3", "conv4", "conv5"]
SmallNet = Literal["four_layer", "conv_local_13", "conv_local_11"]  # the authors' nets for CIFAR-10
Successor = Literal["lenet5", "zfnet", "googlenet", "vgg11", "vgg16", "resnet18", "resnet34", "resnet50"]
Architecture = Literal["alexnet"] | SmallNet | Successor
HiddenLayer = Literal["fc6", "fc7"]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
Seed = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
TINY_IMAGENET, TINY_IMAGENET_CLASSES = "tiny_imagenet", 200
DATASETS = {
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "imagenet2012": "ILSVRC-2012",
    "imagenet2010": "ILSVRC-2010",
    TINY_IMAGENET: "Tiny ImageNet",
}
IMAGENET = ("imagenet2012", "imagenet2010", TINY_IMAGENET)
LINEAGE = {  # AlexNet's predecessor and successors: what text calls them, and the smallest crop that they take
    "lenet5": ("LeNet-5", 16),
    "zfnet": ("ZFNet", 63),
    "googlenet": ("GoogLeNet", 31),
    "vgg11": ("VGG-11", 32),
    "vgg16": ("VGG-16", 32),
    "resnet18": ("ResNet-18", 1),
    "resnet34": ("ResNet-34", 1),
    "resnet50": ("ResNet-50", 1),
}
OF_EVERY_NET = ("architecture", "crop_px", "width", "initialization", "input_divisor")
HALVED = "halved"
FRACTIONS = {0.5: "half", 0.25: "a quarter", 0.125: "an eighth", 0.0625: "a sixteenth"}


def _keeps_kernels_whole(width: float) -> float:
    if (width * 16) % 1:
        raise ValueError("a multiple of 1/16, which leaves every layer an even number of kernels for its two groups")
    return width


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Strict):
    folder: str | None = Field(min_length=1)  # of images, as README.md and docs/imagenet.md say; null: fetched
    dataset: Name
    image_size: int = Field(ge=1)  # side of the stored square; crops are cut from it
    train_images: int | None = Field(ge=1)  # null: all that validation leaves
    validation_images: int = Field(ge=1)  # in proportion to the classes' sizes; one of each stays to train on
    test_images: int | None = Field(ge=1)  # null: all
    split_seed: int = Field(ge=0)
    # of Tiny ImageNet: so many, spread evenly over the sorted WNIDs, or those listed; null: all
    classes: int | list[str] | None = None

    @field_validator("classes", mode="before")
    @classmethod
    def _several_classes(cls, found: Any) -> Any:
        several = type(found) is int and 2 <= found <= TINY_IMAGENET_CLASSES
        listed = isinstance(found, list) and len({*map(str, found)}) == len(found) >= 2
        if not (found is None or several or listed):
            accepted = f"null, 2 to {TINY_IMAGENET_CLASSES}, or a list of at least two different WNIDs"
            raise ValueError(accepted if _is_scalar(found) else f"data.classes: accepted is {accepted}")
        return found

    @model_validator(mode="after")
    def _classes_of_tiny_imagenet(self) -> Self:
        if self.classes is not None and self.dataset != TINY_IMAGENET:
            raise ValueError(
                f"data.classes = {self.classes!r}: accepted is null where data.dataset = {self.dataset!r}; "
                f"{TINY_IMAGENET} alone has a choice of classes"
            )
        return self

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.folder is None and self.dataset not in DATASETS:
            known = ", ".join(DATASETS)
            raise ValueError(f"data.dataset = {self.dataset!r}: accepted is {known}, or any name with a data.folder")
        return self

    @model_validator(mode="after")
    def _apart_from_what_is_written(self) -> Self:
        """DVC deletes the folders that its stages write, before they run."""
        if self.folder is not None:
            images = paths.images(self.folder)
            for place in paths.written():
                if images.is_relative_to(place) or place.is_relative_to(images):
                    relation = "is" if images == place else "lies in" if images.is_relative_to(place) else "holds"
                    raise ValueError(
                        f"data.folder = {self.folder!r}: it {relation} {place}, which the pipeline writes and deletes; "
                        "accepted is any folder apart from those: move the images"
                    )
        return self


class Net(Strict):
    """The net. The defaults are the paper's."""

    architecture: Architecture = "alexnet"  # the paper's net, one of its authors' small nets, or one of its lineage
    crop_px: int = Field(227, ge=1)
    # share of the paper's kernels and units
    width: Annotated[float, Field(gt=0, le=1), AfterValidator(_keeps_kernels_whole)] = 1.0
    # section 3.2. two: conv2, conv4, conv5 see their own column. joined: every layer sees all. separate: two columns
    # that meet in fc8 alone. half: one column, with half the kernels in conv1-conv4
    towers: Literal["two", "joined", "separate", "half"] = "two"
    removed_layer: Literal["conv2", "conv3", "conv4", "conv5"] | None = None  # sections 1 and 7; its pooling stays
    match_params: bool = False  # kernels that a removed layer leaves over go to the other layers from conv2 to conv5
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"  # section 3.1
    norm_layers: list[ConvLayer] = ["conv1", "conv2"]  # section 3.3: layers followed by response normalization
    pool_px: Literal[2, 3] = 3  # section 3.4: window of the pooling, at stride 2
    pool_shapes: Literal["equal", "logged"] = "equal"  # logged: the maps that the source's own control of pooling had
    dropout_layers: list[HiddenLayer] = ["fc6", "fc7"]  # section 4.2
    initialization: Literal["paper", "framework"] = "paper"  # section 5, or what PyTorch does unasked
    hidden_bias: float = 1.0  # section 5: where the paper's biases start at 1
    input_divisor: float = Field(1.0, gt=0)  # of the pixels, whose levels run from 0 to 255

    @property
    def title(self) -> str:
        return net_title(self.architecture, self.width)

    @model_validator(mode="after")
    def _maps_whole(self) -> Self:
        if self.architecture == "alexnet" and (self.crop_px < 67 or self.crop_px % 32 != 3):
            raise ValueError(
                f"net.crop_px = {self.crop_px}: accepted is one of 67, 99, 131, 163, 195, 227: "
                "there 3x3/2 and 2x2/2 pooling give maps of equal size"
            )
        if self.architecture in LINEAGE and self.crop_px < LINEAGE[self.architecture][1]:
            raise ValueError(
                f"net.crop_px = {self.crop_px}: accepted for {self.architecture} is at least "
                f"{LINEAGE[self.architecture][1]}, of which its last maps have one place"
            )
        return self

    @model_validator(mode="after")
    def _has_what_is_set(self) -> Self:
        """The other nets of the lineage have no towers, say, and a setting that does nothing would mislead."""
        if self.architecture in LINEAGE:
            for name, field in Net.model_fields.items():
                if name not in OF_EVERY_NET and getattr(self, name) != field.default:
                    raise ValueError(
                        f"net.{name} = {getattr(self, name)!r}: accepted for {self.architecture} is {field.default!r}; "
                        f"of net, it knows {', '.join(OF_EVERY_NET)}"
                    )
        return self


class Recipe(Strict):
    """Which reading each item of pipeline/paper/recipe.yaml follows. The defaults are the paper's print."""

    weight_std: Reading = "printed"
    bias_rule: Reading = "printed"
    lrn_alpha: Reading = "printed"
    lrn_columns: Reading = "printed"
    first_norm: Reading = "printed"
    second_norm: Reading = "printed"
    color_noise: Reading = "printed"
    crop_sharing: Reading = "printed"


class Train(Strict):
    """The recipe of section 5. The defaults are the paper's; it gives no number for the patience."""

    epochs: int = Field(90, ge=1)  # at most; a fourth plateau stops earlier
    batch_images: int = Field(128, ge=1)
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0005, ge=0)
    optimizer: Literal["paper", "adam"] = "paper"  # section 5's rule, or torch's Adam
    warmup_epochs: int = Field(0, ge=0)  # over which the rate rises to lr; the paper's starts there
    schedule: Literal["plateau", "fixed"] = "plateau"  # what lowers the rate: validation error, or the epoch
    lr_drops: int = Field(3, ge=0)  # how often it is divided by 10. 0: it stays
    patience_epochs: int = Field(5, ge=1)  # plateau: without a better validation error; one plateau more ends training
    drop_at: list[Annotated[float, Field(gt=0, lt=1)]] = []  # fixed: shares of the epochs, rising
    stop_at_train_error: float | None = Field(None, gt=0, lt=100)  # %, of an epoch's training batches (Figure 1)
    random_crop: bool = True  # section 4.1: at random places; else the center's
    hflip: bool = True  # section 4.1
    pca_jitter_std: float = Field(0.1, ge=0)  # section 4.1
    precision: Precision = "32-true"

    @model_validator(mode="after")
    def _drops_known(self) -> Self:
        if self.schedule == "fixed" and (
            len(self.drop_at) < self.lr_drops or self.drop_at != sorted(set(self.drop_at))
        ):
            raise ValueError(
                f"train.drop_at = {self.drop_at}: accepted for the fixed schedule is a rising list of at least "
                f"train.lr_drops = {self.lr_drops} shares of the epochs"
            )
        return self


class Hardware(Strict):
    """Where to run. Threads, processes, the kind of device and compilation are part of what a run is."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    threads: int | None = Field(None, ge=1)  # of each process; null: all usable cores, shared by the processes
    workers: int | None = Field(None, ge=1)  # runs side by side; null: as many as cores and memory allow, on a GPU one
    devices: int = Field(1, ge=1)  # processes of one machine that train one run, each with a GPU or threads of its own
    nodes: int = Field(1, ge=1)  # machines that train one run
    compile: bool = False  # the net, by torch.compile

    @property
    def thread_count(self) -> int:
        """Threads that each process trains with."""
        return self.threads or max(1, usable_cores() // self.devices)

    @property
    def processes(self) -> int:
        """That train one run together."""
        return self.devices * self.nodes

    @property
    def of_one_process(self) -> "Hardware":
        """The same for what one process does by itself: trials and evaluations."""
        return self.model_copy(update={"devices": 1, "nodes": 1})

    @model_validator(mode="after")
    def _one_kind_of_parallelism(self) -> Self:
        if self.processes > 1 and (self.workers or 1) > 1:
            raise ValueError(
                f"hardware.workers = {self.workers}: accepted is 1 or null where hardware.devices or hardware.nodes "
                "have several processes train each run"
            )
        return self


class Tune(Strict):
    trials: int = Field(ge=0)  # 0: the paper's values are taken over untried
    epochs: int = Field(ge=1)
    seed: int = Field(ge=0)
    lr: Range
    weight_decay: Range
    batch: int = Field(ge=1)  # trials that are chosen together, and may train side by side
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


class MoreSeeds(Strict):
    """What some variants are trained with besides `seeds`: those that a claim needs, where intervals must be narrow."""

    variants: list[str] = []
    seeds: list[Seed] = []


class Variant(Strict):
    """A row of conf/variants.yaml: the baseline with one named change. `halved` stands for half of its number."""

    title: str
    section: str  # of the paper
    description: str  # what is changed, and only that
    study: Name | None = None  # whose tuned learning rate (and weight decay) it takes; None: the paper's values
    set: dict[str, dict[str, Any]] = {}  # the settings that differ from the baseline's


class Settings(Strict):
    """All that makes one variant's training what it is."""

    net: Net
    recipe: Recipe
    train: Train


class Params(Strict):
    scale: Name
    reports: dict[Name, Name]  # folders of the scale's own report, by the data set that it is about
    report: Name  # the folder of the report below reports/
    data: Data
    net: Net
    recipe: Recipe
    train: Train
    seeds: list[Seed] = Field(min_length=1)
    more_seeds: MoreSeeds = MoreSeeds()
    hardware: Hardware
    tune: Tune
    evaluate: Evaluate
    variants: dict[Name, Variant]  # in params.yaml their names alone, which conf/variants.yaml explains
    departures: list[str]

    @field_validator("variants", mode="before")
    @classmethod
    def _from_the_table(cls, variants: Any) -> Any:
        if not isinstance(variants, list):
            return variants
        table = variant_table()
        for name in variants:
            if name not in table:
                raise ValueError(f"variants: {name!r} is not in {paths.VARIANTS}; accepted are {', '.join(table)}")
        return {name: table[name] for name in variants}

    @property
    def title(self) -> str:
        nets = {self.settings(name).net.architecture for name in self.variants}
        what = f"{len(nets)} architectures" if nets & set(LINEAGE) else self.net.title
        return f"{data_title(self.data.dataset)}, {what}"

    @model_validator(mode="after")
    def _report_of_its_own(self) -> Self:
        """Images of one's own must not get a report that speaks of other images, nor replace the one about those."""
        accepted = self.reports.get(self.data.dataset, f"{self.scale}_{self.data.dataset}")
        if self.report != accepted:
            raise ValueError(
                f"report = {self.report!r}: accepted is {accepted!r}, which follows from scale and dataset"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.net.crop_px > self.data.image_size:
            raise ValueError(
                f"net.crop_px = {self.net.crop_px}: accepted is at most data.image_size = {self.data.image_size}"
            )
        for name in ("lr", "weight_decay"):
            value, (low, high) = getattr(self.train, name), getattr(self.tune, name)
            if self.tune.trials and not low <= value <= high:
                raise ValueError(f"tune.{name} = {[low, high]}: accepted is a range that holds train.{name} = {value}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: accepted is each seed once")
        if len({*self.seeds, *(more := self.more_seeds.seeds)}) < len(self.seeds) + len(more):
            raise ValueError(f"more_seeds.seeds = {more}: accepted is each seed once, and none of seeds = {self.seeds}")
        if "baseline" not in self.variants or self.variants["baseline"].set:
            raise ValueError("variants.baseline: accepted is a baseline that sets nothing")
        lists = {
            "more_seeds.variants": self.more_seeds.variants,
            "evaluate.ten_crop": self.evaluate.ten_crop,
            "evaluate.analyses": self.evaluate.analyses,
            "variants.*.study": [variant.study for variant in self.variants.values() if variant.study is not None],
        }
        for key, names in lists.items():
            for name in names:
                if name not in self.variants:
                    raise ValueError(f"{key} = {name!r}: accepted is one of {', '.join(self.variants)}")
        for name in self.variants:
            if problems := _problems(lambda name=name: self.settings(name), f"variants.{name}.set."):
                raise ValueError("\n".join(problems))
            if self.hardware.processes > 1 and self.settings(name).net.architecture.startswith("resnet"):
                raise ValueError(
                    f"hardware.devices = {self.hardware.devices}, hardware.nodes = {self.hardware.nodes}: accepted is "
                    f"1 for variant {name!r}, whose batch normalization would see the images of one process alone"
                )
        return self

    def settings(self, variant: str, overrides: dict[str, dict[str, Any]] | None = None) -> Settings:
        """The baseline's settings with what `variant` and then `overrides` change."""
        blocks = {name: getattr(self, name).model_dump() for name in Settings.model_fields}
        for change in (self.variants[variant].set, overrides or {}):
            for block, values in change.items():
                before = blocks.get(block, {})
                halves = {name: _half(before.get(name)) for name, value in values.items() if value == HALVED}
                blocks[block] = {**before, **values, **halves}
        return Settings.model_validate(blocks)

    def seeds_of(self, variant: str) -> list[int]:
        """Return the seeds that the variant is trained with."""
        return [*self.seeds, *(self.more_seeds.seeds if variant in self.more_seeds.variants else [])]

    def with_seeds(self, seeds: list[int]) -> Self:
        """Return the same configuration for these seeds of every variant."""
        return self.model_copy(update={"seeds": seeds, "more_seeds": MoreSeeds()})

    @property
    def studies(self) -> list[str]:
        """The variants whose learning rate is tuned: those whose values a variant takes over."""
        return list(dict.fromkeys(variant.study for variant in self.variants.values() if variant.study is not None))

    def require_variant(self, name: str) -> Variant:
        if name not in self.variants:
            raise UserError(f"variant {name!r} is not defined; accepted is one of {', '.join(self.variants)}")
        return self.variants[name]


def _half(number: Any) -> Any:
    """Half of a setting; what is no number stays `halved`, which its type refuses."""
    if type(number) is int:
        return number // 2
    return number / 2 if type(number) is float else HALVED


@cache
def variant_table(path: Path = paths.VARIANTS) -> dict[str, Any]:
    """Every variant that a scale may name. Raises UserError where the file is missing or malformed."""
    table = read_yaml(path)
    if not isinstance(table, dict):
        raise UserError(f"{path}: accepted is a table of variants by name")
    return table


def data_title(dataset: str) -> str:
    """What a data set is called in text: its published name, or the name that the user gave it."""
    return DATASETS.get(dataset, dataset)


def net_title(architecture: str, width: float) -> str:
    """What a net is called in text."""
    if architecture not in ("alexnet", *LINEAGE):
        return "the authors' small nets"
    name = "AlexNet" if architecture == "alexnet" else LINEAGE[architecture][0]
    return name if width == 1 else f"{name} at {FRACTIONS.get(width, f'{width:g}')} of its width"


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
