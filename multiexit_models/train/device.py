"""The device that networks run on, and its precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from delen.errors import InvalidInput


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where torch has one, else the CPU; or ``cpu``, ``cuda``, ``cuda:1``.

    Raises InvalidInput for a device that this machine lacks.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if seen else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N", "device")
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise InvalidInput(
            f"device is {name!r}, and torch {torch.__version__} has {seen} CUDA devices here; "
            "give auto or cpu, or install torch for this machine's GPU",
            "device",
        )
    return device


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 for convolutions and matrix products where ``device`` is fast at it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16) if fast else nullcontext()


@contextmanager
def whole_float32() -> Iterator[None]:
    """Without TF32, so that a GPU's results equal a CPU's to about 1e-5."""
    switches: list[Any] = [getattr(torch.backends.cudnn, kind) for kind in ("conv", "rnn")]
    switches.append(torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch computes with ``count`` threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
