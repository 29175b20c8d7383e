"""Train every run that is not finished yet."""

import sys

from pipeline.runtime.exit_status import exit_status


def main() -> None:
    from pipeline import params
    from pipeline.runtime.cores import require_accelerator
    from pipeline.tracking import sync
    from pipeline.training import distributed, launch
    from pipeline.training.runs import train_all, unfinished_runs

    configuration = params.load()
    require_accelerator(configuration.hardware.accelerator, configuration.hardware.devices)
    if launch.wanted(configuration.hardware) and unfinished_runs(configuration):
        launch.launch(configuration.hardware)
    with sync.live():
        train_all(configuration)
    if distributed.is_global_zero():
        sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
