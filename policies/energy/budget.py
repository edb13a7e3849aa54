"""A tenant's joules for every period: dearer as they run short, refused once they are spent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from delen.core.energy_status import Budget, ConstraintStatus
from delen.core.token_bucket import TokenBucket
from delen.errors import BudgetExhausted
from policies.energy.constraint import Market

_SLOTS = 100
"""What was spent comes back by slots of this part of a period."""

_AT_ONCE = 0.5
"""The share of a budget that may be spent as fast as requests come; the rest only at the speed
that lasts, so that no tenant locks itself out for most of a period."""

_CUSHION = 0.03
"""The price aims to leave this share, for what arrivals and answers vary by chance."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget, the joules that are left of it and were ``spent`` in the last period, and the
    price (accuracy per joule) that it demands."""

    budget: Budget
    balance: float
    spent: float
    price: float


class TenantBudget:
    """Joules that come back one period after they were spent.

    So no stretch of one period ever takes more than the budget, where a bucket that refills
    steadily would allow twice as much. A token bucket paces the part beyond what may be spent at
    once. The price is the least at which the tenant's demand is within what could be spent from
    now on without ever waiting.
    """

    def __init__(self, tenant: str, budget: Budget, now: float) -> None:
        self.tenant = tenant
        self.budget = budget
        self.price = 0.0
        self.margin = 1.0
        """How many times what it is predicted to take a request may take at the most."""
        self._reserved = 0.0
        self._now = now
        self._slots: deque[tuple[float, float]] = deque()
        self._slot_end, self._slot_spent = now, 0.0
        self._spent = 0.0
        kept = (1 - _AT_ONCE) * budget.joules
        self._bucket = TokenBucket(budget.joules / budget.period, kept, 0.0, now)

    @property
    def balance(self) -> float:
        """Joules left; below 0 by what requests took more than was expected of them."""
        return self.budget.joules - self._spent - self._set_aside

    def tick(self, now: float, market: Market) -> None:
        self._advance(now)
        self._bucket.rate = self._sustainable(0.0)
        wanted = self._sustainable(_CUSHION * self.budget.joules) / self.margin
        self.price = market.price_for(wanted)

    def allowance(self, now: float) -> float:
        """Predicted joules that may be spent now."""
        self._advance(now)
        left = self.budget.joules - self._spent
        free = min(left, self._free(left) + self._bucket.tokens) - self._set_aside
        return max(0.0, free / self.margin)

    def reserve(self, joules: float) -> None:
        """Set predicted ``joules`` of a request aside until it ends; below 0: it has ended."""
        self._reserved = max(0.0, self._reserved + joules)

    def charge(self, joules: float) -> None:
        """Take ``joules`` now; below 0 gives back what was taken too much."""
        above = self.budget.joules - self._spent - self._bucket.depth
        free = max(0.0, above) - max(0.0, above - joules)
        self._bucket.spend(joules - free)
        self._spent += joules
        while joules < 0 and self._slots:  # the oldest first, so that nothing comes back too soon
            end, had = self._slots.popleft()
            joules += had
            if joules > 0:
                self._slots.appendleft((end, joules))
                joules = 0.0
        self._slot_spent += joules

    def adopt(self, earlier: TenantBudget) -> None:
        """Count what was spent under an ``earlier`` budget of the same tenant.

        Its last slot is cut off now: it may be longer than all of this one's period.
        """
        self._reserved = earlier._reserved
        for end, joules in earlier._all_slots():
            if end > self._now - self.budget.period:
                self._slots.append((min(end, self._now), joules))
                self._spent += joules

    def refuse(self, least: float, now: float) -> BudgetExhausted:
        self._advance(now)
        budget = self.budget
        known = f"the energy budget of tenant {self.tenant!r}, {_period(budget)},"
        if least * self.margin > budget.joules:
            least, may = least * self.margin, "takes at least" if self.margin == 1 else "may take"
            return BudgetExhausted(
                f"{known} is less than the {least:.3g} J that this request {may}",
                retry_after=budget.period,
            )
        wait = self._wait(least * self.margin)
        return BudgetExhausted(
            f"{known} has {self.allowance(now):.3g} J to spend now, less than the "
            f"{least:.3g} J that this request takes at least; it does in {wait:.3g} s",
            retry_after=wait,
        )

    def state(self, now: float) -> BudgetState:
        """What is left ``now``; asking changes nothing."""
        oldest = now - self.budget.period
        spent = sum((joules for end, joules in self._all_slots() if end > oldest), 0.0)
        left = self.budget.joules - spent - self._set_aside
        return BudgetState(self.budget, left, spent, self.price)

    def status(self) -> ConstraintStatus:
        left, doubt = max(self.balance, 0.0), ""
        if self.margin > 1:
            doubt = f"; what requests take is not known well and counts {self.margin:.3g} times"
        return ConstraintStatus(
            name=f"budget/{self.tenant}",
            unit="J",
            limit=self.budget.joules,
            value=self._spent,
            headroom=self.balance,
            price=self.price,
            binding=self.price > 0,
            explanation=f"{left:.4g} J of {_period(self.budget)} are left; what comes back lets "
            f"{self._bucket.rate:.3g} W last{doubt}",
        )

    @property
    def _set_aside(self) -> float:
        return self.margin * self._reserved

    def _free(self, balance: float) -> float:
        return max(0.0, balance - self._bucket.depth)

    def _advance(self, now: float) -> None:
        self._now = max(now, self._now)
        self._bucket.fill(now)
        if self._now >= self._slot_end:
            if self._slot_spent:
                self._slots.append((self._slot_end, self._slot_spent))
            self._slot_end, self._slot_spent = self._now + self.budget.period / _SLOTS, 0.0
        while self._slots and self._slots[0][0] + self.budget.period <= self._now:
            self._spent -= self._slots.popleft()[1]
        if not self._slots:
            self._spent = self._slot_spent

    def _all_slots(self) -> Iterator[tuple[float, float]]:
        yield from self._slots
        if self._slot_spent:
            yield self._slot_end, self._slot_spent

    def _sustainable(self, cushion: float) -> float:
        """The greatest constant watts that leave ``cushion`` joules over the next period."""
        left, watts = self.balance - cushion, inf
        for back, returns in self._returns():
            watts = min(watts, left / max(returns, _ROUNDING))
            left += back
        return max(0.0, min(watts, left / self.budget.period))

    def _wait(self, joules: float) -> float:
        """Seconds until ``joules`` may be spent, if none are until then."""
        bucket = replace(self._bucket, rate=self._sustainable(0.0))
        left, at, shortest, paced = self.balance, 0.0, inf, joules
        for back, returns in [(0.0, 0.0), *self._returns()]:
            left, at = left + back, returns
            paced = joules - self._free(left)
            if left >= joules and paced <= bucket.depth:
                shortest = min(shortest, max(at, bucket.wait(paced)))
        bucket.rate = self.budget.joules / self.budget.period
        return min(shortest, at + bucket.wait(paced))

    def _returns(self) -> Iterator[tuple[float, float]]:
        """The joules that come back, and in how many seconds."""
        for end, joules in self._all_slots():
            yield joules, end + self.budget.period - self._now


def _period(budget: Budget) -> str:
    return f"{budget.joules:g} J in {budget.period:g} s"
