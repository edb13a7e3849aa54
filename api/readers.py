"""Threads that read what takes long: images, recordings, packed bodies, large JSON."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import exp
from typing import Protocol, TypeVar

from api.reply import JSON
from api.server.body import ClientGone
from delen.errors import Overloaded

T = TypeVar("T")

_PAUSES, _LONGEST_PAUSE = 4.0, 0.25
"""After JSON was read there is a pause of so many times what it took, and of at most so many
seconds."""
_MOST_WAITING = 32
_MOST_PAYERS = 64
_MEMORY = 10.0
_LIGHT = 0.5
"""Who has used so many seconds in the last ``_MEMORY`` has used little."""
_LEAST = 0.001
REST = ""
"""The payer of all beyond so many that wait at once, by a name that none can have."""


class Client(Protocol):
    """Whose request is read. ``is_gone`` is true once nobody waits for its answer."""

    is_gone: bool


class FairTurns:
    """So many ``turns`` at once, which payers that wait have one after the other.

    A turn cannot be taken back, so the last free one is kept for payers that have used little, or
    no more than others: who comes every now and then does not wait for what takes long. Overloaded
    for those beyond ``_MOST_WAITING`` of one payer.
    """

    def __init__(self, turns: int) -> None:
        self._turns = self._free = turns
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._used: dict[str, float] = {}
        self._aged = time.monotonic()
        self._seconds = 0.0

    async def take(self, payer: str) -> str:
        """Wait for a turn; under which name it is to be given back."""
        name = payer if payer in self._waiting or len(self._waiting) < _MOST_PAYERS else REST
        queue = self._waiting.get(name)
        if queue is None and self._may_begin(name):
            self._free -= 1
            return name
        queue = self._waiting.setdefault(name, deque())
        if len(queue) >= _MOST_WAITING:
            wait = max(1.0, self._seconds * sum(map(len, self._waiting.values())))
            raise Overloaded(
                f"{_MOST_WAITING} bodies of tenant {payer!r} wait to be read", retry_after=wait
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(name, 0.0)
            raise
        return name

    def give_back(self, name: str, seconds: float) -> None:
        """The turn is over, and took ``seconds``."""
        self._seconds += 0.1 * (seconds - self._seconds)
        self._age()
        self._used[name] = self._used.get(name, 0.0) + seconds
        self._free += 1
        while (following := next(filter(self._may_begin, self._waiting), None)) is not None:
            queue = self._waiting.pop(following)
            turn = queue.popleft()
            if queue:
                self._waiting[following] = queue  # behind all others
            if not turn.cancelled():
                turn.set_result(None)
                self._free -= 1

    def _may_begin(self, name: str) -> bool:
        if self._free > 1 or self._turns == 1:
            return self._free > 0
        return self._free == 1 and self._has_used_little(name)

    def _has_used_little(self, name: str) -> bool:
        used = self._used.get(name, 0.0)
        mean = sum(self._used.values()) / len(self._used) if len(self._used) > 1 else 0.0
        return used <= max(_LIGHT, mean)

    def _age(self) -> None:
        """Seconds count for less as they pass, and at last for nothing."""
        now = time.monotonic()
        kept = exp((self._aged - now) / _MEMORY)
        self._aged = now
        self._used = {name: kept * used for name, used in self._used.items() if used > _LEAST}


class Readers:
    """Reads on ``threads``. ``charge`` is called there with the payer and the processor time that a
    body took, whatever came of it.

    Reading JSON holds the interpreter, so there is one at a time, and a pause after each, in which
    the lanes go on.
    """

    def __init__(self, threads: int, charge: Callable[[str, float], None]) -> None:
        self._threads = ThreadPoolExecutor(threads, "http-decode")
        self._charge = charge
        self._turns = FairTurns(threads)
        self._json_turn = FairTurns(1)

    async def read(
        self, client: Client, payer: str, media_type: str, read: Callable[[], T]
    ) -> tuple[T, float]:
        """What ``read`` returns, and for how many seconds it waited first. Overloaded where too
        much of ``payer`` waits, ClientGone where ``client`` has left meanwhile."""
        loop, asked = asyncio.get_running_loop(), time.monotonic()
        turns = self._json_turn if media_type == JSON else self._turns
        name = await turns.take(payer)
        began, pause = time.monotonic(), 0.0
        try:
            if client.is_gone:
                raise ClientGone
            found = await loop.run_in_executor(self._threads, self._charged, payer, read)
            return found, began - asked
        finally:
            seconds = time.monotonic() - began
            if turns is self._json_turn:
                pause = min(_LONGEST_PAUSE, _PAUSES * seconds)
            loop.call_later(pause, turns.give_back, name, seconds)

    def _charged(self, payer: str, read: Callable[[], T]) -> T:
        began = time.thread_time()
        try:
            return read()
        finally:
            self._charge(payer, time.thread_time() - began)
