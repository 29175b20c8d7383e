"""Git: the revision of the code, and what DVC needs of it, which `python -m pipeline.runtime.git` checks.

Only the standard library is imported, since `make repro` calls this before it installs the rest.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

REVISION = "REVISION"  # a file's name


def git(*command: str, folder: Path = Path()) -> str:
    """Return what a Git command prints, stripped. Raises OSError without Git, CalledProcessError where it fails.

    A repository of another user counts as safe: its code is being run already.
    """
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    return done.stdout.strip()


def revision(folder: Path = Path()) -> str:
    """Return the commit, with `+dirty` if tracked files differ; empty, with a warning, where it is not known.

    What DVC itself writes does not count: the reports, the lock, and params.yaml, whose settings every run and report
    records. A copy without Git has what this function returned elsewhere in the file REVISION.
    """
    try:
        commit = git("rev-parse", "HEAD", folder=folder)
        written = (":!reports", ":!dvc.lock", ":!params.yaml")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written, folder=folder)
    except (OSError, subprocess.CalledProcessError) as error:
        with suppress(FileNotFoundError):
            return (folder / REVISION).read_text().strip()
        reason = "git cannot be run"
        if isinstance(error, subprocess.CalledProcessError):
            reason = " ".join(error.stderr.split()) or f"`git {error.cmd[3]}` failed"
        print(f"warning: the revision of the code is not known and not recorded: {reason}", file=sys.stderr)
        return ""
    return commit + ("+dirty" if changes else "")


def origin() -> dict[str, str]:
    """Return what a run came from: the revision of the code, and the DVC stage and experiment that ran it."""
    return {
        "revision": revision(),
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }


def problems(folder: Path = Path()) -> list[str]:
    """Return why `dvc repro` cannot work in this folder, one line each with the remedy; empty where it can."""
    here = folder.resolve()
    start = "clone the repository with `git clone`, or run `git init && git add -A && git commit -m start` here"
    try:
        git("rev-parse", "--show-toplevel", folder=folder)
    except FileNotFoundError:
        return ["git is not installed, which DVC needs; install it (Debian: `apt install git`)"]
    except subprocess.CalledProcessError:
        return [f"{here} is no Git repository, which DVC needs; {start}"]
    found = []
    try:
        git("rev-parse", "--verify", "HEAD", folder=folder)
    except subprocess.CalledProcessError:
        found.append(f"the Git repository {here} has no commit, which DVC needs; `git add -A && git commit -m start`")
    owned = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    if "dubious ownership" in owned.stderr:
        found.append(
            f"{here} belongs to another user, and Git refuses to work in it; "
            f"run `git config --global --add safe.directory '{here}'`"
        )
    return found


def advice(folder: Path = Path()) -> list[str]:
    """Return what only `dvc exp run` lacks, one line each with the remedy."""
    try:
        git("var", "GIT_COMMITTER_IDENT", folder=folder)
    except (OSError, subprocess.CalledProcessError):
        return [
            "Git does not know your name, which `dvc exp run` needs (`dvc repro` does not); run `git config --global "
            "user.name 'Your Name' && git config --global user.email you@example.org`"
        ]
    return []


if __name__ == "__main__":
    for line in (found := problems()):
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2 if found else 0)
