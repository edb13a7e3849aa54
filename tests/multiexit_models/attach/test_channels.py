"""Heads pool over places, never over channels, however the backbone arranges its features."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402

from multiexit_models.attach import attach_exits, cut_points  # noqa: E402
from multiexit_models.attach.heads import image_head  # noqa: E402
from multiexit_models.attach.probe import probe_accuracies  # noqa: E402

SIZE = 64


class ChannelsLast(nn.Module):
    """Linear layers over [height, width, channels], with all three of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 16)
        self.middle = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU())
        self.fc = nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.middle(self.stem(images)).mean((1, 2)))


class MixedTokens(nn.Module):
    """Tokens with a class token before them, mixed by a layer over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.first = nn.Parameter(torch.zeros(1, 1, 12))
        self.across = nn.Linear(65, 65)
        self.mixed, self.fc = nn.Identity(), nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(images.shape[0], -1, -1), tokens], 1)
        return self.fc(self.mixed(self.across(tokens.transpose(1, 2)).transpose(1, 2)).mean(1))


class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv1d(3, 10, 3), nn.Conv1d(10, 10, 3)
        self.fc = nn.Linear(10, 4)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.body(self.stem(steps))).mean(2))


def torchvision(name: str, **options: object) -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision: delen[train]")
    return getattr(models, name)(weights=None, num_classes=4, **options)


IMAGES = (3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("make", "shape", "place", "channels"),
    [
        (lambda: torchvision("swin_t"), IMAGES, "features.1", 96),
        (lambda: torchvision("swin_t"), IMAGES, "features.3", 192),
        (lambda: torchvision("convnext_tiny"), IMAGES, "features.1", 96),
        (lambda: torchvision("resnet18"), IMAGES, "layer2", 128),
        (lambda: torchvision("vit_b_16", image_size=SIZE), IMAGES, "encoder.layers.encoder_layer_1",
         768),
        (ChannelsLast, (16, 16, 3), "stem", 16),
        (MixedTokens, IMAGES, "mixed", 12),
        (Sound, (3, 50), "stem", 10),
    ],
)  # fmt: skip
def test_a_head_sees_the_means_of_channels(
    make: Callable[[], nn.Module], shape: tuple[int, ...], place: str, channels: int
) -> None:
    torch.manual_seed(0)
    module, sample = make().eval(), torch.rand(2, *shape)
    seen: list[torch.Tensor] = []
    module.get_submodule(place).register_forward_hook(lambda *_: seen.append(_[2].detach()))
    with torch.no_grad():
        module(sample)
    features = seen[-1]
    network = attach_exits(module, sample[:1], 4, at=[place]).eval()
    norm = next(part for part in network.heads[0].modules() if isinstance(part, nn.BatchNorm1d))
    assert norm.num_features == channels
    pooled: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, given: pooled.append(given[0].detach()))
    with torch.no_grad():
        network(sample)
    first = shape == (3, 50) or (place.startswith(("layer", "features")) and (
        features.shape[1] == channels
    ))  # fmt: skip
    axes = tuple(range(2, features.ndim)) if first else tuple(range(1, features.ndim - 1))
    assert torch.allclose(pooled[-1], features.mean(axes), atol=1e-5)


def test_a_convolutional_head_reads_channels_last_features() -> None:
    network = attach_exits(
        ChannelsLast(), torch.rand(1, 10, 12, 3), 4, at=["stem"], head=image_head
    )
    assert [tuple(each.shape) for each in network.eval()(torch.rand(2, 10, 12, 3))] == [(2, 4)] * 2
    assert any(
        isinstance(part, nn.Conv2d) and part.in_channels == 16
        for part in network.heads[0].modules()
    )


def test_the_probe_reads_channels_last_features() -> None:
    """The classes differ in channels alone; a mean over channels would not see them."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    images = torch.rand(60, 6, 6, 3)
    images[..., 0] += labels[:, None, None]
    images[..., 1] -= labels[:, None, None]
    module = nn.Sequential(
        nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3), nn.Flatten(), nn.Linear(108, 2)
    )
    nn.init.eye_(module[0].weight)
    (accuracy, _) = probe_accuracies(module, images, labels.numpy(), ["0"])
    assert accuracy == 1


def test_features_keep_their_shape_in_the_list_of_places() -> None:
    shapes = {
        point.name: point.shape for point in cut_points(ChannelsLast(), torch.rand(1, 9, 8, 3))
    }
    assert shapes["stem"] == (9, 8, 16)
