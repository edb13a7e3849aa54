"""Plays a trace on a device that is not there: the scheduler, planner and policies of the daemon,
driven by events instead of a clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from delen.dispatch import DispatchPolicy, Task
from delen.errors import InfeasibleBound, ModelNotFound, Overloaded
from delen.plan import Plan
from delen.scheduler.core import Orders, Scheduler
from delen.scheduler.judging import judge
from delen.scheduler.lanes import Batch
from delen.scheduler.shares import Shares
from delen.settings import DEFAULT_BACKLOG
from delen.simulate.device import Device, DeviceSettings
from delen.simulate.in_flight import InFlight
from delen.simulate.ledger import Ledger
from delen.simulate.model import ModelInPlay, SimulatedModel
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.population import Population
from delen.simulate.trace import Arrival, Trace

_STEPS = 100
"""Progress is told so many times in a run."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """``weights`` are tenants' (1 where not named), ``priorities`` the most urgent ones that they
    may have beside others. ``max_backlog`` is the waiting work in seconds
    beyond which requests are refused, in the proportion of the tenants' shares."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    weights: Mapping[str, float] = field(default_factory=dict)
    priorities: Mapping[str, int] = field(default_factory=dict)
    max_backlog: float = DEFAULT_BACKLOG
    seed: int = 0


def draw_samples(
    trace: Trace, models: Mapping[str, SimulatedModel], default: str, seed: int
) -> list[int]:
    """The sample that each request is about, the same in every run of one seed.

    ModelNotFound naming a model that is not among ``models``.
    """
    rows: dict[str, list[int]] = {}
    for row, arrival in enumerate(trace.arrivals):
        rows.setdefault(arrival.model or default, []).append(row)
    samples = [0] * len(trace)
    for name, of_model in rows.items():
        if name not in models:
            known = ", ".join(sorted(models))
            raise ModelNotFound(f"the trace asks for the model {name!r}; simulated: {known}")
        population: Population = models[name].population
        drawn = population.draw(len(of_model), seed).tolist()
        for row, sample in zip(of_model, drawn, strict=True):
            samples[row] = sample
    return samples


def run(
    trace: Trace,
    models: Mapping[str, SimulatedModel],
    policy: DispatchPolicy,
    fallback: DispatchPolicy,
    settings: RunSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """What becomes of every request of ``trace`` under ``policy``, which has to be new.

    The host takes its time for requests, batches and answers (``HostCosts`` of the profiles), one
    after the other as they come, but that a batch which has ended waits for no more of what came
    before than there are ``readers``; meanwhile the lanes run on.

    Requests that name no model go to the first of ``models``. ``fallback`` decides where
    ``policy`` fails. ``progress`` is told how many requests of how many have arrived.
    """
    return _Run(trace, models, policy, fallback, settings).play(progress)


class _Run:
    def __init__(
        self,
        trace: Trace,
        models: Mapping[str, SimulatedModel],
        policy: DispatchPolicy,
        fallback: DispatchPolicy,
        settings: RunSettings,
    ) -> None:
        self._arrivals = trace.arrivals
        self._default = next(iter(models))
        self._samples = draw_samples(trace, models, self._default, settings.seed)
        lanes = settings.device.lanes
        self._models = {name: ModelInPlay(model, lanes) for name, model in models.items()}
        self._unplanned = {name: model.plans.unplanned() for name, model in self._models.items()}
        device = settings.device
        self._network, self._lanes = device.network, device.lanes
        self._coming, self._leaving = device.front
        self._coming_crowded, self._leaving_crowded = device.crowded or device.front
        self._readers = device.readers
        profiles = {name: model.actual for name, model in models.items()}
        self._device = Device(profiles, device, settings.seed)
        self._scheduler = Scheduler(
            policy,
            fallback,
            device.lanes,
            Shares(settings.weights, device.lanes, settings.priorities),
            settings.max_backlog,
        )
        for name, model in self._models.items():
            self._scheduler.learn_model(name, model.figures)
        self._manners = self._scheduler.manners
        exits = max(model.exits for model in self._models.values())
        self._ledger = Ledger(trace, self._scheduler.policy, exits)
        self._exit_failures = 0
        self._failed_exits: dict[str, BaseException] = {}
        self._plans: dict[int, Plan] = {}
        self._running = InFlight(device.corun)
        self._batches = 0
        self._slowdown = 0.0
        self._replies: deque[float] = deque()
        self._host_free = 0.0
        self._wake = inf

    def play(self, progress: Callable[[int, int], None] | None) -> Outcomes:
        arrivals, count, row = self._arrivals, len(self._arrivals), 0
        running, replies, network = self._running, self._replies, self._network
        step = max(1, count // _STEPS)
        next_arrival = arrivals[0].time + network if count else inf
        # What goes before an ended batch, which waits for the host: at most one thing a reader.
        passed, readers = 0, self._readers
        while True:
            ended = running.next_end
            if ended <= self._host_free and passed >= readers:
                ready = ended
            else:
                ready = min(next_arrival, ended, self._wake)
                if replies and replies[0] < ready:
                    passed += ended <= self._host_free
                    left = replies.popleft()
                    crowded = self._host_free > left
                    self._occupy(left, self._leaving_crowded if crowded else self._leaving)
                    continue
            if ready == inf:
                break
            if ended <= ready:
                passed = 0
                self._finish(ended, *running.end())
            while next_arrival <= ready:
                passed += ended <= self._host_free
                self._arrive(next_arrival, row, arrivals[row])
                row += 1
                next_arrival = arrivals[row].time + network if row < count else inf
                if progress is not None and row % step == 0:
                    progress(row, count)
                if self._host_free > ready:
                    break
            self._dispatch(max(ready, self._host_free))
        if len(self._scheduler):
            raise RuntimeError(f"{len(self._scheduler)} tasks wait, and nothing will happen")
        failures = [str(failure) for failure in self._scheduler.fetch_report()]
        for name, error in self._failed_exits.items():
            problem = f"{type(error).__name__}: {error}"
            failures.append(f"the exit policy of {name!r} failed: {problem}")
        count = self._scheduler.failures + self._exit_failures
        slowdown = self._slowdown / self._batches if self._batches else None
        return self._ledger.outcomes(count, tuple(failures), slowdown)

    def _occupy(self, ready: float, seconds: float) -> float:
        """When the host, which takes ``seconds`` for what is ``ready`` then, is done with it."""
        began = max(ready, self._host_free)
        self._host_free = began + seconds * self._device.slowness(began) if seconds else began
        return self._host_free

    def _arrive(self, ready: float, row: int, arrival: Arrival) -> None:
        name, bounds = arrival.model or self._default, arrival.bounds
        model, scheduler = self._models[name], self._scheduler
        waited = max(0.0, self._host_free - ready)
        coming = self._coming_crowded if waited else self._coming
        read = self._occupy(ready, coming)
        now = self._occupy(read, model.host.request)
        model.costs.relax(now)
        cap = bounds.max_latency
        # The answer has to leave the device a way back before the client's cap is passed.
        deadline = inf if cap is None else arrival.time + cap - self._network
        try:
            scheduler.check_room(now, arrival.tenant)
            plan = self._plan(now, read, model, arrival, deadline, waited)
        except InfeasibleBound:
            self._ledger.refuse(row, now, Fate.INFEASIBLE)
            return
        except Overloaded:
            self._ledger.refuse(row, now, Fate.OVERLOADED)
            return
        self._plans[row] = plan
        task = Task(
            id=row,
            model=name,
            tenant=arrival.tenant,
            arrived=arrival.time,
            segment=0,
            last=plan.exit,
            deadline=deadline,
            priority=scheduler.shares.priority(arrival.tenant, arrival.priority),
            floor=plan.guarantee is not None,
            threshold=plan.threshold,
            joules_left=inf if bounds.max_energy is None else bounds.max_energy,
        )
        scheduler.add(now, task)

    def _plan(
        self,
        now: float,
        read: float,
        model: ModelInPlay,
        arrival: Arrival,
        deadline: float,
        waited: float,
    ) -> Plan:
        """That it ``waited`` for the host is others' work, as what is ahead. Plans know what it
        takes to admit a request that was ``read``."""
        manners = self._manners
        if not manners.plans:
            return self._unplanned[model.name]
        spent = read - arrival.time + self._network
        ahead = 0.0
        if manners.admits:
            ahead = self._scheduler.ahead(now, arrival.priority, arrival.tenant, deadline)
        return model.plans.admit(arrival.bounds, spent - waited, waited + ahead)

    def _dispatch(self, now: float) -> None:
        if now < self._wake and len(self._running) == self._lanes:
            return  # what has arrived can change nothing before a batch ends
        scheduler = self._scheduler
        again = True
        while again:
            began = time.perf_counter()
            orders = scheduler.next(now)
            self._ledger.decided(time.perf_counter() - began)
            self._follow(now, orders)
            now = max(now, self._host_free)
            again = orders.again
        self._wake = orders.wake

    def _follow(self, now: float, orders: Orders) -> None:
        if orders.run is not None:
            batch = orders.run
            model, segment = batch.key
            began = self._occupy(now, self._models[model].host.batch)
            self._running.start(
                began, batch, self._device.takes(began, model, segment, len(batch.tasks))
            )
            self._batches += 1
        for task in orders.answer:
            self._answer(now, task, task.exit, task.confidence)
        for task in orders.late:
            self._answer(now, task, task.exit, task.confidence)
        for task in orders.refuse:
            self._plans.pop(task.id)
            self._ledger.refuse(task.id, now, Fate.OVERLOADED)

    def _finish(self, ended: float, began: float, batch: Batch) -> None:
        (name, segment), tasks = batch.key, batch.tasks
        model, size, seconds = self._models[name], len(tasks), ended - began
        joules = model.spent(segment, size, seconds)
        # The engine's clock stops when its own code goes on, which may have to wait.
        measured = max(ended, self._host_free) - began
        now = self._occupy(ended, size * model.host.task)
        spent = None if joules is None else size * joules
        self._scheduler.ran(now, batch, now - batch.began, measured, spent)
        self._slowdown += model.costs.slowdown.mean
        each = seconds / size
        for task in tasks:
            self._ledger.spend(task.id, each, joules)
            self._decide(now, task, model, segment, size)

    def _decide(self, now: float, task: Task, model: ModelInPlay, segment: int, size: int) -> None:
        row = task.id
        confidence = model.confidence[self._samples[row]][segment]
        energy = self._ledger.energy[row]
        plan = self._plans[row]
        if self._manners.plans:
            bounds = self._arrivals[row].bounds
            elapsed = now - task.arrived + self._network
            view = model.views.at(segment, confidence, bounds, plan, elapsed, energy, size)
            decision, error = judge(model.policy, view)
            if error is not None:
                self._exit_failures += 1
                self._failed_exits.setdefault(model.name, error)
            stops = decision.stop
        else:
            stops = segment == plan.exit
        if stops:
            self._scheduler.end(now, task)
            self._answer(now, task, segment, confidence)
        else:
            cap = self._arrivals[row].bounds.max_energy
            left = inf if cap is None or energy is None else cap - energy
            self._scheduler.resume(now, task, confidence, left)

    def _answer(self, now: float, task: Task, exit: int, confidence: float) -> None:
        row = task.id
        now = max(now, self._host_free)
        model, plan = self._models[task.model], self._plans.pop(row)
        confident = plan.threshold is not None and confidence >= plan.threshold
        self._ledger.answer(
            row,
            now,
            exit,
            latency=now - task.arrived + self._network + self._device.answering(task.model),
            correct=model.correct[self._samples[row]][exit],
            as_planned=plan.guarantee is not None and (exit == plan.exit or confident),
        )
        left = self._occupy(now, model.host.answer)
        if self._leaving:
            self._replies.append(left)
