"""The interface to which the engine reports what it did."""

from __future__ import annotations

from typing import Protocol

from delen.core.result import Result
from delen.core.work import Work


class Observer(Protocol):
    """Lanes and threads that cancel jobs call it; it has to be quick.

    ``answered`` reports an answer that is about to leave, ``ran`` a batch whose answers have left,
    ``segment_failed`` a batch whose segment failed or gave no finite numbers for an input,
    ``policy_failed`` a failure of a model's exit policy, ``dispatch_failed`` how many calls of the
    dispatch policy failed, ``audited`` whether the deepest exit agreed with an early answer.
    """

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def segment_failed(self, model: str, segment: int) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...
