"""Where graphs are cut, and what their parts cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="an import needs torch: delen[train]")

import onnx  # noqa: E402
from onnx import helper  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.chain import monolith  # noqa: E402
from delen.bundle.manifest import load_bundle  # noqa: E402
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.export.chain import (  # noqa: E402
    all_rows,
    every_second_row,
    onnx_segment,
    walk,
)
from multiexit_models.imports.classifier import Classifier, read_classifier  # noqa: E402
from multiexit_models.imports.cut import choose_places, cut  # noqa: E402
from multiexit_models.imports.macs import node_macs  # noqa: E402
from multiexit_models.imports.normal_form import observe  # noqa: E402
from multiexit_models.macs import macs_per_stage  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from tests.multiexit_models.imports.graphs import WIDTHS, classifier, images, save  # noqa: E402

SHIPPED = Path(__file__).resolve().parents[3] / "multiexit_models" / "bundles" / "cifar10-resnet"


def read(folder: Path, **form: Any) -> Classifier:
    return read_classifier(save(classifier(**form), folder), mean=(0.5,), std=(0.25,))


def all_places(made: Classifier) -> list[str]:
    """The names, in the file, of all places where the graph can be cut."""
    with pytest.raises(InvalidInput) as refused:
        choose_places(made, 99)
    most = int(str(refused.value).split(" exits, not")[0].split()[-1])
    return [place.name_in_file for place in choose_places(made, most)[0]]


def test_a_chain_is_cut_after_its_activations(tmp_path: Path) -> None:
    assert all_places(read(tmp_path)) == ["relu0", "flat"]


def test_a_skip_path_is_not_cut(tmp_path: Path) -> None:
    names = all_places(read(tmp_path, skip=True))
    assert names == ["relu0", "flat"]


@pytest.mark.parametrize("flatten", ["computed", "expanded"])
def test_a_shape_computed_from_the_input_does_not_tie_the_graph(
    tmp_path: Path, flatten: str
) -> None:
    assert all_places(read(tmp_path, flatten=flatten)) == ["relu0", "flat"]


def test_channels_last_features_are_known(tmp_path: Path) -> None:
    model = classifier()
    graph = model.graph
    (relu,) = [node for node in graph.node if node.output[0] == "relu0"]
    relu.output[0] = "planes"
    mixing = np.eye(WIDTHS[0], dtype=np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(mixing, "mixing"))
    place = list(graph.node).index(relu) + 1
    for node in (
        helper.make_node("Transpose", ["mixed"], ["relu0"], perm=[0, 3, 1, 2]),
        helper.make_node("MatMul", ["bent", "mixing"], ["mixed"]),
        helper.make_node("Sigmoid", ["turned"], ["bent"]),
        helper.make_node("Transpose", ["planes"], ["turned"], perm=[0, 2, 3, 1]),
    ):
        graph.node.insert(place, node)
    made = read_classifier(save(model, tmp_path), mean=(0.5,), std=(0.25,))
    places, _ = choose_places(made, 4)
    found = [(place.name_in_file, place.shape, place.channels_last) for place in places]
    assert found == [
        ("bent", (4, 4, 6), True),
        ("relu0", (6, 4, 4), False),
        ("flat", (8,), False),
    ]


@pytest.mark.parametrize("form", [{}, {"skip": True}, {"flatten": "expanded"}], ids=str)
@pytest.mark.parametrize("go_on", [all_rows, every_second_row])
def test_segments_compute_what_the_file_computes(tmp_path: Path, form: Any, go_on: Any) -> None:
    made = read(tmp_path, **form)
    places, _ = choose_places(made, 3)
    segments = cut(made, places, "n")
    assert [segment.graph.name for segment in segments] == [f"n-segment{k}" for k in range(3)]
    pixels, _ = images(9)
    names = [*(place.name_in_file for place in places), "scores"]
    expected = made.reference.values(pixels, names)
    chain = [onnx_segment(segment.SerializeToString()) for segment in segments]
    for (rows, (features,)), wanted in zip(walk(chain, pixels, go_on), expected, strict=True):
        assert features == pytest.approx(wanted[rows], abs=1e-4)


def test_costs_of_the_shipped_network_are_those_that_torch_counted() -> None:
    bundle = load_bundle(SHIPPED)
    whole = onnx.load_from_string(monolith(bundle))
    seen = observe(whole, np.zeros((1, *bundle.manifest.input.shape), np.uint8))
    macs = node_macs(whole, seen)
    per_segment = [0] * len(bundle.exits)
    for node, cost in zip(whole.graph.node, macs, strict=True):
        per_segment[int(node.output[0][1])] += cost
    assert list(accumulate(per_segment)) == [exit.macs for exit in bundle.exits]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 9, 7)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5)),
        (nn.Linear(8, 5), (8,)),
        (nn.Linear(8, 5), (3, 8)),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), (3, 4)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (5, 8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_costs_of_layers_are_those_that_torch_counts(
    tmp_path: Path, module: nn.Module, shape: Sequence[int]
) -> None:
    if isinstance(module, nn.MultiheadAttention):
        module = Attention(module)
    sample = torch.zeros(1, *shape)
    network = MultiExitNetwork([module], [nn.Identity()]).eval()
    (expected,), _ = macs_per_stage(network, sample)
    program = torch.onnx.export(module.eval(), (sample,), dynamo=True, verbose=False)
    model = program.model_proto
    assert expected > 0
    assert sum(node_macs(model, observe(model, sample.numpy()))) == expected


class Attention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, steps: Any) -> Any:
        return self.attention(steps, steps, steps, need_weights=False)[0]
