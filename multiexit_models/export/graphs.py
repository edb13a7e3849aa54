"""Stages as ONNX graphs, and the confidence joined to them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from delen.errors import BundleError
from multiexit_models.export.stage import EXAMPLE_BATCH, Confidence, StageExample

OPSET = 18
BATCH = "batch"
STORED = "stored"
SIDE = "side"
INPUT, FEATURES, ROWS = "input", "features", "rows"
LOGITS, CONFIDENCE, FEATURES_OUT = "logits", "confidence", "features_out"
_TAIL = "confidence."
_TRACED_TEMPERATURE = 1.2345678
"""Unlike any constant of a network, so that the exporter does not merge the two."""


def dynamic_axes(
    arguments: int, max_batch: int, free: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, Any], ...]:
    """The named free axes of a stage's one or two arguments, as torch.export names them: the batch,
    and those of ``free``, which has the least and largest length of each."""
    batch = torch.export.Dim(BATCH, min=1, max=max(EXAMPLE_BATCH, max_batch))
    sides = {
        axis: torch.export.Dim(f"{SIDE}{axis}", min=least, max=most)
        for axis, (least, most) in free.items()
    }
    if arguments == 1:
        return ({0: batch, **sides},)
    return ({0: torch.export.Dim(STORED, min=1), **sides}, {0: batch})


def stage_graph(example: StageExample, name: str, max_batch: int) -> onnx.ModelProto:
    """The graph ``name`` of a stage, without its confidence.

    Raises BundleError where torch cannot export the stage with a free batch, and free sizes where
    it has several.
    """
    names = [INPUT] if len(example.arguments) == 1 else [FEATURES, ROWS]
    outputs = [LOGITS] if example.features is None else [LOGITS, FEATURES_OUT]
    axes = dynamic_axes(len(names), max_batch, example.free)
    model = _export(example.stage, example.arguments, axes, names, outputs, name)
    check_axes(model)
    return model


def with_confidence(
    models: Sequence[onnx.ModelProto], criterion: str, temperatures: Sequence[float]
) -> list[onnx.ModelProto]:
    """``models`` of a chain's stages, each with the output ``confidence``, its second.

    The temperature of each is its scalar initializer ``confidence.temperature``.
    """
    classes = models[0].graph.output[0].type.tensor_type.shape.dim[1].dim_value
    tail = _confidence_graph(criterion, classes)
    return [
        _confident(model, tail, temperature)
        for model, temperature in zip(models, temperatures, strict=True)
    ]


def _confident(
    model: onnx.ModelProto, tail: onnx.GraphProto, temperature: float
) -> onnx.ModelProto:
    joined = onnx.ModelProto()
    joined.CopyFrom(model)
    append(joined.graph, tail)
    joined.graph.output.insert(1, tail.output[0])
    _set_temperature(joined.graph, temperature)
    check_axes(joined)
    return joined


def append(graph: onnx.GraphProto, tail: onnx.GraphProto) -> None:
    """Let ``graph`` compute ``tail``, a graph of ``tail_graph``, as well; its outputs stay."""
    graph.node.extend(tail.node)
    graph.initializer.extend(tail.initializer)
    graph.value_info.extend(tail.value_info)


def tail_graph(
    module: nn.Module, example: Tensor, source: str, target: str, prefix: str
) -> onnx.GraphProto:
    """The graph of ``module`` from the tensor ``source`` to ``target``, whose batch is free.

    All else in it is named ``prefix*``. ``example`` is an input of two samples.
    """
    axes = ({0: torch.export.Dim(BATCH, min=1)},)
    tail = _export(module.eval(), (example,), axes, [source], [target], target).graph

    def renamed(value: str) -> str:
        return value if value in ("", source, target) else prefix + value

    for node in tail.node:
        node.name = prefix + node.name
        node.input[:] = [renamed(value) for value in node.input]
        node.output[:] = [renamed(value) for value in node.output]
    for value in [*tail.initializer, *tail.value_info]:
        value.name = renamed(value.name)
    return tail


def _confidence_graph(criterion: str, classes: int) -> onnx.GraphProto:
    logits = torch.linspace(-1, 1, EXAMPLE_BATCH * classes).reshape(EXAMPLE_BATCH, classes)
    module = Confidence(criterion, _TRACED_TEMPERATURE)
    return tail_graph(module, logits, LOGITS, CONFIDENCE, _TAIL)


def _set_temperature(graph: onnx.GraphProto, temperature: float) -> None:
    found = [tensor for tensor in graph.initializer if tensor.name == f"{_TAIL}temperature"]
    if len(found) != 1:
        raise BundleError(f"{graph.name} has {len(found)} temperatures, not one")
    value = torch.tensor(temperature, dtype=torch.float32).numpy()
    found[0].CopyFrom(numpy_helper.from_array(value, found[0].name))


def _export(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    axes: Sequence[Mapping[int, Any]],
    input_names: list[str],
    output_names: list[str],
    name: str,
) -> onnx.ModelProto:
    with errors_only("torch.onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=tuple(axes),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            what = "a free batch" if len(axes[0]) == 1 else "a free batch and free sizes"
            raise BundleError(
                f"torch cannot export {name} to ONNX with {what}; --runtime torch may work: "
                f"{first_line(error)}"
            ) from error
    if program is None:
        raise BundleError(f"torch.onnx.export returned no program for {name}")
    model: onnx.ModelProto = program.model_proto
    model.graph.name = name
    strip(model)
    return model


def first_line(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = str(root).strip().splitlines()
    return f"{type(root).__name__}: {lines[0] if lines else ''}"


@contextmanager
def errors_only(name: str | None = None) -> Iterator[None]:
    """The logger ``name`` without the advice that torch and ONNX Runtime log while they export."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def strip(message: Any) -> None:
    """Clear a protobuf's documentation and metadata, which contain paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                strip(child)


def check_axes(model: onnx.ModelProto) -> None:
    """Raises BundleError unless first axes are free, by their names, and all others fixed, but for
    those that an input of several sizes leaves open."""
    graph = model.graph
    is_sized = any(
        axis.dim_param.startswith(SIDE)
        for value in graph.input
        for axis in value.type.tensor_type.shape.dim
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{graph.name} is not a valid graph: {first_line(error)}") from error
    for value in [*graph.input, *graph.output]:
        tensor = value.type.tensor_type
        first, *others = tensor.shape.dim
        wanted = STORED if value.name == FEATURES else BATCH
        if first.dim_param != wanted:
            raise BundleError(
                f"{graph.name}: the first axis of {value.name!r} is "
                f"{first.dim_param or first.dim_value!r}, not {wanted!r}; the network fixes its "
                "batch size somewhere, for example with int(x.shape[0])"
            )
        may_be_open = is_sized and value.name in (INPUT, FEATURES, FEATURES_OUT)
        if not may_be_open and any(axis.dim_param or axis.dim_value < 1 for axis in others):
            raise BundleError(f"{graph.name}: only the first axis of {value.name!r} may be free")
        is_float = tensor.elem_type == TensorProto.FLOAT
        if value.name not in (INPUT, ROWS) and not is_float:
            raise BundleError(f"{graph.name}: {value.name!r} must be float32")
