"""An ONNX graph in the form of a bundle's: its opset, and a batch of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from delen.errors import InvalidInput
from multiexit_models.export.chain import open_session
from multiexit_models.export.graphs import OPSET, first_line


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
    """``model`` whose reshapes have constant shapes that leave one axis to the batch.

    Exporters write the batch into the shape of a reshape, or compute that shape from the input,
    which ties it to the whole graph. ``example`` is an input. ``double`` is one of twice its batch
    where the graph computes that: then the axis is the one that doubles. Else it is the first, and
    whether the result is right is for the caller to check.
    """
    seen = observe(model, example)
    doubled = None if double is None else observe(model, double)
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    of_input = {graph.input[0].name}
    for node in graph.node:
        if not of_input.intersection(node.input):
            continue
        of_input.update(node.output)
        if node.op_type != "Reshape":
            continue
        shape = seen[node.output[0]].shape
        free = [0] if doubled is None else _differing(shape, doubled[node.output[0]].shape)
        if len(free) == 1:
            name = f"{node.output[0]}.shape"
            target = np.array(shape, np.int64)
            target[free] = -1
            graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name
    return freed


def _differing(shape: tuple[int, ...], other: tuple[int, ...]) -> list[int]:
    return [axis for axis, pair in enumerate(zip(shape, other, strict=True)) if pair[0] != pair[1]]
