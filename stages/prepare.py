"""DVC stage: the data set's images as arrays on the canvas, split and measured."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import params, paths
    from pipeline.data.prepare import prepare

    configuration = params.load()
    data = configuration.data
    prepare(data, paths.data(data.dataset), configuration.hardware.threads)


if __name__ == "__main__":
    sys.exit(exit_status(main))
