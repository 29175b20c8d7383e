"""All runs of a configuration: every seed of every variant, many side by side."""

import json
import socket
import time
from functools import partial
from pathlib import Path

from pipeline import paths
from pipeline.data.store import TRAINED_ON, Store
from pipeline.errors import UserError
from pipeline.paper.net import shapes
from pipeline.params import Params, Settings, read_yaml
from pipeline.runtime.checksums import SUMS, verify
from pipeline.runtime.files import require, write_json
from pipeline.training import distributed
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, RUN, Run, finished, publish, train

PROCESS_BYTES = 700 << 20  # of one that has imported torch and Lightning
BYTES_PER_PARAMETER = 24  # weight, gradient, velocity, and the copy of a checkpoint that waits to be written
ABOUT = ".json"  # a file beside a run's folder: what the run is, for who shows it while it trains
DATA_FACTS = {"dataset", "image_size", "channels", "counts", "sha256"}
BYTES_PER_NEURON = 20  # for each image of a batch: activity, gradient, and what pooling and normalization keep


def variant_settings(params: Params, name: str) -> Settings:
    """The variant's settings; where it names a study, with the learning rate (and weight decay) that this chose."""
    study = params.require_variant(name).study
    if study is None:
        return params.settings(name)
    path = paths.tune(params.scale, study) / "best.yaml"
    verify(path)
    if not path.exists():
        raise UserError(f"{path}: is not there, and {name} takes its values; run `dvc repro tune`")
    best = read_yaml(path)
    if not isinstance(best, dict) or set(best) != {"train"}:
        raise UserError(f"{path}: accepted is one key, train, as the tune stage writes it; run it again")
    return params.settings(name, best)


def variant_runs(params: Params, name: str) -> list[Run]:
    """One for each seed of a variant."""
    settings = variant_settings(params, name)
    store = Store.open(paths.data(params.data.dataset))
    section = params.variants[name].section
    return [Run(params.scale, name, section, seed, settings, store, params.hardware) for seed in params.seeds_of(name)]


def unfinished_runs(params: Params) -> list[Run]:
    """Those that have to be trained; of several that are the same run, the first."""
    found: dict[str, Run] = {}
    for name in params.variants:
        for run in variant_runs(params, name):
            if run.fingerprint not in found and not finished(run):
                found[run.fingerprint] = run
    return list(found.values())


def train_all(params: Params) -> None:
    """Train every run that is not finished, and write all runs to runs/<scale>/train."""
    paths.trained(params.scale).mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    pending = unfinished_runs(params)
    if pending:
        tasks = [Task(str(run), partial(train_one, run), run.settings.train.epochs) for run in pending]
        largest = max(bytes_of(run.settings) for run in pending)
        run_tasks(tasks, params.hardware, largest, f"{params.scale} train", "epoch", says=str)
    runs = [run for name in params.variants for run in variant_runs(params, name)]
    if distributed.is_global_zero():
        for run in runs:
            publish(run, paths.seed(params.scale, run.variant, run.seed))
        write_json(paths.trained(params.scale) / TRAINED_ON, runs[0].store.meta.model_dump(include=DATA_FACTS))
    if pending:
        distributed.agreed(lambda: None)  # all wait for the first process, which writes
    require(*(paths.seed(params.scale, run.variant, run.seed) / SUMS for run in runs))


def train_one(run: Run, tell: Tell) -> str:
    """Train one run. Returns how it ended, in a few words; raises Busy where another process is at it."""
    if distributed.is_global_zero():
        announce(run)
    folder = train(run, tell=tell, wait=distributed.size() > 1)
    return distributed.agreed(lambda: _ending(folder))  # of several processes the first writes, and the others wait


def _ending(folder: Path) -> str:
    facts = json.loads((folder / RUN).read_text())
    if facts["status"] != "finished":
        return "failed, since its loss was no number any more"
    last = (folder / HISTORY).read_text().splitlines()[-1].split(",")
    return f"{facts['epochs']} epochs, validation error {float(last[5]):.1f} %"


def announce(run: Run, kind: str = "training") -> None:
    """Say beside the run's folder what it is, since its own files say so only once it is finished."""
    facts = {name: getattr(run, name) for name in ("fingerprint", "scale", "variant", "section", "seed")}
    facts |= {
        "kind": kind,
        "settings": run.settings.model_dump(),
        "data": run.store.meta.model_dump(include=DATA_FACTS),
    }
    facts |= {"machine": socket.gethostname(), "started_ms": int(time.time() * 1000)}
    write_json(run.folder.with_suffix(ABOUT), facts)


def bytes_of(settings: Settings) -> int:
    """An upper estimate of the memory that a run takes on a CPU, its process included."""
    if settings.net.architecture != "alexnet":
        return PROCESS_BYTES
    layers = shapes(settings.net, 1000)
    parameters, neurons = sum(layer.parameters for layer in layers), sum(layer.neurons for layer in layers)
    return PROCESS_BYTES + BYTES_PER_PARAMETER * parameters + BYTES_PER_NEURON * neurons * settings.train.batch_images
