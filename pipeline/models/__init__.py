"""The nets. Each architecture's module has a function `build(settings, classes)`."""

MODULES = {
    "alexnet": "pipeline.models.alexnet",
    "four_layer": "pipeline.models.small_nets",
    "conv_local_13": "pipeline.models.small_nets",
    "conv_local_11": "pipeline.models.small_nets",
}
