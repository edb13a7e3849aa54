"""Multiply-adds of a network's segments and exits, by torch's own counter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from multiexit_models.network import MultiExitNetwork


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


def macs_per_stage(network: MultiExitNetwork, sample: Tensor) -> tuple[list[int], list[int]]:
    """Multiply-adds of each segment and of each head for one sample (``[1, ...]``).

    Counts those of convolutions, matrix products and attention.
    """
    segment_macs, head_macs = [], []
    features = sample
    for segment, head in zip(network.segments, network.heads, strict=True):
        macs, features = _count_macs(segment, features)
        segment_macs.append(macs)
        head_macs.append(_count_macs(head, features)[0])
    return segment_macs, head_macs


def _count_macs(module: nn.Module, inputs: Tensor) -> tuple[int, Tensor]:
    with torch.no_grad(), counting(module) as counter:
        outputs = module(inputs)
    return counter.get_total_flops() // 2, outputs


def cumulative_macs(network: MultiExitNetwork, sample: Tensor) -> list[int]:
    """Multiply-adds per exit: all that runs for one sample (``[1, ...]``) that stops there.

    Exit k counts segments 0 to k and heads 0 to k, since each head on the way runs.
    """
    segments, heads = macs_per_stage(network, sample)
    return list(accumulate(map(sum, zip(segments, heads, strict=True))))
