"""Cutting a classifier's graph into segments, at tensors that every path to its output passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import onnx
from onnx import TensorProto, helper, utils

from delen.errors import InvalidInput
from multiexit_models.attach.placement import nearest_in_order
from multiexit_models.export.graphs import (
    BATCH,
    FEATURES,
    FEATURES_OUT,
    INPUT,
    LOGITS,
    ROWS,
    STORED,
    check_axes,
)
from multiexit_models.imports.classifier import PREFIX, Classifier
from multiexit_models.imports.macs import node_macs
from multiexit_models.imports.normal_form import BATCH_SIZE, Value, observe

_CHOSEN = "features.chosen"
_BATCH_SIZE = PREFIX + BATCH_SIZE
_ON_CHANNELS = ("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "LRN")
_ON_LAST = ("MatMul", "Gemm", "LayerNormalization")


@dataclass(frozen=True)
class Place:
    """A tensor of the graph, what a sample costs up to it, and the shape of its features.

    ``channels_last`` says where the channels of image features are.
    """

    name: str
    macs: int
    shape: tuple[int, ...]
    channels_last: bool

    @property
    def name_in_file(self) -> str:
        return self.name.removeprefix(PREFIX)


def choose_places(classifier: Classifier, exits: int) -> tuple[tuple[Place, ...], int]:
    """Places for all but the last of ``exits`` exits by equal shares of the cost; the whole cost.

    Raises InvalidInput where the graph can be cut at fewer places.
    """
    model = classifier.model
    seen = observe(model, np.zeros((1, *classifier.shape), np.uint8))
    costs = list(accumulate(node_macs(model, seen)))
    whole = max(costs[-1], 1)
    places = _places(classifier, seen, costs)
    if exits - 1 > len(places):
        raise InvalidInput(
            f"the graph can be cut at {len(places)} places of different cost, which gives at most "
            f"{len(places) + 1} exits, not {exits}",
            "exits",
        )
    shares = np.array([place.macs / whole for place in places])
    wanted = np.arange(1, exits)[:, None] / exits
    chosen = nearest_in_order(np.abs(shares - wanted)) if exits > 1 else ()
    return tuple(places[index] for index in chosen), whole


def _places(classifier: Classifier, seen: Mapping[str, Value], costs: Sequence[int]) -> list[Place]:
    """Where the graph can be cut: of places of the same cost the last, which is after its norms
    and activations."""
    model = classifier.model
    in_file = {name for node in classifier.reference.model.graph.node for name in node.output}
    from_codes = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    channels_last = _channels_last(model, seen)
    by_cost = {}
    for index, name in _bottlenecks(model):
        shape, dtype = seen[name]
        place = Place(name, costs[index], shape[1:], channels_last.get(name, False))
        is_features = dtype == np.float32 and 2 <= len(shape) <= 4 and shape[0] == 1
        if is_features and place.name_in_file in in_file and name not in from_codes:
            by_cost[costs[index]] = place
    return [place for cost, place in by_cost.items() if 0 < cost < costs[-1]]


def _bottlenecks(model: onnx.ModelProto) -> list[tuple[int, str]]:
    """The tensors that alone are still needed after a node, with the node's place.

    What depends on the batch's size alone is computed anew in each segment that needs it.
    """
    nodes = model.graph.node
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    of_input, needed = {INPUT}, {INPUT}
    found: list[tuple[int, str]] = []
    for index, node in enumerate(nodes):
        if of_input.isdisjoint(node.input) or node.output[0] == _BATCH_SIZE:
            continue
        of_input.update(node.output)
        needed.update(node.output)
        needed = {name for name in needed if last_use.get(name, -1) > index}
        if len(needed) == 1:
            found.extend((index, name) for name in needed)
    return found


def _channels_last(model: onnx.ModelProto, seen: Mapping[str, Value]) -> dict[str, bool]:
    """Whether channels are the last axis of the image features, by the layers that wrote them."""
    found: dict[str, bool] = {}
    for node in model.graph.node:
        if node.op_type in _ON_CHANNELS + _ON_LAST:
            is_last = node.op_type in _ON_LAST
        elif node.op_type == "Transpose":
            perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), [])
            before = 3 if found.get(node.input[0], False) else 1
            is_last = len(perm) == 4 and perm.index(before) == 3
        else:
            is_last = any(found.get(name, False) for name in node.input)
        found.update(dict.fromkeys(node.output, is_last))
    return {name: is_last for name, is_last in found.items() if len(seen[name].shape) == 4}


def cut(classifier: Classifier, places: Sequence[Place], name: str) -> list[onnx.ModelProto]:
    """The segments of the graph ``name`` between ``places``, without heads.

    They take ``input``, or ``features`` and ``rows``; all but the last give ``features_out``, the
    last ``logits``.
    """
    model = onnx.ModelProto()
    model.CopyFrom(classifier.model)
    model.graph.value_info.extend(
        helper.make_tensor_value_info(place.name, TensorProto.FLOAT, [BATCH, *place.shape])
        for place in places
    )
    sizing = [node for node in model.graph.node if node.output[0] == _BATCH_SIZE]
    sources = [INPUT, *(place.name for place in places)]
    targets = [*(place.name for place in places), LOGITS]
    segments = []
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        for node in sizing:
            node.input[0] = source
        segment = utils.Extractor(model).extract_model([source], [target])
        del segment.graph.value_info[:]
        segment.graph.name = f"{name}-segment{index}"
        if target != LOGITS:
            _rename(segment.graph, target, FEATURES_OUT)
        if source != INPUT:
            _gather(segment.graph, source, places[index - 1].shape)
        check_axes(segment)
        segments.append(segment)
    return segments


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in graph.output:
        if value.name == old:
            value.name = new


def _gather(graph: onnx.GraphProto, source: str, shape: tuple[int, ...]) -> None:
    """Let ``graph`` take the ``rows`` of stored ``features`` in place of ``source``."""
    _rename(graph, source, _CHOSEN)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [STORED, *shape]))
    graph.input.append(helper.make_tensor_value_info(ROWS, TensorProto.INT64, [BATCH]))
    graph.node.insert(0, helper.make_node("Gather", [FEATURES, ROWS], [_CHOSEN], _CHOSEN, axis=0))
