"""Each variant's errors over epochs as CSV, for `dvc plots`."""

from pathlib import Path

import pandas as pd

from pipeline.claims.results import Results
from pipeline.runtime.files import write_text

CURVES = ["train_error_top1", "val_error_top1"]


def write_curves(results: Results, folder: Path) -> None:
    """Write a file for each variant: the mean over seeds. A run that stopped early keeps its last errors."""
    for variant, runs in results.histories.groupby("variant"):
        by_seed = {name: runs.pivot_table(name, "epoch", "seed").ffill() for name in CURVES}
        means = pd.DataFrame({name: table.mean(axis="columns").round(3) for name, table in by_seed.items()})
        write_text(folder / f"{variant}.csv", means.to_csv())
