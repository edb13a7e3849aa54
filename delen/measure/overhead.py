"""Measures what serving takes beside the segments, and does to them, on the engine as it serves."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Bundle
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.core.work import Work
from delen.engine.observer import Observer
from delen.engine.runtime import Runtime
from delen.measure.segments import noise_inputs, quantiles
from delen.profile.profile import HostCosts, Profile

Serve = Callable[[Observer], AbstractContextManager[Runtime]]
"""Opens an engine of one lane, which tells the observer, and closes it again."""


@dataclass(frozen=True, slots=True)
class Effort:
    """So many rounds are served, of which nothing begins once ``seconds`` have passed."""

    rounds: int
    seconds: float


QUICK = Effort(10, seconds=1.0)
THOROUGH = Effort(60, seconds=60.0)

_AT_ONCE = (1, 2, 1, 4, 1, 3, 8, 2, 16)
"""So many requests come at once, and are waited for, in turn."""

_ASKED = (Bounds(), Bounds(max_latency=60.0))
_PAUSE = 2.0
"""Mean pause before the next, in times of the whole network: caches get cold, as they do."""

_LEAST_GAPS = 3
_LEAST_STRETCHES = 100
"""Of fewer, the 0.99 quantile is but the longest: then they are not known."""

_LONGEST_GAP = 5.0
"""Times the median; of a longer gap no more counts."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A segment that ran from ``began`` to ``ended`` on ``size`` jobs, of which ``answers`` ended
    there."""

    segment: int
    began: float
    ended: float
    size: int
    answers: int


class _Recorder:
    """An observer that keeps the batches that ran."""

    def __init__(self) -> None:
        self.batches: list[_Batch] = []
        self._answers = 0

    def answered(self, result: Result) -> None:
        self._answers += 1

    def ran(self, work: Work) -> None:
        if work.shares:
            size = len(work.shares)
            self.batches.append(_Batch(work.segment, work.began, work.ended, size, self._answers))
            self._answers = 0

    def policy_failed(self, model: str) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...


def measure_host(
    serve: Serve, bundle: Bundle, profile: Profile, effort: Effort
) -> HostCosts | None:
    """Have the engine that ``serve`` opens answer rounds of noise by ``bundle``, whose segments
    alone take what ``profile`` says.

    Costs of batches are those of the gaps between segments that follow one another: a line in the
    samples and answers of a batch, through the mean gap of each pair of these. None for a network
    whose segments never follow one another.
    """
    recorder = _Recorder()
    with serve(recorder) as runtime:
        runtime.load(bundle.name)
        seen = _ask(runtime, bundle, profile, recorder, effort)
    if max(map(len, seen.gaps.values()), default=0) < _LEAST_GAPS:
        return None
    batch, task, answer = _line(seen.gaps)
    known = len(seen.stretches) >= _LEAST_STRETCHES
    stretch = quantiles(np.array(seen.stretches)) if known else None
    return HostCosts(float(np.mean(seen.submitted)), batch, task, answer, stretch)


@dataclass(frozen=True, slots=True)
class _Seen:
    """``submitted``: processor seconds of each submission. ``stretches``: of each segment over its
    profiled median. ``gaps`` in seconds by the size and answers of the batch before."""

    submitted: list[float] = field(default_factory=list)
    stretches: list[float] = field(default_factory=list)
    gaps: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))


def _ask(
    runtime: Runtime, bundle: Bundle, profile: Profile, recorder: _Recorder, effort: Effort
) -> _Seen:
    inputs, seen, asked = noise_inputs(bundle), _Seen(), 0
    whole = sum(costs[1].latency.p50 for costs in profile.segments)
    pauses = np.random.default_rng(0)
    end = time.monotonic() + effort.seconds
    for count in _AT_ONCE * effort.rounds:
        if time.monotonic() > end:
            break
        time.sleep(pauses.exponential(_PAUSE * whole))
        jobs = []
        recorder.batches.clear()
        for _ in range(count):
            asked += 1
            sample, bounds = inputs[asked % len(inputs)], _ASKED[asked % len(_ASKED)]
            began = time.thread_time()
            jobs.append(runtime.submit(bundle.name, sample, bounds, Options()))
            seen.submitted.append(time.thread_time() - began)
        coming_until = time.monotonic()
        wait([job.future for job in jobs])
        batches = list(recorder.batches)
        for one in batches:
            median = profile.cost(one.segment, one.size).latency.p50
            seen.stretches.append((one.ended - one.began) / median)
        for one, after in pairwise(batches):
            if one.ended >= coming_until:
                seen.gaps[one.size, one.answers].append(after.began - one.ended)
    return seen


def _line(gaps: dict[tuple[int, int], list[float]]) -> tuple[float, float, float]:
    """Seconds of each batch, each of its samples and each of its answers; none below 0."""
    cells = {cell: values for cell, values in gaps.items() if len(values) >= _LEAST_GAPS}
    rows = np.array([(1, size, answers) for size, answers in cells], np.float64)
    means = np.array([_mean(np.array(values)) for values in cells.values()])
    weights = np.sqrt([len(values) for values in cells.values()])
    known = [True, True, True]
    while True:
        solved = np.zeros(3)
        solved[known] = np.linalg.lstsq(
            rows[:, known] * weights[:, None], means * weights, rcond=None
        )[0]
        if (solved >= 0).all():
            return float(solved[0]), float(solved[1]), float(solved[2])
        known = [at and value >= 0 for at, value in zip(known, solved.tolist(), strict=True)]


def _mean(gaps: NDArray[np.float64]) -> float:
    return float(np.minimum(gaps, _LONGEST_GAP * np.median(gaps)).mean())
