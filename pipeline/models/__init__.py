"""The nets. Each architecture's module has a function `build(settings, classes)`."""

MODULES = {
    "alexnet": "pipeline.models.alexnet",
    "four_layer": "pipeline.models.small_nets",
    "conv_local_13": "pipeline.models.small_nets",
    "conv_local_11": "pipeline.models.small_nets",
    "lenet5": "pipeline.models.lineage.lenet5",
    "zfnet": "pipeline.models.lineage.zfnet",
    "googlenet": "pipeline.models.lineage.googlenet",
    "vgg11": "pipeline.models.lineage.vgg",
    "vgg16": "pipeline.models.lineage.vgg",
    "resnet18": "pipeline.models.lineage.resnet",
    "resnet34": "pipeline.models.lineage.resnet",
    "resnet50": "pipeline.models.lineage.resnet",
}
