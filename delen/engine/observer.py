"""Who is told of what the engine did."""

from __future__ import annotations

from typing import Protocol

from delen.core.result import Result
from delen.core.work import Work


class Observer(Protocol):
    """Told of what the worker did, on its thread or a canceller's; it has to be quick.

    ``answered`` is told of an answer that is about to leave, ``ran`` of a batch once its answers
    have left. ``policy_failed`` is about the exit policy of a model, ``dispatch_failed`` about as
    many calls of the dispatch policy.
    """

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...
