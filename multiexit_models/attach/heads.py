"""Classifier heads: what an exit puts on a segment's features.

A head factory accepts the features' shape without the batch and the number of classes, and returns
a module from float32 features ``[batch, *shape]`` to logits ``[batch, classes]``. Image features
reach it as ``[channels, height, width]`` and sequences as ``[steps, width]``, however the backbone
arranges them.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from delen.errors import InvalidInput


class HeadFactory(Protocol):
    """Makes the head of one exit."""

    def __call__(self, features_shape: tuple[int, ...], classes: int, /) -> nn.Module: ...


def convolution(inputs: int, outputs: int, halve: bool = False) -> nn.Sequential:
    """3 x 3 convolution, with ``halve`` a 2 x 2 maximum, then batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2) if halve else nn.Identity(),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def linear_head(channels: int, classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer: next to nothing beside a segment."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def convolutional_head(channels: int, classes: int) -> nn.Sequential:
    """One convolution at half the resolution: what shallow features need to separate classes."""
    return nn.Sequential(
        nn.MaxPool2d(2), convolution(channels, channels), linear_head(channels, classes)
    )


class Reordered(nn.Module):
    """Features with their axes in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(self.order)


class Mean(nn.Module):
    """The mean of features over ``axes``."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(self.axes)


def pooled_head(features_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The default factory: pooling, batch norm and one linear layer, which cost next to nothing.

    It reads ``[channels, height, width]`` as image features, ``[steps, width]`` as a sequence and
    ``[width]`` as flat features. The norm lets heads learn equally fast on a frozen backbone, whose
    features may have any scale. Raises InvalidInput for any other shape.
    """
    pool: nn.Module
    match features_shape:
        case (width, _, _):
            pool = Mean(2, 3)
        case (_, width):
            pool = Mean(1)
        case (width,):
            pool = nn.Identity()
        case _:
            raise InvalidInput(
                f"there is no default head for features of shape {list(features_shape)}; there are "
                "heads for [channels, height, width], [steps, width] and [width]: give head=, a "
                "function of (features_shape, classes) that returns a module",
                "head",
            )
    return nn.Sequential(pool, nn.BatchNorm1d(width), nn.Linear(width, classes))


def image_head(features_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A factory for image features: one convolution before pooling and the linear layer.

    Shallow features reach a higher accuracy with it than with `pooled_head`, at the cost of a
    3 x 3 convolution of all channels at half the resolution. Raises InvalidInput unless the
    features are ``[channels, height, width]``.
    """
    if len(features_shape) != 3:
        raise InvalidInput(
            f"a convolutional head needs features [channels, height, width], not "
            f"{list(features_shape)}",
            "head",
        )
    channels, height, width = features_shape
    if min(height, width) < 2:
        return linear_head(channels, classes)
    return convolutional_head(channels, classes)


def pooled(features: Tensor) -> Tensor:
    """Features ``[batch, ...]`` as `pooled_head` pools them: ``[batch, d]``.

    Features of shapes that it has no pooling for are flattened.
    """
    if features.ndim == 4:
        return features.mean((2, 3))
    if features.ndim == 3:
        return features.mean(1)
    return features.flatten(1)
