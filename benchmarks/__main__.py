"""`make bench`: run every benchmark and write reports/benchmarks.csv and reports/benchmarks.md."""

import argparse
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmarks import profile
from benchmarks.harness import Row
from benchmarks.setups import device_name
from pipeline.report.formatting import markdown
from pipeline.runtime.files import write_text

CSV = Path("reports/benchmarks.csv")
SCRIPTS = ("lrn", "step", "loop", "pool", "prepare", "noop")
COLUMNS = list(Row.__dataclass_fields__)
TO_REACH = {
    "lrn_full": "≥ 4",
    "lrn_embedded": "≥ 3",
    "step_full": "≥ 1.8",
    "step_bound": "≥ 0.65",
    "loop_embedded": "≥ 1.8",
    "loop_bound": "≥ 0.70",
    "input_share": "≤ 0.10",
    "lightning_overhead": "≤ 1.05",
    "prepare_one_core": "≥ 1.5",
    "prepare_two_cores": "≥ 1.8",
    "noop_repro": "≤ 1.3",
    "pool": "≥ 1.08",
    "pool_scaling": "≥ 0.95",
}
PAGE = """# Speed beside a peer

Written by `make bench`. Each row is the ratio of two times of the same work, taken alternately in one run: the median \
over the rounds, the least and the greatest. *speedup*: the peer takes that many times as long. *overhead*: we take \
that many times as long as the peer. *share*: that part of our time.

{table}

What is measured, and how, stands at the head of each script in `benchmarks/`; plain PyTorch is `benchmarks/plain.py`.

## Where a training step's time goes

One step of 128 images on {device}, by torch's profiler (which slows small operations down), input included. *Full*: \
the paper's net at 227 px. *Embedded*: a quarter of its width at 67 px, grey.

{profile}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help=f"of {', '.join(SCRIPTS)}; all where none is named")
    chosen = parser.parse_args().scripts
    if unknown := set(chosen) - set(SCRIPTS):
        parser.error(f"no script {', '.join(sorted(unknown))}; accepted are {', '.join(SCRIPTS)}")
    table = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame(columns=COLUMNS)
    for name in tqdm(chosen, desc="benchmarks", unit="script"):
        table = _with(import_module(f"benchmarks.{name}").rows(), table)
        write_text(CSV, table.to_csv(index=False))
    write_text(CSV.with_suffix(".md"), PAGE.format(table=_results(table), profile=_profile(), device=device_name()))


def _with(rows: list[Row], known: pd.DataFrame) -> pd.DataFrame:
    """In place of the rows of the same name and device."""
    new = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS).round(3)
    together = new if known.empty else pd.concat([new, known])
    return together.drop_duplicates(["name", "device"]).sort_values(["device", "name"])


def _results(table: pd.DataFrame) -> str:
    shown = table.assign(**{"to reach": table["name"].map(TO_REACH)})
    shown = shown.rename(columns={"value": "median", "low": "least", "high": "greatest"})
    return markdown(shown, ("median", "least", "greatest", "rounds"))


def _profile() -> str:
    return markdown(profile.table().rename_axis("part").reset_index(), profile.COLUMNS)


if __name__ == "__main__":
    main()
