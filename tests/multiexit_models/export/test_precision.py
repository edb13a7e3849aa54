from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch: delen[train]")
from torch import nn  # noqa: E402

onnx = pytest.importorskip("onnx", reason="exporting needs onnx: delen[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: delen[train]")

from onnx import TensorProto, numpy_helper  # noqa: E402

from delen.bundle.confidence import MARGIN  # noqa: E402
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.calibrate.temperature import fit_temperature  # noqa: E402
from multiexit_models.export.chain import open_segment  # noqa: E402
from multiexit_models.export.exported import (  # noqa: E402
    Exported,
    chain_logits,
    check_chain,
    export_network,
    finish,
)
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.train.training import predict  # noqa: E402
from multiexit_models.zoo.registry import zoo_entry  # noqa: E402
from tests.multiexit_models import tiny  # noqa: E402

TRAINED_ON = 1200
RANGES_FROM = 300


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = tiny.digits()
    return data.inputs, data.labels


@pytest.fixture(scope="module")
def network(digits) -> MultiExitNetwork:
    torch.manual_seed(0)
    first = nn.Sequential(
        tiny.DigitPlanes(),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    second = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU())
    network = MultiExitNetwork([first, second], [head(16), head(24)])
    images, labels = (torch.from_numpy(part[:TRAINED_ON]) for part in digits)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(8):
        for chosen in torch.randperm(TRAINED_ON).split(100):
            losses = [
                nn.functional.cross_entropy(logits, labels[chosen])
                for logits in network(images[chosen])
            ]
            optimiser.zero_grad()
            torch.autograd.backward(sum(losses))
            optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def exported(network, digits) -> dict[str, Exported]:
    images, _ = digits
    return {
        precision: export_network(
            network,
            images[:1],
            name="digits-1",
            max_batch=16,
            precision=precision,
            calibration_inputs=images[:RANGES_FROM],
        )
        for precision in ("fp32", "fp16", "int8")
    }


def weight_types(exported: Exported) -> set[int]:
    """Types of all initializers that are no scalars, biases or shapes."""
    return {
        tensor.data_type
        for model in exported.stages.models
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1
    }


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits_keep_the_accuracy(exported, digits, precision: str) -> None:
    images, labels = (part[TRAINED_ON:] for part in digits)

    def accuracy(one: Exported) -> np.ndarray:
        return (chain_logits(one, images).argmax(axis=2) == labels).mean(axis=1)

    whole = accuracy(exported["fp32"])
    assert whole[1] > 0.93
    assert np.abs(accuracy(exported[precision]) - whole).max() <= 0.015
    assert exported[precision].features == exported["fp32"].features


def test_a_text_network_opens_in_float16() -> None:
    """One of ONNX Runtime's own optimisations crashed the process here."""
    entry = zoo_entry("text-bytes")
    texts = np.full((5, 64), ord("a"), np.uint8)
    network = entry.make(3, (64,), None).eval()
    one = export_network(network, texts[:1], name="t", max_batch=4, precision="fp16")
    assert chain_logits(one, texts).shape == (entry.exits, 5, 3)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_converted_chain_is_calibrated_by_its_own_logits(
    network, exported, digits, precision: str
) -> None:
    images, labels = (part[TRAINED_ON:] for part in digits)
    one = exported[precision]
    logits = chain_logits(one, images)
    assert not np.array_equal(logits, chain_logits(exported["fp32"], images))
    temperatures = [fit_temperature(of_exit, labels) for of_exit in logits]
    files = finish(one, MARGIN, temperatures)
    expected = predict(network, images[:50], device="cpu")
    differences = check_chain(expected, files, one, MARGIN, temperatures, images[:50])
    assert max(differences) > 0


def test_weights_have_the_precision(exported) -> None:
    assert weight_types(exported["fp32"]) == {TensorProto.FLOAT}
    assert weight_types(exported["fp16"]) == {TensorProto.FLOAT16}
    assert weight_types(exported["int8"]) == {TensorProto.INT8, TensorProto.FLOAT}


def test_int8_keeps_the_layer_of_the_logits(exported) -> None:
    for model in exported["int8"].stages.models:
        floats = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        producers = {output: node for node in model.graph.node for output in node.output}
        assert producers["logits"].op_type == "Gemm"
        assert producers["logits"].input[1] in floats


def test_int8_weights_have_seven_bits_and_a_scale_a_channel(exported) -> None:
    for model in exported["int8"].stages.models:
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        weights = {name: values for name, values in tensors.items() if values.ndim == 4}
        assert weights
        for name, values in weights.items():
            assert np.abs(values.astype(int)).max() <= 64
            (scale,) = [
                tensors[node.input[1]] for node in model.graph.node if node.input[0] == name
            ]
            assert len(np.unique(scale)) > 1
            assert scale.shape == values.shape[:1]


def test_a_segment_is_calibrated_on_what_its_predecessor_gives(exported, digits) -> None:
    first = exported["fp32"].stages.models[0].SerializeToString()
    features = open_segment(first, "onnx")(digits[0][:RANGES_FROM])[-1]
    graph = exported["int8"].stages.models[1].graph
    taken = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    scale = {tensor.name: tensor for tensor in graph.initializer}[taken.input[1]]
    spread = features.max() - min(0.0, features.min())
    assert numpy_helper.to_array(scale) == pytest.approx(spread / 255, rel=1e-3)


class Power(nn.Module):
    """Squares of filtered PCM, far beyond what float16 holds, and their logarithms."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.linspace(-1, 1, 32).reshape(4, 1, 8))

    def forward(self, pcm):
        power = nn.functional.conv1d(pcm.float()[:, None], self.filters, stride=4).square()
        return (power + 1).log()[:, None] / 10


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_preprocessing_stays_as_it_is(precision: str) -> None:
    torch.manual_seed(0)
    segment = nn.Sequential(Power(), nn.Conv2d(1, 3, 3), nn.ReLU())
    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network = MultiExitNetwork([segment], [last]).eval()
    sounds = np.random.default_rng(0).integers(-(2**15), 2**15, (64, 64), dtype=np.int16)
    one = export_network(
        network,
        sounds[:1],
        name="sounds",
        max_batch=16,
        precision=precision,
        calibration_inputs=sounds,
    )
    (filters,) = [
        tensor
        for tensor in one.stages.models[0].graph.initializer
        if tensor.name == "segment.0.filters"
    ]
    assert filters.data_type == TensorProto.FLOAT
    with torch.no_grad():
        expected = network(torch.from_numpy(sounds))[0].numpy()
    assert np.abs(chain_logits(one, sounds)[0] - expected).max() < 0.02


def test_int8_without_inputs_is_refused(network, digits) -> None:
    for none in (None, digits[0][:0]):
        with pytest.raises(InvalidInput, match="int8 needs inputs") as caught:
            export_network(
                network,
                digits[0][:1],
                name="n",
                max_batch=2,
                precision="int8",
                calibration_inputs=none,
            )
        assert caught.value.field == "calibration_inputs"
