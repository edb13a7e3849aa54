from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the zoo needs torch: delen[train]")

from torch.nn import functional as F  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.macs import cumulative_macs  # noqa: E402
from multiexit_models.network import MultiExitNetwork  # noqa: E402
from multiexit_models.zoo.msdnet import (  # noqa: E402
    CIFAR,
    ENTRIES,
    IMAGENET,
    build_msdnet,
    msdnet_cifar,
    msdnet_imagenet,
)
from multiexit_models.zoo.msdnet_layers import (  # noqa: E402
    Coarsest,
    DenseLayer,
    Form,
    Stem,
    Transition,
    Unpack,
    pack,
)
from tests.multiexit_models.tiny import normalise, random_images  # noqa: E402

TINY = Form(
    factors=(1, 2, 2),
    bottlenecks=(1, 2, 2),
    channels=4,
    growth=4,
    first_exit=2,
    exit_step=2,
    exits=3,
    halvings=0,
    head_channels=None,
)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


def tiny(form: Form = TINY, size: tuple[int, int] = (16, 16)) -> MultiExitNetwork:
    return build_msdnet(form, 3, size, normalise())


def layers(network: MultiExitNetwork, kind: type) -> list:
    return [
        layer for segment in network.segments for layer in segment.layers if type(layer) is kind
    ]


def test_cost_of_the_imagenet_form_is_that_published() -> None:
    with torch.device("meta"):  # counting needs shapes alone
        network = msdnet_imagenet(1000, (224, 224, 3)).eval()
        macs = cumulative_macs(network, torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    published = [0.34e9, 0.69e9, 1.01e9, 1.25e9, 1.36e9]
    assert macs == pytest.approx(published, rel=0.02)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(24, abs=1)


def test_cost_of_the_first_cifar_exit_is_that_published() -> None:
    macs = cumulative_macs(msdnet_cifar(10, (32, 32, 3)).eval(), random_images(1, 32, 32))
    assert macs[0] == pytest.approx(15e6, rel=0.02)
    assert macs == sorted(set(macs))


def test_forms_are_those_of_the_paper() -> None:
    assert CIFAR.exit_layers == (4, 6, 8, 10, 12)
    assert [CIFAR.growth * factor for factor in CIFAR.factors] == [6, 12, 24]
    assert [CIFAR.finest(layer) for layer in range(13)] == [0] * 5 + [1] * 4 + [2] * 4
    assert IMAGENET.exit_layers == (4, 8, 12, 16, 20)
    assert [IMAGENET.growth * factor for factor in IMAGENET.factors] == [16, 32, 64, 64]
    assert [IMAGENET.finest(layer) for layer in range(1, 21)] == [
        scale for scale in range(4) for _ in range(5)
    ]


def test_stem_halves_from_scale_to_scale() -> None:
    scales = Stem(CIFAR)(torch.zeros(2, 3, 32, 32))
    assert [tuple(scale.shape) for scale in scales] == [
        (2, 16, 32, 32),
        (2, 32, 16, 16),
        (2, 64, 8, 8),
    ]
    scales = Stem(IMAGENET)(torch.zeros(1, 3, 224, 224))
    assert [tuple(scale.shape[1:]) for scale in scales] == [
        (32, 56, 56),
        (64, 28, 28),
        (128, 14, 14),
        (128, 7, 7),
    ]


def test_layer_keeps_what_it_was_given_and_adds_to_it() -> None:
    scales = Stem(CIFAR)(torch.rand(2, 3, 32, 32))
    grown = DenseLayer(CIFAR, CIFAR.channels, 0, 0)(scales)
    for before, after, growth in zip(scales, grown, (6, 12, 24), strict=True):
        assert after.shape[1] == before.shape[1] + growth
        assert torch.equal(after[:, : before.shape[1]], before)


def test_new_features_see_the_finer_scale_and_no_coarser_one() -> None:
    layer = DenseLayer(CIFAR, CIFAR.channels, 0, 0).eval()
    scales = [scale.detach() for scale in Stem(CIFAR).eval()(torch.rand(1, 3, 32, 32))]
    reference = layer(scales)
    for changed in range(3):
        other = [scale + (place == changed) for place, scale in enumerate(scales)]
        differs = [
            not torch.equal(before[:, width:], after[:, width:])
            for before, after, width in zip(reference, layer(other), (16, 32, 64), strict=True)
        ]
        assert differs == [place in (changed, changed + 1) for place in range(3)]


def test_each_block_drops_a_scale_and_halves_the_channels() -> None:
    network = msdnet_cifar(10, (32, 32, 3))
    transitions = layers(network, Transition)
    assert [len(transition.scales) for transition in transitions] == [2, 1]
    # 16 + 5 * 6 = 46 channels, times the scale's factor, after layer 5; 23 + 4 * 6 after layer 9
    for transition, inputs in zip(transitions, (46, 47), strict=True):
        factors = CIFAR.factors[-len(transition.scales) :]
        for (convolution, _, _), factor in zip(transition.scales, factors, strict=True):
            assert convolution.kernel_size == (1, 1)
            assert convolution.in_channels == inputs * factor
            assert convolution.out_channels == inputs // 2 * factor
    assert len(layers(network, DenseLayer)) == 12


def test_packing_is_undone() -> None:
    shapes = ((2, 5, 4), (3, 3, 2), (4, 2, 1))
    scales = [torch.rand(6, *shape) for shape in shapes]
    packed = pack(scales)
    assert packed.shape == (6, 40 + 18 + 8)
    assert all(map(torch.equal, Unpack(shapes)(packed), scales))
    assert torch.equal(Coarsest(shapes[-1])(packed), scales[-1])


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@pytest.mark.parametrize("make", [msdnet_cifar, msdnet_imagenet])
def test_odd_sizes_and_any_batch_run(make, size: tuple[int, int]) -> None:
    network = make(7, (*size, 3)).eval()
    batch = random_images(3, *size)
    with torch.no_grad():
        logits = network(batch)
        alone = network(batch[1:2])
    assert [tuple(exit.shape) for exit in logits] == [(3, 7)] * 5
    for together, single in zip(logits, alone, strict=True):
        torch.testing.assert_close(together[1:2], single, rtol=1e-3, atol=2e-4)


def test_only_scales_that_are_needed_travel() -> None:
    network = tiny().eval()
    features, widths = random_images(2, 16, 16), []
    with torch.no_grad():
        for segment in network.segments:
            features = segment(features)
            widths.append(features.shape[1])
    # channels 4, +4 a layer, halved after layers 3 and 5, which drop a scale each
    at_two = 4 + 2 * 4
    at_four = (12 + 4) // 2 + 4
    at_six = (at_four + 4) // 2 + 4
    assert widths == [
        at_two * (256 + 2 * 64 + 2 * 16),
        at_four * (2 * 64 + 2 * 16),
        at_six * 2 * 16,
    ]


def test_a_training_step_reaches_every_parameter() -> None:
    network = tiny().train()
    labels = torch.arange(6) % 3
    sum(F.cross_entropy(logits, labels) for logits in network(random_images(6, 16, 16))).backward()
    untouched = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    assert untouched == []


def test_it_learns() -> None:
    network = tiny().train()
    labels = torch.arange(12) % 3
    batch = (random_images(12, 16, 16) // 4 + 60 * labels[:, None, None, None]).to(torch.uint8)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(15):
        optimiser.zero_grad()
        logits = network(batch)
        sum(F.cross_entropy(exit, labels) for exit in logits).backward()
        optimiser.step()
    assert [int((exit.argmax(1) == labels).sum()) for exit in logits] == [12, 12, 12]


def test_segments_export_with_a_dynamic_batch() -> None:
    network = tiny(replace(TINY, exits=2)).eval()
    dynamic = {0: torch.export.Dim("batch", min=1, max=16)}
    features = random_images(2, 16, 16)
    for segment, head in zip(network.segments, network.heads, strict=True):
        stage = torch.nn.Sequential(segment, head)
        exported = torch.export.export(stage, (features,), dynamic_shapes=(dynamic,))
        for count in (1, 5, 16):
            batch = features[:1].expand(count, *features.shape[1:]).contiguous()
            with torch.no_grad():
                torch.testing.assert_close(exported.module()(batch), stage(batch))
        with torch.no_grad():
            features = segment(features)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_bad_input_is_refused(entry) -> None:
    with pytest.raises(InvalidInput, match="no maintained library") as refused:
        entry.make(10, entry.shape, "DEFAULT")
    assert refused.value.field == "weights"
    for shape in ((32, 32), (32, 32, 1), (31, 32, 3)):
        with pytest.raises(InvalidInput, match="at least 32 pixels") as refused:
            entry.make(10, shape, None)
        assert refused.value.field == "shape"
    with pytest.raises(InvalidInput, match="at least 2 classes") as refused:
        entry.make(1, entry.shape, None)
    assert refused.value.field == "classes"


def test_fewer_layers_than_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="2 layers cannot reduce 3 scales"):
        tiny(replace(TINY, exits=1))
