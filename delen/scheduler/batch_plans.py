"""Plans for the samples of a batch, which share the time that its request has."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from delen.core.bounds import Bounds
from delen.core.plan import Plan
from delen.errors import BatchTooLarge, ModelLoading, Overloaded
from delen.scheduler.conditions import Conditions
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import BestSize, PlanSource

_MARGIN = 1.25
"""The largest batch that a refusal names has room for this much more work than is predicted, so
that it is admitted when it comes."""


class BatchPlans:
    """A sample is planned as if all samples behind it were to run as deep as it does, in the
    largest batches, before its answer is due. So none takes the time that another one needs."""

    def __init__(self, plans: PlanSource, view: ScheduledModel) -> None:
        self._plans = plans
        self._view = view

    def admit(self, bounds: Bounds, samples: int, best_effort: bool, at: Conditions) -> Plan:
        """The plan of the first of ``samples``, if there is time for all.

        Overloaded, with the time after which it is worth another try, where only the work ahead
        forbids that; BatchTooLarge, with the size that would fit, where the size does. A sample
        alone is refused as ``Plans.admit`` says. None of them under the ``best_effort``.
        """
        behind = samples - 1
        plan = self._before(bounds, behind, at)
        if plan.infeasible is None or best_effort:
            return plan
        if self._before(bounds, behind, at.idle()).infeasible is None:
            raise Overloaded(
                f"the bounds cannot be kept for all {samples} samples behind "
                f"{1e3 * at.ahead:.3g} ms of waiting work",
                retry_after=at.ahead,
            )
        at = at.idle()
        self._plans.admit(bounds, at)
        if at.waits is not None:
            loaded = [0.0 if wait < inf else inf for wait in at.waits]
            if self._before(bounds, behind, at._replace(waits=loaded)).infeasible is None:
                seconds = max(wait for wait in at.waits if wait < inf)
                raise ModelLoading(
                    f"the model is not in memory yet: that takes another {seconds:.2g} s",
                    retry_after=seconds,
                )
        largest = self._largest(bounds, samples, at.idle())
        raise BatchTooLarge(
            f"{samples} samples cannot all be answered within the bounds, even on an idle device; "
            f"a batch of {largest} can",
            largest,
        )

    def later(
        self, bounds: Bounds, unfed: int, queued: int, best_effort: bool, at: Conditions
    ) -> Plan:
        """A plan for the first of ``unfed`` samples of a batch that was admitted, while ``queued``
        others of it wait or run: shallower within its bounds where time is short. Overloaded where
        even an idle device could not answer it in time any more."""
        behind, beside = self._rest(unfed - 1), self._rest(queued)
        least = beside[0]  # which is part of the work ahead
        rest = [own + more - least for own, more in zip(behind, beside, strict=True)]
        plan = self._plan(bounds, rest, at)
        if plan.infeasible is None or best_effort:
            return plan
        alone = self._plan(bounds, [0.0] * len(rest), at.idle())
        if bounds.max_latency is not None and alone.latency > bounds.max_latency:
            raise Overloaded("the batch took longer than predicted", retry_after=at.ahead)
        return plan if bounds.min_accuracy is None else alone

    def _before(self, bounds: Bounds, behind: int, at: Conditions, margin: float = 1.0) -> Plan:
        """With so many samples ``behind`` that have to be answered in the same time, which take
        ``margin`` times what is predicted."""
        return self._plan(bounds, [margin * seconds for seconds in self._rest(behind)], at)

    def _rest(self, samples: int) -> list[float]:
        """Seconds that so many ``samples`` take to each exit."""
        if samples == 0:
            return [0.0] * self._view.exits
        return [samples * self._view.batched(exit, samples) for exit in range(self._view.exits)]

    def _plan(self, bounds: Bounds, rest: Sequence[float], at: Conditions) -> Plan:
        """With ``rest`` seconds by exit for others of the batch before the answer is due."""
        if bounds.max_latency is None:
            return self._plans.plan(bounds, at)
        loaded = at.waits or [0.0] * len(rest)
        starts = [max(at.ahead + own, wait) for own, wait in zip(rest, loaded, strict=True)]
        plan = self._plans.plan(bounds, at._replace(waits=starts))
        start, own_start = starts[plan.exit], max(at.ahead, loaded[plan.exit])
        return plan.taking(plan.latency - start + own_start) if own_start < start else plan

    def _largest(self, bounds: Bounds, samples: int, at: Conditions) -> int:
        """The largest batch of fewer than ``samples`` that fits."""
        fits, too_large = 1, samples
        while too_large - fits > 1:
            size = (fits + too_large) // 2
            if self._before(bounds, size - 1, at, _MARGIN).infeasible is None:
                fits = size
            else:
                too_large = size
        return fits


class BestSizeBatches(BatchPlans):
    """All samples of a batch run at the best of several ``sizes``, the input's own first."""

    def __init__(self, plans: BestSize, sizes: Sequence[BatchPlans]) -> None:
        super().__init__(plans, sizes[0]._view)
        self._best = plans.best
        self._sizes = tuple(sizes)

    def _before(self, bounds: Bounds, behind: int, at: Conditions, margin: float = 1.0) -> Plan:
        made = [size._before(bounds, behind, at, margin) for size in self._sizes]
        return self._best(made, bounds, at.waiting)
