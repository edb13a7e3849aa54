"""How long payloads will take, as a distribution: the pace of the link and its recent errors.

``pace`` is seconds a byte, a moving average of what sent frames took beyond the round trip and
beyond waiting for the frame before them. It follows small payloads less: most of their time is
access and jitter. With each frame the error of its own prediction is kept,
``z = (took - p·pace) / (p·pace + ACCESS)``, beside how many times longer than planned the daemon
was. The last WINDOW pairs are equally likely to come again: a payload takes ``p·pace + z·(p·pace +
ACCESS)``.

Silence is news, too. A pair by which a frame in flight would have been answered by now is left out;
without any left, the link has stopped, and what has lasted for s seconds goes on for more than x
with probability ``s / (s + x)``; the frames behind the first one follow at their pace.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policies.client.api import FrameOption, FrameReport, StreamView

WINDOW = 250
PRIOR = 8
PRIOR_MOST = 0.6
ACCESS = 0.003
GAIN = 0.7
DEVIATION_GAIN = 0.8
FORGET = 200

Samples = NDArray[np.float64]


class Outlook(NamedTuple):
    """Equally likely cases: when the link is free (s), error z and slowness of the daemon."""

    free: Samples
    error: Samples
    slowness: Samples


class Forecast:
    """``pace`` is None before the first answer; ``deviation`` is how many times its option's mean
    the last payloads were."""

    def __init__(self) -> None:
        self.pace: float | None = None
        self.deviation = 1.0
        self._pairs = deque((z, 1.0) for z in np.linspace(-0.3, PRIOR_MOST, PRIOR).tolist())
        self._learnt = 0
        self._expected: dict[int, float] = {}
        self._newest = -1
        self._link_free = 0.0

    def expect(self, frame: int) -> None:
        """``frame`` is sent now; its error will be that of what is known now."""
        if self.pace is not None:
            self._expected[frame] = self.deviation * self.pace
            if len(self._expected) > FORGET:
                del self._expected[next(iter(self._expected))]

    def learn(self, report: FrameReport, option: FrameOption, round_trip: float) -> None:
        """A frame that was sent as ``option`` ended."""
        slowness, begun = 1.0, report.sent
        if report.answered is None or report.latency is None:
            took = report.ended - begun - round_trip
        else:
            if option.latency:
                slowness = report.latency / option.latency
            arrived = report.answered - report.latency - round_trip
            if report.frame > self._newest:
                begun = max(begun, self._link_free)
                self._link_free, self._newest = arrived, report.frame
            took = arrived - begun
            deviation = report.payload / option.payload - self.deviation
            self.deviation += DEVIATION_GAIN * deviation
        took = max(0.0, took)
        pace = self._expected.pop(report.frame, None)
        if pace is not None:
            usual = option.payload * pace
            self._keep((took - usual) / (usual + ACCESS), slowness)
        seen = took / report.payload
        if self.pace is None:
            self.pace = seen
        else:
            larger = max(took, report.payload * self.pace)
            self.pace += GAIN * larger / (larger + ACCESS) * (seen - self.pace)

    def _keep(self, error: float, slowness: float) -> None:
        self._learnt += 1
        self._pairs.append((error, slowness))
        if len(self._pairs) > WINDOW or self._learnt <= PRIOR:
            self._pairs.popleft()

    def occupies(self, payload: Samples, error: Samples) -> Samples:
        """Seconds for which ``payload`` bytes keep the link, where the error is ``error``."""
        kept: Samples = payload * (self.pace or 0.0) * np.maximum(1 + error, 0.0)
        return kept

    def outlook(self, view: StreamView) -> Outlook:
        """What can be the case at ``view``."""
        error, slowness = np.array(self._pairs).T
        free = np.full(len(error), self._link_free)
        flying = [sent for sent in view.in_flight if sent.frame > self._newest]
        if not flying:
            return Outlook(free, error, slowness)
        silent = np.zeros(len(error), bool)
        for sent in flying:
            free = np.maximum(free, sent.sent) + self.occupies(np.float64(sent.payload), error)
            latency = slowness * view.options[sent.index].latency
            answered = free + ACCESS * error + view.round_trip + latency
            silent |= answered <= view.now
        if not silent.all():
            return Outlook(free[~silent], error[~silent], slowness[~silent])
        lasted = max(view.now - flying[0].sent - view.round_trip, 0.001)
        shares = (np.arange(len(error)) + 0.5) / len(error)
        behind = self.occupies(np.float64(sum(sent.payload for sent in flying[1:])), error)
        return Outlook(view.now + lasted * shares / (1 - shares) + behind, error, slowness)
