"""A guard around a dispatch policy: where the policy raises or errs, another one decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from delen.core.dispatch import (
    DispatchPolicy,
    Group,
    Key,
    ModelView,
    NoFeedback,
    PolicyCapabilities,
    Ran,
    Task,
    Turn,
)
from delen.scheduler.policy_check import check_turn
from delen.scheduler.queues import Groups

BUDGET = 0.005
"""Seconds that one decision, or one report to the policy, may take."""

_STRIKES = 3.0
_FORGIVEN = 0.97
"""A policy is given up after this many slow calls. Each decision that is not slow takes 3 % off the
count, so that a machine whose processors are busy does no harm: a twentieth of all calls may be
slow."""


class InRank(NoFeedback):
    """The last resort: the group whose first task ranks first, as many as a batch takes."""

    name = "in_rank"

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        lead = min((group.first(1)[0] for group in waiting.values()), key=lambda task: task.rank)
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(run=group.first(models[lead.model].max_batch))


@dataclass(frozen=True, slots=True)
class PolicyFailure:
    """Which policy failed, in which call, and how: an exception, or a sentence."""

    policy: str
    call: str
    problem: str

    def __str__(self) -> str:
        return f"the dispatch policy {self.policy!r} failed in {self.call}(): {self.problem}"


class GuardedPolicy:
    """Asks ``policy``; where it fails ``default``, and where that fails too ``InRank``.

    It catches whatever they raise, also ``SystemExit``, but not a user's Ctrl-C. ``failures``
    counts every failure, from those of policies before on. ``fetch_report`` returns the first
    failure of each policy once, so that it can be logged once.
    """

    def __init__(self, policy: DispatchPolicy, default: DispatchPolicy, failures: int = 0) -> None:
        self.failures = failures
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
        """The name of the policy that is asked first."""
        return str(getattr(self._policies[0], "name", type(self._policies[0]).__name__))

    @property
    def capabilities(self) -> PolicyCapabilities:
        return self._capabilities

    def fetch_report(self) -> list[PolicyFailure]:
        """The policies that failed for the first time since the last call."""
        report, self._report = self._report, []
        return report

    def choose(
        self,
        now: float,
        groups: Groups,
        models: Mapping[str, ModelView],
        must_wake: bool,
        delay_until: Callable[[], float],
    ) -> Turn:
        """The turn to take; ``must_wake`` and ``delay_until`` are as in ``check_turn``."""
        self._asked = True
        for policy in self._policies:
            try:
                turn = policy.choose(now, groups.view, models)
                return check_turn(turn, now, groups, models, must_wake, delay_until)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(policy, "choose", error)
                self._asked = False
        return self._last_resort.choose(now, groups.view, models)

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        """Whether the policy says that it would run ``task`` now if it alone waited, and nothing
        ran; false for a policy that has no ``runs_alone``."""
        policy = self._policies[0]
        runs_alone = getattr(policy, "runs_alone", None)
        if runs_alone is None:
            return False
        self._asked = True
        try:
            return runs_alone(now, task, models) is True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failed(policy, "runs_alone", error)
            return False

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
        """The last ``choose`` took so many seconds. After the third slow call the policy is given
        up, and the default decides from then on."""
        if seconds <= BUDGET:
            self._strikes *= _FORGIVEN
        elif self._asked:
            self._strike("choose", f"a decision took {1e3 * seconds:.3g} ms")

    def reporting_took(self, seconds: float) -> None:
        """The last ``ran`` or ``ended`` took so many seconds, which counts as much."""
        if seconds > BUDGET:
            self._strike("ran() or ended", f"a report of an end took {1e3 * seconds:.3g} ms")

    def _strike(self, call: str, what: str) -> None:
        if len(self._policies) == 1:
            return
        self._strikes += 1
        if self._strikes < _STRIKES:
            self.failures += 1
            return
        slow = f"{what}, more than {1e3 * BUDGET:g} ms again; it will not be called again"
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
