"""Every form of an ONNX classifier becomes the same graph: from uint8 images to logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="an import needs torch: delen[train]")

import torch
from onnx import TensorProto

from multiexit_models.calibrate.temperature import softmax
from multiexit_models.export.chain import open_session
from multiexit_models.imports.classifier import Classifier, read_classifier
from tests.multiexit_models.imports.graphs import (
    MEAN,
    SIDE,
    STD,
    classifier,
    images,
    joined_to_a_constant,
    save,
    weights,
)

NORMALISED = {"mean": MEAN, "std": STD}


def probabilities(classifier: Classifier, pixels: Any, batch: int) -> Any:
    session = open_session(classifier.model.SerializeToString())
    parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    return softmax(np.concatenate([session.run(["logits"], {"input": part})[0] for part in parts]))


def expected(pixels: Any) -> Any:
    """What the classifiers of ``graphs`` say of images, computed by torch."""
    of = {name: torch.from_numpy(value) for name, value in weights().items()}
    values = torch.from_numpy((pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD))
    values = values.permute(0, 3, 1, 2)
    for index in range(2):
        values = torch.nn.functional.conv2d(
            values, of[f"kernel{index}"], of[f"bias{index}"], stride=2, padding=1
        ).relu()
    logits = values.mean((2, 3)) @ of["linear"].T + of["shift"]
    return torch.softmax(logits, 1).numpy()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ({}, NORMALISED),
        ({"opset": 7, "ir": 3, "weights_as_inputs": True}, NORMALISED),
        ({"opset": 9, "ir": 4}, NORMALISED),
        ({"opset": 11, "flatten": "computed"}, NORMALISED),
        ({"opset": 13, "flatten": "computed", "ending": "Softmax"}, NORMALISED),
        ({"opset": 21, "ir": 10}, NORMALISED),
        ({"opset": 11, "ending": "Softmax"}, NORMALISED),
        ({"ending": "Softmax"}, NORMALISED),
        ({"ending": "Softmax and more"}, NORMALISED),
        ({"ending": "four axes"}, NORMALISED),
        ({"batch": 1}, NORMALISED),
        ({"batch": 1, "flatten": "constant"}, NORMALISED),
        ({"batch": 1, "flatten": "constant", "ending": "Softmax", "opset": 9}, NORMALISED),
        ({"batch": 4, "flatten": "constant"}, NORMALISED),
        ({"layout": "NHWC"}, NORMALISED),
        ({"layout": "NHWC", "batch": 1, "dtype": TensorProto.UINT8}, {}),
        ({"dtype": TensorProto.UINT8}, {}),
        ({"sizes": ("h", "w")}, {**NORMALISED, "size": (SIDE, SIDE)}),
        ({}, {**NORMALISED, "layout": "NCHW"}),
        (
            {},
            {
                "mean": [255 * value for value in MEAN],
                "std": [255 * value for value in STD],
                "scale": 1.0,
            },
        ),
    ],
    ids=str,
)
def test_every_form_gives_the_same_answers(
    tmp_path: Path, form: dict[str, Any], options: dict[str, Any]
) -> None:
    made = read_classifier(save(classifier(**form), tmp_path), **options)
    pixels, _ = images(9)
    assert (made.classes, made.shape, made.max_batch) == (3, (SIDE, SIDE, 3), None)
    assert np.abs(probabilities(made, pixels, 4) - expected(pixels)).max() < 1e-5
    assert np.abs(softmax(made.reference.logits(pixels)) - expected(pixels)).max() < 1e-5


def test_half_precision_inputs_and_outputs_are_converted(tmp_path: Path) -> None:
    model = classifier(dtype=TensorProto.FLOAT16)
    made = read_classifier(save(model, tmp_path), **NORMALISED)
    pixels, _ = images(9)
    assert np.abs(probabilities(made, pixels, 9) - expected(pixels)).max() < 0.01


def test_a_softmax_is_left_out_not_inverted(tmp_path: Path) -> None:
    made = read_classifier(save(classifier(ending="Softmax"), tmp_path), **NORMALISED)
    assert {"Softmax", "Log"}.isdisjoint(node.op_type for node in made.model.graph.node)


def test_a_batch_that_cannot_be_freed_stays_at_one(tmp_path: Path) -> None:
    made = read_classifier(save(joined_to_a_constant(), tmp_path), **NORMALISED)
    assert made.max_batch == 1
    pixels, _ = images(3)
    assert np.abs(probabilities(made, pixels, 1) - expected(pixels)).max() < 1e-5


def test_default_preprocessing_is_that_of_imagenet(tmp_path: Path) -> None:
    file = save(classifier(), tmp_path)
    given = read_classifier(file, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels, _ = images(5)
    default = read_classifier(file)
    assert np.array_equal(default.reference.logits(pixels), given.reference.logits(pixels))


def test_precision_is_that_of_the_weights(tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    halved = convert_float_to_float16(classifier(), keep_io_types=True)
    assert read_classifier(save(halved, tmp_path, "half.onnx"), **NORMALISED).precision == "fp16"
    assert read_classifier(save(classifier(), tmp_path), **NORMALISED).precision == "fp32"
