"""What MLflow is to show, read from the run files."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.data.store import ARRAYS, TRAINED_ON
from pipeline.errors import UserError
from pipeline.evaluation.metrics import median_seed
from pipeline.params import data_title, net_title, read_yaml, variant_table
from pipeline.runtime.checksums import verify
from pipeline.runtime.source_code import digest
from pipeline.tracking.view import ORDER

CURVES = ("lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5")
REPORT_FILES = ("report.html", "report.md", "claims.csv")
NOTE = "mlflow.note.content"  # the tag that MLflow's pages show as the description
T = TypeVar("T")


class Point(NamedTuple):
    key: str
    value: float
    time_ms: int
    epoch: int


class DataSet(NamedTuple):
    """A split of the images that a run used."""

    name: str
    digest: str
    folder: str
    context: str  # what the run used it for


@dataclass
class Record:
    """One MLflow run: there is one for each fingerprint, one for each study, and one for each report."""

    fingerprint: str
    name: str
    kind: str  # training, trial, study or report
    status: str  # in MLflow's words
    start_ms: int
    end_ms: int
    params: dict[str, Any]
    points: list[Point]
    tags: dict[str, str]  # for people; the scales and variants that share the run are lists
    facts: dict[str, str] = field(default_factory=dict)  # tags of our own, out of people's way
    data: list[DataSet] = field(default_factory=list)
    parent: str | None = None  # fingerprint
    model_of: Path | None = None  # the seed's folder, if this run is to carry its variant's model
    card: str = ""  # of that model, as Markdown
    report: str = ""  # fingerprint of the record that carries the report of its scale
    artifacts: dict[Path, str] = field(default_factory=dict)  # the folder in MLflow of each file

    def digest(self) -> str:
        content: list[Any] = [self.name, self.status, self.params, self.tags, self.facts, self.data, self.parent]
        content += [str(self.model_of or ""), self.card, *self.points]
        content += [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.artifacts]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def last_epoch(self) -> Point | None:
        """Return a point of the last epoch of its curves."""
        return max((point for point in self.points if point.key in CURVES), key=lambda point: point.epoch, default=None)

    def share(self, other: "Record") -> None:
        """Take in what another scale or variant, of which this is the same run, says of it."""
        for tag in ("scale", "variant"):
            names = [*self.tags[tag].split(", "), *other.tags[tag].split(", ")]
            self.tags[tag] = ", ".join(dict.fromkeys(names))
        if self.model_of is None:
            self.model_of, self.card = other.model_of, other.card


def read(runs: Path) -> tuple[list[Record], list[str]]:
    """Return the records, parents first, and a problem for each file that could not be read."""
    problems: list[str] = []
    found: list[Record] = []
    for path in sorted(runs.glob("*/train")):
        found += _attempt(_report_records, path, problems) or []
    for path in sorted(runs.glob("*/train/*/"), key=lambda path: (path.parts[-3], path.name != "baseline", path)):
        found += _variant_records(path, problems)
    for path in sorted(runs.glob("*/tune/*/trials.csv")):
        found += _attempt(_trial_records, path, problems) or []
    by_fingerprint: dict[str, Record] = {}
    for record in found:
        if (same := by_fingerprint.setdefault(record.fingerprint, record)) is not record and record.kind == "training":
            same.share(record)
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


def _report_records(train: Path) -> list[Record]:
    """Return the run that carries a scale's report; none before it is written."""
    scale = train.parts[-2]
    folder = _report_folder(scale)
    files: dict[Path, str] = {path: "" for name in REPORT_FILES if (path := folder / name).exists()}
    files |= dict.fromkeys(sorted((folder / "figures").glob("*.png")), "figures")
    if not files:
        return []
    written = int(max(path.stat().st_mtime for path in files) * 1000)
    summary = folder / "summary.md"
    tags = {"scale": scale, "variant": "all", NOTE: summary.read_text() if summary.exists() else ""}
    name = _report_name(scale)
    return [Record(name, name, "report", "FINISHED", written, written, {}, [], tags, artifacts=files)]


def _report_folder(scale: str) -> Path:
    with suppress(UserError):
        values = read_yaml(paths.PARAMS)  # which may name another report, for other images than the scale's own
        if isinstance(values, dict) and values.get("scale") == scale:
            return paths.report(str(values.get("report", scale)))
    return paths.report(scale)


def _report_name(scale: str) -> str:
    return f"report {_report_folder(scale).name}"


def _variant_records(train: Path, problems: list[str]) -> list[Record]:
    scale, variant = train.parts[-3], train.name
    evaluation = train.parents[1] / "evaluation" / variant / "seeds.json"
    measured: dict[str, Any] = _attempt(lambda path: json.loads(path.read_text()), evaluation, problems) or {}
    trained_on = _attempt(lambda path: json.loads(path.read_text()), train.with_name(TRAINED_ON), problems)
    records = {}
    for path in sorted(train.glob("seed-*/run.json")):
        if record := _attempt(lambda path: _run_record(path, measured, trained_on), path, problems):
            record.report = _report_name(scale)
            records[path.parent.name] = record
    chosen = representative(measured)
    folder = train / f"seed-{chosen}"
    if median := records.get(folder.name):
        median.model_of = _attempt(lambda weights: weights.parent, folder / "model.safetensors", problems)
        settings = json.loads((folder / "run.json").read_text())["settings"]
        median.card = _model_card(scale, variant, settings["net"], trained_on, measured, chosen)
    return list(records.values())


def representative(measured: dict[str, Any]) -> int | None:
    """Return the seed that stands for a variant, by the content of its seeds.json; None where none was evaluated."""
    return median_seed({int(k): seed["val"]["one_crop"]["error_top1"] for k, seed in measured.items() if "val" in seed})


def describe(variant: str) -> str:
    """Return the variant's sentence and its section of the paper, as conf/variants.yaml has them."""
    row: dict[str, Any] = {}
    with suppress(UserError):
        row = variant_table().get(variant) or {}
    return f"{row['description']}\n\nSection {row['section']} of the paper." if row else variant


def data_params(trained_on: dict[str, Any]) -> dict[str, Any]:
    counts = {f"{split}_images": count for split, count in trained_on["counts"].items()}
    return _flat({"data": {name: trained_on[name] for name in ("dataset", "image_size", "channels")} | counts})


def data_sets(trained_on: dict[str, Any]) -> list[DataSet]:
    return [
        DataSet(
            name=f"{trained_on['dataset']} {split}",
            digest=digest([trained_on["sha256"][name] for name in ARRAYS if name.startswith(split)]),
            folder=str(paths.data(trained_on["dataset"]) / split),
            context=context,
        )
        for split, context in (("train", "training"), ("val", "validation"), ("test", "test"))
    ]


def _model_card(
    scale: str, variant: str, net: dict[str, Any], trained_on: Any, measured: dict[str, Any], seed: int | None
) -> str:
    """Return what the model is, what it was trained on, how well it does, and what it is not for."""
    from pipeline.claims.effects import interval_over_seeds  # and SciPy, which a process that follows runs can spare

    title = net_title(net["architecture"], net["width"])
    images = f"{trained_on['counts']['train']:,} images of {data_title(trained_on['dataset'])}" if trained_on else ""
    finished = [found for found in measured.values() if "test" in found]
    lines = []
    for views in finished[0]["test"] if finished else ():
        errors = interval_over_seeds(np.array([found["test"][views]["error_top1"] for found in finished]))
        spread = "" if errors.half_width is None else f" ± {errors.half_width:.2f}"
        own = measured[str(seed)]["test"][views]["error_top1"]
        lines.append(f"- {views.replace('_', ' ')}: {own:.2f} %; {errors.mean:.2f}{spread} % over {errors.n} seeds")
    return "\n\n".join(
        part
        for part in (
            f"{title}, variant `{variant}` of the scale `{scale}`, seed {seed}: the seed of middle validation error.",
            describe(variant),
            f"It was trained on {images}." if images else "",
            "Top-1 error on the test images, with the 95 % interval of the mean over seeds:\n\n" + "\n".join(lines),
            "It is there to examine the claims of a paper. It knows only the classes that it was trained on, gives one "
            "of them to any image whatever, and was not examined for fairness, robustness or safety: decide nothing "
            "about people with it.",
        )
        if part
    )


def _run_record(path: Path, measured: dict[str, Any], trained_on: dict[str, Any] | None) -> Record:
    facts = json.loads(path.read_text()) | {"data": trained_on}
    verify(path.with_name("history.csv"))
    seed, finished_ms = facts["seed"], facts["finished_ms"]
    points = curve_points(pd.read_csv(path.with_name("history.csv")).to_dict("records"))
    for split, by_views in measured.get(str(seed), {}).items():
        if split == "status":
            continue
        for views, values in by_views.items():
            points += [
                Point(metric_name(split, views, k), round(value, 6), finished_ms, facts["epochs"])
                for k, value in values.items()
            ]
    found = training_record(facts, facts["status"].upper(), points, facts["started_ms"], finished_ms)
    found.tags["mlflow.source.git.commit"] = facts["origin"].get("revision", "")
    found.facts |= {"stopped": facts["stopped"]} | _flat(facts["origin"])
    return found


def training_record(facts: dict[str, Any], status: str, points: list[Point], start_ms: int, end_ms: int) -> Record:
    """Return the record of a run or a trial, finished or not, from what its files say that it is."""
    variant, seed, trained_on = facts["variant"], facts["seed"], facts.get("data")
    kind = facts.get("kind", "training")
    order = f"{variant != 'baseline':d} {variant} {seed:03}"
    return Record(
        fingerprint=facts["fingerprint"],
        name=f"{variant} seed {seed}" if kind == "training" else variant,
        kind=kind,
        status=status,
        start_ms=start_ms,
        end_ms=end_ms,
        params={"seed": seed, **_flat(facts["settings"])} | (data_params(trained_on) if trained_on else {}),
        points=points,
        tags={"scale": facts["scale"], "variant": variant, ORDER: order, NOTE: describe(variant)},
        facts={"section": facts["section"]},
        data=data_sets(trained_on) if trained_on else [],
    )


def curve_points(rows: Iterable[Mapping[Any, Any]]) -> list[Point]:
    """Return the points of a history's rows, but for values that are no numbers."""
    points = [Point(name, float(row[name]), int(row["time_ms"]), int(row["epoch"])) for row in rows for name in CURVES]
    return [point for point in points if math.isfinite(point.value)]


def metric_name(split: str, views: str, metric: str) -> str:
    """Return a name that filters take without quotes: the views are left out where no curve has the shorter name."""
    name = f"{split}_{metric}"
    return name if views == "one_crop" and name not in CURVES else f"{name}_{views}"


def _trial_records(path: Path) -> list[Record]:
    """Return the study, and every trial as its child."""
    trials = pd.read_csv(path, keep_default_na=False, float_precision="round_trip")
    scale, variant = path.parts[-4], path.parts[-2]
    if trials.empty:
        return []
    done = trials[trials["state"] != "FAIL"].drop_duplicates("fingerprint", keep="last")
    study, objective = str(trials["study"].iloc[0]), str(trials["objective"].iloc[0])
    start, end = int(trials["start_ms"].min()), int(trials["end_ms"].max())
    measure = "val_error_top1" if objective == "val_error_top1" else "train_error_top1"
    tags = {"scale": scale, "variant": f"tune {variant}"}
    summary = {"trials": float(len(done)), "trials_pruned": float((done["state"] == "PRUNED").sum())}
    complete = done[done["state"] == "COMPLETE"]
    if len(complete):
        best = min(complete.to_dict("records"), key=lambda trial: float(trial["value"]))
        summary |= {f"best_{objective}": float(best["value"])}
        summary |= {f"best_{name}": float(best[name]) for name in ("lr", "weight_decay") if best[name] != ""}
    figures = [_report_folder(scale) / f"figures/tuning-{variant}{what}.png" for what in ("", "-values")]
    note = f"Optuna's search for the learning rate of `{variant}` on validation images. Its runs are the trials."
    records = [
        Record(
            study,
            f"tune {scale} {variant}",
            "study",
            "FINISHED",
            start,
            end,
            {},
            [Point(name, value, end, len(done)) for name, value in summary.items()],
            tags | {NOTE: note},
            artifacts={path: "figures" for path in figures if path.exists()},
        )
    ]
    for trial in done.to_dict("records"):
        curve = [float(value) for value in str(trial["curve"]).split()]
        pruned = trial["state"] == "PRUNED"
        records.append(
            Record(
                fingerprint=str(trial["fingerprint"]),
                name=f"{variant} trial {trial['number']}" + pruned * " (pruned)",
                kind="trial",
                status="FINISHED",  # also where it was pruned, which is no failure
                start_ms=int(trial["start_ms"]),
                end_ms=int(trial["end_ms"]),
                params={f"train.{name}": float(trial[name]) for name in ("lr", "weight_decay") if trial[name] != ""},
                points=[Point(measure, value, int(trial["end_ms"]), k + 1) for k, value in enumerate(curve)],
                tags={**tags, "state": str(trial["state"]).lower()},
                parent=study,
            )
        )
    return records


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
