"""ONNX Runtime, on the CPU or an accelerator, with buffers bound before they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from delen.bundle import DTYPES, Bundle
from delen.engine.backends.base import Features, SegmentRun
from delen.errors import BackendError, ConfigError, MissingExtra

try:
    import onnxruntime as ort
except ModuleNotFoundError as error:
    raise MissingExtra("onnxruntime", "daemon") from error

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_FLOAT = np.dtype(np.float32)
_NUMPY_TYPES = {f"tensor({name})": name for name in DTYPES} | {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
AUTO_ORDER = ("cuda", "cpu")
"""TensorRT builds its engines for minutes at the first load, so it is only taken when asked for."""


class _Buffer:
    """An array with room for the largest batch, and where it lies."""

    __slots__ = ("address", "array")

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.array: NDArray[Any] = np.empty((capacity, *shape), dtype)
        self.address = self.array.ctypes.data


class _Block:
    """A buffer with the features of one batch, lent to its samples until all have let go."""

    __slots__ = ("buffer", "length", "owner")

    def __init__(self, buffer: _Buffer, length: int, owner: list[_Buffer]) -> None:
        self.buffer = buffer
        self.length = length
        self.owner = owner

    def __del__(self) -> None:
        self.owner.append(self.buffer)


class _Row(NamedTuple):
    block: _Block
    row: int


class _Segment:
    """One segment's session and the buffers bound to it.

    What is bound stays bound: outputs until the batch changes, features until another buffer
    holds them. This runs between any two segments of every request, so it does nothing twice.
    """

    def __init__(
        self,
        session: Any,
        capacity: int,
        input_shape: tuple[int, ...],
        input_dtype: np.dtype[Any],
        output_shape: tuple[int, ...] | None,
        classes: int,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._input_name = session.get_inputs()[0].name
        self._capacity = capacity
        self._output_shape = output_shape
        self._inputs = _Buffer(capacity, input_shape, input_dtype)
        self._logits = _Buffer(capacity, (classes,), _FLOAT)
        self._confidence = _Buffer(capacity, (), _FLOAT)
        self._spare: list[_Buffer] = []
        self._batch = 0
        self._bound_input: _Buffer | None = None
        self._bound_output: _Buffer | None = None
        self._answers = (self._logits.array, self._confidence.array)

    def run(self, samples: Sequence[Features], rows: bool) -> SegmentRun:
        """Run on ``samples``, which are ``rows`` of blocks or else arrays."""
        batch = len(samples)
        if batch != self._batch:
            self._change_batch(batch)
        source = _whole_buffer(samples) if rows else None
        if source is None:
            source = self._inputs
            for index, sample in enumerate(samples):
                source.array[index] = sample.block.buffer.array[sample.row] if rows else sample
        if source is not self._bound_input:
            self._bind(self._binding.bind_input, self._input_name, source)
            self._bound_input = source
        features: list[_Row] = []
        if self._output_shape is not None:
            target = self._spare.pop() if self._spare else self._new_output(self._output_shape)
            if target is not self._bound_output:
                self._bind(self._binding.bind_output, "features_out", target)
                self._bound_output = target
            lent = _Block(target, batch, self._spare)
            features = [_Row(lent, index) for index in range(batch)]
        self._session.run_with_iobinding(self._binding)
        return SegmentRun(features, *self._answers)

    def _change_batch(self, batch: int) -> None:
        self._batch = batch
        self._bound_input = self._bound_output = None
        self._bind(self._binding.bind_output, "logits", self._logits)
        self._bind(self._binding.bind_output, "confidence", self._confidence)
        self._answers = (self._logits.array[:batch], self._confidence.array[:batch])

    def _new_output(self, shape: tuple[int, ...]) -> _Buffer:
        return _Buffer(self._capacity, shape, _FLOAT)

    def _bind(self, bind: Callable[..., None], name: str, buffer: _Buffer) -> None:
        array = buffer.array
        bind(name, "cpu", 0, array.dtype, (self._batch, *array.shape[1:]), buffer.address)


class OnnxNetwork:
    """The segments of one bundle as ONNX Runtime sessions."""

    def __init__(self, bundle: Bundle, sessions: Sequence[Any]) -> None:
        manifest = bundle.manifest
        shape, dtype = manifest.input.shape, np.dtype(manifest.input.dtype)
        self._segments: list[_Segment] = []
        for session, exit in zip(sessions, manifest.exits, strict=True):
            self._segments.append(
                _Segment(session, manifest.max_batch, shape, dtype, exit.features, manifest.classes)
            )
            shape, dtype = exit.features or (), _FLOAT

    def run(self, segment: int, samples: Sequence[Features]) -> SegmentRun:
        """Run ``segment``; features stay in their buffer where the samples lie in it in order,
        and are gathered first where they do not."""
        try:
            return self._segments[segment].run(samples, rows=segment > 0)
        except Exception as error:
            raise BackendError(
                f"segment {segment} failed on a batch of {len(samples)}: {error}"
            ) from error


def _whole_buffer(samples: Sequence[_Row]) -> _Buffer | None:
    """The buffer that holds just these samples in this order, or None."""
    block = samples[0].block
    if len(samples) != block.length:
        return None
    for index, sample in enumerate(samples):
        if sample.block is not block or sample.row != index:
            return None
    return block.buffer


class OnnxBackend:
    """Sessions on the first provider of ``name`` that works; ``auto`` tries CUDA, then the CPU."""

    def __init__(self, name: str, threads: int) -> None:
        if name != "auto" and name not in PROVIDERS:
            raise ConfigError(f"device.backend {name!r} is none of auto, {', '.join(PROVIDERS)}")
        available = ort.get_available_providers()
        wanted = AUTO_ORDER if name == "auto" else (name,)
        chosen = [short for short in wanted if PROVIDERS[short] in available]
        if not chosen:
            offered = ", ".join(short for short, full in PROVIDERS.items() if full in available)
            raise BackendError(
                f"backend {name!r} needs the {PROVIDERS[name]} of onnxruntime, which the installed "
                f"one lacks (it has: {offered}); on a Jetson: pip uninstall onnxruntime, then "
                "pip install 'delen[jetson]'"
            )
        self.name = name
        self.provider = chosen[0]
        self.threads = threads
        self._strict = name != "auto"
        _share_arena()

    def load(self, bundle: Bundle) -> OnnxNetwork:
        sessions = [self._session(bundle, segment) for segment in range(len(bundle.exits))]
        return OnnxNetwork(bundle, sessions)

    def _session(self, bundle: Bundle, segment: int) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        file = bundle.path / bundle.exits[segment].graph
        try:
            session = ort.InferenceSession(
                bundle.graph(segment), options, providers=[PROVIDERS[self.provider]]
            )
        except Exception as error:
            raise BackendError(f"{file} does not load: {error}") from error
        in_use = session.get_providers()[0]
        if in_use != PROVIDERS[self.provider]:
            if self._strict:
                raise BackendError(f"{self.provider} was asked for, but {file} runs on {in_use}")
            self.provider = next(short for short, full in PROVIDERS.items() if full == in_use)
        _check_interface(session, bundle, segment)
        return session


@cache
def _share_arena() -> None:
    """One arena for the CPU memory of all sessions, that grows by what is asked and no more.

    An arena a session, doubling as it grows, holds 20 MB more for the shipped bundle.
    """
    grow_as_requested = ort.OrtArenaCfg(
        {
            "arena_extend_strategy": 1,
            "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
            "max_mem": 0,
        }
    )
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, grow_as_requested)


def _check_interface(session: Any, bundle: Bundle, segment: int) -> None:
    """The graph's inputs and outputs are what the manifest says, with a free batch."""
    is_last = segment + 1 == len(bundle.exits)
    wanted_inputs = {"images" if segment == 0 else "features"}
    wanted_outputs = {"logits", "confidence"} | (set() if is_last else {"features_out"})
    inputs, outputs = session.get_inputs(), session.get_outputs()
    file = bundle.path / bundle.exits[segment].graph
    if {i.name for i in inputs} != wanted_inputs or {o.name for o in outputs} != wanted_outputs:
        raise BackendError(
            f"{file} must take {sorted(wanted_inputs)} and give {sorted(wanted_outputs)}"
        )
    shape = bundle.manifest.input.shape if segment == 0 else bundle.exits[segment - 1].features
    if tuple(inputs[0].shape[1:]) != shape or isinstance(inputs[0].shape[0], int):
        raise BackendError(
            f"{file} takes {inputs[0].shape}; the manifest says {list(shape or ())} after a "
            "free batch"
        )
    types = {i.name: _NUMPY_TYPES.get(i.type) for i in (*inputs, *outputs)}
    wanted_types = dict.fromkeys(wanted_outputs | wanted_inputs, "float32")
    if segment == 0:
        wanted_types["images"] = bundle.manifest.input.dtype
    if types != wanted_types:
        raise BackendError(f"{file} has the types {types}; the manifest says {wanted_types}")
    shapes = {"logits": (bundle.manifest.classes,), "confidence": ()}
    shapes["features_out"] = bundle.exits[segment].features or ()
    for output in outputs:
        if not _fits(output.shape[1:], shapes[output.name]):
            raise BackendError(
                f"{file} gives {output.name} {output.shape}; the manifest says "
                f"{list(shapes[output.name])} after the batch"
            )


def _fits(found: Sequence[int | str | None], wanted: tuple[int, ...]) -> bool:
    """Whether the sizes that a graph states are those wanted; one that it leaves open fits."""
    return len(found) == len(wanted) and all(
        size == right for size, right in zip(found, wanted, strict=True) if isinstance(size, int)
    )
