"""A network as a chain of exported stages: their logits, their files, and the check of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from delen.bundle.checks import PRECISIONS, RUNTIMES
from delen.bundle.confidence import MAX_PROBABILITY, PATIENCE, confidences
from delen.core.variant import Size
from delen.errors import BundleError, InvalidInput
from multiexit_models.calibrate.temperature import softmax
from multiexit_models.export import graphs, programs
from multiexit_models.export.chain import (
    Segment,
    all_rows,
    batches,
    every_second_row,
    onnx_segment,
    open_segment,
    torch_segment,
    walk,
)
from multiexit_models.export.precision import convert
from multiexit_models.export.stage import stages
from multiexit_models.network import MultiExitNetwork

TOLERANCES: Mapping[str, float] = {"fp32": 1e-4, "fp16": 0.2}
"""Largest difference of a logit to the network's, as a share of the exit's largest where that is
above 1. For fp16 it only catches wrong graphs. int8 has none: the accuracies are measured on the
converted chain, and show what rounding costs."""

CONFIDENCE_TOLERANCE = 1e-4
_SIZES = (1, 3)
"""Batches that ``check_chain`` runs beside the largest."""

OnProgress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


class Inaccurate(BundleError):
    """An exit of an exported chain has logits that are not finite, or differ from the network's."""


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class OnnxStages:
    """A chain of stages as ONNX graphs, without confidences."""

    models: tuple[onnx.ModelProto, ...]

    @property
    def opset(self) -> int:
        return int(max(used.version for used in self.models[0].opset_import if not used.domain))

    def segments(self) -> list[Segment]:
        return [onnx_segment(model.SerializeToString()) for model in self.models]

    def finish(
        self, criterion: str, temperatures: Sequence[float], on_segment: OnProgress | None
    ) -> dict[str, bytes]:
        finished = graphs.with_confidence(self.models, criterion, temperatures)
        return {
            f"segment{index}.onnx": model.SerializeToString(deterministic=True)
            for index, model in enumerate(finished)
        }


@dataclass(frozen=True, eq=False)
class ProgramStages:
    """A chain of stages as torch's exported programs, without confidences."""

    stages: tuple[ExportedProgram, ...]
    max_batch: int
    free: tuple[Mapping[int, tuple[int, int]], ...]
    opset = None

    def segments(self) -> list[Segment]:
        return [torch_segment(stage.module()) for stage in self.stages]

    def finish(
        self, criterion: str, temperatures: Sequence[float], on_segment: OnProgress | None
    ) -> dict[str, bytes]:
        files = {}
        rows = zip(self.stages, temperatures, self.free, strict=True)
        counted = _counted(rows, len(self.stages), on_segment)
        for index, (stage, temperature, free) in enumerate(counted):
            name = f"segment{index}.pt2"
            finished = programs.with_confidence(
                stage, criterion, temperature, name, self.max_batch, free
            )
            files[name] = programs.program_bytes(finished)
        return files


@dataclass(frozen=True, eq=False)
class Exported:
    """A chain of exported stages whose temperatures and criterion are not chosen yet.

    ``features`` are the shapes, without the batch, of the features of all stages but the last, and
    ``smaller`` those at each smaller input size that the stages accept.
    """

    name: str
    runtime: str
    precision: str
    max_batch: int
    features: tuple[tuple[int, ...], ...]
    stages: OnnxStages | ProgramStages
    smaller: tuple[tuple[tuple[int, ...], ...], ...] = ()


def export_network(
    network: MultiExitNetwork,
    sample: NDArray[Any],
    *,
    sizes: Sequence[Size] = (),
    name: str,
    max_batch: int,
    runtime: str = "onnx",
    precision: str = "fp32",
    calibration_inputs: NDArray[Any] | None = None,
    on_segment: OnProgress | None = None,
    on_sample: OnProgress | None = None,
) -> Exported:
    """One graph a segment: ONNX, or with the runtime ``torch`` an exported program.

    ``sample`` is one input, ``[1, ...]``; only its shape and dtype matter. Where there are smaller
    ``sizes``, height and width are free in the graphs. int8 gets its ranges
    from ``calibration_inputs`` ``[n, ...]``; ``on_sample`` counts them, segment by segment. The
    graph of segment k is named ``<name>-segment<k>``. Raises InvalidInput for a runtime or
    precision that does not exist or a network that is not a chain, BundleError where torch cannot
    export it.
    """
    inputs = sample[:0] if calibration_inputs is None else calibration_inputs
    _check_choices(runtime, precision, len(inputs))
    examples = list(stages(network, torch.from_numpy(sample), sizes))
    features = tuple(example.features for example in examples if example.features is not None)
    names = [f"{name}-segment{index}" for index in range(len(examples))]
    exported: OnnxStages | ProgramStages
    pairs = zip(examples, names, strict=True)
    if runtime == "torch":
        traced = (programs.stage_program(example, graph, max_batch) for example, graph in pairs)
        free = tuple(example.free for example in examples)
        exported = ProgramStages(tuple(_counted(traced, len(names), on_segment)), max_batch, free)
    else:
        made = (graphs.stage_graph(example, graph, max_batch) for example, graph in pairs)
        models = list(_counted(made, len(names), on_segment))
        fixed = dict(examples[0].stage.named_buffers())
        if precision != "fp32":
            models = list(convert(models, precision, fixed, inputs, on_sample))
        exported = OnnxStages(tuple(models))
    smaller = tuple(zip(*(example.smaller for example in examples[:-1]), strict=True))
    return Exported(name, runtime, precision, max_batch, features, exported, smaller)


def _counted(items: Iterable[T], total: int, on_item: OnProgress | None) -> Iterator[T]:
    for done, item in enumerate(items, 1):
        yield item
        if on_item is not None:
            on_item(done, total)


def _check_choices(runtime: str, precision: str, inputs: int) -> None:
    if runtime not in RUNTIMES:
        raise InvalidInput(
            f"the runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}", "runtime"
        )
    if precision not in PRECISIONS:
        raise InvalidInput(
            f"the precision must be one of {', '.join(PRECISIONS)}, not {precision!r}", "precision"
        )
    if runtime == "torch" and precision != "fp32":
        raise InvalidInput(f"the runtime torch needs fp32, not {precision}", "precision")
    if precision == "int8" and not inputs:
        raise InvalidInput("int8 needs inputs to measure its ranges on", "calibration_inputs")


def chain_logits(
    exported: Exported,
    inputs: NDArray[Any],
    batch_size: int = 64,
    on_sample: OnProgress | None = None,
) -> NDArray[np.float32]:
    """Logits ``[exits, n, classes]`` of the exported chain for ``inputs`` ``[n, ...]``.

    Temperatures, criterion and table come from these. Raises Inaccurate naming the exit where one
    is not finite, as where float16 overflows.
    """
    segments = exported.stages.segments()
    parts, done = [], 0
    for batch in batches(inputs, [min(batch_size, exported.max_batch)]):
        parts.append(np.stack([outputs[0] for _, outputs in walk(segments, batch, all_rows)]))
        done += len(batch)
        if on_sample is not None:
            on_sample(done, len(inputs))
    logits = np.concatenate(parts, axis=1)
    for index, of_exit in enumerate(logits):
        if not np.isfinite(of_exit).all():
            raise Inaccurate(
                f"exit {index} of {exported.name} in {exported.precision} has logits that are not "
                "finite numbers"
            )
    return logits


def finish(
    exported: Exported,
    criterion: str,
    temperatures: Sequence[float],
    on_segment: OnProgress | None = None,
) -> dict[str, bytes]:
    """The files of the chain, first to last, with confidences by ``criterion``.

    They are named ``segment<k>.onnx`` or ``segment<k>.pt2``. Raises InvalidInput for an unknown
    criterion, ValueError where ``temperatures`` are not one a segment.
    """
    if len(temperatures) != len(exported.features) + 1:
        raise ValueError(
            f"{len(temperatures)} temperatures for {len(exported.features) + 1} segments"
        )
    return exported.stages.finish(criterion, temperatures, on_segment)


def check_chain(
    expected: NDArray[np.floating[Any]],
    files: Mapping[str, bytes],
    exported: Exported,
    criterion: str,
    temperatures: Sequence[float],
    inputs: NDArray[Any],
    on_sample: OnProgress | None = None,
) -> list[float]:
    """The largest difference of a logit to those ``expected``, per exit.

    ``expected`` ``[exits, n, classes]`` are the network's own logits for ``inputs`` ``[n, ...]``.
    Runs batches of 1, 3 and ``max_batch``, once with all rows going on and once with every second,
    the last first. Raises BundleError naming the exit when a logit differs by more than
    its precision allows, or a confidence is not the criterion's of the chain's own logits.
    """
    segments = [open_segment(raw, exported.runtime) for raw in files.values()]
    sizes = sorted({*(min(size, exported.max_batch) for size in _SIZES), exported.max_batch})
    differences = np.zeros(len(expected))
    done = 0
    for go_on in (all_rows, every_second_row):
        start = 0
        for batch in batches(inputs, sizes):
            of_batch = expected[:, start : start + len(batch)]
            for index, (arrived, outputs) in enumerate(walk(segments, batch, go_on)):
                _check_confidence(index, outputs, criterion, temperatures[index])
                difference = np.abs(outputs[0] - of_batch[index, arrived]).max()
                differences[index] = max(differences[index], difference)
            start += len(batch)
            done += len(batch)
            if on_sample is not None:
                on_sample(done, 2 * len(inputs))
    allowed = TOLERANCES.get(exported.precision, np.inf)
    for index, (difference, wanted) in enumerate(zip(differences, expected, strict=True)):
        most = allowed * max(1.0, float(np.abs(wanted).max()))
        if not difference <= most:
            raise Inaccurate(
                f"exit {index} of the exported chain differs from the network by "
                f"{difference:.2g}, more than {most:.2g}"
            )
    return [float(difference) for difference in differences]


def _check_confidence(
    index: int, outputs: Sequence[NDArray[np.float32]], criterion: str, temperature: float
) -> None:
    probabilities = softmax(outputs[0] / np.float32(temperature))
    computed = MAX_PROBABILITY if criterion == PATIENCE else criterion
    expected = confidences(computed, probabilities[None])[0]
    difference = np.abs(outputs[1] - expected).max()
    if not difference <= CONFIDENCE_TOLERANCE:
        raise BundleError(
            f"the confidence of exit {index} is not the {criterion} of its logits at the "
            f"temperature {temperature:g}: it differs by {difference:.2g}"
        )
