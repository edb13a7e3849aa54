"""From results to the tensors and parameters of the protocol's answer, on any transport."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.oip.query import CLASSES, Output
from delen.bundle.manifest import Manifest
from delen.core.result import EnergyKind, Result
from delen.core.variant import format_size
from delen.engine.job import Job
from delen.wire.oip import Parameter

_FLOATS, _TEXTS = "FP32", "BYTES"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the answer; ``values`` are those of ``shape`` in their order."""

    output: Output
    shape: tuple[int, ...]
    values: NDArray[np.float32] | list[bytes]

    @property
    def datatype(self) -> str:
        return _TEXTS if isinstance(self.values, list) else _FLOATS

    def to_bytes(self) -> bytes:
        if isinstance(self.values, list):
            return b"".join(struct.pack("<I", len(text)) + text for text in self.values)
        return self.values.astype("<f4", copy=False).tobytes()

    def write(self) -> dict[str, Parameter]:
        """Write it to the place that is meant for it, and say how far."""
        assert self.output.place is not None
        contents = self.to_bytes()
        self.output.place.write(contents)
        place: dict[str, Parameter] = {
            "shared_memory_region": self.output.place.region.name,
            "shared_memory_byte_size": len(contents),
        }
        if self.output.place.offset:
            place["shared_memory_offset"] = self.output.place.offset
        return place

    def to_list(self) -> list[float] | list[str]:
        if isinstance(self.values, list):
            return [text.decode() for text in self.values]
        floats: list[float] = self.values.ravel().tolist()
        return floats


def write_tensors(jobs: Sequence[Job], outputs: Sequence[Output]) -> list[Tensor]:
    """The ``outputs`` of ``jobs``, which are done. Softmax of the logits gives the probabilities
    that ``/v1`` gives: they are divided by the temperature of the exit that each sample took."""
    manifest = jobs[0].model.bundle.manifest
    rows = [_scaled(job, manifest) for job in jobs]
    return [_write_tensor(output, np.stack(rows), manifest) for output in outputs]


def _scaled(job: Job, manifest: Manifest) -> NDArray[np.float32]:
    assert job.logits is not None
    scaled: NDArray[np.float32] = job.logits / np.float32(manifest.exits[job.exit].temperature)
    return scaled


def _write_tensor(output: Output, logits: NDArray[np.float32], manifest: Manifest) -> Tensor:
    if not output.classes:
        return Tensor(output, logits.shape, logits)
    values, labels = logits, manifest.labels
    if output.name == CLASSES:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        values = powers / powers.sum(axis=1, keepdims=True)
    best = np.argsort(-values, axis=1, kind="stable")[:, : output.classes]
    texts = [
        f"{values[row, index]:f}:{index}{f':{labels[index]}' if labels else ''}".encode()
        for row, indices in enumerate(best)
        for index in indices.tolist()
    ]
    return Tensor(output, best.shape, texts)


def receipt_parameters(results: Sequence[Result]) -> dict[str, Parameter]:
    """The receipt as parameters; what is not known is left out.

    Of several samples these are the deepest exit and its reason, the longest times, the sum of the
    joules and the mean of the accuracies. ``request_id`` has those of all, so that each receipt can
    be asked for.
    """
    receipts = [result.receipt for result in results]
    deepest = max(results, key=lambda result: result.exit)
    energies = [receipt.energy.value for receipt in receipts]
    accuracies = [receipt.accuracy.expected for receipt in receipts]
    kinds: set[EnergyKind] = {receipt.energy.kind for receipt in receipts}
    parameters: dict[str, Parameter | None] = {
        "request_id": ",".join(result.request_id for result in results),
        "exit": deepest.exit,
        "exits": deepest.exits,
        "reason": deepest.reason,
        "bounds_met": all(receipt.met for receipt in receipts),
        "latency_ms": max(receipt.latency.value for receipt in receipts) * 1e3,
        "queue_ms": max(receipt.latency.queue for receipt in receipts) * 1e3,
        "receiving_ms": _sum([receipts[0].receiving], 1e3),
        "energy_mj": _sum(energies, 1e3),
        "energy_kind": _joined(kinds),
        "energy_source": receipts[0].energy.source,
        "accuracy": _sum(accuracies, 1 / len(accuracies)),
        "size": None if deepest.size is None else format_size(deepest.size),
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _joined(kinds: set[EnergyKind]) -> EnergyKind:
    """How the sum of energies of these ``kinds`` is known."""
    return "unknown" if "unknown" in kinds else "estimated" if len(kinds) > 1 else kinds.pop()


def _sum(values: Sequence[float | None], scale: float) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) * scale if len(known) == len(values) else None
