"""delen's own controller: the most expected accuracy, of this frame and of those behind it.

A frame at option i is on time with probability ``P_i``: in that share of the forecast's cases
(``forecast``) encoding, waiting for the link, the payload's time, the round trip and the daemon's
latency end before the deadline. What is sent keeps the link from the frames behind it, which find
it busy for b seconds more. The option with the most

    P_i·acc_i - price·(1 - P_i) + GAMMA·E[V(b)]

is taken; the frame is dropped where ``GAMMA·E[V(b)] - price`` without it is more by RELUCTANCE. V
is the value of the frames to come, ``V(b) = max_i`` of the same sum: value iteration (Bellman 1957)
over b as BUSY deadlines and CASES of the forecast, SWEEPS sweeps each REFRESH frames.

The price of a miss keeps the share of avoidable misses at MISSES, by dual ascent: of frames that
the smallest option would have made with probability SURE on an idle link, each late one raises the
price by ``PRICE_STEP·(1 - MISSES)``, and each other one lowers it by ``PRICE_STEP·MISSES``.

The present option stays until what it loses to better ones, frame by frame, adds up to SWITCH of
the options' spread of accuracies, and to SWITCH_BEHIND more for each frame by which answers are
behind (deadline over period, less one): a great loss switches at once, a small one later, and noise
does not. Where nothing is on time with probability HOPELESS it starts anew from the smallest. With
nothing in flight a frame is always sent: else nobody would learn that a link is back.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policies.client.api import FrameChoice, FrameReport, StreamView
from policies.client.forecast import ACCESS, Forecast, Outlook

MISSES = 0.005
PRICE_STEP = 0.05
FIRST_PRICE = 0.0
HIGHEST_PRICE = 2.0
SURE = 0.97
GAMMA = 0.9
BUSY = (*np.arange(0.0, 1.0, 0.1).tolist(), 1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
CASES = 24
SWEEPS = 6
REFRESH = 10
SWITCH = 0.03
SWITCH_BEHIND = 0.1
RELUCTANCE = 0.03
HOPELESS = 0.05
SMOOTHING = 0.002
"""Seconds over which a case goes from late to on time, so that chances have no steps."""

Floats = NDArray[np.float64]


class _Judged(NamedTuple):
    """What each option is worth, and dropping; how probably each is on time, and whether the
    smallest would be on an idle link."""

    worth: Floats
    dropped: float
    chance: Floats
    is_avoidable: bool


class Expected:
    name = "expected"

    def __init__(self) -> None:
        self._forecast = Forecast()
        self._view: StreamView | None = None
        self._payload = self._encoding = self._latency = self._accuracy = np.empty(0)
        self._index = 0
        self._lost = 0.0
        self._busy = np.zeros(len(BUSY))
        self._value = np.zeros(len(BUSY))
        self._until_refresh = 0
        self._price = FIRST_PRICE
        self._avoidable: deque[int] = deque(maxlen=64)

    def choose(self, view: StreamView) -> FrameChoice | None:
        if self._view is None or view.options is not self._view.options:
            self._payload, self._encoding, self._latency, self._accuracy = np.array(
                [(o.payload, o.encoding, o.latency, o.accuracy) for o in view.options]
            ).T
            self._index = min(self._index, len(view.options) - 1)
        self._view = view
        forecast = self._forecast
        if forecast.pace is None:
            return FrameChoice(0 if view.in_flight else (len(view.options) - 1) // 2)
        outlook = forecast.outlook(view)
        if self._until_refresh == 0:
            self._iterate(view, outlook)
            self._until_refresh = REFRESH
        self._until_refresh -= 1
        busy = np.maximum(outlook.free - view.now, 0.0)
        judged = self._judge(view, busy, outlook)
        if judged.worth.max() < judged.dropped - RELUCTANCE and view.in_flight:
            if judged.is_avoidable:
                self._pay(missed=True)
            return None
        index = self._settle(view, judged)
        if judged.is_avoidable:
            self._avoidable.append(view.frame)
        forecast.expect(view.frame)
        option = view.options[index]
        spent = option.encoding + float(busy.mean()) + view.round_trip
        spent += option.payload * forecast.deviation * forecast.pace
        return FrameChoice(index, max(option.latency, view.remaining - spent))

    def ended(self, report: FrameReport) -> None:
        view = self._view
        if view is not None:
            self._forecast.learn(report, view.options[report.index], view.round_trip)
            if report.frame in self._avoidable:
                spent = report.end_to_end
                self._pay(missed=spent is None or spent > view.deadline)

    def _pay(self, missed: bool) -> None:
        """Raise the price of a miss, or lower it, as misses are more or fewer than allowed."""
        step = PRICE_STEP * (missed - MISSES)
        self._price = min(HIGHEST_PRICE, max(0.0, self._price + step))

    def _settle(self, view: StreamView, judged: _Judged) -> int:
        """The best option, or the present one while that has not lost enough to switch."""
        if judged.chance.max() < HOPELESS:
            self._index, self._lost = 0, 0.0
            return 0
        worth = judged.worth
        best = int(worth.argmax())
        if best == self._index:
            self._lost = 0.0
            return best
        self._lost += float(worth[best] - worth[self._index])
        behind = max(0.0, view.deadline / view.period - 1)
        spread = float(self._accuracy.max() - self._accuracy.min())
        if self._lost >= (SWITCH + SWITCH_BEHIND * behind) * spread:
            self._index, self._lost = best, 0.0
        return self._index

    def _judge(self, view: StreamView, busy: Floats, outlook: Outlook) -> _Judged:
        """What to make of a frame in each case of ``outlook``, whose link is ``busy`` (s)."""
        error, slowness = outlook.error, outlook.slowness
        takes = self._forecast.occupies(self._payload * self._forecast.deviation, error[:, None])
        ends = np.maximum(busy[:, None], self._encoding) + takes
        done = ends + ACCESS * error[:, None] + view.round_trip + slowness[:, None] * self._latency
        due = view.remaining
        kept = np.clip((due - done) / SMOOTHING + 0.5, 0.0, 1.0)
        chance = kept.sum(axis=0) / (len(busy) + 0.5)
        alone = done[:, 0] - np.maximum(busy - self._encoding[0], 0.0)
        left = view.captured + view.period - view.now
        after = np.interp(ends - left, self._busy, self._value).mean(axis=0)
        without = float(np.interp(busy - left, self._busy, self._value).mean())
        return _Judged(
            worth=chance * (self._accuracy + self._price) - self._price + GAMMA * after,
            dropped=GAMMA * without - self._price,
            chance=chance,
            is_avoidable=bool((alone <= due).mean() >= SURE),
        )

    def _iterate(self, view: StreamView, outlook: Outlook) -> None:
        """The value of a link that is busy for longer and longer."""
        order = np.argsort(outlook.error)
        picked = order[((np.arange(CASES) + 0.5) / CASES * len(order)).astype(int)]
        error, slowness = outlook.error[picked], np.median(outlook.slowness)
        self._busy = view.deadline * np.array(BUSY)
        takes = self._forecast.occupies(self._payload * self._forecast.deviation, error[:, None])
        ends = np.maximum(self._busy[:, None], self._encoding)[:, None, :] + takes
        done = ends + ACCESS * error[:, None] + view.round_trip + slowness * self._latency
        now = (done <= view.deadline).mean(axis=1) * (self._accuracy + self._price) - self._price
        left, idle = ends - view.period, self._busy - view.period
        for _ in range(SWEEPS):
            after = np.interp(left, self._busy, self._value).mean(axis=1)
            sent = (now + GAMMA * after).max(axis=1)
            dropped = GAMMA * np.interp(idle, self._busy, self._value) - self._price
            self._value = np.maximum(sent, dropped)
