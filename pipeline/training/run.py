"""One run from start to end: resumed where it was left, never trained twice."""

import json
import logging
import math
import pickle
import platform
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save

from pipeline import paths
from pipeline.data.store import Store
from pipeline.models.build import multiply_adds
from pipeline.params import Hardware, Settings
from pipeline.runtime import signals
from pipeline.runtime.checksums import SUMS, damage, write_sums
from pipeline.runtime.cores import usable_cores
from pipeline.runtime.files import replacing_folder, write_bytes, write_json
from pipeline.runtime.git import origin
from pipeline.runtime.hardware import cpu_model, set_arithmetic, set_threads
from pipeline.runtime.locks import locked
from pipeline.training import distributed
from pipeline.training.callbacks import History, Progress, SpacedCheckpoints, Stop
from pipeline.training.fingerprint import fingerprint
from pipeline.training.module import Classifier, Diverged, Images
from pipeline.training.schedule import StopAtTrainError, Warmup, rate_schedule

CHECKPOINT, HISTORY, RUN, WEIGHTS, WHERE = "last.ckpt", "history.csv", "run.json", "model.safetensors", "where.json"


@dataclass(frozen=True)
class Run:
    scale: str
    variant: str
    section: str  # of the paper
    seed: int
    settings: Settings
    store: Store
    hardware: Hardware
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.settings, self.seed, self.store, self.hardware))

    @property
    def folder(self) -> Path:
        """Where the run grows, and stays once finished."""
        return paths.state() / "runs" / self.fingerprint

    @property
    def lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    def __str__(self) -> str:
        return f"{self.scale} {self.variant}, seed {self.seed}"


def train(
    run: Run,
    callbacks: Sequence[pl.Callback] = (),
    tell: Callable[[int], None] = lambda epochs: None,
    wait: bool = True,
) -> Path:
    """Train `run`, or continue it, or return at once if it is finished. Returns the folder with its files.

    A diverged run is finished too: `run.json` then says `failed`, and why. Two processes never train the same run:
    the second waits and finds it done, or raises Busy where it is not to `wait`. `callbacks` take part beside the
    run's own; `tell` is told of each epoch. Processes that train it together all call this; the first of them locks,
    decides and writes.
    """
    distributed.join(run.hardware)
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.lock, str(run), wait) if distributed.is_global_zero() else nullcontext():
        if not distributed.agreed(lambda: finished(run)):
            _fit(run, callbacks, tell)
        if distributed.is_global_zero():
            for name in (CHECKPOINT, WHERE):
                (run.folder / name).unlink(missing_ok=True)
    return run.folder


def finished(run: Run) -> bool:
    """Whether all its files are there, as they were written; where they are not any more it is trained again."""
    if not (run.folder / SUMS).exists():
        return False
    for name in (RUN, HISTORY, WEIGHTS):
        if problem := damage(run.folder / name):
            print(f"{run.folder / name}: {problem}; {run.variant}, seed {run.seed}, is trained again", flush=True)
            (run.folder / SUMS).unlink()
            return False
    return True


def _fit(run: Run, callbacks: Sequence[pl.Callback], tell: Callable[[int], None]) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", module="pytorch_lightning"
    )  # hints for loaders that read files, which ours do not
    set_threads(run.hardware.thread_count)
    where: dict[str, Any] = {"processes": distributed.size(), "threads": run.hardware.thread_count}
    where |= {"torch": torch.__version__, "numpy": np.__version__}
    schedule, goal, history = (
        rate_schedule(run.settings),
        StopAtTrainError(run.settings),
        History(run.folder / HISTORY),
    )
    trainer = pl.Trainer(
        accelerator=run.hardware.accelerator,
        **distributed.trainer_arguments(),
        precision=set_arithmetic(run.settings.train.precision),
        max_epochs=run.settings.train.epochs,
        deterministic="warn",
        plugins=[SpacedCheckpoints(), distributed.environment()],
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Stop(),
            history,
            Warmup(run.settings),
            schedule,
            goal,
            Progress(tell),
            *callbacks,
            ModelCheckpoint(
                run.folder, CHECKPOINT.removesuffix(".ckpt"), enable_version_counter=False, save_on_train_epoch_end=True
            ),
        ],
    )
    if distributed.size() > 1:  # Lightning's handlers speak to the other processes, whatever they are interrupted in
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    where |= {"device": _device_name(trainer), "machine": platform.machine(), "compiled": run.hardware.compile}
    checkpoint = distributed.agreed(lambda: _checkpoint(run, where))
    module = Classifier(run.settings, len(run.store.meta.classes), run.seed)
    device = trainer.strategy.root_device
    if run.hardware.compile:
        module.compile_net(device)
    images = Images(run.store, run.settings, run.seed, device)
    started_ms, failure = int(time.time() * 1000), None
    try:
        with signals.only_at_check():
            trainer.fit(module, images, ckpt_path=checkpoint)
            module.stop_unless_weights_finite()
    except signals.Stopped as stop:
        stop.add_note(f"{run}: {len(history.rows)} of {run.settings.train.epochs} epochs are kept")
        raise
    except Diverged as error:
        norm = error.gradient_norm if math.isfinite(error.gradient_norm) else None  # JSON has no infinity
        failure = {"step": error.step, "lr": error.lr, "gradient_norm": norm}
        if distributed.is_global_zero():
            print(f"{run}: {error}; recorded as failed", flush=True)
    if not distributed.is_global_zero():
        return
    stopped = "diverged" if failure else "goal" if goal.reached else "plateau" if schedule.stopped else "budget"
    _finish(run, module, history, {"stopped": stopped, "lr_drops": schedule.drops}, failure, where, started_ms)


def _device_name(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def _checkpoint(run: Run, where: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from, if there is a sound one made in the same surroundings."""
    path, where_path = run.folder / CHECKPOINT, run.folder / WHERE
    if path.exists():
        problem = _unsound(path) or _elsewhere(where_path, where)
        if problem is None:
            return path
        print(f"{run}: {problem}; this run starts anew", flush=True)
        path.unlink()
    write_json(where_path, where)
    return None


def _unsound(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if not bad:
            torch.load(path, mmap=True, weights_only=True)  # refuses all but tensors and plain values
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, OSError) as error:
        return f"the checkpoint {path} is damaged ({str(error).splitlines()[0]})"
    return f"the checkpoint {path} is damaged (checksum of {bad})" if bad else None


def _elsewhere(path: Path, where: dict[str, Any]) -> str | None:
    """A run continued on other hardware or versions would be neither the one nor the other."""
    before = json.loads(path.read_text()) if path.exists() else {}
    changed = [f"{key} was {before.get(key)}, is {value}" for key, value in where.items() if before.get(key) != value]
    return f"the checkpoint was made elsewhere ({'; '.join(changed)})" if changed else None


def _finish(
    run: Run,
    module: Classifier,
    history: History,
    ending: dict[str, Any],
    failure: dict[str, float | None] | None,
    where: dict[str, Any],
    started_ms: int,
) -> None:
    """Write weights, `run.json` and checksums, the latter last: they are what says that the run is over."""
    history.write()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.net.state_dict().items()}
    if failure is None:
        write_bytes(run.folder / WEIGHTS, save(weights))
    seconds = sum(row["seconds"] for row in history.rows)
    images = run.store.meta.counts["train"] * len(history.rows)
    write_json(
        run.folder / RUN,
        {
            "fingerprint": run.fingerprint,
            "seed": run.seed,
            "status": "failed" if failure else "finished",
            "epochs": len(history.rows),
            **ending,
            "failure": failure,
            "parameters": sum(weight.numel() for weight in module.net.parameters()),
            "multiply_adds": multiply_adds(run.settings, len(run.store.meta.classes), run.store.meta.channels),
            "settings": run.settings.model_dump(),
            "started_ms": int(history.rows[0]["time_ms"] - 1000 * history.rows[0]["seconds"])
            if history.rows
            else started_ms,
            "finished_ms": int(time.time() * 1000),
            "seconds": round(seconds, 1),
            "images_per_second": round(images / seconds) if seconds else None,
            "where": where,
            "cores": usable_cores(),
            "origin": origin(),
        },
    )
    write_sums(run.folder, HISTORY, WEIGHTS, RUN)


def _link_or_copy(source: Path, target: Path) -> None:
    """Files of finished runs are replaced and never written to, so that a link is as good as a copy."""
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def publish(run: Run, out: Path) -> None:
    """Copy a finished run's files to `out` and say there what the run is called. It appears as one rename."""
    with locked(run.lock, str(run)), replacing_folder(out) as copy:
        for name in (HISTORY, WEIGHTS):
            if (run.folder / name).exists():
                _link_or_copy(run.folder / name, copy / name)
        facts = json.loads((run.folder / RUN).read_text())
        write_json(copy / RUN, {"scale": run.scale, "variant": run.variant, "section": run.section, **facts})
        write_sums(copy, HISTORY, WEIGHTS, RUN)
