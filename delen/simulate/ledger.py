"""Keeps, row by row, what becomes of each request while a run goes on."""

from __future__ import annotations

import numpy as np

from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.trace import Trace


class Ledger:
    """Rows are those of the trace. ``energy`` is what each has taken in joules, None if unknown.

    Plain lists while it is written, since single elements of arrays are slow; arrays at the end.
    """

    def __init__(self, trace: Trace, policy: str, exits: int) -> None:
        count = len(trace)
        self.energy: list[float | None] = [0.0] * count
        self._trace = trace
        self._policy = policy
        self._exits = exits
        self._seconds = [0.0] * count
        self._ended = [0.0] * count
        self._fate = [int(Fate.GIVEN_UP)] * count
        self._exit = [-1] * count
        self._latency = [0.0] * count
        self._correct = [False] * count
        self._as_planned = [False] * count
        self._decisions: list[float] = []

    def decided(self, seconds: float) -> None:
        """A decision took so long by a real clock."""
        self._decisions.append(seconds)

    def spend(self, row: int, seconds: float, joules: float | None) -> None:
        """Device time and energy of one more segment."""
        self._seconds[row] += seconds
        energy = self.energy[row]
        self.energy[row] = None if energy is None or joules is None else energy + joules

    def refuse(self, row: int, now: float, fate: Fate) -> None:
        self._ended[row] = now
        self._fate[row] = int(fate)

    def answer(
        self, row: int, now: float, exit: int, latency: float, correct: bool, as_planned: bool
    ) -> None:
        """Answered from ``exit``; ``as_planned`` if the guarantee of its floor covers it."""
        self._ended[row] = now
        self._fate[row] = int(Fate.ANSWERED)
        self._exit[row] = exit
        self._latency[row] = latency
        self._correct[row] = correct
        self._as_planned[row] = as_planned

    def outcomes(
        self, policy_failures: int, failures: tuple[str, ...], slowdown: float | None
    ) -> Outcomes:
        """All rows as columns. A bound that was not asked is never missed."""
        trace = self._trace
        tenants = trace.tenants
        index = {name: number for number, name in enumerate(tenants)}
        bounds = [arrival.bounds for arrival in trace]
        caps = np.array([np.inf if b.max_latency is None else b.max_latency for b in bounds])
        joules = np.array([np.inf if b.max_energy is None else b.max_energy for b in bounds])
        has_floor = np.array([b.min_accuracy is not None for b in bounds], bool)
        answered = np.array(self._fate, np.int8) == Fate.ANSWERED
        latency = np.array(self._latency, np.float64)
        energy = np.array([np.nan if e is None else e for e in self.energy], np.float64)
        within_joules = energy <= joules
        return Outcomes(
            policy=self._policy,
            exits=self._exits,
            tenants=tenants,
            tenant=np.array([index[arrival.tenant] for arrival in trace], np.int32),
            arrived=np.array([arrival.time for arrival in trace], np.float64),
            ended=np.array(self._ended, np.float64),
            fate=np.array(self._fate, np.int8),
            exit=np.array(self._exit, np.int8),
            latency=latency,
            energy=energy,
            seconds=np.array(self._seconds, np.float64),
            correct=np.array(self._correct, np.float64),
            missed_latency=answered & (latency > caps),
            missed_accuracy=answered & has_floor & ~np.array(self._as_planned, bool),
            missed_energy=answered & np.isfinite(joules) & ~within_joules,
            decision_seconds=np.array(self._decisions, np.float64),
            policy_failures=policy_failures,
            failures=failures,
            slowdown=slowdown,
        )
