"""Train one variant: every seed of it that is not finished yet."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, sync
    from pipeline.training.variant import train_variant

    (variant,) = sys.argv[1:]
    train_variant(params.load(), variant)
    sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
