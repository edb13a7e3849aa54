from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse

import pytest

torch = pytest.importorskip("torch", reason="the zoo needs torch: delen[train]")
models = pytest.importorskip(
    "torchvision.models", reason="these networks are torchvision's: delen[train]"
)

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.macs import cumulative_macs, macs_per_stage  # noqa: E402
from multiexit_models.network import IMAGENET_MEAN, IMAGENET_STD, Normalise  # noqa: E402
from multiexit_models.zoo.registry import ZOO  # noqa: E402
from multiexit_models.zoo.vision import BACKBONES, ENTRIES, Backbone, make_vision  # noqa: E402
from tests.multiexit_models.tiny import random_images  # noqa: E402

SHAPE = (64, 64, 3)
BY_NAME = {backbone.name: backbone for backbone in BACKBONES}
RESNETS = tuple(name for name in BY_NAME if name.startswith("resnet"))
PLACED_BY_COST = tuple(name for name in BY_NAME if name not in RESNETS)


NORMALISE = Normalise(IMAGENET_MEAN, IMAGENET_STD)


def randomise(network: torch.nn.Module) -> None:
    """Norms as a trained network has them, so that no mistake hides behind ones and zeros.

    Their statistics are near those of real activations: with others a deep network's signal dies
    away, and every image gets the same logits.
    """
    generator = torch.Generator().manual_seed(7)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.1, generator=generator)
        norm.train().momentum = 1.0
    with torch.no_grad():
        network(NORMALISE(random_images(8, 64, 64)))
    for norm in norms:
        norm.running_mean.mul_(torch.empty_like(norm.bias).uniform_(0.8, 1.2, generator=generator))
        norm.running_var.mul_(torch.empty_like(norm.bias).uniform_(0.8, 1.2, generator=generator))


def weights_file(cache: Path, backbone: Backbone) -> Path:
    """Where torchvision looks for the weights of ``backbone`` before it downloads them."""
    weights = models.get_model_weights(backbone.torchvision_name).DEFAULT
    folder = cache / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / Path(urlparse(weights.url).path).name


def load_with_cache(cache: Path, backbone: Backbone, closed_url: str, classes: int = 1000):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(cache))
        for proxy in ("http_proxy", "https_proxy"):
            patch.setenv(proxy, closed_url)  # nobody listens: no test downloads
        return make_vision(backbone, classes, SHAPE, "DEFAULT")


@pytest.fixture(scope="module", params=BY_NAME)
def member(request, tmp_path_factory: pytest.TempPathFactory, closed_url: str):
    """A member of the zoo and torchvision's own network, both with the same "trained" weights."""
    backbone, cache = BY_NAME[request.param], tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    own = models.get_model(backbone.torchvision_name, weights=None)
    randomise(own)
    file = weights_file(cache, backbone)
    torch.save(own.state_dict(), file)
    network = load_with_cache(cache, backbone, closed_url)
    file.unlink()
    return SimpleNamespace(backbone=backbone, own=own.eval(), network=network.eval())


def test_last_exit_is_torchvisions_own_answer(member) -> None:
    batch = random_images(3, 64, 64)
    with torch.no_grad():
        expected = member.own(NORMALISE(batch))
        logits = member.network(batch)
    assert len(logits) == member.backbone.exits
    assert all(exit.shape == (3, 1000) for exit in logits)
    assert (expected[0] - expected[1]).abs().max() > 1e-2  # else any answer would do
    assert (logits[-1] - expected).abs().max() <= 1e-5


def test_images_are_normalised_as_torchvision_does() -> None:
    transform = models.ResNet18_Weights.DEFAULT.transforms()
    assert (tuple(transform.mean), tuple(transform.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    batch = random_images(2, 64, 64)
    expected = (batch / 255 - torch.tensor(transform.mean)) / torch.tensor(transform.std)
    torch.testing.assert_close(NORMALISE(batch), expected.permute(0, 3, 1, 2))


def test_trunk_and_last_head_have_torchvisions_parameters(member) -> None:
    early = sum(
        weight.numel() for head in member.network.heads[:-1] for weight in head.parameters()
    )
    total = sum(weight.numel() for weight in member.network.parameters())
    published = models.get_model_weights(member.backbone.torchvision_name).DEFAULT
    assert total - early == published.meta["num_params"]


def test_every_exit_costs_more_than_the_one_before(member) -> None:
    macs = cumulative_macs(member.network, random_images(1, 64, 64))
    assert len(macs) == member.backbone.exits
    assert macs == sorted(set(macs))


def test_exits_stand_where_the_cost_says(member) -> None:
    segments, heads = macs_per_stage(member.network, random_images(1, 64, 64))
    total = sum(segments) + heads[-1]
    shares = [reached / total for reached in accumulate(segments)][:-1]
    exits = member.backbone.exits
    wanted = [place / exits for place in range(1, exits)]
    assert shares == pytest.approx(wanted, abs=0.12)


def test_a_batch_is_answered_as_its_images_alone(member) -> None:
    batch = random_images(3, 64, 64)
    with torch.no_grad():
        together = member.network(batch)
        alone = member.network(batch[2:])
    for exit, single in zip(together, alone, strict=True):
        # random weights of this depth magnify the rounding of another batch size
        assert (exit[2:] - single).abs().max() <= 1e-3 * exit.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0", "mobilenet-v3-small"])
def test_other_classes_replace_the_last_layer_alone(name: str) -> None:
    backbone = BY_NAME[name]
    network = make_vision(backbone, 7, SHAPE).eval()
    with torch.no_grad():
        assert [tuple(exit.shape) for exit in network(random_images(2, 64, 64))] == [
            (2, 7)
        ] * backbone.exits
    early = sum(weight.numel() for head in network.heads[:-1] for weight in head.parameters())
    with torch.device("meta"):
        own = models.get_model(backbone.torchvision_name, num_classes=7)
    total = sum(weight.numel() for weight in network.parameters())
    assert total - early == sum(weight.numel() for weight in own.parameters())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0", "mobilenet-v3-small"])
@pytest.mark.parametrize("size", [(32, 32), (75, 49)])
def test_other_sizes_are_answered_as_torchvision_does(name: str, size: tuple[int, int]) -> None:
    backbone = BY_NAME[name]
    torch.manual_seed(1)
    own = models.get_model(backbone.torchvision_name, weights=None)
    randomise(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "get_model", lambda name, **_: own)
        network = make_vision(backbone, 1000, (*size, 3)).eval()
    batch = random_images(2, *size)
    with torch.no_grad():
        logits, expected = network(batch), own.eval()(NORMALISE(batch))
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # else any answer would do
    assert (logits[-1] - expected).abs().max() <= 1e-5
    for early in logits[:-1]:
        assert early.shape == (2, 1000)
        assert (early[0] - early[1]).abs().max() > 1e-3, "an early exit depends on the image"


def test_a_training_step_reaches_every_parameter() -> None:
    network = make_vision(BY_NAME["resnet18"], 3, (32, 32, 3)).train()
    logits = network(random_images(4, 32, 32))
    sum(torch.nn.functional.cross_entropy(exit, torch.arange(4) % 3) for exit in logits).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_weights_that_cannot_be_downloaded_are_refused(tmp_path: Path, closed_url: str) -> None:
    with pytest.raises(InvalidInput, match=r"could not load the weights IMAGENET1K_V1") as refused:
        load_with_cache(tmp_path, BY_NAME["resnet18"], closed_url)
    assert refused.value.field == "weights"
    assert str(tmp_path / "hub" / "checkpoints") in str(refused.value)


def test_damaged_weights_are_refused(tmp_path: Path, closed_url: str) -> None:
    for contents in (b"", b"no weights at all"):
        weights_file(tmp_path, BY_NAME["resnet18"]).write_bytes(contents)
        with pytest.raises(InvalidInput, match="could not load the weights") as refused:
            load_with_cache(tmp_path, BY_NAME["resnet18"], closed_url)
        assert refused.value.field == "weights"


@pytest.mark.parametrize(
    ("classes", "shape", "weights", "field", "says"),
    [
        (5, SHAPE, "BEST", "weights", "no weights 'BEST' for resnet18; it has IMAGENET1K_V1"),
        (5, (64, 64), None, "shape", "at least 32 pixels"),
        (5, (64, 31, 3), None, "shape", "at least 32 pixels"),
        (1, SHAPE, None, "classes", "at least 2 classes, not 1"),
    ],
)
def test_bad_input_is_refused(classes, shape, weights, field: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        ZOO["resnet18"].make(classes, shape, weights)
    assert refused.value.field == field


def test_entries_name_the_exits_and_the_size_of_the_weights() -> None:
    assert {entry.name: (entry.exits, entry.shape[0]) for entry in ENTRIES} == {
        "resnet18": (4, 224),
        "resnet34": (4, 224),
        "resnet50": (4, 224),
        "efficientnet-b0": (3, 224),
        "efficientnet-b1": (3, 240),
        "efficientnet-b2": (3, 288),
        "mobilenet-v3-large": (4, 224),
        "mobilenet-v3-small": (3, 224),
    }
