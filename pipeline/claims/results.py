"""Everything the report is made from, read into tables. The report lists what is missing."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.claims.crossed import errors_by_seed
from pipeline.errors import UserError
from pipeline.evaluation.metrics import median_seed
from pipeline.paper.claims import Key, Side, Views
from pipeline.params import Params, read_yaml
from pipeline.runtime.checksums import damage, verify
from pipeline.runtime.escaping import escaped

ERROR_COLUMNS = ["variant", "seed", "split", "views", "metric", "value"]
HISTORY_COLUMNS = ["epoch", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5"]
NO_HISTORY = ["variant", "seed", *HISTORY_COLUMNS]
TRIAL_COLUMNS = ["number", "state", "lr", "weight_decay", "objective", "value", "epochs"]
PREDICTION_COLUMNS = ["seed", "split", "views", "index", "rank", "p_label"]
PREDICTION_TYPES = {"seed": "int32", "index": "int32", "rank": "int16"}


@dataclass(frozen=True)
class Results:
    params: Params
    root: Path
    errors: pd.DataFrame  # ERROR_COLUMNS, in percent
    histories: pd.DataFrame  # history.csv with variant and seed in front
    runs: pd.DataFrame  # one row for each run.json
    trials: dict[str, pd.DataFrame]  # trials.csv of each study
    chosen: dict[str, dict[str, float]]  # what the best.yaml of each study sets
    analyses: dict[str, dict[str, Any]]  # analyses.json of each variant that has one
    meta: dict[str, Any]  # meta.json
    missing: list[str]
    loaded: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)  # predictions that were read, by variant
    _on_images: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> list[str]:
        return list(self.meta.get("classes", []))

    def of_common_seeds(self, *variants: str) -> "Results":
        """Return the results of those seeds alone that all the variants are trained with."""
        common = set.intersection(*(set(self.params.seeds_of(variant)) for variant in variants))
        seeds = [seed for seed in self.params.seeds_of(variants[0]) if seed in common]
        return replace(self, params=self.params.with_seeds(seeds))

    def by_seed(self, side: Side, metric: str) -> pd.Series:
        """Return one arm's values, one for each seed of its variant; NaN where a run failed or is missing."""
        errors = self.errors
        chosen = errors[
            (errors["variant"] == side.variant)
            & (errors["split"] == side.split)
            & (errors["views"] == side.views)
            & (errors["metric"] == metric)
        ]
        return chosen.set_index("seed")["value"].astype(float).reindex(self.params.seeds_of(side.variant))

    def on_images(self, side: Side, key: Key) -> np.ndarray:
        """Return one arm's errors on each image, 0 or 100 %: (seeds, images). NaN where a seed has no result."""
        seeds = self.params.seeds_of(side.variant)
        name = f"{side} {key} {seeds}"
        if name not in self._on_images:
            predictions = self.predictions(side.variant)
            top = 5 if key == "top5" else 1
            try:
                errors = errors_by_seed(predictions, seeds, split=side.split, views=side.views, top=top)
            except (KeyError, ValueError) as error:
                self.missing.append(f"{escaped(side)}: predictions cannot be used ({escaped(str(error)[:100])})")
                errors = np.full((len(seeds), 1), np.nan)
            partly = np.isnan(errors).any(1) & ~np.isnan(errors).all(1)
            for seed in np.asarray(seeds)[partly]:
                self.missing.append(f"{escaped(side)}, seed {seed}: predictions of some images are missing")
            errors[self.by_seed(side, f"error_{key}").isna().to_numpy()] = np.nan
            self._on_images[name] = errors
        return self._on_images[name]

    def predictions(self, variant: str) -> pd.DataFrame:
        """Return what the variant's nets said of each image: PREDICTION_COLUMNS, and no row where there is none."""
        if variant not in self.loaded:
            path = self.root / paths.evaluation(self.params.scale, variant) / "predictions.parquet"
            self.loaded[variant] = _parquet(path, self.root, self.missing)
        return self.loaded[variant]

    def run_fact(self, variant: str, name: str) -> pd.Series:
        """Return what run.json says of each finished run of the variant, by seed; NaN where there is none."""
        runs = self.runs[(self.runs["variant"] == variant) & (self.runs["status"] == "finished")]
        return runs.reindex(columns=["seed", name]).set_index("seed")[name].reindex(self.params.seeds_of(variant))

    def has(self, variant: str) -> bool:
        """Return whether any seed of the variant was evaluated, or failed before it could be."""
        failed = self.runs[self.runs["status"] == "failed"]
        return variant in set(self.errors["variant"]) | set(failed["variant"])

    def median_seed(self, variant: str) -> int | None:
        """Return the seed that stands for the variant in figures; None where no seed is evaluated."""
        errors = self.by_seed(Side(variant=variant, split="val"), "error_top1").dropna()
        return median_seed(dict(zip(map(int, errors.index), errors, strict=True)))


def collect(params: Params, root: Path) -> Results:
    """Read the results of the variants that `params` lists, below `root`."""
    missing: list[str] = []
    errors, histories, runs = [], [], []
    for variant in params.variants:
        errors += _errors(params, root, variant, missing)
        for seed in params.seeds_of(variant):
            folder = root / paths.seed(params.scale, variant, seed)
            facts = _json(folder / "run.json", root, missing)
            if facts:
                runs.append({"status": "unknown", **facts, "variant": variant, "seed": seed})
            history = _csv(folder / "history.csv", HISTORY_COLUMNS, root, missing)
            if history is not None and not history.empty:  # a run can diverge in its first epoch
                history.insert(0, "variant", variant)
                history.insert(1, "seed", seed)
                histories.append(history)
    studies = {study: root / paths.tune(params.scale, study) for study in params.studies}
    trials = {study: _csv(folder / "trials.csv", TRIAL_COLUMNS, root, missing) for study, folder in studies.items()}
    analyzed = [variant for variant in params.evaluate.analyses if variant in params.variants]
    return Results(
        params=params,
        root=root,
        errors=pd.DataFrame(errors, columns=ERROR_COLUMNS),
        histories=pd.concat(histories, ignore_index=True) if histories else pd.DataFrame(columns=NO_HISTORY),
        runs=pd.DataFrame(runs) if runs else pd.DataFrame(columns=["variant", "seed", "status"]),
        trials={study: table for study, table in trials.items() if table is not None},
        chosen={study: _chosen(folder / "best.yaml", root, missing) for study, folder in studies.items()},
        analyses={
            variant: _json(root / paths.evaluation(params.scale, variant) / "analyses.json", root, missing)
            for variant in analyzed
        },
        meta=_json(root / paths.data(params.data.dataset) / "meta.json", root, missing),
        missing=missing,
    )


def _errors(params: Params, root: Path, variant: str, missing: list[str]) -> list[dict[str, Any]]:
    path = root / paths.evaluation(params.scale, variant) / "seeds.json"
    seeds = _json(path, root, missing)
    rows: list[dict[str, Any]] = []
    for seed in params.seeds_of(variant) if seeds else []:
        found, of_seed = seeds.get(str(seed)), f"{escaped(variant)}, seed {seed}"
        if found is None:
            missing.append(f"{of_seed}: not in `{path.relative_to(root)}`")
        elif not isinstance(found, dict):
            missing.append(f"{of_seed}: is no table in `{path.relative_to(root)}`")
        elif found.get("status") != "finished":
            status = escaped(found.get("status", "has no status"))
            missing.append(f"{of_seed}: the run {status} {_failure(params, root, variant, seed)}".rstrip())
        else:
            for split, views, metric, value in _leaves(found):
                number = float(value) if isinstance(value, int | float) else math.nan
                if not math.isfinite(number):
                    missing.append(f"{of_seed}: {escaped(f'{split} {views} {metric}')} is not a number")
                    number = math.nan
                rows.append(dict(zip(ERROR_COLUMNS, (variant, seed, split, views, metric, number), strict=True)))
    return rows


def _leaves(found: dict[str, Any]) -> Iterator[tuple[str, Views, str, Any]]:
    """Yield (split, views, metric, value) of one seed of seeds.json."""
    for split in ("train", "val", "test"):
        by_views = found.get(split)
        for views, metrics in by_views.items() if isinstance(by_views, dict) else []:
            for metric, value in metrics.items() if isinstance(metrics, dict) else []:
                yield split, views, metric, value


def _failure(params: Params, root: Path, variant: str, seed: int) -> str:
    facts = _json(root / paths.seed(params.scale, variant, seed) / "run.json", root, [])
    failure = facts.get("failure")
    if not isinstance(failure, dict):
        return ""
    step, lr, norm = (failure.get(name) for name in ("step", "lr", "gradient_norm"))
    return escaped(f"at step {step} (learning rate {lr}, gradient norm {norm})")


def missing_file(path: Path, root: Path) -> str:
    """Return what the report says of a file that it does not use."""
    return f"`{path.relative_to(root)}` {escaped(damage(path) or 'is missing or cannot be read')}"


def _chosen(path: Path, root: Path, missing: list[str]) -> dict[str, float]:
    try:
        verify(path)
        return dict(read_yaml(path)["train"])
    except (UserError, KeyError, TypeError, ValueError):
        missing.append(missing_file(path, root))
        return {}


def _parquet(path: Path, root: Path, missing: list[str]) -> pd.DataFrame:
    """Return PREDICTION_COLUMNS. A seed with a prediction that is not a number is named in `missing` and left out."""
    try:
        verify(path)
        table = pd.read_parquet(path, columns=PREDICTION_COLUMNS)
        damaged = table.loc[table[["rank", "p_label"]].isna().any(axis=1), "seed"].unique()
        sound = table[~table["seed"].isin(damaged)].astype(PREDICTION_TYPES)
    except (OSError, ValueError, TypeError, UserError):
        missing.append(missing_file(path, root))
        return pd.DataFrame(columns=PREDICTION_COLUMNS)
    for seed in damaged:
        missing.append(f"`{path.relative_to(root)}`, seed {seed}: a prediction is not a number")
    return sound


def _json(path: Path, root: Path, missing: list[str]) -> dict[str, Any]:
    with suppress(OSError, ValueError, UserError):
        verify(path)
        value = json.loads(path.read_text())
        if isinstance(value, dict):
            return value
    missing.append(missing_file(path, root))
    return {}


def _csv(path: Path, columns: list[str], root: Path, missing: list[str]) -> pd.DataFrame | None:
    try:
        verify(path)
        table = pd.read_csv(path)
    except (OSError, ValueError, UserError):
        missing.append(missing_file(path, root))
        return None
    if lacking := [column for column in columns if column not in table]:
        missing.append(f"`{path.relative_to(root)}` has no column {', '.join(lacking)}")
        return None
    return table
