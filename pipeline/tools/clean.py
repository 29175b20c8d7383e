"""`make clean`: forget all runs and prepared images, after asking. Whatever the pipeline did not write stays.

Only the standard library is imported, since the environment may be what is broken.
"""

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline import paths

# The names that the stages write below prepared/ and runs/. All else there is somebody's own.
STORE_FILES = {"images.npy", "labels.npy", "mean_image.npy", "meta.json"}
RUN_FILES = {
    *("model.safetensors", "history.csv", "run.json", "SHA256SUMS", "metrics.json", "seeds.json", "analyses.json"),
    *("predictions.parquet", "best.yaml", "trials.csv", "importance.csv", "data.json"),
}
STATE = ("runs", "prepare", "prepared", "jobs", "*.lock", "optuna.db*", "mlflow-sent.json", "evaluations")
EXPERIMENTS = {"Default", "alexnet"}


def found(root: Path = Path()) -> list[Path]:
    """Return the files and folders below `root` that the pipeline wrote and can make again."""
    store, artifacts = root / "mlflow.db", root / paths.ARTIFACTS
    chosen = [*_files(root / paths.PREPARED, STORE_FILES), *_files(root / paths.RUNS, RUN_FILES)]
    chosen += sorted(path for name in STATE for path in (root / paths.STATE).glob(name))
    whole = [root / ".dvc/cache", root / ".dvc/tmp"]
    if store.is_file() and _only_ours(store):
        whole = [store, artifacts, *whole]
    return chosen + [path for path in whole if path.exists()]


def main() -> int:
    chosen = found()
    for path in chosen if len(chosen) <= 20 else sorted({path.relative_to(".").parts[0] for path in chosen}):
        print(path)
    if not chosen:
        print("There is nothing to forget.")
        return 0
    if "--yes" not in sys.argv[1:]:
        if not sys.stdin.isatty():
            print("error: without a terminal to ask on, `make clean YES=--yes` deletes these", file=sys.stderr)
            return 2
        if input(f"Delete what the pipeline wrote there ({len(chosen)} files and folders)? [y/N] ").lower() != "y":
            return 1
    for path in chosen:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for folder in (paths.PREPARED, paths.RUNS, paths.STATE):
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        if folder.exists():
            print(f"left, since the pipeline did not write it: {', '.join(map(str, sorted(folder.iterdir())))}")
    return 0


def _files(folder: Path, names: set[str]) -> Iterator[Path]:
    """Yield files with one of the names, or with the name of a half-written one. Links are not followed."""
    if folder.is_symlink():
        return
    for path in sorted(folder.rglob("*")):
        own = path.name.removeprefix(".").removesuffix(".partial")
        if own in names and not path.is_symlink() and path.is_file():
            yield path


def _only_ours(store: Path) -> bool:
    """Return whether the MLflow store holds no experiment but the pipeline's."""
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("select name from experiments")}
            others = connection.execute("select count(*) from runs where experiment_id = 0").fetchone()[0]
    except sqlite3.Error:
        return False
    return names <= EXPERIMENTS and not others


if __name__ == "__main__":
    sys.exit(main())
