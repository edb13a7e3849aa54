"""Every network of the zoo, with random weights and small inputs, through export and check."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="exporting needs torch: delen[train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx: delen[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: delen[train]")
pytest.importorskip("torchvision", reason="the zoo needs torchvision: delen[train]")
pytest.importorskip("transformers", reason="the zoo needs transformers: delen[train]")

from delen.bundle.confidence import MAX_PROBABILITY  # noqa: E402
from multiexit_models.export.exported import check_chain, export_network, finish  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.train.training import predict  # noqa: E402
from multiexit_models.zoo.registry import ZOO, ZooEntry  # noqa: E402

CLASSES = 7
SMALL = {"image": (64, 64, 3), "audio": (8000,), "text": (48,)}
DTYPES = {"image": np.uint8, "audio": np.int16, "text": np.uint8}
QUICK = ("residual-cifar", "resnet18", "mobilenet-v3-small", "audio-digits", "text-bytes")
"""One of most families, which export in seconds; `make zoo` runs them all."""
CHAINS = [
    pytest.param(name, runtime, marks=() if name in QUICK else pytest.mark.zoo)
    for name in ZOO
    for runtime in ("onnx", "torch")
]


def small_inputs(entry: ZooEntry) -> NDArray[np.generic]:
    shape = tuple(map(min, entry.shape, SMALL[entry.kind]))
    limits = np.iinfo(DTYPES[entry.kind])
    rng = np.random.default_rng(0)
    return rng.integers(limits.min, limits.max + 1, (12, *shape), dtype=limits.dtype)


def make(entry: ZooEntry, inputs: NDArray[np.generic]) -> MultiExitNetwork:
    """Random weights; norms that know ``inputs``, without which deep features would vanish."""
    torch.manual_seed(0)
    network = entry.make(CLASSES, inputs.shape[1:], None)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(inputs))
    return network.eval()


@pytest.mark.parametrize(("name", "runtime"), CHAINS)
def test_the_exported_chain_computes_what_torch_computes(name: str, runtime: str) -> None:
    entry = ZOO[name]
    inputs = small_inputs(entry)
    network, temperatures = make(entry, inputs), [1.3] * entry.exits
    exported = export_network(network, inputs[:1], name=name, max_batch=4, runtime=runtime)
    files = finish(exported, MAX_PROBABILITY, temperatures)
    expected = predict(network, inputs, device="cpu")
    differences = check_chain(expected, files, exported, MAX_PROBABILITY, temperatures, inputs)
    assert len(differences) == entry.exits == len(files)
    with torch.no_grad():
        logits = torch.stack(network(torch.from_numpy(inputs)))
    assert logits.std(dim=1).mean(dim=1).min() > 1e-3, "the answers must depend on the inputs"
    if runtime == "onnx":
        for raw in files.values():
            assert not unfolded_norms(onnx.load_from_string(raw).graph)


def unfolded_norms(graph) -> list[str]:
    """Norms that come right after a convolution, which could have been made part of it."""
    producers = {output: node.op_type for node in graph.node for output in node.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    return [norm.name for norm in norms if producers.get(norm.input[0]) == "Conv"]
