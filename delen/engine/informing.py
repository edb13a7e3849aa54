"""How long the dispatch policy takes when it is informed."""

from __future__ import annotations

import time

from delen.engine.health import EngineHealth
from delen.scheduler.core import Scheduler


class InformingPolicy:
    """While it is entered, under the executor's lock, the dispatch policy is informed of ends,
    which must not take long. Gives the time."""

    def __init__(self, scheduler: Scheduler, health: EngineHealth) -> None:
        self._scheduler = scheduler
        self._health = health
        self._began = 0.0

    def __enter__(self) -> float:
        self._began = time.monotonic()
        self._health.policy_called(self._began)
        return self._began

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._health.policy_returned()
        if kind is None:
            self._scheduler.reporting_took(time.monotonic() - self._began)
