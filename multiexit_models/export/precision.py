"""ONNX graphs in fewer bits: float16, or int8 calibrated on real inputs.

The nodes before the first learnt convolution or matrix product of segment 0 (scaling of pixels,
spectra of audio) stay as they are: they are cheap, and their numbers may span more than 8 or 16
bits hold. In int8 so does the layer that makes the logits: confidences need more than 256 steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from multiexit_models.export.chain import open_session
from multiexit_models.export.graphs import (
    FEATURES,
    FEATURES_OUT,
    INPUT,
    LOGITS,
    ROWS,
    check_axes,
    errors_only,
    strip,
)

PRODUCTS = ("Conv", "Gemm", "MatMul")
_BATCH = 32

Feeds = dict[str, NDArray[Any]]


def convert(
    models: Sequence[onnx.ModelProto],
    precision: str,
    fixed: Collection[str],
    inputs: NDArray[Any],
    on_sample: Callable[[int, int], None] | None = None,
) -> Iterator[onnx.ModelProto]:
    """A chain's float32 ``models`` in ``precision``, fp16 or int8, one after the other.

    ``fixed`` names the initializers of the first that are not learnt weights. int8 gets its ranges
    from ``inputs`` ``[n, ...]``, a few hundred: each graph is calibrated on its float32 inputs,
    and ``on_sample(done, total)`` counts them over all graphs.
    """
    if precision == "fp16":
        yield from (to_fp16(model, fixed) for model in models)
        return
    feeds = [{INPUT: inputs[start : start + _BATCH]} for start in range(0, len(inputs), _BATCH)]
    total = len(models) * len(inputs)
    for index, model in enumerate(models):

        def count(done: int, before: int = index * len(inputs)) -> None:
            if on_sample is not None:
                on_sample(before + done, total)

        yield to_int8(model, feeds, fixed, count)
        feeds = _next_feeds(model, feeds)


def to_fp16(model: onnx.ModelProto, fixed: Collection[str]) -> onnx.ModelProto:
    """``model`` with float16 weights and arithmetic, and inputs and outputs as they were."""
    kept = _preprocessing(model, fixed)
    typed = onnx.shape_inference.infer_shapes(model)
    _forget_types_within(typed.graph, kept)
    halved: onnx.ModelProto = convert_float_to_float16(
        typed, keep_io_types=True, disable_shape_infer=True, node_block_list=sorted(kept)
    )
    _drop_repeated_casts(halved.graph)
    OnnxModel.graph_topological_sort(halved.graph)
    check_axes(halved)
    return halved


def _forget_types_within(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Drop the types of values that only ``kept`` nodes make and use.

    The converter rounds every value whose type it knows to float16 and back, even between two
    nodes that stay float32.
    """
    outside = {
        value
        for node in graph.node
        if node.name not in kept
        for value in (*node.input, *node.output)
    }
    typed = [value for value in graph.value_info if value.name in outside]
    del graph.value_info[:]
    graph.value_info.extend(typed)


def _drop_repeated_casts(graph: onnx.GraphProto) -> None:
    """The converter casts a value again, to the same name, for each node that uses it."""
    seen: set[str] = set()
    nodes = []
    for node in graph.node:
        if node.op_type != "Cast" or node.output[0] not in seen:
            nodes.append(node)
        seen.update(node.output)
    del graph.node[:]
    graph.node.extend(nodes)


def to_int8(
    model: onnx.ModelProto,
    batches: Sequence[Feeds],
    fixed: Collection[str],
    on_sample: Callable[[int], None],
) -> onnx.ModelProto:
    """``model`` with int8 convolutions and products with weights, one scale a channel.

    Activations have the ranges of ``batches``, the graph's inputs by name (Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, section 3). Weights use 7 bits: processors without VNNI add products
    of 8 bits in 16 and overflow, and a calibration must hold on every processor.
    """
    with tempfile.TemporaryDirectory() as folder, errors_only():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Reader(batches, on_sample),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_exclude=sorted(_preprocessing(model, fixed) | _last_layer(model)),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        small = onnx.load(quantised)
    small.graph.name = model.graph.name
    strip(small)
    check_axes(small)
    return small


def _next_feeds(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[Feeds]:
    if model.graph.output[-1].name != FEATURES_OUT:
        return []
    session = open_session(model.SerializeToString())
    outputs = [session.run([FEATURES_OUT], batch)[0] for batch in feeds]
    return [{FEATURES: features, ROWS: np.arange(len(features))} for features in outputs]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The batches, one after the other, for the quantiser."""

    def __init__(self, batches: Sequence[Feeds], on_sample: Callable[[int], None]) -> None:
        self._batches = iter(batches)
        self._on_sample = on_sample
        self._done = 0

    def get_next(self) -> Feeds | None:
        self._on_sample(self._done)  # those given before are measured
        batch = next(self._batches, None)
        self._done += 0 if batch is None else len(next(iter(batch.values())))
        return batch


def _preprocessing(model: onnx.ModelProto, fixed: Collection[str]) -> set[str]:
    """The nodes between segment 0's input and its first product with learnt weights."""
    weights = {tensor.name for tensor in model.graph.initializer} - set(fixed)
    raw, names = {INPUT}, set()
    for node in model.graph.node:
        is_learnt = node.op_type in PRODUCTS and node.input[1] in weights
        if not is_learnt and raw.intersection(node.input):
            raw.update(node.output)
            names.add(node.name)
    return names


def _last_layer(model: onnx.ModelProto) -> set[str]:
    """The nodes from the last products before ``logits`` to it."""
    producers = {output: node for node in model.graph.node for output in node.output}
    names: set[str] = set()
    pending = [LOGITS]
    while pending:
        node = producers.get(pending.pop())
        if node is None or node.name in names:
            continue
        names.add(node.name)
        if node.op_type not in PRODUCTS:
            pending.extend(node.input)
    return names
