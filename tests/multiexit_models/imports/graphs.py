"""ONNX classifiers by hand, in the forms in which people have them, and images for them.

They all tell red, green and blue images apart, with the same weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

onnx = pytest.importorskip("onnx", reason="an import needs onnx: delen[train]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIDE = 8
LABELS = ("red", "green", "blue")
MEAN, STD = (0.3, 0.31, 0.32), (0.25, 0.24, 0.26)
WIDTHS = (6, 8)


def weights() -> dict[str, NDArray[np.float32]]:
    """Two convolutions that keep the three colours among other channels, and a linear layer."""
    generator = np.random.default_rng(2)
    made = {}
    inputs = 3
    for index, width in enumerate(WIDTHS):
        kernel = generator.normal(0, 0.1, (width, inputs, 3, 3)).astype(np.float32)
        kernel[:3] = 0
        kernel[range(3), range(3), 1, 1] = 1
        made[f"kernel{index}"], inputs = kernel, width
        made[f"bias{index}"] = np.full(width, 0.1, np.float32)
    linear = generator.normal(0, 0.1, (3, inputs)).astype(np.float32)
    linear[:, :3] = 4 * np.eye(3)
    return {**made, "linear": linear, "shift": np.zeros(3, np.float32)}


def classifier(
    *,
    opset: int = 18,
    ir: int = 8,
    batch: int | str = "N",
    sizes: tuple[int | str, int | str] = (SIDE, SIDE),
    layout: str = "NCHW",
    dtype: int = TensorProto.FLOAT,
    ending: str = "logits",
    flatten: str = "Flatten",
    weights_as_inputs: bool = False,
    skip: bool = False,
) -> onnx.ModelProto:
    """A classifier in one form.

    ``ending``: logits, Softmax, or a Softmax with something after it. ``flatten``: Flatten, or a
    Reshape whose shape is constant (and has the batch in it) or computed from the input, perhaps
    with an Expand to that shape beside it. ``skip`` adds the first convolution's features to the
    second's.
    """
    arrays = weights()
    nodes = []
    source = "image"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [source], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    if dtype == TensorProto.UINT8:
        arrays["factor"] = (1 / (255 * np.float32(STD))).reshape(3, 1, 1)
        arrays["offset"] = (np.float32(MEAN) / np.float32(STD)).reshape(3, 1, 1)
        nodes += [
            helper.make_node("Cast", [source], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["numbers", "factor"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "offset"], ["normalised"]),
        ]
        source = "normalised"
    elif dtype == TensorProto.FLOAT16:
        nodes.append(helper.make_node("Cast", [source], ["single"], to=TensorProto.FLOAT))
        source = "single"
    for index in range(2):
        strides = [1, 1] if skip and index else [2, 2]
        inputs = [source, f"kernel{index}", f"bias{index}"]
        nodes.append(
            helper.make_node("Conv", inputs, [f"conv{index}"], pads=[1] * 4, strides=strides)
        )
        source = f"conv{index}"
        if skip and index:
            arrays["widen"] = np.eye(WIDTHS[1], WIDTHS[0], dtype=np.float32)[..., None, None]
            nodes.append(helper.make_node("Conv", ["relu0", "widen"], ["wide"]))
            nodes.append(helper.make_node("Add", [source, "wide"], ["sum"]))
            source = "sum"
        nodes.append(helper.make_node("Relu", [source], [f"relu{index}"]))
        source = f"relu{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["pooled"]))
    nodes += _flatten(flatten, batch, opset, arrays)
    scores = "scores" if ending == "logits" else "before"
    nodes.append(helper.make_node("Gemm", ["flat", "linear", "shift"], [scores], transB=1))
    if ending != "logits":
        last = "scores" if ending == "Softmax" else "probabilities"
        nodes.append(helper.make_node("Softmax", ["before"], [last], axis=1))
    if ending == "Softmax and more":
        nodes.append(helper.make_node("Identity", ["probabilities"], ["scores"]))
    elif ending == "four axes":
        arrays["four"] = np.array([-1, 3, 1, 1], np.int64)
        nodes.append(helper.make_node("Reshape", ["probabilities", "four"], ["scores"]))
    height, width = sizes
    shape = [batch, 3, height, width] if layout == "NCHW" else [batch, height, width, 3]
    inputs = [helper.make_tensor_value_info("image", dtype, shape)]
    initializers = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    if weights_as_inputs:
        inputs += [
            helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in initializers
        ]
    rank = 4 if ending == "four axes" else 2
    given = [batch, 3, 1, 1][:rank]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, given)
    graph = helper.make_graph(nodes, "colours", inputs, [output], initializers)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def _flatten(
    kind: str, batch: int | str, opset: int, arrays: dict[str, NDArray[np.generic]]
) -> list[onnx.NodeProto]:
    width = WIDTHS[1]
    if kind == "Flatten":
        return [helper.make_node("Flatten", ["pooled"], ["flat"])]
    if kind == "constant":
        arrays["shape"] = np.array([batch if isinstance(batch, int) else -1, width], np.int64)
        return [helper.make_node("Reshape", ["pooled", "shape"], ["flat"])]
    target = "flat" if kind == "computed" else "even"
    arrays["zero"], arrays["width"] = np.int64(0), np.array([width], np.int64)
    axes = {"axes": [0]} if opset < 13 else {}
    if opset >= 13:
        arrays["first"] = np.array([0], np.int64)
    nodes = [
        helper.make_node("Shape", ["image"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["count"]),
        helper.make_node(
            "Unsqueeze", ["count", *(["first"] if opset >= 13 else [])], ["n"], **axes
        ),
        helper.make_node("Concat", ["n", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["pooled", "shape"], [target]),
    ]
    if kind == "expanded":
        arrays["nothing"] = np.zeros((1, width), np.float32)
        nodes.append(helper.make_node("Expand", ["nothing", "shape"], ["nothings"]))
        nodes.append(helper.make_node("Add", ["even", "nothings"], ["flat"]))
    return nodes


def joined_to_a_constant(batch: int = 1) -> onnx.ModelProto:
    """A classifier that joins its features to a constant of its batch, as transformers do."""
    model = classifier(batch=batch)
    (flatten,) = [node for node in model.graph.node if node.op_type == "Flatten"]
    flatten.output[0] = "features"
    zeros = numpy_helper.from_array(np.zeros((batch, 1), np.float32), "zeros")
    ends = [numpy_helper.from_array(np.array([end]), f"end{end}") for end in (1, 9)]
    model.graph.initializer.extend([zeros, *ends])
    place = list(model.graph.node).index(flatten) + 1
    joining = helper.make_node("Concat", ["zeros", "features"], ["joined"], axis=1)
    taking = helper.make_node("Slice", ["joined", "end1", "end9", "end1"], ["flat"])
    model.graph.node.insert(place, taking)
    model.graph.node.insert(place, joining)
    return model


def save(model: onnx.ModelProto, folder: Path, name: str = "colours.onnx") -> Path:
    file = folder / name
    onnx.save(model, file)
    return file


def images(
    count: int, seed: int = 0, side: int = SIDE
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy images in which mostly one colour is strongest, and which."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = np.full((count, 3), 110.0)
    colours[np.arange(count), labels] += 25
    colours += generator.normal(0, 7, colours.shape)
    pixels = colours[:, None, None] + generator.normal(0, 25, (count, side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    """``count`` images in folders named as their labels."""
    pixels, labels = images(count, seed)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        target = folder / LABELS[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f"{index}.png")
    return folder


def write_labels(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    file = folder / "labels.txt"
    file.write_text("\n".join(labels) + "\n", encoding="utf-8")
    return file
