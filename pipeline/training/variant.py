"""All the seeds of one variant, one after another."""

from pathlib import Path

from pipeline import paths
from pipeline.checksums import SUMS, verify
from pipeline.data.store import Store
from pipeline.errors import UserError
from pipeline.files import require
from pipeline.params import Params, Settings, read_yaml
from pipeline.training import world
from pipeline.training.run import Run, publish, train


def variant_settings(params: Params, name: str) -> Settings:
    """The variant's settings; where it takes its learning rate and weight decay from a tuned recipe, with these."""
    variant = params.require_variant(name)
    if variant.recipe_from == paths.PAPER_RECIPE:
        return params.settings(name)
    verify(Path(variant.recipe_from))
    best = read_yaml(Path(variant.recipe_from))
    if not isinstance(best, dict) or set(best) != {"train"}:
        raise UserError(f"{variant.recipe_from}: accepted is one key, train, as the tune stage writes it; run it again")
    return params.settings(name, best)


def variant_runs(params: Params, name: str) -> list[Run]:
    """One for each seed."""
    settings = variant_settings(params, name)
    store = Store.open(paths.data(params.data.dataset))
    section = params.variants[name].section
    return [Run(params.scale, name, section, seed, settings, store, params.hardware) for seed in params.seeds]


def train_variant(params: Params, name: str) -> None:
    """Train every seed that is not finished yet, and write all of them to the variant's folder under runs/."""
    runs = variant_runs(params, name)
    paths.train(params.scale, name).mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    for run in runs:
        train(run)
        if world.first():
            publish(run, paths.seed(params.scale, name, run.seed))
    world.agreed(lambda: None)  # all wait for the first process, which writes
    require(*(paths.seed(params.scale, name, seed) / SUMS for seed in params.seeds))
