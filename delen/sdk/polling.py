"""Waiting for the energy of an answer to be known at last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from delen.core.energy_status import Settled
from delen.core.result import EnergyOutcome, Result
from delen.errors import NotFound, NotSettled

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


def follow(result: Result, settle: Callable[[str, float], Any]) -> Result:
    """``result`` with ``settle(request_id, timeout)`` behind ``receipt.energy.settled``."""
    receipt, request_id = result.receipt, result.request_id
    energy = receipt.energy.followed_by(lambda timeout: settle(request_id, timeout))
    return replace(result, receipt=replace(receipt, energy=energy))


def wait_settled(
    ask: Callable[[], Settled | None], request_id: str, timeout: float
) -> EnergyOutcome:
    """Call ``ask`` until it says settled. NotSettled after ``timeout`` seconds; NotFound where it
    says None."""
    patience = _Patience(request_id, timeout)
    while (outcome := _final(ask(), request_id)) is None:
        time.sleep(patience.pause())
    return outcome


async def wait_settled_async(
    ask: Callable[[], Awaitable[Settled | None]], request_id: str, timeout: float
) -> EnergyOutcome:
    """``wait_settled`` for asyncio."""
    patience = _Patience(request_id, timeout)
    while (outcome := _final(await ask(), request_id)) is None:
        await asyncio.sleep(patience.pause())
    return outcome


def _final(found: Settled | None, request_id: str) -> EnergyOutcome | None:
    if found is None:
        raise NotFound(f"request {request_id!r} is unknown or forgotten")
    return found.receipt.energy if found.settled else None


class _Patience:
    """How long to wait between one question and the next; the last is asked at the very end."""

    def __init__(self, request_id: str, timeout: float) -> None:
        self._request_id = request_id
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._next = _FIRST_PAUSE

    def pause(self) -> float:
        """Seconds; NotSettled once the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise NotSettled(
                f"the energy of request {self._request_id} is not final after {self._timeout:g} s"
            )
        pause = min(self._next, left)
        self._next = min(1.5 * self._next, _LONGEST_PAUSE)
        return pause
