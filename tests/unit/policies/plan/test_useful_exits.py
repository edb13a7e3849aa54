from __future__ import annotations

from policies.plan.useful_exits import UsefulExits


def test_exits_that_are_no_better_than_an_earlier_one_are_dominated() -> None:
    assert UsefulExits((0.5, 0.5, 0.6)).exits == (0, 2)
    assert UsefulExits((0.9, 0.1, 0.2)).exits == (0,)
    several = UsefulExits((0.6, 0.7, 0.8, 0.79))
    assert several.exits == (0, 1, 2)
    assert (several.first, several.deepest) == (0, 2)


def test_the_next_one_is_better_and_no_deeper_than_asked() -> None:
    useful = UsefulExits((0.5, 0.5, 0.6, 0.55))
    assert [useful.next(exit, 3) for exit in range(-1, 4)] == [0, 2, 2, None, None]
    assert useful.next(0, 1) is None
    assert useful.next(-1, 0) == 0
