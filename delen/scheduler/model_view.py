"""What policies see of one model: its costs of the moment and the accuracy of its exits."""

from __future__ import annotations

from collections.abc import Sequence

from delen.bundle.calibration import Calibration
from delen.core.dispatch import Task
from delen.profile.cost_model import CostModel
from delen.profile.interference import Interference
from delen.profile.profile import MEDIAN
from delen.scheduler.exit_forecast import ExitForecast
from policies.plan.useful_exits import UsefulExits

_KEPT = 16384


class ScheduledModel:
    """The ModelView of a model with these ``costs``, which go on learning, and ``calibration``.

    The network accepts ``max_batch`` samples at once; batches are also no larger than the profile
    knows. When ``costs`` switch to another profile, everything follows it. ``forecast`` is made
    from the calibration unless it is given. ``typical``, ``latency_upper``, ``joules``, ``learn``
    and ``run_beside`` are those of ``costs``, ``accuracy_after`` is that of ``forecast``.
    """

    def __init__(
        self,
        costs: CostModel,
        calibration: Calibration,
        max_batch: int,
        forecast: ExitForecast | None = None,
    ) -> None:
        self._costs = costs
        self._calibration = calibration
        self._works: dict[tuple[int, int, float | None], float] = {}
        self._discounts: dict[tuple[int, int], float] = {}
        self.exits = calibration.exits
        self._network_batch = max_batch
        self._follow_profile()
        self.accuracies: Sequence[float] = tuple(
            calibration.accuracy(exit) for exit in range(calibration.exits)
        )
        self._useful = UsefulExits(self.accuracies)
        self.learn, self.run_beside = costs.learn, costs.run_beside
        self.typical, self.latency_upper, self.joules = (
            costs.typical,
            costs.latency_upper,
            costs.planned_energy,
        )
        self.accuracy_after = (forecast or ExitForecast(calibration)).accuracy

    @property
    def max_batch(self) -> int:
        if self._costs.profile is not self._profile:
            self._follow_profile()
        return self._max_batch

    @property
    def slowdown_factor(self) -> float:
        """How many times longer everything takes now than on an idle device, because of busy
        lanes."""
        return self._costs.slowdown_factor

    @property
    def corun(self) -> Sequence[float]:
        """``corun[k]`` is the believed slowdown while k other lanes are busy; one for each lane."""
        return self._costs.interference.factors

    @property
    def busy(self) -> int:
        """How many lanes are busy."""
        return self._costs.busy

    @property
    def interference(self) -> Interference:
        return self._costs.interference

    def next_useful(self, task: Task) -> int:
        """The exit that ``task`` runs on for: the next one that is better than all before."""
        later = self._useful.next(task.exit, task.last)
        return task.last if later is None else later

    def discount(self, segment: int, waiting: int) -> float:
        """What ``segment`` takes for a task if ``waiting`` tasks run in batches, over what it takes
        alone."""
        key = (segment, min(waiting, self.max_batch))
        discount = self._discounts.get(key)
        if discount is None:
            batch = key[1]
            discount = self._median(segment, batch) / (batch * self._median(segment, 1))
            self._discounts[key] = discount
        return discount

    def batched(self, exit: int, samples: int) -> float:
        """Device seconds to ``exit`` of each of ``samples`` that run in the largest batches on all
        lanes, at the quantile that plans use."""
        costs, batch = self._costs, min(samples, self.max_batch)
        seconds = costs.latency(0, exit, batch) / costs.slowdown_factor / costs.interference.gain
        return seconds / batch + self._answer * costs.slowdown.mean

    def mandatory(self, task: Task, expected: float) -> float:
        """Device seconds of ``task`` that cannot be left out: its first answer, or, if it keeps a
        floor, all the seconds that it is ``expected`` to take alone."""
        if task.floor:
            return expected
        if task.exit >= 0:
            return 0.0
        costs = self._costs
        first = costs.typical(task.segment, self.next_useful(task), 1) / costs.slowdown_factor
        return first + self._answer * costs.slowdown.mean

    def expected(self, task: Task) -> float:
        """Device seconds that ``task`` takes alone until its answer is written, less if samples
        like it are confident before."""
        if self._costs.profile is not self._profile:
            self._follow_profile()
        key = (task.segment, task.last, task.threshold)
        undisturbed = self._works.get(key)
        if undisturbed is None:
            if len(self._works) >= _KEPT:
                self._works.clear()
            undisturbed = self._works[key] = self._undisturbed(*key)
        return (undisturbed + self._answer) * self._costs.slowdown.mean

    def _undisturbed(self, segment: int, last: int, threshold: float | None) -> float:
        """Up to its end, by the profile alone."""
        seconds = [self._median(later, 1) for later in range(segment, last + 1)]
        if threshold is None:
            return sum(seconds)
        shares = self._calibration.exit_shares(threshold, last)
        reaching = [sum(shares[later:]) for later in range(segment, last + 1)]
        if not reaching[0]:
            return sum(seconds)
        return sum(
            reached / reaching[0] * each for reached, each in zip(reaching, seconds, strict=True)
        )

    def _median(self, segment: int, batch: int) -> float:
        """Seconds by the profile, without the slowdown, which may change at any time."""
        return self._profile.seconds(segment, batch, MEDIAN)

    def _follow_profile(self) -> None:
        """Forget what was computed from another profile than the present one."""
        self._profile = self._costs.profile
        self._max_batch = min(self._network_batch, self._profile.largest_batch)
        self._answer = self._profile.host_costs.answer
        self._works.clear()
        self._discounts.clear()
