"""Learning the factors from works and readings as they come, and the sensor's response with them.

The response is not known beforehand. While it is not, the mean of a window is one observation:
that needs no exact timing, and tells the ratio of measured to predicted energy. When it is found,
or turns out to be another, what the last half minute taught otherwise is taken back, and learnt
again reading by reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from power.attribution.belief import Belief, Segment
from power.attribution.response import (
    LONGEST,
    Blocks,
    Readings,
    Response,
    Spending,
    Views,
    fit_response,
    join_blocks,
    unexplained,
)
from power.attribution.sample_and_hold import Hold, find_hold
from power.sources.series import Floats, Samples

UNTOLD_SD = 1.0
"""By how much of itself a prediction may be off where nobody said."""

CONVERSION = Response(window=0.0066)
"""What a sensor is taken to be until its readings tell: one conversion of an INA3221."""

_KEPT_SECONDS = 30.0  # of lessons, which are repeated when the response turns out to be another
_LATE = 60.0  # seconds by which readings may be behind works; without readings these are dropped
_FITS = frozenset({2, 3, 5, 8, 12, 20, 30, 45})  # loaded windows after which the response is sought
_FIT_EVERY = 60  # loaded windows, after those
_FIT_WORKS, _FIT_SECONDS = 20_000, 8.0  # beyond so many works only the last seconds are looked at
_DISTURBED = 2  # implausible readings that make a window one in which another program interfered
_MISTIMED, _MISTIMED_PART = (
    0.005,
    0.05,
)  # seconds, or a part of what it averages, a reading may be off
_STALE_SECONDS = 60.0  # without its rhythm, after which a sensor is taken to have lost it
_CLEARLY = 0.7  # of what one leaves unexplained: who leaves less than that is better
_LIKE = 1.25  # responses that differ by less are the same


@dataclass(frozen=True, slots=True)
class _Lesson:
    """The readings of one window, and what was believed before them."""

    before: Belief
    seconds: float
    readings: Readings


class Learner:
    """A belief that follows what ``learn`` is told, and the response of the sensor."""

    def __init__(self, static: float | None = None) -> None:
        self.belief = Belief(static)
        self.response: Response | None = None
        self._trust: dict[str, float] = {}
        self._hold: Hold | None = None
        self._hold_seen = 0.0
        self._read_until = self._learnt_until = -np.inf
        self._ran: deque[tuple[float, dict[Segment, Blocks]]] = deque()
        self._lessons: deque[_Lesson] = deque()
        self._counted: tuple[float, float] | None = None
        self._disturbed: deque[float] = deque(maxlen=60)
        self._loaded = 0

    @property
    def shows(self) -> Response:
        """How the power of a moment shows in readings, as far as is known."""
        response = CONVERSION if self.response is None else self.response
        if self._hold is None:
            return response
        return Response(response.lag, self._hold.period)

    @property
    def _timed(self) -> bool:
        """Whether it is known what each reading looks at."""
        return self._hold is not None or self.response is not None

    @property
    def delay(self) -> float | None:
        """By how many seconds readings are behind the power, None where it is not known."""
        return None if self.response is None and self._hold is None else self.shows.delay

    def trust(self, model: str, relative_sd: float) -> None:
        """By how much of itself a prediction for ``model`` may be off."""
        self._trust[model] = relative_sd

    def ran(self, blocks: Mapping[Segment, Blocks], until: float) -> None:
        """Works that ended by ``until``: per segment when they began, ended, and the joules
        predicted for them."""
        if blocks:
            self._ran.append((until, dict(blocks)))
        self._let_go(until - _KEPT_SECONDS - _LATE)

    def learn(self, samples: Samples, until: float, seconds: float) -> None:
        """Take in the new readings up to ``until``, after ``seconds`` more of drift."""
        lesson = _Lesson(deepcopy(self.belief), seconds, self._new(samples, until))
        if not len(lesson.readings):
            self.belief.elapse(seconds, ())
            return
        self._lessons.append(lesson)
        self._drop(until - _KEPT_SECONDS)
        before, timed = self.shows, self._timed
        self._listen(until)
        if timed == self._timed and _alike(before, self.shows):
            self._teach(lesson)
        else:
            self._repeat()

    def reset(self) -> None:
        """Doubt the factors and the static power; the sensor is the same."""
        self.belief.widen()
        self._lessons.clear()
        self._loaded = 0

    def forget(self, model: str) -> None:
        """Drop what is known of ``model``."""
        self._trust.pop(model, None)
        for belief in (self.belief, *(lesson.before for lesson in self._lessons)):
            belief.forget(model)
        for _, blocks in self._ran:
            for segment in [segment for segment in blocks if segment.model == model]:
                del blocks[segment]

    def _drop(self, before: float) -> None:
        while self._lessons[0].readings.times[-1] < before:
            self._lessons.popleft()
        self._let_go(before)

    def _let_go(self, before: float) -> None:
        """Drop the works that no reading from ``before`` on can look at."""
        while self._ran and self._ran[0][0] < before - 2 * LONGEST:
            self._ran.popleft()

    def _new(self, samples: Samples, until: float) -> Readings:
        chosen = samples.times <= until
        if samples.joules is None:
            readings = Readings(samples.times[chosen], samples.watts[chosen])
            readings = readings.after(self._read_until)
            self._read_until = until
            return readings
        times, joules = samples.times[chosen], samples.joules[chosen]
        if self._counted is not None:
            later = times > self._counted[0]
            times = np.concatenate([[self._counted[0]], times[later]])
            joules = np.concatenate([[self._counted[1]], joules[later]])
        moved = np.diff(joules, prepend=np.nan) != 0
        times, joules = times[moved], joules[moved]
        if len(times):
            self._counted = float(times[-1]), float(joules[-1])
        widths = np.diff(times)
        return Readings(times[1:], np.diff(joules) / widths, widths)

    def _listen(self, now: float) -> None:
        """See whether the readings kept tell more of the sensor's response."""
        readings = kept = Readings.join([lesson.readings for lesson in self._lessons])
        calm = [lesson.readings for lesson in self._lessons if not self._near_disturbance(lesson)]
        if self.response is not None and 2 * len(calm) > len(self._lessons):
            readings = Readings.join(calm)
        lately = self._lessons[-1].readings.times
        self._loaded += bool(self._blocks(float(lately[0]), float(lately[-1])))
        hold = self._rhythm(kept, now)
        if self._loaded not in _FITS and self._loaded % _FIT_EVERY:
            return
        blocks = self._blocks_seen(readings)
        if sum(len(began) for began, _, _ in blocks.values()) > _FIT_WORKS:
            readings = readings.after(now - _FIT_SECONDS)
            blocks = self._blocks_seen(readings)
        works = list(blocks.values())
        if hold is not None and works:
            believed = hold if self._explains(hold, readings, works) else None
            if (believed is None) != (self._hold is None):
                self.response = None
            self._hold = believed
        if self._hold is not None:
            readings = self._hold.means(readings)
        self.response = fit_response(readings, works, self.response)

    def _rhythm(self, readings: Readings, now: float) -> Hold | None:
        """The rhythm that ``readings`` seem to have, or had lately. What is not known from before
        any load has to be better than none at explaining it: a load may have a rhythm too."""
        if readings.widths is not None:
            return None
        found = find_hold(readings, None if self._hold is None else self._hold.period)
        if found is None:
            if now - self._hold_seen > _STALE_SECONDS:
                self._hold = None
            return self._hold
        self._hold_seen = now
        if self._hold is not None or not self._loaded:
            self._hold = found
        return found

    def _explains(self, hold: Hold, readings: Readings, works: list[Blocks]) -> bool:
        """Whether ``readings`` follow what ran better with ``hold`` than without it; of one that
        is believed, whether they do not follow it worse."""
        held, free = unexplained(hold.means(readings), works), unexplained(readings, works)
        return held < _CLEARLY * free or (self._hold is not None and _CLEARLY * held < free)

    def _near_disturbance(self, lesson: _Lesson) -> bool:
        """Whether another program started or stopped in a window, or in the one before."""
        end = float(lesson.readings.times[-1])
        return any(0 <= end - time < 2 * lesson.seconds for time in self._disturbed)

    def _repeat(self) -> None:
        lessons, self._lessons = list(self._lessons), deque()
        self.belief = lessons[0].before
        self._learnt_until = -np.inf
        for lesson in lessons:
            again = replace(lesson, before=deepcopy(self.belief))
            self._lessons.append(again)
            self._teach(again)

    def _teach(self, lesson: _Lesson) -> None:
        readings = lesson.readings
        if self._hold is not None:
            readings = self._hold.means(readings)
            readings = readings.after(self._learnt_until + self._hold.period / 2)
        if not len(readings):
            self.belief.elapse(lesson.seconds, ())
            return
        self._learnt_until = float(readings.times[-1])
        views = readings.views(self.shows)
        blocks = self._blocks(float(views.ends.min() - views.widths.max()), self._learnt_until)
        for segment in blocks:
            self.belief.meet(segment, self._trust.get(segment.model, UNTOLD_SD))
        segments = tuple(blocks)
        self.belief.elapse(lesson.seconds, segments)
        shown, doubt, near = self._expected(views, blocks)
        watts = readings.watts
        if not self._timed and readings.widths is None:
            off = self._scatter if blocks else float(np.std(watts))
            watts, shown = np.array([watts.mean()]), shown.mean(axis=0, keepdims=True)
            doubt, near = np.array([off / np.sqrt(len(readings))]), np.zeros(1)
        before = self.belief.implausible
        self.belief.learn(segments, watts, shown, doubt, near, self._repeats(readings))
        if self.belief.implausible - before >= _DISTURBED:
            self._disturbed.append(float(lesson.readings.times[-1]))

    @property
    def _scatter(self) -> float:
        """How much readings vary in a window, at most."""
        return max(float(np.std(lesson.readings.watts)) for lesson in self._lessons)

    def _repeats(self, readings: Readings) -> float:
        """How many successive readings tell the same for the lag of the sensor."""
        if len(readings) < 2:
            return 1.0
        spacing = float(np.median(np.diff(readings.times)))
        return max(1.0, 2 * self.shows.lag / spacing)

    def _expected(
        self, views: Views, blocks: Mapping[Segment, Blocks]
    ) -> tuple[Floats, Floats, Floats]:
        """The watts that each segment should show ``[n, s]``, how far off their sum may be for
        not knowing what exactly each reading looks at, and how much it varies close by ``[n]``.
        """
        shown = np.zeros((len(views.ends), len(blocks)))
        total = np.zeros(views.ends.shape)
        corrected: list[Blocks] = []
        for column, (segment, (began, ended, joules)) in enumerate(blocks.items()):
            boxes = views.boxes(Spending(began, ended, joules))
            factor = self.belief.factor(segment)
            shown[:, column] = boxes @ views.weights
            total += factor * boxes
            corrected.append((began, ended, factor * joules))
        near = np.zeros(len(total))
        if corrected:
            apart = max(_MISTIMED, _MISTIMED_PART * float(views.widths.max()))
            spending = Spending(*join_blocks(corrected))
            sides = [views.later(off).watts(spending) for off in (-apart, apart)]
            near = np.std([total @ views.weights, *sides], axis=0)
        return shown, views.doubt(total), near

    def _blocks_seen(self, readings: Readings) -> dict[Segment, Blocks]:
        if not len(readings):
            return {}
        times = readings.times
        return self._blocks(float(times[0]) - 2 * LONGEST, float(times[-1]))

    def _blocks(self, began: float, ended: float) -> dict[Segment, Blocks]:
        """What ran at some time from ``began`` to ``ended``, by segment."""
        found: dict[Segment, list[Blocks]] = {}
        for until, blocks in self._ran:
            if until > began:
                for segment, block in blocks.items():
                    if float(block[0].min()) < ended:
                        found.setdefault(segment, []).append(block)
        return {segment: join_blocks(parts) for segment, parts in found.items()}


def _alike(one: Response, other: Response) -> bool:
    return all(
        max(a, b) <= _LIKE * min(a, b)
        for a, b in ((one.lag, other.lag), (one.window, other.window))
    )
