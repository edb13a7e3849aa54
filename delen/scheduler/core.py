"""Which tasks run which segment next, which are answered with what they have, and which wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf, nextafter
from types import MappingProxyType

from delen.core.dispatch import DispatchPolicy, Key, PolicyCapabilities, Ran, Task
from delen.scheduler.batching_delay import BatchingDelay
from delen.scheduler.decision import NOTHING, DispatchDecision
from delen.scheduler.lanes import Batch, Lanes
from delen.scheduler.lazy_heap import LazyHeap
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import GuardedPolicy, PolicyFailure
from delen.scheduler.queues import Groups
from delen.scheduler.shares import Shares
from delen.scheduler.waiting_work import WaitingWork

_set = object.__setattr__
"""Policies cannot change a task, the scheduler can."""

_PATIENCE = 5.0
"""The patience of a task without a deadline, in times of the largest backlog. So tasks whose
patience has passed take at most a fifth of the device from those that have a deadline."""


def _reached(task: Task, confidence: float, joules_left: float) -> None:
    """``task`` has the answer of the exit of its segment, and waits for the next one."""
    _set(task, "exit", task.segment)
    _set(task, "segment", task.segment + 1)
    _set(task, "confidence", confidence)
    _set(task, "joules_left", joules_left)


@dataclass(slots=True, eq=False)
class _DeviceTime:
    """Device seconds of one task: ``booked`` on ``bucket`` when it came, ``used`` so far, and still
    expected while it is ``waiting``."""

    bucket: str
    booked: float
    used: float = 0.0
    waiting: float = 0.0


class Scheduler:
    """The tasks of one device from their admission to their end.

    A task is added once; then it waits (``add``, ``resume``) or runs (``next``, ``ran``) until
    it ends: in ``next``, or by ``end`` or ``remove``. At most ``lanes`` batches run at once; one
    starts beside others only if the device then does more, and no deadline of theirs is broken
    (Lanes.opens). While lanes are busy all costs are those of running beside them. ``default``
    decides where ``policy`` fails. Times are in seconds on the caller's clock; if it falls, the
    scheduler's clock stands still. ``expect``, ``expect_no_more``, ``has_room`` and ``check_room``
    are those of WaitingWork.
    """

    def __init__(
        self,
        policy: DispatchPolicy,
        default: DispatchPolicy,
        lanes: int = 1,
        shares: Shares | None = None,
        max_backlog: float = inf,
    ) -> None:
        self.shares = shares or Shares(lanes=lanes)
        self._policy = GuardedPolicy(policy, default)
        self._default = default
        self._lanes = Lanes(lanes)
        self._patience = _PATIENCE * max_backlog
        self._models: dict[str, ScheduledModel] = {}
        self._models_view: Mapping[str, ScheduledModel] = MappingProxyType(self._models)
        self._groups = Groups()
        self._work = WaitingWork(max_backlog, self.shares, self._groups, self._models)
        self._backlog = self._work.backlog
        self.expect, self.expect_no_more = self._work.expect, self._work.expect_no_more
        self.has_room, self.check_room = self._work.has_room, self._work.check_room
        self._start_by = LazyHeap()
        self._delay: BatchingDelay | None = None
        self._device_times: dict[int, _DeviceTime] = {}
        self._now = -inf

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._groups)

    def __contains__(self, id: int) -> bool:
        """Whether task ``id`` waits."""
        return id in self._groups

    @property
    def lanes(self) -> int:
        """How many batches may run at once."""
        return self._lanes.count

    @property
    def busy(self) -> int:
        """How many batches run."""
        return self._lanes.busy

    @property
    def capabilities(self) -> PolicyCapabilities:
        return self._policy.capabilities

    @property
    def policy(self) -> str:
        """The name of the policy in force."""
        return self._policy.name

    @property
    def failures(self) -> int:
        """How often the policy failed."""
        return self._policy.failures

    def use(self, policy: DispatchPolicy) -> None:
        """``policy``, which is new, decides from now on, and the default where it fails."""
        self._policy = GuardedPolicy(policy, self._default, self._policy.failures)

    def fetch_report(self) -> list[PolicyFailure]:
        """The policies that failed for the first time since the last call, to be logged."""
        return self._policy.fetch_report()

    def decision_took(self, seconds: float) -> None:
        """The last ``next`` took so many seconds."""
        self._policy.decision_took(seconds)

    def reporting_took(self, seconds: float) -> None:
        """The last ``ran``, ``end`` or ``remove`` took so many seconds."""
        self._policy.reporting_took(seconds)

    def learn_model(self, name: str, view: ScheduledModel) -> None:
        """Accept tasks of model ``name`` from now on."""
        self._models[name] = view

    def forget_model(self, name: str) -> None:
        """Accept no more tasks of model ``name``; none may be left."""
        del self._models[name]
        self._groups.forget(name)

    def keep_resident(self, name: str, depth: int) -> None:
        """Only the first ``depth`` segments of model ``name`` are in memory from now on. The policy
        does not see tasks that wait for other segments, and they delay no others."""
        self._groups.keep(name, depth)

    def parked(self, model: str) -> list[Task]:
        """The tasks of ``model`` that wait for a segment which is not in memory."""
        return self._groups.parked(model)

    def admit(self, now: float, tenant: str, priority: int | None, deadline: float) -> float:
        """Seconds until a new task with these properties can start, 0 under a policy that does not
        need to know. Overloaded where too much work of ``tenant`` waits."""
        self.check_room(now, tenant)
        return self.wait(now, priority, tenant, deadline)

    def wait(self, now: float, priority: int | None, tenant: str, deadline: float) -> float:
        """As ``admit``, for one that is not refused."""
        capabilities = self._policy.capabilities
        if not (capabilities.plans and capabilities.admits):
            return 0.0
        return self.ahead(now, priority, tenant, deadline)

    def add(self, now: float, task: Task) -> None:
        """Accept a new task, which waits for its first segment."""
        now = self._clock(now)
        view = self._models[task.model]
        work = view.expected(task)
        bucket, within, is_second = self.shares.take(now, task.tenant, work)
        if is_second:
            self._take_back_priorities(now)
        _set(task, "behind", not within)
        _set(task, "weight", self.shares.weight(task.tenant))
        _set(task, "priority", self.shares.priority(task.tenant, task.priority))
        _set(task, "patience", self._patience)
        self._device_times[task.id] = _DeviceTime(bucket, work if within else 0.0)
        self._queue(now, task, view, work)

    def resume(self, now: float, task: Task, confidence: float, joules_left: float = inf) -> None:
        """``task`` reached the exit of its segment, ``confidence`` sure, and goes on."""
        now = self._clock(now)
        _reached(task, confidence, joules_left)
        view = self._models[task.model]
        self._queue(now, task, view, view.expected(task))

    def go_on(
        self,
        now: float,
        batch: Batch,
        measured: float | None,
        joules: float | None,
        confidence: float,
        joules_left: float = inf,
    ) -> bool:
        """As ``ran`` and ``resume`` of ``batch``, which is of one task. If nothing else waits or
        runs, and the policy would run that task now, it has started on its next segment, as
        ``next`` would have it: then ``batch`` is of that, and this is true."""
        (task,) = batch.tasks
        lanes = self._lanes
        if self._groups.positions or lanes.busy > 1:
            self.ran(now, batch, now - batch.began, measured, joules)
            self.resume(now, task, confidence, joules_left)
            return False
        now = self._clock(now)
        if lanes.count > 1:
            lanes.advance(now)
        self._take_in(now, batch, now - batch.began, measured, joules)
        if lanes.count > 1:
            self._run_beside(0)
        _reached(task, confidence, joules_left)
        view = self._models[task.model]
        if not self._starts_alone(now, task):
            lanes.end(now, batch)
            self._queue(now, task, view, view.expected(task))
            return False
        _set(task, "waiting_since", now)
        if self._delay is not None:
            self._delay.end()
        lanes.go_on(now, batch, Key(task.model, task.segment), view)
        if lanes.count > 1:
            self._update_busy()
        return True

    def _starts_alone(self, now: float, task: Task) -> bool:
        """Whether ``next`` would start ``task`` if it alone waited, as far as that is known without
        asking the policy to choose."""
        if self._groups.is_parked(task.model, task.segment):
            return False
        if task.deadline < inf and self._latest_start(task) < now:
            return False
        return self._policy.runs_alone(now, task, self._models_view)

    def remove(self, now: float, id: int) -> Task:
        """End a waiting task: it was cancelled. KeyError if it does not wait."""
        task = self._unqueue(id)
        self.end(now, task)
        return task

    def end(self, now: float, task: Task) -> None:
        """Forget ``task``, which does not wait: it was answered, or failed."""
        time = self._device_times.pop(task.id)
        if time.booked:
            self.shares.settle(time.bucket, time.booked, time.used)
        self._policy.ended(self._clock(now), task)

    def next(self, now: float) -> DispatchDecision:
        """What is to happen now. The driver calls it whenever something happened."""
        now = self._clock(now)
        groups, lanes = self._groups, self._lanes
        if not groups.positions:
            return NOTHING
        if not lanes.opens(now):
            overdue, wake = self._overdue(now, lanes.next_end(now)) if self._start_by else ((), inf)
            return DispatchDecision(None, (), overdue, (), wake)
        overdue, wake = self._overdue(now, nextafter(now, -inf))
        if not groups.view:
            return DispatchDecision(None, (), overdue, (), wake)
        if len(groups.positions) == 1 and lanes.idle:
            ((task,),) = groups.view.values()
            if self._policy.runs_alone(now, task, self._models_view):
                if self._delay is not None:
                    self._delay.end()
                return DispatchDecision(self._start_tasks(now, (task,)), (), overdue, (), inf)
        to_run, to_answer, to_refuse, policy_wake = self._policy.choose(
            now, groups, self._models_view, lanes.idle, self._delay_until
        )
        run = self._start_tasks(now, to_run) if to_run else None
        answer = self._end_all(now, to_answer) if to_answer else ()
        refuse = self._end_all(now, to_refuse) if to_refuse else ()
        opens = lanes.opens(now)
        if run is None and not answer and not refuse:
            policy_wake = min(policy_wake, self._delay_until())
        else:
            policy_wake = inf
            if self._delay is not None:
                self._delay.end()
            if opens and groups.view:
                return DispatchDecision(run, answer, overdue, refuse, now, again=True)
        if wake < inf:
            more, wake = self._overdue(now, now if opens else lanes.next_end(now))
            overdue += more
        if policy_wake < wake:
            wake = policy_wake
        return DispatchDecision(run, answer, overdue, refuse, wake)

    def start_own(self, now: float, key: Key, view: ScheduledModel) -> Batch:
        """The driver runs the segment of ``key`` for itself, on one sample and one lane."""
        return self._start(self._clock(now), key, (), view)

    def ran(
        self,
        now: float,
        batch: Batch,
        seconds: float,
        measured: float | None = None,
        joules: float | None = None,
    ) -> None:
        """``batch`` took a lane for ``seconds``, in which the segment itself took ``measured``
        (None: nothing can be learnt from it) and ``joules`` (None: unknown). The driver resumes or
        ends its tasks one by one."""
        now = self._clock(now)
        self._lanes.end(now, batch)
        self._take_in(now, batch, seconds, measured, joules)
        if self._lanes.count > 1:
            self._update_busy()

    def _take_in(
        self,
        now: float,
        batch: Batch,
        seconds: float,
        measured: float | None,
        joules: float | None,
    ) -> None:
        """Learn from what ``batch`` took, and account for it."""
        (model, segment), size = batch.key, len(batch.tasks)
        view = self._models.get(model)
        if measured is not None and view is not None:
            view.learn(segment, size or 1, measured, joules, batch.spent)
        if view is None or not size:
            return
        each = seconds / size
        alone = view.typical(segment, segment, 1) / view.slowdown_factor * view.interference.gain
        self._backlog.ran(each / alone)
        for task in batch.tasks:
            self._device_times[task.id].used += each
        self._policy.ran(now, Ran(batch.key, size, seconds, batch.predicted))

    def abandon(self, now: float, batch: Batch) -> None:
        """Free the lane of ``batch`` and forget its tasks, as far as ``ran``, ``resume`` and
        ``end`` have not: the driver failed with them."""
        now = self._clock(now)
        if self._lanes.is_running(batch):
            self._lanes.end(now, batch)
        if self._lanes.count > 1:
            self._update_busy()
        for task in batch.tasks:
            if task.id in self._device_times and task.id not in self._groups:
                self.end(now, task)

    def ahead(self, now: float, priority: int | None, tenant: str, deadline: float) -> float:
        """Seconds until a new task with these properties can start, if all optional work is left
        out before."""
        now = self._clock(now)
        is_second, behind = self.shares.enter(now, tenant)
        if is_second:
            self._take_back_priorities(now)
        priority = self.shares.priority(tenant, priority)
        due = deadline if deadline < inf else now + self._patience
        before = self._work.before(priority, behind, due, now + self._patience)
        return before + self._lanes.wait(now)

    @property
    def waiting_seconds(self) -> float:
        """Device seconds that all waiting tasks need, each alone."""
        return self._backlog.seconds

    def backlog(self, now: float) -> float:
        """Seconds until everything that waits is done, if nothing more came."""
        now = self._clock(now)
        return self._work.seconds() + self._lanes.wait(now)

    def utilisation(self, now: float) -> float:
        """The share of all lanes that was busy in the last seconds."""
        return self._lanes.utilisation(self._clock(now))

    def _clock(self, now: float) -> float:
        if now > self._now:
            self._now = now
        return self._now

    def _take_back_priorities(self, now: float) -> None:
        """A tenant alone may have any priority, but loses it once others come."""
        for group in list(self._groups.view.values()):
            view = self._models[group.key.model]
            for task in list(group):
                priority = self.shares.priority(task.tenant, task.priority)
                if priority != task.priority:
                    self._unqueue(task.id)
                    _set(task, "priority", priority)
                    self._queue(now, task, view, view.expected(task))

    def _queue(self, now: float, task: Task, view: ScheduledModel, work: float) -> None:
        _set(task, "waiting_since", now)
        self._groups.add(task, view.mandatory(task, work))
        time = self._device_times[task.id]
        time.waiting = work
        self._backlog.add(time.bucket, work)
        if self._delay is not None:
            self._delay.add(task)
        if task.deadline < inf and (
            (task.exit >= 0 and self._policy.capabilities.guards)
            or self._groups.is_parked(task.model, task.segment)
        ):
            self._start_by.add(task.id, self._latest_start(task))

    def _unqueue(self, id: int) -> Task:
        """Take task ``id`` out of all queues; KeyError if it does not wait."""
        task, time = self._groups.take(id), self._device_times[id]
        self._backlog.remove(time.bucket, time.waiting)
        self._start_by.discard(id)
        if self._delay is not None:
            self._delay.discard(id)
            if not self._groups.view:
                self._delay.end()
        return task

    def _latest_start(self, task: Task) -> float:
        """When ``task`` has to start to get its next answer by its deadline."""
        view = self._models[task.model]
        return task.deadline - view.latency_upper(task.segment, view.next_useful(task), 1)

    def _delay_until(self) -> float:
        """When something has to run. Kept from the first delay on: most policies delay nothing."""
        if self._delay is None:
            waiting = chain.from_iterable(self._groups.view.values())
            self._delay = BatchingDelay(self._latest_start, waiting)
        return self._delay.until(self._now)

    def _start_tasks(self, now: float, chosen: Sequence[Task]) -> Batch:
        key = self._groups.positions[chosen[0].id].group.key
        tasks = tuple([self._unqueue(task.id) for task in chosen])
        return self._start(now, key, tasks, self._models[key.model])

    def _start(self, now: float, key: Key, tasks: tuple[Task, ...], view: ScheduledModel) -> Batch:
        batch = self._lanes.start(now, key, tasks, view)
        if self._lanes.count > 1:
            self._update_busy()
        return batch

    def _update_busy(self) -> None:
        """Predict costs from now on beside the batches that run."""
        self._run_beside(min(self._lanes.busy, self._lanes.count - 1))

    def _run_beside(self, others: int) -> None:
        for view in self._models.values():
            view.run_beside(others)

    def _end_all(self, now: float, tasks: Sequence[Task]) -> tuple[Task, ...]:
        return tuple([self.remove(now, id) for id in [task.id for task in tasks]])

    def _overdue(self, now: float, start: float) -> tuple[tuple[Task, ...], float]:
        """End the tasks that get no answer, or no better one, in time if they start after
        ``start``; also return when the next one is overdue (inf: never)."""
        soonest, id = self._start_by.first()
        if soonest > start:
            return (), soonest
        overdue: list[Task] = []
        while soonest <= start:
            overdue.append(self.remove(now, id))
            soonest, id = self._start_by.first()
        return tuple(overdue), soonest
