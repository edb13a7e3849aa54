from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from delen.engine.exit_policy import ExitDecider
from delen.engine.guarantee_monitor import GuaranteeMonitor
from policies.exit.learning import FullRun
from tests.builders.engine import PATIENCE, Recorder

TRAIL = [(0.5, 1), (0.9, 2)]


class Learner:
    has_departed, raised = False, 0.0

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.is_learning, self.goes_on = threading.Event(), threading.Event()

    def learn(self, run: FullRun) -> None:
        self.is_learning.set()
        assert self.goes_on.wait(PATIENCE)


def model() -> Any:
    return SimpleNamespace(
        variant="m",
        learner=Learner(),
        deciding=threading.Lock(),
        costs=SimpleNamespace(typical=lambda first, last, batch: 1.0),
        monitor=GuaranteeMonitor(),
    )


def test_a_model_that_learns_keeps_no_other_waiting() -> None:
    exits, slow, quick = ExitDecider(Recorder()), model(), model()
    learning = threading.Thread(target=exits.learn, args=(slow, TRAIL))
    learning.start()
    try:
        assert slow.learner.is_learning.wait(PATIENCE)
        quick.learner.goes_on.set()
        other = threading.Thread(target=exits.learn, args=(quick, TRAIL), daemon=True)
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
    finally:
        slow.learner.goes_on.set()
        learning.join(PATIENCE)
