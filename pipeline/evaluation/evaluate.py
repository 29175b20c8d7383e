"""Measures every trained net and writes what was found. What was measured before is kept, and not measured again."""

import json
import math
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline import paths
from pipeline.data.loader import View, one_crop, ten_crops
from pipeline.data.store import SPLITS, SplitName, Store
from pipeline.errors import UserError
from pipeline.evaluation.dropout_ensemble import halved_against_dropout_nets
from pipeline.evaluation.ensembles import ensemble_errors
from pipeline.evaluation.filter_color import color_by_column
from pipeline.evaluation.metrics import mean_of, metrics
from pipeline.evaluation.nearest_neighbors import nearest_training_images
from pipeline.evaluation.off_center import error_when_shifted
from pipeline.evaluation.predict import class_probabilities, load_net, prediction_table
from pipeline.models import MODULES
from pipeline.params import Hardware, Params, Settings
from pipeline.runtime.checksums import SUMS, damage, verify, write_sums
from pipeline.runtime.files import replacing, replacing_folder, write_json
from pipeline.runtime.hardware import device, kind_of_device, set_arithmetic, set_threads
from pipeline.runtime.locks import locked
from pipeline.runtime.source_code import code_of, digest
from pipeline.training.pool import Task, Tell, run_tasks

START = "pipeline.evaluation.evaluate"
DECIDE_NOTHING = frozenset(
    {
        *("pipeline.params", "pipeline.paths", "pipeline.errors", "pipeline.models", "pipeline.data.store"),
        *(f"pipeline.runtime.{name}" for name in ("checksums", "cores", "exit_status", "files", "launcher", "locks")),
        *("pipeline.runtime.signals", "pipeline.runtime.source_code", "pipeline.training.pool"),
    }
)
MEASURED, PREDICTIONS, ANALYSES = "measured.json", "predictions.parquet", "analyses.json"
PROBABILITIES = "probabilities.safetensors"
TASK_BYTES = 1 << 30  # of memory, for a process that evaluates
METRICS: dict[str, tuple[SplitName, str, str]] = {  # DVC's, of the baseline: split, views and metric, in %
    "val_error_top1": ("val", "one_crop", "error_top1"),
    "test_error_top1": ("test", "one_crop", "error_top1"),
    "test_error_top5": ("test", "one_crop", "error_top5"),
    "ten_crop": ("test", "ten_crop", "error_top1"),
}
OTHERS = 5  # variants whose test error is among DVC's metrics too: with more the table is wider than a terminal
DECIMALS = 4  # of what an analysis finds, so that a file's bytes do not depend on the last bits


@dataclass(frozen=True)
class Evaluation:
    """One trained net, and what is asked of it."""

    name: str
    folder: Path  # of the run
    seed: int
    settings: Settings
    store: Store
    ten_crop: bool
    analyzed: bool
    batch_images: int
    hardware: Hardware
    key: str

    @property
    def kept(self) -> Path:
        """The folder that keeps what was measured, for all scales and variants that share the run."""
        return paths.state() / "evaluations" / self.key

    @property
    def is_kept(self) -> bool:
        names = [MEASURED, PREDICTIONS, *((ANALYSES, PROBABILITIES) if self.analyzed else ())]
        return (self.kept / SUMS).exists() and not any(damage(self.kept / name) for name in names)


def evaluate_all(params: Params) -> None:
    """Measure every run of the configuration, and write `evaluation/<variant>/` and `metrics.json`.

    Training images are seen as test images are: without noise. Analyses are made of the variants that params name.
    """
    store = Store.open(paths.data(params.data.dataset))
    found = {
        name: {seed: _evaluation(params, name, seed, store) for seed in params.seeds_of(name)}
        for name in params.variants
    }
    pending: dict[str, Evaluation] = {}
    for ones in found.values():
        for one in ones.values():
            if one is not None and not one.is_kept:
                pending.setdefault(one.key, one)
    tasks = [Task(one.name, partial(measure, one)) for one in pending.values()]
    run_tasks(tasks, params.hardware.of_one_process, TASK_BYTES, f"{params.scale} evaluate", "run")
    means = {variant: _write(params, variant, ones, store) for variant, ones in found.items()}
    baseline = means.pop("baseline", {})
    shown = {
        key: baseline[split][views][metric]
        for key, (split, views, metric) in METRICS.items()
        if views in baseline.get(split, {})
    }
    others = {name: mean["test"]["one_crop"]["error_top1"] for name, mean in list(means.items())[:OTHERS] if mean}
    write_json(paths.metrics(params.scale), shown | {"test": others})


def _evaluation(params: Params, variant: str, seed: int, store: Store) -> Evaluation | None:
    """Return what is to be asked of a run's net; None where the run failed."""
    folder = paths.seed(params.scale, variant, seed)
    try:
        verify(folder / "run.json")
        facts = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'run.json'}: cannot be read ({error}); run the train stage again") from error
    if facts["status"] != "finished":
        return None
    settings = Settings.model_validate(facts["settings"])
    ten_crop, analyzed = variant in params.evaluate.ten_crop, variant in params.evaluate.analyses
    hardware, batch_images = params.hardware.of_one_process, params.evaluate.batch_images
    identity = {
        "run": facts["fingerprint"],
        "data": store.meta.sha256,
        "asked": [ten_crop, analyzed, batch_images],
        "threads": hardware.thread_count,
        "device": kind_of_device(hardware.accelerator),
        "code": code_of((START, MODULES[settings.net.architecture]), DECIDE_NOTHING),
    }
    name, key = f"{params.scale} {variant}, seed {seed}", digest(identity)
    return Evaluation(name, folder, seed, settings, store, ten_crop, analyzed, batch_images, hardware, key)


def measure(one: Evaluation, tell: Tell) -> None:
    """Show the net every image, and keep its answers. Raises UserError where it has none."""
    image_size, crop_px = one.store.meta.image_size, one.settings.net.crop_px
    looks: list[tuple[SplitName, str, list[View]]]
    looks = [(split, "one_crop", one_crop(image_size, crop_px)) for split in SPLITS]
    looks += [("test", "ten_crop", ten_crops(image_size, crop_px))] if one.ten_crop else []
    with locked(one.kept.with_suffix(".lock"), one.name, wait=False):
        if one.is_kept:
            return
        set_threads(one.hardware.thread_count)
        set_arithmetic("32-true")  # whatever a net was trained with
        weights = one.folder / "model.safetensors"
        try:
            verify(weights)
            net = load_net(weights, one.settings, len(one.store.meta.classes)).to(device(one.hardware.accelerator))
        except (OSError, SafetensorError, RuntimeError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"{weights}: cannot be loaded ({problem:.200}); run the train stage again") from error
        measured: dict[str, Any] = {"status": "finished"}
        tables = []
        with replacing_folder(one.kept) as folder:
            for split, name, views in looks:
                try:
                    probabilities = class_probabilities(net, one.store, split, crop_px, views, one.batch_images)
                except ValueError as error:
                    raise UserError(f"{one.folder}: {error}; remove it, and `dvc repro` trains it again") from error
                table = prediction_table(probabilities, torch.from_numpy(one.store.split(split).labels))
                measured.setdefault(split, {})[name] = metrics(table)
                tables.append(table.assign(split=split, views=name))
                if one.analyzed and (split, name) == ("test", "one_crop"):
                    save_file({"test": probabilities}, folder / PROBABILITIES)
            pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS, index=False)
            write_json(folder / MEASURED, measured)
            if one.analyzed:
                write_json(folder / ANALYSES, rounded(analyze(net, one.store, crop_px, one.seed, one.batch_images)))
            write_sums(folder, MEASURED, PREDICTIONS, ANALYSES, PROBABILITIES)


def analyze(net: nn.Module, store: Store, crop_px: int, seed: int, batch_images: int) -> dict[str, Any]:
    """Return what the paper says about a net beyond its errors (sections 4.2 and 6.1), under the claims' names.

    What cannot be measured on the net holds a `reason` and nothing else.
    """
    return {
        "nn_4096": nearest_training_images(net, store, crop_px, batch_images),
        "off_centre": error_when_shifted(net, store, crop_px, batch_images),
        "dropout_test_half": halved_against_dropout_nets(net, store, crop_px, seed, batch_images),
        "gpu_specialisation": color_by_column(net, store, seed),
    }


def rounded(tree: Any) -> Any:
    """Return the tree with its floats rounded to DECIMALS. Raises ValueError at a float that is not finite."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        raise ValueError("an analysis came to what is not a number")
    return round(tree, DECIMALS) if isinstance(tree, float) else tree


def _write(params: Params, variant: str, ones: dict[int, Evaluation | None], store: Store) -> dict[SplitName, Any]:
    """Write one variant's `seeds.json`, `predictions.parquet` and `analyses.json`.

    Returns the mean metrics over finished seeds, by split and views.
    """
    out = paths.evaluation(params.scale, variant)
    by_seed: dict[str, Any] = {}
    tables, analyses, probabilities = [], {}, {}
    for seed, one in ones.items():
        if one is None:
            by_seed[str(seed)] = {"status": "failed"}
            continue
        by_seed[str(seed)] = json.loads((one.kept / MEASURED).read_text())
        table = pd.read_parquet(one.kept / PREDICTIONS)
        columns = [*table.columns.drop(["split", "views"]), "seed", "split", "views"]
        tables.append(table.assign(seed=pd.Series(seed, table.index, "int16"))[columns])
        if one.analyzed:
            analyses[str(seed)] = json.loads((one.kept / ANALYSES).read_text())
            probabilities[seed] = load_file(one.kept / PROBABILITIES)["test"]
    found: dict[str, Any] = {}
    if analyses:
        labels = torch.from_numpy(store.split("test").labels)
        found = {"seeds": analyses, "ensembles": rounded(ensemble_errors(probabilities, labels))}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with replacing(out / PREDICTIONS) as temporary:
        pd.concat(tables or [pd.DataFrame()], ignore_index=True).to_parquet(temporary, index=False)
    write_json(out / "seeds.json", by_seed)
    write_json(out / ANALYSES, found)
    write_sums(out, PREDICTIONS, "seeds.json", ANALYSES)
    return mean_of([{split: seed[split] for split in SPLITS} for seed in by_seed.values() if "test" in seed])
