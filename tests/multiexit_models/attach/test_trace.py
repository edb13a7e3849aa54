from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach.trace import mode, trace  # noqa: E402


class Flagged(nn.Module):
    """Dropout by a flag, as a keyword and by position."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = F.dropout(self.linear(inputs), 0.5, self.training)
        return F.dropout(hidden, p=0.5, training=self.training)


class Branching(nn.Module):
    """Other steps in training."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 2 if self.training else inputs


class Counting(nn.Module):
    """A buffer that training changes."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.add_(1)
        return inputs


class Deciding(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if inputs.sum() > 0 else -inputs


class Halved(nn.Module):
    def forward(self, inputs: torch.Tensor, factor: float = 0.5, mask: object = None) -> object:
        return inputs * factor if mask is None else mask


class Two(nn.Module):
    def forward(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return inputs + other


def test_flags_are_read_live() -> None:
    module = Flagged().eval()
    traced = trace(module).module
    inputs = torch.ones(4, 64)
    assert torch.equal(traced.eval()(inputs), module(inputs))
    traced.train()
    torch.manual_seed(0)
    given = traced(inputs)
    module.train()
    torch.manual_seed(0)
    assert torch.equal(given, module(inputs))
    assert 0.6 < (given == 0).float().mean() < 0.9  # a quarter is kept


def test_what_differs_in_training_is_kept_whole_and_nothing_changes() -> None:
    counting = Counting()
    module = nn.Sequential(Branching(), nn.Linear(4, 4), counting, Deciding())
    module[1].eval()
    traced = trace(module)
    assert counting.seen == 0
    assert [part.training for part in module] == [True, False, True, True]
    assert set(traced.whole) == {"0", "2", "3"}
    assert "training" in traced.whole["0"]
    assert "inputs.sum() > 0" in traced.whole["3"]
    inputs = torch.randn(2, 4)
    for training in (False, True):
        assert torch.equal(traced.module.train(training)(inputs), module.train(training)(inputs))


def test_arguments_with_defaults_keep_them() -> None:
    traced = trace(Halved()).module
    assert torch.equal(traced(torch.ones(2)), torch.full((2,), 0.5))


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (Deciding(), "Deciding cannot be cut: torch.fx cannot trace .* `return inputs if"),
        (Branching(), "Branching cannot be cut: its forward has other steps in training"),
        (Two(), r"needs more than one input \(other\)"),
    ],
)
def test_forwards_that_cannot_be_traced_are_refused(module: nn.Module, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as refused:
        trace(module)
    assert refused.value.field == "module"


def test_mode_gives_each_part_its_own_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[0].eval()
    with mode(module, False):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module] == [False, True]
