"""Multiply-adds of the nodes of an ONNX graph, from the shapes that its tensors have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx

from multiexit_models.imports.normal_form import Value

Shapes = Mapping[str, tuple[int, ...]]


def node_macs(model: onnx.ModelProto, seen: Mapping[str, Value]) -> list[int]:
    """Multiply-adds of each node: of convolutions and matrix products, as torch counts them.

    ``seen`` has the tensors of one sample, as ``normal_form.observe`` finds them.
    """
    shapes = {name: value.shape for name, value in seen.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        _COUNTS[node.op_type](node, shapes) if node.op_type in _COUNTS else 0
        for node in model.graph.node
    ]


def _convolution(weight: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    """Each output is a sum over a filter: over the channels of its group and the kernel."""

    def count(node: onnx.NodeProto, shapes: Shapes) -> int:
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[weight]][1:])

    return count


def _transposed(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each input is spread over a filter."""
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each output is a sum over the last axis of the left factor."""
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    turned = any(item.name == "transA" and item.i for item in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]


_COUNTS: Mapping[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
}
