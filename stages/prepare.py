"""DVC stage: the data set's images as arrays on the canvas, split and measured."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import accelerator, params, paths
    from pipeline.data.prepare import prepare
    from pipeline.files import require

    configuration = params.load()
    accelerator.require(configuration.hardware)
    data, out = configuration.data, paths.data(configuration.data.dataset)
    prepare(data, out, configuration.hardware.threads)
    require(out / "meta.json")


if __name__ == "__main__":
    sys.exit(exit_status(main))
