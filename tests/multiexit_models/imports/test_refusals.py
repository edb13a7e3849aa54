"""What cannot be imported is refused in a sentence that names the field, before any cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="an import needs torch: delen[train]")

import onnx
from onnx import TensorProto, helper

from delen.errors import InvalidInput
from multiexit_models.imports import run
from multiexit_models.imports.run import import_model
from multiexit_models.imports.spec import ImportSpec
from multiexit_models.progress import Bar
from tests.multiexit_models.imports.graphs import (
    LABELS,
    classifier,
    joined_to_a_constant,
    save,
    write_images,
    write_labels,
)

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "photos", 30)


def import_from(tmp_path: Path, photos: Path, **options: Any) -> None:
    options.setdefault("model", tmp_path / "colours.onnx")
    if not options["model"].exists() and options["model"].name == "colours.onnx":
        save(classifier(), tmp_path)
    options.setdefault("labels", write_labels(tmp_path))
    spec = ImportSpec(
        calibration=options.pop("calibration", photos), output=tmp_path / "b", **options
    )
    try:
        import_model(spec, Bar())
    finally:
        assert not (tmp_path / "b").exists()


def second_input(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 3])
    model.graph.input.append(value)
    model.graph.node.append(helper.make_node("Add", ["scores", "mask"], ["masked"]))
    model.graph.output[0].name = "masked"


def boxes(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, None))


def feature_map(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, None))


def vectors(model: onnx.ModelProto) -> None:
    shape = onnx.numpy_helper.from_array(np.array([-1, 3, 8, 8]), "planes_shape")
    model.graph.initializer.append(shape)
    _fed_by(model, TensorProto.FLOAT, ["N", 192], "Reshape", ["planes_shape"])


def words(model: onnx.ModelProto) -> None:
    _fed_by(model, TensorProto.INT64, ["N", 3, 8, 8], "Cast", [], to=TensorProto.FLOAT)


def _fed_by(
    model: onnx.ModelProto,
    dtype: int,
    shape: list[Any],
    op: str,
    more: list[str],
    **attributes: Any,
) -> None:
    """Let the graph take another input, from which a node makes its image."""
    model.graph.node.insert(0, helper.make_node(op, ["raw", *more], ["image"], **attributes))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("raw", dtype, shape))


def opset_of_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


@pytest.mark.parametrize(
    ("form", "change", "options", "field", "named"),
    [
        ({}, second_input, {}, "model", ["2 inputs", "image", "mask"]),
        ({}, boxes, {}, "model", ["2 outputs", "delen serves classifiers"]),
        ({}, feature_map, {}, "model", ["delen serves classifiers", "[batch, classes]"]),
        ({}, vectors, {}, "model", ["2 axes", "[batch, channels, height, width]"]),
        ({}, words, {}, "model", ["int64", "uint8 or float32"]),
        (
            {},
            opset_of_the_future,
            {},
            "model",
            ["opset 99", "opset and operators"],
        ),
        ({}, unknown_operator, {}, "model", ["com.example"]),
        ({"sizes": ("h", "w")}, None, {}, "size", ["[?, 3, ?, ?]", "--size HEIGHTxWIDTH"]),
        ({}, None, {"size": "16x16"}, "size", ["8 x 8", "16x16"]),
        ({}, None, {"size": "16"}, "size", ["HEIGHTxWIDTH"]),
        ({"sizes": (8, 3)}, None, {}, "layout", ["--layout NCHW or --layout NHWC"]),
        ({}, None, {"layout": "NHWC"}, "layout", ["8 channels"]),
        ({}, None, {"mean": (0.5, 0.5)}, "mean", ["2 numbers", "3 channels"]),
        ({}, None, {"std": (0.0,)}, "std", ["above 0"]),
        ({"dtype": TensorProto.UINT8}, None, {"mean": (0.5,)}, "mean", ["uint8", "--mean"]),
        ({}, None, {"exits": 9}, "exits", ["at most 3 exits, not 9"]),
        ({}, None, {"head": "pooled"}, "exits", ["--exits N"]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_file_that_is_not_what_it_should_be(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: dict[str, Any],
    change: Change | None,
    options: dict[str, Any],
    field: str,
    named: list[str],
) -> None:
    monkeypatch.setattr(run, "read_images", lambda *_, **__: pytest.fail("images were read"))
    model = classifier(**form)
    if change is not None:
        change(model)
    with pytest.raises(InvalidInput) as refused:
        import_from(tmp_path, photos, model=save(model, tmp_path, "net.onnx"), **options)
    assert refused.value.field == field
    assert all(part in str(refused.value) for part in named), refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 a zip of torch", bytes(range(256))])
def test_a_file_that_is_not_onnx(tmp_path: Path, photos: Path, raw: bytes) -> None:
    file = tmp_path / "net.pt"
    file.write_bytes(raw)
    with pytest.raises(InvalidInput, match=r"net\.pt is not an ONNX file") as refused:
        import_from(tmp_path, photos, model=file)
    assert refused.value.field == "model"


def test_a_file_that_is_not_there(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.onnx cannot be read") as refused:
        import_from(tmp_path, photos, model=tmp_path / "gone.onnx")
    assert refused.value.field == "model"


def test_external_data_that_are_missing(tmp_path: Path, photos: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(classifier(), file, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").rename(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"'net\.data', which is not in .*copy it") as refused:
        import_from(tmp_path, photos, model=file)
    assert refused.value.field == "model"


def test_a_batch_above_one_that_cannot_be_freed(tmp_path: Path, photos: Path) -> None:
    model = save(joined_to_a_constant(batch=4), tmp_path, "net.onnx")
    with pytest.raises(InvalidInput, match=r"batch of 4 .* free batch or a batch of 1") as refused:
        import_from(tmp_path, photos, model=model)
    assert refused.value.field == "model"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"red\ngreen\n", "2 labels, and .* 3 outputs"),
        (b"red\ngreen\nblue\nother\n", "4 labels, and .* 3 outputs"),
        (b"red\ngreen\nred\n", r"'red' in lines 1 and 3"),
        (b"red\n\nblue\n", "no label in line 2"),
        (b"\n\n", "is empty"),
        ("rød\ngrün\nblue".encode("latin-1"), "not UTF-8"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, photos: Path, text: bytes, named: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(text)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInput, match=rf"names\.txt .*{named}") as refused:
        import_from(tmp_path, photos, labels=file, calibration=empty)
    assert refused.value.field == "labels"


def test_a_class_that_is_not_a_label(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 9)
    (folder / "yellow").mkdir()
    with pytest.raises(InvalidInput, match="not labels: yellow; the labels are red") as refused:
        import_from(tmp_path, folder)
    assert refused.value.field == "calibration"


@pytest.mark.parametrize("count", [0, 1, 6, 12])
def test_too_few_images(tmp_path: Path, count: int) -> None:
    (tmp_path / "photos").mkdir()
    folder = write_images(tmp_path / "photos", count)
    with pytest.raises(InvalidInput) as refused:
        import_from(tmp_path, folder, exits=2)
    assert refused.value.field == "calibration"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder") as refused:
        import_from(tmp_path, tmp_path / "gone")
    assert refused.value.field == "calibration"


def test_a_floor_beyond_the_images_is_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(InvalidInput, match="calibration samples are too few") as refused:
        import_from(tmp_path, photos, floor=0.99, mean=(0.5,), std=(0.25,))
    assert refused.value.field == "floor"


def test_an_output_that_is_there_is_not_replaced(tmp_path: Path, photos: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    spec = ImportSpec(
        model=save(classifier(), tmp_path),
        labels=write_labels(tmp_path, LABELS),
        calibration=photos,
        output=taken,
    )
    with pytest.raises(InvalidInput, match="--overwrite") as refused:
        import_model(spec, Bar())
    assert refused.value.field == "output"
    assert np.array_equal(list(taken.iterdir()), [])
