"""Measure one variant's trained nets on training, validation and test images."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import accelerator, params, paths
    from pipeline.evaluation.evaluate import evaluate_variant
    from pipeline.files import require

    (variant,) = sys.argv[1:]
    configuration = params.load()
    accelerator.require(configuration.hardware)
    evaluate_variant(configuration, variant)
    require(paths.evaluation(configuration.scale, variant) / "seeds.json")


if __name__ == "__main__":
    sys.exit(exit_status(main))
