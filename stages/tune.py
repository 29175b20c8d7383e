"""Tune one variant: its learning rate, and its weight decay where it trains to the end."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import accelerator, params, paths, sync
    from pipeline.files import require
    from pipeline.tuning.studies import tune

    (study,) = sys.argv[1:]
    configuration = params.load()
    accelerator.require(configuration.hardware)
    tune(configuration, study)
    out = paths.tune(configuration.scale, study)
    require(out / "best.yaml", out / "trials.csv")
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
