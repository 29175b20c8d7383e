"""Tune one variant: its learning rate, and its weight decay where it trains to the end."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, sync
    from pipeline.tuning.studies import tune

    (study,) = sys.argv[1:]
    tune(params.load(), study)
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
