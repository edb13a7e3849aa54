"""A device in simulated time that serves under energy control, as the daemon would.

The planner, the controller, its admission and the attribution are the daemon's own; the device, its
sensor and its requests are simulated. Deciding takes no simulated time.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.plant import JITTER, POLL, Floats, Power, Sensor
from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.plan import Plan
from delen.core.result import EnergyKind
from delen.core.work import Share, Work
from delen.energy.admission import ControllerAdmission
from delen.errors import BudgetExhausted, Overloaded
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import Spent
from delen.profile.profile import Device, Profile, Quantiles, SegmentCost
from policies.energy.api import EnergyController
from policies.energy.constraint import PowerView
from policies.plan.planner import Planner
from power.attribution.attribution import LONGEST_WORK, Attributor
from power.sources.series import Samples

MODEL = "plant"
TICK = 0.1
WINDOW = 1.0
REPORTED = 0.15
"""Seconds after its end at which a window is closed."""

_KEPT = 4.0
_QUANTUM = 0.04
_NOISE = 0.02


@dataclass(frozen=True)
class Machine:
    """Per segment the joules and seconds of one sample, and the watts beside requests.

    ``predicted`` are the joules that the profile says, ``static`` and ``other`` watts.
    """

    joules: tuple[float, ...]
    predicted: tuple[float, ...]
    seconds: tuple[float, ...]
    static: float
    other: Callable[[float], float] = lambda now: 0.0


class AttributedEnergy:
    """An EnergyAccount by the profile and what the attribution has learnt since."""

    kind: EnergyKind = "estimated"
    source, scope = "profile", "module_input"

    def __init__(self, attributor: Attributor) -> None:
        self._attributor = attributor

    @property
    def revision(self) -> int:
        return self._attributor.revision

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        return cost.energy

    def factor(self, segment: int) -> float:
        return self._attributor.factor(MODEL, segment)


@dataclass
class Log:
    """What truly happened: batches as (began, ended, joules) by tenant, answers, refusals."""

    blocks: dict[str, list[tuple[float, float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    answered: dict[str, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    prices: list[tuple[float, float]] = field(default_factory=list)

    def power(self, static: float, others: Sequence[tuple[float, float, float]] = ()) -> Power:
        blocks = [block for every in self.blocks.values() for block in every] + list(others)
        return Power(static, *np.array(blocks).T)

    def accuracy(self, tenant: str, began: float = 0.0) -> float:
        return float(np.mean([right for time, right in self.answered[tenant] if time >= began]))


@dataclass
class _Request:
    share: Share
    reserved: float
    estimated: float
    attributed: float = 0.0
    right: bool = False
    ended: bool = False


class Loop:
    """Runs arrivals of tenants through planner, controller and machine, up to a time."""

    def __init__(
        self,
        machine: Machine,
        table: Calibration,
        planner: Planner,
        controller: EnergyController,
        sensor: Sensor,
        seed: int,
    ) -> None:
        self.now = 0.0
        self.log = Log()
        self.controller = controller
        self.attributor = Attributor(machine.static)
        self.attributor.trust(MODEL, 0.05)
        self.admission = ControllerAdmission(controller, clock=lambda: self.now)
        self._machine = machine
        self._table = table
        self._planner = planner
        self._rng = np.random.default_rng([seed, 7])
        self._sensor = Sensor(sensor.window, sensor.lag, quantum=0.0, noise=0.0)
        self._costs = CostModel(_profile(machine), AttributedEnergy(self.attributor), 0.99)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._free = 0.0
        self._recent: deque[tuple[float, float, float]] = deque()
        self._samples: deque[tuple[float, float]] = deque([(-1e-3, machine.static)])
        self._next_poll = 0.0
        self._seed = seed
        self._phase = float(np.random.default_rng(seed).uniform(0, sensor.window))
        self._conversion, self._shown = -1.0, machine.static
        self._energy = 0.0
        self._closed = 0.0
        self._requests: dict[str, _Request] = {}
        self.headroom: Callable[[float], float | None] = lambda now: None

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Call ``action`` at ``time``."""
        heapq.heappush(self._events, (time, self._count, action))
        self._count += 1

    def run(self, until: float, arrivals: Sequence[tuple[str, Floats]]) -> Log:
        """``arrivals`` are times by tenant."""
        for tenant, times in arrivals:
            for time in times.tolist():
                self.at(time, partial(self._arrive, tenant))
        for step in range(1, int(until / TICK) + 1):
            self.at(step * TICK, self._tick)
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self.log

    def _arrive(self, tenant: str) -> None:
        plan = partial(self.plan, max(0.0, self._free - self.now))
        try:
            admitted = self.admission.admit(tenant, plan(self.admission.price(tenant)), plan)
        except (BudgetExhausted, Overloaded) as refusal:
            self.log.refused[tenant].append((self.now, refusal.retry_after))
            return
        self._execute(tenant, admitted.plan, admitted.reserved)

    def plan(self, delay: float, price: float) -> Plan:
        """The plan of a request without bounds, ``delay`` seconds before it can begin."""
        return self._planner.plan(Bounds(), self._costs, delay, price=price)

    def _execute(self, tenant: str, plan: Plan, reserved: float) -> None:
        sample = int(self._rng.integers(self._table.samples))
        exit = plan.exit
        if plan.threshold is not None:
            early = self._table.confidence[sample, : plan.exit] >= plan.threshold
            exit = int(early.argmax()) if early.any() else plan.exit
        share = Share(f"r{self._count}", tenant)
        request = _Request(share, reserved, 0.0, right=bool(self._table.correct[sample, exit]))
        self._requests[share.request_id] = request
        began = max(self.now, self._free)
        for segment in range(exit + 1):
            scatter = float(max(0.5, 1 + 0.05 * self._rng.standard_normal()))
            ended = began + self._machine.seconds[segment]
            joules = self._machine.joules[segment] * scatter
            block = (began, ended, joules)
            self._recent.append(block)
            self.log.blocks[tenant].append(block)
            predicted = self._machine.predicted[segment]
            work = Work(MODEL, segment, 1, began, ended, predicted, (share,))
            self.at(ended, partial(self._ran, work, request))
            began = ended
        self._free = began
        self.at(began, partial(self._answer, request))

    def _ran(self, work: Work, request: _Request) -> None:
        self.attributor.add(work)
        assert work.joules is not None
        request.estimated += work.joules * self.attributor.factor(MODEL, work.segment)

    def _answer(self, request: _Request) -> None:
        self.admission.ended(request.share, request.reserved, request.estimated, None)
        self.admission.drain()
        request.ended = True
        self.log.answered[request.share.tenant].append((self.now, request.right))

    def _tick(self) -> None:
        while self._recent and self._recent[0][1] < self.now - _KEPT - 6 * self._sensor.lag:
            self._recent.popleft()
        watts = self._poll()
        if self.now >= self._closed + WINDOW + REPORTED:
            self._close()
        if self.now % WINDOW < TICK:
            self.log.prices.append((self.now, self.controller.price("default")))
        learnt = self.attributor
        self.controller.tick(
            PowerView(
                now=self.now,
                watts=watts,
                static=learnt.static_watts,
                other=_difference(learnt.beside_watts, learnt.static_watts),
                joules=self._energy,
                headroom=self.headroom(self.now),
                lag=learnt.time_constant,
            )
        )

    def _poll(self) -> float | None:
        """Take the readings since the last tick; their mean."""
        began, before = self._samples[-1]
        moments = []
        while self._next_poll <= self.now:
            moments.append(self._next_poll)
            self._next_poll += POLL * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if not moments:
            return None
        power = Power(self._machine.static, *np.array(self._recent).reshape(-1, 3).T)
        seen = self._sensor.read(power, moments, self._seed)
        joules, last = 0.0, began
        for time, average in zip(moments, seen.tolist(), strict=True):
            watts = self._hold(time, average + self._machine.other(time))
            joules += (time - last) * (before + watts) / 2
            last, before = time, watts
            self._samples.append((last, before))
        self._energy += joules
        while self._samples[0][0] < self.now - _KEPT:
            self._samples.popleft()
        return joules / (last - began)

    def _hold(self, time: float, average: float) -> float:
        """What the sensor shows: the same until its next conversion is done."""
        conversion = (time - self._phase) // self._sensor.window
        if conversion != self._conversion:
            noisy = average + self._rng.normal(0, _NOISE)
            self._conversion, self._shown = conversion, round(noisy / _QUANTUM) * _QUANTUM
        return self._shown

    def _close(self) -> None:
        began, self._closed = self._closed, self._closed + WINDOW
        samples = Samples(*np.array(self._samples).T)
        samples = samples.between(began - LONGEST_WORK, self._closed)
        split = self.attributor.close(began, self._closed, samples)
        for share, joules in split.by_share.items():
            self._requests[share.request_id].attributed += joules
        for name in split.complete:
            request = self._requests.get(name)
            if request is not None and request.ended:
                del self._requests[name]
                self.controller.settled(request.share.tenant, request.estimated, request.attributed)


def _profile(machine: Machine) -> Profile:
    segments = tuple(
        {1: SegmentCost(Quantiles(*(4 * [seconds])), seconds, joules)}
        for seconds, joules in zip(machine.seconds, machine.predicted, strict=True)
    )
    device = Device("plant", 1, "none", "none", 1, "default")
    nothing = Quantiles(*(4 * [0.0]))
    return Profile(MODEL, "", device, "", False, nothing, segments)


def _difference(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part
