"""Networks and data small enough to train or to export within a second."""

from __future__ import annotations

import numpy as np
import pytest

from delen.bundle.manifest import ImagePreprocessing, InputSpec
from multiexit_models.data.dataset import Labelled

torch = pytest.importorskip("torch", reason="networks need torch: delen[train]")

from torch import nn  # noqa: E402

from multiexit_models.network import MultiExitNetwork, Normalise  # noqa: E402

INPUT = InputSpec("uint8", (8, 8, 3), image=ImagePreprocessing("RGB", "bilinear"))
DIGITS_INPUT = InputSpec("uint8", (8, 8, 1), image=ImagePreprocessing("L", "bilinear"))


def normalise() -> Normalise:
    return Normalise((0.5,) * 3, (0.25,) * 3)


def halving(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution to half the resolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def head(channels: int, classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def two_exits() -> MultiExitNetwork:
    """Two exits over images of ``INPUT`` of two classes; the same weights each time."""
    torch.manual_seed(3)
    return MultiExitNetwork(
        [nn.Sequential(normalise(), halving(3, 8)), halving(8, 12)], [head(8), head(12)]
    )


def spread_norms(module: nn.Module) -> None:
    """Batch norms as after training, so that no layer is the same as none."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


class DigitPlanes(nn.Module):
    """Images of ``digits`` to float32 ``[batch, 1, 8, 8]`` from -1 to 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float() / 8 - 1


def digits() -> Labelled:
    """scikit-learn's 1,797 handwritten digits of ``DIGITS_INPUT``, in an order of our own."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits are scikit-learn's")
    bunch = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    return Labelled(bunch.images[order].astype(np.uint8)[..., None], bunch.target[order])
