"""Lists what a folder holds, and prints its names."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError

FEW = 10


def entries(folder: Path, layout: str, folders: bool = True) -> list[os.DirEntry[str]]:
    """Return a folder's folders, or else its files, by name and without hidden ones.

    Raises UserError, which states `layout`, where something else lies there.
    """
    try:
        found = sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
        for entry in found:
            if not (entry.is_dir() if folders else entry.is_file()):
                kind = "folder" if folders else "file"
                raise UserError(f"{entry.path}: is no {kind}; {layout}: move it away")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); {layout} in data.folder") from error
    return found


def printable(name: str) -> str:
    """Return a file's name with the bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def few(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
