"""What sources of data fetch from: a web server, archives, and a machine's package manager."""

import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.data import sources
from pipeline.data.sources import fashion_mnist

NOWHERE = "http://127.0.0.1:9/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def web_server(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The URL of a web server for `folder`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def arrays(raw: sources.RawImages) -> tuple[sources.Arrays, sources.Arrays]:
    assert isinstance(raw.train, sources.Arrays)
    assert isinstance(raw.test, sources.Arrays)
    return raw.train, raw.test


def tar(contents: dict[str, bytes], *more: tarfile.TarInfo, compression: str = "") -> bytes:
    """An archive of members without content, if any, and then of `contents`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for member in more:
            archive.addfile(member)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def package(contents: dict[str, bytes]) -> bytes:
    """Fashion-MNIST's Debian package, whose files lie where they say."""
    about = f"Package: {fashion_mnist.PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
    control = tar({"./control": f"{about}Description: a\n".encode()}, compression="gz")
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": control, "data.tar.gz": tar(contents, compression="gz")}
    packed = b"!<arch>\n"
    for path, content in parts.items():
        packed += f"{path:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


def install_apt(folder: Path, content: bytes) -> None:
    """Write an apt-get to `folder`, which knows the package once its lists are updated."""
    folder.mkdir()
    (folder / "package.deb").write_bytes(content)
    script = f"""#!/bin/sh
if [ $1 = update ]; then touch {folder}/updated; exit 0; fi
if [ ! -e {folder}/updated ]; then echo 'E: Unable to locate package' >&2; exit 100; fi
cp {folder}/package.deb {fashion_mnist.PACKAGE}_1_all.deb
"""
    (folder / "apt-get").write_text(script)
    (folder / "apt-get").chmod(0o755)
