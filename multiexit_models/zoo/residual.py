"""The residual network for 32 x 32 images with five exits that delen ships."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from multiexit_models.attach.heads import convolution, convolutional_head, linear_head
from multiexit_models.network import MultiExitNetwork, Normalise
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import SMALLEST_SIDE, ZooEntry

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
EXIT_WEIGHTS = (0.3, 0.4, 0.6, 0.8, 1.5)


class Residual(nn.Module):
    """The input plus ``body`` of it (He et al., CVPR 2016)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Tensor) -> Tensor:
        sum: Tensor = features + self.body(features)
        return sum


def residual_cifar(classes: int = 10) -> MultiExitNetwork:
    """Five exits over four resolutions; ``delen build`` prints the cost of each.

    The trunk is of the kind that trains fastest on CIFAR-10 (Page, "How to train your ResNet",
    2018): few wide convolutions, maxima between resolutions, one residual each.
    """
    segments = [
        nn.Sequential(
            Normalise(CIFAR10_MEAN, CIFAR10_STD), convolution(3, 24), convolution(24, 64, True)
        ),
        Residual(convolution(64, 64)),
        convolution(64, 192, True),
        Residual(convolution(192, 192)),
        nn.Sequential(
            convolution(192, 256, True), Residual(convolution(256, 256)), convolution(256, 256)
        ),
    ]
    heads = [
        convolutional_head(64, classes),
        convolutional_head(64, classes),
        linear_head(192, classes),
        linear_head(192, classes),
        linear_head(256, classes),
    ]
    return MultiExitNetwork(segments, heads)


RESIDUAL_CIFAR = ZooEntry(
    name="residual-cifar",
    kind="image",
    description="Residual network for small images, by the recipe of the bundle that delen ships",
    shape=(32, 32, 3),
    smallest=SMALLEST_SIDE,
    exits=5,
    create=lambda classes, shape, weights: residual_cifar(classes),
    recipe=Recipe(epochs=24, batch_size=256, exit_weights=EXIT_WEIGHTS, small_side=24),
)
RESIDUAL_SMALL = replace(
    RESIDUAL_CIFAR,
    name="residual-small",
    description="The same network, by a recipe for a few hundred to a few thousand images",
    recipe=Recipe(epochs=30, batch_size=32, exit_weights=EXIT_WEIGHTS),
)
ENTRIES = (RESIDUAL_CIFAR, RESIDUAL_SMALL)
