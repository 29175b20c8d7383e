"""The place of a store before it is written: what lies there, and the disk space that a store takes."""

import errno
import hashlib
import json
import os
import shutil
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from pipeline import paths
from pipeline.data.sources import printable
from pipeline.data.store import ARRAYS, SPLITS, Store
from pipeline.errors import UserError
from pipeline.params import Data
from pipeline.runtime.files import sha256, write_json
from pipeline.runtime.source_code import digest

PACKAGE = Path(__file__).parent
DECODERS = ("numpy", "pillow", "simplejpeg", "torch")
META = "meta.json"
ROOM = "make room, or lower data.train_images or data.image_size"
LINKS = "dvc config --local cache.type reflink,hardlink,symlink"
LARGE_BYTES = 20 << 30  # a copy of so much is worth the care that linked files want


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
    return digest(identity)


def _listing(folder: Path) -> str:
    """Return the SHA-256 of the names, sizes and times of all files below a folder, those behind links included.

    An archive in its place is listed by itself.
    """
    listed, seen = hashlib.sha256(), set()
    walk = os.walk(folder, followlinks=True) if folder.is_dir() else [(str(folder.parent), [], [folder.name])]
    for place, folders, names in walk:
        folders.sort()
        inode = Path(place).stat()
        if (inode.st_dev, inode.st_ino) in seen:  # a link that leads back
            folders.clear()
        seen.add((inode.st_dev, inode.st_ino))
        for path in (Path(place, name) for name in sorted(names)):
            with suppress(OSError):  # a link that leads nowhere
                found = path.stat()
                listed.update(os.fsencode(path) + f"\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return listed.hexdigest()


def remember(out: Path, written_key: str) -> None:
    """Note that the store of this key has been written to `out`."""
    write_json(_note(written_key), {META: sha256(out / META)})


def is_current(out: Path, wanted_key: str) -> bool:
    """Return whether `out` holds the store of this key, whole. Print why not where it is damaged."""
    try:
        if sha256(out / META) != json.loads(_note(wanted_key).read_text())[META]:
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

    def refuse(error: OSError) -> NoReturn:
        raise error

    for place, folders, names in os.walk(out, onerror=refuse) if out.is_dir() else ():
        for path in (Path(place, name) for name in [*names, *folders]):
            known = SPLITS if path.is_dir() and not path.is_symlink() else (*ARRAYS, META)
            if path.relative_to(out).as_posix() in known:
                continue
            own = data.folder is not None and paths.images(data.folder).is_relative_to(out.resolve())
            lies_there = f" (data.folder = {data.folder!r} lies there)" if own else ""
            raise UserError(
                f"{out}: is not replaced, as it holds {printable(str(path))}, which is no part of a store{lies_there}; "
                "accepted is no folder, an empty one or an earlier store: move the files away, or set data.dataset to "
                "another name"
            )


def require_space(out: Path, store_bytes: int) -> str:
    """Return, in words, what a store at `out` needs and what is free; the copy in DVC's cache counts.

    Raises UserError where a file system has too little for the store, or for the copy of it that DVC caches.
    """
    place, cache = out.resolve().parent, _cache_that_copies(out)
    size = tqdm.format_sizeof(store_bytes, "B")
    needs, listed = [place], f"{size} for the store"
    if cache is not None:
        hint = f" (none with `{LINKS}`)" if store_bytes >= LARGE_BYTES and _same_device(cache, place) else ""
        needs, listed = [place, cache], f"{listed}, {size} for the copy in DVC's cache{hint}"
    free: dict[int, str] = {}  # by device
    for folder in needs:
        needed = store_bytes * sum(_same_device(folder, other) for other in needs)
        left = shutil.disk_usage(folder).free
        if left < needed:
            where = f" in {folder} ({listed})" if cache is not None else ""
            raise UserError(
                f"{out}: cannot be written ({os.strerror(errno.ENOSPC)}); {needed} bytes are needed{where}: {ROOM}"
            )
        free.setdefault(folder.stat().st_dev, f"{tqdm.format_sizeof(left, 'B')} free in {folder}")
    return f"needed: {listed}; {', '.join(free.values())}"


def _cache_that_copies(out: Path) -> Path | None:
    """Return DVC's cache if `out` will be in it a second time: no link is allowed or possible, or it lies elsewhere."""
    root = paths.root()
    if not (root / ".dvc").is_dir() or not out.absolute().is_relative_to(root) or find_spec("dvc") is None:
        return None
    from dvc.config import Config
    from dvc_objects.fs.generic import test_links
    from dvc_objects.fs.local import LocalFileSystem

    config = Config(str(root / ".dvc"))["cache"]
    cache = Path(config.get("dir") or root / ".dvc/cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    links = [link for link in config.get("type") or ["reflink"] if link != "copy"]  # DVC's default is reflink, copy
    local = LocalFileSystem()
    linked = test_links(links, local, str(cache), local, str(out.resolve()))
    return None if linked and _same_device(cache, out.resolve().parent) else cache


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev
