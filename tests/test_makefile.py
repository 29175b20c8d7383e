"""The Makefile makes an environment that works, or says in one line why it cannot."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHOUT_ENSUREPIP = """#!/bin/sh
# As Debian's python3 behaves without its package python3-venv.
if [ "$1" = -m ] && [ "$2" = venv ]; then
  python3 -m venv --without-pip "$3"
  echo "The virtual environment was not created successfully because ensurepip is not available." >&2
  exit 1
fi
exec python3 "$@"
"""
TOO_OLD = """#!/bin/sh
if [ "$1" = --version ]; then echo "Python 3.9.2"; exit 0; fi
exit 1
"""


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if not (folder / "Makefile").exists():
        (folder / "Makefile").symlink_to(ROOT / "Makefile")
        for name in ("pyproject.toml", "constraints.txt"):
            (folder / name).write_text("")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # of make test
    return subprocess.run(["make", *arguments], cwd=folder, env=own, capture_output=True, text=True)


def wanted(folder: Path) -> bool:
    """Whether make would make a new environment."""
    return "-m venv" in make(folder, "--dry-run", ".venv/.installed").stdout


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_an_environment_that_is_half_made_is_made_anew_and_one_that_works_is_kept(tmp_path: Path) -> None:
    assert wanted(tmp_path)
    subprocess.run(["python3", "-m", "venv", "--without-pip", ".venv"], cwd=tmp_path, check=True)
    (tmp_path / ".venv/.installed").touch()
    assert wanted(tmp_path)
    assert make(tmp_path, "new-environment").returncode == 0
    assert (tmp_path / ".venv/bin/pip").exists()
    (tmp_path / ".venv/.installed").touch()
    assert not wanted(tmp_path)
    (tmp_path / ".venv/bin/python").unlink()  # as after an upgrade of the system's Python
    assert wanted(tmp_path)


def test_where_none_can_be_made_one_line_gives_the_command_and_nothing_half_made_stays(tmp_path: Path) -> None:
    done = make(tmp_path, "new-environment", script(tmp_path / "python", WITHOUT_ENSUREPIP))
    assert done.returncode != 0
    assert "sudo apt install python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_is_one_line(tmp_path: Path) -> None:
    done = make(tmp_path, "new-environment", script(tmp_path / "python", TOO_OLD))
    assert done.returncode != 0
    assert "is Python 3.9.2; accepted is Python 3.11 or newer" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["notes.txt", ""])
def test_a_folder_that_is_no_environment_is_not_deleted(tmp_path: Path, name: str) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / (name or "lib")).write_text("somebody's own")
    assert "move it away" in make(tmp_path, "new-environment").stderr
    assert (tmp_path / ".venv" / (name or "lib")).exists()


def test_the_help_lists_each_target_that_people_call_with_a_line(tmp_path: Path) -> None:
    lines = make(tmp_path, "help").stdout.splitlines()
    targets = ["repro", "test", "test-slow", "bench", "mutants", "gpu", "lint", "format", "ui", "clean", "help"]
    assert [line.split()[:2] for line in lines] == [["make", target] for target in targets]
    assert all(len(line.split()) > 3 for line in lines)


def test_a_mistyped_target_is_answered_with_the_list(tmp_path: Path) -> None:
    done = make(tmp_path, "tset")
    assert done.returncode != 0
    assert done.stderr.startswith("error: make has no target 'tset'; accepted are:\nmake repro ")
