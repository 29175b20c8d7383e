"""Tune every study's variant: its learning rate, and its weight decay where it trains to the end."""

import sys

from pipeline.runtime.exit_status import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.runtime.cores import require_accelerator
    from pipeline.runtime.files import require
    from pipeline.tracking import sync
    from pipeline.tuning import tune

    configuration = params.load()
    require_accelerator(configuration.hardware.accelerator, configuration.hardware.devices)
    with sync.live():
        tune(configuration)
    require(*(paths.tune(configuration.scale, study) / "best.yaml" for study in configuration.studies))
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
