"""Client controllers within a route: what a client of a site sends of its frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from delen.simulate.fleet.site import LARGEST
from delen.simulate.fleet.uplink import Uplink
from policies.client.api import ClientController, FrameChoice, FrameOption, FrameReport, StreamView
from policies.fleet.api import Ceiling, Route

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a frame went, within which ceiling, what its options were, and who chose."""

    node: str
    ceiling: Ceiling
    options: Sequence[FrameOption]
    controller: ClientController


class Largest:
    """The largest payload that arrives early enough for an answer, behind what is on its way
    already; else the smallest, if an idle node would answer that in time.

    At the node it expects the seconds of its route (``expected``) for the largest option, and as
    much less for another one as that takes less; of an idle node ``least``.
    """

    name = LARGEST

    def __init__(self, uplink: Uplink, expected: Callable[[], float], least: float) -> None:
        self._uplink, self._expected, self._least = uplink, expected, least

    def choose(self, view: StreamView) -> FrameChoice | None:
        options = view.options
        if not view.round_trip:
            return FrameChoice(len(options) - 1)
        bandwidth = self._uplink.bandwidth(view.now)
        queued = self._uplink.queued(view.now)
        left = view.remaining - view.round_trip
        waits = self._expected() - options[-1].latency
        for index in reversed(range(len(options))):
            spare = left - waits - options[index].latency
            if options[index].payload + queued <= spare * bandwidth:
                return FrameChoice(index)
        idle = (left - self._least) * bandwidth - queued
        return FrameChoice(0) if options[0].payload <= idle else None

    def ended(self, report: FrameReport) -> None:
        pass


class Routed:
    """The controller of a client, within its route: ``options`` are what the ceiling leaves.

    At another node a new controller begins. It neither sees nor hears of frames that its
    predecessor sent, or of those larger than what it may send now.
    """

    def __init__(self, name: str, fps: float) -> None:
        self.name = name
        self.route: Route | None = None
        self.sent: dict[int, Sent] = {}
        self.kept_back = {"no_route": 0, "left_out": 0}
        self._fps = fps
        self._credit = 1.0
        self._controller: ClientController | None = None
        self._seen = 0

    def begin(self, controller: ClientController) -> None:
        self._controller, self._seen = controller, 0

    def choose(self, view: StreamView) -> FrameChoice | None:
        route, controller = self.route, self._controller
        if route is None or controller is None:
            self.kept_back["no_route"] += 1
            return None
        self._credit = min(1.0, self._credit + route.rate / self._fps)
        if self._credit < 1 - _ROUNDING:
            self.kept_back["left_out"] += 1
            return None
        self._credit -= 1.0
        self._seen = len(view.options)
        flying = [each for each in view.in_flight if self._concerns(each.frame, each.index)]
        choice = controller.choose(replace(view, in_flight=tuple(flying)))
        if choice is not None:
            self.sent[view.frame] = Sent(route.node, route.ceiling, view.options, controller)
        return choice

    def ended(self, report: FrameReport) -> None:
        if self._controller is not None and self._concerns(report.frame, report.index):
            self._controller.ended(report)

    def _concerns(self, frame: int, index: int) -> bool:
        return self.sent[frame].controller is self._controller and index < self._seen
