"""Gets published files from the first place that has them as they were published, and keeps them for the next time."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.runtime.files import replacing

CONNECT_S, READ_S = 3, 10

T = TypeVar("T")


class Unavailable(Exception):
    """Raised with the reason why a place cannot give the files."""


class Refused(Unavailable):
    """Raised where a file is there, but is not the one published."""


def from_first(title: str, what: str, places: Mapping[str, Callable[[], T]], remedy: str) -> T:
    """Return what the first place gives. Raises UserError with each place's reason where none has `what`."""
    failures: dict[str, Unavailable] = {}
    for place, read in places.items():
        try:
            contents = read()
        except Unavailable as failure:
            failures[place] = failure
            continue
        refused = "".join(f"; refused {failure}" for failure in failures.values() if isinstance(failure, Refused))
        print(f"{title}: from {place}{refused}")
        return contents
    raise UserError(
        f"{title}: no place has {what}.\n"
        + "".join(f"  {place}: {failure}\n" for place, failure in failures.items())
        + remedy
    )


def from_kept(kept: Path, name: str, read: Callable[[str, Path], T]) -> T:
    """Return what `read` makes of a file kept in a folder, given what messages call the file, and the folder.

    Raises Unavailable where the file is not there, and Refused where it cannot be read or `read` refuses it.
    """
    path = kept / name
    try:
        return read(str(path), kept)
    except FileNotFoundError as error:
        raise Unavailable(f"has no {name}") from error
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}); make it readable, or delete it") from error
    except Refused as refusal:
        raise Refused(f"{refusal}; delete it, or replace it by a whole copy") from refusal


def fetched(into: Callable[[Path], Path], read: Callable[[Path], T], kept: Path, names: Iterable[str]) -> T:
    """Return what `read` makes of the files that `into` puts into a temporary folder.

    They are kept for the next time if they pass `read`'s check. Raises Unavailable where they cannot be fetched.
    """
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = into(Path(temporary))
            contents = read(folder)
            try:
                for name in names:
                    with replacing(kept / name) as place:
                        shutil.copyfile(folder / name, place)
            except OSError as error:
                remedy = "make room or make it writable"
                raise UserError(f"{kept}: cannot be written ({error.strerror}); {remedy}") from error
    except OSError as error:  # requests' errors are OSErrors too
        cause: BaseException = error
        while cause.__context__:  # what went wrong, without the errors of the libraries that passed it on
            cause = cause.__context__
        raise Unavailable(str(cause)) from error
    return contents


def from_web(url: str, names: Iterable[str], temporary: Path) -> Path:
    """Download the files below `url`, unchecked, and return the folder that they are in."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    download = pooch.HTTPDownloader(progressbar=True, timeout=(CONNECT_S, READ_S))
    for name in names:
        pooch.retrieve(url + name, known_hash=None, fname=name, path=temporary, downloader=download)
    return temporary
