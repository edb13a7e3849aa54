"""Symbolic traces of a module's forward that still follow ``train()`` and ``eval()``.

torch.fx runs the Python of ``forward`` once, with stand-ins for tensors, and so records one value
of ``self.training``. Here a module is traced in both modes. A flag that differs
(``F.dropout(x, training=self.training)``) follows the mode again; a submodule whose steps differ,
or that fx cannot trace, stays whole, as one step.
"""

from __future__ import annotations

import inspect
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import fx, nn

from delen.errors import InvalidInput

_OTHER_IN_TRAINING = "its forward has other steps in training than in evaluation"


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced module. ``module`` shares the parameters and leaves of the one traced.

    ``outputs``: by dotted path, the nodes that a submodule returned, one for each call.
    ``owners``: the dotted path of the submodule whose forward made a node ("" is the module).
    ``whole``: by dotted path, why a submodule was not traced into.
    """

    module: fx.GraphModule
    outputs: Mapping[str, tuple[fx.Node, ...]]
    owners: Mapping[fx.Node, str]
    whole: Mapping[str, str]


class FollowMode(nn.Module):
    """Calls ``function`` with this module's mode for the flags that say whether it trains."""

    def __init__(
        self, function: Callable[..., Any], positions: frozenset[int], keywords: frozenset[str]
    ) -> None:
        super().__init__()
        self.function = function
        self.positions = positions
        self.keywords = keywords

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        live = [self.training if at in self.positions else arg for at, arg in enumerate(args)]
        named = {key: self.training if key in self.keywords else kwargs[key] for key in kwargs}
        return self.function(*live, **named)


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """All of ``module`` in one mode within the context; afterwards each part as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


@contextmanager
def in_evaluation(parts: Sequence[nn.Module]) -> Iterator[None]:
    """All ``parts`` in evaluation without gradients; afterwards in the modes they were in."""
    with torch.no_grad(), mode(nn.ModuleList(parts), False):
        yield


def trace(module: nn.Module) -> Trace:
    """Trace ``module``, whose forward accepts one tensor; arguments with defaults keep them.

    ``module`` itself stays as it is. Raises InvalidInput, naming the cause, when its own forward
    cannot be traced by torch.fx or has other steps in training than in evaluation.
    """
    defaults = _defaults(module)
    whole: dict[str, str] = {}
    while True:
        with mode(module, False):
            evaluating = _run(module, defaults, whole)
        with mode(module, True):
            training = _run(module, defaults, whole)
        if evaluating is None or training is None:
            continue
        differing = _differing_modules(evaluating, training)
        if not differing:
            return _joined(module, evaluating, training, whole)
        if "" in differing:
            raise InvalidInput(
                f"{type(module).__name__} cannot be cut: {_OTHER_IN_TRAINING}; make it without "
                "auxiliary outputs (aux_logits=False in torchvision), or move those steps into a "
                "submodule of their own",
                "module",
            )
        whole.update(dict.fromkeys(differing, _OTHER_IN_TRAINING))


class _Tracer(fx.Tracer):
    """Notes which submodule made and returned each node, and where tracing failed."""

    proxy_buffer_attributes = True  # else buffers would be changed for real, as counters are

    def __init__(self, whole: Mapping[str, str]) -> None:
        super().__init__()
        self.whole = whole
        self.stack = [""]
        self.outputs: defaultdict[str, list[fx.Node]] = defaultdict(list)
        self.owners: dict[fx.Node, str] = {}
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or super().is_leaf_module(
            m, module_qualified_name
        )

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.owners[node] = self.stack[-1]
        return node

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        path = self.path_of_module(m)
        leaf = self.is_leaf_module(m, path)
        if not leaf:
            self.stack.append(path)
        try:
            output = super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None and not leaf:
                self.failed = path
            raise
        if not leaf:
            self.stack.pop()
        if isinstance(output, fx.Proxy):
            self.outputs[path].append(output.node)
        return output


def _run(
    module: nn.Module, defaults: Mapping[str, Any], whole: dict[str, str]
) -> tuple[fx.Graph, _Tracer] | None:
    """The graph; or None when a submodule cannot be traced, which is then added to ``whole``."""
    tracer = _Tracer(whole)
    try:
        return tracer.trace(module, dict(defaults)), tracer
    except Exception as error:  # forward is foreign code that runs with stand-ins
        cause = _cause(error)
        if tracer.failed is None or tracer.failed in whole:
            raise InvalidInput(
                f"{type(module).__name__} cannot be cut: torch.fx cannot trace its forward: "
                f"{cause}; move this code into a submodule of its own, which then stays whole",
                "module",
            ) from error
        whole[tracer.failed] = f"torch.fx cannot trace it: {cause}"
        return None


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The default values of all but the first argument of ``module.forward``."""
    named = [
        parameter
        for parameter in inspect.signature(type(module).forward).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ][2:]
    needed = [parameter.name for parameter in named if parameter.default is parameter.empty]
    if needed:
        raise InvalidInput(
            f"forward of {type(module).__name__} needs more than one input "
            f"({', '.join(needed)}); a network has one input tensor",
            "module",
        )
    return {parameter.name: parameter.default for parameter in named}


def _cause(error: Exception) -> str:
    """What went wrong, and the line of forward that did it."""
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    lines = [
        frame.line
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.line and "/torch/" not in frame.filename and frame.filename != __file__
    ]
    return f"{message} (at `{lines[-1]}`)" if lines else message


def _plain(argument: Any, order: Mapping[fx.Node, int]) -> str:
    """An argument as text; two graphs' arguments of the same meaning have the same text."""
    return repr(fx.node.map_arg(argument, lambda node: f"%{order[node]}"))


def _step(node: fx.Node) -> tuple[str, str]:
    target = node.target if isinstance(node.target, str) else repr(node.target)
    return node.op, target


def _differing_modules(
    evaluating: tuple[fx.Graph, _Tracer], training: tuple[fx.Graph, _Tracer]
) -> set[str]:
    """The deepest submodules whose steps differ between the modes."""
    steps: list[defaultdict[str, list[tuple[str, str]]]] = []
    for graph, tracer in (evaluating, training):
        steps.append(defaultdict(list))
        for node in graph.nodes:
            steps[-1][tracer.owners[node]].append(_step(node))
    differing = {path for path in {*steps[0], *steps[1]} if steps[0][path] != steps[1][path]}
    if differing:
        return {
            path
            for path in differing
            if not any(_inside(other, path) for other in differing if other != path)
        }
    orders = [
        {node: at for at, node in enumerate(graph.nodes)} for graph, _ in (evaluating, training)
    ]
    for ours, theirs in zip_longest(evaluating[0].nodes, training[0].nodes):
        flags = _flags(ours, theirs)
        if (
            flags is None
            or _step(ours) != _step(theirs)
            or any(
                _plain(_without(one, flags), orders[0]) != _plain(_without(other, flags), orders[1])
                for one, other in ((ours.args, theirs.args), (ours.kwargs, theirs.kwargs))
            )
        ):
            return {evaluating[1].owners[ours]}
    return set()


def _inside(path: str, container: str) -> bool:
    return not container or path.startswith(f"{container}.")


def _flags(ours: fx.Node, theirs: fx.Node) -> frozenset[int | str] | None:
    """Which arguments are False in evaluation and True in training; None for other arguments."""
    if ours.op != "call_function":
        return frozenset()
    if len(ours.args) != len(theirs.args) or ours.kwargs.keys() != theirs.kwargs.keys():
        return None
    pairs: dict[int | str, tuple[Any, Any]] = {
        **dict(enumerate(zip(ours.args, theirs.args, strict=True))),
        **{key: (ours.kwargs[key], theirs.kwargs[key]) for key in ours.kwargs},
    }
    return frozenset(key for key, (one, other) in pairs.items() if one is False and other is True)


def _without(arguments: Any, flags: frozenset[int | str]) -> Any:
    if isinstance(arguments, Mapping):
        return {key: value for key, value in arguments.items() if key not in flags}
    return tuple(value for at, value in enumerate(arguments) if at not in flags)


def _joined(
    module: nn.Module,
    evaluating: tuple[fx.Graph, _Tracer],
    training: tuple[fx.Graph, _Tracer],
    whole: Mapping[str, str],
) -> Trace:
    """The graph of evaluation, whose flags that training changes follow the mode."""
    graph, tracer = evaluating
    pairs = list(zip(graph.nodes, training[0].nodes, strict=True))
    traced = fx.GraphModule(module, graph, type(module).__name__)
    for node, other in pairs:
        flags = _flags(node, other)
        if not flags or not callable(node.target):
            continue
        switch = FollowMode(
            node.target,
            frozenset(flag for flag in flags if isinstance(flag, int)),
            frozenset(flag for flag in flags if isinstance(flag, str)),
        )
        node.target, node.op = f"follow_mode_{node.name}", "call_module"
        traced.add_submodule(node.target, switch.train(module.training))
    traced.recompile()
    outputs = {path: tuple(nodes) for path, nodes in tracer.outputs.items()}
    return Trace(traced, outputs, dict(tracer.owners), dict(whole))
