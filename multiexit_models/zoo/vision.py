"""ResNet, EfficientNet and MobileNetV3 as torchvision has them, with exits on the way.

The networks and their ImageNet weights are torchvision's own; only the last layer is new where
there are other than ImageNet's 1000 classes. He et al., "Deep Residual Learning
for Image Recognition", CVPR 2016; Tan and Le, "EfficientNet", ICML 2019; Howard et al.,
"Searching for MobileNetV3", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch import nn

from delen.errors import InvalidInput, MissingExtra
from multiexit_models.attach.exits import attach_exits
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork, Normalise
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import SMALLEST_SIDE, ZooEntry

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

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


def _weights(backbone: Backbone, name: str) -> WeightsEnum:
    from torchvision import models

    known = models.get_model_weights(backbone.torchvision_name)
    try:
        return known[name]
    except KeyError:
        raise InvalidInput(
            f"torchvision has no weights {name!r} for {backbone.name}; it has "
            f"{', '.join(known.__members__)}",
            "weights",
        ) from None


def _trunk(backbone: Backbone, weights: str | None) -> nn.Module:
    """torchvision's network with 1000 classes, trained or not."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("torchvision", "train") from error
    chosen = _weights(backbone, weights) if weights is not None else None
    try:
        network: nn.Module = models.get_model(backbone.torchvision_name, weights=chosen)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        if chosen is None:
            raise
        raise InvalidInput(
            f"torchvision could not load the weights {chosen.name} of {backbone.name}: {error}. "
            f"Put the file at {chosen.url} into {torch.hub.get_dir()}/checkpoints, or leave the "
            "weights out and train from random ones",
            "weights",
        ) from error
    return network


def make_vision(
    backbone: Backbone, classes: int, shape: tuple[int, ...], weights: str | None = None
) -> MultiExitNetwork:
    """``backbone`` with exits, for uint8 images ``[batch, *shape]``, ``shape`` (height, width, 3).

    ``weights`` names torchvision's trained ones ("DEFAULT" are the best), which are downloaded
    where they are absent; None: random ones. Raises InvalidInput for weights that are unknown or
    cannot be downloaded; MissingExtra without torchvision.
    """
    return attach_exits(
        _trunk(backbone, weights),
        torch.zeros(1, 3, *shape[:2]),
        classes,
        at=backbone.at,
        exits=None if backbone.at else backbone.exits,
        preprocess=Normalise(IMAGENET_MEAN, IMAGENET_STD),
    )


FINE_TUNING = Recipe(
    epochs=10, batch_size=32, muon_lr=1e-3, muon_weight_decay=0.05, adam_lr=1e-3, crop_padding=16
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
    )
    for backbone in BACKBONES
)
