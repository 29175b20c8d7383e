"""SHA256SUMS: the checksums of a folder's files, in the form that `sha256sum --check SHA256SUMS` reads."""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.runtime.files import sha256, write_text

SUMS = "SHA256SUMS"


def write_sums(folder: Path, *names: str) -> None:
    """Write the SHA-256 of each named file that exists."""
    present = [name for name in names if (folder / name).exists()]
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in present))


def damage(path: Path) -> str | None:
    """Return how a file differs from its line in SHA256SUMS; None where it does not, or where there is no such list."""
    sums = path.with_name(SUMS)
    if not sums.exists():
        return None
    lines = [line.split("  ", 1) for line in sums.read_text(errors="replace").splitlines()]
    accepted = {line[-1]: line[0] for line in lines}.get(path.name, "missing")
    found = sha256(path) if path.exists() else "missing"
    return None if found == accepted else f"is damaged (SHA-256 is {found}, accepted in {SUMS} is {accepted})"


def verify(path: Path) -> None:
    """Raise UserError where a file is damaged."""
    if problem := damage(path):
        raise UserError(f"{path}: {problem}; `dvc repro` restores it or makes it again")
