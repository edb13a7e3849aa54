"""MSDNet, the multi-scale dense network of Huang et al., "Multi-Scale Dense Networks for Resource
Efficient Image Classification", ICLR 2018, in its forms for CIFAR and for ImageNet.

Every layer keeps features at several scales, so that even the first exit has coarse ones, and
adds to its inputs (section 3). The authors' published configurations decide what the paper leaves
open (the width of the bottlenecks, where a transition stands, the halves of a layer's growth): for
ImageNet ``base 4, step 4, growth 16, factors 1-2-4-4``.
"""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from multiexit_models.attach.heads import linear_head
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, MultiExitNetwork, Normalise
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import SMALLEST_SIDE, ZooEntry
from multiexit_models.zoo.msdnet_layers import (
    Coarsest,
    DenseLayer,
    Form,
    Shape,
    Stem,
    Transition,
    Unpack,
    convolution,
    pack,
)
from multiexit_models.zoo.residual import CIFAR10_MEAN, CIFAR10_STD

TRANSITION_KEEPS = 0.5

CIFAR = Form(
    factors=(1, 2, 4),
    bottlenecks=(1, 2, 4),
    channels=16,
    growth=6,
    first_exit=4,
    exit_step=2,
    exits=5,
    halvings=0,
    head_channels=128,
)
IMAGENET = Form(
    factors=(1, 2, 4, 4),
    bottlenecks=(1, 2, 4, 4),
    channels=32,
    growth=16,
    first_exit=4,
    exit_step=4,
    exits=5,
    halvings=2,
    head_channels=None,
)


class Segment(nn.Module):
    """``opening`` makes the list of scales from one tensor, ``layers`` change it; packed again."""

    def __init__(self, opening: nn.Module, layers: list[nn.Module]) -> None:
        super().__init__()
        self.opening = opening
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        scales = self.opening(inputs)
        for layer in self.layers:
            scales = layer(scales)
        return pack(scales)


def _classifier(form: Form, shape: Shape, classes: int) -> nn.Sequential:
    """Two 3 x 3 convolutions of stride 2 on the coarsest scale, pooling and one linear layer."""
    width = form.head_channels or shape[0]
    return nn.Sequential(
        Coarsest(shape),
        convolution(shape[0], width, stride=2),
        convolution(width, width, stride=2),
        linear_head(width, classes),
    )


def build_msdnet(
    form: Form, classes: int, size: tuple[int, int], normalise: nn.Module
) -> MultiExitNetwork:
    """The MSDNet of ``form`` for uint8 images ``[batch, *size, 3]``, which ``normalise`` makes
    float32 ``[batch, 3, *size]``. Features between segments are float32 ``[batch, values]``.

    Raises ValueError for a form with fewer layers than scales, whose last exit would leave some
    of them unused.
    """
    if form.exit_layers[-1] < form.scales:
        raise ValueError(
            f"{form.exit_layers[-1]} layers cannot reduce {form.scales} scales to one; "
            f"give at least {form.scales} layers"
        )
    channels, layer = form.channels, 0
    segments: list[nn.Module] = []
    heads: list[nn.Module] = []
    opening: nn.Module = nn.Sequential(normalise, Stem(form))
    for last in form.exit_layers:
        layers: list[nn.Module] = []
        while layer < last:
            before, layer = form.finest(layer), layer + 1
            finest = form.finest(layer)
            layers.append(DenseLayer(form, channels, before, finest))
            channels += form.growth
            if finest > before:
                layers.append(Transition(form, channels, int(TRANSITION_KEEPS * channels), finest))
                channels = int(TRANSITION_KEEPS * channels)
        shapes = tuple(
            (
                channels * form.factors[scale],
                ceil(size[0] / 2 ** (form.halvings + scale)),
                ceil(size[1] / 2 ** (form.halvings + scale)),
            )
            for scale in range(form.finest(layer), form.scales)
        )
        segments.append(Segment(opening, layers))
        heads.append(_classifier(form, shapes[-1], classes))
        opening = Unpack(shapes)
    return MultiExitNetwork(segments, heads)


def msdnet_cifar(classes: int, shape: tuple[int, ...]) -> MultiExitNetwork:
    """The CIFAR form: three scales, 12 layers, exits after layers 4, 6, 8, 10 and 12."""
    normalise = Normalise(CIFAR10_MEAN, CIFAR10_STD)
    return build_msdnet(CIFAR, classes, (shape[0], shape[1]), normalise)


def msdnet_imagenet(classes: int, shape: tuple[int, ...]) -> MultiExitNetwork:
    """The ImageNet form: four scales, 20 layers, an exit after every fourth."""
    normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
    return build_msdnet(IMAGENET, classes, (shape[0], shape[1]), normalise)


EQUAL_WEIGHTS = (1.0,) * 5  # section 4.1: every exit's loss weighs the same

ENTRIES = (
    ZooEntry(
        name="msdnet-cifar",
        kind="image",
        description="MSDNet for small images: 3 scales, 12 layers (Huang et al., ICLR 2018)",
        shape=(32, 32, 3),
        smallest=SMALLEST_SIDE,
        exits=CIFAR.exits,
        create=lambda classes, shape, weights: msdnet_cifar(classes, shape),
        recipe=Recipe(epochs=60, batch_size=64, exit_weights=EQUAL_WEIGHTS),
    ),
    ZooEntry(
        name="msdnet-imagenet",
        kind="image",
        description="MSDNet for large images: 4 scales, 20 layers (Huang et al., ICLR 2018)",
        shape=(224, 224, 3),
        smallest=SMALLEST_SIDE,
        exits=IMAGENET.exits,
        create=lambda classes, shape, weights: msdnet_imagenet(classes, shape),
        recipe=Recipe(epochs=90, batch_size=64, exit_weights=EQUAL_WEIGHTS, crop_padding=16),
    ),
)
