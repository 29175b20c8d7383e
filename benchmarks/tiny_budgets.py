"""The study behind the schedule of the scale `tiny_imagenet`: when should the rate drop within its 40 epochs?

It measures no speed of ours. Each candidate trains the printed net once and is judged on the validation images; no test
image is read. `python -m benchmarks.tiny_budgets [data.folder=…] [CANDIDATE…]` adds rows to reports/tiny_budgets.csv,
in seven minutes of an idle core for each. docs/tiny_imagenet.md tells what was chosen, and by which rule.
"""

import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.setups import CONF
from pipeline import paths
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.params import Hardware, validate
from pipeline.runtime.files import write_text
from pipeline.tools.compose import composed
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, Run, train
from pipeline.training.runs import bytes_of

TABLE = Path("reports/tiny_budgets.csv")
HARDWARE = Hardware(accelerator="cpu", threads=1)
SEED = 0
LATE, LATER = [0.6, 0.8, 0.925], [0.75, 0.9, 0.975]  # shares of the epochs after which the rate drops
CANDIDATES = {"late": LATE, "later": LATER}


def trained(candidate: str, run: Run, tell: Tell) -> dict[str, object]:
    """Train a run, and return its errors in the last epoch; those of training are with dropout and augmentation."""
    started = time.process_time()
    history = pd.read_csv(train(run, tell=tell) / HISTORY)
    last = history.iloc[-1]
    return {
        "candidate": candidate,
        "seed": run.seed,
        "steps": len(history) * -(-run.store.meta.counts["train"] // run.settings.train.batch_images),
        "val_error_top1": round(last["val_error_top1"], 2),
        "val_error_top5": round(last["val_error_top5"], 2),
        "train_error_top1": round(last["train_error_top1"], 2),
        "core_seconds": round(time.process_time() - started),
    }


def main() -> None:
    given = [argument for argument in sys.argv[1:] if "=" in argument]
    params = validate(composed(CONF, "scale=tiny_imagenet", *given), "tiny_imagenet")
    folder = paths.state() / "benchmarks" / params.scale
    if not (folder / "meta.json").exists():
        prepare(params.data, folder)
    tasks = []
    for name in [argument for argument in sys.argv[1:] if "=" not in argument] or CANDIDATES:
        settings = params.settings("as_printed", {"train": {"drop_at": CANDIDATES[name]}})
        run = Run("tiny_budgets", "as_printed", "5", SEED, settings, Store.open(folder), HARDWARE)
        tasks.append(Task(f"{name} {run}", partial(trained, name, run), settings.train.epochs))
    rows = run_tasks(tasks, HARDWARE, bytes_of(params.settings("baseline")), "tiny_budgets", "epoch")
    table = pd.DataFrame(rows)
    if TABLE.exists():
        before = pd.read_csv(TABLE)
        table = pd.concat([before[~before["candidate"].isin(table["candidate"])], table])
    write_text(TABLE, table.to_csv(index=False, lineterminator="\n"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
