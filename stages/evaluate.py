"""Measure one variant's trained nets on training, validation and test images."""

import sys

from pipeline import params
from pipeline.errors import exit_status
from pipeline.evaluation.evaluate import evaluate_variant


def main() -> None:
    (variant,) = sys.argv[1:]
    evaluate_variant(params.load(), variant)


if __name__ == "__main__":
    sys.exit(exit_status(main))
