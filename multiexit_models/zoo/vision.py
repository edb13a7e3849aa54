"""ResNet, EfficientNet and MobileNetV3 as torchvision has them, with exits on the way.

The networks and their ImageNet weights are torchvision's own; only the last layer is new where
there are other than ImageNet's 1000 classes. He et al., "Deep Residual Learning
for Image Recognition", CVPR 2016; Tan and Le, "EfficientNet", ICML 2019; Howard et al.,
"Searching for MobileNetV3", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from multiexit_models.attach.exits import attach_exits
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork, Normalise
from multiexit_models.zoo.entry import SMALLEST_SIDE, ZooEntry
from multiexit_models.zoo.library import FINE_TUNING, LibraryNetwork

STAGES = ("layer1", "layer2", "layer3")
"""A ResNet's exits: after each stage but the last, which ends at the network's own exit."""


@dataclass(frozen=True)
class Backbone:
    """One of torchvision's networks: its name there and its exits, the network's own among them.

    ``at`` names the places of all exits but the last; None: equal shares of the cost.
    ``side`` is the height and width, in pixels, that its weights were trained for.
    """

    torchvision_name: str
    description: str
    exits: int
    at: tuple[str, ...] | None = None
    side: int = 224

    @property
    def name(self) -> str:
        return self.torchvision_name.replace("_", "-")


BACKBONES = (
    Backbone("resnet18", "ResNet-18, exits after its four stages", 4, STAGES),
    Backbone("resnet34", "ResNet-34, exits after its four stages", 4, STAGES),
    Backbone("resnet50", "ResNet-50, exits after its four stages", 4, STAGES),
    Backbone("efficientnet_b0", "EfficientNet-B0, exits at thirds of the cost", 3),
    Backbone("efficientnet_b1", "EfficientNet-B1, exits at thirds of the cost", 3, side=240),
    Backbone("efficientnet_b2", "EfficientNet-B2, exits at thirds of the cost", 3, side=288),
    Backbone("mobilenet_v3_large", "MobileNetV3 large, exits at quarters of the cost", 4),
    Backbone("mobilenet_v3_small", "MobileNetV3 small, exits at thirds of the cost", 3),
)


def make_vision(
    backbone: Backbone, classes: int, shape: tuple[int, ...], weights: str | None = None
) -> MultiExitNetwork:
    """``backbone`` with exits, for uint8 images ``[batch, *shape]``, ``shape`` (height, width, 3).

    ``weights`` names torchvision's trained ones ("DEFAULT" are the best), which are downloaded
    where they are absent; None: random ones. Raises InvalidInput for weights that are unknown or
    cannot be downloaded; MissingExtra without torchvision.
    """
    return attach_exits(
        LibraryNetwork("torchvision", backbone.torchvision_name).make(classes, weights),
        torch.zeros(1, 3, *shape[:2]),
        classes,
        at=backbone.at,
        exits=None if backbone.at else backbone.exits,
        preprocess=Normalise(IMAGENET_MEAN, IMAGENET_STD),
    )


ENTRIES = tuple(
    ZooEntry(
        name=backbone.name,
        kind="image",
        description=backbone.description,
        shape=(backbone.side, backbone.side, 3),
        exits=backbone.exits,
        smallest=SMALLEST_SIDE,
        create=partial(make_vision, backbone),
        recipe=FINE_TUNING,
        has_weights=True,
        library_name=backbone.torchvision_name,
        at=backbone.at,
    )
    for backbone in BACKBONES
)
