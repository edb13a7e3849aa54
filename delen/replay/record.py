"""The answers, request by request, in the simulator's columns."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from delen.core.result import Result
from delen.errors import BudgetExhausted, DelenError, InfeasibleBound, Overloaded
from delen.replay.inputs import UNKNOWN
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.summary import quantile
from delen.simulate.trace import Trace

Clock = Literal["daemon", "client"]
"""Which latencies count: those of the receipts, from a request's arrival to its answer's leaving,
which ``max_latency`` means; or the client's, from the time in the trace until it has the answer."""

Failure = Literal["timeout", "broken", "not_sent"]

_PENDING = -1


class Record:
    """One row a request of ``trace``. All times are seconds since the replay's start.

    ``due`` is when each request is to be sent, ``labels`` its right class or UNKNOWN, ``exits`` the
    number of exits of the deepest model.
    """

    def __init__(
        self,
        trace: Trace,
        due: NDArray[np.float64],
        labels: NDArray[np.int64],
        exits: int,
    ) -> None:
        count = len(trace)
        self.due = due
        self.ended: Counter[str] = Counter()
        """How requests ended: ``answered``, the code of a refusal, or a Failure."""
        self._trace = trace
        self._labels = labels
        self._exits = exits
        self._has_labels = bool((labels != UNKNOWN).any())
        self._fate = np.full(count, _PENDING, np.int8)
        self._sent = np.full(count, np.nan)
        self._done = np.zeros(count)
        self._exit = np.full(count, -1, np.int8)
        self._latency = np.zeros(count)
        self._energy = np.zeros(count)
        self._correct = np.zeros(count)
        self._missed = np.zeros((3, count), bool)
        self._energy_kinds: set[str] = set()

    def __len__(self) -> int:
        """How many have ended."""
        return sum(self.ended.values())

    @property
    def accuracy_kind(self) -> Literal["measured", "expected"]:
        """By labels if there are any, else as the receipts expect."""
        return "measured" if self._has_labels else "expected"

    @property
    def energy_kind(self) -> str | None:
        """How the receipts know their energy; ``mixed`` if in several ways, None without any."""
        kinds = self._energy_kinds
        return next(iter(kinds)) if len(kinds) == 1 else "mixed" if kinds else None

    def sent(self, row: int, now: float) -> None:
        self._sent[row] = now

    def answered(self, row: int, now: float, result: Result) -> None:
        """Bounds are judged by the receipt. A bound that was set and is not known to be kept counts
        as missed."""
        receipt, bounds = result.receipt, self._trace.arrivals[row].bounds
        self._end(row, now, Fate.ANSWERED, "answered")
        self._exit[row] = result.exit
        self._latency[row] = receipt.latency.value
        energy = receipt.energy.value
        self._energy[row] = np.nan if energy is None else energy
        self._energy_kinds.add(receipt.energy.kind)
        self._correct[row] = self._correctness(row, result)
        self._missed[:, row] = (
            bounds.max_latency is not None and not receipt.latency.met,
            bounds.min_accuracy is not None and not receipt.accuracy.met,
            bounds.max_energy is not None and not receipt.energy.met,
        )

    def refused(self, row: int, now: float, error: DelenError) -> None:
        self._end(row, now, _fate(error), error.code)

    def failed(self, row: int, now: float, why: Failure) -> None:
        """Neither an answer nor a refusal."""
        self._end(row, now, Fate.GIVEN_UP, why)

    def outcomes(self, policy: str, clock: Clock, failures: int = 0) -> Outcomes:
        """All requests that have ended; the others are left out.

        Energy is what the receipts say. Device time is unknown. If accuracy is expected and one
        answer's is unknown, all are unknown.
        """
        trace, count = self._trace, len(self._trace)
        index = {name: number for number, name in enumerate(trace.tenants)}
        answered = self._fate == Fate.ANSWERED
        correct = self._correct.copy()
        if self._has_labels:
            correct[self._labels == UNKNOWN] = np.nan
        elif np.isnan(correct).any():
            correct[:] = np.nan
        by_client = clock == "client"
        whole = Outcomes(
            policy=policy,
            exits=self._exits,
            tenants=trace.tenants,
            tenant=np.array([index[arrival.tenant] for arrival in trace], np.int32),
            arrived=self.due,
            ended=self._done,
            fate=self._fate,
            exit=self._exit,
            latency=np.where(answered, self._done - self.due, 0) if by_client else self._latency,
            energy=self._energy,
            seconds=np.full(count, np.nan),
            correct=correct,
            missed_latency=self._overdue() if by_client else self._missed[0],
            missed_accuracy=self._missed[1],
            missed_energy=self._missed[2],
            decision_seconds=np.zeros(0),
            policy_failures=failures,
            failures=(),
        )
        return whole[self._fate != _PENDING]

    def client_figures(self) -> dict[str, Any]:
        """What the client saw, from the times in the trace."""
        answered = self._fate == Fate.ANSWERED
        seen = 1e3 * (self._done - self.due)[answered]
        was_sent = ~np.isnan(self._sent)
        late = 1e3 * (self._sent - self.due)[was_sent]
        return {
            "latency_ms": {f"p{100 * q:.0f}": quantile(seen, q) for q in (0.5, 0.95, 0.99)},
            "missed_latency": int(self._overdue().sum()),
            "sent_late_ms": {
                "p50": quantile(late, 0.5),
                "p99": quantile(late, 0.99),
                "max": quantile(late, 1.0),
            },
            "ended": dict(sorted(self.ended.items())),
        }

    def _end(self, row: int, now: float, fate: Fate, how: str) -> None:
        self._fate[row] = fate
        self._done[row] = now
        self.ended[how] += 1

    def _correctness(self, row: int, result: Result) -> float:
        if self._has_labels:
            return float(result.index == self._labels[row])
        accuracy = result.receipt.accuracy
        known = accuracy.overall if accuracy.expected is None else accuracy.expected
        return np.nan if known is None else known

    def _overdue(self) -> NDArray[np.bool_]:
        """Answered after its cap, as the client saw it."""
        caps = [arrival.bounds.max_latency for arrival in self._trace]
        limits = np.array([np.inf if cap is None else cap for cap in caps])
        overdue: NDArray[np.bool_] = self._done - self.due > limits
        overdue &= self._fate == Fate.ANSWERED
        return overdue


def _fate(error: DelenError) -> Fate:
    if isinstance(error, InfeasibleBound):
        return Fate.INFEASIBLE
    if isinstance(error, (BudgetExhausted, Overloaded)):
        return Fate.OVERLOADED
    return Fate.GIVEN_UP
