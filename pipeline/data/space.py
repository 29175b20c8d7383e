"""What a store takes, said before work on it begins: bytes, the DVC cache's copy included, and minutes."""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pipeline import files, paths


class Need(NamedTuple):
    folder: Path
    what: str
    bytes: int


@dataclass(frozen=True)
class Space:
    needs: list[Need]

    @classmethod
    def of(cls, growing: Path, out: Path, store_bytes: int) -> "Space":
        """For a store that grows in one folder and gets to `out` by rename, or by a copy where that cannot be."""
        for folder in (growing, out.parent):
            folder.mkdir(parents=True, exist_ok=True)
        there = sum(512 * path.stat().st_blocks for path in growing.rglob("*") if path.is_file())
        needs = [Need(growing, "for the store", max(0, store_bytes - there))]
        if not files.can_rename(growing, out.parent):
            needs.append(Need(out.parent, "for its copy", store_bytes))
        if (cache := _cache_that_copies(out)) is not None:
            needs.append(Need(cache, "for the copy in DVC's cache", store_bytes))
        return cls(needs)

    def check(self) -> None:
        """Raises OSError where a file system has not enough."""
        for folder, needed in self._by_device().values():
            if shutil.disk_usage(folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    def plan(self, images: int, seconds: float) -> str:
        bytes_for = ", ".join(f"{_size(need.bytes)} {need.what}" for need in self.needs)
        free = ", ".join(f"{_size(shutil.disk_usage(f).free)} free in {f}" for f, _ in self._by_device().values())
        return f"prepare: {images} images; needed: {bytes_for}, about {max(1, round(seconds / 60))} min; {free}"

    def _by_device(self) -> dict[int, tuple[Path, int]]:
        devices: dict[int, tuple[Path, int]] = {}
        for folder, _, needed in self.needs:
            device = folder.stat().st_dev
            first, others = devices.get(device, (folder, 0))
            devices[device] = first, others + needed
        return devices


def _cache_that_copies(out: Path) -> Path | None:
    """DVC's cache, where `out` will be in it a second time: no link is allowed or possible, or it lies elsewhere."""
    root = paths.root()
    if not (root / ".dvc").is_dir() or not out.resolve().is_relative_to(root):
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
    return None if linked and cache.stat().st_dev == out.parent.stat().st_dev else cache


def _size(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
