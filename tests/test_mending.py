import shutil
from pathlib import Path

import pytest
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.mending import mend
from tests.clone import ROOT

pytestmark = pytest.mark.fault

LOCK, LOCKS = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


@pytest.fixture
def repo(workplace: Path) -> Repo:
    repo = Repo.init(no_scm=True)
    LOCKS.parent.mkdir(exist_ok=True)
    return repo


def test_wherever_a_lock_is_cut_off_it_goes_exactly_if_dvc_refuses_to_read_it(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (ROOT / "dvc.lock").read_bytes()[:6000]
    refused = 0
    for length in range(0, len(whole), 211):
        LOCK.write_bytes(whole[:length])
        try:
            Lockfile(repo, str(LOCK)).load()
            readable = True
        except DvcException:
            readable = False
            refused += 1
        mend()
        assert LOCK.exists() == readable
        assert ("dvc.lock: was cut off" in capsys.readouterr().out) != readable
    assert refused > 3


def test_whole_files_stay_and_missing_ones_are_no_matter(repo: Repo) -> None:
    mend()
    shutil.copy(ROOT / "dvc.lock", LOCK)
    LOCKS.write_text('{"write": {}}')
    mend()
    assert LOCK.exists()
    assert LOCKS.exists()


def test_a_table_of_locks_that_is_cut_off_goes_too(repo: Repo) -> None:
    LOCKS.write_text("")
    mend()
    assert not LOCKS.exists()
