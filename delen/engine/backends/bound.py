"""Segments of ONNX Runtime, with what they read and write bound before they run.

A batch's features stay where its segment wrote them, in a block of the provider's own memory. The
next segment is given the whole block and the rows of the samples that go on, and gathers them
itself; so of a batch that stays together nothing but logits and confidences leaves the device.

All this runs between any two segments of every request. What is bound therefore stays bound for
as long as it is still right: outputs until the batch changes, blocks until there is another one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from delen.engine.backends.base import Features, SegmentRun

HOST = "cpu"
_FLOAT = np.dtype(np.float32)
_INDEX = np.dtype(np.int64)


class HostBuffer:
    """An array in the host's memory with room for the largest batch, and where it lies."""

    __slots__ = ("address", "array")
    device = HOST

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.array: NDArray[Any] = np.empty((capacity, *shape), dtype)
        self.address = self.array.ctypes.data

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype


class FeatureBuffer:
    """Room for the float32 features of the largest batch in the memory of ``device``."""

    __slots__ = ("_value", "_view", "address", "device", "shape")
    dtype = _FLOAT

    def __init__(self, capacity: int, shape: tuple[int, ...], device: str) -> None:
        self.device = device
        self.shape = (capacity, *shape)
        self._value = ort.OrtValue.ortvalue_from_shape_and_type(self.shape, np.float32, device, 0)
        self.address: int = self._value.data_ptr()
        self._view = _array_at(self.address, self.shape) if device == HOST else None

    def write(self, features: NDArray[np.float32]) -> None:
        """Fill all of it."""
        self._value.update_inplace(features)

    def read(self) -> NDArray[np.float32]:
        """All of it ``[capacity, ...]``: where it lies on the host, else a copy of it."""
        if self._view is not None:
            return self._view
        copy: NDArray[np.float32] = self._value.numpy()
        return copy


def _array_at(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    whole = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(whole).reshape(shape)


class Block:
    """A buffer with the features of one batch, lent to its samples until all have let go."""

    __slots__ = ("buffer", "length", "owner")

    def __init__(self, buffer: FeatureBuffer, length: int, owner: list[FeatureBuffer]) -> None:
        self.buffer = buffer
        self.length = length
        self.owner = owner

    def __del__(self) -> None:
        self.owner.append(self.buffer)


class Row(NamedTuple):
    """One sample's features: row ``row`` of ``block``."""

    block: Block
    row: int


def lone_row(features: NDArray[np.float32], device: str) -> Row:
    """One sample's ``features`` in a block of their own."""
    buffer = FeatureBuffer(1, features.shape, device)
    buffer.write(np.ascontiguousarray(features[None]))
    return Row(Block(buffer, 1, []), 0)


Buffer: TypeAlias = HostBuffer | FeatureBuffer


def _bind(bind: Callable[..., None], name: str, buffer: Buffer, length: int) -> None:
    """Bind the first ``length`` rows of ``buffer``, where ``bind`` binds inputs or outputs."""
    shape = (length, *buffer.shape[1:])
    bind(name, buffer.device, 0, buffer.dtype, shape, buffer.address)


class Feed(Protocol):
    """Binds what a segment reads."""

    def __call__(self, samples: Sequence[Features]) -> None: ...


class InputFeed:
    """Feeds arrays to the graph's ``input``.

    Where it runs on ``device`` other than the host, they are bound anew each time: a provider with
    memory of its own copies them when they are bound, and never again.
    """

    def __init__(
        self,
        binding: Any,
        capacity: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: str,
    ) -> None:
        self._bind_input = binding.bind_input
        self._input = HostBuffer(capacity, shape, dtype)
        self._stays_bound = device == HOST
        self._bound = 0

    def __call__(self, samples: Sequence[NDArray[Any]]) -> None:
        size = len(samples)
        for index, sample in enumerate(samples):
            self._input.array[index] = sample
        if size != self._bound or not self._stays_bound:
            _bind(self._bind_input, "input", self._input, size)
            self._bound = size


class RowFeed:
    """Feeds a block to the graph's ``features``, and to its ``rows`` those of the samples.

    Only where the samples of one batch lie in different blocks are they first gathered, through
    the host, into one buffer.
    """

    def __init__(self, binding: Any, capacity: int, shape: tuple[int, ...]) -> None:
        self._bind_input = binding.bind_input
        self._rows = HostBuffer(capacity, (), _INDEX)
        self._gathered = HostBuffer(capacity, shape, _FLOAT)
        self._bound_rows: list[int] = []
        self._bound_buffer: FeatureBuffer | None = None
        self._bound_length = 0

    def __call__(self, samples: Sequence[Row]) -> None:
        block, first = samples[0]
        rows = [first]
        if len(samples) > 1:
            rows = [row for owner, row in samples if owner is block]
        if len(rows) < len(samples):
            self._gather(samples)
            rows = list(range(len(samples)))
        elif block.buffer is not self._bound_buffer or block.length != self._bound_length:
            _bind(self._bind_input, "features", block.buffer, block.length)
            self._bound_buffer, self._bound_length = block.buffer, block.length
        if rows != self._bound_rows:
            self._rows.array[: len(rows)] = rows
            _bind(self._bind_input, "rows", self._rows, len(rows))
            self._bound_rows = rows

    def _gather(self, samples: Sequence[Row]) -> None:
        arrays = {block.buffer: block.buffer.read() for block in {row.block for row in samples}}
        for index, (block, row) in enumerate(samples):
            self._gathered.array[index] = arrays[block.buffer][row]
        _bind(self._bind_input, "features", self._gathered, len(samples))
        self._bound_buffer = None


class BoundSegment:
    """One segment's session, its feed, and the buffers that it writes.

    Logits and confidences come back to the host. ``features`` is the shape of one sample's
    features, None where the segment gives none; they stay on ``device``.
    """

    def __init__(
        self,
        session: Any,
        binding: Any,
        feed: Feed,
        capacity: int,
        classes: int,
        features: tuple[int, ...] | None,
        device: str,
    ) -> None:
        self._run = session.run_with_iobinding
        self._binding = binding
        self._feed = feed
        self._capacity = capacity
        self._features = features
        self._device = device
        self._logits = HostBuffer(capacity, (classes,), _FLOAT)
        self._confidence = HostBuffer(capacity, (), _FLOAT)
        self._spare: list[FeatureBuffer] = []
        self._batch = 0
        self._bound_output: FeatureBuffer | None = None
        self._answers = (self._logits.array, self._confidence.array)

    def run(self, samples: Sequence[Features]) -> SegmentRun:
        batch = len(samples)
        if batch != self._batch:
            self._change_batch(batch)
        self._feed(samples)
        rows: list[Row] = []
        if self._features is not None:
            target = self._spare.pop() if self._spare else self._new_buffer(self._features)
            lent = Block(target, batch, self._spare)
            if target is not self._bound_output:
                _bind(self._binding.bind_output, "features_out", target, batch)
                self._bound_output = target
            rows = [Row(lent, 0)] if batch == 1 else [Row(lent, index) for index in range(batch)]
        self._run(self._binding)
        logits, confidence = self._answers
        return SegmentRun(rows, logits, confidence)

    def _change_batch(self, batch: int) -> None:
        self._batch = batch
        self._bound_output = None
        _bind(self._binding.bind_output, "logits", self._logits, batch)
        _bind(self._binding.bind_output, "confidence", self._confidence, batch)
        self._answers = (self._logits.array[:batch], self._confidence.array[:batch])

    def _new_buffer(self, shape: tuple[int, ...]) -> FeatureBuffer:
        return FeatureBuffer(self._capacity, shape, self._device)
