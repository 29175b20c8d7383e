"""What lies where a store is to be written: the very same store, an earlier one, or files that are not prepare's."""

import hashlib
import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from pipeline import paths
from pipeline.data.sources.listing import printable
from pipeline.data.store import ARRAYS, SPLITS, Store
from pipeline.errors import UserError
from pipeline.params import Data
from pipeline.runtime.files import sha256, write_json

PACKAGE = Path(__file__).parent
DECODERS = ("numpy", "pillow", "simplejpeg", "torch")
META = "meta.json"


def key(data: Data, most_bytes: int) -> str:
    """Return 16 hexadecimal digits that are equal where the store will be, byte for byte.

    They stand for the settings, the largest image that is decoded, the names, sizes and times of the files in
    data.folder, the preparing code (which holds the checksums of what is fetched), and the versions of the decoders.
    """
    code = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.txt")])
    identity = {
        "data": data.model_dump(),
        "most_bytes": most_bytes,
        "files": data.folder and _listing(paths.root() / Path(data.folder).expanduser()),
        "code": {str(path.relative_to(PACKAGE)): sha256(path) for path in code},
        "versions": {name: version(name) for name in DECODERS},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _listing(folder: Path) -> str:
    """Return the SHA-256 of the names, sizes and times of all files below a folder, those behind links included."""
    digest, seen = hashlib.sha256(), set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        inode = Path(place).stat()
        if (inode.st_dev, inode.st_ino) in seen:  # a link that leads back
            folders.clear()
        seen.add((inode.st_dev, inode.st_ino))
        for path in (Path(place, name) for name in sorted(names)):
            with suppress(OSError):  # a link that leads nowhere
                found = path.stat()
                digest.update(os.fsencode(path) + f"\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def remember(out: Path, written_key: str) -> None:
    """Note that the store of this key has been written to `out`."""
    write_json(_note(written_key), {META: sha256(out / META)})


def is_current(out: Path, wanted_key: str) -> bool:
    """Return whether `out` holds the store of this key, whole; print why not where it is damaged."""
    try:
        noted = json.loads(_note(wanted_key).read_text())[META]
        if sha256(out / META) != noted:
            return False
    except (OSError, ValueError, KeyError, TypeError):  # no note, or one that was cut off
        return False
    try:
        store = Store.open(out)
        for split in SPLITS:
            store.split(split)
    except UserError as damage:
        print(f"prepare: writes the store again ({str(damage).partition(';')[0]})", flush=True)
        return False
    return True


def _note(written_key: str) -> Path:
    return paths.state() / "prepared" / f"{written_key}.json"


def require_replaceable(out: Path, data: Data) -> None:
    """Raise UserError, naming a file, where `out` holds anything but a store, whole or in part."""
    path = _foreign(out) if out.is_dir() else None
    if path is not None:
        own = data.folder is not None and (paths.root() / Path(data.folder).expanduser()).resolve()
        lies_there = f" (data.folder = {data.folder!r} lies there)" if own and own.is_relative_to(out.resolve()) else ""
        raise UserError(
            f"{out}: is not replaced, as it holds {printable(str(path))}, which is no part of a store{lies_there}; "
            "accepted is no folder, an empty one or an earlier store: move the files away, or set data.dataset to "
            "another name"
        )


def _foreign(out: Path) -> Path | None:
    """Return a file or folder below `out` that no store holds."""
    for place, folders, names in os.walk(out, onerror=_raise):
        for path in (Path(place, name) for name in [*names, *folders]):
            known = SPLITS if path.is_dir() and not path.is_symlink() else (*ARRAYS, META)
            if path.relative_to(out).as_posix() not in known:
                return path
    return None


def _raise(error: OSError) -> NoReturn:
    raise error
