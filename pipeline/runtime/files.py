"""Writes files and folders that appear whole or not at all.

A temporary file is named after what it is for, so that the next attempt clears away what a killed one left.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its place by rename, and is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk does not say which file it was
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; it takes its place by rename, and is removed if the block raises."""
    temporary = _temporary(folder)
    new, old = temporary / "new", temporary / "old"
    if old.exists() and not folder.exists():  # killed between the two renames
        old.rename(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    with replacing(path) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            error.add_note(f"{len(content)} bytes are needed")
            raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def require(*paths: Path) -> None:
    """Raise RuntimeError where a file that a stage promises is missing: DVC would keep an empty out for good."""
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise RuntimeError(f"the stage has not written {', '.join(missing)}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
