"""What one clone has trained travels to another by a DVC remote: a folder, or a store that speaks S3."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.clone import digests, run, stages_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
