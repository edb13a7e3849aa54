"""An ONNX graph in the form of a bundle's: its opset, and a batch of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from delen.errors import InvalidInput
from multiexit_models.export.chain import open_session
from multiexit_models.export.graphs import OPSET, first_line

BATCH_SIZE = "batch.size"
"""The tensor of the batch's size, int64 ``[1]``, in a graph of ``free_batch``."""


class Value(NamedTuple):
    """The shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def modern_opset(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    """``model`` in the opset of a bundle's own nodes or a later one, constants as initializers.

    Raises InvalidInput where it cannot be converted.
    """
    opset = max((used.version for used in model.opset_import if not used.domain), default=OPSET)
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:
            raise InvalidInput(
                f"{file} has opset {opset}, which cannot be converted to {OPSET}: "
                f"{first_line(error)}; export it again with opset {OPSET} or later",
                "model",
            ) from error
    return _constants_lifted(model)


def _constants_lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    lifted = onnx.ModelProto()
    lifted.CopyFrom(model)
    graph = lifted.graph
    nodes = []
    for node in graph.node:
        value = _constant(node)
        if value is None:
            nodes.append(node)
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(nodes)
    return lifted


def _constant(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a node that is a constant of numbers."""
    if node.op_type != "Constant" or node.domain:
        return None
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
        return tensor
    dtypes: dict[str, type[Any]] = {"value_int": np.int64, "value_ints": np.int64}
    dtypes |= {"value_float": np.float32, "value_floats": np.float32}
    if attribute.name not in dtypes:
        return None
    return numpy_helper.from_array(np.array(value, dtypes[attribute.name]))


def observe(model: onnx.ModelProto, example: NDArray[Any]) -> dict[str, Value]:
    """What every tensor of ``model`` is when its one input is ``example``, by their names.

    Computed, since shape inference does not know all operators.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(watched.SerializeToString(), optimise=False)
    source = model.graph.input[0].name
    found = {source: Value(example.shape, example.dtype)}
    for name, array in zip(names, session.run(names, {source: example}), strict=True):
        if isinstance(array, np.ndarray):
            found[name] = Value(array.shape, array.dtype)
    return found


def free_batch(
    model: onnx.ModelProto, example: NDArray[Any], double: NDArray[Any] | None
) -> onnx.ModelProto:
    """``model`` whose shapes are constant but for the batch, which alone is read from the input.

    Exporters write the batch into the shape of a reshape, or compute shapes from the input, which
    ties all of the graph together. ``example`` is an input. ``double`` is one of twice its batch
    where the graph computes that: then an axis that doubles is the batch's. Else it is the first of
    each reshape, and whether the result is right is for the caller to check.
    """
    seen = observe(model, example)
    doubled = None if double is None else observe(model, double)
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    source = graph.input[0].name
    nodes = [helper.make_node("Shape", [source], [BATCH_SIZE], BATCH_SIZE, start=0, end=1)]
    of_input = {source}
    for node in graph.node:
        nodes.append(node)
        if of_input.isdisjoint(node.input):
            continue
        of_input.update(node.output)
        if node.op_type == "Reshape":
            shape = seen[node.output[0]].shape
            free = [0] if doubled is None else _differing(shape, doubled[node.output[0]].shape)
            if len(free) == 1:
                target = [-1 if axis in free else size for axis, size in enumerate(shape)]
                node.input[1] = _constant_of(graph, f"{node.output[0]}.shape", target)
        elif node.op_type == "Shape" and doubled is not None:
            shape, other = (values[node.input[0]].shape for values in (seen, doubled))
            if set(_differing(shape, other)) <= {0} and shape[0] == len(example):
                nodes[-1] = _shape_of_batch(graph, node, shape)
    del graph.node[:]
    graph.node.extend(nodes)
    return freed


def _differing(shape: tuple[int, ...], other: tuple[int, ...]) -> list[int]:
    return [axis for axis, pair in enumerate(zip(shape, other, strict=True)) if pair[0] != pair[1]]


def _constant_of(graph: onnx.GraphProto, name: str, values: Sequence[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _shape_of_batch(
    graph: onnx.GraphProto, node: onnx.NodeProto, shape: tuple[int, ...]
) -> onnx.NodeProto:
    """What gives the same as ``node``, a Shape, from the batch's size alone."""
    limits = {item.name: item.i for item in node.attribute}
    kept = range(len(shape))[limits.get("start", 0) : limits.get("end", len(shape))]
    sizes = [shape[axis] for axis in kept if axis]
    parts = [BATCH_SIZE] if 0 in kept else []
    if sizes or not parts:
        parts.append(_constant_of(graph, f"{node.output[0]}.sizes", sizes))
    return helper.make_node("Concat", parts, node.output, node.name, axis=0)
