"""Commands beside DVC.

`dvc repro` makes everything. These commands say beforehand what that takes, and show afterwards what came of it.
`python -m pipeline` is the same as `alexnet`.

example: alexnet plan scale=cifar10
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from pipeline import params, paths
from pipeline.errors import UserError
from pipeline.runtime import git
from pipeline.runtime.cores import require_accelerator
from pipeline.runtime.exit_status import exit_status

OVERRIDES = "as `dvc exp run -S` takes them; values need no quotes within the shell's. None: params.yaml as it stands"


def check() -> None:
    """Check params.yaml, Git and the accelerator, and print where params.yaml departs from conf/.

    Nothing is changed. `make repro` begins with it. Exit status 2 means that there is something to mend.

    example: alexnet check
    """
    configuration = params.load()
    if problems := git.problems():
        raise UserError("\n".join(problems))
    require_accelerator(configuration.hardware.accelerator, configuration.hardware.devices)
    from pipeline.tools.compose import composed, differences

    for line in git.advice():
        print(f"note: {line}")
    for line in differences(params.read_yaml(paths.PARAMS), composed(Path("conf"))):
        print(f"params.yaml: {line}")


def plan(overrides: list[str], price: float | None) -> None:
    """Measure for a minute, and print how long a configuration takes on this machine, and what it needs.

    Each net is trained for some seconds on synthetic images; no data are needed, and nothing is kept.

    example: alexnet plan scale=imagenet2012 --price 2.5
    """
    from pipeline.tools.compose import configuration

    configured = configuration(overrides)
    from pipeline.tools.plan import plan

    print(plan(configured, price))


def submit(overrides: list[str], slurm: list[str]) -> None:
    """Have a Slurm cluster train every run that is not finished.

    Each run is a job of an array. `dvc repro` finds what they have trained.

    example: alexnet submit scale=imagenet2012 --slurm partition=gpu time=1440
    """
    from pipeline.tools.compose import configuration

    configured = configuration(overrides)
    try:
        from pipeline.tools import submit as cluster
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which submits jobs; run `pip install -e '.[cluster]'`"
        ) from error
    cluster.submit_to_slurm(configured, slurm)


def sync(background: bool, live: bool) -> None:
    """Fill the MLflow store from the run files.

    Stages do so by themselves. Sending twice adds nothing; where the store was away, this catches up.

    example: alexnet sync
    """
    from pipeline.tracking import sync

    if live:
        sync.follow()
    else:
        sync.run(background)


def ui(port: int) -> None:
    """Show the runs in MLflow's pages, on this machine alone, until Ctrl-C.

    What the store lacks is sent to it first.

    example: alexnet ui --port 5050
    """
    from pipeline.tools import ui

    ui.serve(port)


def compare() -> None:
    """Write reports/README.md: what each scale that has a report says of each claim.

    It reads the claims.csv and params.yaml of every folder of reports/.

    example: alexnet compare
    """
    from pipeline.tools import compare as scales

    scales.write(paths.REPORTS)


def recompute(scale: str | None) -> None:
    """Compute a committed report's claims.csv and questions.csv again, from its predictions.parquet alone.

    No training and no data are needed. Exit status 1 means that they differ from the committed ones.

    example: alexnet recompute embedded
    """
    from pipeline.tools.recompute import recompute

    same, line = recompute(paths.report(scale or params.load().report))
    print(line)
    if not same:
        sys.exit(1)


def predict(files: list[str], run: str | None, crops: int, json: bool) -> None:
    """Say what a trained net takes photographs for: five classes with their probabilities.

    The net is the default report's baseline, or any run's, exported file's or MLflow model's.

    example: alexnet predict photo.jpg --run runs/embedded/train/baseline/seed-0
    """
    from pipeline.tools.predict import predict

    print(predict(files, run, crops, json))


def export(run: str | None, format: str, out: str | None, crops: int) -> None:
    """Write a trained net, with its preprocessing, to one file.

    onnx: runs wherever ONNX Runtime does. safetensors: for `alexnet predict --run`, here or elsewhere.

    example: alexnet export --format onnx --out baseline.onnx
    """
    from pipeline.tools.export import export

    print(export(run, format, out, crops))


def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and file names on Tab.

    bash looks for it where the example puts it, zsh in a folder of its `fpath` under the name `_alexnet`, and fish in
    ~/.config/fish/completions/alexnet.fish.

    example: alexnet completion bash > ~/.local/share/bash-completion/completions/alexnet
    """
    import shtab

    print(shtab.complete(command_line(shtab.FILE), shell))


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as all commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` says what is accepted")


def command_line(of_files: Any = None) -> Parser:
    """Return the parser of all commands. `of_files` is how shtab has a shell complete the name of a file."""
    parser = Parser("alexnet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    of = {}
    for command in (check, plan, submit, sync, ui, compare, recompute, predict, export, completion):
        text = "\n".join(line.removeprefix("    ") for line in str(command.__doc__).splitlines())
        of[command.__name__] = commands.add_parser(
            command.__name__,
            help=text.split("\n", 1)[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        of[command.__name__].set_defaults(command=command)
    for name in ("plan", "submit"):
        of[name].add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    of["plan"].add_argument("--price", type=float, help="of an hour on this machine, in any currency")
    of["submit"].add_argument(
        "--slurm", nargs="+", default=[], metavar="OPTION=VALUE", help="of sbatch, with _ for -: gpus_per_node=1"
    )
    of["sync"].add_argument("--background", action="store_true", help="as stages do: what fails is only a warning")
    of["sync"].add_argument("--live", action="store_true", help="send epochs of running trainings until input ends")
    of["ui"].add_argument("--port", type=int, default=5000, help="of 127.0.0.1 (default: 5000)")
    of["recompute"].add_argument(
        "scale", nargs="?", metavar="SCALE", help="a folder of reports/ (default: the report of params.yaml)"
    )
    files = [of["predict"].add_argument("files", nargs="+", metavar="PHOTO", help="image files of any size")]
    of["predict"].add_argument("--json", action="store_true", help="for programs")
    of["export"].add_argument("--format", choices=("onnx", "safetensors"), required=True, help="of the file")
    files += [of["export"].add_argument("--out", metavar="FILE", help="default: alexnet.onnx or alexnet.safetensors")]
    for name in ("predict", "export"):
        run_help = "a run's folder, an exported safetensors file or an MLflow address"
        files += [of[name].add_argument("--run", help=run_help)]
        of[name].add_argument("--crops", type=int, choices=(1, 10), default=10, help="of each image (default: 10)")
    of["completion"].add_argument("shell", choices=("bash", "zsh", "fish"), help="that asks")
    for argument in files:
        argument.complete = of_files  # type: ignore[attr-defined]
    return parser


def main() -> None:
    arguments = vars(command_line().parse_args())
    arguments.pop("command")(**arguments)


def run() -> NoReturn:
    """Run `alexnet`, the console script."""
    sys.exit(exit_status(main))


if __name__ == "__main__":
    run()
