"""What `check` says of Git, before anything is installed, and what revision a run records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.git import advice, problems, revision

ROOT = Path(__file__).parents[1]


@pytest.fixture
def nameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose Git was never told a name."""
    for name in os.environ:
        if name.startswith(("GIT_", "EMAIL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")  # Git would else make a name up from the host's
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")


def repository(folder: Path, commit: bool = True) -> Path:
    for name in ("dvc.yaml", "params.yaml", "dvc.lock", "reports/x/report.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("as committed")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    commands = [["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "x"]]
    for command in commands if commit else commands[:1]:
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    return folder


def test_a_downloaded_archive_without_its_git_folder_is_told_so_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    done = subprocess.run(["make", "repro"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"error: {tmp_path} is no Git repository, which DVC needs; clone the repository" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_repository_without_a_commit_is_told_so(tmp_path: Path) -> None:
    (line,) = problems(repository(tmp_path / "new", commit=False))
    assert "has no commit" in line


def test_a_clone_a_worktree_and_a_subfolder_have_nothing_to_mend(tmp_path: Path) -> None:
    folder = repository(tmp_path / "clone")
    subprocess.run(["git", "worktree", "add", "--quiet", "../tree"], cwd=folder, check=True)
    (folder / "below").mkdir()
    for place in (folder, tmp_path / "tree", folder / "below"):
        assert problems(place) == []


@pytest.mark.usefixtures("nameless")
def test_git_without_a_name_is_advice_and_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (line,) = advice(folder)
    assert "git config --global user.name" in line
    subprocess.run(["git", "config", "user.name", "x"], cwd=folder, check=True)
    subprocess.run(["git", "config", "user.email", "x@example.org"], cwd=folder, check=True)
    assert advice(folder) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files to another user")
def test_a_clone_of_another_user_is_named_with_the_remedy_and_its_revision_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path / "mounted")
    commit = revision(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1000, 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    (line,) = problems(folder)
    assert f"git config --global --add safe.directory '{folder}'" in line
    assert len(commit) == 40
    assert revision(folder) == commit


def test_the_revision_says_when_the_code_differs_from_it_but_not_when_what_dvc_writes_does(tmp_path: Path) -> None:
    folder = repository(tmp_path / "clone")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    for name in ("dvc.lock", "params.yaml", "reports/x/report.md"):
        (folder / name).write_text("other")
    assert revision(folder) == head.stdout.strip()
    (folder / "dvc.yaml").write_text("other")
    assert revision(folder) == f"{head.stdout.strip()}+dirty"


def test_a_copy_without_git_has_its_revision_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "REVISION").write_text("0123+dirty\n")
    assert revision(tmp_path) == "0123+dirty"
    monkeypatch.setenv("PATH", "/none")  # nor is there Git itself
    assert revision(tmp_path) == "0123+dirty"
    assert capsys.readouterr().err == ""


def test_a_revision_that_is_not_known_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert revision(tmp_path) == ""
    assert "warning: the revision of the code is not known and not recorded: " in capsys.readouterr().err


def test_no_git_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = problems(tmp_path)
    assert line.startswith("git is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.runtime.git"], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/none"}
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
