"""A multi-exit network: a list of segments and, after each, a classifier head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


class MultiExitNetwork(nn.Module):
    """Segments in a chain, each followed by an exit.

    ``segments[0]`` takes the bundle's raw input, ``[batch, *shape]``: uint8 images with the
    channels last, int16 sound, uint8 text. Every later one takes the features of the one before,
    one float32 tensor ``[batch, ...]``. ``heads[k]`` turns the features after segment k into
    logits, ``[batch, classes]``. Raises ValueError when a segment has no head.
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


@contextmanager
def counting(module: nn.Module) -> Iterator[FlopCounterMode]:
    """torch's counter, while ``module`` computes in steps that the counter knows.

    It knows neither fused transformer layers, nor oneDNN's LSTM, nor every attention kernel. As
    math, attention is two matrix products.
    """
    with ExitStack() as switched:
        switched.callback(
            torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
        )
        torch.backends.mha.set_fastpath_enabled(False)
        switched.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(layer, nn.LSTM) for layer in module.modules()):
            onednn: Any = torch.backends.mkldnn.flags
            switched.enter_context(onednn(enabled=False, allow_tf32=None))
        yield switched.enter_context(FlopCounterMode(display=False))


def _count_macs(module: nn.Module, inputs: Tensor) -> tuple[int, Tensor]:
    with torch.no_grad(), counting(module) as counter:
        outputs = module(inputs)
    return counter.get_total_flops() // 2, outputs


def macs_per_stage(network: MultiExitNetwork, sample: Tensor) -> tuple[list[int], list[int]]:
    """Multiply-adds of each segment and of each head for one sample (``[1, ...]``).

    torch's own counter: those of convolutions, matrix products and attention.
    """
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
