"""What DVC keeps: linked files of its cache are read and not written, and what one clone trained travels to another."""

import hashlib
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.data.store import Store
from tests.clone import digests, make_clone, run, stages_run, write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def changed_objects(clone: Path) -> list[Path]:
    """Of DVC's cache, whose files are named after their checksums."""
    objects = [path for path in (clone / ".dvc/cache/files/md5").glob("*/*") if path.is_file()]
    assert len(objects) > 20
    return [
        path
        for path in objects
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name.removesuffix(".dir")
    ]


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
    # What prepare leaves is `persist`, so DVC does not keep for it what it made of which settings; a report is Git's.
    assert stages_run(run(clone, "dvc", "repro")) == ["prepare", "report"]
    assert digests(clone) == before
    assert changed_objects(clone) == []


@pytest.fixture
def folder(tmp_path: Path) -> list[list[str]]:
    return [["add", "--default", str(tmp_path / "remote")]]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "for-tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="team")
    yield [["add", "--default", "s3://team/alexnet"], ["modify", "endpointurl", url]]
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_second_clone_reproduces_the_report_from_what_was_pushed_and_trains_nothing(
    clone: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    remote = request.getfixturevalue(kind)
    second = tmp_path / "second"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(second))
    shutil.copy2(clone / "dvc.lock", second)  # which a team commits
    for place in (clone, second):
        for action, *rest in remote:
            options = [word for word in rest if word.startswith("-")]
            run(place, "dvc", "remote", action, "--local", *options, "team", *rest[len(options) :])
    try:
        run(clone, "dvc", "push", "--run-cache")
    finally:
        (clone / ".dvc/config.local").unlink()
    run(second, "dvc", "pull", "--run-cache")
    assert stages_run(run(second, "dvc", "repro")) == ["report"]  # Git keeps it, not DVC; it trains nothing
    assert digests(second) == digests(clone)
    assert not list(second.glob(".state/runs/*"))
    assert not (second / "downloads").exists()
