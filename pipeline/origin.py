"""What a run came from: the revision of the code, and the DVC stage and experiment that ran it."""

import os
import subprocess


def revision() -> str:
    """The commit, with `+dirty` behind it where the working tree differs; empty outside a repository."""
    try:
        commit, changes = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
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
