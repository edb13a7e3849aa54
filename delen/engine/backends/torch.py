"""PyTorch, for networks that do not export to ONNX: a bundle's segments as exported programs."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import (
    Features,
    Placement,
    SegmentRun,
    blank_input,
    fits,
    scaled_down,
)
from delen.errors import BackendError, MissingExtra

try:
    import torch
    from torch import Tensor
    from torch.export.passes import move_to_device_pass
except ModuleNotFoundError as error:
    raise MissingExtra("torch", "torch") from error

_NAMES = {"auto": ("cuda", "cpu"), "cpu": ("cpu",), "cuda": ("cuda",), "tensorrt": ("cuda",)}
"""The devices that ``device.backend`` allows, best first."""


class _Row(NamedTuple):
    """One sample's features: row ``row`` of the ``block`` that its batch gave."""

    block: Tensor
    row: int


class TorchNetwork:
    """The segments of one bundle as programs on one device, where their features stay."""

    def __init__(self, bundle: Bundle, backend: TorchBackend) -> None:
        self._bundle = bundle
        self._backend = backend
        self._device = backend.device
        self._programs: list[Any] = [None] * len(bundle.exits)
        self.smaller = tuple(TorchNetwork(scaled, backend) for scaled in bundle.smaller)

    @property
    def placement(self) -> Placement:
        return Placement("torch", f"torch-{self._device.type}", self._backend.threads)

    def load(self, segment: int) -> None:
        programs: dict[str, tuple[Any, Any]] = {}
        for network in (self, *self.smaller):
            network._load(segment, programs)

    def _load(self, segment: int, programs: dict[str, tuple[Any, Any]]) -> None:
        """Load ``segment`` at this size, as the program of its graph in ``programs`` if it is
        there."""
        graph = self._bundle.exits[segment].graph
        if graph not in programs:
            programs[graph] = self._backend.program(self._bundle, segment)
        program, module = programs[graph]
        _check_interface(program, self._bundle, segment)
        self._programs[segment] = module

    def drop(self, segment: int) -> None:
        for network in (self, *self.smaller):
            network._programs[segment] = None

    def blank(self, segment: int) -> Features:
        if segment == 0:
            return blank_input(self._bundle)
        stored = self._bundle.exits[segment - 1].features or ()
        return self.take_in(np.zeros(stored, np.float32))

    def take_in(self, features: NDArray[np.float32]) -> Features:
        return _Row(torch.from_numpy(features.copy()[None]).to(self._device), 0)

    def take_out(self, features: _Row) -> NDArray[np.float32]:
        return np.array(features.block[features.row].cpu().numpy(), np.float32)

    def run(self, segment: int, samples: Sequence[Features], lane: int = 0) -> SegmentRun:
        """Run ``segment`` on arrays, or on the features that the segment before it gave.

        The program takes a whole block of features and the rows that go on. Only where the
        samples come from different batches are their rows first joined, on the device.
        """
        if self._programs[segment] is None:
            raise BackendError(f"segment {segment} of {self._bundle.name} is not loaded")
        if segment == 0:
            samples = scaled_down(self._bundle, samples)
        try:
            with torch.inference_mode():
                arguments = self._rows(samples) if segment else (self._stack(samples),)
                logits, confidence, *features = self._programs[segment](*arguments)
                return SegmentRun(
                    [_Row(block, row) for block in features for row in range(len(samples))],
                    logits.cpu().numpy(),
                    confidence.cpu().numpy(),
                )
        except Exception as error:
            raise BackendError(
                f"segment {segment} failed on a batch of {len(samples)}: {error}"
            ) from error

    def free_lane(self, lane: int) -> None:
        """No lane keeps memory of its own."""

    def _stack(self, samples: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.stack(samples)).to(self._device)

    def _rows(self, samples: Sequence[_Row]) -> tuple[Tensor, Tensor]:
        block = samples[0].block
        rows = [row for owner, row in samples if owner is block]
        if len(rows) < len(samples):
            block = torch.cat([owner.narrow(0, row, 1) for owner, row in samples])
            rows = list(range(len(samples)))
        return block, torch.tensor(rows, device=self._device)


class TorchBackend:
    """Programs on the first device of ``name`` that there is; ``auto`` tries CUDA, then the CPU.

    ``name`` is one of ``device.backend``; tensorrt, which torch does without, means its GPU.
    """

    def __init__(self, name: str, threads: int) -> None:
        chosen = [d for d in _NAMES[name] if d == "cpu" or torch.cuda.is_available()]
        if not chosen:
            raise BackendError(
                f"backend {name!r} needs a GPU that torch can use, but the installed torch "
                f"{torch.__version__} finds none"
            )
        self.threads = threads
        self.device = torch.device(chosen[0])
        torch.set_num_threads(threads)

    def open(self, bundle: Bundle) -> TorchNetwork:
        return TorchNetwork(bundle, self)

    def load(self, bundle: Bundle) -> TorchNetwork:
        network = self.open(bundle)
        for segment in range(len(bundle.exits)):
            network.load(segment)
        return network

    def program(self, bundle: Bundle, segment: int) -> tuple[Any, Any]:
        """The exported program of one segment, and its module on the device."""
        file = bundle.path / bundle.exits[segment].graph
        try:
            program = torch.export.load(BytesIO(bundle.graph(segment)))
            if self.device.type != "cpu":
                program = move_to_device_pass(program, str(self.device))
            return program, program.module()
        except Exception as error:
            raise BackendError(f"{file} does not load: {error}") from error


def _check_interface(program: Any, bundle: Bundle, segment: int) -> None:
    """The program takes and gives what the manifest says, in this order, with a free batch."""
    manifest, file = bundle.manifest, bundle.path / bundle.exits[segment].graph
    wanted_inputs = [("input", manifest.input.dtype, manifest.input.shape)]
    if segment:
        stored = bundle.exits[segment - 1].features or ()
        wanted_inputs = [("features", "float32", stored), ("rows", "int64", ())]
    wanted_outputs = [("logits", "float32", (manifest.classes,)), ("confidence", "float32", ())]
    features = bundle.exits[segment].features
    if features is not None:
        wanted_outputs.append(("features_out", "float32", features))
    inputs, outputs = _values(program)
    for verb, found, wanted in (
        ("takes", inputs, wanted_inputs),
        ("gives", outputs, wanted_outputs),
    ):
        names = ", ".join(name for name, _, _ in wanted)
        if len(found) != len(wanted):
            raise BackendError(f"{file} {verb} {len(found)} tensors; they must be {names}")
        for value, (name, dtype, shape) in zip(found, wanted, strict=True):
            found_dtype, sizes = str(value.dtype).removeprefix("torch."), list(value.shape)
            if found_dtype != dtype:
                raise BackendError(f"{file} {verb} {name} as {found_dtype}; it must be {dtype}")
            if verb == "takes" and isinstance(sizes[0], int):
                raise BackendError(
                    f"{file} takes {name} {sizes}; its first size must be free, for any batch"
                )
            if not fits(sizes, shape):
                raise BackendError(
                    f"{file} {verb} {name} {sizes}; the manifest says {list(shape)} after the batch"
                )


def _values(program: Any) -> tuple[list[Any], list[Any]]:
    """The tensors, without contents, that ``program`` takes and gives, by position."""
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [values[name] for name in signature.user_inputs]
    outputs = [values[name] for name in signature.user_outputs]
    return inputs, outputs
