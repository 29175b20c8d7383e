"""`make gpu`: what a GPU computes and how fast, in ten minutes.

Five steps follow each other: the GPU tests; numbers against the CPU's, and what repeats itself; speeds; the scale
`embedded_gpu`, trained, evaluated and reported; and as many variants of `embedded_all_gpu` as the time is enough for.
Each step is a process of its own and writes its results to the output folder as they come, so that what cuts it off
costs little. Neither a network nor DVC, MLflow or Git is needed: `REVISION` says what code it is where there is no Git.
`--dry-run` goes through all steps on a CPU, on the smoke scale: that proves the plumbing and measures nothing.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from ruamel.yaml import YAML

from benchmarks.__main__ import add
from benchmarks.setups import CONF, device_name
from pipeline import params, paths
from pipeline.errors import UserError
from pipeline.runtime.checksums import SUMS
from pipeline.runtime.exit_status import exit_status
from pipeline.runtime.files import write_text
from pipeline.runtime.git import REVISION, revision
from pipeline.tools.compose import composed

if TYPE_CHECKING:
    from pipeline.training.run import Run

ROOT = CONF.parent
LIMITS = {"tests": 120, "numerics": 150, "speeds": 240, "embedded_gpu": 300, "embedded_all_gpu": 3600}  # seconds
EVALUATING_S = 90.0  # of a scale's time, kept for evaluation and report
STOPPING_S = 30.0  # for a step, or for the runs of a stage, to stop
BENCHMARKS = "benchmarks.csv"
PACKAGES = ("torch", "triton", "numpy", "pytorch-lightning", "mlflow", "dvc")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder that the results are written to")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which everything has ended")
    parser.add_argument("--dry-run", action="store_true", help="all steps at a tiny size, on a CPU if there is no GPU")
    parser.add_argument("--step", choices=LIMITS, help="this step alone")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        raise UserError(f"make gpu needs a GPU, and torch {torch.__version__} finds none here; accepted is --dry-run")
    out, until = arguments.out.resolve(), time.time() + 60 * arguments.minutes
    if arguments.step:
        run_step(arguments.step, out, until, arguments.dry_run)
    else:
        run_steps(out, until, sys.argv[1:], arguments.dry_run)


def run_steps(out: Path, until: float, options: list[str], dry_run: bool) -> None:
    """Run all steps, each as a process of its own with its log, and say how they ended in steps.csv.

    What `speeds` has measured goes to reports/benchmarks.md, too.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "environment.txt", environment())
    ended = []
    for step, limit in LIMITS.items():
        started = time.time()
        seconds = until - started if dry_run else min(limit, until - started)  # a CPU takes its time
        command = [sys.executable, "-m", "benchmarks.gpu", *options, "--step", step, "--minutes", str(seconds / 60)]
        how = _run(command, out / f"{step}.txt", seconds) if seconds > STOPPING_S else "no time was left"
        ended.append({"step": step, "ended": how, "seconds": round(time.time() - started, 1)})
        write_text(out / "steps.csv", pd.DataFrame(ended).to_csv(index=False))
        print(f"{step}: {how}", flush=True)
    if (out / BENCHMARKS).exists() and not dry_run:
        add(pd.read_csv(out / BENCHMARKS))
    if any(step["ended"] != "done" for step in ended[:-1]):  # the last one takes what time there is
        sys.exit(1)


def environment() -> str:
    """Return the device, the versions and the revision, as lines."""
    lines = [f"device {device_name()}", f"revision {revision(ROOT)}", f"python {sys.version.split()[0]}"]
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            lines.append(f"{name} {version(name)}")
    lines += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    with suppress(OSError):
        lines.append(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
    return "\n".join(lines) + "\n"


def _run(command: list[str], log: Path, seconds: float) -> str:
    """Return how it ended. Whatever it has started ends with it."""
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(seconds)
            return "done" if code == 0 else f"failed (status {code}): see {log.name}"
        except subprocess.TimeoutExpired:
            return "cut off"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOPPING_S)
                os.killpg(process.pid, signal.SIGKILL)


# ---- The steps -------------------------------------------------------------------------------------------------------


def run_step(step: str, out: Path, until: float, dry_run: bool) -> None:
    if step == "tests":
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py"]
        sys.exit(subprocess.run([sys.executable, *tests], cwd=ROOT).returncode)
    elif step == "numerics":
        from benchmarks.numerics import errors, repeats

        full, small, workers = ("smoke", "smoke", 2) if dry_run else ("full", "embedded", 8)
        keep(errors(full), out / "numerics.csv")
        keep(repeats(small, workers), out / "determinism.csv")
    elif step == "speeds":
        from benchmarks.speeds import rows

        tiny: dict[str, Any] = {
            "full": "smoke",
            "small": "smoke",
            "batches": (16, 32),
            "epochs": 1,
            "workers": 2,
            "rounds": 1,
        }
        keep(map(asdict, rows(**tiny if dry_run else {})), out / BENCHMARKS)
    else:
        train_and_report(step, out, until - STOPPING_S, dry_run)


def keep(lines: Iterable[dict[str, Any]], path: Path) -> None:
    """Write a table, anew with each line that comes."""
    table: list[dict[str, Any]] = []
    for line in lines:
        table.append(line)
        write_text(path, pd.DataFrame(table).to_csv(index=False))


def train_and_report(scale: str, out: Path, until: float, dry_run: bool) -> None:
    """Run the five stages of a scale in a folder of their own, with those of its variants that finish in time.

    Its report is copied to `out`, and so is each run's history once the run is done. The evaluated runs are packed
    into one file, without the weights that no report shows.
    """
    os.environ["ALEXNET_STATE"] = str(paths.state())
    work = paths.state() / "gpu"
    work.mkdir(parents=True, exist_ok=True)
    for name in ("conf", "downloads"):
        with suppress(FileExistsError):
            (work / name).symlink_to(ROOT / name)
    write_text(work / REVISION, revision(ROOT))
    values = composed(CONF, f"scale={scale}") if not dry_run else smoke_called(scale)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    os.chdir(work)
    write_params(values)
    stage("prepare")
    stage("tune")
    runs = runs_of(values)
    if not train(runs, out / scale / "runs", until - EVALUATING_S):
        values = reduced(values, finished_variants(runs))
        write_params(values)
        stage("train")  # nothing more, but to write what is finished where the next stages look for it
    stage("evaluate")
    stage("report")
    shutil.copytree(paths.report(scale), out / scale, dirs_exist_ok=True)
    pack(params.validate(values, scale), out / scale / "runs.tar")


def smoke_called(scale: str) -> dict[str, Any]:
    values = composed(CONF, "scale=smoke", "hardware.accelerator=cpu", "hardware.workers=1")
    return values | {"scale": scale, "reports": {"fashion_mnist": scale}, "report": scale}


def write_params(values: dict[str, Any]) -> None:
    params.validate(values, "conf")
    YAML().dump(values, paths.PARAMS)


def stage(name: str) -> None:
    subprocess.run([sys.executable, "-m", f"stages.{name}"], check=True)


def runs_of(values: dict[str, Any]) -> dict[str, list["Run"]]:
    """Return the runs of each variant."""
    from pipeline.training.runs import variant_runs

    chosen = params.validate(values, "conf")
    return {name: variant_runs(chosen, name) for name in chosen.variants}


def train(runs: dict[str, list["Run"]], out: Path, until: float) -> bool:
    """Run the train stage, no longer than until then. Returns whether it came to its end."""
    process = subprocess.Popen([sys.executable, "-m", "stages.train"])
    while process.poll() is None and time.time() < until:
        time.sleep(1)
        keep_finished(runs, out)
    if process.poll() is None:
        process.terminate()
    code = process.wait(STOPPING_S)
    keep_finished(runs, out)
    if code not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise UserError("the train stage failed")
    return code == 0


def keep_finished(runs: dict[str, list["Run"]], out: Path) -> None:
    """Copy what finished runs say of themselves and of their epochs, each once."""
    for variant, of_variant in runs.items():
        for run in of_variant:
            target = out / variant / f"seed-{run.seed}"
            if (run.folder / SUMS).exists() and not target.exists():
                target.mkdir(parents=True)
                for name in ("run.json", "history.csv"):
                    shutil.copy2(run.folder / name, target / name)


def finished_variants(runs: dict[str, list["Run"]]) -> list[str]:
    """Return the variants all of whose seeds are finished. Raises UserError where the baseline is not."""
    names = [name for name, of_variant in runs.items() if all((run.folder / SUMS).exists() for run in of_variant)]
    if "baseline" not in names:
        raise UserError("the baseline's runs were not finished in time: there is nothing to report")
    return names


def reduced(values: dict[str, Any], variants: list[str]) -> dict[str, Any]:
    """Return the configuration of these variants alone."""
    evaluate = {
        key: [name for name in found if name in variants] if isinstance(found, list) else found
        for key, found in values["evaluate"].items()
    }
    more = values["more_seeds"]
    more = more | {"variants": [name for name in more["variants"] if name in variants]}
    return values | {"variants": variants, "more_seeds": more, "evaluate": evaluate}


def pack(chosen: params.Params, path: Path) -> None:
    """Pack all that a report is made of but the images; of the weights, those that it shows: the median baseline's."""
    from pipeline.claims.results import collect

    shown = paths.seed(chosen.scale, "baseline", collect(chosen, Path()).median_seed("baseline") or 0)
    with tarfile.open(path, "w") as archive:
        for file in sorted((paths.RUNS / chosen.scale).rglob("*")):
            if file.is_file() and (file.suffix != ".safetensors" or file.parent == shown):
                archive.add(file)


if __name__ == "__main__":
    sys.exit(exit_status(main))
