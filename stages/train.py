"""Train one variant: every seed of it that is not finished yet."""

import sys

from pipeline.errors import exit_status


def main() -> None:
    from pipeline import accelerator, params, sync
    from pipeline.training import launch, world
    from pipeline.training.variant import train_variant

    (variant,) = sys.argv[1:]
    configuration = params.load()
    accelerator.require(configuration.hardware)
    if launch.wanted(configuration.hardware):
        launch.launch(configuration.hardware)
    train_variant(configuration, variant)
    if world.first():
        sync.start()


if __name__ == "__main__":
    sys.exit(exit_status(main))
