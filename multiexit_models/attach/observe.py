"""What each step of a traced module computes, observed on batches of two sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from delen.errors import InvalidInput
from multiexit_models.attach.channels import channel_axes
from multiexit_models.attach.trace import mode
from multiexit_models.macs import counting

BATCHES = (2, 3)  # two sizes show what changes with the batch; a batch of 1 would broadcast
UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor as far as cutting goes. ``storage`` is equal for views of the same memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Per node: ``values``, its result for each of the batches, tensors as `Seen`;
    ``macs``, its multiply-adds for one input; ``written``, the storages of arguments it changed;
    ``channels``, the axis of its channels, where that is known.
    """

    values: Mapping[fx.Node, tuple[Any, Any]]
    macs: Mapping[fx.Node, int]
    written: Mapping[fx.Node, frozenset[int]]
    channels: Mapping[fx.Node, int]

    def is_tensor(self, node: fx.Node) -> bool:
        """Whether the result of ``node`` is or contains a tensor."""
        return _has_tensor(self.values[node][0])

    def is_features(self, node: fx.Node) -> bool:
        """Whether ``node`` is one float32 tensor whose first axis, and no other, is the batch."""
        one, other = self.values[node]
        if not isinstance(one, Seen) or not isinstance(other, Seen) or len(one.shape) < 2:
            return False
        return (
            one.dtype == torch.float32
            and (one.shape[0], other.shape[0]) == BATCHES
            and one.shape[1:] == other.shape[1:]
        )

    def anew(self, node: fx.Node, batch: Any) -> Any:
        """The numbers ``node``, with ``batch`` in place of the batch's size; or UNKNOWN."""
        return _anew(*self.values[node], batch)

    def described(self, node: fx.Node) -> str:
        """The result of ``node``, in words."""
        value = self.values[node][0]
        if not isinstance(value, Seen):
            return "something other than one tensor"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype} {list(value.shape)} for a batch of {BATCHES[0]}"


def observe(module: fx.GraphModule, sample: Tensor) -> Observed:
    """Run ``module`` in evaluation on batches of ``sample`` ``[1, ...]``.

    Raises InvalidInput when it cannot run them.
    """
    runs = []
    for size in BATCHES:
        with torch.no_grad(), mode(module, False), counting(module) as counter:
            observer = _Observer(module, counter)
            try:
                observer.run(sample.repeat(size, *(1 for _ in sample.shape[1:])))
            except Exception as error:  # the module's own code, which may raise anything
                cause = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InvalidInput(
                    f"the module cannot run a batch of {size} inputs like the sample "
                    f"{list(sample.shape)}: {cause}",
                    "sample",
                ) from error
        runs.append(observer)
    first, second = runs
    with torch.no_grad(), mode(module, False):
        channels = channel_axes(module, sample.repeat(BATCHES[0], *(1 for _ in sample.shape[1:])))
    return Observed(
        {node: (first.seen[node], second.seen[node]) for node in first.seen},
        first.macs,
        first.written,
        channels,
    )


class _Observer(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        # Storages that are kept are not reused, so that equal ones mean views.
        super().__init__(module, garbage_collect_values=False)
        self.counter = counter
        self.seen: dict[fx.Node, Any] = {}
        self.macs: dict[fx.Node, int] = {}
        self.written: dict[fx.Node, frozenset[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        sources = [self.env[source] for source in n.all_input_nodes]
        tensors = [source for source in sources if isinstance(source, Tensor)]
        versions = [tensor._version for tensor in tensors]
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.macs[n] = (self.counter.get_total_flops() - before) // (2 * BATCHES[0])
        self.written[n] = frozenset(
            _storage(tensor)
            for tensor, version in zip(tensors, versions, strict=True)
            if tensor._version != version
        )
        self.seen[n] = _summary(value)
        return value


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _summary(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Seen(tuple(value.shape), value.dtype, _storage(value))
    if isinstance(value, (tuple, list)):
        return tuple(map(_summary, value))
    return value


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Seen) or (isinstance(value, tuple) and any(map(_has_tensor, value)))


def _anew(one: Any, other: Any, batch: Any) -> Any:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        parts = tuple(_anew(*pair, batch) for pair in zip(one, other, strict=True))
        return UNKNOWN if any(part is UNKNOWN for part in parts) else parts
    if type(one) is type(other) and one == other:
        return one
    return batch if (one, other) == BATCHES else UNKNOWN
