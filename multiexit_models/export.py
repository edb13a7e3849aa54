"""Segments to ONNX graphs, and the proof that their chain computes what the network computes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from delen.errors import BundleError
from multiexit_models.network import MultiExitNetwork, set_memory_format
from multiexit_models.train import predict

OPSET = 18
BATCH = "batch"
TOLERANCE = 1e-4
"""Largest difference allowed between a logit of the chain and torch's."""


class GlobalMean(nn.Module):
    """``AdaptiveAvgPool2d(1)`` that exports as one mean.

    torch's own exports an index computation that only restores strides.
    """

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


class ExportedSegment(nn.Module):
    """What one graph computes: ``(logits, confidence[, features_out])`` of a segment's input."""

    def __init__(
        self, segment: nn.Module, head: nn.Module, temperature: float, is_last: bool
    ) -> None:
        super().__init__()
        self.segment = segment
        self.head = head
        self.temperature = temperature
        self.is_last = is_last

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        features = self.segment(inputs)
        logits = self.head(features)
        confidence = torch.softmax(logits / self.temperature, dim=1).amax(dim=1)
        return (logits, confidence) if self.is_last else (logits, confidence, features)


def export_segments(
    network: MultiExitNetwork,
    sample: Tensor,
    temperatures: Sequence[float],
    name: str,
    max_batch: int,
) -> tuple[list[bytes], list[tuple[int, ...]]]:
    """One serialised ONNX graph a segment, and the shape of the features after each but the last.

    ``sample`` is one input, ``[1, ...]``. Inputs are named ``images`` (the first segment's) or
    ``features``; outputs ``logits`` float32 ``[batch, classes]``, ``confidence`` float32
    ``[batch]`` and, but for the last segment, ``features_out``. The graph of segment k is named
    ``<name>-segment<k>``. Raises BundleError where a graph is not as serving needs it.
    """
    exportable = copy.deepcopy(network).eval()
    set_memory_format(exportable, torch.contiguous_format)
    _replace_global_pools(exportable)
    last = len(network.segments) - 1
    graphs, shapes = [], []
    inputs = sample.repeat(2, *[1] * (sample.ndim - 1))
    stages = zip(exportable.segments, exportable.heads, temperatures, strict=True)
    for index, (segment, head, temperature) in enumerate(stages):
        module = ExportedSegment(segment, head, temperature, index == last).eval()
        input_name = "features" if index else "images"
        graph = _export(module, inputs, input_name, max_batch)
        graph.graph.name = f"{name}-segment{index}"
        _strip(graph)
        _check_graph(graph)
        graphs.append(graph.SerializeToString(deterministic=True))
        if index < last:
            with torch.no_grad():
                inputs = segment(inputs).contiguous()
            shapes.append(tuple(inputs.shape[1:]))
    return graphs, shapes


def _replace_global_pools(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
            setattr(module, name, GlobalMean())
        else:
            _replace_global_pools(child)


def _export(
    module: ExportedSegment, inputs: Tensor, input_name: str, max_batch: int
) -> onnx.ModelProto:
    output_names = ["logits", "confidence"] + ([] if module.is_last else ["features_out"])
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (inputs,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=({0: torch.export.Dim(BATCH, min=1, max=max(2, max_batch))},),
            verbose=False,
        )
    if program is None:
        raise BundleError("torch.onnx.export returned no program")
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on torchvision and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _strip(message: Any) -> None:
    """Clear a protobuf's documentation and metadata, where the exporter writes local paths."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                _strip(child)


def _check_graph(model: onnx.ModelProto) -> None:
    """The batch is dynamic by name in all inputs and outputs, and no normalisation is left."""
    onnx.checker.check_model(model)
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        if batch.dim_param != BATCH:
            raise BundleError(
                f"{graph.name}: the first axis of {value.name!r} is "
                f"{batch.dim_param or batch.dim_value!r}, not {BATCH!r}; the network fixes its "
                "batch size somewhere, for example with int(x.shape[0])"
            )
    if any(node.op_type == "BatchNormalization" for node in graph.node):
        raise BundleError(f"{graph.name}: a BatchNormalization was not folded into a convolution")


def run_chain(
    graphs: Sequence[bytes], inputs: NDArray[Any], batch_sizes: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits ``[exits, n, classes]`` and confidences ``[exits, n]`` of the graphs in a chain.

    Runs on ONNX Runtime's CPU provider, in batches of ``batch_sizes`` in turn, the last of them
    again and again until ``inputs`` ``[n, ...]`` is used up.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    sessions = [
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for graph in graphs
    ]
    logits, confidences = [], []
    for start, end in pairwise(_batch_edges(len(inputs), batch_sizes)):
        features = inputs[start:end]
        of_batch = []
        for session in sessions:
            outputs = session.run(None, {session.get_inputs()[0].name: features})
            of_batch.append(outputs[:2])
            features = outputs[-1]
        logits.append(np.stack([exit_logits for exit_logits, _ in of_batch]))
        confidences.append(np.stack([confidence for _, confidence in of_batch]))
    return np.concatenate(logits, axis=1), np.concatenate(confidences, axis=1)


def _batch_edges(count: int, sizes: Sequence[int]) -> list[int]:
    edges = [0]
    while edges[-1] < count:
        size = sizes[min(len(edges) - 1, len(sizes) - 1)]
        edges.append(min(count, edges[-1] + size))
    return edges


def check_chain(
    network: MultiExitNetwork,
    graphs: Sequence[bytes],
    temperatures: Sequence[float],
    inputs: NDArray[Any],
    max_batch: int,
) -> list[float]:
    """The largest difference of a logit to torch's, per exit, over ``inputs`` ``[n, ...]``.

    Runs batches of 1, 3 and ``max_batch``. Raises BundleError naming the exit when a logit or a
    confidence differs by more than ``TOLERANCE``.
    """
    sizes = sorted({1, min(3, max_batch), max_batch})
    logits, confidences = run_chain(graphs, inputs, sizes)
    expected = predict(network, torch.from_numpy(inputs))
    divisors = torch.tensor(temperatures)[:, None, None]
    expected_confidences = torch.softmax(expected / divisors, dim=2).amax(dim=2).numpy()
    differences = np.abs(logits - expected.numpy()).max(axis=(1, 2))
    of_confidences = np.abs(confidences - expected_confidences).max(axis=1)
    for index, worst in enumerate(np.maximum(differences, of_confidences)):
        if not worst <= TOLERANCE:
            raise BundleError(
                f"exit {index} of the exported chain differs from torch by {worst:.2g}, more "
                f"than {TOLERANCE}"
            )
    return [float(difference) for difference in differences]
