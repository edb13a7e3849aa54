from __future__ import annotations

from copy import deepcopy

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.train.optimiser import MatrixMuon, as_matrix, lr_factor  # noqa: E402
from multiexit_models.train.recipe import Recipe  # noqa: E402


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Embedding(7, 6), torch.nn.LayerNorm(6), torch.nn.Linear(6, 5)
    )


def step(module, optimiser) -> None:
    module(torch.arange(7)).square().sum().backward()
    optimiser.step(0.5)


def test_rate_warms_up_and_ends_at_zero() -> None:
    assert [lr_factor(at) for at in (0.05, 0.1, 0.55, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])


def test_matrix_of_a_convolution_shares_its_storage() -> None:
    weight = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    matrix = as_matrix(weight)
    matrix[1, 5] = 7
    assert matrix.shape == (4, 12)
    assert weight[1].sum() == 7


def test_every_kind_of_weight_moves() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 1)
    )
    before = [p.detach().clone() for p in module.parameters()]
    optimiser = MatrixMuon(module, Recipe())
    module(torch.randn(8, 2, 3, 3)).square().sum().backward()
    optimiser.step(1.0)
    assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(p.grad is None for p in module.parameters())


def test_weights_without_gradient_stay() -> None:
    module = network()
    module[2].requires_grad_(False)
    before = module[2].weight.clone()
    step(module, MatrixMuon(module, Recipe()))
    assert torch.equal(before, module[2].weight)


def test_saved_optimiser_goes_on_alike() -> None:
    first, second = network(), network()
    one = MatrixMuon(first, Recipe())
    step(first, one)
    second.load_state_dict(first.state_dict())
    other = MatrixMuon(second, Recipe())
    other.load_state_dict(deepcopy(one.state_dict()))
    for _ in range(2):
        step(first, one)
        step(second, other)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_network_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no weights that can be trained"):
        MatrixMuon(network().requires_grad_(False), Recipe())
