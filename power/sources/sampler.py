"""Reads a power source again and again on a thread of its own, and keeps what it said."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite, nan
from random import Random
from typing import Literal

import numpy as np

from delen.core.failures import FailureCounter
from delen.errors import PowerError
from power.sources.series import Floats, Samples
from power.sources.source import PowerReading, PowerSource

log = logging.getLogger("delen.power")

_JITTER = 0.1
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0
_CLOSING = 1.0
_QUIET = 60.0
_ROWS = 1024
_LEAP, _LEAST_WATTS = 10.0, 1.0

_TIME, _WATTS, _JOULES, _STRETCH = range(4)


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is doing: its ``status`` since a moment (seconds, monotonic), what is wrong
    while it is degraded, the last good ``reading`` however old, and the failures so far."""

    status: Literal["ok", "degraded"]
    since: float
    problem: str | None
    reading: PowerReading | None
    errors: int


class Sampler:
    """Keeps the readings of the last ``retain`` seconds, polled about every ``interval`` seconds.

    The polls jitter by a tenth, so that they do not beat with a periodic load. A read that raises
    or gives no finite total, and readings that have not advanced for ``stalled_after`` seconds
    (because the read blocks, or repeats itself), make the source degraded until the next good
    reading; failing reads are repeated after 0.1 s, then ever more rarely, up to every 5 s. A
    sensor's total that is ten times as much, or as little, as the one before is kept only once the
    next one confirms it, and else dropped and counted. A source that ``freeze`` was called for is
    degraded until its total changes. No method waits for the source. ``clock`` is what the
    readings' times are in.
    """

    def __init__(
        self,
        source: PowerSource,
        interval: float = 0.05,
        retain: float = 120.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self._interval = interval
        self._clock = clock
        self._random = Random(seed)
        self._retain = retain
        self._rows = np.empty((2 * _ROWS, 4))
        self._count = 0
        self._stretch = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delen-power", daemon=True)
        now = clock()
        self._state = SourceState("degraded", now, "there has been no reading yet", None, 0)
        self._advanced = now
        self._reading_since: float | None = None
        self._held: PowerReading | None = None
        self._is_frozen = False
        self._failures = FailureCounter("power_source", log)
        self._complained = -_QUIET
        self._announced = False

    @property
    def interval(self) -> float:
        """Seconds from one poll to the next: as set, or as rarely as the source changes now."""
        return max(self._interval, self.source.interval)

    @property
    def stalled_after(self) -> float:
        return max(1.0, 5 * self.interval)

    @property
    def widest_gap(self) -> float:
        """The longest time in seconds between two samples that is interpolated over."""
        return max(0.25, 5 * self.interval)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop and close the source. A read that hangs is left to itself after a second; the
        source is closed when it comes back."""
        self._stop.set()
        if self._thread.ident is None:
            self.source.close()
        else:
            self._thread.join(_CLOSING)

    def state(self) -> SourceState:
        """How the source is doing now."""
        with self._lock:
            return self._current()

    def check(self) -> SourceState:
        """How the source is doing now; a reading that is overdue is counted and logged. Whoever
        relies on the source calls this now and then."""
        with self._lock:
            current = self._current()
            if current is not self._state:
                self._note(current)
            self._complain()
            return self._state

    def freeze(self, seen: float) -> None:
        """Call the source degraded: the load moved, and readings up to the time ``seen`` did not.

        The samples that only repeat the total are dropped. Nothing happens where the total has
        changed since ``seen``.
        """
        with self._lock:
            rows = self._rows[: self._count]
            if self._is_frozen or not len(rows):
                return
            others = np.flatnonzero(rows[:, _WATTS] != rows[-1, _WATTS])
            first = int(others[-1]) + 1 if len(others) else 0
            if rows[first, _TIME] > seen:
                return
            self._count, self._is_frozen = first + 1, True
            self._stretch += 1
            self._fail(f"its total stays at {rows[first, _WATTS]:g} W while the load changes")

    def covered(self) -> float | None:
        """The time of the latest sample: windows up to here can be closed. None before it."""
        with self._lock:
            return float(self._rows[self._count - 1, _TIME]) if self._count else None

    def samples(self, since: float) -> Samples:
        """The samples from ``since`` on, and the one before it, of the stretch without a gap that
        the latest one ends."""
        with self._lock:
            rows = self._rows[: self._count]
            first = max(0, int(np.searchsorted(rows[:, _TIME], since, "right")) - 1)
            if len(rows):
                begin = np.searchsorted(rows[:, _STRETCH], rows[-1, _STRETCH], "left")
                first = max(first, int(begin))
            return _series(rows[first:])

    def window(self, began: float, ended: float) -> Samples | None:
        """The samples from ``began`` to ``ended`` and one on either side of them; None unless
        they reach from one to the other without a gap longer than ``widest_gap`` seconds."""
        with self._lock:
            rows = self._rows[: self._count]
            times = rows[:, _TIME]
            first = int(np.searchsorted(times, began, "right")) - 1
            last = int(np.searchsorted(times, ended, "left"))
            if first < 0 or last >= len(rows):
                return None
            if rows[first, _STRETCH] != rows[last, _STRETCH]:
                return None
            return _series(rows[first : last + 1])

    def _run(self) -> None:
        retry = _FIRST_RETRY
        try:
            while not self._stop.is_set():
                began = self._clock()
                if self._poll(began):
                    retry = _FIRST_RETRY
                    jitter = self._random.uniform(1 - _JITTER, 1 + _JITTER)
                    delay = self.interval * jitter - (self._clock() - began)
                else:
                    delay, retry = retry, min(2 * retry, _LAST_RETRY)
                self._stop.wait(max(delay, 0.0))
        finally:
            self.source.close()

    def _poll(self, now: float) -> bool:
        """Read once; whether there was a reading to use."""
        with self._lock:
            self._reading_since = now
        problem = None
        try:
            reading = self.source.read()
            problem = _rubbish(reading)
        except PowerError as error:
            problem = str(error)
        except Exception as error:  # a source of someone else's must not end the thread
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self._reading_since = None
            if problem is not None:
                self._is_frozen = False
                self._fail(problem)
                return False
            self._take(reading)
            return True

    def _take(self, reading: PowerReading) -> None:
        """Accept a reading, and the one held back before it where the two agree."""
        held, latest = self._held, self._state.reading
        self._held = None
        if held is not None:
            if _leaps(held, reading):
                self._state = replace(self._state, errors=self._state.errors + 1)
                self._failures.add(1)
            else:
                self._accept(held)
        elif latest is not None and self.source.kind == "measured" and _leaps(latest, reading):
            self._held = reading
            return
        self._accept(reading)

    def _accept(self, reading: PowerReading) -> None:
        state, now = self._state, self._clock()
        latest = state.reading
        if latest is not None and reading.time <= latest.time:
            return
        if latest is not None and self._repeats(latest, reading):
            return
        self._is_frozen = False
        if latest is not None and self._breaks(latest, reading):
            self._stretch += 1
        if self._count == len(self._rows):
            self._make_room(reading.time - self._retain)
        joules = nan if reading.joules is None else reading.joules
        self._rows[self._count] = (reading.time, reading.total, joules, self._stretch)
        self._count += 1
        self._advanced = now
        if self._announced:
            log.info("%s reads again after: %s", self.source.name, state.problem)
            self._announced = False
        since = state.since if state.status == "ok" else now
        self._state = SourceState("ok", since, None, reading, state.errors)

    def _make_room(self, since: float) -> None:
        """Let go of the rows before ``since``, but for the one that a window from there on needs.
        At least half the rows are free then."""
        first = max(0, int(np.searchsorted(self._rows[:, _TIME], since, "right")) - 1)
        kept = self._rows[first:]
        rows = np.empty((max(2 * _ROWS, 2 * len(kept)), 4))
        rows[: len(kept)] = kept
        self._rows, self._count = rows, len(kept)

    def _repeats(self, latest: PowerReading, reading: PowerReading) -> bool:
        """Whether a reading says nothing new: of a frozen source, or of a counter that stands."""
        if self._is_frozen:
            return reading.total == latest.total
        return reading.joules is not None and reading.joules == latest.joules

    def _breaks(self, latest: PowerReading, reading: PowerReading) -> bool:
        """Whether nothing may be interpolated between two readings: they lie too far apart, or
        the energy counter came, went or started anew between them."""
        if reading.time - latest.time > self.widest_gap:
            return True
        if latest.joules is None or reading.joules is None:
            return latest.joules is not reading.joules
        return reading.joules < latest.joules

    def _current(self) -> SourceState:
        """The state as it was noted, or degraded where a reading is overdue since."""
        state, waited = self._state, self._clock() - self._advanced
        is_noted = state.status == "degraded" and state.errors
        if is_noted or waited <= self.stalled_after:
            return state
        overdue = "a reading has not returned"
        if self._reading_since is None:
            overdue = "its readings have not advanced"
        return _degraded(state, f"{overdue} for {waited:.1f} s", self._advanced)

    def _fail(self, problem: str) -> None:
        self._note(_degraded(self._state, problem, self._clock()))
        self._complain()

    def _note(self, failed: SourceState) -> None:
        self._state = replace(failed, errors=failed.errors + 1)
        self._failures.add(1)

    def _complain(self) -> None:
        """Log once that the source is degraded, where it is. One that comes and goes is logged
        at most once a minute: the last time that it goes, then."""
        state, now = self._state, self._clock()
        if self._announced or not state.errors or state.status == "ok":
            return
        if now - self._complained >= _QUIET:
            log.warning(
                "%s is degraded, so energy is estimated: %s", self.source.name, state.problem
            )
            self._complained, self._announced = now, True


def _degraded(state: SourceState, problem: str, since: float) -> SourceState:
    since = since if state.status == "ok" else state.since
    return replace(state, status="degraded", since=since, problem=problem)


def _leaps(one: PowerReading, other: PowerReading) -> bool:
    """Whether the totals differ as no load makes them. A counter of joules is not misread so."""
    if one.total is None or other.total is None or other.joules is not None:
        return False
    least, most = sorted((one.total, other.total))
    return most > _LEAP * max(least, _LEAST_WATTS)


def _rubbish(reading: PowerReading) -> str | None:
    """What makes a reading useless, None if nothing does."""
    if reading.total is None:
        return "the reading has no total"
    if not isfinite(reading.total):
        return f"the total of the reading is {reading.total}"
    if not isfinite(reading.time):
        return f"the time of the reading is {reading.time}"
    if reading.joules is not None and not isfinite(reading.joules):
        return f"the energy counter of the reading is {reading.joules}"
    return None


def _series(rows: Floats) -> Samples:
    joules = rows[:, _JOULES].copy() if len(rows) and isfinite(rows[0, _JOULES]) else None
    return Samples(rows[:, _TIME].copy(), rows[:, _WATTS].copy(), joules)
