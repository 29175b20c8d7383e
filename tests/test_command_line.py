"""The command line: each command says what it is for, and a mistake is one line."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline.__main__ as command_line

ROOT = Path(__file__).parents[1]
COMMANDS = ["check", "plan", "submit", "sync", "ui", "compare", "recompute", "predict", "export", "completion"]


def alexnet(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_console_script_is_what_python_m_pipeline_runs() -> None:
    module, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["alexnet"].split(":")
    assert (module, name) == (command_line.__name__, command_line.run.__name__)


def test_the_help_lists_every_command() -> None:
    listed = alexnet("--help").stdout.split("commands:")[1]
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("    ") and line[4] != " "] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_is_for_with_an_example(command: str) -> None:
    done = alexnet(command, "--help")
    assert done.returncode == 0
    assert f"\nexample: alexnet {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; `alexnet --help` says"),
        (["train"], "argument COMMAND: invalid choice: 'train' (choose from"),
        (["compare", "--all"], "unrecognized arguments: --all; `alexnet --help` says"),
        (["ui", "--port", "x"], "argument --port: invalid int value: 'x'; `alexnet ui --help` says"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = alexnet(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


COMPLETE = """
source alexnet.bash
COMP_WORDS=(alexnet "$@"); COMP_CWORD=$#
function=$(complete -p alexnet | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["comp"], ["compare", "completion"]),
        (["re"], ["recompute"]),
        (["export", "--for"], ["--format"]),
        (["export", "--format", ""], ["onnx", "safetensors"]),
        (["predict", "pho"], ["photo 1.jpg"]),
        (["predict", "--run", "ru"], ["run.safetensors"]),
    ],
)
def test_bash_completes_commands_options_and_files(tmp_path: Path, words: list[str], completed: list[str]) -> None:
    (tmp_path / "alexnet.bash").write_text(alexnet("completion", "bash").stdout)
    for name in ("photo 1.jpg", "run.safetensors"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout.splitlines(), done.stderr) == (completed, "")
