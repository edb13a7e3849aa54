"""What the engine asks of the memory that a model's segments are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from delen.errors import ModelLoading


def still_loading(name: str, seconds: float) -> ModelLoading:
    """The refusal of a request for which ``name`` will be in memory too late."""
    return ModelLoading(
        f"model {name!r} is not in memory yet: that takes another {seconds:.2g} s",
        retry_after=seconds,
    )


class Lease:
    """Keeps some segments of a model in memory until it is ended, or they were passed.

    ``release`` is called once for each.
    """

    def __init__(self, release: Callable[[int], None], segments: range) -> None:
        self._release = release
        self._segments = segments

    def passed(self, segment: int) -> None:
        """Segments up to ``segment`` are needed no more."""
        passed = [held for held in self._segments if held <= segment]
        self._segments = self._segments[len(passed) :]
        for held in passed:
            self._release(held)

    def end(self) -> None:
        if self._segments:
            self.passed(self._segments[-1])


NO_LEASE = Lease(lambda segment: None, range(0))


class Residence(Protocol):
    """One model's segments in memory. Called by many threads.

    ``waits`` are the seconds until each segment is predicted to be in memory if it is asked for
    now: inf where there is no room for it, None where all are there. ``use`` tells that a request
    came which would best have run to exit ``exit``. ``hold`` keeps, or gets, the segments up to
    ``exit`` for a job; it waits while one of them is leaving, and raises ModelLoading after
    ``seconds``. ``borrow`` keeps one segment that is in memory; None if it is not.
    """

    def waits(self) -> Sequence[float] | None: ...
    def use(self, exit: int) -> None: ...
    def hold(self, exit: int, seconds: float) -> Lease: ...
    def borrow(self, segment: int) -> Lease | None: ...


class Whole:
    """A model that is in memory from its first segment to its last for as long as it is loaded."""

    def waits(self) -> Sequence[float] | None:
        return None

    def use(self, exit: int) -> None:
        """Nothing is decided by it."""

    def hold(self, exit: int, seconds: float) -> Lease:
        return NO_LEASE

    def borrow(self, segment: int) -> Lease | None:
        return NO_LEASE


WHOLE = Whole()
