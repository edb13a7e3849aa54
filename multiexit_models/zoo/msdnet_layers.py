"""The layers of MSDNet (Huang et al., ICLR 2018, section 3) and the figures of its forms.

Between layers, features are a list: one float32 tensor ``[batch, channels, height, width]`` for
each scale, the finest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor, nn

Shape: TypeAlias = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Form:
    """The figures of one MSDNet.

    The finest scale begins with ``channels`` and gains ``growth`` a layer; scale s has
    ``factors[s]`` times as many, and bottlenecks ``bottlenecks[s]`` times as wide as their
    outputs. Exits stand after layer ``first_exit`` and every ``exit_step`` layers from there.
    ``halvings`` is how often the stem halves the image before the finest scale: 0 (one 3 x 3
    convolution) or 2 (a 7 x 7 one and a maximum). A classifier's convolutions have
    ``head_channels``; None: as many as their inputs.
    """

    factors: tuple[int, ...]
    bottlenecks: tuple[int, ...]
    channels: int
    growth: int
    first_exit: int
    exit_step: int
    exits: int
    halvings: int
    head_channels: int | None

    @property
    def scales(self) -> int:
        return len(self.factors)

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """The layers, counted from 1, after which an exit stands."""
        return tuple(self.first_exit + self.exit_step * exit for exit in range(self.exits))

    def finest(self, layer: int) -> int:
        """The finest scale that ``layer`` (from 1) computes.

        Network reduction (section 3): the layers form as many blocks as there are scales, and
        each block drops the finest scale of the one before. Layer 0 is the stem.
        """
        return max(0, layer - 1) * self.scales // self.exit_layers[-1]


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (but for ``stride``), batch norm and ReLU."""
    weight = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(weight.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(weight, nn.BatchNorm2d(outputs), nn.ReLU())


def _bottlenecked(inputs: int, outputs: int, widening: int, stride: int = 1) -> nn.Sequential:
    """A 1 x 1 convolution to ``widening * outputs`` channels at most, then a 3 x 3 one."""
    inner = min(inputs, widening * outputs)
    return nn.Sequential(
        convolution(inputs, inner, kernel=1), convolution(inner, outputs, stride=stride)
    )


class Stem(nn.Module):
    """The paper's first layer, not counted among a form's layers: float32 ``[batch, 3, height,
    width]`` to the features of each scale."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        widths = [form.channels * factor for factor in form.factors]
        finest = (
            nn.Sequential(convolution(3, widths[0], 7, 2), nn.MaxPool2d(3, 2, padding=1))
            if form.halvings
            else convolution(3, widths[0])
        )
        coarser = [convolution(finer, coarse, stride=2) for finer, coarse in pairwise(widths)]
        self.steps = nn.ModuleList([finest, *coarser])

    def forward(self, images: Tensor) -> list[Tensor]:
        scales = []
        features = images
        for step in self.steps:
            features = step(features)
            scales.append(features)
        return scales


class Growth(nn.Module):
    """One scale's part of a layer: half of the new features from the scale itself, half from the
    next finer one. Without ``from_finer`` all are from the scale itself."""

    def __init__(self, form: Form, channels: int, scale: int, from_finer: bool) -> None:
        super().__init__()
        added = form.growth * form.factors[scale]
        halves = (added // 2, added - added // 2) if from_finer else (0, added)
        self.from_finer = (
            _bottlenecked(
                channels * form.factors[scale - 1], halves[0], form.bottlenecks[scale - 1], stride=2
            )
            if from_finer
            else None
        )
        self.from_same = _bottlenecked(
            channels * form.factors[scale], halves[1], form.bottlenecks[scale]
        )

    def forward(self, scales: list[Tensor], place: int) -> Tensor:
        """The features at ``scales[place]`` with the new ones behind them."""
        parts = [scales[place], self.from_same(scales[place])]
        if self.from_finer is not None:
            parts.append(self.from_finer(scales[place - 1]))
        return torch.cat(parts, dim=1)


class DenseLayer(nn.Module):
    """From scales ``finest_in`` to the coarsest, to ``finest_out`` to the coarsest, grown."""

    def __init__(self, form: Form, channels: int, finest_in: int, finest_out: int) -> None:
        super().__init__()
        self.dropped = finest_out - finest_in
        self.scales = nn.ModuleList(
            Growth(form, channels, scale, from_finer=scale > finest_in)
            for scale in range(finest_out, form.scales)
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        return [grow(scales, place) for place, grow in enumerate(self.scales, self.dropped)]


class Transition(nn.Module):
    """A 1 x 1 convolution at each scale to fewer channels, between two blocks (section 3)."""

    def __init__(self, form: Form, inputs: int, outputs: int, finest: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            convolution(inputs * factor, outputs * factor, kernel=1)
            for factor in form.factors[finest:]
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        return [narrow(features) for narrow, features in zip(self.scales, scales, strict=True)]


def pack(scales: list[Tensor]) -> Tensor:
    """Features ``[batch, channels, height, width]`` of several scales, the finest first, as one
    float32 tensor ``[batch, values]``."""
    return torch.cat([features.flatten(1) for features in scales], dim=1)


class Unpack(nn.Module):
    """The inverse of ``pack`` for features of ``shapes``."""

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, packed: Tensor) -> list[Tensor]:
        parts = torch.split(packed, [prod(shape) for shape in self.shapes], dim=1)
        return [
            torch.unflatten(part, 1, shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]


class Coarsest(nn.Module):
    """The coarsest scale, of ``shape``, of packed features: the input of a classifier."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, packed: Tensor) -> Tensor:
        return torch.unflatten(packed[:, -prod(self.shape) :], 1, self.shape)
