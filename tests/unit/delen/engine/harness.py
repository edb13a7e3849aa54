"""An executor with one model, whose network's answers and time a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.backends.base import SegmentRun
from delen.engine.energy_admission import UnlimitedEnergy
from delen.engine.executor import Executor
from delen.engine.job import Job
from delen.engine.model import Model
from delen.profile.cost_model import CostModel
from delen.scheduler.core import Scheduler
from policies.dispatch.value import Value
from policies.exit.bounds import BoundsPolicy
from policies.plan.planner import Planner, PlannerSettings
from tests.builders.engine import PATIENCE, Recorder

SURE = (0.999, 0.999, 0.999)
UNSURE = (0.1, 0.1, 0.1)


class Clock:
    """Stands in for the executor's module ``time``; networks move it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.processor = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.processor


class FakeNetwork:
    """Three exits over samples that are lists of their three confidences.

    The features after a segment are the sample and the segments that it went through, so that a
    mix-up of samples or segments is seen. ``seconds`` is what each segment takes on ``clock``.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = [0.01, 0.01, 0.01]
        self.batches: list[tuple[int, int]] = []
        self.before: Callable[[int], None] = lambda segment: None

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        self.batches.append((segment, len(samples)))
        self.before(segment)
        self.clock.now += self.seconds[segment]
        self.clock.processor += self.seconds[segment] / 2
        reached = [(s, ()) for s in samples] if segment == 0 else list(samples)
        assert all(path == tuple(range(segment)) for _, path in reached)
        confidence = np.array([confidences[segment] for confidences, _ in reached], np.float32)
        logits = np.zeros((len(samples), 4), np.float32)
        logits[:, segment] = 5.0
        features = [(s, (*path, segment)) for s, path in reached] if segment < 2 else []
        return SegmentRun(features, logits, confidence)


class ExecutorHarness:
    """An executor with one model, and what is needed to give it jobs."""

    def __init__(
        self,
        bundle: Bundle,
        calibration: Calibration,
        costs: CostModel,
        clock: Clock,
        dispatch: Any = None,
        lanes: int = 1,
    ) -> None:
        self.clock = clock
        self.network = FakeNetwork(clock)
        self.observer = Recorder()
        default = Value()
        self.scheduler = Scheduler(dispatch or default, default, lanes)
        self.executor = Executor(self.observer, 2, self.scheduler, UnlimitedEnergy())
        self.planner = Planner(calibration, PlannerSettings())
        self._bundle, self._costs = bundle, costs
        self._ids = count(1)
        self.use(BoundsPolicy())

    def use(self, policy: Any) -> None:
        self.model = Model(self._bundle, self.network, self.planner, policy, self._costs)
        self.executor.add_model(self.model)

    def serve(self, name: str) -> None:
        """The model of jobs from now on is called ``name``."""
        manifest = replace(self._bundle.manifest, name=name)
        self._bundle = replace(self._bundle, manifest=manifest)
        self.use(BoundsPolicy())

    def job(
        self,
        confidences: tuple[float, float, float] = (0.3, 0.3, 0.3),
        bounds: Bounds | None = None,
        **options: Any,
    ) -> Job:
        bounds = bounds or Bounds()
        number = next(self._ids)
        job = Job(
            id=number,
            request_id=f"r{number}",
            model=self.model,
            bounds=bounds,
            options=Options(**options),
            arrived=self.clock.now,
            features=list(confidences),
        )
        job.plan = self.planner.plan(bounds, self._costs)
        return job

    def submit(self, *args: Any, **options: Any) -> Job:
        job = self.job(*args, **options)
        self.executor.submit(job, self.clock.now)
        return job

    def infer(self, *args: Any, **options: Any) -> Result:
        return self.submit(*args, **options).future.result(PATIENCE)

    def held(self, segment: int) -> Held:
        return Held(self.network, segment)


class Held:
    """While it is entered, the next run of ``segment`` waits inside the network."""

    def __init__(self, network: FakeNetwork, segment: int) -> None:
        self._network, self._segment = network, segment
        self._inside, self._go = threading.Event(), threading.Event()

    def __enter__(self) -> Held:
        self._network.before = self._wait
        return self

    def __exit__(self, *error: object) -> None:
        self._network.before = lambda segment: None
        self.release()

    def release(self) -> None:
        self._go.set()

    def _wait(self, segment: int) -> None:
        if segment == self._segment:
            self._inside.set()
            assert self._go.wait(PATIENCE)

    def wait_until_running(self) -> None:
        assert self._inside.wait(PATIENCE)
