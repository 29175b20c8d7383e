"""Everything the report is made from, read into tables. What is missing becomes a hole that the report shows."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.checksums import damage, verify
from pipeline.errors import UserError
from pipeline.evaluation.metrics import median_seed
from pipeline.paper.claims import Key, Side, Views
from pipeline.params import Params, read_yaml
from pipeline.statistics.crossed import errors_by_seed

ERROR_COLUMNS = ["variant", "seed", "split", "views", "metric", "value"]
HISTORY_COLUMNS = ["epoch", "train_error_top1", "val_error_top1", "val_error_top5"]
NO_HISTORY = ["variant", "seed", *HISTORY_COLUMNS]
TRIAL_COLUMNS = ["number", "state", "lr", "weight_decay", "objective", "value", "epochs"]
PREDICTION_COLUMNS = ["seed", "split", "views", "index", "rank", "p_label"]


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
    holes: list[str]
    _on_images: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _predictions: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> list[str]:
        return list(self.meta.get("classes", []))

    def by_seed(self, side: Side, metric: str) -> pd.Series:
        """One arm's values, one for each seed of the params; NaN where a run failed or is missing."""
        errors = self.errors
        chosen = errors[
            (errors["variant"] == side.variant)
            & (errors["split"] == side.split)
            & (errors["views"] == side.views)
            & (errors["metric"] == metric)
        ]
        return chosen.set_index("seed")["value"].astype(float).reindex(self.params.seeds)

    def on_images(self, side: Side, key: Key) -> np.ndarray:
        """One arm's errors on each image, 0 or 100 %: (seeds, images). NaN where a seed has no result."""
        name = f"{side} {key}"
        if name not in self._on_images:
            predictions = self._predictions_of(side.variant)
            top = 5 if key == "top5" else 1
            try:
                errors = errors_by_seed(predictions, self.params.seeds, split=side.split, views=side.views, top=top)
            except (KeyError, ValueError) as error:
                self.holes.append(f"{side}: predictions cannot be used ({' '.join(str(error).split())[:100]})")
                errors = np.full((len(self.params.seeds), 1), np.nan)
            partly = np.isnan(errors).any(1) & ~np.isnan(errors).all(1)
            for seed in np.asarray(self.params.seeds)[partly]:
                self.holes.append(f"{side}, seed {seed}: predictions of some images are missing")
            errors[self.by_seed(side, f"error_{key}").isna().to_numpy()] = np.nan
            self._on_images[name] = errors
        return self._on_images[name]

    def _predictions_of(self, variant: str) -> pd.DataFrame:
        if variant not in self._predictions:
            path = self.root / paths.evaluation(self.params.scale, variant) / "predictions.parquet"
            self._predictions[variant] = _parquet(path, self.root, self.holes)
        return self._predictions[variant]

    def run_fact(self, variant: str, name: str) -> pd.Series:
        """What run.json says of each finished run of the variant, by seed; NaN where there is none."""
        runs = self.runs[(self.runs["variant"] == variant) & (self.runs["status"] == "finished")]
        return runs.reindex(columns=["seed", name]).set_index("seed")[name].reindex(self.params.seeds)

    def has(self, variant: str) -> bool:
        """Whether any seed of the variant was evaluated, or failed before it could be."""
        failed = self.runs[self.runs["status"] == "failed"]
        return variant in set(self.errors["variant"]) | set(failed["variant"])

    def median_seed(self, variant: str) -> int | None:
        """The seed that stands for the variant in figures."""
        errors = self.by_seed(Side(variant=variant, split="val"), "error_top1").dropna()
        return median_seed(dict(zip(map(int, errors.index), errors, strict=True)))


def collect(params: Params, root: Path) -> Results:
    """Read the results of the variants that `params` lists, below `root`."""
    holes: list[str] = []
    errors, histories, runs = [], [], []
    for variant in params.variants:
        errors += _errors(params, root, variant, holes)
        for seed in params.seeds:
            folder = root / paths.seed(params.scale, variant, seed)
            facts = _json(folder / "run.json", root, holes)
            if facts:
                runs.append({"status": "unknown", **facts, "variant": variant, "seed": seed})
            history = _csv(folder / "history.csv", HISTORY_COLUMNS, root, holes)
            if history is not None and not history.empty:  # a run can diverge in its first epoch
                history.insert(0, "variant", variant)
                history.insert(1, "seed", seed)
                histories.append(history)
    studies = {study: root / paths.tune(params.scale, study) for study in params.used_studies()}
    trials = {study: _csv(folder / "trials.csv", TRIAL_COLUMNS, root, holes) for study, folder in studies.items()}
    analysed = [variant for variant in params.evaluate.analyses if variant in params.variants]
    return Results(
        params=params,
        root=root,
        errors=pd.DataFrame(errors, columns=ERROR_COLUMNS),
        histories=pd.concat(histories, ignore_index=True) if histories else pd.DataFrame(columns=NO_HISTORY),
        runs=pd.DataFrame(runs) if runs else pd.DataFrame(columns=["variant", "seed", "status"]),
        trials={study: table for study, table in trials.items() if table is not None},
        chosen={study: _chosen(folder / "best.yaml", root, holes) for study, folder in studies.items()},
        analyses={
            variant: _json(root / paths.evaluation(params.scale, variant) / "analyses.json", root, holes)
            for variant in analysed
        },
        meta=_json(root / paths.data(params.data.dataset) / "meta.json", root, holes),
        holes=holes,
    )


def _errors(params: Params, root: Path, variant: str, holes: list[str]) -> list[dict[str, Any]]:
    path = root / paths.evaluation(params.scale, variant) / "seeds.json"
    seeds = _json(path, root, holes)
    rows: list[dict[str, Any]] = []
    for seed in params.seeds if seeds else []:
        found = seeds.get(str(seed))
        if found is None:
            holes.append(f"{variant}, seed {seed}: not in `{path.relative_to(root)}`")
        elif not isinstance(found, dict):
            holes.append(f"{variant}, seed {seed}: is no table in `{path.relative_to(root)}`")
        elif found.get("status") != "finished":
            status = found.get("status", "has no status")
            holes.append(f"{variant}, seed {seed}: the run {status}{_failure(params, root, variant, seed)}")
        else:
            for split, views, metric, value in _leaves(found):
                number = float(value) if isinstance(value, int | float) else math.nan
                if not math.isfinite(number):
                    holes.append(f"{variant}, seed {seed}: {split} {views} {metric} is not a number")
                    number = math.nan
                rows.append(dict(zip(ERROR_COLUMNS, (variant, seed, split, views, metric, number), strict=True)))
    return rows


def _leaves(found: dict[str, Any]) -> Iterator[tuple[str, Views, str, Any]]:
    """(split, views, metric, value) of one seed of seeds.json."""
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
    return f" at step {step} (learning rate {lr}, gradient norm {norm})"


def hole(path: Path, root: Path) -> str:
    """What the report says of a file that it does not use."""
    return f"`{path.relative_to(root)}` {damage(path) or 'is missing or cannot be read'}"


def _chosen(path: Path, root: Path, holes: list[str]) -> dict[str, float]:
    try:
        verify(path)
        return dict(read_yaml(path)["train"])
    except (UserError, KeyError, TypeError, ValueError):
        holes.append(hole(path, root))
        return {}


def _parquet(path: Path, root: Path, holes: list[str]) -> pd.DataFrame:
    """Predictions; a seed of which one is not a number is a hole, and left out."""
    try:
        verify(path)
        table = pd.read_parquet(path, columns=PREDICTION_COLUMNS)
    except (OSError, ValueError, UserError):
        holes.append(hole(path, root))
        return pd.DataFrame(columns=PREDICTION_COLUMNS)
    damaged = table.loc[table[["rank", "p_label"]].isna().any(axis=1), "seed"].unique()
    for seed in damaged:
        holes.append(f"`{path.relative_to(root)}`, seed {seed}: a prediction is not a number")
    return table[~table["seed"].isin(damaged)]


def _json(path: Path, root: Path, holes: list[str]) -> dict[str, Any]:
    with suppress(OSError, ValueError, UserError):
        verify(path)
        value = json.loads(path.read_text())
        if isinstance(value, dict):
            return value
    holes.append(hole(path, root))
    return {}


def _csv(path: Path, columns: list[str], root: Path, holes: list[str]) -> pd.DataFrame | None:
    try:
        verify(path)
        table = pd.read_csv(path)
    except (OSError, ValueError, UserError):
        holes.append(hole(path, root))
        return None
    if lacking := [column for column in columns if column not in table]:
        holes.append(f"`{path.relative_to(root)}` has no column {', '.join(lacking)}")
        return None
    return table
