"""What a run came from: the revision of the code, and the DVC stage and experiment that ran it."""

import os
import subprocess
from pathlib import Path


def revision(root: Path = Path()) -> str:
    """The commit, with `+dirty` behind it where tracked files differ; empty outside a repository.

    What `dvc repro` itself writes, the lock and the reports, does not count.
    """
    commands = (
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock"],
    )
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+dirty" if changes else "")


def origin() -> dict[str, str]:
    return {
        "revision": revision(),
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
