"""A .npy file of bytes whose rows several processes write, each in place."""

import io
import zlib
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.files import pieces


@dataclass(frozen=True)
class ArrayFile:
    """Written by file operations, not through a memory map: there a full disk kills the process by a signal."""

    path: Path
    shape: tuple[int, ...]

    def create(self) -> None:
        """Of full length. The rows of one that is there stay."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        with self.path.open("r+b") as file:
            file.write(self.header())
            file.truncate(self.bytes_in_all)

    def write(self, first: int, rows: NDArray[np.uint8]) -> None:
        with self.path.open("r+b") as file:
            file.seek(self._place(first))
            file.write(rows.data)

    def read(self, first: int, rows: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._place(first))
            return file.read(rows * prod(self.shape[1:]))

    @property
    def bytes_in_all(self) -> int:
        return self._place(self.shape[0])

    def header(self) -> bytes:
        """As long for every number of rows: the format leaves room for it to grow."""
        description = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
            "fortran_order": False,
            "shape": self.shape,
        }
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, description)
        return file.getvalue()

    def crc32(self, first: int, rows: int) -> int:
        crc = 0
        for content in pieces(self.path, self._place(first), rows * prod(self.shape[1:])):
            crc = zlib.crc32(content, crc)
        return crc

    def leave_out(self, gaps: list[int]) -> NDArray[np.intp]:
        """Shorten the file: its last rows take the places of `gaps`. Returns which row now stands where."""
        kept = self.shape[0] - len(gaps)
        order = np.arange(self.shape[0])
        order[[gap for gap in gaps if gap < kept]] = np.setdiff1d(order[kept:], gaps)
        order = order[:kept]
        with self.path.open("r+b") as file:
            for place in np.flatnonzero(order != np.arange(kept)).tolist():
                file.seek(self._place(order[place]))
                row = file.read(prod(self.shape[1:]))
                file.seek(self._place(place))
                file.write(row)
            file.seek(0)
            file.write(replace(self, shape=(kept, *self.shape[1:])).header())
            file.truncate(self._place(kept))
        return order

    def _place(self, row: int) -> int:
        return len(self.header()) + int(row) * prod(self.shape[1:])
