"""Small commands beside DVC: `python -m pipeline check | sync | ui | compare | recompute | plan | submit`."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.errors import UserError
from pipeline.runtime import accelerator, git
from pipeline.runtime.exit_status import exit_status
from pipeline.tools.compose import composed
from pipeline.tracking import sync

OVERRIDES = "as `dvc exp run -S` takes them; values need no quotes within the shell's"


def differences(actual: Any, expected: Any, key: str = "") -> list[str]:
    """One line for each key whose value in params.yaml is not the composed one."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        names = [*actual, *(name for name in expected if name not in actual)]
        below = (differences(actual.get(name), expected.get(name), f"{key}.{name}".strip(".")) for name in names)
        return [line for lines in below for line in lines]
    return [] if actual == expected else [f"{key} = {actual!r}; conf/ composes {expected!r}"]


def check() -> None:
    """Check params.yaml, Git and the accelerator, say where params.yaml departs from conf/."""
    configuration = params.load()
    if problems := git.problems():
        raise UserError("\n".join(problems))
    accelerator.require(configuration.hardware.accelerator, configuration.hardware.devices)
    for line in git.advice():
        print(f"note: {line}")
    for line in differences(params.read_yaml(paths.PARAMS), composed(Path("conf"))):
        print(f"params.yaml: {line}")


def compare() -> None:
    """Write reports/README.md: what each scale that has a report says of each claim."""
    from pipeline.tools import compare as scales

    scales.write(paths.REPORTS)


def recompute(scale: str | None) -> None:
    """Compute a committed report's claims.csv and questions.csv again, from its predictions.parquet alone."""
    from pipeline.tools.recompute import recompute

    same, line = recompute(paths.report(scale or params.load().report))
    print(line)
    if not same:
        sys.exit(1)


def ui(port: int) -> None:
    """Show the runs in MLflow's pages, on this machine alone, until Ctrl-C."""
    from pipeline.tools import ui

    ui.serve(port)


def plan(overrides: list[str], price: float | None) -> None:
    """Measure for a minute, and say how long a configuration takes on this machine, and what it needs."""
    configuration = _overridden(Path("conf"), overrides) if overrides else params.load()
    from pipeline.tools.plan import plan

    print(plan(configuration, price))


def submit(overrides: list[str], slurm: list[str]) -> None:
    """Have a Slurm cluster train every run that is not finished: params.yaml's, or those of `scale=...` from conf/."""
    configuration = _overridden(Path("conf"), overrides) if overrides else params.load()
    try:
        from pipeline.tools import submit as cluster
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which submits jobs; run `pip install -e '.[cluster]'`"
        ) from error
    cluster.submit_to_slurm(configuration, slurm)


def _overridden(conf: Path, overrides: list[str]) -> params.Params:
    """conf/ with Hydra's overrides, validated. Raises UserError where they do not fit it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    given = " ".join(overrides)
    try:
        values = composed(conf, *map(_quoted, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        scales = ", ".join(sorted(path.stem for path in (conf / "scale").glob("*.yaml")))
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"{given}: does not fit {conf}/ ({reason}); accepted is scale=<one of {scales}>, and <key>=<value> "
            "for any key of params.yaml, as in train.epochs=10"
        ) from error
    return params.validate(values, given)


def _quoted(override: str) -> str:
    """The override with its value in quotes, if Hydra's grammar refuses it without or reads a list of choices in it.

    It knows no `~`, `=`, brackets or letters beyond ASCII, of which people make paths.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    with suppress(HydraException):
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return override
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}" if equals else override


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("check", help=check.__doc__).set_defaults(command=check)
    sync_command = commands.add_parser("sync", help="Fill the MLflow store from the run files.")
    sync_command.add_argument("--background", action="store_true", help="as stages do: what fails is only a warning")
    sync_command.set_defaults(command=sync.run)
    ui_command = commands.add_parser("ui", help=ui.__doc__)
    ui_command.add_argument("--port", type=int, default=5000, help="of 127.0.0.1 (default: 5000)")
    ui_command.set_defaults(command=ui)
    commands.add_parser("compare", help=compare.__doc__).set_defaults(command=compare)
    recompute_command = commands.add_parser("recompute", help=recompute.__doc__)
    recompute_command.add_argument(
        "scale", nargs="?", metavar="SCALE", help="a folder of reports/ (default: the report of params.yaml)"
    )
    recompute_command.set_defaults(command=recompute)
    plan_command = commands.add_parser("plan", help=plan.__doc__)
    plan_command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    plan_command.add_argument("--price", type=float, help="of an hour on this machine, in any currency")
    plan_command.set_defaults(command=plan)
    submit_command = commands.add_parser("submit", help=submit.__doc__)
    submit_command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
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
