"""The study behind the schedule of the small scales: which images, epochs and drops of the rate tell arms apart best?

It measures no speed of ours. Each candidate trains the baseline and three arms of the scale `embedded`, with the same
seeds, and is judged on 10,000 images that are neither trained on nor looked at while training; no test image is read.
`python -m benchmarks.budgets [CANDIDATE…]` adds their rows to reports/budgets.csv, in some ten minutes for each on two
cores. The best candidate has the least spread of the paired differences × the square root of the time of a run, as
long as a net without dropout can overfit in it: with n runs in a given time, an interval is that wide over √n.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.setups import params
from pipeline import paths
from pipeline.data.loader import one_crop
from pipeline.data.prepare import prepare
from pipeline.data.store import Meta, Store, checksum
from pipeline.evaluation.predict import class_probabilities, load_net, rank_of_label
from pipeline.params import Hardware
from pipeline.runtime.files import write_json, write_text
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, WEIGHTS, Run, train
from pipeline.training.runs import bytes_of

TABLE = Path("reports/budgets.csv")
ARMS = ("baseline", "non_overlapping_pooling", "no_dropout", "no_response_norm")
SEEDS = range(4)
WATCHED, JUDGED = 1_000, 10_000  # held-out images: those of each epoch's validation, and those that judge
DROPS = {"late": [0.6, 0.8, 0.93], "early": [0.5, 0.75, 0.9]}
HARDWARE = Hardware(accelerator="cpu", threads=1)
CANDIDATES = {  # training images, epochs, drops
    "1000x90_late": (1_000, 90, "late"),
    "1000x90_early": (1_000, 90, "early"),
    "1000x60_late": (1_000, 60, "late"),
    "2000x45_late": (2_000, 45, "late"),
    "5000x18_late": (5_000, 18, "late"),
}


def stores(train_images: int) -> tuple[Store, Store]:
    """One to train with, and one whose validation images judge."""
    folder = paths.state() / "budgets" / str(train_images)
    if not (folder / "judge/meta.json").exists():
        data = params("embedded").data
        sizes = {"train_images": train_images, "validation_images": WATCHED + JUDGED}
        prepare(data.model_copy(update=sizes), folder / "judge")
    judge = Store.open(folder / "judge")
    if not (folder / "train/meta.json").exists():
        for split in ("train", "test"):
            (folder / "train" / split).mkdir(parents=True, exist_ok=True)
            for name in ("images.npy", "labels.npy"):
                (folder / "train" / split / name).hardlink_to(folder / "judge" / split / name)
        (folder / "train/mean_image.npy").hardlink_to(folder / "judge/mean_image.npy")
        (folder / "train/val").mkdir()
        held_out = judge.split("val")
        arrays = {"images": held_out.images, "labels": held_out.labels}
        for name, array in arrays.items():
            np.save(folder / f"train/val/{name}.npy", array[:: 1 + JUDGED // WATCHED])
        meta = judge.meta.model_dump()
        meta["counts"]["val"] = WATCHED
        meta["sha256"] |= {f"val/{name}.npy": checksum(folder / f"train/val/{name}.npy") for name in arrays}
        write_json(folder / "train/meta.json", Meta.model_validate(meta).model_dump())
    return Store.open(folder / "train"), judge


def judged(candidate: str, run: Run, judge: Store, tell: Tell) -> dict[str, object]:
    """Train a run, and count the judging images and the training images that its net gets wrong."""
    started = time.process_time()
    folder = train(run, tell=tell)
    core_seconds = time.process_time() - started  # on one thread; not those of a busy machine's clock
    net = load_net(folder / WEIGHTS, run.settings, len(judge.meta.classes))
    crop_px = run.settings.net.crop_px
    views, errors = one_crop(judge.meta.image_size, crop_px), {}
    unwatched = np.arange(judge.meta.counts["val"]) % (1 + JUDGED // WATCHED) != 0
    for split, chosen in (("val", unwatched), ("train", slice(None))):
        labels = judge.split(split).labels  # type: ignore[arg-type]
        p = class_probabilities(net, judge, split, crop_px, views, 500)  # type: ignore[arg-type]
        wrong = (rank_of_label(p, torch.from_numpy(labels)) > 0).numpy()
        errors[split] = 100 * float(wrong[chosen].mean())
    history = pd.read_csv(folder / HISTORY)
    facts = json.loads((folder / "run.json").read_text())
    return {
        "candidate": candidate,
        "variant": run.variant,
        "seed": run.seed,
        "error": round(errors["val"], 2),
        "train_error": round(errors["train"], 2),
        "last_epochs": round(float(history["val_error_top1"].tail(10).std()), 2),
        "epochs": facts["epochs"],
        "core_seconds": round(core_seconds, 1),
    }


def main() -> None:
    tasks = []
    for name in sys.argv[1:] or CANDIDATES:
        images, epochs, drops = CANDIDATES[name]
        train_store, judge = stores(images)
        change = {"epochs": epochs, "schedule": "fixed", "drop_at": DROPS[drops]}
        for arm in ARMS:
            settings = params("embedded").settings(arm)
            settings = settings.model_copy(update={"train": settings.train.model_copy(update=change)})
            for seed in SEEDS:
                run = Run("budgets", arm, "5", seed, settings, train_store, HARDWARE)
                tasks.append(Task(f"{name} {run}", partial(judged, name, run, judge), epochs))
    rows = run_tasks(tasks, HARDWARE, bytes_of(params("embedded").settings("baseline")), "budgets", "epoch")
    table = pd.DataFrame(rows)
    if TABLE.exists():
        before = pd.read_csv(TABLE)
        table = pd.concat([before[~before["candidate"].isin(table["candidate"])], table])
    write_text(TABLE, table.to_csv(index=False, lineterminator="\n"))
    print(summary(table).to_string(index=False))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For each candidate and arm, the mean paired difference is left out on purpose: no effect's sign decides."""
    rows = []
    for name, of_candidate in table.groupby("candidate", sort=False):
        errors = of_candidate.pivot_table("error", "seed", "variant")
        gaps = of_candidate.assign(gap=of_candidate["error"] - of_candidate["train_error"])
        gaps = gaps.pivot_table("gap", "seed", "variant").mean()
        seconds = of_candidate["core_seconds"].mean()
        spreads = {arm: (errors["baseline"] - errors[arm]).std() for arm in ARMS[1:]}
        pooled = float(np.sqrt(np.mean(np.square(list(spreads.values())))))
        rows.append(
            {"candidate": name, "core-seconds": round(seconds, 1), "sd of a run": round(float(errors.std().mean()), 2)}
            | {f"sd {arm}": round(float(sd), 2) for arm, sd in spreads.items()}
            | {"sd × √s": round(pooled * seconds**0.5, 2), "gap": round(float(gaps["baseline"]), 1)}
            | {"gap without dropout": round(float(gaps["no_dropout"]), 1)}
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
