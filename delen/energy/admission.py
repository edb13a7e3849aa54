"""The desk of a running daemon: it asks the energy controller, and keeps what the books need."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from delen.core.plan import Plan
from delen.core.result import Result
from delen.core.work import Share, Work
from delen.engine.energy_admission import Admitted
from policies.energy.api import EnergyController

log = logging.getLogger("delen.energy")

MOST_EVENTS = 100_000
"""Some minutes of a busy daemon. Beyond these, where nobody keeps the books, the oldest go."""


class Refused(NamedTuple):
    """A request of ``tenant`` that got no answer but an error of that ``code``."""

    tenant: str
    code: str


Event = Work | tuple[Share, Result | None] | Refused
"""A batch that ran; the end of a request that was admitted; one without an answer."""


class ControllerAdmission:
    """Admits requests by an energy controller, each in a few microseconds under one lock.

    What happened is only noted; ``drain`` hands it to whoever keeps the books. A controller that
    fails at the end of a request does not take the answer with it.
    """

    def __init__(
        self, controller: EnergyController, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lock = threading.Lock()
        """Held whenever the controller is asked or told something."""
        self.controller = controller
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._failures = 0

    def price(self, tenant: str) -> float:
        with self.lock:
            return self.controller.price(tenant)

    def admit(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Admitted:
        controller, now, joules = self.controller, self._clock(), _needed(plan)
        with self.lock:
            controller.arrived(now, tenant, plan.frontier)
            if joules <= controller.allowance(tenant, now):
                controller.reserve(tenant, joules)
                return Admitted(plan, joules)
        plan = replan(inf)
        joules = _needed(plan)
        with self.lock:
            if joules <= controller.allowance(tenant, now):
                controller.reserve(tenant, joules)
                return Admitted(plan, joules)
            raise controller.refuse(tenant, joules, now)

    def ran(self, work: Work) -> None:
        self._events.append(work)

    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None:
        try:
            with self.lock:
                self.controller.spent(share.tenant, reserved, used or 0.0)
        except Exception:  # a controller of someone else's must not end the engine's thread
            self._failures += 1
            if self._failures == 1:
                log.exception("the energy controller failed; its figures are off from now on")
        self._events.append((share, result))

    def refused(self, tenant: str, code: str) -> None:
        self._events.append(Refused(tenant, code))

    def drain(self) -> list[Event]:
        """What happened since the last call, in order."""
        count = len(self._events)
        return [self._events.popleft() for _ in range(count)]


def _needed(plan: Plan) -> float:
    """Joules that ``plan`` is expected to take; 0 where nothing is known."""
    expected = plan.energy if plan.expected_energy is None else plan.expected_energy
    return 0.0 if expected is None else expected
