"""The energy of a block of calls, added up from their receipts."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from delen.core.bounds import check_not_negative
from delen.core.result import EnergyKind, EnergyOutcome, Result
from delen.errors import DelenError


class Meters:
    """The meters of a client whose blocks have begun and not ended."""

    def __init__(self) -> None:
        self._running: tuple[_Meter, ...] = ()
        self._lock = threading.Lock()

    def begin(self, meter: _Meter) -> None:
        with self._lock:
            self._running = (*self._running, meter)

    def end(self, meter: _Meter) -> None:
        with self._lock:
            self._running = tuple(other for other in self._running if other is not meter)

    def take(self, answer: object) -> None:
        """Let all of them take what a call returned."""
        for meter in self._running:
            meter.take(answer)


class _Meter:
    """What both clients' meters have in common."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._lock = threading.Lock()
        self._outcomes: list[EnergyOutcome] = []
        self._began = self._ended = time.monotonic()
        self._is_running = False

    @property
    def seconds(self) -> float:
        """From the beginning of the block to its end, or to now."""
        return (time.monotonic() if self._is_running else self._ended) - self._began

    @property
    def answers(self) -> int:
        """How many samples were answered. A call that raised has no receipt, and is not in it."""
        with self._lock:
            return len(self._outcomes)

    @property
    def joules(self) -> float | None:
        """The sum of the receipts' joules, None if one of them is unknown."""
        total = 0.0
        for value in [outcome.value for outcome in self._all()]:
            if value is None:
                return None
            total += value
        return total

    @property
    def kind(self) -> EnergyKind:
        """``attributed`` if all receipts are, ``unknown`` if one is, else ``estimated``."""
        kinds = {outcome.kind for outcome in self._all()}
        if "unknown" in kinds:
            return "unknown"
        return "estimated" if "estimated" in kinds else "attributed"

    def _all(self) -> list[EnergyOutcome]:
        with self._lock:
            return list(self._outcomes)

    def take(self, answer: object) -> None:
        """Add what a call returned, if it has receipts."""
        results = answer if isinstance(answer, list) else [answer]
        energies = [each.receipt.energy for each in results if isinstance(each, Result)]
        with self._lock:
            self._outcomes += energies

    def _put(self, index: int, outcome: EnergyOutcome) -> None:
        with self._lock:
            self._outcomes[index] = outcome

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._meters.end(self)
        self._ended, self._is_running = time.monotonic(), False

    def _begin(self) -> None:
        if self._is_running:
            raise DelenError("this meter runs already; make another with client.meter()")
        self._outcomes = []
        self._began, self._is_running = time.monotonic(), True
        self._meters.begin(self)


class Meter(_Meter):
    """Joules and seconds of the calls that a client makes in a block, whichever thread makes them.

    The joules are those of the receipts as the answers came; ``settled`` waits for the final ones.
    """

    def __enter__(self) -> Meter:
        self._begin()
        return self

    def settled(self, timeout: float = 15.0) -> Meter:
        """This meter, once every receipt has its final energy. Raises NotSettled after ``timeout``
        seconds, and what ``EnergyOutcome.settled`` raises."""
        end = time.monotonic() + check_not_negative(timeout, "timeout")
        for index, outcome in enumerate(self._all()):
            self._put(index, outcome.settled(max(0.0, end - time.monotonic())))
        return self


class AsyncMeter(_Meter):
    """``Meter`` of an AsyncClient: ``settled`` is awaited."""

    def __enter__(self) -> AsyncMeter:
        self._begin()
        return self

    async def settled(self, timeout: float = 15.0) -> AsyncMeter:
        """This meter, once every receipt has its final energy. Raises NotSettled after ``timeout``
        seconds, and what ``EnergyOutcome.settled`` raises."""
        end = time.monotonic() + check_not_negative(timeout, "timeout")
        for index, outcome in enumerate(self._all()):
            final = outcome.settled(max(0.0, end - time.monotonic()))
            if not isinstance(final, EnergyOutcome):
                final = await final
            self._put(index, final)
        return self
