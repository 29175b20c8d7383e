"""Write the report: the paper's numbers beside the numbers measured."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.report.render import write_report
    from pipeline.training.checks import update_rule_holds

    configuration = params.load()
    checks = {"update_rule": update_rule_holds()}
    write_report(configuration, paths.report(configuration.scale), checks=checks)


if __name__ == "__main__":
    sys.exit(exit_status(main))
