"""Measure all seeds of a variant and write what was found."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from pipeline import paths, stage_times
from pipeline.checksums import verify, write_sums
from pipeline.data.store import SPLITS, SplitName, Store
from pipeline.errors import UserError
from pipeline.evaluation.analyses import analyse, rounded
from pipeline.evaluation.ensembles import ensemble_errors
from pipeline.evaluation.metrics import mean_of, metrics
from pipeline.evaluation.predict import class_probabilities, load_net, prediction_table
from pipeline.files import replacing, write_json
from pipeline.hardware import device, set_arithmetic, set_threads
from pipeline.input.batches import View, one_crop, ten_crops
from pipeline.params import Hardware, Params, Settings


def evaluate_variant(params: Params, variant: str) -> None:
    """Write `seeds.json`, `predictions.parquet`, `analyses.json`, and means over finished seeds as `metrics.json`.

    Training images are seen as test images are: without noise. Analyses are of the variants that params name.
    """
    params.require_variant(variant)
    set_threads(params.hardware)
    set_arithmetic("32-true")  # whatever a net was trained with
    store = Store.open(paths.data(params.data.dataset))
    out = paths.evaluation(params.scale, variant)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    by_seed: dict[str, Any] = {}
    tables = []
    analysed = variant in params.evaluate.analyses
    analyses: dict[str, Any] = {}
    test_probabilities: dict[int, Tensor] = {}
    for seed in tqdm(params.seeds, desc=f"evaluate {variant}", unit="seed"):
        folder = paths.seed(params.scale, variant, seed)
        facts = _facts(folder / "run.json")
        measured: dict[str, Any] = {"status": facts["status"]}
        if facts["status"] == "finished":
            settings = Settings.model_validate(facts["settings"])
            net = _load(folder / "model.safetensors", settings, store, params.hardware)
            for split, views, probabilities in _predictions(params, variant, store, net, settings.net.crop_px):
                table = prediction_table(probabilities, torch.from_numpy(store.split(split).labels))
                measured.setdefault(split, {})[views] = metrics(table)
                tables.append(table.assign(seed=pd.Series(seed, table.index, "int16"), split=split, views=views))
                if analysed and (split, views) == ("test", "one_crop"):
                    test_probabilities[seed] = probabilities
            if analysed:
                with stage_times.working():
                    found = analyse(net, store, settings.net.crop_px, seed, params.evaluate.batch_images)
                analyses.setdefault("seeds", {})[str(seed)] = found
        by_seed[str(seed)] = measured
    if test_probabilities:
        labels = torch.from_numpy(store.split("test").labels)
        analyses["ensembles"] = ensemble_errors(test_probabilities, labels)
    _write(out, by_seed, tables, analyses)
    finished = [{split: values[split] for split in SPLITS} for values in by_seed.values() if "test" in values]
    write_json(paths.metrics(params.scale, variant), mean_of(finished))


def _write(out: Path, by_seed: dict[str, Any], tables: list[pd.DataFrame], analyses: dict[str, Any]) -> None:
    with replacing(out / "predictions.parquet") as temporary:
        pd.concat(tables or [pd.DataFrame()], ignore_index=True).to_parquet(temporary, index=False)
    write_json(out / "seeds.json", by_seed)
    write_json(out / "analyses.json", rounded(analyses))
    write_sums(out, "predictions.parquet", "seeds.json", "analyses.json")


def _predictions(
    params: Params, variant: str, store: Store, net: nn.Module, crop_px: int
) -> Iterator[tuple[SplitName, str, Tensor]]:
    """What one seed's net says of every image, by split and views: class probabilities."""
    canvas_px = store.meta.canvas_px
    looks: list[tuple[SplitName, str, list[View]]] = [
        (split, "one_crop", one_crop(canvas_px, crop_px)) for split in SPLITS
    ]
    if variant in params.evaluate.ten_crop:
        looks.append(("test", "ten_crop", ten_crops(canvas_px, crop_px)))
    for split, name, views in looks:
        with stage_times.working():
            try:
                probabilities = class_probabilities(net, store, split, crop_px, views, params.evaluate.batch_images)
            except ValueError as error:
                folder = paths.train(params.scale, variant)
                raise UserError(f"{folder}: {error}; `dvc repro -f train@{variant}` trains it again") from error
        yield split, name, probabilities


def _facts(path: Path) -> dict[str, Any]:
    try:
        verify(path)
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the train stage again") from error


def _load(path: Path, settings: Settings, store: Store, hardware: Hardware) -> nn.Sequential:
    try:
        verify(path)
        return load_net(path, settings, len(store.meta.classes)).to(device(hardware))
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be loaded ({problem:.200}); run the train stage again") from error
