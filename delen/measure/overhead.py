"""Measures what serving takes beside the segments, and does to them, on an executor of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, field
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.core.work import Work
from delen.engine.admission import Admission
from delen.engine.directives import Directives
from delen.engine.energy_admission import UnlimitedEnergy
from delen.engine.executor import Executor
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.runtime import check_sample
from delen.measure.disturbance import GaveWay
from delen.measure.segments import noise_inputs, quantiles
from delen.profile.profile import HostCosts
from delen.scheduler.core import Scheduler


@dataclass(frozen=True, slots=True)
class Effort:
    """So many rounds are served; none begins once ``seconds`` have passed."""

    rounds: int
    seconds: float


QUICK = Effort(10, seconds=1.0)
THOROUGH = Effort(60, seconds=60.0)

_AT_ONCE = (1, 2, 1, 4, 1, 3, 8, 2, 16)
"""So many requests come at once, and are waited for, in turn."""

_BOUNDS = (Bounds(), Bounds(max_latency=60.0))
_OPTIONS = Options()
_PAUSE = 2.0
"""Mean pause before the next, in times of the whole network: caches get cold, as they do."""

_LEAST_GAPS = 3
_LEAST_STRETCHES = 100
"""Of fewer, the 0.99 quantile is but the longest: then they are not known."""

_LONGEST_GAP = 5.0
"""Times the median; of a longer gap no more counts."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """A segment that ran from ``began`` to ``ended`` on ``size`` jobs; ``answers`` of them ended
    there."""

    segment: int
    began: float
    ended: float
    size: int
    answers: int


class _Requests:
    """Requests of noise to one model, on an executor of its own that nobody else is served by. It
    is also the executor's observer, and keeps the batches that ran.

    Once ``gives_way``, what waits is cancelled at the next segment's end, and GaveWay is raised.
    """

    def __init__(self, model: Model, scheduler: Scheduler, gives_way: Callable[[], bool]) -> None:
        self.batches: list[_Batch] = []
        self._model = model
        self._inputs = noise_inputs(model.bundle)
        self._gives_way = gives_way
        self._gave_way = False
        self._numbers = count()
        self._jobs: list[Job] = []
        self._answers = 0
        threads = model.network.placement.threads
        energy = UnlimitedEnergy()
        self._executor = Executor(self, threads, scheduler, energy)
        self._admission = Admission(self._executor, scheduler, energy, Directives())
        self._executor.add_model(model)

    def close(self) -> None:
        """Stop, and let go of the model, which ``gives_way`` may refer to: the executor and its
        observer refer to each other, and would keep it in memory."""
        self._executor.close()
        self._executor.remove_model(self._model.name)
        self._jobs.clear()
        del self._model, self._gives_way

    def submit(self) -> float:
        """Admit one more request; the processor seconds until it waits."""
        if self._has_to_stop():
            raise GaveWay
        began = time.thread_time()
        model, number = self._model, next(self._numbers)
        bounds, sample = _BOUNDS[number % len(_BOUNDS)], self._inputs[number % len(self._inputs)]
        check_sample(model, sample)
        job = Job(number, f"noise-{number}", model, bounds, _OPTIONS, time.monotonic(), sample)
        self._jobs.append(job)
        self._admission.admit(job, 1, list, 0.0)
        return time.thread_time() - began

    def wait(self) -> None:
        """Until all are answered."""
        wait([job.future for job in self._jobs])
        self._jobs.clear()
        if self._has_to_stop():
            raise GaveWay

    def _has_to_stop(self) -> bool:
        self._gave_way = self._gave_way or self._gives_way()
        return self._gave_way

    def answered(self, result: Result) -> None:
        self._answers += 1

    def ran(self, work: Work) -> None:
        size = len(work.shares)
        self.batches.append(_Batch(work.segment, work.began, work.ended, size, self._answers))
        self._answers = 0
        if self._has_to_stop():
            for job in list(self._jobs):
                self._executor.cancel(job)

    def policy_failed(self, model: str) -> None: ...
    def segment_failed(self, model: str, segment: int) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...


def measure_host(
    model: Model,
    scheduler: Scheduler,
    effort: Effort,
    gives_way: Callable[[], bool] = lambda: False,
) -> HostCosts | None:
    """Have ``model``, whose profile says what its segments take alone, answer rounds of noise.

    ``scheduler`` is a new one of one lane. Costs of batches are those of the gaps between segments
    that follow one another: a line in the samples and answers of a batch, through the mean gap of
    each pair of these. None for a network whose segments never follow one another. Raises GaveWay
    once ``gives_way``, at the end of the segment that runs.
    """
    requests = _Requests(model, scheduler, gives_way)
    try:
        seen = _ask(requests, model, effort)
    finally:
        requests.close()
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


def _ask(requests: _Requests, model: Model, effort: Effort) -> _Seen:
    profile, seen = model.costs.profile, _Seen()
    whole = sum(costs[1].latency.p50 for costs in profile.segments)
    pauses = np.random.default_rng(0)
    end = time.monotonic() + effort.seconds
    for at_once in _AT_ONCE * effort.rounds:
        if time.monotonic() > end:
            break
        time.sleep(pauses.exponential(_PAUSE * whole))
        requests.batches.clear()
        seen.submitted.extend(requests.submit() for _ in range(at_once))
        submitted = time.monotonic()
        requests.wait()
        batches = list(requests.batches)
        for one in batches:
            median = profile.cost(one.segment, one.size).latency.p50
            seen.stretches.append((one.ended - one.began) / median)
        for one, after in pairwise(batches):
            if one.ended >= submitted:
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
