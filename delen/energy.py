"""Energy as the layers tell each other of it: what ran, what it is priced at, what it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from delen.profile import SegmentCost
from delen.result import EnergyKind


class EnergyAccount(Protocol):
    """Joules of dynamic energy of one model's segments, known at once and so never measured.

    ``predict`` is the figure of a profile or a model, ``factor`` what measurements have taught
    about it since; their product is what is planned and what a receipt says first. ``kind`` is
    ``estimated`` or ``unknown``; ``source`` and ``scope`` name where the figures come from and
    what they cover, both None where they are unknown. ``revision`` grows with every change of a
    factor.
    """

    @property
    def kind(self) -> EnergyKind: ...
    @property
    def source(self) -> str | None: ...
    @property
    def scope(self) -> str | None: ...
    @property
    def revision(self) -> int: ...

    def predict(self, cost: SegmentCost, processor: float | None = None) -> float | None:
        """Joules of a batch with this profiled ``cost``, which took ``processor`` seconds of
        processor time (None: it has not run yet); None if unknown."""

    def factor(self, segment: int) -> float:
        """What ``predict`` is to be multiplied with for ``segment``."""


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
    excepted. ``complete`` are the requests whose work up to now got all that it will get.
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
