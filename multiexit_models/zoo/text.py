"""A multi-exit transformer encoder over the bytes of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiexit_models.network import MultiExitNetwork
from multiexit_models.train.recipe import Recipe
from multiexit_models.zoo.entry import ZooEntry

BYTES = 256
PADDING = 0
STRIDE = 4
"""Bytes for each position of the encoder."""
EXITS = 4


def gelu(values: Tensor) -> Tensor:
    """GELU under a name that nn.TransformerEncoderLayer does not know.

    It then keeps to the plain operators in evaluation too; those that it fuses for known
    activations do not export.
    """
    return F.gelu(values)


def pack(hidden: Tensor, present: Tensor) -> Tensor:
    """``[batch, t, d]`` and the mask ``[batch, t]`` (1 or 0) as one: ``[batch, t, d + 1]``."""
    return torch.cat([hidden, present[..., None]], dim=2)


def unpack(features: Tensor) -> tuple[Tensor, Tensor]:
    """The parts that `pack` joined."""
    return features[..., :-1], features[..., -1]


class ByteStem(nn.Module):
    """UTF-8 bytes, uint8 ``[batch, length]`` padded by zeros, to packed features.

    Two strided convolutions cover spans of 13 bytes, about two words, at every fourth byte. The
    first position always counts as present, so that an empty text too has something to attend to.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, width // 2, padding_idx=PADDING)
        self.narrow = nn.Conv1d(width // 2, width, 5, stride=2, padding=2)
        self.wide = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.position = nn.Parameter(torch.randn(-(-length // STRIDE), width) * 0.02)

    def forward(self, text: Tensor) -> Tensor:
        embedded = self.embedding(text.int()).transpose(1, 2)
        spans = self.wide(F.gelu(self.narrow(embedded))).transpose(1, 2)
        starts = text[:, ::STRIDE]
        present = torch.cat([torch.ones_like(starts[:, :1]), starts[:, 1:] != PADDING], dim=1)
        return pack(spans + self.position, present.float())


class EncoderLayers(nn.Module):
    """``count`` pre-norm encoder layers over packed features; padding is not attended to.

    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017); layer norm first as in Xiong et
    al., "On Layer Normalization in the Transformer Architecture" (ICML 2020).
    """

    def __init__(self, count: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                dim_feedforward=2 * width,
                dropout=dropout,
                activation=gelu,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(count)
        )

    def forward(self, features: Tensor) -> Tensor:
        hidden, present = unpack(features)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=present < 0.5)
        return pack(hidden, present)


class MaskedMeanHead(nn.Module):
    """Layer norm, mean over the positions that are present, and one linear layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        hidden, present = unpack(features)
        weights = present / present.sum(1, keepdim=True)
        logits: Tensor = self.linear((self.norm(hidden) * weights[..., None]).sum(1))
        return logits


def byte_transformer(
    classes: int,
    length: int,
    width: int = 128,
    attention_heads: int = 4,
    layers: tuple[int, ...] = (1, 1, 1, 1),
    dropout: float = 0.1,
) -> MultiExitNetwork:
    """An exit after each group of ``layers``, for uint8 texts ``[batch, length]``.

    The features are ``[batch, ceil(length / 4), width + 1]``: the padding mask is the last
    channel, since a single tensor goes from segment to segment.
    """
    groups = [EncoderLayers(count, width, attention_heads, dropout) for count in layers]
    segments = [nn.Sequential(ByteStem(width, length), groups[0]), *groups[1:]]
    return MultiExitNetwork(segments, [MaskedMeanHead(width, classes) for _ in segments])


ENTRIES: tuple[ZooEntry, ...] = (
    ZooEntry(
        name="text-bytes",
        kind="text",
        description="transformer encoder over UTF-8 bytes, four exits; knows no language",
        shape=(128,),
        smallest=1,
        exits=EXITS,
        create=lambda classes, shape, weights: byte_transformer(classes, shape[0]),
        recipe=Recipe(epochs=12, batch_size=64, mirror=False),
    ),
)
