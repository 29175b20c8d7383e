"""What a store takes, said before work on it begins: bytes, the DVC cache's copy included, and minutes."""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pipeline import files, paths
from pipeline.errors import UserError

ROOM = "make room, or lower data.train_images or data.canvas_px"
LINKS = "dvc config --local cache.type reflink,hardlink,symlink"
LARGE_BYTES = 20 << 30  # a copy of so much is worth the care that linked files want


class Need(NamedTuple):
    folder: Path
    what: str
    bytes: int


@dataclass(frozen=True)
class Space:
    out: Path
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
            hint = f" (none with `{LINKS}`)" if store_bytes >= LARGE_BYTES and _same_device(cache, out.parent) else ""
            needs.append(Need(cache, f"for the copy in DVC's cache{hint}", store_bytes))
        return cls(out, needs)

    def check(self) -> None:
        """Raises UserError where a file system has not enough."""
        for folder, needed in self._by_device().values():
            if shutil.disk_usage(folder).free < needed:
                where = f" in {folder} ({self._bytes()})" if len(self.needs) > 1 else ""
                raise UserError(
                    f"{self.out}: cannot be written ({os.strerror(errno.ENOSPC)}); "
                    f"{needed} bytes are needed{where}: {ROOM}"
                )

    def plan(self, images: int, seconds: float) -> str:
        free = ", ".join(f"{_size(shutil.disk_usage(f).free)} free in {f}" for f, _ in self._by_device().values())
        return f"prepare: {images} images; needed: {self._bytes()}, about {max(1, round(seconds / 60))} min; {free}"

    def _bytes(self) -> str:
        return ", ".join(f"{_size(need.bytes)} {need.what}" for need in self.needs)

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
    return None if linked and _same_device(cache, out.parent) else cache


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _size(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
