"""Before a store is made it is said what that takes, and where it is not there."""

import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.data.prepare import prepare
from pipeline.data.space import Space
from pipeline.errors import UserError
from tests.test_data_folder import settings, write_folder

STORE_BYTES = 10**9


def needs(workplace: Path, cache: str | None) -> list[str]:
    """What a store in data/ needs bytes for, where DVC's configuration has these lines; None: without DVC."""
    if cache is not None:
        (workplace / ".dvc").mkdir()
        (workplace / ".dvc/config").write_text(f"[cache]\n{cache}\n")
    space = Space.of(workplace / ".state/prepare/a", workplace / "data/trees", STORE_BYTES)
    assert all(need.bytes == STORE_BYTES for need in space.needs)
    assert not list(workplace.rglob("*.partial"))
    return [need.what for need in space.needs]


@pytest.mark.parametrize(
    ("cache", "found"),
    [
        (None, ["for the store"]),
        ("type = copy", ["for the store", "for the copy in DVC's cache"]),
        ("type = hardlink", ["for the store"]),
        ("type = symlink,copy", ["for the store"]),
    ],
)
def test_dvcs_cache_counts_where_it_copies(workplace: Path, cache: str | None, found: list[str]) -> None:
    assert needs(workplace, cache) == found


def test_a_cache_on_another_file_system_counts_whatever_the_links(workplace: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == workplace.stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=other) as cache:
        found = needs(workplace, f"dir = {cache}\ntype = symlink")
    assert found == ["for the store", "for the copy in DVC's cache"]


def test_too_little_room_for_the_caches_copy_is_said_before_starting(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * STORE_BYTES - 1))
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc/config").write_text("[cache]\ntype = copy\n")
    space = Space.of(workplace / ".state/prepare/a", workplace / "data/trees", STORE_BYTES)
    with pytest.raises(UserError, match=r"trees: cannot be written \(No space left") as caught:
        space.check()
    needed = f"{2 * STORE_BYTES} bytes are needed in {workplace}"
    assert needed in str(caught.value)
    assert "1.00GB for the store, 1.00GB for the copy in DVC's cache" in str(caught.value)


def test_a_large_stores_line_says_how_dvc_would_link(workplace: Path) -> None:
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc/config").write_text("[cache]\ntype = copy\n")
    space = Space.of(workplace / ".state/prepare/a", workplace / "data/trees", 262 * 10**9)
    assert "262GB for the copy in DVC's cache (none with `dvc config --local cache.type " in space.plan(10, 60)


def test_what_is_there_from_an_earlier_process_is_not_needed_again(workplace: Path) -> None:
    grown = workplace / ".state/prepare/a/store/train/images.npy"
    grown.parent.mkdir(parents=True)
    grown.write_bytes(bytes(1 << 20))
    space = Space.of(workplace / ".state/prepare/a", workplace / "data/trees", STORE_BYTES)
    assert space.needs[0].bytes == STORE_BYTES - (1 << 20)


def test_one_line_says_bytes_minutes_and_what_is_free(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(settings(write_folder(workplace / "images")), workplace / "data/trees", workers=1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("prepare: 135 images; needed: ")
    assert " for the store, about 1 min; " in line
    assert f" free in {workplace}/.state/prepare/" in line
