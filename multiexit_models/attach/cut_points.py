"""Where a module's forward can be cut into a chain.

A place is after a step of the traced forward where one tensor alone is still needed: float32, with
the batch as its first axis. Numbers that the forward read from tensors' shapes may be needed too:
they are the same for every batch, or its size, which the features have as well.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from delen.errors import InvalidInput
from multiexit_models.attach.observe import UNKNOWN, Observed, observe
from multiexit_models.attach.trace import Trace, trace
from multiexit_models.attach.unwrap import logits, logits_node, unwrap

log = logging.getLogger("delen.models")


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A place after which a module can be cut.

    ``name``: the dotted path of the submodule whose output is needed there, the outermost where
    several return it; else the name of the step (``add_1``). ``macs_share``: multiply-adds up to
    there as a share of the whole. ``shape``: of the features, without the batch.
    """

    name: str
    macs_share: float
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A cut point in the graph: after ``position``, only the tensor ``node`` and the numbers
    ``numbers`` are needed."""

    point: CutPoint
    node: fx.Node
    position: int
    numbers: tuple[fx.Node, ...]


@dataclass(frozen=True, slots=True)
class Cuttable:
    """What is known of a module that was traced and run. See `read`.

    ``module``: without wrappers. ``steps``: the nodes that the logits need, in order. ``places``,
    in order. ``named``: every name that means one of them.
    """

    module: nn.Module
    trace: Trace
    observed: Observed
    steps: tuple[fx.Node, ...]
    places: tuple[Place, ...]
    named: Mapping[str, Place]


def cut_points(module: nn.Module, sample: Tensor) -> tuple[CutPoint, ...]:
    """All places after which ``module`` can be cut, in the order of its forward.

    ``sample``: one input ``[1, ...]`` as ``module`` accepts it. Raises InvalidInput as `read`.
    """
    return tuple(place.point for place in read(module, sample).places)


def read(module: nn.Module, sample: Tensor) -> Cuttable:
    """Trace ``module``, run it on batches of ``sample`` ``[1, ...]``, and find its places.

    Raises InvalidInput, naming the cause, when the module cannot be traced, does not return logits,
    cannot run a batch of any size, or changes a tensor in place that it does not return.
    """
    if sample.ndim < 2 or sample.shape[0] != 1:
        raise InvalidInput(
            f"sample must be one input [1, ...] as the module accepts it, not {list(sample.shape)}",
            "sample",
        )
    module = unwrap(module)
    try:
        logits(module, sample)
    except InvalidInput:
        raise
    except Exception:  # the module's own code; what it cannot run is named below
        log.debug("the module does not run the sample", exc_info=True)
    traced = trace(module)
    output = logits_node(
        next(node for node in traced.module.graph.nodes if node.op == "output").args[0]
    )
    if output is None:
        raise InvalidInput(f"{type(module).__name__} must return one tensor of logits", "module")
    steps = needed(output)
    observed = observe(traced.module, sample)
    _refuse_hidden_writes(traced, observed, steps)
    places = _places(traced, observed, steps)
    return Cuttable(module, traced, observed, steps, places, _names(traced, places))


def find(cuttable: Cuttable, name: str) -> Place:
    """The place called ``name``. Raises InvalidInput that names the layer or skip in the way."""
    if name in cuttable.named:
        return cuttable.named[name]
    returned = [node for node in cuttable.trace.outputs.get(name, ()) if node in cuttable.steps]
    whole = [path for path in cuttable.trace.whole if name.startswith(f"{path}.")]
    if sum(place.node in returned for place in cuttable.places) > 1:
        problem = (
            f"{name} is used at several places: name the block around the one you mean, or its "
            f"step ({', '.join(p.point.name for p in cuttable.places if p.node in returned)})"
        )
    elif returned:
        problem = _obstacle(cuttable, name, returned[-1])
    elif whole:
        problem = (
            f"an exit after {name} is impossible: it is inside {whole[0]}, which is kept whole: "
            f"{cuttable.trace.whole[whole[0]]}"
        )
    else:
        near = difflib.get_close_matches(name, cuttable.named, n=3, cutoff=0)
        problem = f"the module has no place {name!r}"
        problem += f"; similar names: {', '.join(near)}" if near else " and no other place"
    raise InvalidInput(problem, "at")


def needed(end: fx.Node, known: Collection[fx.Node] = ()) -> tuple[fx.Node, ...]:
    """The steps that compute ``end``, in order; what ``known`` ones need is left out."""
    found: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node not in known:
                waiting.extend(node.all_input_nodes)
    return tuple(node for node in end.graph.nodes if node in found)


def _refuse_hidden_writes(trace: Trace, observed: Observed, steps: Collection[fx.Node]) -> None:
    for node, written in observed.written.items():
        if written and node not in steps:
            raise InvalidInput(
                f"the module cannot be cut: `{_target(node)}` in "
                f"{trace.owners[node] or 'its forward'} changes a tensor in place and its result "
                "is not used; make a new tensor instead",
                "module",
            )


def _live(steps: Sequence[fx.Node]) -> list[tuple[fx.Node, ...]]:
    """After each step: what was computed from the input and is needed later."""
    order = {node: at for at, node in enumerate(steps)}
    last_use = {
        node: max((order[user] for user in node.users if user in order), default=len(steps))
        for node in steps
    }
    from_input: set[fx.Node] = set()
    live: list[fx.Node] = []
    after = []
    for at, node in enumerate(steps):
        if node.op == "placeholder" or not from_input.isdisjoint(node.all_input_nodes):
            from_input.add(node)
            live.append(node)
        live = [one for one in live if last_use[one] > at]
        after.append(tuple(live))
    return after


def _places(trace: Trace, observed: Observed, steps: Sequence[fx.Node]) -> tuple[Place, ...]:
    total = sum(observed.macs[node] for node in steps) or 1
    done = 0
    places: dict[fx.Node, Place] = {}
    for position, (step, live) in enumerate(zip(steps[:-1], _live(steps)[:-1], strict=True)):
        done += observed.macs[step]
        tensors = [node for node in live if observed.is_tensor(node)]
        numbers = tuple(node for node in live if not observed.is_tensor(node))
        if (
            len(tensors) == 1
            and tensors[0].op != "placeholder"
            and tensors[0] not in places
            and observed.is_features(tensors[0])
            and all(observed.anew(node, None) is not UNKNOWN for node in numbers)
        ):
            node = tensors[0]
            shape = observed.values[node][0].shape[1:]
            point = CutPoint(_name(trace, node), done / total, shape)
            places[node] = Place(point, node, position, numbers)
    return tuple(places.values())


def _name(trace: Trace, node: fx.Node) -> str:
    """The outermost submodule that returned ``node`` and was called but once; else the step's."""
    paths = [path for path, nodes in trace.outputs.items() if nodes == (node,)]
    return min(paths, key=lambda path: path.count("."), default=_step_name(trace, node))


def _step_name(trace: Trace, node: fx.Node) -> str:
    """torch.fx's name of the step; ``layer_0``, ``layer_1`` for a layer called several times."""
    return f"{node.name}_0" if node.name in trace.outputs else node.name


def _names(trace: Trace, places: Sequence[Place]) -> dict[str, Place]:
    of_node = {place.node: place for place in places}
    named = {place.point.name: place for place in places}
    for path, nodes in trace.outputs.items():
        meant = [node for node in nodes if node in of_node]
        if len(meant) == 1:
            named.setdefault(path, of_node[meant[0]])
    for node, place in of_node.items():
        named.setdefault(_step_name(trace, node), place)
    return named


def _obstacle(cuttable: Cuttable, name: str, node: fx.Node) -> str:
    """Why there is no place after ``node``, which ``name`` returned."""
    if node is cuttable.steps[-1]:
        return f"{name} is the module's own end, which always has an exit"
    steps, observed = cuttable.steps, cuttable.observed
    position = steps.index(node)
    crossing = [
        other for other in _live(steps)[position] if other is not node and observed.is_tensor(other)
    ]
    if crossing:
        end = [step for step in steps if crossing[0] in step.all_input_nodes][-1]
        reason = (
            f"a skip path crosses it, from {_where(cuttable, crossing[0])} to "
            f"{_where(cuttable, end)}"
        )
    elif not observed.is_features(node):
        reason = (
            f"it returns {observed.described(node)}, and segments pass on one float32 tensor "
            "[batch, ...]"
        )
    else:
        reason = "sizes that change with the batch are needed after it"
    before = [place.point.name for place in cuttable.places if place.position < position]
    after = [place.point.name for place in cuttable.places if place.position > position]
    near = " and ".join(before[-1:] + after[:1])
    nearest = f"; the nearest places that can be cut are after {near}" if near else ""
    return f"an exit after {name} is impossible: {reason}{nearest}"


def _target(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _where(cuttable: Cuttable, node: fx.Node) -> str:
    """A step in words: the submodule that it calls, or the one in whose forward it is."""
    if node.op == "placeholder":
        return "the input"
    if node.op == "call_module":
        return str(node.target)
    return f"`{_target(node)}` in {cuttable.trace.owners[node] or 'the forward of the module'}"
