from pathlib import Path

import pytest

from pipeline.runtime.files import replacing, replacing_folder, write_json


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
