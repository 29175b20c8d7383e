"""What MLflow is to show, read from the run files."""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from pipeline import paths
from pipeline.errors import UserError
from pipeline.evaluation.metrics import median_seed
from pipeline.params import read_yaml
from pipeline.runtime.checksums import verify

CURVES = ("lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5")
T = TypeVar("T")


class Point(NamedTuple):
    key: str
    value: float
    time_ms: int
    epoch: int


@dataclass
class Record:
    """One MLflow run: there is one for each fingerprint."""

    fingerprint: str
    name: str
    status: str  # in MLflow's words
    start_ms: int
    end_ms: int
    params: dict[str, Any]
    points: list[Point]
    tags: dict[str, str]
    parent: str | None = None  # fingerprint
    model_of: Path | None = None  # the seed's folder, if this run is to carry its variant's model
    figures: list[Path] = field(default_factory=list)

    def digest(self) -> str:
        content: list[Any] = [self.name, self.status, self.params, self.tags, self.parent, str(self.model_of or "")]
        content += self.points
        content += [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.figures]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(runs: Path) -> tuple[list[Record], list[str]]:
    """Return the records, parents first, and a problem for each file that could not be read."""
    problems: list[str] = []
    by_fingerprint: dict[str, Record] = {}
    for path in sorted(runs.glob("*/train/*")):
        for record in _variant_records(path, problems):
            same = by_fingerprint.setdefault(record.fingerprint, record)
            scales = {record.tags["scale"], *same.tags["scale"].split(", ")}
            same.tags["scale"] = ", ".join(sorted(scales))  # of all that share this run
    for path in sorted(runs.glob("*/tune/*/trials.csv")):
        for record in _attempt(_trial_records, path, problems) or []:
            by_fingerprint.setdefault(record.fingerprint, record)
    return list(by_fingerprint.values()), problems


def _attempt(make: Callable[[Path], T], path: Path, problems: list[str]) -> T | None:
    """Return what `make` reads from `path`: None where it is damaged, or gone, as it is while a stage replaces it."""
    try:
        verify(path)
        return make(path)
    except FileNotFoundError:
        return None
    except UserError as error:
        problems.append(str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"{path}: cannot be read ({type(error).__name__}: {error}); run `dvc repro`")
    return None


def _variant_records(train: Path, problems: list[str]) -> list[Record]:
    scale, variant = train.parts[-3], train.parts[-1]
    evaluation = train.parents[1] / "evaluation" / variant / "seeds.json"
    measured: dict[str, Any] = _attempt(lambda path: json.loads(path.read_text()), evaluation, problems) or {}
    records = {}
    for path in sorted(train.glob("seed-*/run.json")):
        if record := _attempt(lambda path: _run_record(path, measured), path, problems):
            records[path.parent.name] = record
    errors = {int(k): seed["val"]["one_crop"]["error_top1"] for k, seed in measured.items() if "val" in seed}
    folder = train / f"seed-{median_seed(errors)}"
    if median := records.get(folder.name):
        median.model_of = _attempt(lambda weights: weights.parent, folder / "model.safetensors", problems)
        report = scale
        with suppress(UserError):
            values = read_yaml(paths.PARAMS)  # which may name another report, for other images than the scale's own
            if isinstance(values, dict) and values.get("scale") == scale:
                report = str(values.get("report", scale))
        figures = paths.report(report) / "figures"
        median.figures = sorted(figures.glob("*.png")) if variant == "baseline" else []
    return list(records.values())


def _run_record(path: Path, measured: dict[str, Any]) -> Record:
    facts = json.loads(path.read_text())
    verify(path.with_name("history.csv"))
    history = pd.read_csv(path.with_name("history.csv"))
    seed, finished_ms = facts["seed"], facts["finished_ms"]
    points = [
        Point(name, float(row[name]), int(row["time_ms"]), int(row["epoch"]))
        for row in history.to_dict("records")
        for name in CURVES
    ]
    for split, by_views in measured.get(str(seed), {}).items():
        if split == "status":
            continue
        for views, values in by_views.items():
            points += [
                Point(f"{split}/{views}/{k}", value, finished_ms, facts["epochs"]) for k, value in values.items()
            ]
    return Record(
        fingerprint=facts["fingerprint"],
        name=f"{facts['variant']} seed {seed}",
        status="FINISHED" if facts["status"] == "finished" else "FAILED",
        start_ms=facts["started_ms"],
        end_ms=finished_ms,
        params={"seed": seed, **_flat(facts["settings"])},
        points=[point for point in points if math.isfinite(point.value)],
        tags={name: str(facts[name]) for name in ("scale", "variant", "section", "seed", "stopped")}
        | _flat(facts["origin"]),
    )


def _trial_records(path: Path) -> list[Record]:
    """Return the study, and every trial as its child."""
    trials = pd.read_csv(path, keep_default_na=False)
    scale, variant = path.parts[-4], path.parts[-2]
    if trials.empty:
        return []
    done = trials[trials["state"] != "FAIL"].drop_duplicates("fingerprint", keep="last")
    study = str(trials["study"].iloc[0])
    start, end = int(trials["start_ms"].min()), int(trials["end_ms"].max())
    measure = "val_error_top1" if trials["objective"].iloc[0] == "val_error_top1" else "train_error_top1"
    tags = {"scale": scale, "variant": f"tune {variant}", "section": "5"}
    records = [Record(study, f"tune {scale} {variant}", "FINISHED", start, end, {}, [], tags)]
    for trial in done.to_dict("records"):
        curve = [float(value) for value in str(trial["curve"]).split()]
        records.append(
            Record(
                fingerprint=str(trial["fingerprint"]),
                name=f"{variant} trial {trial['number']}",
                status="FINISHED" if trial["state"] == "COMPLETE" else "KILLED",
                start_ms=int(trial["start_ms"]),
                end_ms=int(trial["end_ms"]),
                params={f"train.{name}": trial[name] for name in ("lr", "weight_decay") if trial[name] != ""},
                points=[Point(measure, value, int(trial["end_ms"]), k + 1) for k, value in enumerate(curve)],
                tags={**tags, "state": str(trial["state"])},
                parent=study,
            )
        )
    return records


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
