"""From what people have in hand to the torch classifier inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from delen.core.kind import kind_of
from delen.errors import InvalidInput
from multiexit_models.attach.trace import mode


def unwrap(module: object) -> nn.Module:
    """The module within ``torch.compile`` and data-parallel wrappers.

    Raises InvalidInput, naming what to give instead, for TorchScript, exported programs and all
    else that is not a module of torch.
    """
    while True:
        if isinstance(module, nn.parallel.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            break
    if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise InvalidInput(
            "the network is TorchScript, which cannot be cut: give the Python module that "
            "torch.jit.script or torch.jit.trace was called with",
            "module",
        )
    if isinstance(module, torch.export.ExportedProgram) or _is_exported(module):
        raise InvalidInput(
            "the network is an exported program, which cannot be cut: give the Python module that "
            "torch.export was called with",
            "module",
        )
    if not isinstance(module, nn.Module):
        raise InvalidInput(f"the network is {kind_of(module)}, not a torch module", "module")
    return module


def logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """The logits that ``module`` returns in evaluation, by themselves or as ``.logits``.

    Raises InvalidInput when it returns something else, as detectors and segmenters do.
    """
    with torch.no_grad(), mode(module, False):
        given = module(inputs)
    found = getattr(given, "logits", given)
    if isinstance(given, Mapping) and "logits" in given:
        found = given["logits"]
    if not isinstance(found, Tensor):
        raise InvalidInput(
            f"delen serves classifiers, which return one tensor of logits [batch, classes]; "
            f"{type(module).__name__} returns {_described(given)}",
            "module",
        )
    return found


def logits_node(output: Any) -> fx.Node | None:
    """The node of the logits in what a traced module returns; None where there is none."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, fx.Node) and isinstance(output.target, type):
        output = output.kwargs.get("logits", output)
    return output if isinstance(output, fx.Node) else None


def _is_exported(module: object) -> bool:
    """Whether ``module`` is a graph of aten operators, as ``ExportedProgram.module()`` gives."""
    return isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def _described(given: object) -> str:
    if isinstance(given, Mapping):
        return f"{kind_of(given)} of {', '.join(map(str, given)) or 'nothing'}"
    if isinstance(given, tuple | list):
        return f"{kind_of(given)} of {len(given)}"
    return kind_of(given)
