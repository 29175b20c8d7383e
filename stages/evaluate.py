"""Measure one variant's trained nets on training, validation and test images."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params
    from pipeline.evaluation.evaluate import evaluate_variant

    (variant,) = sys.argv[1:]
    evaluate_variant(params.load(), variant)


if __name__ == "__main__":
    sys.exit(exit_status(main))
