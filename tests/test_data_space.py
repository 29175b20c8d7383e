"""Before a store is made it is stated what that takes, and where it is not there."""

import re
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.data import destination
from pipeline.data.prepare import prepare
from pipeline.errors import UserError
from tests.image_folders import settings, write_folder

STORE_BYTES = 10**9


def stated(workplace: Path, cache: str | None, store_bytes: int = STORE_BYTES) -> str:
    """What is stated of a store in data/, where DVC's configuration has these lines; None: without DVC."""
    if cache is not None:
        (workplace / ".dvc").mkdir()
        (workplace / ".dvc/config").write_text(f"[cache]\n{cache}\n")
    (workplace / "data").mkdir()
    said = destination.require_space(workplace / "data/trees", store_bytes)
    assert not list(workplace.rglob("*.partial"))
    return said


@pytest.mark.parametrize(
    ("cache", "copied"),
    [(None, False), ("type = copy", True), ("type = hardlink", False), ("type = symlink,copy", False)],
)
def test_dvcs_cache_counts_where_it_copies(workplace: Path, cache: str | None, copied: bool) -> None:
    copy = ", 1.00GB for the copy in DVC's cache" if copied else ""
    assert re.fullmatch(rf"needed: 1.00GB for the store{copy}; \S+ free in {workplace}/data", stated(workplace, cache))


def test_a_cache_on_another_file_system_counts_whatever_the_links(workplace: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == workplace.stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=other) as cache:
        said = stated(workplace, f"dir = {cache}\ntype = symlink", 10**6)
        assert said.startswith("needed: 1.00MB for the store, 1.00MB for the copy in DVC's cache; ")
        assert re.search(rf" free in {workplace}/data, \S+ free in {cache}$", said)


def test_a_store_behind_a_link_is_cached_as_any_other(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (workplace / "data").mkdir()
    (workplace / "data/trees").symlink_to(tmp_path_factory.mktemp("large-disk") / "trees")
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc/config").write_text("[cache]\ntype = copy\n")
    said = destination.require_space(workplace / "data/trees", STORE_BYTES)
    assert "for the copy in DVC's cache" in said
    assert "/large-disk" in said


@pytest.mark.parametrize("spare", [-1, 0])
def test_too_little_room_for_the_caches_copy_is_said_before_starting(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * STORE_BYTES + spare))
    if spare == 0:
        assert "2.00GB free" in stated(workplace, "type = copy")
        return
    with pytest.raises(UserError, match=r"trees: cannot be written \(No space left") as caught:
        stated(workplace, "type = copy")
    assert f"{2 * STORE_BYTES} bytes are needed in {workplace}" in str(caught.value)
    assert "1.00GB for the store, 1.00GB for the copy in DVC's cache" in str(caught.value)


def test_a_large_stores_line_says_how_dvc_would_link(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(10**12))
    said = stated(workplace, "type = copy", 262 * 10**9)
    assert "262GB for the copy in DVC's cache (none with `dvc config --local cache.type " in said


def test_one_line_states_images_bytes_and_what_is_free(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(settings(write_folder(workplace / "images")), workplace / "data/trees", workers=1)
    (line,) = capsys.readouterr().out.splitlines()
    expected = rf"prepare: 135 images; needed: 108kB for the store; \S+ free in {workplace}/data"
    assert re.fullmatch(expected, line)


def test_what_a_killed_attempt_left_is_cleared_before_room_is_looked_for(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = workplace / "data/.trees.partial/new/train/images.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0 if left.exists() else 2**40))
    prepare(settings(write_folder(workplace / "images")), workplace / "data/trees", workers=1)
    assert [path.name for path in (workplace / "data").iterdir()] == ["trees"]
