"""Reading an ONNX file whole: its weights within it, as ONNX Runtime opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, external_data_helper, inliner

from delen.errors import InvalidInput
from multiexit_models.export.chain import open_session
from multiexit_models.export.graphs import first_line, strip

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def read_onnx(file: Path) -> onnx.ModelProto:
    """The model in ``file`` with all its weights, its functions inlined.

    Its IR version is the least that its opsets need, and its weights are not inputs. Raises
    InvalidInput for what is not ONNX, lacks external data, or does not open in ONNX Runtime.
    """
    model = _parse(file)
    _load_external(model, file)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _modernise(model)
    strip(model)
    try:
        open_session(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise InvalidInput(f"{file} is larger than the 2 GB of one graph", "model") from error
    except Exception as error:
        opsets = ", ".join(
            f"{used.domain or 'opset'} {used.version}" for used in model.opset_import
        )
        raise InvalidInput(
            f"{file} ({opsets}) does not open in ONNX Runtime {onnxruntime.__version__}: "
            f"{first_line(error)}; export it with an opset and operators that this version has",
            "model",
        ) from error
    if control := sorted({node.op_type for node in model.graph.node} & set(_CONTROL_FLOW)):
        raise InvalidInput(
            f"{file} has control flow ({', '.join(control)}), which cannot be imported; export it "
            "from a traced module",
            "model",
        )
    return model


def _parse(file: Path) -> onnx.ModelProto:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror or error}", "model") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except DecodeError:
        model.Clear()
    if not (model.graph.node and model.opset_import):
        raise InvalidInput(
            f"{file} is not an ONNX file; torch.onnx.export, tf2onnx or skl2onnx write them",
            "model",
        )
    return model


def _load_external(model: onnx.ModelProto, file: Path) -> None:
    """Read the weights that lie in other files."""
    folder = file.absolute().parent
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            location = {entry.key: entry.value for entry in tensor.external_data}.get(
                "location", ""
            )
            if not (folder / location).is_file():
                raise InvalidInput(
                    f"{file} keeps its weights in {location!r}, which is not in {folder}; copy it "
                    "there, or export with external_data=False",
                    "model",
                )
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidInput(
            f"the external data of {file} cannot be read: {first_line(error)}", "model"
        ) from error


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _modernise(model: onnx.ModelProto) -> None:
    """The form of IR version 4 and later, in which weights are not inputs as well."""
    try:
        model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
    except ValueError:
        return  # an opset from the future, which ONNX Runtime names
    model.ir_version = max(model.ir_version, 4)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
