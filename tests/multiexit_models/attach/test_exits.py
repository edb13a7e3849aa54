from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach import attach_exits  # noqa: E402
from multiexit_models.attach.heads import convolution, image_head  # noqa: E402
from multiexit_models.macs import cumulative_macs, macs_per_stage  # noqa: E402
from multiexit_models.zoo.residual import Residual  # noqa: E402
from tests.multiexit_models.tiny import normalise, spread_norms  # noqa: E402


def plain(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        convolution(3, 8, halve=True),
        Residual(convolution(8, 8)),
        convolution(8, 16, halve=True),
        Residual(convolution(16, 16)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, classes),
    )


def resnet18() -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision: delen[train]")
    return models.resnet18(weights=None, num_classes=7)


def mobilenet() -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision: delen[train]")
    return models.mobilenet_v3_small(weights=None, num_classes=7)


def efficientnet() -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision: delen[train]")
    return models.efficientnet_b0(weights=None, num_classes=7)


def timm_resnet() -> nn.Module:
    timm = pytest.importorskip("timm", reason="needs timm")
    # its dropouts are functions that read the mode, its stochastic depth branches on it
    return timm.create_model(
        "resnet10t", pretrained=False, num_classes=7, drop_rate=0.2, drop_path_rate=0.2
    )


def timm_mobilenet() -> nn.Module:
    timm = pytest.importorskip("timm", reason="needs timm")
    return timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=7)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("make", "places", "exits"),
    [
        (resnet18, ("layer1", "layer2.0", "layer3"), 4),
        (mobilenet, ("features.3", "features.8"), 3),
        (efficientnet, ("features.3", "features.5.1"), 3),
        (timm_resnet, ("layer1", "layer3"), 3),
        (timm_mobilenet, ("blocks.1", "blocks.3"), 3),
        (lambda: plain(7), ("0", "2"), 3),
    ],
)
def test_the_last_exit_is_the_network_itself(
    make: Callable[[], nn.Module], places: tuple[str, ...], exits: int
) -> None:
    module = make()
    spread_norms(module)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    network = attach_exits(module, torch.rand(1, 3, 32, 32), 7, at=places)
    assert len(network.heads) == exits
    own = {id(weight) for weight in module.parameters()}
    early = {id(weight) for head in network.heads[:-1] for weight in head.parameters()}
    assert {id(weight) for weight in network.parameters()} == own | early
    assert not own & early
    network.eval()
    module.eval()
    for batch in (1, 3):
        inputs = torch.rand(batch, 3, 32, 32)
        with torch.no_grad():
            logits = network(inputs)
            assert (logits[-1] - module(inputs)).abs().max() <= 1e-5
        assert [tuple(each.shape) for each in logits] == [(batch, 7)] * exits
    after = module.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    segments, heads = macs_per_stage(network, torch.rand(1, 3, 32, 32))
    assert sum(heads[:-1]) <= 0.05 * sum(segments)

    network.train()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(norm.training for norm in norms)
    inputs = torch.rand(4, 3, 32, 32)
    torch.manual_seed(5)
    trained = network(inputs)[-1]
    module.load_state_dict(before)
    module.train()
    torch.manual_seed(5)
    assert torch.allclose(trained, module(inputs), atol=1e-4)
    sum(each.square().mean() for each in network(inputs)).backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_exits_by_number_share_the_cost_and_go_after_blocks() -> None:
    module = resnet18()
    network = attach_exits(module, torch.rand(1, 3, 32, 32), 7, exits=4).eval()
    macs = cumulative_macs(network, torch.rand(1, 3, 32, 32))
    assert len(macs) == 4
    for exit, cost in enumerate(macs, 1):
        assert cost / macs[-1] == pytest.approx(exit / 4, abs=0.1)
    assert attach_exits(module, torch.rand(1, 3, 32, 32), 7, exits=1).eval()(
        torch.rand(2, 3, 32, 32)
    )[0].shape == (2, 7)


def test_raw_input_other_heads_and_other_classes() -> None:
    module = plain()
    network = attach_exits(
        module, torch.rand(1, 3, 16, 16), 9, at=("2", "0"), head=image_head,
        preprocess=normalise(),
    ).eval()  # fmt: skip
    images = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)
    assert [tuple(each.shape) for each in network(images)] == [(5, 9)] * 3
    assert module[-1].out_features == 4
    assert type(network.heads[-1].get_submodule("7")) is nn.Linear
    assert [type(part) for part in network.heads[-1].modules()].count(nn.Dropout) == 1


class Product(nn.Module):
    """A classifier without a layer that could be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight


class OwnLinear(nn.Linear):
    """A layer that torch.fx traces into, as it does into timm's own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight, self.bias)


class TwoHeads(nn.Module):
    """Answers with the mean of two classifiers, as distilled transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.one, self.two = nn.Linear(6, 7), nn.Linear(6, 7)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.body(inputs)
        return (self.one(features) + self.two(features)) / 2


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 7, 1), nn.ReLU(),
                       nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 9, 9)),
        (TwoHeads(), (6,)),
        (nn.Sequential(nn.Linear(6, 6), nn.ReLU(), OwnLinear(6, 7)), (6,)),
        (nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 7)), (6,)),
    ],
    ids=["convolution", "two-heads", "own-layer", "as-wide-before"],
)  # fmt: skip
def test_other_classes_replace_all_layers_that_make_the_logits(module, shape) -> None:
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    network = attach_exits(module, torch.rand(1, *shape), 4, exits=1).eval()
    assert network(torch.rand(2, *shape))[0].shape == (2, 4)
    after = module.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_frozen_segments_learn_nothing_and_heads_do() -> None:
    module = plain()
    network = attach_exits(module, torch.rand(1, 3, 16, 16), 4, exits=3)
    network.segments.requires_grad_(False)
    sum(each.sum() for each in network.eval()(torch.rand(2, 3, 16, 16))).backward()
    assert all(weight.grad is None for weight in network.segments.parameters())
    assert all(weight.grad is not None for weight in network.heads.parameters())
    assert network.heads[-1].get_submodule("7") is module[-1]


class Skipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        stem = self.stem(inputs)
        return self.out(torch.cat([self.body(stem), stem], 1))


FLAT = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("module", "options", "problem", "field"),
    [
        (FLAT, {}, "give either at", "at"),
        (FLAT, {"at": ["0"], "exits": 2}, "give either at", "at"),
        (FLAT, {"at": "0"}, "must be a list of names, not the text '0'", "at"),
        (FLAT, {"at": ["0", "0"]}, "0 and 0 are the same place", "at"),
        (FLAT, {"at": ["3"]}, "after 3 would see the same features", "at"),
        (FLAT, {"at": ["9"]}, "no place '9'", "at"),
        (Skipping(), {"at": ["body"]}, "skip path crosses it, from stem to `cat`", "at"),
        (FLAT, {"exits": 0}, "exits must be 1 or more", "exits"),
        (FLAT, {"exits": 9}, "cut at 1 places of different cost.*at most 2 exits, not 9", "exits"),
        (FLAT, {"exits": 2, "classes": 1}, "classes must be 2 or more", "classes"),
        (Product(), {"exits": 1, "classes": 5}, "3 classes, not 5.*num_classes=5", "classes"),
        (nn.Sequential(FLAT, nn.Softmax(1)), {"exits": 2}, "ends in Softmax", "module"),
        (nn.Sequential(FLAT, nn.Unflatten(1, (3, 1))), {"exits": 2}, r"\[2, 3, 1\]", "module"),
        (FLAT, {"exits": 2, "head": lambda shape, classes: nn.Linear(8, 2)}, r"\[2, 3\]", "head"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(module, options, problem: str, field: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as refused:
        attach_exits(module, torch.rand(1, 6), **({"classes": 3} | options))
    assert refused.value.field == field


def test_half_precision_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must return float32 logits, and returns float64"):
        attach_exits(nn.Linear(6, 3).double(), torch.rand(1, 6).double(), 3, exits=1)


def test_sequences_and_a_module_that_is_its_classifier_alone() -> None:
    steps = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Flatten(), nn.Linear(32, 3)
    )
    network = attach_exits(steps, torch.rand(1, 4, 5), 3, at=["1"]).eval()
    assert [tuple(each.shape) for each in network(torch.rand(2, 4, 5))] == [(2, 3)] * 2
    single = attach_exits(nn.Linear(6, 3), torch.rand(1, 6), 3, exits=1).eval()
    assert single(torch.rand(2, 6))[0].shape == (2, 3)
