"""A multi-exit network: a list of segments and, after each, a classifier head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class MultiExitNetwork(nn.Module):
    """Segments in a chain, each followed by an exit.

    ``segments[0]`` takes the bundle's input, a uint8 tensor with the batch first; every later
    one takes the features of the one before. ``heads[k]`` turns the features after segment k
    into logits of shape ``[batch, classes]``.
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


def set_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out the convolutions' weights of ``module`` in place as ``memory_format`` says."""
    for weight in module.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.to(memory_format=memory_format)


def _count_macs(module: nn.Module, inputs: Tensor) -> tuple[int, Tensor]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = module(inputs)
    return counter.get_total_flops() // 2, outputs


def macs_per_stage(network: MultiExitNetwork, sample: Tensor) -> tuple[list[int], list[int]]:
    """Multiply-adds of each segment and of each head for one sample (``[1, ...]``)."""
    segment_macs, head_macs = [], []
    features = sample
    for segment, head in zip(network.segments, network.heads, strict=True):
        macs, features = _count_macs(segment, features)
        segment_macs.append(macs)
        head_macs.append(_count_macs(head, features)[0])
    return segment_macs, head_macs


def cumulative_macs(network: MultiExitNetwork, sample: Tensor) -> list[int]:
    """Multiply-adds per exit: all that runs for one sample (``[1, ...]``) that stops there.

    Exit k counts segments 0 to k and heads 0 to k, since each head on the way is asked.
    """
    segments, heads = macs_per_stage(network, sample)
    return list(accumulate(map(sum, zip(segments, heads, strict=True))))
