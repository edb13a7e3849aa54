"""The residency, shared between the jobs that need segments and the loader that moves them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from delen.errors import ModelLoading
from delen.residency.lease import Lease, still_loading
from delen.residency.policy import Residency

_LOOK_EVERY = 0.5
"""Seconds after which the residency is asked again: what segments are worth changes with time."""

KEPT_FOR = 10.0
"""Seconds for which a model that had to be loaded for a request, which may have been refused
meanwhile, waits in memory for the next try."""


class Room:
    """A Residency and the condition that guards it. Who changes it says ``tell``, with the
    condition held."""

    def __init__(self, cap: int) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.residency = Residency(cap)
        self._has_news = False

    def tell(self) -> None:
        self._has_news = True
        self.changed.notify_all()

    def wait_for_news(self) -> None:
        """Until something was told since the last call, at most some time. With it held."""
        if not self._has_news:
            self.changed.wait(_LOOK_EVERY)
        self._has_news = False


class Guest:
    """The Residence of the model ``name``, which the residency knows until ``leave``."""

    def __init__(self, room: Room, name: str) -> None:
        self._room = room
        self._residency = room.residency
        self._name = name
        self._is_here = True

    def leave(self) -> None:
        """It is unloaded: what still refers to it refers to nothing. With the condition held."""
        self._is_here = False

    def waits(self) -> Sequence[float] | None:
        with self._room.changed:
            self._check_here()
            return self._residency.waits(self._name, time.monotonic())

    def use(self, exit: int) -> None:
        with self._room.changed:
            self._check_here()
            now = time.monotonic()
            self._residency.use(self._name, now, exit + 1)
            if not self._residency.depth(self._name):
                waits = self._residency.waits(self._name, now)
                self._residency.call(self._name, now + KEPT_FOR + (waits or [0.0])[0])
            if exit >= self._residency.open(self._name):
                self._room.tell()

    def hold(self, exit: int, seconds: float) -> Lease:
        end = time.monotonic() + seconds
        with self._room.changed:
            self._check_here()
            while not self._residency.hold(self._name, 0, exit):
                left = end - time.monotonic()
                if left <= 0:
                    waits = self._residency.waits(self._name, time.monotonic()) or [0.0]
                    raise still_loading(self._name, waits[0])
                self._room.changed.wait(min(left, _LOOK_EVERY))
                self._check_here()
            if exit >= self._residency.open(self._name):
                self._room.tell()
            return Lease(self._release, range(exit + 1))

    def borrow(self, segment: int) -> Lease | None:
        with self._room.changed:
            if not self._is_here or segment >= self._residency.open(self._name):
                return None
            self._residency.hold(self._name, segment, segment)
            return Lease(self._release, range(segment, segment + 1))

    def _release(self, segment: int) -> None:
        with self._room.changed:
            if self._is_here:
                self._residency.release(self._name, segment)
                if segment >= self._residency.open(self._name):
                    self._room.tell()

    def _check_here(self) -> None:
        if not self._is_here:
            raise ModelLoading(f"model {self._name!r} is unloaded", retry_after=1.0)
