from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch: delen[train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx: delen[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: delen[train]")

from delen.bundle import load_bundle  # noqa: E402
from delen.errors import BundleError  # noqa: E402
from multiexit_models import cifar  # noqa: E402
from multiexit_models import export as exporting  # noqa: E402
from multiexit_models.export import check_chain, export_segments, run_chain  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.residual import residual_cifar  # noqa: E402

TEMPERATURES = [0.7, 0.8, 0.9, 1.0, 1.1]
SAMPLE = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
SHIPPED = Path(__file__).resolve().parents[2] / "multiexit_models" / "bundles" / "cifar10-resnet"


@pytest.fixture(scope="module")
def random_images():
    return np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    """The shipped architecture, its norms' statistics unlike those of a fresh network."""
    torch.manual_seed(0)
    network = residual_cifar()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def exported(network):
    return export_segments(network, SAMPLE, TEMPERATURES, "some-2", max_batch=32)


def test_chain_computes_what_torch_computes(network, exported, random_images) -> None:
    differences = check_chain(network, exported[0], TEMPERATURES, random_images, max_batch=32)
    assert len(differences) == 5
    assert max(differences) <= 1e-4


def test_names_types_and_free_batch(network, exported) -> None:
    graphs, shapes = exported
    features = SAMPLE
    for segment, shape in zip(network.segments[:-1], shapes, strict=True):
        with torch.no_grad():
            features = segment(features)
        assert tuple(features.shape[1:]) == shape
    for index, raw in enumerate(graphs):
        model = onnx.load_from_string(raw)
        graph = model.graph
        described = {
            value.name: (
                value.type.tensor_type.elem_type,
                [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
            )
            for value in [*graph.input, *graph.output]
        }
        expected = {
            "logits": (onnx.TensorProto.FLOAT, ["batch", 10]),
            "confidence": (onnx.TensorProto.FLOAT, ["batch"]),
        }
        if index == 0:
            expected["images"] = (onnx.TensorProto.UINT8, ["batch", 32, 32, 3])
        else:
            expected["features"] = (onnx.TensorProto.FLOAT, ["batch", *shapes[index - 1]])
        if index < 4:
            expected["features_out"] = (onnx.TensorProto.FLOAT, ["batch", *shapes[index]])
        assert described == expected
        assert graph.name == f"some-2-segment{index}"
        assert [opset.version for opset in model.opset_import if not opset.domain] == [18]


def test_graphs_are_lean_and_folded(exported) -> None:
    operators = {
        node.op_type for raw in exported[0] for node in onnx.load_from_string(raw).graph.node
    }
    assert not operators & {"BatchNormalization", "Gather", "Range"}


def test_graphs_name_no_path_of_this_machine(exported) -> None:
    for raw in exported[0]:
        for path in (sys.prefix, str(Path(torch.__file__).parent), str(Path.home()), ".py"):
            assert path.encode() not in raw


def test_confidence_is_scaled_and_logits_are_not(network, exported, random_images) -> None:
    logits, confidence = run_chain(exported[0], random_images[:4], [4])
    cooled = logits / np.array(TEMPERATURES, np.float32)[:, None, None]
    exponentials = np.exp(cooled - cooled.max(axis=2, keepdims=True))
    expected = (exponentials / exponentials.sum(axis=2, keepdims=True)).max(axis=2)
    assert confidence == pytest.approx(expected, abs=1e-5)


def test_export_leaves_the_network_as_it_was(network, exported) -> None:
    assert isinstance(network.heads[4][0], torch.nn.AdaptiveAvgPool2d)


def test_graphs_of_another_network_are_refused(network, exported, random_images) -> None:
    torch.manual_seed(1)
    other = residual_cifar().eval()
    with pytest.raises(BundleError, match=r"exit 0 .* differs from torch"):
        check_chain(other, exported[0], TEMPERATURES, random_images[:8], max_batch=4)


def test_wrong_temperature_is_refused(network, exported, random_images) -> None:
    with pytest.raises(BundleError, match="exit 3"):
        check_chain(network, exported[0], [0.7, 0.8, 0.9, 2.0, 1.1], random_images[:8], 4)


def test_network_that_fixes_its_batch_is_refused() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images):
            return images.float().reshape(2, -1)

    network = MultiExitNetwork([Fixed()], [torch.nn.Linear(12, 2)])
    sample = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    with pytest.raises((BundleError, torch.onnx.OnnxExporterError)):
        export_segments(network, sample, [1.0], "fixed", max_batch=4)


def test_a_norm_that_no_convolution_absorbs_is_refused() -> None:
    class Cast(torch.nn.Module):
        def forward(self, images):
            return images.permute(0, 3, 1, 2).float()

    segment = torch.nn.Sequential(Cast(), torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    network = MultiExitNetwork([segment], [torch.nn.Linear(12, 2)]).eval()
    with pytest.raises(BundleError, match="BatchNormalization"):
        export_segments(
            network, torch.zeros(1, 2, 2, 3, dtype=torch.uint8), [1.0], "norm", max_batch=4
        )


def test_batches_of_all_sizes_cover_the_inputs() -> None:
    assert exporting._batch_edges(10, [1, 3, 4]) == [0, 1, 4, 8, 10]


@pytest.fixture(scope="module")
def shipped():
    return load_bundle(SHIPPED)


@pytest.mark.parametrize("size", [1, 3])
def test_shipped_chain_does_not_depend_on_the_batch(shipped, random_images, size: int) -> None:
    graphs = [shipped.graph(index) for index in range(len(shipped.exits))]
    images = random_images[:32]
    expected = run_chain(graphs, images, [32])
    for found, wanted in zip(run_chain(graphs, images, [size]), expected, strict=True):
        assert np.abs(found - wanted).max() <= 1e-4


def test_shipped_chain_keeps_its_promise_on_real_images(shipped, cifar_zip: Path) -> None:
    data = cifar.load(cifar_zip, "test")
    some = data.take(np.random.default_rng(0).permutation(len(data))[:256])
    graphs = [shipped.graph(index) for index in range(len(shipped.exits))]
    logits, _ = run_chain(graphs, some.images, [1, 3, 32])
    accuracies = (logits.argmax(axis=2) == some.labels).mean(axis=1)
    promised = [exit.test_accuracy for exit in shipped.exits]
    spread = 3.5 * np.sqrt(np.multiply(promised, np.subtract(1, promised)) / len(some))
    assert (np.abs(accuracies - promised) <= spread).all()
