"""A bundle of a small network for images of two sizes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.bundle.images import scale_down
from delen.bundle.manifest import (
    ExitSpec,
    FileEntry,
    ImagePreprocessing,
    InputSpec,
    Manifest,
    ScaledSpec,
)

LARGE, SMALL = (8, 8), (4, 4)
CLASSES = 3
EXITS = 3
SAMPLES = 3000
WAY = ImagePreprocessing("RGB", "nearest")


def draw_images(
    count: int, seed: int, size: tuple[int, int] = LARGE
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy images of one colour, and the channel that it has most of: uint8 ``[n, *size, 3]``."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(96, 160, (count, 3))
    pixels = colour[:, None, None, :] + rng.normal(0, 40, (count, *size, 3))
    return pixels.clip(0, 255).astype(np.uint8), colour.argmax(axis=1)


def write_sized_bundle(
    folder: Path,
    name: str = "sized",
    own_graphs: bool = False,
    sizes: tuple[tuple[int, int], ...] = (LARGE, SMALL),
) -> Path:
    """Three exits that see the mean colour through less and less noise, at ``sizes``, largest
    first: a mean over fewer pixels is less accurate. With ``own_graphs`` each size has graphs of
    its own, else height and width are free in the graphs of all."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.5 * (EXITS - 1 - exit), (3, 3)) for exit in range(EXITS)]
    heads = [(4 * (np.eye(3) + each)).astype(np.float32) for each in noise]
    images, labels = draw_images(SAMPLES, seed=1, size=sizes[0])
    files: dict[str, bytes] = {}
    exits = {}
    for size in sizes:
        mark = f"-{size[0]}" if own_graphs else ""
        graphs = [f"segment{exit}{mark}.onnx" for exit in range(EXITS)]
        files |= {
            graph: _segment(exit, heads[exit], size if own_graphs else ("h", "w"))
            for exit, graph in enumerate(graphs)
        }
        table = f"calibration-{size[0]}.npz"
        files[table] = _calibration(images, labels, heads, size).to_npz()
        exits[size] = (
            tuple(
                ExitSpec(
                    graph=graph,
                    features=None if exit == EXITS - 1 else (3, *size),
                    macs=1000 * size[0] * (exit + 1),
                    temperature=1.0,
                )
                for exit, graph in enumerate(graphs)
            ),
            table,
        )
    manifest = Manifest(
        name=name,
        version="1",
        description="the colour of an image, that tests made",
        runtime="onnx",
        precision="fp32",
        criterion="max_probability",
        input=InputSpec("uint8", (*sizes[0], 3), WAY, sizes=sizes[1:]),
        classes=CLASSES,
        labels=("red", "green", "blue"),
        max_batch=8,
        exits=exits[sizes[0]][0],
        calibration=exits[sizes[0]][1],
        files={
            file: FileEntry(hashlib.sha256(contents).hexdigest(), len(contents))
            for file, contents in files.items()
        },
        provenance={"made_by": "tests"},
        smaller=tuple(ScaledSpec(*exits[size]) for size in sizes[1:]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, contents in files.items():
        (folder / file).write_bytes(contents)
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def _calibration(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    heads: list[NDArray[np.float32]],
    size: tuple[int, int],
) -> Calibration:
    scaled = np.stack([scale_down(image, WAY, (*size, 3)) for image in images])
    means = (scaled.astype(np.float32).mean(axis=(1, 2)) - 128) / 32
    logits = np.stack([means @ head for head in heads], axis=1)
    powers = np.exp(logits - logits.max(axis=2, keepdims=True))
    answers = logits.argmax(axis=2)
    return Calibration(
        (powers / powers.sum(axis=2, keepdims=True)).max(axis=2).astype(np.float32),
        answers == labels[:, None],
        answers.astype(np.int32),
    )


def _segment(
    index: int, head: NDArray[np.float32], size: tuple[int, int] | tuple[str, str]
) -> bytes:
    """Its features are the centred pixels, which each segment passes on."""
    onnx = pytest.importorskip("onnx", reason="bundles are made with onnx: delen[test]")
    from onnx import TensorProto, helper, numpy_helper

    if index == 0:
        inputs = [
            helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", *size, 3]),
        ]
        nodes = [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["pixels"], perm=[0, 3, 1, 2]),
            helper.make_node("Sub", ["pixels", "middle"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["x"]),
        ]
    else:
        inputs = [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["stored", 3, *size]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["batch"]),
        ]
        nodes = [helper.make_node("Gather", ["features", "rows"], ["x"], axis=0)]
    nodes += [
        helper.make_node("ReduceMean", ["x", "places"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities", "classes"], ["confidence"], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["batch"]),
    ]
    if index < EXITS - 1:
        nodes.append(helper.make_node("Identity", ["x"], ["features_out"]))
        outputs.append(
            helper.make_tensor_value_info("features_out", TensorProto.FLOAT, ["batch", 3, *size])
        )
    constants = {
        "head": head,
        "middle": np.float32(128),
        "scale": np.float32(32),
        "places": np.array([2, 3], np.int64),
        "classes": np.array([1], np.int64),
    }
    used = {name for node in nodes for name in node.input}
    tensors = [
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in constants.items()
        if name in used
    ]
    graph = helper.make_graph(nodes, f"sized-segment{index}", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    contents: bytes = model.SerializeToString()
    return contents
