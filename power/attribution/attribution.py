"""Which joules of a measured window belong to which request.

Readings are regressed on what the works that ran are predicted to show in them, through the
sensor's own response (response.py); the factors that come of it (belief.py) correct
the predictions. A request is given its works' corrected energy as the sensor showed it, so that
windows see each joule once; what is left of the measurement is the device's idle power, or other
programs'. Pure: no clock, no thread, no file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from math import exp
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from delen.core.work import Share, Split, Work
from power.attribution.belief import Segment
from power.attribution.learning import Learner
from power.attribution.response import Blocks
from power.sources.series import Floats, Samples

NOMINAL_WATTS = 5.0
"""What works that come without joules are taken to draw before readings tell."""

LONGEST_WORK = 2.0
"""Seconds for which readings wait for works that are still running."""

_LEAST_SECONDS = 1e-6  # that a work lasts
_FORGETS_LONGEST = 0.95  # a second
_ALL = 1 - 1e-9  # of a work's energy, from which on all of it has shown
_SURE = 0.25  # relative sd up to which a window's split is called attributed
_RISE, _FALL = 60.0, 2.0  # seconds in which idle power follows what stays higher, or is lower
_BEYOND = 3.0  # sds above idle that make it another program's
_SETTLED = 0.03  # relative sd from which on idle power is known well
_NOTABLE = 0.005  # relative change of a factor that is published


@dataclass(slots=True)
class _Pending:
    """Works of one segment some of whose energy has not shown yet, and which part has."""

    shares: list[tuple[Share, ...]]
    began: Floats
    ended: Floats
    joules: Floats
    shown: Floats
    sharers: Floats

    def joined(self, other: _Pending) -> _Pending:
        return _Pending(
            self.shares + other.shares,
            np.concatenate([self.began, other.began]),
            np.concatenate([self.ended, other.ended]),
            np.concatenate([self.joules, other.joules]),
            np.concatenate([self.shown, other.shown]),
            np.concatenate([self.sharers, other.sharers]),
        )

    def only(self, chosen: NDArray[np.bool_]) -> _Pending:
        return _Pending(
            list(compress(self.shares, chosen.tolist())),
            self.began[chosen],
            self.ended[chosen],
            self.joules[chosen],
            self.shown[chosen],
            self.sharers[chosen],
        )


class Attributor:
    """Splits the energy of successive windows over the requests whose works ran in them.

    ``static`` is the device's power without requests in watts, where a profile knows it. Not
    thread-safe: calls come one at a time.

    Works may be added until long after they ended: what of them should have shown in windows
    that are closed shows in the next one. Those that come without joules are taken to draw an
    unknown power that is even over their time.
    """

    def __init__(self, static: float | None = None) -> None:
        self._learner = Learner(static)
        self._static, self._settled = static, static is not None
        self._added: list[Work] = []
        self._pending: dict[Segment, _Pending] = {}
        self._longest = 0.0
        self._valid = True
        self._learns_from = -np.inf
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
        return None if self._static is None else max(self._learner.belief.static[0], 0.0)

    @property
    def time_constant(self) -> float | None:
        """By how many seconds readings are behind the power, None until the load told."""
        return self._learner.delay

    def factor(self, model: str, segment: int) -> float:
        """What a prediction for ``segment`` is to be multiplied with."""
        return self._learner.belief.factor(Segment(model, segment))

    def factors(self) -> Mapping[tuple[str, int], float]:
        """The factors of all segments seen, by model and number, as ``revision`` has them."""
        return dict(self._factors)

    def trust(self, model: str, relative_sd: float) -> None:
        """Say by how much of itself a prediction for ``model`` may be off (1 if never said)."""
        self._learner.trust(model, relative_sd)

    def add(self, work: Work) -> None:
        self._added.append(work)

    def forget(self, model: str) -> None:
        """Drop what is known of ``model``; its works that still show keep their predictions."""
        self._learner.forget(model)
        self._publish()

    def reset(self, why: str) -> None:
        """The device runs otherwise from now on (``why``: its power mode, its clocks): doubt the
        factors, and call the window that this falls in ``estimated``."""
        self._learner.reset()
        self._valid = False

    def close(self, began: float, ended: float, samples: Samples | None) -> Split:
        """The split of the window from ``began`` to ``ended``, which follows on the last one.

        ``samples`` cover it without a gap, or are None where nothing was measured. They should
        begin LONGEST_WORK before it: readings that waited for works are only then learnt from.
        """
        self._take(ended)
        measured = None if samples is None else _energy(samples, began, ended)
        if not self._valid:
            self._learns_from = ended
        elif samples is not None:
            fresh = samples.between(self._learns_from, ended)
            self._learner.learn(fresh, ended - self._longest, ended - began)
            self._publish()
        belief = self._learner.belief
        factors = {segment: belief.factor(segment) for segment in self._pending}
        by_share, by_segment, complete = self._show(ended, factors)
        attributed = sum(factors[segment] * joules for segment, joules in by_segment.items())
        idle = other = None
        if measured is not None:
            idle = self._idle(ended - began)
            other = measured - idle - attributed
        sure = self._valid and belief.relative_sd(by_segment) <= _SURE
        self._valid = True
        kind: Literal["attributed", "estimated"] = "estimated"
        if sure and measured is not None:
            kind = "attributed"
        return Split(
            began, ended, kind, measured, attributed, idle, other, by_share, frozenset(complete)
        )

    def _take(self, now: float) -> None:
        """Make the works added since the last window known to the learner, and pending."""
        groups: defaultdict[tuple[str, int], list[Work]] = defaultdict(list)
        for work in self._added:
            groups[work.model, work.segment].append(work)
        self._added = []
        blocks: dict[Segment, Blocks] = {}
        for (model, number), works in groups.items():
            pending = _pending(works)
            told = pending.joules > 0
            pending.joules[~told] = NOMINAL_WATTS * (pending.ended - pending.began)[~told]
            for by_seconds, chosen in ((False, told), (True, ~told)):
                if chosen.any():
                    segment, some = Segment(model, number, by_seconds), pending.only(chosen)
                    blocks[segment] = some.began, some.ended, some.joules
                    before = self._pending.get(segment)
                    self._pending[segment] = some if before is None else before.joined(some)
        longest = max((float((b - a).max()) for a, b, _ in blocks.values()), default=0.0)
        self._longest = min(max(longest, self._longest * _FORGETS_LONGEST), LONGEST_WORK)
        latest = max((float(ended.max()) for _, ended, _ in blocks.values()), default=now)
        self._learner.ran(blocks, latest)

    def _show(
        self, now: float, factors: Mapping[Segment, float]
    ) -> tuple[dict[Share, float], dict[Segment, float], set[str]]:
        """Joules that show by ``now`` and did not before: by share, and by segment without its
        factor; and the requests all of whose works have shown."""
        by_share: dict[Share, float] = {}
        by_segment: dict[Segment, float] = {}
        done: set[str] = set()
        waiting: dict[Segment, _Pending] = {}
        for segment, pending in self._pending.items():
            shown = self._learner.shows.seen(pending.began, pending.ended, now)
            shown[shown > _ALL] = 1.0
            joules = pending.joules * np.maximum(shown - pending.shown, 0.0)
            by_segment[segment] = float(joules.sum())
            pending.shown = np.maximum(shown, pending.shown)
            parts = factors[segment] * joules / pending.sharers
            for shares, part in zip(pending.shares, parts.tolist(), strict=True):
                for share in shares:
                    by_share[share] = by_share.get(share, 0.0) + part
            left = pending.shown < 1.0
            finished = compress(pending.shares, (~left).tolist())
            done.update([share.request_id for shares in finished for share in shares])
            if left.any():
                waiting[segment] = pending.only(left)
        self._pending = waiting
        for pending in waiting.values():
            done.difference_update([s.request_id for shares in pending.shares for s in shares])
        return by_share, by_segment, done

    def _idle(self, seconds: float) -> float:
        """Joules of the device without requests in ``seconds``.

        The static power that is believed includes other programs'. Once it is known well, idle
        power follows it down at once, but up slowly: who stays becomes part of the device.
        """
        watts, sd = self._learner.belief.static
        watts = max(watts, 0.0)
        if self._static is None or not self._settled:
            self._static, self._settled = watts, sd <= _SETTLED * watts
        within = _RISE if watts > self._static + _BEYOND * sd else _FALL
        self._static += (watts - self._static) * (1 - exp(-seconds / within))
        return self._static * seconds

    def _publish(self) -> None:
        """Give out the factors anew where one has changed notably."""
        factor = self._learner.belief.factor
        known = self._learner.belief.segments
        new = {(s.model, s.number): factor(s) for s in known if not s.by_seconds}
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


def _pending(works: Sequence[Work]) -> _Pending:
    began = np.array([work.began for work in works])
    return _Pending(
        [work.shares for work in works],
        began,
        np.maximum([work.ended for work in works], began + _LEAST_SECONDS),
        np.array([work.joules for work in works], dtype=np.float64),
        np.zeros(len(works)),
        np.array([max(len(work.shares), 1) for work in works], dtype=np.float64),
    )
