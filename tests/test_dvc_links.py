"""DVC's cache may link instead of copying: each stage reads linked files, and none writes into what the cache holds."""

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.store import Store
from tests.clone import digests, make_clone, run, stages_run, write_params


def changed_objects(clone: Path) -> list[Path]:
    """Of DVC's cache, whose files are named after their checksums."""
    objects = [path for path in (clone / ".dvc/cache/files/md5").glob("*/*") if path.is_file()]
    assert len(objects) > 20
    return [
        path
        for path in objects
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name.removesuffix(".dir")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_linked_outs_are_read_and_a_repro_with_changes_leaves_the_cache_as_it_was(
    tmp_path: Path, smoke: dict[str, Any], link: str
) -> None:
    clone = tmp_path / "clone"
    make_clone(clone)
    run(clone, "dvc", "config", "--local", "cache.type", link)
    run(clone, "dvc", "repro")
    before = digests(clone)
    images = clone / "prepared/fashion_mnist/train/images.npy"
    assert images.is_symlink() if link == "symlink" else images.stat().st_nlink == 2
    assert not images.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert len(Store.open(images.parents[1]).split("train").images) == 200
    write_params(clone, smoke | {"data": smoke["data"] | {"split_seed": 1}, "seeds": [5]})
    assert "prepare" in stages_run(run(clone, "dvc", "repro"))
    assert changed_objects(clone) == []
    assert digests(clone) != before
    write_params(clone, smoke)
    assert stages_run(run(clone, "dvc", "repro")) == ["report"]  # which Git keeps, not DVC
    assert digests(clone) == before
    assert changed_objects(clone) == []
