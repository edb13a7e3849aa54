"""A guard around an exit policy: where it fails, the default decides."""

from __future__ import annotations

from typing import get_args

from delen.core.plan import Decision, ExitView
from delen.core.result import Reason
from policies.exit.bounds import BoundsPolicy, ExitPolicy
from policies.exit.learning import FullRun, LearningPolicy

_REASONS = frozenset((None, *get_args(Reason)))
_DEFAULT = BoundsPolicy()


def guarded_decision(policy: ExitPolicy, view: ExitView) -> tuple[Decision, BaseException | None]:
    """The decision of ``policy``; if it raises or decides what cannot be followed, the default's
    decision and the error."""
    try:
        decision = policy.decide(view)
        _check(decision, view)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _DEFAULT.decide(view), error
    return decision, None


def guarded_learning(policy: LearningPolicy, run: FullRun) -> BaseException | None:
    """Have ``policy`` learn from ``run``; the error if it raises."""
    try:
        policy.learn(run)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def _check(decision: object, view: ExitView) -> None:
    """ValueError unless ``decision``, from a plug-in, can be followed."""
    if not isinstance(decision, Decision) or decision.reason not in _REASONS:
        raise ValueError(f"the policy gave {decision!r}, which is not a decision")
    if decision.reason is None and view.next_exit is None:
        raise ValueError(f"the policy went on at exit {view.exit}, where the plan ends")
