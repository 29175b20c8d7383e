"""Every variant's errors over epochs in one CSV file, for `dvc plots`."""

from pathlib import Path

import pandas as pd

from pipeline.claims.results import Results
from pipeline.runtime.files import write_text

CURVES = ["train_error_top1", "val_error_top1"]


def write_curves(results: Results, path: Path) -> None:
    """Write a row for each variant and epoch: means over seeds. A run that stopped early keeps its last errors."""
    tables = [pd.DataFrame(columns=["variant", "epoch", *CURVES])]
    for variant in results.params.variants:
        runs = results.histories[results.histories["variant"] == variant]
        by_seed = {name: runs.pivot_table(name, "epoch", "seed").ffill() for name in CURVES}
        means = pd.DataFrame({name: table.mean(axis="columns").round(3) for name, table in by_seed.items()})
        tables.append(means.reset_index(names="epoch").assign(variant=variant))
    write_text(path, pd.concat(tables).to_csv(index=False))
