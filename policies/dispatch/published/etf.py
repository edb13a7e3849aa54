"""Energy-time fairness (Liang et al., SEC 2023): the least virtual runtime goes first.

A tenant's virtual runtime grows by ``(ρ * seconds + (1 - ρ) * joules / mean watts) / weight`` with
what it is given: ρ = 1 shares time fairly, ρ = 0 energy. Among the tasks of the tenant with the
least the first in rank leads. Those of others may fill its batch, each charged its part. A tenant
that comes back starts level with the least of those present, as in Linux's fair scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import first_and_oldest, join

_LOOK = 16
"""Tenants are looked for among this many of each group, and its oldest."""


class EnergyTimeFair(NoFeedback):
    """Keeps the virtual runtime of each tenant. ``time_share`` is ρ."""

    name = "etf"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self, time_share: float = 0.5) -> None:
        if not 0 <= time_share <= 1:
            raise ValueError(f"time_share is {time_share}; it must be from 0 to 1")
        self._time_share = time_share
        self._runtime: dict[str, float] = {}
        self._level = 0.0
        self._seconds = self._joules = 0.0

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        seen = [task for group in waiting.values() for task in first_and_oldest(group, _LOOK)]
        self._level = min([self._runtime_of(task.tenant) for task in seen])
        lead = min(
            [task for task in seen if self._runtime_of(task.tenant) == self._level],
            key=attrgetter("rank"),
        )
        view = models[lead.model]
        run = join(lead, waiting[Key(lead.model, lead.segment)], now, view)
        self._charge(run, view)
        return Turn(run=run)

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        self._level = self._runtime_of(task.tenant)
        self._charge((task,), models[task.model])
        return True

    def _runtime_of(self, tenant: str) -> float:
        return max(self._runtime.get(tenant, 0.0), self._level)

    def _charge(self, run: Sequence[Task], view: ModelView) -> None:
        """``run`` starts, led by a tenant at the level."""
        self._runtime = {name: at for name, at in self._runtime.items() if at > self._level}
        segment, batch = run[0].segment, len(run)
        seconds = cost = view.typical(segment, segment, batch) / batch
        joules = view.joules(segment, segment, batch)
        if joules:
            self._seconds += batch * seconds
            self._joules += batch * joules
            energy = joules * self._seconds / self._joules
            cost = self._time_share * seconds + (1 - self._time_share) * energy
        for task in run:
            self._runtime[task.tenant] = self._runtime_of(task.tenant) + cost / task.weight
