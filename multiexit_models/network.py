"""A multi-exit network: a list of segments and, after each, a classifier head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class MultiExitNetwork(nn.Module):
    """Segments in a chain, each followed by an exit.

    ``segments[0]`` accepts the bundle's raw input, ``[batch, *shape]``: uint8 images with the
    channels last, int16 sound, uint8 text. Every later segment accepts the features of the one
    before, one float32 tensor ``[batch, ...]``. ``heads[k]`` turns the features after segment k
    into logits, ``[batch, classes]``. Raises ValueError when a segment has no head.
    """

    def __init__(self, segments: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(segments) != len(heads) or not segments:
            raise ValueError(
                f"every segment needs its head: got {len(segments)} segments and {len(heads)} heads"
            )
        self.segments = nn.ModuleList(segments)
        self.heads = nn.ModuleList(heads)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Run to the end and return the logits of every exit, each ``[batch, classes]``."""
        features = inputs
        logits = []
        for segment, head in zip(self.segments, self.heads, strict=True):
            features = segment(features)
            logits.append(head(features))
        return logits


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


def set_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out the convolutions' weights of ``module`` in place as ``memory_format`` says."""
    for weight in module.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.to(memory_format=memory_format)
