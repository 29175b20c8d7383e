"""DVC stage: the data set's images as arrays on the canvas, split and measured."""

import sys

from pipeline.runtime.exit_status import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.data.prepare import prepare
    from pipeline.runtime.cores import require_accelerator
    from pipeline.runtime.files import require

    configuration = params.load()
    require_accelerator(configuration.hardware.accelerator, configuration.hardware.devices)
    data, out = configuration.data, paths.data(configuration.data.dataset)
    prepare(data, out, configuration.hardware.workers)
    require(out / "meta.json")


if __name__ == "__main__":
    sys.exit(exit_status(main))
