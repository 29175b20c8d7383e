"""Write the report: the paper's numbers beside the numbers measured."""

import sys

from pipeline.runtime.exit_status import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.errors import UserError
    from pipeline.report.render import write_report
    from pipeline.runtime.files import require
    from pipeline.training.checks import update_rule_holds

    configuration = params.load()
    evaluated = paths.evaluation(configuration.scale, "")
    if not any((evaluated / name / "seeds.json").exists() for name in configuration.variants):
        raise UserError(f"{evaluated}: no variant of params.yaml is evaluated there; run `dvc repro evaluate`")
    checks = {"update_rule": update_rule_holds()}
    out = paths.report(configuration.report)
    write_report(configuration, out, checks=checks)
    require(out / "report.md", out / "claims.csv", out / "predictions.parquet")


if __name__ == "__main__":
    sys.exit(exit_status(main))
