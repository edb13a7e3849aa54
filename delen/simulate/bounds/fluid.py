"""An upper bound on what any schedule can reach, even one that knows the future.

A request is worth 1 for a right answer that keeps all its bounds, else 0. The clairvoyant knows
every arrival and which exits are right. Each request needs only ``seconds`` of the device within
its window from release to deadline, in pieces of any size, on lanes that can be shared at will (a
fluid).

Proof in short (docs/upper_bound.md has it in full, with noise, batches and energy). Take any
schedule, and let ``x_j`` be the probability that it answers request j rightly and in time. That
takes ``p_j`` seconds of the device in the window in expectation, so for every set S of requests

    sum over S of p_j x_j <= F(S),

where F(S) is the most work on S that the lanes can do, each request in its window and at most
``p_j`` times its limit; earliest deadline first does that much. Order the requests by ``p_j`` into
classes ``p_1 < p_2 < ... < p_C`` and let ``S_c`` hold the first c. By summation by parts, with
``1 / p_(C+1) = 0``,

    sum x_j = sum over c of (1/p_c - 1/p_(c+1)) (sum over S_c of p_j x_j)
           <= sum over c of (1/p_c - 1/p_(c+1)) F(S_c) = sum over c of (F(S_c) - F(S_(c-1))) / p_c.

The right side is the bound. It is also the optimum of the fluid itself, since F is the rank of a
polymatroid and greedy is optimal there, so no linear program is solved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from delen.simulate.bounds.least_costs import Tasks
from delen.simulate.device import SlowSpan

CLASSES = 64


@dataclass(frozen=True, slots=True)
class UpperBound:
    """At most ``value`` of ``requests`` are answered rightly with all bounds kept."""

    value: float
    requests: int

    @property
    def effective_accuracy(self) -> float:
        """The bound as a share of all requests; 0 without any."""
        return self.value / self.requests if self.requests else 0.0


def fluid_bound(
    tasks: Tasks,
    lanes: int = 1,
    slow: Sequence[SlowSpan] = (),
    longest: float = 0.0,
    classes: int = CLASSES,
) -> UpperBound:
    """The bound for a device that runs ``lanes`` batches at once.

    ``slow`` spans must not overlap. Runs that begin in one are slower. A run that began before
    keeps its speed, so a span counts only once such a run is over, after ``longest`` seconds at
    most. Tasks of more than ``classes`` different lengths are shortened to fewer, which only raises
    the bound.
    """
    if lanes < 1 or classes < 1:
        raise ValueError(f"lanes ({lanes}) and classes ({classes}) must be at least 1")
    order = np.argsort(tasks.release, kind="stable")
    seconds = _shortened(tasks.seconds[order], classes)
    capacity = _Capacity(lanes, slow, longest)
    release, deadline = capacity(tasks.release[order]), capacity(tasks.deadline[order])
    work = seconds * tasks.limit[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (release[1:] != release[:-1]) | (deadline[1:] != deadline[:-1])
    windows = np.flatnonzero(is_new)

    def work_done(length: float) -> float:
        in_window = np.add.reduceat(np.where(seconds <= length, work, 0.0), windows)
        some = in_window > 0
        return most_work(release[windows][some], deadline[windows][some], in_window[some])

    def is_too_much(length: float) -> bool:
        return work_done(length) < float(work[seconds <= length].sum()) * (1 - 1e-12)

    lengths = np.unique(seconds).tolist()
    fitting = bisect_left(lengths, True, key=is_too_much)
    whole = seconds <= lengths[fitting - 1] if fitting else np.zeros(len(order), bool)
    value, before = float(tasks.limit[order][whole].sum()), float(work[whole].sum())
    for length in lengths[fitting:]:
        done = work_done(length)
        value += (done - before) / length
        before = done
    return UpperBound(value, tasks.requests)


def most_work(
    release: NDArray[np.float64], deadline: NDArray[np.float64], work: NDArray[np.float64]
) -> float:
    """The most work that one unit of capacity a second does within windows, by earliest deadline.

    ``release`` ascends; all float64 ``[tasks]``. Deadlines may be infinite.
    """
    waiting: list[tuple[float, float]] = []
    done = now = 0.0
    arriving = zip(release.tolist(), deadline.tolist(), work.tolist(), strict=True)
    for next_release, next_deadline, next_work in [*arriving, (np.inf, 0.0, 0.0)]:
        while waiting and now < next_release:
            due, left = waiting[0]
            if due <= now:
                heappop(waiting)
                continue
            run = min(left, next_release - now, due - now)
            done += run
            if run < left and now + run < due:
                now = next_release
                heapreplace(waiting, (due, left - run))
            else:
                now += run
                heappop(waiting)
        now = max(now, next_release)
        heappush(waiting, (next_deadline, next_work))
    return done


class _Capacity:
    """Lane seconds of full speed from 0 up to a time: the clock by which windows are measured."""

    def __init__(self, lanes: int, slow: Sequence[SlowSpan], longest: float) -> None:
        self._lanes = lanes
        times, totals = [0.0], [0.0]
        last_end = exempt_until = 0.0
        for span in sorted(slow, key=lambda span: span.start):
            if span.start < last_end:
                raise ValueError(f"slow spans overlap at {span.start} s")
            start = min(max(span.start + longest, exempt_until), span.end)
            last_end, exempt_until = span.end, max(exempt_until, span.end + span.factor * longest)
            totals.append(totals[-1] + start - times[-1])
            totals.append(totals[-1] + (span.end - start) / span.factor)
            times += [start, span.end]
        self._times, self._totals = np.array(times), np.array(totals)

    def __call__(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.interp(times, self._times, self._totals)
        total: NDArray[np.float64] = inside + np.maximum(0.0, times - self._times[-1])
        return self._lanes * total


def _shortened(seconds: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Each of ``seconds`` as the least of its class; classes hold about as many tasks each."""
    if len(np.unique(seconds)) <= classes:
        return seconds
    least = np.unique(np.quantile(seconds, np.arange(classes) / classes, method="lower"))
    shortened: NDArray[np.float64] = least[np.searchsorted(least, seconds, side="right") - 1]
    return shortened
