"""Keeps the outcome of each request, row by row, while a run goes on."""

from __future__ import annotations

from array import array
from math import nan

import numpy as np

from delen.simulate.job import Job
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.trace import Trace


class Tally:
    """One row a request of the trace, in plain arrays: writing elements of numpy arrays is slow."""

    def __init__(self, trace: Trace, policy: str, exits: int) -> None:
        count = len(trace)
        self._trace = trace
        self._policy = policy
        self._exits = exits
        self._ended = _column("d", count)
        self._fate = _column("b", count)
        self._exit = _column("b", count)
        self._latency = _column("d", count)
        self._energy = _column("d", count)
        self._seconds = _column("d", count)
        self._correct = _column("d", count)
        self._as_planned = _column("b", count)
        self._decisions = array("d")
        self._batches = 0
        self._slowdown = 0.0

    def decided(self, seconds: float) -> None:
        """A decision took ``seconds`` by a real clock."""
        self._decisions.append(seconds)

    def ran(self, slowdown: float) -> None:
        """A batch ran, after which ``slowdown`` was believed of the device."""
        self._batches += 1
        self._slowdown += slowdown

    def refuse(self, row: int, now: float, fate: Fate) -> None:
        """Request ``row`` was refused before anything was spent on it."""
        self._ended[row] = now
        self._fate[row] = fate
        self._exit[row] = -1

    def answer(
        self, row: int, now: float, job: Job, exit: int, confidence: float, latency: float
    ) -> None:
        """``job`` was answered from ``exit`` with this ``confidence``."""
        self._ended[row] = now
        self._fate[row] = Fate.ANSWERED
        self._exit[row] = exit
        self._latency[row] = latency
        self._energy[row] = nan if job.joules is None else job.joules
        self._seconds[row] = job.seconds
        self._correct[row] = job.correct[exit]
        self._as_planned[row] = job.as_planned(exit, confidence)

    def outcomes(self, policy_failures: int, failures: tuple[str, ...]) -> Outcomes:
        """All rows as columns. A bound that was not set is never missed."""
        trace = self._trace
        tenants = trace.tenants
        index = {name: number for number, name in enumerate(tenants)}
        bounds = [arrival.bounds for arrival in trace]
        caps = np.array([np.inf if b.max_latency is None else b.max_latency for b in bounds])
        joules = np.array([np.inf if b.max_energy is None else b.max_energy for b in bounds])
        has_floor = np.array([b.min_accuracy is not None for b in bounds], bool)
        fate, latency = np.asarray(self._fate), np.asarray(self._latency)
        energy = np.asarray(self._energy)
        answered, within_joules = fate == Fate.ANSWERED, energy <= joules
        return Outcomes(
            policy=self._policy,
            exits=self._exits,
            tenants=tenants,
            tenant=np.array([index[arrival.tenant] for arrival in trace], np.int32),
            arrived=np.array([arrival.time for arrival in trace], np.float64),
            ended=np.asarray(self._ended),
            fate=fate,
            exit=np.asarray(self._exit),
            latency=latency,
            energy=energy,
            seconds=np.asarray(self._seconds),
            correct=np.asarray(self._correct),
            missed_latency=answered & (latency > caps),
            missed_accuracy=answered & has_floor & (np.asarray(self._as_planned) == 0),
            missed_energy=answered & np.isfinite(joules) & ~within_joules,
            decision_seconds=np.asarray(self._decisions),
            policy_failures=policy_failures,
            failures=failures,
            slowdown=self._slowdown / self._batches if self._batches else None,
        )


def _column(kind: str, rows: int) -> array:  # type: ignore[type-arg]
    """Zeros: ``d`` float64, ``b`` int8."""
    return array(kind, [0]) * rows
