"""The project's own files: every package that is needed is pinned."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CUDA = ("nvidia-", "cuda-", "triton")  # torch's own metadata pins them for the build that needs them


def needed(name: str, extras: frozenset[str], seen: dict[str, str]) -> None:
    """Walk what `name` requires here, into `seen`: name to installed version."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in (extras or frozenset({""}))
        )
        key = canonicalize_name(requirement.name)
        if not wanted or key in seen or key.startswith(CUDA):
            continue
        try:
            seen[key] = distribution(key).version
        except PackageNotFoundError:
            continue
        needed(key, frozenset(requirement.extras), seen)


def test_every_package_that_is_needed_here_is_pinned_at_its_version() -> None:
    seen: dict[str, str] = {}
    needed("alexnet-reproduction", frozenset({"", "dev", "cluster"}), seen)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    assert len(seen) > 100
    assert {name: pins.get(name) for name in seen} == {name: version.split("+")[0] for name, version in seen.items()}
    assert pins["torch"] == "2.13.0"
