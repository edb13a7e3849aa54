"""The residual network for 32 x 32 images with five exits that delen ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, outputs, 3, stride), nn.ReLU(), conv_bn(outputs, outputs, 3)
        )
        same_shape = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same_shape else conv_bn(inputs, outputs, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.body(features) + self.shortcut(features))


def head(channels: int, classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer: next to nothing beside a segment."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def residual_cifar(classes: int = 10) -> MultiExitNetwork:
    """Five exits over three resolutions; the cost of each is printed by ``delen build``."""
    segments = [
        nn.Sequential(
            Normalise(CIFAR10_MEAN, CIFAR10_STD),
            conv_bn(3, 24, 3),
            nn.ReLU(),
            ResidualBlock(24, 48, stride=2),
        ),
        ResidualBlock(48, 48),
        ResidualBlock(48, 96, stride=2),
        ResidualBlock(96, 96),
        nn.Sequential(ResidualBlock(96, 128), ResidualBlock(128, 256, stride=2)),
    ]
    heads = [head(channels, classes) for channels in (48, 48, 96, 96, 256)]
    return MultiExitNetwork(segments, heads)
