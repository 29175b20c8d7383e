"""Write the report: the paper's numbers beside the numbers measured."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.files import require
    from pipeline.report.render import write_report
    from pipeline.training.checks import update_rule_holds

    configuration = params.load()
    checks = {"update_rule": update_rule_holds()}
    out = paths.report(configuration.report)
    write_report(configuration, out, checks=checks)
    require(out / "report.md", out / "claims.csv")


if __name__ == "__main__":
    sys.exit(exit_status(main))
