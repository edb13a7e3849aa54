"""Plays a trace on a simulated device: the daemon's scheduler, planner and policies, driven by
events instead of a clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from delen.core.dispatch import DispatchPolicy, Task
from delen.core.plan import Plan
from delen.core.result import Reason
from delen.errors import InfeasibleBound, Overloaded
from delen.scheduler.backlog import DEFAULT_BACKLOG
from delen.scheduler.conditions import Conditions
from delen.scheduler.core import Scheduler
from delen.scheduler.lanes import Batch
from delen.scheduler.shares import Shares
from delen.simulate.arrival_stream import ArrivalStream, Progress
from delen.simulate.device import Device, DeviceSettings
from delen.simulate.draws import draw_samples
from delen.simulate.host import Host
from delen.simulate.job import Job
from delen.simulate.model import ModelInPlay, SimulatedModel
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.running_batches import RunningBatches
from delen.simulate.tally import Tally
from delen.simulate.trace import Arrival, Trace


@dataclass(frozen=True, slots=True)
class RunSettings:
    """``weights`` are the tenants' (1 if not named), ``priorities`` the most urgent ones that they
    may have beside others. ``max_backlog`` is the waiting work in seconds beyond which requests are
    refused, in proportion to the tenants' shares. The part ``audit_fraction`` of early answers is
    audited, where the exit policy learns from that."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    weights: Mapping[str, float] = field(default_factory=dict)
    priorities: Mapping[str, int] = field(default_factory=dict)
    max_backlog: float = DEFAULT_BACKLOG
    audit_fraction: float = 0.01
    seed: int = 0


def run(
    trace: Trace,
    models: Mapping[str, SimulatedModel],
    policy: DispatchPolicy,
    fallback: DispatchPolicy,
    settings: RunSettings,
    progress: Progress | None = None,
) -> Outcomes:
    """The outcome of every request of ``trace`` under ``policy``, which has to be new.

    Requests that name no model go to the first of ``models``. ``fallback`` decides if ``policy``
    fails.
    """
    samples = draw_samples(trace, models, next(iter(models)), settings.seed)
    arrivals = ArrivalStream(trace.arrivals, samples, settings.device.network, progress)
    tally = Tally(trace, policy.name, max(model.calibration.exits for model in models.values()))
    failures = SimulatedDaemon(models, policy, fallback, settings, arrivals, tally).play()
    return tally.outcomes(*failures)


class RequestSource(Protocol):
    """Where requests come from. ``next_at`` is when something happens next, in seconds; inf if
    nothing does."""

    @property
    def next_at(self) -> float: ...

    def take(self) -> tuple[int, Arrival, int] | None:
        """The request that arrives then: its row, the arrival and its sample; None where what
        happens is none."""


class RequestLog(Protocol):
    """Who is told how requests ended (``Tally`` says what each call means)."""

    def decided(self, seconds: float) -> None: ...

    def ran(self, slowdown: float) -> None: ...

    def refuse(self, row: int, now: float, fate: Fate) -> None: ...

    def answer(
        self, row: int, now: float, job: Job, exit: int, confidence: float, latency: float
    ) -> None: ...


class SimulatedDaemon:
    """Batches run on the device, at most one a lane; meanwhile the daemon's own code for requests,
    batches and answers takes its time on the host. Times are in seconds from the trace's start.

    Requests whose bounds cannot be kept are refused, unless they accept the ``best_effort``.
    """

    def __init__(
        self,
        models: Mapping[str, SimulatedModel],
        policy: DispatchPolicy,
        fallback: DispatchPolicy,
        settings: RunSettings,
        arrivals: RequestSource,
        log: RequestLog,
        best_effort: bool = False,
    ) -> None:
        device = settings.device
        self._best_effort = best_effort
        self._asked = {
            name: ModelInPlay(model, device.lanes, settings.audit_fraction)
            for name, model in models.items()
        }
        self._models = {each.name: each for model in self._asked.values() for each in model.sizes}
        self._default = next(iter(models))
        self._unplanned = {name: model.plans.unplanned() for name, model in self._models.items()}
        self._network, self._lanes = device.network, device.lanes
        actual = {each.name: each.actual for model in models.values() for each in model.sizes}
        self._device = Device(actual, device, settings.seed)
        self._host = Host(device, self._device.slowness if device.slow else None)
        self._running = RunningBatches(device.interference)
        self._scheduler = Scheduler(
            policy,
            fallback,
            device.lanes,
            Shares(settings.weights, device.lanes, settings.priorities),
            settings.max_backlog,
        )
        for name, model in self._models.items():
            self._scheduler.learn_model(name, model.view)
        self._capabilities = self._scheduler.capabilities
        self._tally = log
        self._arrivals = arrivals
        self._jobs: dict[int, Job] = {}
        self._wake = inf

    def play(self) -> tuple[int, tuple[str, ...]]:
        """From event to event: a batch ends, requests arrive, or the scheduler has to decide. How
        often policies failed, and the first failures in words."""
        arrivals, host, running = self._arrivals, self._host, self._running
        while True:
            ended = running.next_end
            now = self._next_event(ended)
            if now == inf:
                break
            if ended <= now:
                self._finish(ended)
            while arrivals.next_at <= now:
                self._arrive(ended)
                if host.free > now:
                    break
            self._dispatch(now if now > host.free else host.free)
        if len(self._scheduler):
            raise RuntimeError(f"{len(self._scheduler)} tasks wait, and nothing will happen")
        return self._failures()

    def _next_event(self, ended: float) -> float:
        """When the next event is, inf if none is left, after the replies that the host sends before
        it. The next batch ends, or has ended, at ``ended``."""
        host = self._host
        while not host.is_overdue(ended):
            event = ended if ended < self._wake else self._wake
            if self._arrivals.next_at < event:
                event = self._arrivals.next_at
            if host.next_reply >= event:
                return event
            host.reply(ended)
        return ended

    def _finish(self, ended: float) -> None:
        """The tasks of the batch that ``ended`` are answered, or wait for their next segment."""
        began, batch = self._running.end()
        (name, segment), tasks = batch.key, batch.tasks
        model, size, seconds = self._models[name], len(tasks), ended - began
        joules = model.spent(segment, size, seconds)
        # The engine's clock stops once its own code goes on, which may have to wait.
        host = self._host
        measured = (ended if ended > host.free else host.free) - began
        now = host.decide(ended, size * model.host.task)
        spent = None if joules is None else size * joules
        reasons = [self._reason_to_stop(task, now, seconds / size, joules, size) for task in tasks]
        if size == 1 and reasons[0] is None and self._arrivals.next_at > ended:
            self._go_on(now, batch, measured, spent)
        else:
            self._scheduler.ran(now, batch, now - batch.began, measured, spent)
            for task, reason in zip(tasks, reasons, strict=True):
                job = self._jobs[task.id]
                confidence = job.confidence[segment]
                if reason is None:
                    self._scheduler.resume(now, task, confidence, job.joules_left)
                else:
                    self._scheduler.end(now, task)
                    self._answer(now, task, segment, confidence)
                    job.model.ended(job.sample, segment, reason, self._is_idle)
        self._tally.ran(model.costs.slowdown.mean)

    def _reason_to_stop(
        self, task: Task, now: float, seconds: float, joules: float | None, size: int
    ) -> Reason | None:
        """Why ``task`` ends after its segment, which took so much of a batch of ``size``."""
        job = self._jobs[task.id]
        job.spend(seconds, joules)
        if self._capabilities.plans:
            return job.reason_to_stop(task.segment, now - task.arrived + self._network, size)
        return "final" if task.segment == task.last else None

    def _go_on(self, now: float, batch: Batch, measured: float, joules: float | None) -> None:
        """The task of ``batch`` waits for its next segment, or is alone and starts: nobody arrives
        before the scheduler has to decide."""
        (task,) = batch.tasks
        job, began = self._jobs[task.id], time.perf_counter()
        confidence = job.confidence[task.segment]
        if self._scheduler.go_on(now, batch, measured, joules, confidence, job.joules_left):
            self._tally.decided(time.perf_counter() - began)
            self._wake = inf
            self._start(now, batch)

    def _arrive(self, ended: float) -> None:
        """The next request is planned and waits, or is refused; ``ended`` as in ``_next_event``."""
        ready = self._arrivals.next_at
        taken = self._arrivals.take()
        if taken is None:
            return
        row, arrival, sample = taken
        model = self._asked[arrival.model or self._default]
        waited = max(0.0, self._host.free - ready)
        read = self._host.read(ready, ended)
        now = self._host.occupy(read, model.host.request)
        model.relax(now)
        scheduler, cap = self._scheduler, arrival.bounds.max_latency
        # The answer has to leave the device one way back before the client's cap ends.
        deadline = inf if cap is None else arrival.time + cap - self._network
        try:
            ahead = scheduler.admit(now, arrival.tenant, arrival.priority, deadline)
            plan = self._plan(model, arrival, read, waited, ahead)
        except InfeasibleBound:
            self._tally.refuse(row, now, Fate.INFEASIBLE)
            return
        except Overloaded:
            self._tally.refuse(row, now, Fate.OVERLOADED)
            return
        model = model.at(plan.size)
        job = Job(arrival, model, plan, model.confidence[sample], model.correct[sample], sample)
        self._jobs[row] = job
        priority = scheduler.shares.priority(arrival.tenant, arrival.priority)
        scheduler.add(now, job.task(row, deadline, priority))

    def _plan(
        self, model: ModelInPlay, arrival: Arrival, read: float, waited: float, ahead: float
    ) -> Plan:
        """The plan of a request. The time that it ``waited`` for the host counts as others' work
        ``ahead`` of it. Plans include what it takes to admit a request that was ``read``."""
        if not self._capabilities.plans:
            return self._unplanned[model.name]
        spent = read - arrival.time + self._network
        waiting = waited + self._scheduler.waiting_seconds
        at = Conditions(spent - waited, waited + ahead, waiting)
        return model.plans.admit(arrival.bounds, at, self._best_effort)

    def _dispatch(self, now: float) -> None:
        """Follow the scheduler's decisions."""
        if now < self._wake and len(self._running) == self._lanes:
            return  # no arrival can change anything before a batch ends
        while True:
            began = time.perf_counter()
            run, answer, overdue, refuse, self._wake, again = self._scheduler.next(now)
            self._tally.decided(time.perf_counter() - began)
            if run is not None:
                self._start(now, run)
            for task in answer + overdue:
                self._answer(now, task, task.exit, task.confidence)
            for task in refuse:
                del self._jobs[task.id]
                self._tally.refuse(task.id, now, Fate.OVERLOADED)
            if not again:
                return
            now = max(now, self._host.free)

    @property
    def _is_idle(self) -> bool:
        return not len(self._scheduler) and not len(self._running)

    def _start(self, now: float, batch: Batch) -> None:
        model, segment = batch.key
        began = self._host.occupy(now, self._models[model].host.batch)
        takes = self._device.takes(began, model, segment, len(batch.tasks))
        self._running.start(began, batch, takes)

    def _answer(self, now: float, task: Task, exit: int, confidence: float) -> None:
        now = max(now, self._host.free)
        job = self._jobs.pop(task.id)
        latency = now - task.arrived + self._network + self._device.answering(task.model)
        self._tally.answer(task.id, now, job, exit, confidence, latency)
        self._host.answer(now, job.model.host.answer)

    def _failures(self) -> tuple[int, tuple[str, ...]]:
        failed = [model for model in self._models.values() if model.failure is not None]
        return (
            self._scheduler.failures + sum(model.failures for model in failed),
            (*map(str, self._scheduler.fetch_report()), *(str(model.failure) for model in failed)),
        )
