"""Tune learning rate and weight decay of the baseline on validation data."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, sync
    from pipeline.tuning import tune

    tune(params.load())
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
