"""Container, CI and hooks call what this repository has, and check what `make lint` and `.ci/run` check."""

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline.params import read_yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def make_knows(target: str) -> bool:
    """Whether make has a rule for a target."""
    rules = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    return re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE) is not None


def called_by_make(target: str) -> list[str]:
    """The commands of a target, without their last argument `.`."""
    rule = (ROOT / "Makefile").read_text().split(f"\n{target}:", 1)[1].split("\n\n", 1)[0]
    return [line.strip().removesuffix(" .") for line in rule.splitlines()[1:]]


def steps() -> list[dict[str, Any]]:
    (job,) = read_yaml(ROOT / ".github/workflows/ci.yml")["jobs"].values()
    return list(job["steps"])


def test_the_public_ci_ends_with_what_has_to_pass_for_every_change() -> None:
    workflow = read_yaml(ROOT / ".github/workflows/ci.yml")
    assert set(workflow["on"]) == {"push", "pull_request"}
    assert steps()[0]["uses"].startswith("actions/checkout@")
    assert steps()[-1]["run"] == "bash .ci/run"
    targets = re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert targets == ["lint", "test"]
    assert all(map(make_knows, targets))


def test_the_public_ci_and_the_container_install_the_pinned_torch_as_the_readme_says() -> None:
    command = "pip install --index-url https://download.pytorch.org/whl/cpu \"$(grep '^torch==' constraints.txt)\""
    scripts = [step.get("run", "") for step in steps()]
    assert sum(f".venv/bin/{command}" in script for script in scripts) == 1
    assert f".venv/bin/{command}" in (ROOT / "README.md").read_text()
    assert command in DOCKERFILE
    assert len(re.findall(r"^torch==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)) == 1


def test_the_hooks_are_what_make_lint_checks_by_the_tools_of_the_environment() -> None:
    (repository,) = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert all(entry.startswith(".venv/bin/") for entry in entries)

    def commands(lines: list[str]) -> set[str]:
        """Each without its options."""
        return {" ".join(word for word in shlex.split(line) if word[0] != "-") for line in lines}

    assert commands([entry.removeprefix(".venv/bin/") for entry in entries]) == commands(called_by_make("lint"))


def test_the_container_copies_files_that_are_there_and_calls_targets_that_make_has() -> None:
    copied = [line.split()[2:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY --chown=")]
    assert len(copied) == 4
    assert all((ROOT / name).exists() for names in copied for name in names)
    targets = [*re.findall(r"^RUN make (\S+)$", DOCKERFILE, re.MULTILINE)]
    targets += re.findall(r'^CMD \["make", "(\S+)"\]$', DOCKERFILE, re.MULTILINE)
    assert targets == [".venv/.installed", "repro"]
    assert all(map(make_knows, targets))


def test_the_container_gets_every_tracked_file_and_nothing_that_git_ignores() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    ignored = [line.removeprefix("/").rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    assert {line.removeprefix("**/") for line in lines} == {*ignored, ".dvc/cache", ".dvc/config.local", ".dvc/tmp"}
    for name in tracked():
        places = [name, *map(str, Path(name).parents)]
        for pattern in lines:
            hidden = [p for p in places if fnmatch(p, pattern) or fnmatch("/" + p, pattern.replace("**", "*"))]
            assert not hidden, f"{name}: {pattern}"
