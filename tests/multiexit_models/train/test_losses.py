from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.train.losses import exit_weights, joint_loss  # noqa: E402
from multiexit_models.train.recipe import Recipe  # noqa: E402

LABELS = torch.tensor([0])


def test_early_exits_learn_from_the_last_one() -> None:
    agreeing = [torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
    contradicting = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    only_first = Recipe(exit_weights=(1.0, 0.0), distil_share=1.0)
    assert joint_loss(agreeing, LABELS, only_first).item() == pytest.approx(0, abs=1e-6)
    assert joint_loss(contradicting, LABELS, only_first).item() > 1


def test_the_last_exit_learns_nothing_from_early_ones() -> None:
    early = torch.tensor([[0.0, 2.0]], requires_grad=True)
    last = torch.tensor([[2.0, 0.0]], requires_grad=True)
    only_first = Recipe(exit_weights=(1.0, 0.0), distil_share=1.0)
    joint_loss([early, last], LABELS, only_first).backward()
    assert early.grad.abs().sum() > 0
    assert last.grad.abs().sum() == 0


def test_loss_without_distillation_is_the_weighted_sum_of_cross_entropies() -> None:
    logits = [torch.zeros(1, 4), torch.zeros(1, 4)]
    recipe = Recipe(exit_weights=(0.5, 2.0), distil_share=0.0, label_smoothing=0.0)
    expected = 2.5 * torch.log(torch.tensor(4.0)).item()
    assert joint_loss(logits, LABELS, recipe).item() == pytest.approx(expected)


def test_weights_not_given_grow_with_the_exit() -> None:
    assert exit_weights(Recipe(), 4) == (0.25, 0.5, 0.75, 1.0)
    assert exit_weights(Recipe(exit_weights=(1.0, 3.0)), 2) == (1.0, 3.0)


def test_number_of_weights_must_be_that_of_exits() -> None:
    with pytest.raises(InvalidInput, match="exit_weights has 2 numbers, and the network has 1"):
        joint_loss([torch.zeros(1, 2)], LABELS, Recipe(exit_weights=(1.0, 2.0)))
