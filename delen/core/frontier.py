"""The operating points worth their joules, and the choice among them at a price."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import NamedTuple


class Choice(NamedTuple):
    """How deep to run and at which confidence to stop, with what is expected of it.

    ``exit`` is the deepest one; ``threshold`` None runs every input to it. ``energy`` is the mean
    over inputs in joules, None where it is unknown; ``accuracy`` is from 0 to 1. ``toll`` is what
    its seconds on the device cost in accuracy.
    """

    exit: int
    threshold: float | None
    energy: float | None
    accuracy: float
    toll: float = 0.0

    @property
    def worth(self) -> float:
        """The accuracy that is left after the toll."""
        return self.accuracy - self.toll


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Frontier:
    """Choices in ascending order of energy, with less worth for each further joule.

    ``prices`` are the worth per joule of each step to the next choice, so they descend.
    ValueError if the choices are not strictly concave, or if there are several and an energy is
    unknown.
    """

    choices: tuple[Choice, ...]
    prices: tuple[float, ...]
    _ascending: tuple[float, ...]
    _energies: tuple[float, ...]

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        energies = tuple(0.0 if c.energy is None else c.energy for c in choices)
        if not choices or (len(choices) > 1 and any(c.energy is None for c in choices)):
            raise ValueError("a frontier needs one choice, or several whose energies are known")
        steps = zip(choices, choices[1:], energies, energies[1:], strict=False)
        prices = tuple((b.worth - a.worth) / (f - e) if f > e else 0.0 for a, b, e, f in steps)
        if any(not isfinite(price) or price <= 0 for price in prices) or any(
            later >= earlier for earlier, later in pairwise(prices)
        ):
            raise ValueError("the choices of a frontier must be ascending and strictly concave")
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "prices", prices)
        object.__setattr__(self, "_ascending", prices[::-1])
        object.__setattr__(self, "_energies", energies)

    @property
    def least(self) -> Choice:
        """The cheapest choice."""
        return self.choices[0]

    @property
    def most(self) -> Choice:
        """The choice of most worth, taken if energy has no price."""
        return self.choices[-1]

    def at(self, price: float) -> Choice:
        """The choice with the greatest worth - ``price`` * energy, the cheapest of several.

        ``price`` is in accuracy per joule; at 0 it is ``most``, at infinity ``least``.
        """
        return self.choices[self._index(price)]

    def energy_at(self, price: float) -> float:
        """Joules of the choice at ``price``; 0 if they are unknown."""
        return self._energies[self._index(price)]

    def _index(self, price: float) -> int:
        return len(self.prices) - bisect_right(self._ascending, price)
