"""Stages as exported programs of torch, for networks that do not export to ONNX."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram

from delen.errors import BundleError
from multiexit_models.export.graphs import dynamic_axes
from multiexit_models.export.stage import Confidence, ConfidentStage, StageExample


def stage_program(example: StageExample, name: str, max_batch: int) -> ExportedProgram:
    """The program of a stage, without its confidence.

    Raises BundleError where torch cannot export the stage ``name`` with a free batch.
    """
    return _export(example.stage, example.arguments, name, max_batch, example.free)


def with_confidence(
    program: ExportedProgram,
    criterion: str,
    temperature: float,
    name: str,
    max_batch: int,
    free: Mapping[int, tuple[int, int]],
) -> ExportedProgram:
    """``program`` of a stage with the confidence as its second output.

    The temperature is its buffer ``confidence.temperature``.
    """
    stage = program.module()
    module = ConfidentStage(stage, Confidence(criterion, temperature))
    return _export(module, program.example_inputs[0], name, max_batch, free)


def program_bytes(program: ExportedProgram) -> bytes:
    """The program as ``torch.export.save`` writes it, without paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
                node.meta.pop("nn_module_stack", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def load_program(raw: bytes) -> torch.nn.Module:
    """The module of a program that ``program_bytes`` wrote."""
    return torch.export.load(io.BytesIO(raw)).module()


def _export(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    name: str,
    max_batch: int,
    free: Mapping[int, tuple[int, int]],
) -> ExportedProgram:
    axes = dynamic_axes(len(arguments), max_batch, free)
    names = ("inputs", "rows")[: len(arguments)]
    shapes = dict(zip(names, axes, strict=True))
    try:
        with torch.no_grad():
            return torch.export.export(module, arguments, dynamic_shapes=shapes)
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        what = "a free batch and free sizes" if free else "a free batch"
        raise BundleError(f"torch cannot export {name} with {what}: {reason}") from error
