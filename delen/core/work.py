"""Energy as the layers exchange it: what ran, and how a window's joules were split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Share(NamedTuple):
    """Whose a part of some work is: a request, and the tenant who sent it."""

    request_id: str
    tenant: str


class Work(NamedTuple):
    """One batch of one segment that ran from ``began`` to ``ended`` (seconds, monotonic).

    ``joules`` is the uncorrected prediction for the whole batch, None if unknown. ``shares``
    bear it alike; there are none where the daemon ran the batch for itself (an audit).
    """

    model: str
    segment: int
    batch: int
    began: float
    ended: float
    joules: float | None
    shares: tuple[Share, ...]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Split:
    """Where the energy of one window went, all in joules.

    ``attributed + idle + other == measured`` up to rounding where there was a measurement: what
    requests (and audits) are given, what the device takes without them, and what neither
    explains (of either sign: other programs, and noise). Without one, ``measured``, ``idle`` and
    ``other`` are None, ``kind`` is ``estimated`` and ``attributed`` is the corrected model's.

    ``by_share`` are the joules of ``attributed`` that each share got in this window, audits
    excepted. ``complete`` are the requests whose work up to now got all that it will get; of these
    ``known`` are those whose joules are attributed: what their own segments take is known from
    measurement, and readings were explained in every window that they showed in. Every one that is
    complete took ``most`` joules at the most (two standard deviations), as far as that is known.
    """

    began: float
    ended: float
    kind: Literal["attributed", "estimated"]
    measured: float | None
    attributed: float
    idle: float | None
    other: float | None
    by_share: Mapping[Share, float]
    complete: frozenset[str]
    known: frozenset[str] = frozenset()
    most: Mapping[str, float] = field(default_factory=dict)
