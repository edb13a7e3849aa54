"""The residual network for 32 x 32 images with five exits that delen ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multiexit_models.heads import convolution, convolutional_head, linear_head
from multiexit_models.network import MultiExitNetwork

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class Normalise(nn.Module):
    """uint8 ``[batch, height, width, 3]`` to normalised float32 ``[batch, 3, height, width]``."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, -1, 1, 1)))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).float() * self.scale - self.shift


class Residual(nn.Module):
    """What ``body`` computes is added to its input (He et al., CVPR 2016)."""

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
