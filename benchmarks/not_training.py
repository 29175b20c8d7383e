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
    """From `check` to `sync`, as `make repro` runs them, with every stage between; else nothing."""
    times = [time for time in recorded() if "--background" not in time.name]
    names = [time.name for time in times]
    variants = params("embedded").variants
    stages = ["prepare", "tune", "report"] + [f"{stage} {name}" for stage in ("train", "evaluate") for name in variants]
    length = len(stages) + 2
    for start in range(len(times) - length, -1, -1):
        span = names[start : start + length]
        if (span[0], span[-1]) == ("check", "sync") and sorted(span[1:-1]) == sorted(stages):
            return times[start : start + length]
    return []
