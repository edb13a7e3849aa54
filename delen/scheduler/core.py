"""Which tasks run which segment next, who is answered with what it has, and who has to wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf, nextafter
from types import MappingProxyType
from typing import NamedTuple

from delen.dispatch import DispatchPolicy, Manners, Ran, Task
from delen.errors import Overloaded
from delen.scheduler.contained import ContainedPolicy, PolicyFailure
from delen.scheduler.figures import ModelFigures
from delen.scheduler.groups import Groups, WaitingGroup
from delen.scheduler.hold import Hold
from delen.scheduler.lanes import Batch, Lanes
from delen.scheduler.lazy_heap import LazyHeap
from delen.scheduler.shares import Shares


class Orders(NamedTuple):
    """What the driver is to do now.

    Run ``run`` and tell ``Scheduler.ran`` when it ended. Send out the answers that ``answer``
    (the policy wants it) and ``late`` (no better one could be had in time) have. Fail ``refuse``,
    which have none. All but ``run`` have ended for the scheduler. Ask again at once if ``again``,
    else at ``wake`` (seconds, the caller's clock) if nothing happened until then.
    """

    run: Batch | None = None
    answer: tuple[Task, ...] = ()
    late: tuple[Task, ...] = ()
    refuse: tuple[Task, ...] = ()
    wake: float = inf
    again: bool = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.run is None and not (self.answer or self.late or self.refuse)


NOTHING = Orders()


_PATIENCE = 5.0
"""A task without a deadline waits for so many times the largest backlog. So what of it has waited
that long takes no more than a fifth of the device from those that have one."""


@dataclass(slots=True, eq=False)
class _Account:
    """Device seconds of one task: expected when it came, booked on its tenant, used until now,
    and still expected while it waits."""

    booked: float
    used: float = 0.0
    waiting: float = 0.0


@dataclass(slots=True, eq=False)
class _Queue:
    """How many tasks of one tenant wait, and the device seconds that they need alone."""

    tasks: int = 0
    seconds: float = 0.0


class Scheduler:
    """The tasks of one device from their admission to their end.

    A task is added once; then it waits (``add``, ``resume``) or runs (``next``, ``ran``) until
    it ends: in ``next``, or by ``end`` or ``remove``. ``lanes`` batches run at once. ``default``
    decides where ``policy`` fails. Times are in seconds on the caller's clock; one that falls is
    taken to stand still.
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
        self._policy = ContainedPolicy(policy, default)
        self._lanes = Lanes(lanes)
        self._max_backlog = max_backlog
        self._patience = _PATIENCE * max_backlog
        self._figures: dict[str, ModelFigures] = {}
        self._figures_view: Mapping[str, ModelFigures] = MappingProxyType(self._figures)
        self._groups = Groups()
        self._start_by = LazyHeap()
        self._hold: Hold | None = None
        self._accounts: dict[int, _Account] = {}
        self._queues: dict[str, _Queue] = {}
        self._now = -inf

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._groups)

    def __contains__(self, id: int) -> bool:
        """Whether task ``id`` waits."""
        return id in self._groups

    @property
    def manners(self) -> Manners:
        return self._policy.manners

    @property
    def policy(self) -> str:
        """The name of the policy in force."""
        return self._policy.name

    @property
    def failures(self) -> int:
        """How often the policy failed."""
        return self._policy.failures

    def fetch_report(self) -> list[PolicyFailure]:
        """What failed for the first time since the last call, to be logged."""
        return self._policy.fetch_report()

    def decision_took(self, seconds: float) -> None:
        """The last ``next`` took so long by a clock."""
        self._policy.decision_took(seconds)

    def telling_took(self, seconds: float) -> None:
        """The last ``ran``, ``end`` or ``remove`` took so long by a clock."""
        self._policy.telling_took(seconds)

    def learn_model(self, name: str, figures: ModelFigures) -> None:
        """Take tasks of model ``name`` from now on."""
        self._figures[name] = figures

    def forget_model(self, name: str) -> None:
        """Take no more tasks of model ``name``, of which none may be left."""
        del self._figures[name]

    def add(self, now: float, task: Task) -> None:
        """Take a new task, which waits for its first segment."""
        now = self._clock(now)
        work = self._figures[task.model].expected(task)
        within = self.shares.take(now, task.tenant, work)
        weight = self.shares.weight(task.tenant)
        _change(task, behind=not within, weight=weight, patience=self._patience)
        self._accounts[task.id] = _Account(work if within else 0.0)
        self._queue(now, task, work)

    def resume(self, now: float, task: Task, confidence: float, joules_left: float = inf) -> None:
        """``task`` reached the exit of its segment, ``confidence`` sure, and goes on."""
        now = self._clock(now)
        _change(
            task,
            exit=task.segment,
            segment=task.segment + 1,
            confidence=confidence,
            joules_left=joules_left,
        )
        self._queue(now, task, self._figures[task.model].expected(task))

    def remove(self, now: float, id: int) -> Task:
        """End a waiting task: it was cancelled. KeyError if it does not wait."""
        task = self._unqueue(id)
        self.end(now, task)
        return task

    def end(self, now: float, task: Task) -> None:
        """Forget ``task``, which does not wait: it was answered, or failed."""
        account = self._accounts.pop(task.id)
        if account.booked:
            self.shares.settle(task.tenant, account.booked, account.used)
        self._policy.ended(self._clock(now), task)

    def next(self, now: float) -> Orders:
        """What is to happen now. To be asked whenever something happened."""
        now = self._clock(now)
        if not self._groups:
            return NOTHING
        if not self._lanes.free:
            late = self._too_late(now, self._lanes.next_free(now))
            return Orders(late=late, wake=self._wake(inf))
        late = self._too_late(now, nextafter(now, -inf))
        if not self._groups:
            return Orders(late=late)
        turn = self._policy.choose(
            now, self._groups, self._figures_view, self._lanes.idle, partial(self._hold_until, now)
        )
        run = self._start(now, turn.run) if turn.run else None
        answer = tuple([self.remove(now, task.id) for task in tuple(turn.answer)])
        refuse = tuple([self.remove(now, task.id) for task in tuple(turn.refuse)])
        acted = run is not None or bool(answer or refuse)
        if acted and self._hold is not None:
            self._hold.end()
        if acted and self._lanes.free and self._groups:
            return Orders(run, answer, late, refuse, now, again=True)
        wake = inf if acted else min(turn.wake, self._hold_until(now))
        late += self._too_late(now, self._lanes.next_free(now))
        return Orders(run, answer, late, refuse, self._wake(wake))

    def ran(self, now: float, batch: Batch, seconds: float) -> None:
        """``batch`` ended after ``seconds``; its tasks are to be resumed or ended one by one."""
        self._lanes.end(batch)
        each = seconds / len(batch.tasks)
        for task in batch.tasks:
            self._accounts[task.id].used += each
        ran = Ran(batch.key, len(batch.tasks), seconds, batch.predicted)
        self._policy.ran(self._clock(now), ran)

    def ahead(self, now: float, priority: int, tenant: str, deadline: float) -> float:
        """Seconds until a new task with these properties can start, if no work is done before
        that could be left out."""
        now = self._clock(now)
        behind = self.shares.is_behind(now, tenant)
        due = deadline if deadline < inf else now + self._patience
        before = sum(
            group.seconds_before(priority, behind, due) * self._discount(group)
            for group in self._groups.view.values()
        )
        return before / self._lanes.count + self._lanes.wait(now)

    def check_room(self, now: float, tenant: str) -> None:
        """Overloaded if ``tenant`` has more work waiting than its share of the largest backlog,
        with the time after which it has not."""
        queue = self._queues.get(tenant)
        if queue is None:
            return
        share = self.shares.share(tenant)
        limit = self._max_backlog * share
        if queue.seconds > limit:
            groups = self._groups.view.values()
            discount = sum(len(group) * self._discount(group) for group in groups) / len(self)
            raise Overloaded(
                f"{queue.seconds:.2f} s of work wait already for {tenant}, more than {limit:.3g} s",
                retry_after=(queue.seconds - limit) * discount / (share * self._lanes.count),
            )

    def _discount(self, group: WaitingGroup) -> float:
        """What the tasks of ``group`` take in batches, over what they take one by one."""
        return self._figures[group.key.model].discount(group.key.segment, len(group))

    def _clock(self, now: float) -> float:
        if now > self._now:
            self._now = now
        return self._now

    def _wake(self, wake: float) -> float:
        """``wake``, or before it when the next task has to be answered."""
        first = self._start_by.first()
        return wake if first is None else min(wake, first[0])

    def _queue(self, now: float, task: Task, work: float) -> None:
        _change(task, waiting_since=now)
        figures = self._figures[task.model]
        self._groups.add(task, figures.mandatory(task, work))
        self._accounts[task.id].waiting = work
        queue = self._queues.get(task.tenant)
        if queue is None:
            queue = self._queues[task.tenant] = _Queue()
        queue.tasks += 1
        queue.seconds += work
        if self._hold is not None:
            self._hold.add(task)
        if task.exit >= 0 and task.deadline < inf and self.manners.guards:
            self._start_by.add(task.id, self._latest_start(task))

    def _unqueue(self, id: int) -> Task:
        task = self._groups.remove(id)
        self._start_by.discard(id)
        if self._hold is not None:
            self._hold.discard(id)
        queue = self._queues[task.tenant]
        queue.tasks -= 1
        queue.seconds -= self._accounts[id].waiting
        if not queue.tasks:
            del self._queues[task.tenant]
        return task

    def _latest_start(self, task: Task) -> float:
        """When ``task`` has to start to get its next answer by its deadline."""
        figures = self._figures[task.model]
        return task.deadline - figures.late(task.segment, figures.next_useful(task), 1)

    def _hold_until(self, now: float) -> float:
        """When something has to run. Kept from the first hold on: most policies hold nothing."""
        if self._hold is None:
            waiting = chain.from_iterable(self._groups.view.values())
            self._hold = Hold(self._latest_start, waiting)
        return self._hold.until(now)

    def _start(self, now: float, chosen: Sequence[Task]) -> Batch:
        model, segment = key = self._groups.key_of(chosen[0].id)
        tasks = tuple([self._unqueue(task.id) for task in chosen])
        batch = Batch(key, tasks, now, self._figures[model].typical(segment, segment, len(tasks)))
        self._lanes.start(batch)
        return batch

    def _too_late(self, now: float, start: float) -> tuple[Task, ...]:
        """End the tasks with an answer that get no better one in time if they start after
        ``start``."""
        first = self._start_by.first()
        if first is None or first[0] > start:
            return ()
        late: list[Task] = []
        while first is not None and first[0] <= start:
            late.append(self.remove(now, first[1]))
            first = self._start_by.first()
        return tuple(late)


def _change(task: Task, **values: object) -> None:
    """Give ``task`` other values, which policies cannot."""
    for name, value in values.items():
        object.__setattr__(task, name, value)
