"""What an answer is: predictions, the exit they come from, and a receipt that tells the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import check_not_negative
from delen.core.handover import Part, Suspended
from delen.core.variant import Size

Reason = Literal[
    "confident",
    "planned_exit",
    "latency",
    "energy",
    "final",
    "cancelled",
    "policy",
    "failed",
    "suspended",
]
EnergyKind = Literal["attributed", "estimated", "unknown"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class, its label where the bundle has labels, and its calibrated probability."""

    index: int
    label: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class LatencyOutcome:
    """Seconds from the request's arrival to the answer's leaving; ``queue`` is waiting in it."""

    bound: float | None
    value: float
    queue: float
    predicted: float
    met: bool | None


@dataclass(frozen=True, slots=True)
class AccuracyOutcome:
    """How often answers like this one are right.

    ``expected`` is the accuracy of this answer's own case on the calibration images: of those
    that were confident at this exit, were planned to end here, or were cut off here. None when
    fewer than ``delen.bundle.calibration.LEAST_CASES`` images were in that case. ``overall`` is the
    expected accuracy over all requests with this plan, None where the exit policy keeps to no
    plan; ``met`` compares it with ``bound``.
    ``guarantee`` is the probability, over the draw of the calibration images, that the floor
    holds; None where nothing is guaranteed. ``unguaranteed`` says why, where no floor is.
    """

    bound: float | None
    expected: float | None
    overall: float | None
    guarantee: float | None
    met: bool | None
    unguaranteed: str | None = None


class _Followed:
    """Room for how to ask again, which is no part of the value: it is neither compared, shown nor
    pickled."""

    __slots__ = ("_ask",)


@dataclass(frozen=True, slots=True)
class EnergyOutcome(_Followed):
    """Dynamic energy of the request in joules. ``kind`` says how ``value`` was obtained.

    An answer leaves before its share of the measured energy is known, with an estimate;
    ``settled`` is the energy as it is known at last. ``met`` is None without a ``bound``, and
    where nothing is known.
    """

    bound: float | None
    value: float | None
    predicted: float | None
    kind: EnergyKind
    source: str | None
    scope: str | None
    met: bool | None

    def settled(self, timeout: float = 15.0) -> Any:
        """The final EnergyOutcome: ``attributed``, or ``estimated`` where nothing was measured.

        Waits for it for up to ``timeout`` seconds; of an AsyncClient's answer it is to be awaited.
        An outcome that is final, or that came from no client or engine, is its own. Raises
        NotSettled when the time is over, NotFound when the daemon has forgotten the request, and
        what the client raises.
        """
        ask: Callable[[float], Any] | None = getattr(self, "_ask", None)
        timeout = check_not_negative(timeout, "timeout")
        return self if ask is None else ask(timeout)

    def followed_by(self, ask: Callable[[float], Any]) -> EnergyOutcome:
        """This outcome, with ``ask`` as what ``settled`` calls with its time-out."""
        followed = replace(self)
        followed.follow(ask)
        return followed

    def follow(self, ask: Callable[[float], Any]) -> None:
        """The same of an outcome that nobody else has."""
        object.__setattr__(self, "_ask", ask)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Bounds against outcomes. ``met``: every bound that was set is known to have been kept.

    ``size`` is the height and width at which the network ran, None where it has one size.
    ``receiving`` are the seconds from the request's first byte to its last, which its latency
    includes; None in process, and where the transport does not say.
    ``parts`` are what each node and link took of a job that ran on several, whose sums the
    latency and the energy are.
    """

    latency: LatencyOutcome
    accuracy: AccuracyOutcome
    energy: EnergyOutcome
    size: Size | None = None
    receiving: float | None = None
    parts: tuple[Part, ...] = ()

    @property
    def energy_here(self) -> float | None:
        """Joules on the node that wrote it."""
        return next((part.energy for part in self.parts if part.is_here), self.energy.value)

    @property
    def met(self) -> bool:
        outcomes = (self.latency, self.accuracy, self.energy)
        return all(outcome.met for outcome in outcomes if outcome.bound is not None)


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one input.

    ``predictions`` are the ``top_k`` most probable classes, best first. ``probabilities`` is
    float32 ``[classes]`` in class order, or None where it was not asked for. ``exit`` counts
    from 0 and ``exits`` is how many the network has. ``suspended`` is what another node needs to go
    on, where the reason is that.
    """

    model: str
    version: str
    request_id: str
    predictions: tuple[Prediction, ...]
    probabilities: NDArray[np.float32] | None = field(compare=False)
    exit: int
    exits: int
    reason: Reason
    receipt: Receipt
    tenant: str
    stream: str | None
    suspended: Suspended | None = None

    @property
    def size(self) -> Size | None:
        """The receipt's."""
        return self.receipt.size

    @property
    def index(self) -> int:
        return self.predictions[0].index

    @property
    def label(self) -> str | None:
        return self.predictions[0].label

    @property
    def probability(self) -> float:
        return self.predictions[0].probability
