"""A clone of this repository in which `dvc` runs the smoke scale on real images."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.data.sources import fashion_mnist
from pipeline.tools.compose import composed

ROOT = Path(__file__).parents[1]
READER = {"NAME": "a reader", "EMAIL": "reader@example.org"}
VARIANTS = ("baseline", "no_dropout", "tuned")
ALL_STAGES = ["prepare", "tune", "train", "evaluate", "report"]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "ALEXNET_", "MLFLOW_TRACKING"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    reader = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in READER.items()}
    return kept | reader | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "2"} | more


def tried(clone: Path, *command: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=clone, env=environment(**more), capture_output=True, text=True)


def run(clone: Path, *command: str, **more: str) -> str:
    done = tried(clone, *command, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(.+)'", output, re.MULTILINE)


def write_params(clone: Path, values: dict[str, Any]) -> None:
    """Write params.yaml as `dvc exp run` does."""
    (clone / "params.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))


def digests(clone: Path) -> dict[str, str]:
    """What must not depend on when or how often something ran."""
    patterns = ("runs/**/*.safetensors", "runs/**/*.parquet", "runs/**/seeds.json", "runs/**/best.yaml")
    found = [
        path for pattern in (*patterns, "prepared/**/*.*", "reports/smoke/[cr]*.*") for path in clone.glob(pattern)
    ]
    return {
        str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.is_file()
    }


def smoke_params() -> dict[str, Any]:
    return composed(ROOT / "conf", "scale=smoke")


def copy_tree(folder: Path) -> None:
    """The working tree and its downloads, without Git."""
    fashion_mnist.load()  # where it is not there yet, into this repository's downloads
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "downloads", folder / "downloads", dirs_exist_ok=True)


def make_clone(clone: Path) -> None:
    """The working tree as a new repository with the smoke scale's params.yaml. Nothing has run in it."""
    copy_tree(clone)
    (clone / "dvc.lock").unlink(missing_ok=True)
    write_params(clone, smoke_params())
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "clone"]):
        run(clone, "git", *command)
