"""An ONNX image classifier as a bundle's graph: from uint8 images to logits, for any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper, utils

from delen.errors import InvalidInput
from multiexit_models.export.chain import open_session
from multiexit_models.export.graphs import BATCH, INPUT, LOGITS, OPSET, first_line
from multiexit_models.imports.interface import Interface, read_interface
from multiexit_models.imports.normal_form import free_batch, modern_opset
from multiexit_models.imports.onnx_file import read_onnx
from multiexit_models.imports.preprocessing import Preprocessing, make_preprocessing

PREFIX = "net/"
"""Before the file's own names, so that they do not meet a bundle's."""
TOLERANCES = {"fp32": 1e-3, "fp16": 0.03, "int8": 0.03}
"""Largest difference of a logit to the file's, as a share of the largest where that is above 1."""
_LEAST_PROBABILITY = np.finfo(np.float32).tiny
_BATCH = 32
_EXAMPLES = 2
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

Images = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Reference:
    """The classifier as its file has it, fed by numpy: what an imported chain must equal."""

    model: onnx.ModelProto
    interface: Interface
    preprocessing: Preprocessing
    gives_probabilities: bool = False
    _sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """The least precise type that it computes in."""
        graph = self.model.graph
        if any("Quantize" in node.op_type for node in graph.node):
            return "int8"
        types = {self.interface.dtype, *(tensor.data_type for tensor in graph.initializer)}
        return "fp16" if TensorProto.FLOAT16 in types else "fp32"

    def values(self, images: Images, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """The tensors ``names`` of the file's graph, ``[n, ...]`` each, for ``images``."""
        session = self._session(tuple(names))
        size = self.interface.batch or _BATCH
        parts = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            missing = (self.interface.batch or len(batch)) - len(batch)
            padded = np.concatenate([batch, batch[:1].repeat(missing, axis=0)])
            outputs = session.run(list(names), {self.interface.input: self.preprocessing(padded)})
            parts.append([output[: len(batch)] for output in outputs])
        return [np.concatenate(values).astype(np.float32) for values in zip(*parts, strict=True)]

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Logits ``[n, classes]``."""
        return self.to_logits(self.values(images, [self.interface.output])[0])

    def to_logits(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = values.reshape(len(values), -1)
        if not self.gives_probabilities:
            return flat
        logarithms: NDArray[np.float32] = np.log(np.maximum(flat, _LEAST_PROBABILITY))
        return logarithms

    def _session(self, names: tuple[str, ...]) -> onnxruntime.InferenceSession:
        if names not in self._sessions:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            known = {value.name for value in model.graph.output}
            model.graph.output.extend(
                helper.make_empty_tensor_value_info(name) for name in names if name not in known
            )
            self._sessions[names] = open_session(model.SerializeToString())
        return self._sessions[names]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier whose graph goes from a bundle's ``input`` to ``logits``.

    ``max_batch`` is None where the graph computes any batch; else it computes single images alone.
    """

    model: onnx.ModelProto
    reference: Reference
    classes: int
    max_batch: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.reference.interface.shape

    @property
    def precision(self) -> str:
        return self.reference.precision


def read_classifier(
    file: Path,
    *,
    size: tuple[int, int] | None = None,
    layout: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Classifier:
    """The classifier in ``file``; see ``interface`` and ``preprocessing`` for the options.

    ``on_stage`` is told what is being done. Raises InvalidInput naming what is not a classifier of
    images, or cannot be imported.
    """
    on_stage(f"reading {file}")
    model = read_onnx(file)
    interface = read_interface(model, file, size, layout)
    preprocessing = make_preprocessing(interface, mean, std, scale)
    examples = np.random.default_rng(0).integers(0, 256, (_EXAMPLES, *interface.shape), np.uint8)
    reference = Reference(model, interface, preprocessing)
    classes, rank = _output_form(reference, file, examples)
    model, interface = _without_softmax(model, interface, rank)
    reference = Reference(model, interface, preprocessing)
    if _are_probabilities(reference.logits(examples)):
        reference = Reference(model, interface, preprocessing, gives_probabilities=True)
    on_stage("converting its graph")
    modern = modern_opset(model, file)
    expected, tolerance = reference.logits(examples), TOLERANCES[reference.precision]

    def computes(graph: onnx.ModelProto, batch: int) -> bool:
        return _computes(graph, examples, expected, batch, tolerance)

    on_stage("trying batches of it")
    whole = _whole(modern, reference, classes)
    is_free = computes(whole, _EXAMPLES)
    one = examples[:1].repeat(interface.batch or 1, axis=0)
    double = preprocessing(examples) if is_free and interface.batch is None else None
    freed = _whole(free_batch(modern, preprocessing(one), double), reference, classes)
    if computes(freed, _EXAMPLES):
        return Classifier(freed, reference, classes, None)
    if is_free:
        return Classifier(whole, reference, classes, None)
    if interface.batch not in (None, 1):
        raise InvalidInput(
            f"{file} is made for a batch of {interface.batch} and computes something else, or "
            "nothing, for another: export it with a free batch or a batch of 1",
            "model",
        )
    if not computes(whole, 1):
        raise InvalidInput(
            f"{file} computes something else once it is converted to a bundle's graph; export it "
            f"again with opset {OPSET} or later",
            "model",
        )
    return Classifier(whole, reference, classes, 1)


def _without_softmax(
    model: onnx.ModelProto, interface: Interface, rank: int
) -> tuple[onnx.ModelProto, Interface]:
    """``model`` that ends before its last softmax, where it ends in one over the classes.

    ``rank`` is the number of axes of its output.
    """
    last = next((node for node in model.graph.node if interface.output in node.output), None)
    if last is None or last.op_type not in ("Softmax", "LogSoftmax"):
        return model, interface
    axis = next((item.i for item in last.attribute if item.name == "axis"), None)
    if axis not in (1, 1 - rank) and (axis is not None or rank != 2):
        return model, interface
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.append(helper.make_empty_tensor_value_info(last.input[0]))
    return cut, replace(interface, output=last.input[0])


def _output_form(reference: Reference, file: Path, examples: Images) -> tuple[int, int]:
    """How many classes and axes the output for ``examples`` has; InvalidInput for others."""
    output = reference.interface.output
    try:
        (values,) = reference.values(examples, [output])
    except Exception as error:
        height, width, _ = reference.interface.shape
        raise InvalidInput(
            f"{file} fails on an image of {height}x{width}: {first_line(error)}", "model"
        ) from error
    if values.ndim < 2 or values.shape[1] < 2 or values.size != len(examples) * values.shape[1]:
        raise InvalidInput(
            f"{file} gives {output!r} {list(values.shape)} for {len(examples)} images; delen "
            "serves classifiers: the output must be [batch, classes] with two classes or more",
            "model",
        )
    return int(values.shape[1]), values.ndim


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    return bool((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2))


def _whole(body: onnx.ModelProto, reference: Reference, classes: int) -> onnx.ModelProto:
    """``body`` between a bundle's preprocessing and its logits."""
    model = compose.add_prefix(body, PREFIX)
    interface, graph = reference.interface, model.graph
    nodes, constants = reference.preprocessing.nodes(INPUT, PREFIX + interface.input)
    constants.append(numpy_helper.from_array(np.array([-1, classes]), "logits.shape"))
    cast, flat = "logits.float32", LOGITS
    tail = [helper.make_node("Cast", [PREFIX + interface.output], [cast], cast, to=1)]
    if reference.gives_probabilities:
        flat, least = "logits.probabilities", "logits.least"
        constants.append(numpy_helper.from_array(np.float32(_LEAST_PROBABILITY), least))
        tail.append(helper.make_node("Max", [cast, least], ["logits.above"], "logits.above"))
        tail.append(helper.make_node("Log", ["logits.above"], [flat], "logits.log"))
        cast, flat = flat, LOGITS
    tail.append(helper.make_node("Reshape", [cast, "logits.shape"], [flat], "logits.flat"))
    body_nodes = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*nodes, *body_nodes, *tail])
    graph.initializer.extend(constants)
    graph.input.append(
        helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [BATCH, *interface.shape])
    )
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [BATCH, classes]))
    pruned: onnx.ModelProto = utils.Extractor(model).extract_model([INPUT], [LOGITS])
    return pruned


def _computes(
    model: onnx.ModelProto,
    images: Images,
    expected: NDArray[np.float32],
    batch: int,
    tolerance: float,
) -> bool:
    """Whether ``model`` gives the ``expected`` logits for ``images`` in batches of ``batch``."""
    try:
        session = open_session(model.SerializeToString())
        found = np.concatenate(
            [
                session.run([LOGITS], {INPUT: images[start : start + batch]})[0]
                for start in range(0, len(images), batch)
            ]
        )
    except Exception:
        return False
    most = tolerance * max(1.0, float(np.abs(expected).max()))
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= most)
