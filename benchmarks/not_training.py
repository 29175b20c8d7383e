"""What the last full repro of the embedded scale took beside its training, from the times that its stages noted."""

from benchmarks.harness import Row, ratio
from benchmarks.setups import params
from pipeline.stage_times import StageTime, recorded


def rows() -> list[Row]:
    """Empty where no full repro is on record."""
    times = _last_repro()
    trained = sum(time.working_s for time in times if time.name.startswith(("train", "tune")))
    if not trained:
        return []
    asked = sum(time.working_s for time in times if time.name.startswith("evaluate"))
    whole = times[-1].finished_s - times[0].started_s
    return [ratio("not_training", "overhead", "its fit loops", [(whole - asked) / trained])]


def _last_repro() -> list[StageTime]:
    """From `check` to `compare`, as `make repro` runs them, with every stage between; else nothing."""
    times = [time for time in recorded() if "--background" not in time.name]
    names = [time.name for time in times]
    embedded = params("embedded")
    per_variant = [f"{stage} {name}" for stage in ("train", "evaluate") for name in embedded.variants]
    stages = sorted(["prepare", *(f"tune {study}" for study in embedded.tune.studies), *per_variant, "report"])
    length = len(stages) + 3
    for start in range(len(times) - length, -1, -1):
        first, *between, last_but_one, last = names[start : start + length]
        if (first, last_but_one, last) == ("check", "sync", "compare") and sorted(between) == stages:
            return times[start : start + length]
    return []
