"""Reads Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): four IDX files from the first place that has them all."""

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.data.sources import Arrays, RawImages
from pipeline.data.sources.download import Refused, Unavailable, fetched, from_first, from_web
from pipeline.errors import UserError

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
# Of the unpacked files, as Debian compresses them anew.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST_BYTES = 16 + 60_000 * 28**2
PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
URLS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
APT_UPDATE_S, APT_DOWNLOAD_S = 20, 600
APT_OPTIONS = ["-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5"]


def load() -> RawImages:
    """Return the published images. Raises UserError where no place has them."""
    kept, packed = paths.downloads() / "fashion-mnist", [f"{name}.gz" for name in SHA256]
    contents = from_first(
        "Fashion-MNIST",
        "its four files",
        {
            str(kept): partial(_read, kept),
            str(INSTALLED): partial(_read, INSTALLED),
            f"`apt-get download {PACKAGE}`": partial(fetched, _from_debian, _read, kept, packed),
            **{url: partial(fetched, partial(from_web, url, packed), _read, kept, packed) for url in URLS},
        },
        f"Connect to the network and run again, or install Debian's package {PACKAGE} (after `apt-get update`), "
        f"or put {', '.join(packed)} (or the unpacked files) into {kept}",
    )
    images, labels, test_images, test_labels = (parse_idx(name, contents[name]) for name in SHA256)
    train = Arrays(images[..., np.newaxis], labels.astype(np.int64))
    test = Arrays(test_images[..., np.newaxis], test_labels.astype(np.int64))
    return RawImages(train, test, 1, CLASSES, dict(SHA256))


def parse_idx(name: str, content: bytes) -> NDArray[np.uint8]:
    """Return the array of an IDX file of bytes. The digit after "idx" in its name is the number of dimensions."""
    dimensions = int(name.split("idx")[1][0])
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])  # 8: unsigned bytes
    if len(content) < header or content[:4] != magic:
        raise UserError(
            f"{name}: starts with {content[:4].hex()}; accepted is an IDX file that starts with {magic.hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != np.prod(shape, dtype=object):
        raise UserError(f"{name}: holds {values.size} values; accepted is the {shape} that its header announces")
    return values.reshape(shape)


def _read(folder: Path) -> dict[str, bytes]:
    """Return the four files, unpacked. Raises Unavailable where one is missing or has another checksum."""
    contents = {}
    for name, accepted in SHA256.items():
        refused = []
        for path in (folder / f"{name}.gz", folder / name):
            try:
                content = path.read_bytes()
                if content.startswith(b"\x1f\x8b"):
                    with gzip.open(path) as file:
                        content = file.read(LARGEST_BYTES + 1)  # an archive may unpack to anything
            except FileNotFoundError:
                continue
            except (OSError, EOFError, zlib.error) as error:
                refused.append(f"{path}: cannot be unpacked ({error}); delete it, or replace it by a whole copy")
                continue
            found = hashlib.sha256(content).hexdigest()
            if found == accepted:
                contents[name] = content
                break
            refused.append(f"{path}: unpacked SHA-256 is {found}, accepted is {accepted}; delete or replace the file")
        if name not in contents and refused:
            raise Refused("; ".join(refused))
        if name not in contents:
            raise Unavailable(f"has neither {name}.gz nor {name}")
    return contents


def _from_debian(temporary: Path) -> Path:
    """Download and unpack Debian's package, which needs no root, and return the folder of its files."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("apt-get or dpkg-deb is not on this machine")
    download = ["apt-get", "download", *APT_OPTIONS, PACKAGE]
    failure = _run(download, temporary, APT_DOWNLOAD_S)
    if failure and "Unable to locate" in failure:  # no package lists here: fetch them, for this call only
        lists = ["-o", f"Dir::State::lists={temporary}/lists", "-o", f"Dir::Cache={temporary}/cache"]
        for folder in ("lists/partial", "cache/archives/partial"):
            (temporary / folder).mkdir(parents=True)
        _run(["apt-get", "update", *APT_OPTIONS, *lists], temporary, APT_UPDATE_S)
        failure = _run([*download, *lists], temporary, APT_DOWNLOAD_S)
    if failure:
        raise Unavailable(failure)
    for package in temporary.glob(f"{PACKAGE}_*.deb"):
        if failure := _run(["dpkg-deb", "-x", package.name, "unpacked"], temporary, APT_DOWNLOAD_S):
            raise Unavailable(failure)
    return temporary / "unpacked" / INSTALLED.relative_to("/")


def _run(command: list[str], folder: Path, timeout_s: float) -> str | None:
    """Run a command; return None if it succeeded, else the reason why not."""
    environment = {**os.environ, "LC_ALL": "C", "RES_OPTIONS": "timeout:2"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, timeout=timeout_s, stdin=subprocess.DEVNULL, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    lines = done.stderr.decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))] or lines[-1:]
    return None if done.returncode == 0 else " ".join(errors) or f"exit status {done.returncode}"
