"""What tenants used of the device: since the start, and lately."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from math import nan

from delen.core.energy_status import EnergyTotal, FinalKind
from delen.core.fairness import Fairness, Use, fairness
from delen.core.result import Receipt, Result
from delen.core.work import Work
from delen.errors import Overloaded
from delen.tenants.energy_record import OTHERS, EnergyRecord, local_date

MAX_TENANTS = 1000
"""Tenants that are counted by name, where nothing else is said."""

SPAN = 60.0
"""Seconds that are looked back on."""

_STEP = 5.0


@dataclass(slots=True)
class RecentUsage:
    """Device seconds and joules (NaN: unknown) of one tenant, its answers, and the requests that
    were turned away because of the load."""

    seconds: float = 0.0
    joules: float = 0.0
    answers: int = 0
    turned_away: int = 0


@dataclass(slots=True)
class TenantTotals:
    """Joules of a tenant's settled answers by how they are known, how many requests were answered,
    how many refused or failed by the error's code, how many answers broke which bound, and device
    seconds: of a batch each of its requests bears the same part."""

    attributed: float = 0.0
    estimated: float = 0.0
    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class UsageWindow:
    """The last minute, in steps of five seconds; the oldest step is left out as a whole.

    Times are on the caller's clock and may not fall. The caller bounds how many tenants there are.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, dict[str, RecentUsage]]] = deque()

    def copy(self) -> UsageWindow:
        """The same steps, which go on apart; only the last one can still change."""
        same = UsageWindow()
        same._steps = copy(self._steps)
        if same._steps:
            began, step = same._steps[-1]
            same._steps[-1] = (began, {tenant: replace(got) for tenant, got in step.items()})
        return same

    def at(self, now: float, tenant: str) -> RecentUsage:
        """The usage of ``tenant`` in the step of ``now``, to be added to."""
        if not self._steps or now >= self._steps[-1][0] + _STEP:
            self._steps.append((now, {}))
            while self._steps[0][0] <= now - SPAN:
                self._steps.popleft()
        step = self._steps[-1][1]
        if tenant not in step:
            step[tenant] = RecentUsage()
        return step[tenant]

    def totals(self, now: float) -> dict[str, RecentUsage]:
        """What each tenant got that requested something."""
        totals: dict[str, RecentUsage] = {}
        for began, step in self._steps:
            for tenant, got in step.items() if began > now - SPAN else ():
                total = totals.setdefault(tenant, RecentUsage())
                total.seconds += got.seconds
                total.joules += got.joules
                total.answers += got.answers
                total.turned_away += got.turned_away
        return totals


class Usage:
    """Counts what happens by tenant, and adds final joules to a ``record``. Tenants beyond ``most``
    are counted together as ``_other``, but for those that are known to have settings.

    ``tenants`` are those of the record, then in the order in which they were first seen. Times are
    on the caller's clock and may not fall; ``wall`` gives the time of day.
    """

    def __init__(
        self,
        record: EnergyRecord | None = None,
        wall: Callable[[], float] = time.time,
        most: int = MAX_TENANTS,
    ) -> None:
        self.record = EnergyRecord() if record is None else record
        self.tenants = {name: TenantTotals() for name in self.record.tenants}
        self._wall = wall
        self._most = most
        self._recent = UsageWindow()

    def copy(self) -> Usage:
        """The same counts, which go on apart."""
        same = Usage(self.record.copy(), self._wall, self._most)
        same.tenants = {
            name: replace(own, refused=copy(own.refused), missed=copy(own.missed))
            for name, own in self.tenants.items()
        }
        same._recent = self._recent.copy()
        return same

    def ran(self, now: float, work: Work) -> None:
        seconds = work.seconds / work.batch
        for share in work.shares:
            name = self.name(share.tenant)
            self._of(name).seconds += seconds
            self._recent.at(now, name).seconds += seconds

    def answered(self, now: float, result: Result) -> None:
        name, receipt = self.name(result.tenant), result.receipt
        own, recent = self._of(name), self._recent.at(now, name)
        own.answers += 1
        for bound in ("latency", "accuracy"):
            if getattr(receipt, bound).met is False:
                own.missed[bound] += 1
        recent.answers += 1
        recent.joules += nan if receipt.energy_here is None else receipt.energy_here

    def refused(self, now: float, tenant: str, code: str) -> None:
        """A request of ``tenant`` was refused, or failed, with an error of that ``code``."""
        name = self.name(tenant)
        self._of(name).refused[code] += 1
        if code == Overloaded.code:
            self._recent.at(now, name).turned_away += 1

    def settled(self, result: Result, receipt: Receipt) -> None:
        """The ``receipt`` of an answer is final. What another node took is counted there."""
        name = self.name(result.tenant)
        own = self._of(name)
        energy, joules = receipt.energy, receipt.energy_here
        if energy.met is False:
            own.missed["energy"] += 1
        if joules is None:
            return
        kind: FinalKind = "attributed" if energy.kind == "attributed" else "estimated"
        if kind == "attributed":
            own.attributed += joules
        else:
            own.estimated += joules
        total = EnergyTotal(name, result.model, result.exit, kind, joules)
        self.record.add(local_date(self._wall()), total)

    def know(self, tenant: str) -> None:
        """Count ``tenant`` under its own name, however many there are."""
        self.tenants.setdefault(tenant, TenantTotals())
        self.record.know(tenant)

    def name(self, tenant: str) -> str:
        """The name under which ``tenant`` is counted."""
        return tenant if tenant in self.tenants or len(self.tenants) < self._most else OTHERS

    def recent(self, now: float) -> dict[str, RecentUsage]:
        """What each tenant got in the last minute that requested something."""
        return self._recent.totals(now)

    def _of(self, name: str) -> TenantTotals:
        own = self.tenants.get(name)
        if own is None:
            own = self.tenants[name] = TenantTotals()
        return own


def fairness_of(totals: Mapping[str, RecentUsage], weight: Callable[[str], float]) -> Fairness:
    """How evenly ``totals`` are shared out among tenants that have ``weight``."""

    def index(used: Callable[[RecentUsage], float]) -> float | None:
        return fairness(
            Use(weight(name), used(got), got.answers, got.turned_away)
            for name, got in totals.items()
        )

    return Fairness(index(lambda got: got.seconds), index(lambda got: got.joules))
