"""What segments take of memory, and returning what they took to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from math import prod
from typing import Any

import numpy as np

from delen.bundle.manifest import Manifest


def segment_sizes(manifest: Manifest, lanes: int) -> tuple[int, ...]:
    """What each segment takes in memory, in bytes."""
    return tuple(segment_bytes(manifest, k, lanes) for k in range(len(manifest.exits)))


def segment_bytes(manifest: Manifest, segment: int, lanes: int) -> int:
    """What ``segment`` takes in memory, estimated before it is loaded.

    Its weights take as much as its file (measured: 1.00 times; docs/decisions/memory.md). Beside
    them are the buffers for its inputs and outputs, with room for the largest batch on each lane.
    What it computes in between, and the features of suspended jobs, come from a pool that all
    segments share. A smaller input size has buffers of its own, and weights where it has a graph of
    its own.
    """
    sizes = (manifest, *manifest.scaled())
    graphs = {size.exits[segment].graph for size in sizes}
    weights = sum(manifest.files[graph].size for graph in graphs)
    return weights + sum(_buffers(size, segment, lanes) for size in sizes)


def _buffers(manifest: Manifest, segment: int, lanes: int) -> int:
    """Bytes of what ``segment`` reads and writes at one input size."""
    exit, input = manifest.exits[segment], manifest.input
    floats = 1 + manifest.classes + prod(exit.features or (0,))
    if segment == 0:
        sample = np.dtype(input.dtype).itemsize * prod(input.shape)
    else:
        sample = 8 + 4 * prod(manifest.exits[segment - 1].features or (0,))
    return lanes * manifest.max_batch * (sample + 4 * floats)


def trim_memory() -> None:
    """Return freed memory to the system, where the C library keeps it otherwise."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """glibc's ``malloc_trim``; None where there is none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
