"""Cutting a module into a chain of modules that share its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from delen.errors import InvalidInput
from multiexit_models.attach.cut_points import Cuttable, Place, needed
from multiexit_models.attach.observe import Seen
from multiexit_models.attach.trace import in_evaluation
from multiexit_models.attach.unwrap import logits

_TOLERANCE = 1e-5


def split(cuttable: Cuttable, places: Sequence[Place], sample: Tensor) -> list[fx.GraphModule]:
    """Cut at ``places``, in order: one module more than places, each fed by the one before.

    They share the parameters of the module that ``cuttable`` was read from. Raises InvalidInput
    when, in evaluation, the chain computes other logits for ``sample`` than that module.
    """
    starts = [None, *places]
    ends = [*(place.node for place in places), cuttable.steps[-1]]
    parts = [_part(cuttable, start, end) for start, end in zip(starts, ends, strict=True)]
    expected = logits(cuttable.module, sample)
    with in_evaluation(parts):
        given = sample
        for part in parts:
            given = part(given)
    # The shape first, since allclose would broadcast.
    if given.shape != expected.shape or not torch.allclose(given, expected, 0, _TOLERANCE):
        raise InvalidInput(
            f"{type(cuttable.module).__name__} cannot be cut: the chain of its parts computes "
            "other outputs than the whole; its forward is random in evaluation, or hooks change "
            "its outputs",
            "module",
        )
    return parts


def _part(cuttable: Cuttable, start: Place | None, end: fx.Node) -> fx.GraphModule:
    """The module that computes ``end`` from the features at ``start``; None: from the input."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.node.Argument] = {}
    size = None
    if start is not None:
        features = graph.placeholder("features")
        if _writes_into(cuttable, start, end):
            # The head before has the same tensor, and keeps it for its gradients.
            features = graph.call_method("clone", (features,))
        size = graph.call_method("size", (features, 0))
        copies[start.node] = features
        for node in start.numbers:
            copies[node] = cuttable.observed.anew(node, size)
    for node in needed(end, copies):
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(copies[end])
    if size is not None and not size.users:
        graph.erase_node(size)
    whole = cuttable.trace.module
    return fx.GraphModule(whole, graph, type(whole).__name__)


def _writes_into(cuttable: Cuttable, start: Place, end: fx.Node) -> bool:
    """Whether a step between ``start`` and ``end`` changes the features at ``start`` in place."""
    features = cuttable.observed.values[start.node][0]
    return isinstance(features, Seen) and any(
        features.storage in cuttable.observed.written[step]
        for step in cuttable.steps[start.position + 1 : cuttable.steps.index(end) + 1]
    )
