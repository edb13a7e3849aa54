from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need torch: delen[train]")

from torch import nn  # noqa: E402

from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.attach import attach_exits  # noqa: E402
from multiexit_models.attach.probe import (  # noqa: E402
    measure_costs,
    place_by_probe,
    probe_accuracies,
    ridge_accuracy,
)


class Angle(nn.Module):
    """The product of the two inputs, which no linear probe sees before."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([inputs, inputs[:, :1] * inputs[:, 1:2]], 1)


def signs() -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    """Two inputs; the class is whether their signs agree."""
    torch.manual_seed(0)
    inputs = torch.randn(200, 2)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long().numpy()
    same = nn.Linear(2, 2)
    nn.init.eye_(same.weight)
    nn.init.zeros_(same.bias)
    module = nn.Sequential(
        same, nn.Identity(), Angle(), nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)
    )
    return module, inputs, labels


def test_the_probe_finds_where_the_classes_can_be_told() -> None:
    module, inputs, labels = signs()
    accuracies = probe_accuracies(module, inputs, labels, ("0", "2", "3"), batch_size=64)
    assert accuracies.shape == (4,)
    assert accuracies[0] < 0.7
    assert (accuracies[1:] > 0.85).all()
    seen: list[tuple[int, int]] = []
    places = place_by_probe(
        module, inputs, labels, 2, repeats=1, on_part=lambda *counts: seen.append(counts)
    )
    assert places in {("2",), ("3",)}
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))
    network = attach_exits(module, inputs[:1], 2, at=places)
    assert len(network.heads) == 2


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((24, 3))
    labels = (features[:, 0] + 0.5 * rng.standard_normal(24) > 0).astype(int)
    centred = (features - features.mean(0)) / features.std(0)
    kernel = centred @ centred.T / 3 + 1
    wanted = np.eye(2)[labels]
    best = 0.0
    for ridge in (0.01, 0.1, 1.0, 10.0):
        right = 0
        for left in range(24):
            kept = np.arange(24) != left
            inner = kernel[np.ix_(kept, kept)] + ridge * np.eye(23)
            weights = np.linalg.solve(inner, wanted[kept])
            right += int((kernel[left, kept] @ weights).argmax() == labels[left])
        best = max(best, right / 24)
    assert ridge_accuracy(features, labels) == pytest.approx(best)


def test_features_that_say_nothing_reach_no_more_than_chance() -> None:
    labels = np.arange(30) % 3
    assert ridge_accuracy(np.ones((30, 4)), labels) <= 1 / 3 + 1e-9


def test_costs_are_sums_and_leave_the_module_as_it_was() -> None:
    module, inputs, _ = signs()
    module.train()
    costs = measure_costs(module, inputs[:1], ("0", "3"), repeats=2)
    assert costs.shape == (3,)
    assert (np.diff(costs) > 0).all()
    assert costs[0] > 0
    assert all(part.training for part in module.modules())


def test_figures_that_do_not_fit_are_refused() -> None:
    module, inputs, labels = signs()
    for wrong in (labels[:5], np.zeros(200, dtype=int)):
        with pytest.raises(InvalidInput, match="a label for each input and at least two classes"):
            probe_accuracies(module, inputs, wrong, ("0",))
    with pytest.raises(InvalidInput, match="in the module's order"):
        measure_costs(module, inputs[:1], ("3", "0"))
    with pytest.raises(InvalidInput, match="repeats must be 1"):
        measure_costs(module, inputs[:1], ("0",), repeats=0)
    with pytest.raises(InvalidInput, match="exits must be 1 to"):
        place_by_probe(module, inputs, labels, 30)
