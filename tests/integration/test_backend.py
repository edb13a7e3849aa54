"""The ONNX Runtime backend: what it serves on, and which graphs it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delen.bundle import load_bundle
from delen.engine.backends.onnx import PROVIDERS, OnnxBackend
from delen.errors import BackendError, ConfigError

ort = pytest.importorskip("onnxruntime", reason="the backend needs onnxruntime: delen[daemon]")
onnx = pytest.importorskip("onnx", reason="bundles are made with onnx: delen[test]")

Edit = Callable[["onnx.ModelProto"], None]


def test_an_unknown_backend_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="'gpu' is none of auto, cpu, cuda, tensorrt"):
        OnnxBackend("gpu", 1)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_is_refused_with_the_remedy(name: str) -> None:
    if PROVIDERS[name] in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has {name}")
    with pytest.raises(BackendError, match=r"pip install 'delen\[jetson\]'") as caught:
        OnnxBackend(name, 1)
    assert "it has: cpu" in str(caught.value)


def test_auto_says_what_it_runs_on(tiny_bundle: Path) -> None:
    backend = OnnxBackend("auto", 2)
    backend.load(load_bundle(tiny_bundle))
    assert (backend.name, backend.threads) == ("auto", 2)
    assert PROVIDERS[backend.provider] in ort.get_available_providers()


def test_batches_up_to_the_largest_run_alike(tiny_bundle: Path) -> None:
    network = OnnxBackend("cpu", 1).load(load_bundle(tiny_bundle))
    images = np.random.default_rng(2).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)
    whole = network.run(0, list(images))
    logits, confidence = whole.logits.copy(), whole.confidence.copy()
    assert len(whole.features) == 8
    for size in (1, 3, 8):
        run = network.run(0, list(images[:size]))
        assert run.logits.shape == (size, 4)
        np.testing.assert_allclose(run.logits, logits[:size], atol=1e-5)
        np.testing.assert_allclose(run.confidence, confidence[:size], atol=1e-6)


def value(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(v for v in (*model.graph.input, *model.graph.output) if v.name == name)


def fix_batch(name: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        value(model, name).type.tensor_type.shape.dim[0].dim_value = 1

    return edit


def rename(old: str, new: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        value(model, old).name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return edit


def widen(name: str) -> Edit:
    """One more row in a weight, and a wider input with it."""

    def edit(model: onnx.ModelProto) -> None:
        (weight,) = (w for w in model.graph.initializer if w.name == "turn")
        wider = np.zeros((17, 16), np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(wider, "turn"))
        value(model, name).type.tensor_type.shape.dim[1].dim_value = 17

    return edit


def take_floats(model: onnx.ModelProto) -> None:
    value(model, "images").type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def add_class(model: onnx.ModelProto) -> None:
    (head,) = (w for w in model.graph.initializer if w.name == "head")
    more = np.pad(onnx.numpy_helper.to_array(head), ((0, 0), (0, 1)))
    head.CopyFrom(onnx.numpy_helper.from_array(more, "head"))
    value(model, "logits").type.tensor_type.shape.dim[1].dim_value = 5


def shrink_features(model: onnx.ModelProto) -> None:
    """Gives the logits, 4 wide, where the manifest says 16 features."""
    (node,) = (n for n in model.graph.node if "features_out" in n.output)
    node.input[0] = "logits"
    value(model, "features_out").type.tensor_type.shape.dim[1].dim_value = 4


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("exit0.onnx", rename("images", "pixels"), r"must take \['images'\]"),
        ("exit1.onnx", rename("features", "x0"), r"must take \['features'\]"),
        ("exit1.onnx", rename("confidence", "score"), "confidence"),
        ("exit2.onnx", rename("logits", "scores"), "logits"),
        ("exit0.onnx", fix_batch("images"), "after a free batch"),
        ("exit1.onnx", fix_batch("features"), "after a free batch"),
        ("exit1.onnx", widen("features"), r"the manifest says \[16\]"),
        ("exit0.onnx", take_floats, "float32.*uint8"),
        ("exit1.onnx", add_class, r"gives logits .* the manifest says \[4\]"),
        ("exit1.onnx", shrink_features, r"gives features_out .* the manifest says \[16\]"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    write_bundle: Callable[..., Path], tmp_path: Path, file: str, edit: Edit, message: str
) -> None:
    def change(files: dict[str, bytes]) -> None:
        model = onnx.load_from_string(files[file])
        edit(model)
        files[file] = model.SerializeToString()

    folder = write_bundle(tmp_path / "tiny", edit=change, calibration_samples=50)
    with pytest.raises(BackendError, match=message) as caught:
        OnnxBackend("cpu", 1).load(load_bundle(folder))
    assert str(folder / file) in str(caught.value)


def test_a_file_that_is_no_graph_is_refused(
    write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_bundle(
        tmp_path / "tiny",
        edit=lambda files: files.update({"exit1.onnx": b"no graph"}),
        calibration_samples=50,
    )
    with pytest.raises(BackendError, match=r"exit1\.onnx does not load"):
        OnnxBackend("cpu", 1).load(load_bundle(folder))


def test_the_last_segment_gives_no_features(
    write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    def swap(files: dict[str, bytes]) -> None:
        files["exit2.onnx"] = files["exit1.onnx"]

    folder = write_bundle(tmp_path / "tiny", edit=swap, calibration_samples=50)
    with pytest.raises(BackendError, match=r"exit2\.onnx must take .* and give"):
        OnnxBackend("cpu", 1).load(load_bundle(folder))
