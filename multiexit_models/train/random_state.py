"""The random numbers that networks draw while they train, as for dropout.

They come from the libraries' own generators, so these are seeded for the length of a training,
and saved with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's and numpy's own generators start at ``seed``, and are afterwards as before."""
    numpy_before = np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_before)


def randomness(device: torch.device) -> dict[str, Any]:
    """The state of the generators, as tensors and numbers, for ``set_randomness``."""
    _, keys, *numbers = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {"keys": torch.from_numpy(np.array(keys, np.int64)), "numbers": tuple(numbers)},
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_randomness(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators to a state from ``randomness``.

    A GPU's stays as it is where the state has none.
    """
    torch.set_rng_state(state["torch"])
    keys = state["numpy"]["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *state["numpy"]["numbers"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, the algorithms that compute the same bits each time, where torch has them.

    torch warns of each operation for which it has none. A CPU needs no such switch.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, config = torch.backends.cudnn, os.environ.get(_CUBLAS)
    before = (cudnn.deterministic, cudnn.benchmark)
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        os.environ.setdefault(_CUBLAS, ":4096:8")
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = before
        if config is None:
            os.environ.pop(_CUBLAS, None)
