from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need torch: delen[train]")

from multiexit_models.network import (  # noqa: E402
    MultiExitNetwork,
    cumulative_macs,
    macs_per_stage,
    set_memory_format,
)
from multiexit_models.zoo.residual import Normalise, residual_cifar  # noqa: E402

SAMPLE = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)


def test_every_segment_needs_its_head() -> None:
    with pytest.raises(ValueError, match="2 segments and 1 heads"):
        MultiExitNetwork([torch.nn.Identity(), torch.nn.Identity()], [torch.nn.Identity()])


def test_every_exit_gives_logits() -> None:
    network = residual_cifar(classes=7).eval()
    with torch.no_grad():
        logits = network(SAMPLE.repeat(3, 1, 1, 1))
    assert [tuple(exit.shape) for exit in logits] == [(3, 7)] * 5


def test_macs_of_a_known_convolution() -> None:
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    head = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)
    )
    network = MultiExitNetwork([convolution], [head])
    assert macs_per_stage(network, torch.zeros(1, 3, 10, 10)) == ([8 * 3 * 9 * 100], [8 * 5])


def test_macs_of_fused_layers_are_seen() -> None:
    transformer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    network = MultiExitNetwork([transformer], [torch.nn.Flatten()])
    projections, attention, feed_forward = 4 * 16 * 16, 2 * 10 * 16, 2 * 16 * 32
    expected = 10 * (projections + attention + feed_forward)
    assert macs_per_stage(network, torch.zeros(1, 10, 16)) == ([expected], [0])
    assert torch.backends.mha.get_fastpath_enabled()


def test_macs_of_an_lstm_are_seen() -> None:
    class LastState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(16, 8, batch_first=True)

        def forward(self, features):
            return self.lstm(features)[0][:, -1]

    network = MultiExitNetwork([LastState().eval()], [torch.nn.Flatten()])
    expected = 10 * 4 * 8 * (16 + 8)
    assert macs_per_stage(network, torch.zeros(1, 10, 16)) == ([expected], [0])
    assert torch.backends.mkldnn.enabled


def test_cost_of_an_exit_includes_the_heads_on_the_way() -> None:
    network = residual_cifar().eval()
    segments, heads = macs_per_stage(network, SAMPLE)
    macs = cumulative_macs(network, SAMPLE)
    assert macs[2] == sum(segments[:3]) + sum(heads[:3])
    assert macs == sorted(macs)


def test_shipped_network_can_leave_early_and_pays_little_for_it() -> None:
    network = residual_cifar().eval()
    _, heads = macs_per_stage(network, SAMPLE)
    macs = cumulative_macs(network, SAMPLE)
    assert macs[0] <= 0.2 * macs[-1]
    assert sum(heads[:-1]) <= 0.08 * macs[-1]


def test_normalise_has_zero_mean_and_unit_spread_at_the_published_figures() -> None:
    normalise = Normalise((0.5, 0.25, 0.75), (0.25, 0.5, 0.125))
    image = torch.tensor([127.5, 63.75, 191.25]).round().to(torch.uint8).view(1, 1, 1, 3)
    assert normalise(image).shape == (1, 3, 1, 1)
    assert normalise(image).abs().max() < 0.02


def test_memory_format_changes_layout_and_no_value() -> None:
    network = residual_cifar()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    set_memory_format(network, torch.channels_last)
    weight = network.segments[1].body[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
