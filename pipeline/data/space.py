"""The disk space that a store takes, the copy in DVC's cache included: it is stated and required before any work."""

import errno
import os
import shutil
from pathlib import Path

from tqdm import tqdm

from pipeline import paths
from pipeline.errors import UserError

ROOM = "make room, or lower data.train_images or data.image_size"
LINKS = "dvc config --local cache.type reflink,hardlink,symlink"
LARGE_BYTES = 20 << 30  # a copy of so much is worth the care that linked files want


def require(out: Path, store_bytes: int) -> str:
    """Return, in words, what a store at `out` needs and what is free.

    Raises UserError where a file system has too little for the store, or for the copy of it that DVC caches.
    """
    place, cache = out.resolve().parent, _cache_that_copies(out)
    needs, listed = [place], f"{_size(store_bytes)} for the store"
    if cache is not None:
        hint = f" (none with `{LINKS}`)" if store_bytes >= LARGE_BYTES and _same_device(cache, place) else ""
        needs, listed = [place, cache], f"{listed}, {_size(store_bytes)} for the copy in DVC's cache{hint}"
    free: dict[int, str] = {}  # by device
    for folder in needs:
        needed = store_bytes * sum(_same_device(folder, other) for other in needs)
        left = shutil.disk_usage(folder).free
        if left < needed:
            where = f" in {folder} ({listed})" if cache is not None else ""
            raise UserError(
                f"{out}: cannot be written ({os.strerror(errno.ENOSPC)}); {needed} bytes are needed{where}: {ROOM}"
            )
        free.setdefault(folder.stat().st_dev, f"{_size(left)} free in {folder}")
    return f"needed: {listed}; {', '.join(free.values())}"


def _cache_that_copies(out: Path) -> Path | None:
    """Return DVC's cache if `out` will be in it a second time: no link is allowed or possible, or it lies elsewhere."""
    root = paths.root()
    if not (root / ".dvc").is_dir() or not out.absolute().is_relative_to(root):
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


def _size(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
