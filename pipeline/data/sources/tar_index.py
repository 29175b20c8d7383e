"""Finds where each file of a tar archive lies by its headers alone, to read it in place and never unpack it."""

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError


class Members(NamedTuple):
    """The regular files of an archive, by name; as arrays, as ImageNet has more than a million."""

    names: NDArray[np.bytes_]  # N, without folders
    offsets: NDArray[np.int64]  # N, bytes from the start of the outermost archive
    sizes: NDArray[np.int64]  # N, bytes


def index(path: Path, called: str, start: int = 0, end: int | None = None) -> Members:
    """Index the archive in bytes `start` to `end` of a file, by default all of it; messages call it `called`.

    Raises UserError, naming the member, where it is cut off or damaged.
    """
    names, places = [], []
    name, after = "its start", start
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while after <= end and (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # would grow by an object for each file
                    name = PurePosixPath(member.name).name
                    after = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    if member.isreg():
                        names.append(os.fsencode(name))
                        places.append((member.offset_data, member.size))
            file.seek(after)
            closing = file.read(max(0, min(tarfile.BLOCKSIZE, end - after)))
    except OSError as error:
        raise UserError(f"{called}: cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever tarfile raises on hostile bytes
        raise UserError(f"{called}: is no tar archive ({error}); copy or fetch it again") from error
    if after > end:
        raise UserError(f"{called}: ends inside {name}, at byte {end} instead of {after}; copy or fetch it again")
    if closing != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{called}: is cut off or damaged after {name}, at byte {after}; copy or fetch it again")
    order = np.argsort(np.array(names, np.bytes_), kind="stable")
    offsets, sizes = np.array(places, np.int64).reshape(-1, 2)[order].T
    return Members(np.array(names, np.bytes_)[order], offsets, sizes)


def read(archive: Path, offset: int, size: int) -> bytes:
    """Return a member's content, from any process. Raises OSError."""
    with archive.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)
