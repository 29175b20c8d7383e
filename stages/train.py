"""Train one variant: every seed of it that is not finished yet."""

import sys

from pipeline import params, sync
from pipeline.errors import exit_status
from pipeline.training.variant import train_variant


def main() -> None:
    (variant,) = sys.argv[1:]
    train_variant(params.load(), variant)
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
