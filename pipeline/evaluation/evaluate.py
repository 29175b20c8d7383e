"""Measure every trained net and write what was found. What was measured before is kept, and not measured again."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline import paths
from pipeline.data.loader import View, one_crop, ten_crops
from pipeline.data.store import SPLITS, SplitName, Store
from pipeline.errors import UserError
from pipeline.evaluation.analyses import analyze, rounded
from pipeline.evaluation.ensembles import ensemble_errors
from pipeline.evaluation.metrics import mean_of, metrics
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
MEASURED, PREDICTIONS, ANALYSES, PROBABILITIES = (
    "measured.json",
    "predictions.parquet",
    "analyses.json",
    "probabilities.safetensors",
)
TASK_BYTES = 1 << 30  # of memory, for a process that evaluates
MAIN_VARIANTS = 10  # whose test error is among DVC's metrics


@dataclass(frozen=True)
class Evaluation:
    """One trained net, and what is to be asked of it."""

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
        """Where what was measured is kept, whichever scales and variants share the run."""
        return paths.state() / "evaluations" / self.key


def evaluate_all(params: Params) -> None:
    """Measure every run of the configuration, and write `evaluation/<variant>/` and `metrics.json`.

    Training images are seen as test images are: without noise. Analyses are of the variants that params name.
    """
    store = Store.open(paths.data(params.data.dataset))
    found = {variant: _evaluations(params, variant, store) for variant in params.variants}
    every = (one for ones in found.values() for one in ones.values() if one is not None)
    pending: dict[str, Evaluation] = {}
    for one in every:
        if not _is_kept(one):
            pending.setdefault(one.key, one)
    tasks = [Task(one.name, partial(measure, one)) for one in pending.values()]
    run_tasks(tasks, params.hardware.of_one_process, TASK_BYTES, f"{params.scale} evaluate", "run")
    means = {variant: _write(params, variant, ones, store) for variant, ones in found.items()}
    write_json(paths.metrics(params.scale), _main_figures(means))


def _evaluations(params: Params, variant: str, store: Store) -> dict[int, Evaluation | None]:
    """By seed; None where the run failed."""
    return {seed: _evaluation(params, variant, seed, store) for seed in params.seeds}


def _evaluation(params: Params, variant: str, seed: int, store: Store) -> Evaluation | None:
    folder = paths.seed(params.scale, variant, seed)
    facts = _facts(folder / "run.json")
    if facts["status"] != "finished":
        return None
    settings = Settings.model_validate(facts["settings"])
    ten_crop, analyzed = variant in params.evaluate.ten_crop, variant in params.evaluate.analyses
    hardware, batch_images = params.hardware.of_one_process, params.evaluate.batch_images
    key = digest(
        {
            "run": facts["fingerprint"],
            "data": store.meta.sha256,
            "asked": [ten_crop, analyzed, batch_images],
            "threads": hardware.thread_count,
            "device": kind_of_device(hardware.accelerator),
            "code": code_of((START, MODULES[settings.net.architecture]), DECIDE_NOTHING),
        }
    )
    name = f"{params.scale} {variant}, seed {seed}"
    return Evaluation(name, folder, seed, settings, store, ten_crop, analyzed, batch_images, hardware, key)


def _is_kept(one: Evaluation) -> bool:
    names = [MEASURED, PREDICTIONS, *((ANALYSES, PROBABILITIES) if one.analyzed else ())]
    return (one.kept / SUMS).exists() and not any(damage(one.kept / name) for name in names)


def measure(one: Evaluation, tell: Tell) -> None:
    """Ask the net of every image, and keep what it says. Raises UserError where it cannot be asked."""
    with locked(one.kept.with_suffix(".lock"), one.name, wait=False):
        if _is_kept(one):
            return
        set_threads(one.hardware.thread_count)
        set_arithmetic("32-true")  # whatever a net was trained with
        net = _load(one)
        measured: dict[str, Any] = {"status": "finished"}
        tables = []
        with replacing_folder(one.kept) as folder:
            for split, views, probabilities in _predictions(one, net):
                table = prediction_table(probabilities, torch.from_numpy(one.store.split(split).labels))
                measured.setdefault(split, {})[views] = metrics(table)
                tables.append(table.assign(split=split, views=views))
                if one.analyzed and (split, views) == ("test", "one_crop"):
                    save_file({"test": probabilities}, folder / PROBABILITIES)
            pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS, index=False)
            write_json(folder / MEASURED, measured)
            if one.analyzed:
                found = analyze(net, one.store, one.settings.net.crop_px, one.seed, one.batch_images)
                write_json(folder / ANALYSES, rounded(found))
            write_sums(folder, MEASURED, PREDICTIONS, ANALYSES, PROBABILITIES)


def _predictions(one: Evaluation, net: nn.Module) -> Iterator[tuple[SplitName, str, Tensor]]:
    """What the net says of every image, by split and views: class probabilities."""
    image_size, crop_px = one.store.meta.image_size, one.settings.net.crop_px
    looks: list[tuple[SplitName, str, list[View]]] = [
        (split, "one_crop", one_crop(image_size, crop_px)) for split in SPLITS
    ]
    if one.ten_crop:
        looks.append(("test", "ten_crop", ten_crops(image_size, crop_px)))
    for split, name, views in looks:
        try:
            probabilities = class_probabilities(net, one.store, split, crop_px, views, one.batch_images)
        except ValueError as error:
            raise UserError(f"{one.folder}: {error}; remove it, and `dvc repro` trains it again") from error
        yield split, name, probabilities


def _write(params: Params, variant: str, ones: dict[int, Evaluation | None], store: Store) -> dict[SplitName, Any]:
    """One variant's `seeds.json`, `predictions.parquet` and `analyses.json`. Returns the means over finished seeds."""
    out = paths.evaluation(params.scale, variant)
    shutil.rmtree(out, ignore_errors=True)
    by_seed: dict[str, Any] = {str(seed): {"status": "failed"} for seed, one in ones.items() if one is None}
    tables, analyses, probabilities = [], {}, {}
    for seed, one in ones.items():
        if one is None:
            continue
        by_seed[str(seed)] = json.loads((one.kept / MEASURED).read_text())
        table = pd.read_parquet(one.kept / PREDICTIONS)
        columns = [*table.columns.drop(["split", "views"]), "seed", "split", "views"]
        tables.append(table.assign(seed=pd.Series(seed, table.index, "int16"))[columns])
        if one.analyzed:
            analyses[str(seed)] = json.loads((one.kept / ANALYSES).read_text())
            probabilities[seed] = load_file(one.kept / PROBABILITIES)["test"]
    found: dict[str, Any] = {"seeds": analyses} if analyses else {}
    if probabilities:
        labels = torch.from_numpy(store.split("test").labels)
        found["ensembles"] = rounded(ensemble_errors(probabilities, labels))
    out.mkdir(parents=True)
    with replacing(out / PREDICTIONS) as temporary:
        pd.concat(tables or [pd.DataFrame()], ignore_index=True).to_parquet(temporary, index=False)
    write_json(out / "seeds.json", {seed: by_seed[seed] for seed in map(str, ones)})
    write_json(out / ANALYSES, found)
    write_sums(out, PREDICTIONS, "seeds.json", ANALYSES)
    return mean_of([{split: seed[split] for split in SPLITS} for seed in by_seed.values() if "test" in seed])


def _main_figures(means: dict[str, dict[SplitName, Any]]) -> dict[str, Any]:
    """What DVC shows: the baseline's errors, and the top-1 test error of the first variants. In percent."""
    baseline = {
        f"{split}_{views}_{name}": value
        for split, by_views in means.get("baseline", {}).items()
        for views, values in by_views.items()
        for name, value in values.items()
        if name == "error_top1" or (split == "test" and name == "error_top5")
    }
    shown = list(means)[:MAIN_VARIANTS]
    tests = {name: means[name]["test"]["one_crop"]["error_top1"] for name in shown if "test" in means[name]}
    return {"baseline": baseline, "test_error_top1": tests}


def _facts(path: Path) -> dict[str, Any]:
    try:
        verify(path)
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the train stage again") from error


def _load(one: Evaluation) -> nn.Sequential:
    path = one.folder / "model.safetensors"
    try:
        verify(path)
        return load_net(path, one.settings, len(one.store.meta.classes)).to(device(one.hardware.accelerator))
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be loaded ({problem:.200}); run the train stage again") from error
