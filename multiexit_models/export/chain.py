"""Exported graphs run one after the other, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from multiexit_models.export.programs import load_program

Outputs: TypeAlias = list[NDArray[np.float32]]
Segment: TypeAlias = Callable[..., Outputs]
"""``(input)`` or ``(features, rows)`` to ``[logits, ..., features_out]``, in numpy."""

Rows: TypeAlias = NDArray[np.int64]

CRASHING_OPTIMIZERS = ["FuseFp16InitializerToFp32NodeTransformer"]
"""With it, ONNX Runtime 1.31 crashes while it opens some float16 graphs on the CPU."""


def open_session(graph: bytes, optimise: bool = True) -> onnxruntime.InferenceSession:
    """A session on ONNX Runtime's CPU provider, with as many threads as torch has.

    It logs nothing: what fails is raised.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=CRASHING_OPTIMIZERS,
    )


def open_segment(graph: bytes, runtime: str) -> Segment:
    """A graph of a bundle, ready to run on the CPU."""
    return torch_segment(load_program(graph)) if runtime == "torch" else onnx_segment(graph)


def onnx_segment(graph: bytes) -> Segment:
    """An ONNX graph, ready to run."""
    session = open_session(graph)
    names = [value.name for value in session.get_inputs()]

    def run(*arguments: NDArray[Any]) -> Outputs:
        outputs: Outputs = session.run(None, dict(zip(names, arguments, strict=True)))
        return outputs

    return run


def torch_segment(module: torch.nn.Module) -> Segment:
    """A module of torch, ready to run."""

    def run(*arguments: NDArray[Any]) -> Outputs:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arguments))
        return [output.numpy() for output in outputs]

    return run


def walk(
    segments: Sequence[Segment], inputs: NDArray[Any], go_on: Callable[[int], Rows]
) -> Iterator[tuple[Rows, Outputs]]:
    """Per exit, the places in ``inputs`` of the samples there and their outputs, in that order.

    ``go_on`` chooses the rows that go on to the next segment, from the number of rows at an exit.
    """
    arrived = all_rows(len(inputs))
    arguments: tuple[NDArray[Any], ...] = (inputs,)
    for segment in segments:
        outputs = segment(*arguments)
        yield arrived, outputs
        rows = go_on(len(arrived))
        arrived = arrived[rows]
        arguments = (outputs[-1], rows)


def all_rows(count: int) -> Rows:
    return np.arange(count)


def every_second_row(count: int) -> Rows:
    """Every second row, the last first, so that rows change both number and place."""
    last_first: Rows = np.arange(count)[::-2].copy()
    return last_first


def batches(inputs: NDArray[Any], sizes: Sequence[int]) -> Iterator[NDArray[Any]]:
    """``inputs`` in batches of ``sizes`` in turn, the last of them again and again."""
    start = 0
    for size in chain(sizes, repeat(sizes[-1])):
        if start >= len(inputs):
            return
        yield np.ascontiguousarray(inputs[start : start + size])
        start += size
