import subprocess
from pathlib import Path

import pytest

from pipeline.files import replacing, write_json
from pipeline.origin import revision


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
