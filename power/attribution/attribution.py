"""Which joules of a measured window belong to which request.

Works that ran are predicted to draw some power; what the sensor showed of it corrects the
predictions (`estimator.py`). A request is given its works' corrected energy in the windows in
which the sensor showed it; what is left of the measurement is the device's idle power, or other
programs'. Pure: no clock, no thread, no file.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from math import exp, inf, isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from delen.core.energy_status import AttributionStatus, SegmentStatus
from delen.core.work import Share, Split, Work
from power.attribution.estimator import Estimator, unexplained
from power.attribution.readings import (
    Hold,
    Readings,
    find_hold,
    read,
    since_unchanged,
    without_glitches,
)
from power.attribution.response import REACH
from power.attribution.spending import Runs, Spending
from power.sources.series import Floats, Samples

NOMINAL_WATTS = 5.0
"""What works that come without joules are taken to draw before readings tell."""
LONGEST_WORK = 2.0
"""Seconds for which readings wait for works that are still running."""
SURE = 0.03
"""Relative standard deviation up to which a request's joules are called attributed."""
UNTOLD = 1.0
"""By how much of itself a prediction may be off where nobody said."""

_LEAST_SECONDS = 1e-6  # that a work lasts
_AHEAD = 0.1  # seconds by which a reading may look at what ran after it
_RECALLED = 20.0  # seconds of readings that are looked at again when a rhythm is found
_FORGETS_LONGEST = 0.95  # a second
_RISE, _FALL = 60.0, 2.0  # seconds in which idle power follows what stays higher, or is lower
_BEYOND = 3.0  # sds above idle that make it another program's
_SETTLED = 0.03  # relative sd from which on idle power is known well
_NOTABLE = 0.005  # relative change of a factor that is published
_CLEARLY, _LITTLE = 0.7, 0.03  # of what one leaves unexplained: what leaves less is better
_HEARD_EVERY = 10  # windows after which a rhythm that is believed is put to the test again
_ANOTHER = 0.05  # relative difference of two rhythms
_WAITS = 8.0  # seconds after which a request settles though nobody checked its readings
_FORGOTTEN = -1  # the number of segments whose factors are not known any more

_Segment = tuple[str, int, bool]  # model, number, and whether it comes without joules


@dataclass(slots=True)
class _Pending:
    """Works some of whose energy has not shown yet, and which part has."""

    runs: Runs
    shares: list[tuple[Share, ...]]
    shown: Floats

    def only(self, chosen: NDArray[np.bool_]) -> _Pending:
        shares = list(compress(self.shares, chosen.tolist()))
        return _Pending(self.runs.take(chosen), shares, self.shown[chosen])


class Attributor:
    """Splits the energy of successive windows over the requests whose works ran in them.

    ``static`` is the device's power without requests in watts, where a profile knows it. Not
    thread-safe: calls come one at a time.

    Works may be added until long after they ended: what of them should have shown in windows
    that are closed shows in the next one. Those that come without joules are taken to draw an
    unknown power that is even over their time.
    """

    def __init__(self, static: float | None = None) -> None:
        self._static, self._settled = static, static is not None
        self._estimator = Estimator(None)
        self._numbers: dict[_Segment, int] = {}
        self._free: list[int] = []
        self._trust: dict[str, float] = {}
        self._added: list[Work] = []
        self._ran: deque[Runs] = deque()
        self._pending = _Pending(Runs.of(()), [], np.zeros(0))
        self._open: dict[str, list[tuple[int, float]]] = {}
        self._unsure: set[str] = set()
        self._waiting: dict[str, float] = {}
        self._readings = Readings(np.zeros(0), np.zeros(0))
        self._watts, self._heard = np.zeros(0), 0
        self._hold: Hold | None = None
        self._read = self._averaged = -inf
        self._longest = 0.0
        self._valid = True
        self._explained = False
        self.frozen_at: float | None = None
        """The time of the last of readings that did not move although the load did; None where they
        moved."""
        self._factors: dict[tuple[str, int], float] = {}
        self.revision = 0

    @property
    def static_watts(self) -> float | None:
        """The device's power without requests, None until readings or a profile have told."""
        return self._static

    @property
    def beside_watts(self) -> float | None:
        """What the device draws now beside requests, other programs included; None until readings
        or a profile have told. Unlike ``other`` of a window it is free of what readings chanced
        to catch of requests."""
        level = self._estimator.level
        return self._static if level is None else max(level[0], 0.0)

    @property
    def time_constant(self) -> float | None:
        """By how many seconds readings are behind the power, None until the load told."""
        response = self._estimator.response
        return None if response is None else self._estimator.delay

    def status(self) -> AttributionStatus:
        """What is known, and how well the last blocks of readings were predicted."""
        estimator = self._estimator
        segments = sorted(each for each in self._numbers.items() if not each[0][2])
        alone = np.eye(estimator.count)[[number for _, number in segments]]
        sds = estimator.relative_sd(alone) if segments else np.zeros(0)
        return AttributionStatus(
            self._explained,
            estimator.explained,
            self.time_constant,
            tuple(
                SegmentStatus(
                    model, segment, self.factor(model, segment), sd if isfinite(sd) else None
                )
                for ((model, segment, _), _), sd in zip(segments, sds.tolist(), strict=True)
            ),
        )

    def factor(self, model: str, segment: int) -> float:
        """What a prediction for ``segment`` is to be multiplied with."""
        number = self._numbers.get((model, segment, False))
        if number is not None:
            return float(self._estimator.factors[number])
        own = [n for (name, _, told), n in self._numbers.items() if name == model and not told]
        return float(self._estimator.factors[own].mean()) if own else 1.0

    def factors(self) -> Mapping[tuple[str, int], float]:
        """The factors of all segments seen, by model and number, as ``revision`` has them."""
        return dict(self._factors)

    def trust(self, model: str, relative_sd: float) -> None:
        """Say by how much of itself a prediction for ``model`` may be off (1 if never said)."""
        self._trust[model] = relative_sd

    def add(self, work: Work) -> None:
        self._added.append(work)

    def forget(self, model: str) -> None:
        """Drop what is known of ``model``; its works that still show keep their predictions."""
        self._trust.pop(model, None)
        gone = [segment for segment in self._numbers if segment[0] == model]
        numbers = [self._numbers.pop(segment) for segment in gone]
        self._estimator.forget(numbers)
        self._free += numbers
        for runs in (self._pending.runs, *self._ran):
            runs.numbers[np.isin(runs.numbers, numbers)] = _FORGOTTEN
        for name, parts in self._open.items():
            if any(number in numbers for number, _ in parts):
                self._unsure.add(name)
        self._publish()

    def reset(self, why: str) -> None:
        """The device runs otherwise from now on (``why``: its power mode, its clocks): doubt the
        factors, and call the window that this falls in ``estimated``."""
        self._estimator = self._estimator.doubted()
        self._readings = Readings(np.zeros(0), np.zeros(0))
        self._valid = False

    def close(self, began: float, ended: float, samples: Samples | None) -> Split:
        """The split of the window from ``began`` to ``ended``, which follows on the last one.

        ``samples`` cover it without a gap, or are None where nothing was measured. They should
        begin LONGEST_WORK before it: readings that waited for works are only then learnt from.
        """
        self._take(ended)
        measured = None if samples is None else _energy(samples, began, ended)
        moves = True
        if not self._valid:
            self._read = ended
        elif samples is not None:
            moves = self._learn(samples, ended - self._longest - _AHEAD)
            self._publish()
        self._explained = self._estimator.explains(ended)
        is_good = self._valid and moves and measured is not None
        self._valid = True
        shown, by_share, complete = self._show(ended)
        attributed = sum(shown.values())
        if not (is_good and self._explained):
            self._unsure.update(share.request_id for share in by_share)
        is_sure = is_good and (not attributed or (self._explained and self._sure_of(shown)))
        idle = other = None
        if measured is not None:
            seconds = ended - began
            idle = self._idle(seconds, (measured - attributed) / seconds)
            other = measured - idle - attributed
        kind: Literal["attributed", "estimated"] = "attributed" if is_sure else "estimated"
        settled = self._settle(complete, ended)
        known, most = self._known(settled)
        return Split(
            began,
            ended,
            kind,
            measured,
            attributed,
            idle,
            other,
            by_share,
            settled,
            known,
            most,
        )

    def _take(self, now: float) -> None:
        """Make the works added since the last window known to the estimator, and pending."""
        works, self._added = self._added, []
        seen = {(work.model, work.segment, not work.joules) for work in works}
        for segment in sorted(seen - self._numbers.keys()):
            self._numbers[segment] = self._free.pop() if self._free else len(self._numbers)
        if seen:
            self._meet()
        numbers = self._numbers
        table = []
        for work in works:
            number = numbers[work.model, work.segment, not work.joules]
            ended = max(work.ended, work.began + _LEAST_SECONDS)
            joules = work.joules or NOMINAL_WATTS * (ended - work.began)
            table.append((number, work.began, ended, joules))
            part = joules / max(len(work.shares), 1)
            for share in work.shares:
                self._open.setdefault(share.request_id, []).append((number, part))
                self._waiting.pop(share.request_id, None)  # it is not complete any more
        runs, pending = Runs.of(table), self._pending
        if works:
            self._ran.append(runs.copy())
            self._pending = _Pending(
                Runs.join([pending.runs, runs]),
                pending.shares + [work.shares for work in works],
                np.concatenate([pending.shown, np.zeros(len(works))]),
            )
        longest = float((runs.ended - runs.began).max(initial=0.0))
        self._longest = min(max(longest, self._longest * _FORGETS_LONGEST), LONGEST_WORK)
        while self._ran and self._ran[0].latest < now - _RECALLED - LONGEST_WORK - REACH:
            self._ran.popleft()

    def _meet(self) -> None:
        count = len(self._numbers) + len(self._free)
        names, spreads = [""] * count, [UNTOLD] * count
        for (model, _, untold), number in self._numbers.items():
            names[number] = model
            spreads[number] = UNTOLD if untold else self._trust.get(model, UNTOLD)
        self._estimator.meet(names, spreads)

    def _learn(self, samples: Samples, until: float) -> bool:
        """Take in the new readings up to ``until``; whether they move where the load does."""
        fresh = read(samples, self._read, until)
        fresh, self._watts = without_glitches(fresh, self._watts)
        self._read = max(until, self._read)
        if not len(fresh):
            return True
        readings = self._readings.joined(fresh).after(until - _RECALLED)
        self._readings = readings
        self._listen(find_hold(readings))
        if (hold := self._hold) is not None:
            due = min(until, float(readings.times[-1])) - hold.period
            fresh = hold.once_each(readings).after(self._averaged + hold.period / 2).until(due)
        self.frozen_at = None
        stretch = since_unchanged(readings, self._estimator.hold)
        if stretch is not None and self._moved(stretch):
            fresh = fresh.until(float(stretch.times[0]))
            self.frozen_at = float(stretch.times[-1])
        if len(fresh):
            self._averaged = float(fresh.times[-1])
            self._estimator.add(fresh, self._spent_before(fresh))
        return self.frozen_at is None

    def _listen(self, found: Hold | None) -> None:
        """Follow the rhythm in which readings seem to change, where it is the sensor's: a load may
        have one too. One that is new must explain readings better than none does."""
        if found is None:
            return
        readings, known = self._readings, self._estimator.hold
        self._heard = (self._heard + 1) % _HEARD_EVERY
        is_due = known is None or not self._heard
        if is_due and any(runs.latest > readings.times[0] for runs in self._ran):
            spending = self._spent_before(readings)
            free = unexplained(readings, spending, None)
            held = unexplained(found.once_each(readings), spending, found.period)
            if known and _CLEARLY * held > free + _LITTLE:
                self._hold, self._estimator = None, self._estimator.doubted(0.0)
                return
            if not known and held + _LITTLE > _CLEARLY * free:
                return
        if known is None or abs(found.period - known) > _ANOTHER * known:
            self._estimator = self._estimator.doubted(found.period)
            self._averaged = -inf
        self._hold = found

    def _moved(self, stretch: Readings) -> bool:
        """Whether the sensor should have shown that the load moved."""
        return self._estimator.moved(stretch, self._spent_before(stretch))

    def _spent_before(self, readings: Readings) -> Spending:
        """What ``readings`` may look at."""
        since = float(readings.times[0]) - REACH - 2 * (self._estimator.hold or 0.0)
        runs = Runs.join([runs for runs in self._ran if runs.latest > since])
        return Spending(runs.take(runs.numbers != _FORGOTTEN), self._estimator.count)

    def _show(self, now: float) -> tuple[dict[int, float], dict[Share, float], frozenset[str]]:
        """Joules that show by ``now`` and did not before, by segment and by share; and the requests
        all of whose works have shown."""
        pending, runs = self._pending, self._pending.runs
        late = now - (self.time_constant or 0.0)
        shown = np.clip((late - runs.began) / (runs.ended - runs.began), 0.0, 1.0)
        shown = np.maximum(shown, pending.shown)
        factors = np.append(self._estimator.factors, 1.0)[runs.numbers]
        joules = factors * runs.joules * (shown - pending.shown)
        by_share: defaultdict[Share, float] = defaultdict(float)
        for shares, part in zip(pending.shares, joules.tolist(), strict=True):
            for share in shares:
                by_share[share] += part / len(shares)
        pending.shown = shown
        self._pending = pending.only(shown < 1.0)
        done = {share.request_id for shares in pending.shares for share in shares}
        for shares in self._pending.shares:
            done.difference_update([share.request_id for share in shares])
        sums = np.bincount(runs.numbers - _FORGOTTEN, joules)
        shown_by = {n + _FORGOTTEN: joules for n, joules in enumerate(sums.tolist()) if joules}
        return shown_by, dict(by_share), frozenset(done)

    def _settle(self, complete: frozenset[str], now: float) -> frozenset[str]:
        """The requests that are final, now that those that are ``complete`` have shown: the block
        of readings that they showed in, and the next one, were predicted before they were learnt
        from, or did not come in time. Nobody waits in vain: one that is estimated for other
        reasons is final at once."""
        self._waiting.update(dict.fromkeys(complete, now))
        due = max(self._estimator.checked, now - _WAITS)
        settled = {
            name for name, shown in self._waiting.items() if shown <= due or name in self._unsure
        }
        for name in settled:
            del self._waiting[name]
        return frozenset(settled)

    def _sure_of(self, shown: Mapping[int, float]) -> bool:
        """Whether the sum of what segments took is known well."""
        if _FORGOTTEN in shown:
            return False
        joules = np.zeros((1, self._estimator.count))
        for number, value in shown.items():
            joules[0, number] = value / self._estimator.factors[number]
        return float(self._estimator.relative_sd(joules)[0]) <= SURE

    def _known(self, complete: frozenset[str]) -> tuple[frozenset[str], dict[str, float]]:
        """Of the requests that are ``complete`` those whose own joules are known well, none while
        readings are not explained, and what each took at the most."""
        parts = {name: self._open.pop(name, ()) for name in complete}
        names = [name for name, own in parts.items() if own]
        unsure = self._unsure & complete
        self._unsure -= unsure
        if not names:
            return frozenset(), {}
        rows = np.repeat(np.arange(len(names)), [len(parts[name]) for name in names])
        flat = np.array([part for name in names for part in parts[name]])
        joules = np.zeros((len(names), self._estimator.count))
        np.add.at(joules, (rows, flat[:, 0].astype(np.intp)), flat[:, 1])
        is_known = self._estimator.relative_sd(joules) <= SURE
        known = frozenset(compress(names, is_known.tolist())) if self._explained else frozenset()
        most = self._estimator.most(joules)
        return known - unsure, dict(zip(names, most.tolist(), strict=True))

    def _idle(self, seconds: float, left: float) -> float:
        """Joules of the device without requests in ``seconds``, in which ``left`` watts were not
        requests'.

        Once it is known well, idle power follows what is beside requests down at once, but up
        slowly: who stays becomes part of the device.
        """
        watts, sd = self._estimator.level or (left, left)
        watts = max(watts, 0.0)
        if self._static is None or not self._settled:
            self._static, self._settled = watts, sd <= _SETTLED * watts
        within = _RISE if watts > self._static + _BEYOND * sd else _FALL
        self._static += (watts - self._static) * (1 - exp(-seconds / within))
        return self._static * seconds

    def _publish(self) -> None:
        """Give out the factors anew where one has changed notably."""
        told = [(segment, number) for segment, number in self._numbers.items() if not segment[2]]
        new = {(s[0], s[1]): float(self._estimator.factors[number]) for s, number in told}
        old = self._factors
        if new.keys() != old.keys() or any(
            abs(value - old[key]) > _NOTABLE * old[key] for key, value in new.items()
        ):
            self._factors = new
            self.revision += 1


def _energy(samples: Samples, began: float, ended: float) -> float | None:
    try:
        return samples.energy(began, ended)
    except ValueError:
        return None
