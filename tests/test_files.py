import subprocess
from pathlib import Path

import pytest

from pipeline.runtime.files import replacing, replacing_folder, write_json
from pipeline.runtime.git import revision


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "below/file.json"
    write_json(path, {"a": 1})

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


def test_a_folder_that_a_kill_left_between_its_two_renames_is_there_again_for_the_next_attempt(tmp_path: Path) -> None:
    old = tmp_path / ".folder.partial/old"
    old.mkdir(parents=True)
    (old / "notes.md").write_text("mine")
    with replacing_folder(tmp_path / "folder") as new:
        (new / "notes.md").write_text((tmp_path / "folder/notes.md").read_text() + ", kept")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder/notes.md").read_text() == "mine, kept"


def test_the_revision_says_when_the_code_differs_from_it_but_not_when_reports_do(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert revision(tmp_path) == ""
    git("init")
    for name in ("code.py", "dvc.lock", "reports/x/report.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    git("add", "--all")
    git("commit", "-m", "x")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "dvc.lock").write_text("other")
    (tmp_path / "reports/x/report.md").write_text("other")
    assert revision(tmp_path) == commit
    (tmp_path / "code.py").write_text("other")
    assert revision(tmp_path) == f"{commit}+dirty"
