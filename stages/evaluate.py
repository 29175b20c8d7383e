"""Measure every variant's trained nets on training, validation and test images."""

import sys

from pipeline.runtime.exit_status import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.evaluation.evaluate import evaluate_all
    from pipeline.runtime.cores import require_accelerator
    from pipeline.runtime.files import require

    configuration = params.load()
    require_accelerator(configuration.hardware.accelerator, configuration.hardware.devices)
    evaluate_all(configuration)
    require(*(paths.evaluation(configuration.scale, name) / "seeds.json" for name in configuration.variants))


if __name__ == "__main__":
    sys.exit(exit_status(main))
