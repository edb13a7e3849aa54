"""What a stream makes of an answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from delen.core.plan import OperatingPoint
from delen.core.result import LatencyOutcome
from delen.streams.core import PATIENCE, StreamCore
from delen.streams.model import StreamedModel
from policies.client.api import FrameChoice, FrameReport, StreamView
from tests.unit.delen.answers import answer


@dataclass
class Always:
    """A controller that sends every frame, and remembers what became of it."""

    reports: list[FrameReport] = field(default_factory=list)

    def choose(self, view: StreamView) -> FrameChoice | None:
        return FrameChoice(0, view.remaining)

    def ended(self, report: FrameReport) -> None:
        self.reports.append(report)


def test_waiting_at_the_daemon_is_no_network_time_and_sending_a_frame_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("delen.streams.core.time.monotonic", lambda: now[0])
    controller = Always()
    core = StreamCore(
        deadline=1.0,
        fps=30.0,
        controller=controller,
        in_flight=None,
        patience=PATIENCE,
        encoding="raw",
        name=None,
        priority=None,
        min_accuracy=None,
        max_energy=None,
    )
    core.begin(StreamedModel((16,), None, [OperatingPoint(0, 0.9, 0.01, None, False)]), 0.02)
    core.put(np.zeros(16, np.uint8))
    sending = core.send()
    assert sending is not None
    core.arguments(sending, core.encode(sending))
    now[0] += 0.5
    result = answer("r")
    latency = LatencyOutcome(None, value=0.45, queue=0.4, predicted=0.01, met=None)
    core.ended(
        sending, replace(result, receipt=replace(result.receipt, latency=latency, receiving=0.1))
    )
    [report] = controller.reports
    assert report.latency == pytest.approx(0.35)
    assert report.network == pytest.approx(0.15)
