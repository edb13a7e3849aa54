"""A dispatch policy that cannot harm: what it raises or gets wrong, another one decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from delen.core.dispatch import (
    DispatchPolicy,
    Group,
    Key,
    ModelView,
    PolicyCapabilities,
    Ran,
    Task,
    Turn,
)
from delen.scheduler.policy_check import check_turn
from delen.scheduler.queues import Groups

BUDGET = 0.005
"""Seconds that one decision may take, and so long may it take to be told of something."""

_STRIKES = 3.0
_FORGIVEN = 0.99
"""A policy is given up after it was slow so many times; each decision that is not lets a hundredth
of that be forgotten, so that a machine that was busy for a moment is no reason."""


class InRank:
    """The last resort: the group whose first task ranks first, as many as a batch takes."""

    name = "in_rank"

    def choose(
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, ModelView]
    ) -> Turn:
        lead = min((group.first(1)[0] for group in waiting.values()), key=lambda task: task.rank)
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(run=group.first(figures[lead.model].max_batch))

    def ran(self, now: float, ran: Ran) -> None:
        """It learns nothing."""

    def ended(self, now: float, task: Task) -> None:
        """Nor from this."""


@dataclass(frozen=True, slots=True)
class PolicyFailure:
    """Which policy failed, in which call, and how: an exception, or a sentence."""

    policy: str
    call: str
    problem: str

    def __str__(self) -> str:
        return f"the dispatch policy {self.policy!r} failed in {self.call}(): {self.problem}"


class ContainedPolicy:
    """Asks ``policy``, and ``default`` where that fails; where that fails too, ``InRank``.

    Whatever they raise is contained, ``SystemExit`` as well; only a user's Ctrl-C is let through.
    ``failures`` counts every failure. The first one of each policy is kept in ``report`` until it
    is fetched, so that it can be logged once.
    """

    def __init__(self, policy: DispatchPolicy, default: DispatchPolicy) -> None:
        self.failures = 0
        self._policies: list[DispatchPolicy] = [policy]
        if default is not policy:
            self._policies.append(default)
        self._last_resort = InRank()
        self._strikes = 0.0
        self._asked = True
        self._report: list[PolicyFailure] = []
        self._reported: set[int] = set()
        capabilities = getattr(policy, "capabilities", None)
        self._capabilities = (
            capabilities if isinstance(capabilities, PolicyCapabilities) else PolicyCapabilities()
        )

    @property
    def name(self) -> str:
        """Of the policy that is asked first."""
        return str(getattr(self._policies[0], "name", type(self._policies[0]).__name__))

    @property
    def capabilities(self) -> PolicyCapabilities:
        return self._capabilities

    def fetch_report(self) -> list[PolicyFailure]:
        """What failed for the first time since the last call."""
        report, self._report = self._report, []
        return report

    def choose(
        self,
        now: float,
        groups: Groups,
        figures: Mapping[str, ModelView],
        must_wake: bool,
        hold_until: Callable[[], float],
    ) -> Turn:
        """What is to happen; ``must_wake`` and ``hold_until`` are those of ``check_turn``."""
        self._asked = True
        for policy in self._policies:
            try:
                turn = policy.choose(now, groups.view, figures)
                return check_turn(turn, now, groups, figures, must_wake, hold_until)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(policy, "choose", error)
                self._asked = False
        return self._last_resort.choose(now, groups.view, figures)

    def ran(self, now: float, ran: Ran) -> None:
        for policy in self._policies:
            try:
                policy.ran(now, ran)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(policy, "ran", error)

    def ended(self, now: float, task: Task) -> None:
        for policy in self._policies:
            try:
                policy.ended(now, task)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(policy, "ended", error)

    def decision_took(self, seconds: float) -> None:
        """The last ``choose`` took so long. After the third time that something took too long, the
        policy is given up, and the default decides from then on."""
        if seconds <= BUDGET:
            self._strikes *= _FORGIVEN
        elif self._asked:
            self._strike("choose", f"a decision took {1e3 * seconds:.3g} ms")

    def telling_took(self, seconds: float) -> None:
        """The last ``ran`` or ``ended`` took so long, which counts as much."""
        if seconds > BUDGET:
            self._strike("ran() or ended", f"to be told of an end took {1e3 * seconds:.3g} ms")

    def _strike(self, call: str, what: str) -> None:
        if len(self._policies) == 1:
            return
        self._strikes += 1
        if self._strikes < _STRIKES:
            self.failures += 1
            return
        slow = f"{what}, more than {1e3 * BUDGET:g} ms again; it is asked no more"
        self._failed(self._policies[0], call, slow)
        self._strikes = 0.0
        self._capabilities = getattr(self._policies[1], "capabilities", PolicyCapabilities())
        del self._policies[0]

    def _failed(self, policy: DispatchPolicy, call: str, problem: BaseException | str) -> None:
        self.failures += 1
        if id(policy) in self._reported:
            return
        self._reported.add(id(policy))
        if isinstance(problem, BaseException):
            problem = f"{type(problem).__name__}: {problem}"
        name = str(getattr(policy, "name", type(policy).__name__))
        self._report.append(PolicyFailure(name, call, problem))
