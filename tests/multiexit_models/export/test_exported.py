from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch: delen[train]")
from torch import Tensor, nn  # noqa: E402

onnx = pytest.importorskip("onnx", reason="exporting needs onnx: delen[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: delen[train]")

from delen.bundle.confidence import CRITERIA, MAX_PROBABILITY, PATIENCE, confidences  # noqa: E402
from delen.bundle.manifest import load_bundle  # noqa: E402
from delen.errors import BundleError, InvalidInput  # noqa: E402
from multiexit_models.calibrate.temperature import softmax  # noqa: E402
from multiexit_models.data import cifar  # noqa: E402
from multiexit_models.export.chain import all_rows, batches, open_segment, walk  # noqa: E402
from multiexit_models.export.exported import (  # noqa: E402
    Exported,
    chain_logits,
    check_chain,
    export_network,
    finish,
)
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.train.training import predict  # noqa: E402
from tests.multiexit_models.tiny import head, normalise, spread_norms  # noqa: E402

CLASSES = 3


class Spectrum(nn.Module):
    """int16 ``[batch, samples]`` to log powers ``[batch, 1, bands, frames]`` by fixed filters."""

    filters: Tensor

    def __init__(self, bands: int = 8, window: int = 16) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(bands), torch.arange(window)) * torch.pi / window
        self.register_buffer("filters", angles.cos()[:, None])

    def forward(self, pcm: Tensor) -> Tensor:
        samples = pcm.float()[:, None]
        power = nn.functional.conv1d(samples, self.filters, stride=8).square()
        return (power + 1).log()[:, None] / 10


class Embed(nn.Module):
    """uint8 ``[batch, bytes]`` to float32 ``[batch, bytes, 6]``."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 6)

    def forward(self, text: Tensor) -> Tensor:
        embedded: Tensor = self.table(text.long())
        return embedded


class Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(1)


class TwoScales(nn.Module):
    """Two maps of different sizes, packed into one row a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 3, padding=1)
        self.coarse = nn.Conv2d(3, 2, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        planes = images.permute(0, 3, 1, 2).float() / 255
        return torch.cat([self.fine(planes).flatten(1), self.coarse(planes).flatten(1)], 1)


class FromTwoScales(nn.Module):
    def forward(self, packed: Tensor) -> Tensor:
        fine, coarse = packed.split([4 * 8 * 8, 2 * 4 * 4], dim=1)
        small = nn.functional.avg_pool2d(fine.unflatten(1, (4, 8, 8)), 2)
        return torch.cat([small, coarse.unflatten(1, (2, 4, 4))], dim=1)


def images() -> MultiExitNetwork:
    first = nn.Sequential(normalise(), nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6))
    second = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
    return MultiExitNetwork([first, second], [head(6, CLASSES), head(8, CLASSES)])


def audio() -> MultiExitNetwork:
    first = nn.Sequential(Spectrum(), nn.Conv2d(1, 4, 3), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
    return MultiExitNetwork([first, second], [head(4, CLASSES), head(6, CLASSES)])


def text() -> MultiExitNetwork:
    layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, dropout=0.0)
    heads = [nn.Sequential(Mean(), nn.Linear(6, CLASSES)) for _ in range(2)]
    return MultiExitNetwork([Embed(), layer], heads)


def packed() -> MultiExitNetwork:
    first = nn.Linear(4 * 8 * 8 + 2 * 4 * 4, CLASSES)
    return MultiExitNetwork([TwoScales(), FromTwoScales()], [first, head(6, CLASSES)])


MAKERS = {
    "images": (images, (8, 8, 3), "uint8"),
    "audio": (audio, (96,), "int16"),
    "text": (text, (12,), "uint8"),
    "packed": (packed, (8, 8, 3), "uint8"),
}


def make_network(kind: str) -> MultiExitNetwork:
    """The network of ``kind``, its norms' statistics unlike those of a fresh one."""
    torch.manual_seed(0)
    network = MAKERS[kind][0]()
    spread_norms(network)
    return network.eval()


def make_inputs(kind: str, count: int = 24):
    _, shape, dtype = MAKERS[kind]
    limits = np.iinfo(dtype)
    return np.random.default_rng(0).integers(
        limits.min, limits.max + 1, (count, *shape), dtype=dtype
    )


KINDS = tuple(MAKERS)
TEMPERATURES = [0.7, 1.0]
SHIPPED = Path(__file__).resolve().parents[3] / "multiexit_models" / "bundles" / "cifar10-resnet"


def run_chain(graphs, inputs, sizes: list[int], runtime: str):
    """Logits [exits, n, classes] and confidences [exits, n] of the graphs in a chain."""
    segments = [open_segment(graph, runtime) for graph in graphs]
    walks = [
        [outputs for _, outputs in walk(segments, batch, all_rows)]
        for batch in batches(inputs, sizes)
    ]
    return tuple(
        np.concatenate([np.stack([outputs[index] for outputs in one]) for one in walks], axis=1)
        for index in (0, 1)
    )


def export(kind: str, runtime: str = "onnx", **changes) -> Exported:
    network, sample = make_network(kind), make_inputs(kind)[:1]
    options = {"name": "some-2", "max_batch": 8, "runtime": runtime, **changes}
    return export_network(network, sample, **options)


@pytest.fixture(scope="module")
def exported() -> dict[tuple[str, str], Exported]:
    return {
        (kind, runtime): export(kind, runtime) for kind in KINDS for runtime in ("onnx", "torch")
    }


@pytest.fixture(scope="module")
def finished(exported) -> dict[tuple[str, str], dict[str, bytes]]:
    """Every network in both runtimes, by the largest probability."""
    return {key: finish(one, MAX_PROBABILITY, TEMPERATURES) for key, one in exported.items()}


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_chain_computes_what_torch_computes(exported, finished, kind: str, runtime: str) -> None:
    key, inputs = (kind, runtime), make_inputs(kind)
    expected = predict(make_network(kind), inputs, device="cpu")
    differences = check_chain(
        expected, finished[key], exported[key], MAX_PROBABILITY, TEMPERATURES, inputs
    )
    assert len(differences) == 2
    assert max(differences) <= 1e-4
    assert np.abs(chain_logits(exported[key], inputs, 5) - expected).max() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_names_types_and_free_axes(exported, finished, kind: str) -> None:
    _, shape, dtype = MAKERS[kind]
    features = list(exported[kind, "onnx"].features[0])
    files = finished[kind, "onnx"]
    assert list(files) == ["segment0.onnx", "segment1.onnx"]
    for index, raw in enumerate(files.values()):
        model = onnx.load_from_string(raw)
        described = [
            (
                value.name,
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
            )
            for value in [*model.graph.input, *model.graph.output]
        ]
        inputs = (
            [("input", dtype, ["batch", *shape])]
            if index == 0
            else [("features", "float32", ["stored", *features]), ("rows", "int64", ["batch"])]
        )
        outputs = [
            ("logits", "float32", ["batch", CLASSES]),
            ("confidence", "float32", ["batch"]),
            ("features_out", "float32", ["batch", *features]),
        ]
        assert described == inputs + outputs[: 3 - index]
        assert model.graph.name == f"some-2-segment{index}"
        assert [opset.version for opset in model.opset_import if not opset.domain] == [18]


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_gathered_in_their_order(finished, kind: str, runtime: str) -> None:
    first, second = (open_segment(raw, runtime) for raw in finished[kind, runtime].values())
    *_, features = first(make_inputs(kind)[:6])
    logits, confidence = second(features, np.arange(6))
    for rows in ([4, 1], [3], [0, 0, 5, 2, 1, 4, 3]):
        chosen, chosen_confidence = second(features, np.array(rows))
        assert np.abs(chosen - logits[rows]).max() <= 1e-5
        assert np.abs(chosen_confidence - confidence[rows]).max() <= 1e-5


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_confidence_is_the_criterion_of_scaled_logits(exported, criterion: str, runtime: str):
    inputs = make_inputs("images")
    files = finish(exported["images", runtime], criterion, TEMPERATURES)
    logits, found = run_chain(tuple(files.values()), inputs, [4], runtime)
    computed = MAX_PROBABILITY if criterion == PATIENCE else criterion
    cooled = softmax(logits / np.array(TEMPERATURES, np.float32)[:, None, None])
    assert np.abs(found - confidences(computed, cooled)).max() <= 1e-5
    assert np.abs(logits - chain_logits(exported["images", runtime], inputs)).max() <= 1e-5


def test_temperature_of_a_graph_is_a_scalar_that_can_be_set(finished) -> None:
    raw = finished["images", "onnx"]["segment0.onnx"]
    model = onnx.load_from_string(raw)
    (found,) = [one for one in model.graph.initializer if one.name.endswith("temperature")]
    assert onnx.numpy_helper.to_array(found) == np.float32(0.7)
    found.CopyFrom(onnx.numpy_helper.from_array(np.float32(3.0), found.name))
    images = make_inputs("images")
    logits, confidence, _ = open_segment(model.SerializeToString(), "onnx")(images)
    assert confidence == pytest.approx(softmax(logits / 3).max(axis=1), abs=1e-6)
    assert (logits == open_segment(raw, "onnx")(images)[0]).all()


def test_temperature_of_a_program_is_a_buffer_that_can_be_set(finished) -> None:
    program = torch.export.load(io.BytesIO(finished["images", "torch"]["segment0.pt2"]))
    (name,) = [name for name, _ in program.named_buffers() if name.endswith("temperature")]
    program.state_dict[name].fill_(3.0)
    with torch.no_grad():
        logits, confidence, _ = program.module()(torch.from_numpy(make_inputs("images", 8)))
    expected = torch.softmax(logits / 3, dim=1).amax(dim=1)
    assert torch.allclose(confidence, expected, atol=1e-6)


def test_files_name_no_path_of_this_machine(finished) -> None:
    for files in finished.values():
        for raw in files.values():
            for path in (sys.prefix, str(Path(torch.__file__).parent), str(Path.cwd()), ".py"):
                assert path.encode() not in raw


def test_norms_after_a_convolution_are_folded(finished) -> None:
    graph = onnx.load_from_string(finished["images", "onnx"]["segment0.onnx"]).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_same_network_gives_the_same_bytes(finished) -> None:
    again = finish(export("images"), MAX_PROBABILITY, TEMPERATURES)
    assert again == finished["images", "onnx"]


def test_export_leaves_the_network_as_it_was() -> None:
    network = make_network("images").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_network(network, make_inputs("images")[:1], name="n", max_batch=2, runtime="torch")
    assert isinstance(network.heads[1][0], nn.AdaptiveAvgPool2d)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_graphs_of_another_network_are_refused(exported, finished) -> None:
    other = make_network("images")
    nn.init.normal_(other.heads[1][2].weight)
    key, inputs = ("images", "onnx"), make_inputs("images")
    logits = predict(other, inputs, device="cpu")
    with pytest.raises(BundleError, match=r"exit 1 .* differs from the network"):
        check_chain(logits, finished[key], exported[key], MAX_PROBABILITY, TEMPERATURES, inputs)


@pytest.mark.parametrize(
    ("criterion", "temperatures"), [(MAX_PROBABILITY, [0.7, 1.5]), ("entropy", [0.7, 1.0])]
)
def test_confidences_of_another_rule_are_refused(
    exported, finished, criterion: str, temperatures: list[float]
) -> None:
    inputs, key = make_inputs("images"), ("images", "onnx")
    logits = predict(make_network("images"), inputs, device="cpu")
    with pytest.raises(BundleError, match=f"is not the {criterion} of its logits"):
        check_chain(logits, finished[key], exported[key], criterion, temperatures, inputs)


class Fixed(nn.Module):
    def forward(self, images):
        return images.float().reshape(int(images.shape[0]), 12)


class Flat(nn.Module):
    def forward(self, images):
        return images.float().flatten(1)


class Mixed(nn.Module):
    def forward(self, images):
        return images.float().reshape(-1, 3)


class Pair(nn.Module):
    def forward(self, images):
        return images.float().flatten(1), images.float()


class Double(nn.Module):
    def forward(self, images):
        return images.double().flatten(1)


SMALL = np.zeros((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_network_that_fixes_its_batch_is_refused(runtime: str) -> None:
    network = MultiExitNetwork([Fixed()], [nn.Linear(12, 2)])
    with pytest.raises(BundleError, match=r"fixed-segment0.*(free batch|fixes its batch)"):
        export_network(network, SMALL, name="fixed", max_batch=4, runtime=runtime)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Pair(), "segment 0 returns a tuple, not one tensor"),
        (Double(), "segment 0 returns torch.float64"),
        (Mixed(), "for a batch of 3"),
    ],
)
def test_features_that_are_no_float32_tensor_are_refused(segment, message: str) -> None:
    network = MultiExitNetwork([segment], [nn.Linear(12, 2)])
    with pytest.raises(InvalidInput, match=message):
        export_network(network, SMALL, name="n", max_batch=4)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([nn.Linear(12, 1)] * 2, r"head 0 returns torch.float32 \[3, 1\]"),
        ([nn.Identity(), nn.Linear(12, 2)], "head 1 has 2 classes, not 12"),
    ],
)
def test_heads_that_do_not_fit_are_refused(heads, message: str) -> None:
    segments = [Flat(), nn.Identity()]
    with pytest.raises(InvalidInput, match=message):
        export_network(MultiExitNetwork(segments, heads), SMALL, name="n", max_batch=4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"runtime": "tflite"}, "runtime"),
        ({"precision": "fp8"}, "precision"),
        ({"runtime": "torch", "precision": "fp16"}, "precision"),
    ],
)
def test_what_cannot_be_made_is_refused(changes: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        export("images", **changes)
    assert caught.value.field == field


def test_confidences_that_cannot_be_made_are_refused(exported) -> None:
    with pytest.raises(InvalidInput, match="not 'luck'"):
        finish(exported["images", "onnx"], "luck", TEMPERATURES)
    with pytest.raises(ValueError, match="3 temperatures for 2 segments"):
        finish(exported["images", "onnx"], MAX_PROBABILITY, [1.0] * 3)


def test_logits_that_are_no_numbers_are_refused() -> None:
    network = make_network("images")
    nn.init.constant_(network.heads[0][2].bias, torch.inf)
    one = export_network(network, make_inputs("images")[:1], name="n", max_batch=4, runtime="torch")
    with pytest.raises(BundleError, match="exit 0 of n in fp32 has logits that are not finite"):
        chain_logits(one, make_inputs("images"))


def test_batches_of_all_sizes_cover_the_inputs() -> None:
    assert [len(batch) for batch in batches(np.zeros(10), [1, 3, 4])] == [1, 3, 4, 2]


@pytest.fixture(scope="module")
def shipped():
    return load_bundle(SHIPPED)


def run_shipped(shipped, images, sizes: list[int]):
    graphs = [shipped.graph(index) for index in range(len(shipped.exits))]
    return run_chain(graphs, images, sizes, shipped.manifest.runtime)


@pytest.mark.parametrize("size", [1, 3])
def test_shipped_chain_does_not_depend_on_the_batch(shipped, size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    expected = run_shipped(shipped, images, [32])
    for found, wanted in zip(run_shipped(shipped, images, [size]), expected, strict=True):
        assert np.abs(found - wanted).max() <= 1e-4


def test_shipped_chain_keeps_its_promise_on_real_images(shipped, cifar_zip: Path) -> None:
    data = cifar.load(cifar_zip, "test")
    some = data.take(np.random.default_rng(0).permutation(len(data))[:256])
    logits, _ = run_shipped(shipped, some.inputs, [1, 3, 32])
    accuracies = (logits.argmax(axis=2) == some.labels).mean(axis=1)
    promised = [exit.test_accuracy for exit in shipped.exits]
    spread = 3.5 * np.sqrt(np.multiply(promised, np.subtract(1, promised)) / len(some))
    assert (np.abs(accuracies - promised) <= spread).all()
