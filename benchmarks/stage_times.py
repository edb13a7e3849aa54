"""How long the stages of running code take, by functions that are wrapped while it is measured."""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

Function = tuple[Any, str]
"""The object that has a function, and its name there."""


class StageTimes:
    """Seconds of each stage, and how often it was entered or left. ``clock`` is that of the calling
    thread; time passes in the stage that was entered last and not yet left."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.switches: Counter[str | None] = Counter()
        self._clock = clock
        self._thread = threading.local()

    def switch(self, stage: str | None) -> str | None:
        """Time passes in ``stage`` from now on; returns where it passed until now."""
        thread, now = self._thread, self._clock()
        before: str | None = getattr(thread, "stage", None)
        if before is not None:
            self.seconds[before] += now - thread.since
        thread.stage, thread.since = stage, now
        self.switches.update((before, stage))
        return before

    def timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """``call``, or what it awaits, in ``stage``."""

        @wraps(call)
        def timed(*arguments: Any, **named: Any) -> Any:
            before = self.switch(stage)
            try:
                return call(*arguments, **named)
            finally:
                self.switch(before)

        @wraps(call)
        async def timed_steps(*arguments: Any, **named: Any) -> Any:
            return await _Steps(call(*arguments, **named), partial(self.switch, stage), self.switch)

        return timed_steps if inspect.iscoroutinefunction(call) else timed


@dataclass(frozen=True)
class _Steps:
    """Awaits a coroutine, and calls ``enter`` and ``leave`` around each of its steps."""

    coroutine: Any
    enter: Callable[[], str | None]
    leave: Callable[[str | None], object]

    def __await__(self) -> Generator[Any, Any, Any]:
        sent = None
        while True:
            before = self.enter()
            try:
                waits = self.coroutine.send(sent)
            except StopIteration as end:
                return end.value
            finally:
                self.leave(before)
            sent = yield waits


@contextmanager
def timing(stages: Mapping[str, Sequence[Function]]) -> Iterator[StageTimes]:
    """Times the functions of ``stages`` as long as this lasts."""
    times = StageTimes()
    with ExitStack() as restore:
        for stage, functions in stages.items():
            for owner, name in functions:
                original = getattr(owner, name)
                setattr(owner, name, times.timed(original, stage))
                restore.callback(setattr, owner, name, original)
        yield times
