"""A node of a simulated site: its queue, its batches, and what it says of itself.

It is simpler than a daemon (``delen simulate`` without ``--fleet`` plays that whole): one batch at
a time, the earliest deadline first, up to exits that are chosen when the batch starts. It keeps the
daemon's promise: a request is planned behind the work that waits, as deep as its ceiling, its price
and its deadline allow, and is refused if it can reach no exit in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from delen.simulate.fleet.site import NodeSettings, inside
from delen.simulate.streams.streams import Arrived
from policies.fleet.api import Ceiling, Directive, OperatingPoint, Price, Size, Standing

_LEARN = 0.1
"""Share of the newest batch in the slowdown."""

_FREE = Price()
Group = tuple[str, Size | None]


@dataclass(slots=True)
class Job:
    """A frame at a node: ``due`` is when it must leave. ``exit`` is as deep as it may go, and
    ``lost`` whether its node failed under it."""

    arrived: Arrived
    tenant: str
    model: str
    size: Size | None
    ceiling: Ceiling
    due: float
    exit: int = 0
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A job that left at ``at``, from ``point``; None: refused."""

    job: Job
    at: float
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class _Exit:
    point: OperatingPoint
    planned: tuple[float, ...]
    typical: tuple[float, ...]


class Node:
    """Takes jobs, runs batches, and keeps count of its seconds and joules."""

    def __init__(self, settings: NodeSettings, seed: int) -> None:
        self.settings = settings
        self.joules = self.busy = 0.0
        self._random = np.random.default_rng((seed, 7))
        self._noise: list[float] = []
        self._exits: dict[Group, list[_Exit]] = {}
        for model in settings.models:
            for point, typical in zip(model.points, model.typical, strict=True):
                group = self._exits.setdefault((model.served.name, point.size), [])
                group.append(_Exit(point, point.latencies, typical))
        for group in self._exits.values():
            group.sort(key=lambda each: each.point.exit)
        self._waiting: dict[Group, list[tuple[float, int, Job]]] = {}
        self._directive: Directive | None = None
        self._running: list[Answered] = []
        self._free_at = self._began = 0.0
        self._said_at = self._busy_said = 0.0
        self._slowdown = 1.0
        self._pushed = 0

    def is_up(self, now: float) -> bool:
        return not inside(self.settings.down, now)

    def obey(self, directive: Directive) -> None:
        self._directive = directive

    def fail(self) -> list[Job]:
        """The node goes down: what it loses."""
        lost = [job for waiting in self._waiting.values() for _, _, job in waiting]
        lost += [answered.job for answered in self._running]
        self._waiting, self._running, self._free_at = {}, [], 0.0
        for job in lost:
            job.lost = True
        return lost

    def backlog(self, now: float, without: Group | None = None) -> float:
        """Seconds of the work that runs and waits, but for the group ``without``."""
        seconds = max(0.0, self._free_at - now)
        for group, waiting in self._waiting.items():
            if waiting and group != without:
                deepest = max(job.exit for _, _, job in waiting)
                planned = self._exits[group][deepest].planned
                seconds += self._slowdown * _seconds(planned, len(waiting))
        return seconds

    def admit(self, job: Job, now: float) -> bool:
        """Plan ``job`` behind the work that waits, with the jobs of its own group; False if it can
        reach no exit in time."""
        group = job.model, job.size
        exits = self._exits.get(group)
        if exits is None:
            return False
        together = len(self._waiting.get(group, ())) + 1
        price, ceiling = self._orders(job.tenant, now)
        left = (job.due - now - self.backlog(now, group)) / self._slowdown
        best, chosen = -math.inf, None
        for number, each in enumerate(exits):
            point = each.point
            if _seconds(each.planned, together) > left:
                break
            if not (job.ceiling.allows(point) and ceiling.allows(point)):
                break
            worth = point.accuracy - price.per_second * self._slowdown * each.planned[0]
            worth -= price.per_joule * (point.energy or 0.0)
            if worth > best:
                best, chosen = worth, number
        if chosen is None:
            return False
        job.exit = chosen
        self._pushed += 1
        heappush(self._waiting.setdefault((job.model, job.size), []), (job.due, self._pushed, job))
        return True

    def _orders(self, tenant: str, now: float) -> tuple[Price, Ceiling]:
        directive = self._directive
        if directive is None or now > directive.said + directive.lease:
            return _FREE, _ANY
        return directive.prices.get(tenant, _FREE), directive.ceilings.get(tenant, _ANY)

    def start(self, now: float) -> list[Answered]:
        """Start the next batch, if the node is free; its answers, in the order of their times."""
        if self._free_at > now:
            return []
        self._running = []
        while not self._running:
            group = min(
                (group for group, waiting in self._waiting.items() if waiting),
                key=lambda group: self._waiting[group][0],
                default=None,
            )
            if group is None:
                return []
            self._running = self._run(group, now)
        return self._running

    def _run(self, group: Group, now: float) -> list[Answered]:
        exits, waiting = self._exits[group], self._waiting[group]
        most = min(len(waiting), len(exits[0].planned))
        jobs = [heappop(waiting)[2] for _ in range(most)]
        size = self._batch_size(exits, jobs, now)
        for job in jobs[size:]:
            self._pushed += 1
            heappush(waiting, (job.due, self._pushed, job))
        factor, answers, deepest = self._factor(now), [], -1
        for job in jobs[:size]:
            exit = self._reachable(exits, job, size, now)
            if exit < 0:
                answers.append(Answered(job, now, None))
                continue
            deepest = max(deepest, exit)
            at = now + factor * exits[exit].typical[size - 1]
            answers.append(Answered(job, at, exits[exit].point))
            self.joules += exits[exit].point.energy or 0.0
        if deepest >= 0:
            seconds = factor * exits[deepest].typical[size - 1]
            self.busy += seconds
            self._began, self._free_at = now, now + seconds
            observed = seconds / exits[deepest].planned[size - 1]
            self._slowdown += _LEARN * (max(1.0, observed) - self._slowdown)
        return answers

    def _batch_size(self, exits: list[_Exit], jobs: list[Job], now: float) -> int:
        """The largest batch in which every job reaches the exit that it is planned for."""
        for size in range(len(jobs), 1, -1):
            if all(
                now + self._slowdown * exits[job.exit].planned[size - 1] <= job.due
                for job in jobs[:size]
            ):
                return size
        return 1

    def _reachable(self, exits: list[_Exit], job: Job, size: int, now: float) -> int:
        for exit in range(job.exit, -1, -1):
            if now + self._slowdown * exits[exit].planned[size - 1] <= job.due:
                return exit
        return -1

    def _factor(self, now: float) -> float:
        if not self._noise:
            drawn = self._random.normal(0.0, self.settings.noise, 512)
            self._noise = np.exp(drawn).tolist()
        factor = self._noise.pop()
        for start, end, slow in self.settings.slow:
            if start <= now < end:
                factor *= slow
        return factor

    def standing(self, now: float) -> Standing:
        """What it says of itself; utilisation is since it last said something."""
        done = self.busy - max(0.0, self._free_at - now)
        seconds = now - self._said_at
        utilisation = max(0.0, done - self._busy_said) / seconds if seconds > 0 else 0.0
        self._said_at, self._busy_said = now, done
        return Standing(
            node=self.settings.name,
            said=now + self.settings.clock,
            models=tuple(model.served for model in self.settings.models),
            backlog=self.backlog(now),
            slowdown=self._slowdown,
            utilisation=utilisation,
            price=self.settings.price,
            price_per_joule=self.settings.price_per_joule,
        )


_ANY = Ceiling()


def _seconds(latencies: tuple[float, ...], count: int) -> float:
    """What ``count`` samples take, in batches as large as they can be."""
    full, rest = divmod(count, len(latencies))
    return full * latencies[-1] + (latencies[rest - 1] if rest else 0.0)
