"""`dvc repro` with nothing to do, beside a DVC pipeline of as many empty stages.

This project's stages count as done in a copy of the repository, where placeholders stand for what they write.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dvc.repo import Repo

from benchmarks.harness import Contender, Row, ratio, rounds_of

ROUNDS = 7
ROOT = Path(__file__).parents[1]


def contender(folder: str) -> Callable[[], None]:
    return lambda: _run(Path(folder), sys.executable, "-m", "dvc", "repro", "--quiet")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folders = [Path(temporary, "project"), Path(temporary, "empty")]
        _empty(folders[1], stages=_project(folders[0]))
        contenders = [
            stack.enter_context(Contender("benchmarks.noop:contender", folder=str(folder))) for folder in folders
        ]
        times = rounds_of(contenders, ROUNDS)
    return [ratio("noop_repro", "overhead", "as many empty stages", [ours / empty for ours, empty in times])]


def _project(folder: Path) -> int:
    """Make the copy, and say how many stages it has."""
    _run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    with Repo(str(folder)) as repo:
        index = repo.index
        made = [Path(out.fs_path) for out in index.outs]
        made += [Path(dep.fs_path) for dep in index.deps if dep.fs_path]  # files in folders that a stage makes
    for path in made:
        place = path if path.suffix else path / "placeholder"
        if not path.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    _run(folder, sys.executable, "-m", "dvc", "commit", "--force", "--quiet")
    return len(index.stages)


def _empty(folder: Path, stages: int) -> None:
    folder.mkdir()
    names = range(stages)
    (folder / "params.yaml").write_text("".join(f"p{k}: {k}\n" for k in names))
    cmd = "".join(f'  s{k}: {{cmd: "true", params: [p{k}]}}\n' for k in names)
    (folder / "dvc.yaml").write_text("stages:\n" + cmd)
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        _run(folder, *command)
    _run(folder, sys.executable, "-m", "dvc", "repro", "--quiet")


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True)
