"""The ONNX Runtime backend: what it serves on, and which graphs it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.manifest import load_bundle
from delen.engine.backends import onnx as onnx_backend
from delen.engine.backends.base import Network, Placement
from delen.engine.backends.bound import RowFeed
from delen.engine.backends.onnx import _SOFTPLUS, PROVIDERS, OnnxBackend
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
    with pytest.raises(BackendError, match=r"pip install .*onnxruntime-gpu") as caught:
        OnnxBackend(name, 1)
    assert "it has: cpu" in str(caught.value)


def test_auto_says_what_it_runs_on(tiny_bundle: Path) -> None:
    backend = OnnxBackend("auto", 2)
    placement = backend.load(load_bundle(tiny_bundle)).placement
    assert placement == Placement("onnxruntime", backend.provider, 2)
    assert PROVIDERS[placement.provider] in ort.get_available_providers()


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that lists CUDA, and whose sessions fall back to the CPU."""
    if PROVIDERS["cuda"] in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    offered = [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    monkeypatch.setattr(ort, "get_available_providers", lambda: offered)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_what_sessions_fall_back_to_is_known_before_there_is_one(
    broken_cuda: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert OnnxBackend("auto", 1).provider == "cpu"
    assert "sessions run on CPUExecutionProvider" in caplog.text


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_named_provider_that_falls_back_is_refused(broken_cuda: None) -> None:
    with pytest.raises(BackendError, match="'cuda' does not work"):
        OnnxBackend("cuda", 1)


class _NoKernel:
    """A session on CUDA, on a GPU for which onnxruntime is not built."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def get_providers(self) -> list[str]:
        return [PROVIDERS["cuda"]]

    def run(self, *_: object) -> None:
        raise RuntimeError("no kernel image is available for execution on the device")


def test_a_provider_without_kernels_for_the_gpu_is_found_before_a_request(
    broken_cuda: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", _NoKernel)
    with pytest.raises(BackendError, match="no kernel image"):
        OnnxBackend("cuda", 1)
    assert OnnxBackend("auto", 1).provider == "cpu"
    assert "no kernel image" in caplog.text


def test_the_graph_that_tells_runs() -> None:
    (value,) = ort.InferenceSession(_SOFTPLUS).run(None, {"x": np.zeros(1, np.float32)})
    assert value == pytest.approx(np.log(2))


def test_a_jetson_that_serves_from_its_processor_says_how_its_gpu_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if PROVIDERS["cuda"] in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setattr(onnx_backend, "gpu_runtime_remedy", lambda: "pip install WHEEL")
    OnnxBackend("auto", 1)
    assert "pip install WHEEL" in caplog.text
    caplog.clear()
    OnnxBackend("cpu", 1)
    assert caplog.text == ""


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


IMAGES = np.random.default_rng(2).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def network(tiny_bundle: Path) -> Network:
    return OnnxBackend("cpu", 1).load(load_bundle(tiny_bundle))


def run_alone(network: Network, segment: int, index: int) -> np.ndarray:
    """The logits of ``segment`` for one image, that no other shared a batch with."""
    samples: Sequence[Any] = [IMAGES[index]]
    for earlier in range(segment):
        samples = network.run(earlier, samples).features
    return network.run(segment, samples).logits[0].copy()


def test_the_graph_itself_takes_the_rows_that_go_on(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any of one batch, in any order and more than once, with no features on the host."""

    def refuse(feed: RowFeed, samples: object) -> None:
        raise AssertionError("gathered through the host")

    monkeypatch.setattr(RowFeed, "_gather", refuse)
    features = network.run(0, list(IMAGES)).features
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [6], [5, 2], [7, 0, 3], [2, 5], [4, 4]):
        logits = network.run(1, [features[row] for row in rows]).logits.copy()
        alone = [run_alone(network, 1, row) for row in rows]
        np.testing.assert_allclose(logits, alone, atol=1e-4)


@pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
def test_samples_of_different_batches_are_gathered(network: Network, on_host: bool) -> None:
    first, second = network.run(0, list(IMAGES[:5])), network.run(0, list(IMAGES[5:]))
    if not on_host:  # as a buffer is that numpy cannot look into
        for run in (first, second):
            run.features[0].block.buffer._view = None
    mixed = [first.features[3], second.features[0], first.features[1]]
    for rows, samples in (([3, 5, 1], mixed), ([3], mixed[:1]), ([5, 6], second.features[:2])):
        logits = network.run(1, samples).logits.copy()
        alone = [run_alone(network, 1, row) for row in rows]
        np.testing.assert_allclose(logits, alone, atol=1e-4)


def test_a_block_is_used_again_once_all_its_samples_are_gone(network: Network) -> None:
    run = network.run(0, list(IMAGES[:2]))
    kept = run.features[1]
    address = kept.block.buffer.address
    del run
    other = network.run(0, list(IMAGES[:2]))
    assert other.features[0].block.buffer.address != address
    del other, kept
    addresses = {network.run(0, [image]).features[0].block.buffer.address for image in IMAGES}
    assert len(addresses) == 1


def test_a_run_that_fails_says_which_and_changes_nothing(network: Network) -> None:
    expected = run_alone(network, 1, 0)
    with pytest.raises(BackendError, match="segment 1 failed on a batch of 16"):
        network.run(1, list(network.run(0, list(IMAGES)).features) * 2)
    np.testing.assert_array_equal(run_alone(network, 1, 0), expected)


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


def take(name: str, type: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        value(model, name).type.tensor_type.elem_type = type

    return edit


def take_no_rows(model: onnx.ModelProto) -> None:
    """The graph of a bundle of schema 1, which runs on all that it is given."""
    del model.graph.input[1]
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Identity", ["features"], ["x"]))


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
        ("segment0.onnx", rename("input", "pixels"), r"takes \['pixels'\].* must take \['input'\]"),
        ("segment1.onnx", rename("features", "x0"), r"must take \['features', 'rows'\]"),
        (
            "segment1.onnx",
            take_no_rows,
            r"takes \['features'\] .* must take \['features', 'rows'\]",
        ),
        ("segment1.onnx", rename("confidence", "score"), "confidence"),
        ("segment2.onnx", rename("logits", "scores"), "logits"),
        ("segment0.onnx", fix_batch("input"), r"takes input \[1, 4.* must be free, for any batch"),
        ("segment1.onnx", fix_batch("features"), "takes features .* must be free"),
        ("segment1.onnx", fix_batch("rows"), r"takes rows \[1\]; its first size must be free"),
        ("segment1.onnx", widen("features"), r"the manifest says \[16\]"),
        (
            "segment0.onnx",
            take("input", onnx.TensorProto.FLOAT),
            "takes input as float32; it must be uint8",
        ),
        (
            "segment1.onnx",
            take("rows", onnx.TensorProto.INT32),
            "takes rows as int32; it must be int64",
        ),
        ("segment1.onnx", add_class, r"gives logits .* the manifest says \[4\]"),
        ("segment1.onnx", shrink_features, r"gives features_out .* the manifest says \[16\]"),
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
        edit=lambda files: files.update({"segment1.onnx": b"no graph"}),
        calibration_samples=50,
    )
    with pytest.raises(BackendError, match=r"segment1\.onnx does not load"):
        OnnxBackend("cpu", 1).load(load_bundle(folder))


def test_the_last_segment_gives_no_features(
    write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    def swap(files: dict[str, bytes]) -> None:
        files["segment2.onnx"] = files["segment1.onnx"]

    folder = write_bundle(tmp_path / "tiny", edit=swap, calibration_samples=50)
    with pytest.raises(BackendError, match=r"segment2\.onnx takes .* and give"):
        OnnxBackend("cpu", 1).load(load_bundle(folder))
