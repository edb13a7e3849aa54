"""The belief how much longer segments take while other lanes of the device are busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_GAIN = 0.02
_MEASURED = 50
"""A measured factor counts for as many observations."""
_LARGEST_STEP = 2.0
_HALF_LIFE = 60.0
_MOST = 4.0
"""Lanes that make each other slower than in turn by this much more are not believed."""
_STEADY = 0.9
"""An observation counts for one number of busy lanes if it was that for this part of the time."""


@dataclass(frozen=True, slots=True)
class Interference:
    """``factors[k]`` is a segment's time while k other lanes are busy, over its time alone.

    ``factors[0]`` is 1, none is below. ``seen`` says how many observations each stands for.
    ``measured`` are those of the profile, to which it all returns.
    """

    factors: tuple[float, ...] = (1.0,)
    seen: tuple[int, ...] = (0,)
    measured: tuple[float, ...] = (1.0,)
    gain: float = field(init=False)
    """How many times the work of one lane the device does, with the best number of them."""

    def __post_init__(self) -> None:
        most = max(lanes / factor for lanes, factor in enumerate(self.factors, start=1))
        object.__setattr__(self, "gain", most)

    @classmethod
    def of(cls, measured: Sequence[float] | None, lanes: int) -> Interference:
        """Of a device with ``lanes``, by the factors of a profile as far as it has them.

        Others are taken to be no worse than the last known, 1 where nothing is known, until they
        are seen.
        """
        known = tuple(measured or (1.0,))[:lanes]
        factors = known + (known[-1],) * (lanes - len(known))
        seen = (_MEASURED,) * len(known) + (0,) * (lanes - len(known))
        return cls(factors, seen, factors)

    def at(self, others: int) -> float:
        """The factor while ``others`` lanes are busy; beyond the lanes known, that of the last."""
        factors = self.factors
        return factors[others] if others < len(factors) else factors[-1]

    def alone(self, spent: Sequence[float]) -> float:
        """What would have taken alone what took ``spent[k]`` seconds while k others were busy."""
        return sum(seconds / self.at(others) for others, seconds in enumerate(spent))

    def after(self, spent: Sequence[float], ratio: float) -> Interference:
        """The belief after a segment with ``spent`` took ``ratio`` times as long as it predicts.

        The first observations of what nobody has measured count for most. One is taken for at most
        twice, and at least half, of what was believed.
        """
        longest = max(spent)
        others = spent.index(longest)
        if others == 0 or others >= len(self.factors) or longest < _STEADY * sum(spent):
            return self
        ratio = min(max(ratio, 1 / _LARGEST_STEP), _LARGEST_STEP)
        known, seen = self.factors[others], self.seen[others]
        factor = known * (1 + max(_GAIN, 1 / (seen + 1)) * (ratio - 1))
        factor = min(max(factor, 1.0), _MOST * (others + 1))
        return Interference(
            _replaced(self.factors, others, factor),
            _replaced(self.seen, others, seen + 1),
            self.measured,
        )

    def relaxed(self, elapsed: float) -> Interference:
        """The belief ``elapsed`` seconds later: half-way back to what was measured every minute.

        Lanes that are believed to gain nothing are not used, so that nothing would correct it.
        """
        if self.factors == self.measured:
            return self
        kept = 0.5 ** (elapsed / _HALF_LIFE)
        factors = tuple(
            measured + (factor - measured) * kept
            for factor, measured in zip(self.factors, self.measured, strict=True)
        )
        return Interference(factors, self.seen, self.measured)


ALONE = Interference()
"""Of a device with one lane."""


def _replaced(values: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:index], value, *values[index + 1 :])
