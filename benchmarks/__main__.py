"""`make bench`: run every benchmark and write reports/benchmarks.csv and reports/benchmarks.md.

`python -m benchmarks --add gpu/benchmarks.csv` adds the rows that `make gpu` has measured, here or elsewhere.
"""

import argparse
import operator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmarks import arithmetic, profile
from benchmarks.harness import Row
from benchmarks.setups import device_name
from pipeline.report.formatting import markdown
from pipeline.runtime.files import write_text

CSV, PROFILE = Path("reports/benchmarks.csv"), Path("reports/profile.csv")
SCRIPTS = ("lrn", "step", "loop", "pool", "tracking", "prepare", "noop")
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
    "tracking_share": "≤ 0.01",
}
ON_GPU = {
    "gpu_full_128": "≥ 25,000",
    "gpu_full_1024": "≥ 40,000",
    "gpu_full_plain": "≥ 3",
    "gpu_input": "≥ 2",
    "gpu_input_host": "",
    "gpu_norm_bound": "≥ 0.8",
    "gpu_small_alone": "",
    "gpu_small_8": "",
    "gpu_side_by_side": "> 1",
}
COMPARED = {"≥": operator.ge, "≤": operator.le, ">": operator.gt}
NOT_YET = "not yet run on a GPU"
WHY_MISSED = {
    "pool": "what two processes of one thread gain over one of two threads is the processor's affair: a factor of 1.08 "
    "on an Intel Xeon (family 6, model 207), 0.97 on the AMD EPYC of this table. Processes started by hand are no "
    "faster (`pool_scaling`)",
}
PAGE = """# Speed beside a peer

Written by `make bench`. Each row is the ratio of two times of the same work, taken alternately in one run: the median \
over the rounds, the least and the greatest. *speedup*: the peer takes that many times as long. *overhead*: we take \
that many times as long as the peer. *share*: that part of our time. ✗ marks a median that misses what it was to \
reach.

{table}{missed}

On an idle Intel Xeon (family 6, model 167) three rows missed theirs: `prepare_one_core` 1.29 [1.24, 1.33], as four \
fifths of an image's time go into decoding its JPEG file there, which both sides leave to libjpeg-turbo; \
`prepare_two_cores` 1.74 [1.72, 1.76] and `noop_repro` 1.31 [1.27, 1.38], which are not explained.

What is measured, and how, stands at the head of each script in `benchmarks/`; plain PyTorch is `benchmarks/plain.py`.

## On a GPU

`make gpu` measures these rows. *rate*: images a second. The full net trains in bf16, compiled, input included.

{on_gpu}

What a training step takes, and how many images a second two cards allow by it. *GFLOP*: of the products, forward and \
backward. *MB*: what has to be moved if every chain of pointwise operations is one kernel. `benchmarks/arithmetic.py` \
counts both, for 790 TFLOP/s in bf16, 67 in fp32, and 3.0 (H100) or 4.3 TB/s (H200). A step starts some 150 kernels, \
which takes a processor about a millisecond where they are not replayed as a graph: that bounds the embedded net.

{bounds}

## Where a training step's time goes

One step of 128 images on {device}, by torch's profiler (which slows small operations down), input included. *Full*: \
the paper's net at 227 px. *Embedded*: a quarter of its width at 67 px, grey.

{profile}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help=f"of {', '.join(SCRIPTS)}; all where none is named")
    parser.add_argument("--add", type=Path, metavar="CSV", help="rows to add, instead of measuring any")
    arguments = parser.parse_args()
    if arguments.add:
        add(pd.read_csv(arguments.add))
        return
    if unknown := set(arguments.scripts) - set(SCRIPTS):
        parser.error(f"no script {', '.join(sorted(unknown))}; accepted are {', '.join(SCRIPTS)}")
    for name in tqdm(arguments.scripts, desc="benchmarks", unit="script"):
        add(pd.DataFrame([asdict(row) for row in import_module(f"benchmarks.{name}").rows()]))
    measured = profile.table().rename_axis("part").reset_index().assign(device=device_name())
    write_text(PROFILE, measured.to_csv(index=False))
    write_page(pd.read_csv(CSV))


def add(rows: pd.DataFrame) -> None:
    """Put rows in place of those of the same name and device, and write the page."""
    known = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame(columns=COLUMNS)
    together = pd.concat([rows[COLUMNS], known]).round(4) if len(known) else rows[COLUMNS].round(4)
    table = together.drop_duplicates(["name", "device"]).sort_values(["device", "name"])
    write_text(CSV, table.to_csv(index=False))
    write_page(table)


def write_page(table: pd.DataFrame) -> None:
    measured = pd.read_csv(PROFILE)
    device = measured["device"].iloc[0]
    text = PAGE.format(
        table=_results(on_cpu := table[~table["name"].isin(ON_GPU)]),
        missed="".join(
            f"\n\n`{name}` misses it: {WHY_MISSED.get(name, 'not explained yet')}." for name in missed(on_cpu)
        ),
        on_gpu=_on_gpu(table),
        bounds=markdown(bounds := arithmetic.table(), bounds.columns[1:]),
        profile=markdown(measured.drop(columns="device"), profile.COLUMNS),
        device=device,
    )
    write_text(CSV.with_suffix(".md"), text)


def missed(table: pd.DataFrame) -> list[str]:
    """Return the names of the rows whose median is not what it was to reach."""
    found = []
    for row in table.itertuples():
        sign, _, bound = (TO_REACH | ON_GPU)[row.name].replace(",", "").partition(" ")
        if sign and not COMPARED[sign](row.value, float(bound)):
            found.append(row.name)
    return found


def _results(table: pd.DataFrame) -> str:
    marks = dict.fromkeys(missed(table), " ✗")
    shown = table.assign(
        value=[f"{row.value:g}{marks.get(row.name, '')}" for row in table.itertuples()],
        **{"to reach": table["name"].map(TO_REACH | ON_GPU)},
    )
    shown = shown.rename(columns={"value": "median", "low": "least", "high": "greatest"})
    return markdown(shown, ("median", "least", "greatest", "rounds"))


def _on_gpu(table: pd.DataFrame) -> str:
    measured = table[table["name"].isin(ON_GPU)]
    if measured.empty:
        rows = [{"name": name, "value": NOT_YET, "to reach": goal} for name, goal in ON_GPU.items()]
        return markdown(pd.DataFrame(rows))
    return _results(measured)


if __name__ == "__main__":
    main()
