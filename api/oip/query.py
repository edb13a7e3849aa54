"""From an infer request of the protocol to delen's own, on any transport."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.oip.access import FindPlace
from api.oip.regions import Place
from api.parse import InferRequest, read_numbers
from delen.bundle.manifest import InputSpec, Manifest
from delen.core.bounds import Bounds, Options
from delen.core.numbers import read_number, read_whole
from delen.engine import inputs
from delen.errors import InvalidInput, ModelNotFound, NotOffered
from delen.wire.oip import (
    InferQuery,
    InputParameters,
    InputTensor,
    Parameter,
    WantedOutput,
)
from delen.wire.requests import InferFields

INPUT, LOGITS, CLASSES = "input", "logits", "classification"
DATATYPES = {
    "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_TIMEOUT, _PRIORITY = "timeout", "priority"
_BINARY = "binary_data_output"
_NUMBERS = {"max_latency_ms", "min_accuracy", "max_energy_mj", _PRIORITY, "top_k"}
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that is wanted: the best ``classes`` of each sample, or with 0 all values. It goes
    to ``place``, or into the answer."""

    name: str
    classes: int
    is_binary: bool
    place: Place | None = None


def check_version(manifest: Manifest, version: str | None) -> None:
    """ModelNotFound for another ``version`` than the one that is served."""
    if version and version != manifest.version:
        raise ModelNotFound(
            f"there is no version {version!r} of model {manifest.name!r}; known: {manifest.version}"
        )


@dataclass(frozen=True, slots=True)
class Query:
    """An infer request whose input was not read yet. With a ``place`` it is there."""

    id: str
    input: InputTensor
    place: Place | None
    outputs: tuple[Output, ...]
    bounds: Bounds
    options: Options

    @classmethod
    def of(cls, asked: InferQuery, manifest: Manifest, find: FindPlace) -> Query:
        """``asked`` of the model of ``manifest``; ``find`` finds shared memory. InvalidInput,
        UnknownField or NotOffered says what is wrong with it."""
        parameters = dict(asked.parameters)
        is_binary = parameters.pop(_BINARY, False)
        if not isinstance(is_binary, bool):
            raise InvalidInput(f"{_BINARY} must be true or false, not {is_binary!r}", _BINARY)
        bounds, options = _read_parameters(parameters)
        outputs = _read_outputs(asked.outputs, manifest, options.top_k, is_binary, find)
        tensor = _read_input(asked.inputs, manifest)
        place = find(tensor.parameters)
        if place is not None and place.byte_size != input_size(tensor, manifest.input):
            raise InvalidInput(
                f"shared_memory_byte_size is {place.byte_size}; {tensor.datatype} "
                f"{list(tensor.shape)} has {input_size(tensor, manifest.input)}",
                "shared_memory_byte_size",
            )
        return cls(asked.id, tensor, place, outputs, bounds, options)

    def with_samples(self, array: NDArray[Any]) -> InferRequest:
        """The request with what its input holds."""
        return InferRequest(list(array), True, self.bounds, self.options)


def whole_input(manifest: Manifest, size: int) -> Query:
    """The request that is ``size`` bytes of input and nothing else, as a raw body at ``/v1``."""
    spec = manifest.input
    shape = inputs.raw_shape(size, spec)
    if shape in spec.shapes:
        shape = (1, *shape)
    parameters = InputParameters(binary_data_size=size)
    tensor = InputTensor(INPUT, DATATYPES[spec.dtype], shape, parameters)
    outputs = _read_outputs((), manifest, 1, True, lambda _: None)
    return Query("", tensor, None, outputs, Bounds(), Options())


def input_size(tensor: InputTensor, spec: InputSpec) -> int:
    """The bytes of ``tensor``."""
    return prod(tensor.shape) * np.dtype(spec.dtype).itemsize


def read_bytes(raw: memoryview | bytes, tensor: InputTensor, spec: InputSpec) -> NDArray[Any]:
    """The values of ``tensor``, little-endian and row-major in ``raw``."""
    size = input_size(tensor, spec)
    if len(raw) != size:
        raise InvalidInput(
            f"input has {len(raw)} bytes; {tensor.datatype} {list(tensor.shape)} has {size}", INPUT
        )
    array = np.frombuffer(raw, np.dtype(spec.dtype).newbyteorder("<"))
    return np.require(array.reshape(tensor.shape), requirements="A")


def read_data(tensor: InputTensor, spec: InputSpec) -> NDArray[Any]:
    """The values of ``tensor`` in its JSON: in one list, or nested as its shape is."""
    if not tensor.data:
        raise InvalidInput("input has neither data nor binary data nor shared memory", INPUT)
    value = read_numbers(bytes(tensor.data), spec, (1, len(tensor.shape)))
    return read_list(value, tensor, spec)


def read_list(value: object, tensor: InputTensor, spec: InputSpec) -> NDArray[Any]:
    """The values of ``tensor`` in the list ``value``, flat or nested as its shape is."""
    array = inputs.decode_list(value, spec)
    flat = (prod(tensor.shape),)
    if array.shape not in (flat, tensor.shape):
        raise InvalidInput(
            f"input has data of shape {list(array.shape)}; its shape is {list(tensor.shape)}",
            INPUT,
        )
    return array.reshape(tensor.shape)


def _read_input(tensors: Sequence[InputTensor], manifest: Manifest) -> InputTensor:
    spec = manifest.input
    datatype, name = DATATYPES[spec.dtype], manifest.name
    if len(tensors) != 1 or tensors[0].name != INPUT:
        given = ", ".join(repr(each.name) for each in tensors[:8]) or "none"
        raise InvalidInput(f"{name} has one input, {INPUT!r}; the request has {given}", "inputs")
    tensor = tensors[0]
    if tensor.datatype != datatype:
        raise InvalidInput(f"input is {tensor.datatype!r}; {name} accepts {datatype}", INPUT)
    if not spec.accepts(tensor.shape[1:]) or not tensor.shape or tensor.shape[0] < 1:
        accepted = " or ".join(str([-1, *shape]) for shape in spec.shapes)
        raise InvalidInput(
            f"input has shape {list(tensor.shape)}; {name} accepts {accepted}", INPUT
        )
    return tensor


def _read_outputs(
    wanted: Sequence[WantedOutput],
    manifest: Manifest,
    top_k: int,
    is_binary: bool,
    find: FindPlace,
) -> tuple[Output, ...]:
    offered = output_names(manifest)
    wanted = wanted or [WantedOutput(name) for name in offered]
    names = [each.name for each in wanted]
    if len(set(names)) < len(names):
        raise InvalidInput("an output is named twice", "outputs")
    outputs = []
    for each in wanted:
        if each.name not in offered:
            raise InvalidInput(
                f"{manifest.name} has the outputs {', '.join(offered)}, not {each.name!r}",
                "outputs",
            )
        asked = each.parameters
        classes = asked.classification or (top_k if each.name == CLASSES else 0)
        in_body = is_binary if asked.binary_data is None else asked.binary_data
        outputs.append(Output(each.name, min(classes, manifest.classes), in_body, find(asked)))
    return tuple(outputs)


def output_names(manifest: Manifest) -> tuple[str, ...]:
    """What the model of ``manifest`` gives. Classes without labels are numbers in the logits."""
    return (LOGITS, CLASSES) if manifest.labels else (LOGITS,)


def _read_parameters(parameters: dict[str, Parameter]) -> tuple[Bounds, Options]:
    """Bounds and options by their names of ``/v1``, numbers as such or as texts: KServe's client
    has no fractions over gRPC. ``timeout`` is another cap on latency, in microseconds, and a
    ``priority`` of 0 is none."""
    for name in _SEQUENCE:
        if parameters.pop(name, False):
            raise NotOffered("sequences are not offered: every request stands for itself", name)
    timeout = parameters.pop(_TIMEOUT, 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidInput("timeout must be a whole number of microseconds", _TIMEOUT)
    if parameters.get(_PRIORITY) == 0:
        del parameters[_PRIORITY]
    for name in _NUMBERS & parameters.keys():
        if isinstance(text := parameters[name], str):
            with suppress(ValueError):
                parameters[name] = read_whole(text) if text.isdecimal() else read_number(text)
    fields = InferFields.read(parameters)
    bounds, options = fields.bounds(), fields.options()
    if options.probabilities:
        raise NotOffered(f"probabilities are not offered here: {LOGITS} are", "probabilities")
    if timeout and (bounds.max_latency is None or timeout / 1e6 < bounds.max_latency):
        bounds = Bounds(
            max_latency=timeout / 1e6,
            min_accuracy=bounds.min_accuracy,
            max_energy=bounds.max_energy,
        )
    return bounds, options
