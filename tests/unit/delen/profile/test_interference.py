"""What is believed of lanes that slow each other down."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from delen.profile.cost_model import CostModel
from delen.profile.interference import Interference

BESIDE_ONE = (0.0, 1.0)


def test_what_was_measured_is_believed_and_the_rest_is_no_better() -> None:
    known = Interference.of((1.0, 1.3), lanes=4)
    assert known.factors == (1.0, 1.3, 1.3, 1.3)
    assert [known.at(others) for others in (0, 1, 3, 9)] == [1.0, 1.3, 1.3, 1.3]
    assert Interference.of(None, lanes=2).factors == (1.0, 1.0)
    assert Interference.of((1.0, 1.3, 1.6), lanes=2).factors == (1.0, 1.3)


def test_the_gain_is_that_of_the_best_number_of_lanes() -> None:
    assert Interference.of((1.0, 1.25), lanes=2).gain == pytest.approx(1.6)
    assert Interference.of((1.0, 2.5), lanes=2).gain == 1.0
    assert Interference.of((1.0, 1.25, 6.0), lanes=3).gain == pytest.approx(1.6)


def test_what_passed_beside_others_counts_for_less_alone() -> None:
    assert Interference.of((1.0, 2.0), lanes=2).alone((1.0, 4.0)) == pytest.approx(3.0)


def test_the_first_that_is_seen_of_something_unknown_is_believed() -> None:
    known = Interference.of(None, lanes=2).after(BESIDE_ONE, 1.6)
    assert known.factors == (1.0, pytest.approx(1.6))
    later = known.after(BESIDE_ONE, 1.5)
    assert 1.6 < later.factors[1] < 1.6 * 1.5
    measured = Interference.of((1.0, 1.6), lanes=2).after(BESIDE_ONE, 1.5)
    assert measured.factors[1] == pytest.approx(1.6 * 1.01)


@pytest.mark.parametrize("spent", [(1.0, 0.0), (0.5, 0.5), (0.0, 0.8, 0.2), (0.0, 0.0, 0.0, 1.0)])
def test_mixed_company_tells_nothing(spent: tuple[float, ...]) -> None:
    known = Interference.of((1.0, 1.5, 2.0), lanes=3)
    assert known.after(spent, 1.8) is known


def test_one_observation_is_no_law_and_nothing_gets_quicker_in_company() -> None:
    assert Interference.of(None, lanes=2).after(BESIDE_ONE, 50.0).factors[1] == 2.0
    assert Interference.of((1.0, 1.0), lanes=2).after(BESIDE_ONE, 0.1).factors[1] == 1.0


def test_it_returns_to_what_was_measured() -> None:
    known = Interference.of((1.0, 1.2), lanes=2)
    assert known.relaxed(10.0) is known
    moved = Interference((1.0, 1.6), (50, 60), (1.0, 1.2))
    assert moved.relaxed(60.0).factors == (1.0, pytest.approx(1.4))


def test_costs_learn_lanes_and_slowdown_apart(make_costs: Callable[..., CostModel]) -> None:
    """Beside another everything takes 1.7 times as long, and the profile does not say so."""
    costs = make_costs(0.01, lanes=2)
    for _ in range(200):
        costs.learn(0, 1, 0.01, spent=(1.0, 0.0))
        costs.learn(0, 1, 0.017, spent=(0.0, 1.0))
    assert costs.slowdown.mean == pytest.approx(1.0, rel=0.02)
    assert costs.interference.factors[1] == pytest.approx(1.7, rel=0.03)


def test_a_device_that_slows_down_is_no_matter_of_lanes(
    make_costs: Callable[..., CostModel],
) -> None:
    costs = make_costs(0.01, lanes=2, corun=(1.0, 1.5))
    for _ in range(300):
        costs.learn(0, 1, 0.02, spent=(1.0, 0.0))
        costs.learn(0, 1, 0.03, spent=(0.0, 1.0))
    assert costs.slowdown.mean == pytest.approx(2.0, rel=0.02)
    assert costs.interference.factors[1] == pytest.approx(1.5, rel=0.05)


def test_costs_are_those_beside_what_runs(make_costs: Callable[..., CostModel]) -> None:
    costs = make_costs(0.01, 0.01, lanes=2, corun=(1.0, 1.5))
    alone = (costs.typical(0, 1, 1), costs.latency(0, 1, 1), costs.usual(0, 1, 1))
    costs.run_beside(1)
    beside = (costs.typical(0, 1, 1), costs.latency(0, 1, 1), costs.usual(0, 1, 1))
    assert beside == pytest.approx([1.5 * seconds for seconds in alone])
    costs.run_beside(0)
    assert costs.typical(0, 1, 1) == alone[0]


def test_another_profile_brings_its_own_factors(
    make_costs: Callable[..., CostModel], make_profile: Callable[..., object]
) -> None:
    costs = make_costs(0.01, lanes=2, corun=(1.0, 1.5))
    costs.run_beside(1)
    costs.use(make_profile(0.01, corun=(1.0, 1.2)), costs.energy)  # type: ignore[arg-type]
    assert costs.typical(0, 0, 1) == pytest.approx(0.012)
