"""Small commands beside DVC: `python -m pipeline check | sync | compare | plan | submit`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from pipeline import accelerator, params, paths, repository, sync
from pipeline.compose import composed
from pipeline.errors import UserError, exit_status
from pipeline.mending import mend


def differences(actual: Any, expected: Any, key: str = "") -> list[str]:
    """One line for each key whose value in params.yaml is not the composed one."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        names = [*actual, *(name for name in expected if name not in actual)]
        below = (differences(actual.get(name), expected.get(name), f"{key}.{name}".strip(".")) for name in names)
        return [line for lines in below for line in lines]
    return [] if actual == expected else [f"{key} = {actual!r}; conf/ composes {expected!r}"]


def check() -> None:
    """Check params.yaml, Git and the accelerator, say where params.yaml departs from conf/, mend what a kill left."""
    configuration = params.load()
    if problems := repository.problems():
        raise UserError("\n".join(problems))
    mend()
    accelerator.require(configuration.hardware)
    for line in repository.advice():
        print(f"note: {line}")
    for line in differences(params.read_yaml(paths.PARAMS), composed(Path("conf"))):
        print(f"params.yaml: {line}")


def compare() -> None:
    """Write reports/README.md: what each scale that has a report says of each claim."""
    from pipeline.report import scales

    scales.write(paths.REPORTS)


def plan(overrides: list[str], price: float | None) -> None:
    """Measure for a minute, and say how long a configuration takes on this machine, and what it needs."""
    configuration = _overridden(Path("conf"), overrides) if overrides else params.load()
    from pipeline.plan.command import plan

    print(plan(configuration, price))


def submit(overrides: list[str], slurm: list[str]) -> None:
    """Have a Slurm cluster train every run that is not finished: params.yaml's, or those of `scale=...` from conf/."""
    configuration = _overridden(Path("conf"), overrides) if overrides else params.load()
    try:
        from pipeline import cluster
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which submits jobs; run `pip install -e '.[cluster]'`"
        ) from error
    cluster.submit_to_slurm(configuration, slurm)


def _overridden(conf: Path, overrides: list[str]) -> params.Params:
    """conf/ with Hydra's overrides, validated. Raises UserError where they do not fit it."""
    from hydra.errors import HydraException

    given = " ".join(overrides)
    try:
        values = composed(conf, *overrides)
    except HydraException as error:
        scales = ", ".join(sorted(path.stem for path in (conf / "scale").glob("*.yaml")))
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"{given}: does not fit {conf}/ ({reason}); accepted is scale=<one of {scales}>, and <key>=<value> "
            "for any key of params.yaml, as in train.epochs=10"
        ) from error
    return params.validate(values, given)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("check", help=check.__doc__).set_defaults(command=check)
    sync_command = commands.add_parser("sync", help="Fill the MLflow store from the run files.")
    sync_command.add_argument("--background", action="store_true", help="as stages do: what fails is only a warning")
    sync_command.set_defaults(command=sync.run)
    commands.add_parser("compare", help=compare.__doc__).set_defaults(command=compare)
    plan_command = commands.add_parser("plan", help=plan.__doc__)
    plan_command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as `dvc exp run -S` takes them")
    plan_command.add_argument("--price", type=float, help="of an hour on this machine, in any currency")
    plan_command.set_defaults(command=plan)
    submit_command = commands.add_parser("submit", help=submit.__doc__)
    submit_command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as `dvc exp run -S` takes them")
    submit_command.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="of sbatch, with _ for -: partition=gpu time=1440",
    )
    submit_command.set_defaults(command=submit)
    arguments = vars(parser.parse_args())
    arguments.pop("command")(**arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
