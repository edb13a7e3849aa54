from __future__ import annotations

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch", reason="networks need torch: delen[train]")

from torch.nn import functional as F  # noqa: E402

from multiexit_models.attach.observe import observe  # noqa: E402
from multiexit_models.attach.trace import trace  # noqa: E402
from multiexit_models.macs import cumulative_macs, macs_per_stage  # noqa: E402
from multiexit_models.network import MultiExitNetwork, Normalise, set_memory_format  # noqa: E402
from multiexit_models.zoo.residual import residual_cifar  # noqa: E402

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


TOKENS, WIDTH = 10, 16
ATTENTION = 2 * TOKENS * TOKENS * WIDTH
PROJECTIONS = 4 * TOKENS * WIDTH * WIDTH
FEED_FORWARD = 2 * TOKENS * WIDTH * 2 * WIDTH


def macs_of(module: torch.nn.Module) -> int:
    network = MultiExitNetwork([module], [torch.nn.Flatten()])
    [macs], _ = macs_per_stage(network, torch.zeros(1, TOKENS, WIDTH))
    return macs


class Attention(torch.nn.Module):
    """``scaled_dot_product_attention`` of four heads, ``share`` of which have one key."""

    def __init__(self, share: int = 1, **options: object) -> None:
        super().__init__()
        self.share, self.options = share, options

    def forward(self, features):
        queries = features.view(-1, TOKENS, 4, WIDTH // 4).transpose(1, 2)
        keys = queries[:, :: self.share]
        return F.scaled_dot_product_attention(queries, keys, keys, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn_mask": torch.ones(TOKENS, TOKENS, dtype=torch.bool)},
        {"is_causal": True},
        {"dropout_p": 0.1},
        {"share": 2, "enable_gqa": True},
        {"share": 4, "enable_gqa": True, "is_causal": True},
    ],
    ids=str,
)
def test_macs_of_attention_are_seen(options: dict) -> None:
    assert macs_of(Attention(**options)) == ATTENTION


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_macs_of_multihead_attention_are_seen(train: bool, need_weights: bool) -> None:
    class SelfAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)

        def forward(self, features):
            return self.attention(features, features, features, need_weights=need_weights)[0]

    assert macs_of(SelfAttention().train(train)) == PROJECTIONS + ATTENTION


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("layers", [0, 2], ids=["layer", "encoder of 2"])
def test_macs_of_transformer_layers_are_seen(train: bool, dropout: float, layers: int) -> None:
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout, batch_first=True)
    module = torch.nn.TransformerEncoder(layer, layers) if layers else layer
    each = PROJECTIONS + ATTENTION + FEED_FORWARD
    assert macs_of(module.train(train)) == max(1, layers) * each


def test_macs_of_attention_are_seen_where_a_network_is_cut() -> None:
    observed = observe(trace(Attention()).module, torch.zeros(1, TOKENS, WIDTH))
    assert sum(observed.macs.values()) == ATTENTION


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_counting_leaves_torch_as_it_was(fails: bool, enabled: bool) -> None:
    class Failing(torch.nn.LSTM):
        def forward(self, features):
            assert not torch.backends.mha.get_fastpath_enabled()
            assert not torch.backends.cuda.flash_sdp_enabled()
            assert not torch.backends.mkldnn.enabled
            if fails:
                raise RuntimeError("no such layer")
            return features

    def switches() -> tuple[bool, ...]:
        return (
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
            torch.backends.mkldnn.enabled,
        )

    before = switches()
    torch.backends.mha.set_fastpath_enabled(enabled)
    torch.backends.cuda.enable_flash_sdp(enabled)
    torch.backends.mkldnn.set_flags(enabled)
    try:
        chosen = switches()
        with pytest.raises(RuntimeError, match="no such layer") if fails else nullcontext():
            macs_of(Failing(WIDTH, WIDTH))
        assert switches() == chosen
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch.backends.cuda.enable_flash_sdp(before[1])
        torch.backends.mkldnn.set_flags(before[-1])


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
