"""Admission of requests by the energy controller, and what happened to them since."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

from delen.core.energy_status import Battery, BatteryStatus, Budget, ConstraintStatus
from delen.core.failures import FailureCounter
from delen.core.plan import Plan
from delen.core.result import Result
from delen.core.work import Share, Work
from delen.energy.ledger import Correction
from delen.engine.energy_admission import ANYBODY, Admitted
from delen.errors import BatchTooLarge
from policies.energy.api import EnergyController
from policies.energy.budget import BudgetState
from policies.energy.constraint import PowerView

log = logging.getLogger("delen.energy")

MOST_EVENTS = 100_000
"""Some minutes of a busy daemon. Beyond these, where nobody takes them, the oldest go."""

_SDS = 3.0
"""Standard deviations by which a budget is charged more than joules are thought to be before any
were measured: what is spent is then below the budget in truth, however little is known."""


class Ended(NamedTuple):
    """The end of a request that was admitted; ``result`` is None where it got no answer. So many
    joules were ``charged`` to a budget for it, or to nobody (None)."""

    share: Share
    result: Result | None
    charged: float | None = None


class Refused(NamedTuple):
    """A request of ``tenant`` that got no answer but an error of that ``code``."""

    tenant: str
    code: str


Event = Work | Ended | Refused
"""``Work`` is a batch that ran."""


class ControlStatus(NamedTuple):
    """The controller in force, its price for all, its constraints and its battery."""

    controller: str
    price: float
    constraints: tuple[ConstraintStatus, ...]
    battery: BatteryStatus | None


class ControllerAdmission:
    """Admits requests by an energy controller, each in a few microseconds under one lock.

    What happened is only noted, for ``drain`` to hand over. A controller that fails at the end of a
    request does not take the answer with it. ``clock`` is the controller's.
    """

    def __init__(
        self, controller: EnergyController, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._controller = controller
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._margins: dict[str, float | None] = {ANYBODY: None}
        """Of tenants with a budget, and of all tenants together: what is charged for their joules,
        relative to what these are thought to be; None before any are settled."""
        self.doubt = 0.0
        """The relative standard deviation of joules that nothing is known of."""
        self._failures = FailureCounter("energy_controller", log)

    def price(self, tenant: str = ANYBODY) -> float:
        with self._lock:
            return self._controller.price(tenant)

    def prices(self, tenants: Iterable[str]) -> dict[str, float]:
        with self._lock:
            return {tenant: self._controller.price(tenant) for tenant in tenants}

    def admit(
        self, tenant: str, plan: Plan, replan: Callable[[float], Plan], samples: int = 1
    ) -> Admitted:
        now = self._clock()
        with self._lock:
            for _ in range(samples):
                self._controller.arrived(now, tenant, plan.frontier)
        return self._fit(tenant, plan, replan, samples, now, self._controller.reserve)

    def preview(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Plan:
        return self._fit(tenant, plan, replan, 1, self._clock(), lambda tenant, joules: None).plan

    def _fit(
        self,
        tenant: str,
        plan: Plan,
        replan: Callable[[float], Plan],
        samples: int,
        now: float,
        reserve: Callable[[str, float], None],
    ) -> Admitted:
        """``plan``, or else the cheapest that ``replan`` makes, once all ``samples`` of it may be
        spent ``now`` and ``reserve`` took them; or the refusal of even that."""
        controller = self._controller
        for is_last in (False, True):
            if is_last:
                plan = replan(inf)
            joules = _needed(plan)
            with self._lock:
                if samples * joules <= controller.allowance(tenant, now):
                    reserve(tenant, samples * joules)
                    return Admitted(plan, joules)
        with self._lock:
            if samples > 1:
                self._check_budget(tenant, joules, samples, now)
            raise controller.refuse(tenant, samples * joules, now)

    def _check_budget(self, tenant: str, joules: float, samples: int, now: float) -> None:
        """BatchTooLarge if so many ``samples`` of ``joules`` each are more than the whole budget of
        ``tenant``, which has enough for some."""
        state = self._controller.budgets(now).get(tenant)
        if state is None or not joules <= state.budget.joules < samples * joules:
            return
        largest = int(state.budget.joules / joules)
        raise BatchTooLarge(
            f"{samples} samples take {samples * joules:.3g} J at least; the energy budget of "
            f"tenant {tenant!r}, {state.budget.joules:g} J in {state.budget.period:g} s, is "
            f"enough for {largest}",
            largest,
        )

    def ran(self, work: Work) -> None:
        self._events.append(work)

    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None:
        charged = None
        try:
            with self._lock:
                self._controller.spent(share.tenant, reserved, used or 0.0)
                if used is not None and share.tenant in self._margins:
                    charged = used * self._margin(share.tenant)
                    self._controller.settled(share.tenant, used, charged)
        except (
            Exception
        ) as error:  # a controller of someone else's must not end the engine's thread
            message = "the energy controller failed; its figures are off from now on"
            self._failures.failed(error, message)
        self._events.append(Ended(share, result, charged))

    def refused(self, tenant: str, code: str) -> None:
        self._events.append(Refused(tenant, code))

    def pending(self) -> list[Event]:
        """What happened since the last ``drain``, in order; it stays."""
        return list(self._events)

    def drain(self) -> list[Event]:
        """What happened since the last call, in order."""
        count = len(self._events)
        return [self._events.popleft() for _ in range(count)]

    def tick(self, view: PowerView) -> None:
        with self._lock:
            margins = {tenant: self._margin(tenant) for tenant in self._margins}
            self._controller.tick(replace(view, margins=margins))

    def settle(self, corrections: Sequence[Correction]) -> None:
        """Charge tenants what their answers took in the end, at the most, instead of what was
        charged for them before."""
        joules: defaultdict[str, float] = defaultdict(float)
        most: defaultdict[str, float] = defaultdict(float)
        for tenant, charged, final, upper in corrections:
            for name in (tenant, ANYBODY):
                joules[name] += final
                most[name] += upper
            with self._lock:
                self._controller.settled(tenant, charged, upper)
        with self._lock:
            for name in joules:
                if name in self._margins and joules[name]:
                    self._margins[name] = most[name] / joules[name]

    def _margin(self, tenant: str) -> float:
        known = self._margins.get(tenant) or self._margins[ANYBODY]
        return 1 + _SDS * self.doubt if known is None else known

    def status(self) -> ControlStatus:
        controller = self._controller
        with self._lock:
            return ControlStatus(
                controller.name,
                controller.price(ANYBODY),
                tuple(controller.constraints()),
                controller.battery(),
            )

    def set_watt_cap(self, watts: float | None) -> None:
        with self._lock:
            self._controller.set_watt_cap(watts)

    def set_battery(self, battery: Battery | None) -> None:
        with self._lock:
            self._controller.set_battery(battery, self._clock())

    def set_budget(self, tenant: str, budget: Budget | None, spent: float = 0.0) -> None:
        with self._lock:
            self._controller.set_budget(tenant, budget, self._clock(), spent)
            if budget is None:
                self._margins.pop(tenant, None)
            else:
                self._margins.setdefault(tenant, None)

    def budgets(self) -> Mapping[str, BudgetState]:
        with self._lock:
            return self._controller.budgets(self._clock())


def _needed(plan: Plan) -> float:
    """Joules that ``plan`` is expected to take; 0 where nothing is known."""
    expected = plan.energy if plan.expected_energy is None else plan.expected_energy
    return 0.0 if expected is None else expected
