"""The arithmetic of a plan: what each stage has to do, times what one piece of it was measured to take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline import paths
from pipeline.data.store import store_bytes
from pipeline.evaluation import neighbours, shifts, thinned
from pipeline.params import Params, Settings
from pipeline.plan.sizes import Counts

STAGES = ("prepare", "tune", "train", "evaluate", "report")
REPORT_S_PER_VARIANT = 1.0  # beside its start; no measurement without runs to report on
COSTLESS = {  # settings that change what is learnt, not how long a step takes
    "net": {"initialisation", "hidden_bias"},
    "recipe": {"weight_std", "bias_rule", "lrn_alpha", "colour_noise", "crop_sharing"},
    "train": {"epochs", "lr", "weight_decay", "warmup_epochs", "patience_epochs", "lr_drops", "stop_at_train_error"},
}


@dataclass(frozen=True)
class NetCost:
    """Seconds that one net was measured to take. Those of analyses are 0 where no variant with it is analysed."""

    measured: str  # how many images it was shown
    image_s: float  # one training image: input, forward, backward, update
    validation_s: float  # one image forward
    epoch_s: float  # an epoch beside its images
    run_s: float  # a run beside its epochs
    parameters: int
    thinned_s: float = 0.0  # one thinned net on all its queries
    pair_s: float = 0.0  # one distance between a test and a training image


@dataclass(frozen=True)
class Machine:
    """What was measured beside the nets, in s."""

    workers: int  # processes of `prepare`
    start_s: Mapping[str, float]  # of each stage's process
    source_image_s: float  # one image from its source to the canvas, on one core
    hash_byte_s: float  # SHA-256
    table_image_s: float  # one image's row of predictions


@dataclass(frozen=True)
class Row:
    stage: str
    name: str  # of a variant or study; empty where a stage has none
    runs: int
    epochs: int  # of each run, at most
    seconds: float
    basis: str  # what was measured, and what it was extended to


@dataclass(frozen=True)
class Work:
    """What a configuration is to do."""

    params: Params
    counts: Counts
    classes: int
    channels: int

    @property
    def image_bytes(self) -> int:
        """Of one image of the store."""
        return self.params.data.canvas_px**2 * self.channels

    @property
    def images(self) -> int:
        return sum(self.counts.values())

    @property
    def store_bytes(self) -> int:
        return store_bytes(self.images, self.params.data.canvas_px, self.channels)

    def views(self, variant: str) -> int:
        """Looks at images by one seed's evaluation."""
        return self.images + (10 * self.counts["test"] if variant in self.params.evaluate.ten_crop else 0)

    def identity(self, variant: str) -> str:
        """Equal for variants whose runs are the same, so that the second trains nothing."""
        settings = self.params.settings(variant).model_dump_json()
        tuned = self.params.tune.trials > 0 and self.params.variants[variant].recipe_from != paths.PAPER_RECIPE
        return variant + settings if tuned else settings


def cost_key(settings: Settings) -> str:
    """Equal for settings under which a step takes equally long."""
    return settings.model_dump_json(exclude=COSTLESS)


def rate(image_s: float) -> str:
    per_second = 1 / image_s
    return f"{per_second:,.{0 if per_second >= 10 else 2}f} images/s"


def epoch_seconds(cost: NetCost, counts: Counts) -> float:
    return counts["train"] * cost.image_s + counts["val"] * cost.validation_s + cost.epoch_s


def run_seconds(cost: NetCost, counts: Counts, epochs: int) -> float:
    return cost.run_s + epochs * epoch_seconds(cost, counts)


def rows(work: Work, machine: Machine, costs: Mapping[str, NetCost]) -> list[Row]:
    """One row for each stage's process, in their order. costs: by `cost_key`."""
    return [
        _prepare(work, machine),
        *_tune(work, machine, costs),
        *_train(work, machine, costs),
        *_evaluate(work, machine, costs),
        _report(work, machine),
    ]


def _prepare(work: Work, machine: Machine) -> Row:
    hashing_s = work.images * work.image_bytes * machine.hash_byte_s  # by one process, beside the workers
    making_s = work.images * machine.source_image_s / machine.workers
    basis = f"{rate(machine.source_image_s)} on a core × {machine.workers}; to {work.images:,}"
    return Row("prepare", "", 1, 0, machine.start_s["prepare"] + max(making_s, hashing_s), basis)


def _opening_s(work: Work, machine: Machine, images: int) -> float:
    """Of a process that compares the checksums of that many of the store's images before it uses them."""
    return images * work.image_bytes * machine.hash_byte_s


def _tune(work: Work, machine: Machine, costs: Mapping[str, NetCost]) -> Iterator[Row]:
    tune = work.params.tune
    for study in tune.studies:
        cost = costs[cost_key(work.params.settings(study))]
        seconds = machine.start_s["tune"]
        if tune.trials:
            seconds += _opening_s(work, machine, work.counts["train"] + work.counts["val"])
            seconds += tune.trials * run_seconds(cost, work.counts, tune.epochs)
        basis = cost.measured if tune.trials else "no trials: the paper's values are taken over"
        yield Row("tune", study, tune.trials, tune.epochs, seconds, basis)


def _train(work: Work, machine: Machine, costs: Mapping[str, NetCost]) -> Iterator[Row]:
    trained: dict[str, str] = {}
    for variant in work.params.variants:
        settings = work.params.settings(variant)
        cost, epochs, seeds = costs[cost_key(settings)], settings.train.epochs, len(work.params.seeds)
        seconds = machine.start_s["train"] + _opening_s(work, machine, work.counts["train"] + work.counts["val"])
        twin = trained.setdefault(work.identity(variant), variant)
        if twin != variant:
            yield Row("train", variant, 0, epochs, machine.start_s["train"], f"the runs of {twin}")
            continue
        seconds += seeds * run_seconds(cost, work.counts, epochs)
        basis = f"{cost.measured}; to {seeds * epochs * work.counts['train']:,}"
        yield Row("train", variant, seeds, epochs, seconds, basis)


def _evaluate(work: Work, machine: Machine, costs: Mapping[str, NetCost]) -> Iterator[Row]:
    for variant in work.params.variants:
        cost, seeds = costs[cost_key(work.params.settings(variant))], len(work.params.seeds)
        views = work.views(variant)
        seed_s = views * cost.validation_s + work.images * machine.table_image_s
        basis = f"forward {rate(cost.validation_s)}; to {views:,} looks a seed"
        if variant in work.params.evaluate.analyses:
            seed_s += _analyses_s(work, cost)
            basis += " and the analyses"
        seconds = machine.start_s["evaluate"] + _opening_s(work, machine, work.images) + seeds * seed_s
        yield Row("evaluate", variant, seeds, 0, seconds, basis)


def _analyses_s(work: Work, cost: NetCost) -> float:
    """Section 6.1 and 4.2 on one net, as pipeline/evaluation/analyses.py measures them."""
    test, train = work.counts["test"], work.counts["train"]
    queries = min(test, neighbours.QUERIES)
    looks = 1 + len(shifts.DIRECTIONS) * (len(shifts.SHIFTS) - 1)
    forward = train + queries + looks * min(test, shifts.IMAGES) + min(test, thinned.IMAGES)
    return forward * cost.validation_s + train * queries * cost.pair_s + thinned.NETS[-1] * cost.thinned_s


def _report(work: Work, machine: Machine) -> Row:
    seconds = machine.start_s["report"] + REPORT_S_PER_VARIANT * len(work.params.variants)
    return Row("report", "", 1, 0, seconds, f"not measured: {REPORT_S_PER_VARIANT:g} s a variant")
