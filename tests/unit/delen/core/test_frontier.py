from __future__ import annotations

from math import inf

import pytest

from delen.core.frontier import Choice, Frontier

LEAST, MIDDLE, MOST = (
    Choice(0, None, 0.05, 0.80),
    Choice(2, 0.7, 0.10, 0.88),
    Choice(2, None, 0.20, 0.90),
)


@pytest.mark.parametrize(
    ("price", "choice"),
    [
        (0.0, MOST),
        (0.19, MOST),
        (0.21, MIDDLE),
        (1.59, MIDDLE),
        (1.61, LEAST),
        (inf, LEAST),
    ],
)
def test_a_choice_is_taken_where_its_accuracy_is_worth_its_joules(
    price: float, choice: Choice
) -> None:
    frontier = Frontier((LEAST, MIDDLE, MOST))
    assert frontier.prices == pytest.approx((1.6, 0.2))
    assert frontier.at(price) == choice
    assert frontier.energy_at(price) == choice.energy
    assert (frontier.least, frontier.most) == (LEAST, MOST)


def test_at_a_price_where_two_choices_are_worth_the_same_the_cheaper_is_taken() -> None:
    frontier = Frontier((LEAST, MIDDLE, MOST))
    assert frontier.at(frontier.prices[0]) == LEAST
    assert frontier.at(frontier.prices[1]) == MIDDLE


def test_one_choice_is_a_frontier_whatever_it_costs() -> None:
    only = Choice(1, None, None, 0.8)
    frontier = Frontier((only,))
    assert frontier.at(0.0) == frontier.at(inf) == only
    assert frontier.energy_at(1.0) == 0.0
    assert frontier.prices == ()


@pytest.mark.parametrize(
    "choices",
    [
        (),
        (MIDDLE, LEAST),
        (LEAST, Choice(2, 0.7, 0.10, 0.81), MOST),
        (LEAST, Choice(2, 0.7, 0.05, 0.85)),
        (LEAST, Choice(2, 0.7, None, 0.85)),
    ],
)
def test_choices_that_are_no_frontier_are_refused(choices: tuple[Choice, ...]) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier(choices)
