"""Made-up runs with the files and columns of real ones, for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from pipeline import paths
from pipeline.data.store import ARRAYS
from pipeline.params import Net, Params, Recipe, Train
from pipeline.runtime.files import sha256, write_json

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
COUNTS = {"train": 600, "val": 400, "test": 800}
SCORE_OF_TRUE_LABEL = {  # the higher, the lower the error
    "baseline": 3.0,
    "non_overlapping_pooling": 2.9,
    "no_dropout": 2.6,
    "no_response_norm": 3.0,
    "as_coded": 3.1,
    "tuned": 3.3,
}
EPOCHS = 6


def score(variant: str) -> float:
    return SCORE_OF_TRUE_LABEL.get(variant, 3.0)


def fake_params(**changes: Any) -> Params:
    values: dict[str, Any] = {
        "scale": "fake",
        "reports": {"fashion_mnist": "fake"},
        "report": "fake",
        "data": {
            "dataset": "fashion_mnist",
            "folder": None,
            "image_size": 76,
            "train_images": COUNTS["train"],
            "validation_images": COUNTS["val"],
            "test_images": COUNTS["test"],
            "split_seed": 0,
        },
        "net": Net(crop_px=67, width=0.25).model_dump(),
        "recipe": Recipe().model_dump(),
        "train": Train(epochs=EPOCHS, patience_epochs=2).model_dump(),
        "seeds": [0, 1, 2],
        "hardware": {"accelerator": "cpu", "threads": 1},
        "tune": {
            "trials": 3,
            "epochs": 2,
            "seed": 0,
            "lr": [0.001, 0.1],
            "weight_decay": [1e-5, 1e-2],
            "batch": 1,
            "random_trials": 2,
            "warmup_epochs": 1,
            "storage": None,
        },
        "evaluate": {"ten_crop": ["baseline"], "analyses": [], "batch_images": 100},
        "variants": {
            name: {
                "title": name.replace("_", " "),
                "section": "3",
                "description": f"What {name} changes.",
                "study": "baseline" if name == "tuned" else None,
                "set": {},
            }
            for name in SCORE_OF_TRUE_LABEL
        },
        "departures": ["The images are made up."],
    }
    return Params.model_validate(values | changes)


def write_fake_runs(root: Path, params: Params) -> None:
    """Data, tuning, training and evaluation of every variant of `params`, below `root`."""
    labels = _write_data(root, params)
    _write_tuning(root, params)
    for number, variant in enumerate(params.variants):
        tables = []
        seeds: dict[str, Any] = {}
        for seed in params.seeds_of(variant):
            rng = np.random.default_rng([number, seed])
            _write_run(root, params, variant, seed, rng)
            found, table = _evaluated(params, variant, seed, labels, rng)
            seeds[str(seed)] = found
            tables.append(table)
        folder = root / paths.evaluation(params.scale, variant)
        folder.mkdir(parents=True)
        pd.concat(tables, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
        (folder / "seeds.json").write_text(json.dumps(seeds))


def mark_failed(root: Path, params: Params, variant: str, seed: int) -> None:
    """As if the run had diverged."""
    run = root / paths.seed(params.scale, variant, seed)
    facts = json.loads((run / "run.json").read_text())
    failure = {"step": 57, "lr": 0.01, "gradient_norm": 1e9}
    (run / "run.json").write_text(json.dumps({**facts, "status": "failed", "stopped": "diverged", "failure": failure}))
    (run / "model.safetensors").unlink()
    change_metrics(root, params, variant, lambda seeds: seeds.__setitem__(str(seed), {"status": "failed"}))


def change_metrics(root: Path, params: Params, variant: str, change: Any) -> None:
    """Let `change` edit the variant's seeds.json."""
    path = root / paths.evaluation(params.scale, variant) / "seeds.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


def _write_data(root: Path, params: Params) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder = root / paths.data(params.data.dataset)
    labels = {}
    y, x = np.mgrid[0:28, 0:28]
    for split, count in COUNTS.items():
        (folder / split).mkdir(parents=True)
        labels[split] = rng.integers(0, len(CLASSES), count)
        waves = 127 + 120 * np.sin((labels[split][:, None, None] + 1) * (x + y) / 14)
        np.save(folder / split / "images.npy", waves.astype(np.uint8)[..., None])
        np.save(folder / split / "labels.npy", labels[split])
    np.save(folder / "mean_image.npy", np.zeros((28, 28, 1), np.float32))
    meta = {"dataset": params.data.dataset, "image_size": 28, "channels": 1, "classes": CLASSES, "counts": COUNTS}
    meta |= {"sources": {}, "skipped": [], "rgb_eigenvectors": np.eye(3).tolist(), "rgb_std": [1.0, 1.0, 1.0]}
    write_json(folder / "meta.json", meta | {"sha256": {array: sha256(folder / array) for array in ARRAYS}})
    return labels


def _write_tuning(root: Path, params: Params) -> None:
    folder = root / paths.tune(params.scale, "baseline")
    folder.mkdir(parents=True)
    (folder / "best.yaml").write_text("train: {lr: 0.02, weight_decay: 0.001}\n")
    (folder / "trials.csv").write_text(
        "number,state,lr,weight_decay,objective,value,epochs,seconds,curve\n"
        "0,COMPLETE,0.02,0.001,val_error_top1,21.5,2,3.2,40.0 21.5\n"
        "1,PRUNED,0.0013,0.00002,val_error_top1,60.25,1,1.7,60.25\n"
        "2,FAIL,0.098,0.0071,val_error_top1,,1,1.6,\n"
    )


def _write_run(root: Path, params: Params, variant: str, seed: int, rng: np.random.Generator) -> None:
    folder = root / paths.seed(params.scale, variant, seed)
    folder.mkdir(parents=True)
    epochs = np.arange(1, EPOCHS + 1)
    val = 8 + 70 * np.exp(-epochs / 1.5) + rng.normal(0, 0.8, EPOCHS) + 3 - score(variant)
    pd.DataFrame(
        {
            "epoch": epochs,
            "lr": 0.01,
            "train_loss": 2 / epochs,
            "train_error_top1": val + 4 - 6 * epochs / EPOCHS,
            "val_loss": 2.1 / epochs,
            "val_error_top1": val,
            "val_error_top5": val / 8,
            "seconds": rng.uniform(1, 2, EPOCHS),
            "time_ms": 1_700_000_000_000 + 1000 * epochs,
        }
    ).to_csv(folder / "history.csv", index=False)
    save_file({"conv1.weight": rng.normal(0, 0.01, (24, 3, 11, 11)).astype(np.float32)}, folder / "model.safetensors")
    facts = {
        "fingerprint": f"{variant}-{seed}",
        "scale": params.scale,
        "variant": variant,
        "seed": seed,
        "status": "finished",
        "epochs": EPOCHS,
        "stopped": "budget",
        "lr_drops": [],
        "failure": None,
        "settings": params.settings(variant).model_dump(),
        "where": {"torch": "2.0", "device": "cpu", "threads": 2, "python": "3.11", "machine": "x86_64"},
        "seconds": 9.1,
        "parameters": 1000,
        "multiply_adds": 2_000_000,
        "images_per_second": 2500,
    }
    (folder / "run.json").write_text(json.dumps(facts))


def _evaluated(
    params: Params, variant: str, seed: int, labels: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[dict[str, Any], pd.DataFrame]:
    found: dict[str, Any] = {"status": "finished"}
    tables = []
    looks = [(split, "one_crop") for split in COUNTS]
    if variant in params.evaluate.ten_crop:
        looks.append(("test", "ten_crop"))
    for split, views in looks:
        easier = 0.6 * (split == "train") + 0.15 * (views == "ten_crop")
        table = _predictions(labels[split], score(variant) + easier, rng)
        metrics = {f"error_top{k}": 100 * float((table["rank"] >= k).mean()) for k in (1, 5)}
        found.setdefault(split, {})[views] = {**metrics, "loss": float(-np.log(table["p_label"]).mean())}
        table.insert(0, "seed", np.int16(seed))
        table.insert(1, "split", split)
        table.insert(2, "views", views)
        tables.append(table)
    return found, pd.concat(tables, ignore_index=True)


def _predictions(labels: np.ndarray, score: float, rng: np.random.Generator) -> pd.DataFrame:
    shape = (len(labels), len(CLASSES))
    scores = np.random.default_rng(len(labels)).normal(0, 1, shape) + rng.normal(
        0, 0.15, shape
    )  # hard images stay hard
    scores[np.arange(len(labels)), labels] += score
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    order = np.argsort(-p, axis=1)
    ranked = np.take_along_axis(p, order, axis=1)
    columns: dict[str, Any] = {
        "index": np.arange(len(labels), dtype=np.int32),
        "label": labels.astype(np.int16),
        "rank": (order == labels[:, None]).argmax(axis=1).astype(np.int16),
        "p_label": p[np.arange(len(labels)), labels].astype(np.float32),
    }
    columns |= {f"top{k + 1}": order[:, k].astype(np.int16) for k in range(5)}
    columns |= {f"p{k + 1}": ranked[:, k].astype(np.float32) for k in range(5)}
    return pd.DataFrame(columns)
