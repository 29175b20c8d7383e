"""How far a store has grown, so that a killed `prepare` goes on: what its finished chunks hold, and their checksums."""

import hashlib
import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.chunks import Outcome
from pipeline.data.sources import Images
from pipeline.data.statistics import PixelStatistics
from pipeline.data.store import Skipped, SplitName
from pipeline.files import write_bytes

SPLITS_OF: dict[str, tuple[SplitName, ...]] = {"train": ("train", "val"), "test": ("test",)}  # of the source's splits

Rows = dict[SplitName, NDArray[np.intp]]  # of the source, for each split


@dataclass
class Progress:
    """Of the first chunks: as many as there are checksums."""

    path: Path
    statistics: PixelStatistics
    sha256: dict[SplitName, NDArray[np.uint8]]  # N x 32: of each image's file, 0 where it has none
    crc32: list[int] = field(default_factory=list)  # of each chunk's pixels
    gaps: dict[SplitName, list[int]] = field(default_factory=lambda: defaultdict(list))  # rows without an image
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def start(cls, path: Path, canvas_px: int, channels: int, images: dict[SplitName, int]) -> "Progress":
        """From what `save` wrote to `path`, where that can be read."""
        sha256 = {split: np.zeros((count, 32), np.uint8) for split, count in images.items()}
        progress = cls(path, PixelStatistics(canvas_px, channels), sha256)
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as saved:
                    progress._restore({name: saved[name] for name in saved})
            except Exception as error:  # a damaged file makes numpy raise of every kind
                print(f"{path}: cannot be read ({error}); the images are prepared from the start", flush=True)
        return progress

    def add(self, outcome: Outcome, images: Images) -> None:
        split, first, rows = outcome.chunk
        self.crc32.append(outcome.crc32)
        self.gaps[split] += [first + place for place in outcome.problems]
        self.skipped += [
            Skipped(file=images.name(int(rows[place])), reason=reason) for place, reason in outcome.problems.items()
        ]
        for place, digest in enumerate(outcome.sha256):
            if digest:
                self.sha256[split][first + place] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        if outcome.sums:
            self.statistics.add(outcome.sums)

    def save(self) -> None:
        skipped = {"gaps": self.gaps, "skipped": [file.model_dump() for file in self.skipped]}
        content = io.BytesIO()
        np.savez(
            content,
            allow_pickle=False,
            crc32=np.array(self.crc32, np.uint32),
            images=self.statistics.images,
            sums=self.statistics.sums,
            products=self.statistics.products,
            skipped=np.frombuffer(json.dumps(skipped).encode(), np.uint8),
            **{f"sha256_{split}": digests for split, digests in self.sha256.items()},
        )
        write_bytes(self.path, content.getbuffer())

    def _restore(self, saved: dict[str, NDArray[Any]]) -> None:
        skipped = json.loads(saved["skipped"].tobytes())
        self.gaps.update(skipped["gaps"])
        self.skipped = [Skipped(**file) for file in skipped["skipped"]]
        self.statistics.images = int(saved["images"])
        self.statistics.sums, self.statistics.products = saved["sums"], saved["products"]
        self.sha256 = {split: saved[f"sha256_{split}"] for split in self.sha256}
        self.crc32 = saved["crc32"].tolist()


def files_sha256(progress: Progress, images: dict[SplitName, Images], rows: Rows) -> dict[str, str]:
    """One checksum for the files of a folder: that of the lines that sha256sum prints, sorted by name."""
    found = {}
    for source, splits in SPLITS_OF.items():
        names = [images[split].name(row) for split in splits for row in rows[split].tolist()]
        digests = np.concatenate([progress.sha256[split] for split in splits])
        known = digests.any(1)
        sums = hashlib.sha256()
        for place in sorted(np.flatnonzero(known).tolist(), key=names.__getitem__):
            sums.update(f"{digests[place].tobytes().hex()}  {names[place]}\n".encode())
        if known.any():
            found[source] = sums.hexdigest()
    return found
