"""ONNX Runtime, on the CPU or an accelerator."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delen.bundle.checks import DTYPES
from delen.bundle.manifest import Bundle
from delen.engine.backends.base import (
    Features,
    Placement,
    SegmentRun,
    blank_input,
    fits,
    scaled_down,
)
from delen.engine.backends.jetson import gpu_runtime_remedy
from delen.errors import BackendError, ConfigError, MissingExtra

try:
    import onnxruntime as ort
except ModuleNotFoundError as error:
    raise MissingExtra("onnxruntime", "daemon", gpu_runtime_remedy()) from error

from delen.engine.backends.bound import HOST, BoundSegment, Feed, InputFeed, Row, RowFeed, lone_row

log = logging.getLogger("delen.engine")

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_NUMPY_TYPES = {f"tensor({name})": name for name in DTYPES} | {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
_CRASHING_OPTIMIZERS = ["FuseFp16InitializerToFp32NodeTransformer"]
"""With it, ONNX Runtime 1.31 crashes as it opens some float16 graphs on the CPU."""
_SOFTPLUS = (
    b'\x08\x07:7\n\x10\n\x01x\x12\x01y"\x08Softplus\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n'
    b"\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model of one Softplus node, on a float."""
_REMEDY = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
AUTO_ORDER = ("cuda", "cpu")
"""TensorRT builds its engines for minutes at the first load, so only if it is named."""


class _LoadedSegment(NamedTuple):
    """A session, with buffers of their own for each lane that has run it at one input size."""

    session: Any
    lanes: dict[int, BoundSegment]


class OnnxNetwork:
    """The segments of one bundle as ONNX Runtime sessions of ``backend``."""

    def __init__(self, bundle: Bundle, backend: OnnxBackend) -> None:
        self._bundle = bundle
        self._backend = backend
        self._segments: list[_LoadedSegment | None] = [None] * len(bundle.exits)
        self.smaller = tuple(OnnxNetwork(scaled, backend) for scaled in bundle.smaller)

    @property
    def placement(self) -> Placement:
        return Placement("onnxruntime", self._backend.provider, self._backend.threads)

    def load(self, segment: int) -> None:
        sessions: dict[str, Any] = {}
        for network in (self, *self.smaller):
            network._load(segment, sessions)

    def _load(self, segment: int, sessions: dict[str, Any]) -> None:
        """Load ``segment`` at this size, on the session of its graph in ``sessions`` if there is
        one."""
        graph = self._bundle.exits[segment].graph
        session = sessions.get(graph)
        if session is None:
            session = sessions[graph] = self._backend.session(self._bundle, segment)
        _check_interface(session, self._bundle, segment)
        self._segments[segment] = _LoadedSegment(session, {0: self._bind(session, segment)})

    def _bind(self, session: Any, segment: int) -> BoundSegment:
        manifest = self._bundle.manifest
        binding, capacity = session.io_binding(), manifest.max_batch
        feed: Feed = (
            RowFeed(binding, capacity, self._stored(segment))
            if segment
            else InputFeed(
                binding,
                capacity,
                manifest.input.shape,
                np.dtype(manifest.input.dtype),
                self._backend.memory,
            )
        )
        features = manifest.exits[segment].features
        return BoundSegment(
            session, binding, feed, capacity, manifest.classes, features, self._backend.memory
        )

    def drop(self, segment: int) -> None:
        for network in (self, *self.smaller):
            network._segments[segment] = None

    def blank(self, segment: int) -> Features:
        if segment == 0:
            return blank_input(self._bundle)
        return self.take_in(np.zeros(self._stored(segment), np.float32))

    def take_in(self, features: NDArray[np.float32]) -> Features:
        return lone_row(features, self._backend.memory)

    def take_out(self, features: Row) -> NDArray[np.float32]:
        block: NDArray[np.float32] = features.block.buffer.read()
        return np.array(block[features.row], np.float32)

    def _stored(self, segment: int) -> tuple[int, ...]:
        """The shape of the features that ``segment``, which is not the first, reads."""
        return self._bundle.exits[segment - 1].features or ()

    def run(self, segment: int, samples: Sequence[Features], lane: int = 0) -> SegmentRun:
        """Run ``segment`` on arrays, or on the features that the segment before it gave.

        Features are copied through the host only where the samples come from different batches;
        else they stay where they are, and the graph takes those of the samples that go on.
        """
        loaded = self._segments[segment]
        if loaded is None:
            raise BackendError(f"segment {segment} of {self._bundle.name} is not loaded")
        if segment == 0:
            samples = scaled_down(self._bundle, samples)
        try:
            bound = loaded.lanes.get(lane)
            if bound is None:
                bound = loaded.lanes[lane] = self._bind(loaded.session, segment)
            return bound.run(samples)
        except Exception as error:
            raise BackendError(
                f"segment {segment} failed on a batch of {len(samples)}: {error}"
            ) from error

    def free_lane(self, lane: int) -> None:
        for network in (self, *self.smaller):
            for loaded in network._segments:
                if loaded is not None:
                    loaded.lanes.pop(lane, None)


class OnnxBackend:
    """Sessions on the provider of ``name``; ``auto`` is CUDA where a session runs on it, else the
    CPU. Raises BackendError where the one that is named does not work."""

    def __init__(self, name: str, threads: int) -> None:
        if name != "auto" and name not in PROVIDERS:
            raise ConfigError(f"device.backend {name!r} is none of auto, {', '.join(PROVIDERS)}")
        available = ort.get_available_providers()
        wanted = AUTO_ORDER if name == "auto" else (name,)
        chosen = [short for short in wanted if PROVIDERS[short] in available]
        if not chosen:
            offered = ", ".join(short for short, full in PROVIDERS.items() if full in available)
            remedy = gpu_runtime_remedy() or _REMEDY
            raise BackendError(
                f"backend {name!r} needs the {PROVIDERS[name]} of onnxruntime, which the installed "
                f"one lacks (it has: {offered}); {remedy}"
            )
        self.name = name
        self.provider = chosen[0]
        self.threads = threads
        if problem := _problem_of(self.provider):
            if name != "auto":
                raise BackendError(f"backend {name!r} does not work: {problem}")
            log.warning("%s", problem)
            self.provider = "cpu"
        if name == "auto" and self.provider == "cpu" and (gpu := gpu_runtime_remedy()):
            log.warning(
                "models run on the processor, not on this Jetson's GPU: %s; or set device.backend "
                "to cpu",
                gpu,
            )
        _share_arena()

    @property
    def memory(self) -> str:
        """Where features are kept."""
        return HOST if self.provider == "cpu" else "cuda"

    def open(self, bundle: Bundle) -> OnnxNetwork:
        return OnnxNetwork(bundle, self)

    def load(self, bundle: Bundle) -> OnnxNetwork:
        network = self.open(bundle)
        for segment in range(len(bundle.exits)):
            network.load(segment)
        return network

    def session(self, bundle: Bundle, segment: int) -> Any:
        """A session of one graph. It is verified, and then read once more from its file: a session
        that is given the bytes keeps them beside the weights that it made of them."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        file = bundle.path / bundle.exits[segment].graph
        bundle.graph(segment)
        try:
            session = ort.InferenceSession(
                str(file),
                options,
                providers=[PROVIDERS[self.provider]],
                disabled_optimizers=_CRASHING_OPTIMIZERS,
            )
        except Exception as error:
            raise BackendError(f"{file} does not load: {error}") from error
        in_use = session.get_providers()[0]
        if in_use != PROVIDERS[self.provider]:
            raise BackendError(f"{file} runs on {in_use}; {PROVIDERS[self.provider]} is in use")
        return session


def _problem_of(provider: str) -> str | None:
    """Why nothing runs on ``provider``, which onnxruntime offers. A small graph tells: its kernel
    is missing where the GPU is not one of those that onnxruntime is built for."""
    if provider == "cpu":
        return None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(_SOFTPLUS, options, providers=[PROVIDERS[provider]])
    in_use = session.get_providers()[0]
    if in_use != PROVIDERS[provider]:
        return (
            f"onnxruntime offers {PROVIDERS[provider]}, but its sessions run on {in_use}: its "
            "libraries are missing or of another version"
        )
    try:
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:
        return f"onnxruntime runs nothing on {PROVIDERS[provider]}: {error}"
    return None


@cache
def _share_arena() -> None:
    """One arena for the CPU memory of all sessions, that grows by what is requested and no more.

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
    wanted_inputs, wanted_outputs = _interface(bundle, segment)
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    file = bundle.path / bundle.exits[segment].graph
    if inputs.keys() != wanted_inputs.keys() or outputs.keys() != wanted_outputs.keys():
        raise BackendError(
            f"{file} takes {sorted(inputs)} and gives {sorted(outputs)}; it must take "
            f"{sorted(wanted_inputs)} and give {sorted(wanted_outputs)}"
        )
    for name, (dtype, shape) in (wanted_inputs | wanted_outputs).items():
        verb, found = ("takes", inputs[name]) if name in inputs else ("gives", outputs[name])
        found_dtype = _NUMPY_TYPES.get(found.type, found.type)
        if found_dtype != dtype:
            raise BackendError(f"{file} {verb} {name} as {found_dtype}; it must be {dtype}")
        if name in inputs and found.shape and isinstance(found.shape[0], int):
            raise BackendError(
                f"{file} takes {name} {found.shape}; its first size must be free, for any batch"
            )
        if not fits(found.shape, shape):
            raise BackendError(
                f"{file} {verb} {name} {found.shape}; the manifest says {list(shape)} after the "
                "batch"
            )


_Interface: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The dtype of each input or output by name, and its shape after the batch."""


def _interface(bundle: Bundle, segment: int) -> tuple[_Interface, _Interface]:
    """What the graph of ``segment`` must take, and give."""
    manifest = bundle.manifest
    inputs: _Interface = {"input": (manifest.input.dtype, manifest.input.shape)}
    if segment > 0:
        stored = bundle.exits[segment - 1].features or ()
        inputs = {"features": ("float32", stored), "rows": ("int64", ())}
    outputs: _Interface = {
        "logits": ("float32", (manifest.classes,)),
        "confidence": ("float32", ()),
    }
    features = bundle.exits[segment].features
    if features is not None:
        outputs["features_out"] = ("float32", features)
    return inputs, outputs
