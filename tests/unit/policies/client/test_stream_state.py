"""What a stream sends, drops and lets go, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.errors import DelenError
from policies.client.api import FrameChoice, FrameOption, FrameReport, StreamView
from policies.client.stream_state import Sending, StreamState

SMALL = FrameOption((16, 16), 768, 0.002, 0.8, 3)
LARGE_IN_TIME = FrameChoice(1, 0.05)
LARGE = FrameOption((32, 32), 3072, 0.005, 0.9, 4)


@dataclass
class Chooses:
    """A controller that chooses what it is told to, and remembers what it saw."""

    name: str = "chooses"
    choice: FrameChoice | None = LARGE_IN_TIME
    views: list[StreamView] = field(default_factory=list)
    reports: list[FrameReport] = field(default_factory=list)

    def choose(self, view: StreamView) -> FrameChoice | None:
        self.views.append(view)
        return self.choice

    def ended(self, report: FrameReport) -> None:
        self.reports.append(report)


class Link:
    """A link of 0.1 s and 1 kB a second, and what was observed of it."""

    def __init__(self) -> None:
        self.learnt: list[tuple[int, float, float]] = []

    def learn(self, index: int, payload: float, network: float) -> None:
        self.learnt.append((index, payload, network))

    def predict(self, payloads: Sequence[float]) -> list[float] | None:
        return [0.1 + payload / 1000 for payload in payloads] if self.learnt else None


@pytest.fixture
def controller() -> Chooses:
    return Chooses()


def make_state(
    controller: Chooses, link: Link | None = None, in_flight: int = 2
) -> StreamState[str, str]:
    state: StreamState[str, str] = StreamState(
        controller, deadline=0.1, period=0.03, in_flight=in_flight
    )
    state.begin((SMALL, LARGE), link, 0.02)
    return state


@pytest.fixture
def state(controller: Chooses) -> StreamState[str, str]:
    return make_state(controller)


def sent(state: StreamState[str, str], now: float) -> Sending[str]:
    sending = state.send(now)
    assert sending is not None
    return sending


def drops(state: StreamState[str, str]) -> dict[str, int]:
    return {cause: count for cause, count in state.dropped.items() if count}


def test_a_frame_is_sent_as_the_controller_chooses(
    state: StreamState[str, str], controller: Chooses
) -> None:
    state.put("a", 1.0)
    assert sent(state, 1.01) == Sending(0, 1.0, "a", 1, LARGE, 0.05)
    view = controller.views[0]
    assert (view.frame, view.captured, view.deadline, view.period) == (0, 1.0, 0.1, 0.03)
    assert view.remaining == pytest.approx(0.09)
    assert (tuple(view.options), view.network, view.in_flight) == ((SMALL, LARGE), None, ())
    state.encoded(0, 1.012, 2000)
    state.answered(0, 1.05, 0.005, "cat")
    answer = state.take(1.05)
    assert answer is not None
    assert (answer.frame, answer.answer, answer.option, answer.late) == (0, "cat", LARGE, False)
    assert answer.latency == pytest.approx(0.05)
    report = controller.reports[0]
    assert (report.payload, report.sent, report.answered) == (2000, 1.012, 1.05)
    assert report.network == pytest.approx(0.033)
    assert report.end_to_end == pytest.approx(0.05)


def test_a_frame_that_is_sent_smaller_than_chosen_is_of_that_option(
    state: StreamState[str, str], controller: Chooses
) -> None:
    state.put("a", 0.0)
    assert sent(state, 0.0).option == LARGE
    state.encoded(0, 0.01, 768, (16, 16))
    state.answered(0, 0.05, 0.005, "cat")
    answer = state.take(0.05)
    assert answer is not None
    assert answer.option == SMALL
    assert (controller.reports[0].index, controller.reports[0].payload) == (0, 768)


def test_what_the_link_showed_is_predicted(controller: Chooses) -> None:
    link = Link()
    state = make_state(controller, link)
    state.put("a", 0.0)
    sent(state, 0.0)
    state.encoded(0, 0.01, 2000)
    state.put("b", 0.03)
    sent(state, 0.03)
    assert [(each.frame, each.payload, each.sent) for each in controller.views[1].in_flight] == [
        (0, 2000, 0.01)
    ]
    state.answered(0, 0.05, 0.005, "cat")
    assert link.learnt == [(1, 2000, pytest.approx(0.035))]
    state.put("c", 0.06)
    assert sent(state, 0.06).upload == pytest.approx(3.152)
    assert controller.views[2].round_trip == 0.02
    assert controller.views[2].network == pytest.approx([0.868, 3.172])


def test_a_clock_that_runs_fast_at_the_daemon_makes_no_negative_network(
    controller: Chooses,
) -> None:
    state = make_state(controller)
    state.put("a", 0.0)
    sent(state, 0.0)
    state.answered(0, 0.05, 3600.0, "cat")
    assert controller.reports[0].network == 0.0


def test_a_newer_frame_takes_the_place_of_the_one_that_waits(
    state: StreamState[str, str],
) -> None:
    for number in range(5):
        state.put(str(number), 0.01 * number)
    assert sent(state, 0.05).content == "4"
    assert drops(state) == {"replaced": 4}
    assert state.send(0.05) is None


def test_no_more_than_so_many_are_in_flight(state: StreamState[str, str]) -> None:
    for number in range(3):
        state.put(str(number), 0.01 * number)
        assert (state.send(0.01 * number) is None) == (number == 2)
    state.failed(0, 0.05, "unanswered")
    assert sent(state, 0.05).content == "2"
    assert drops(state) == {"unanswered": 1}


def test_a_frame_whose_deadline_is_over_is_not_sent(
    state: StreamState[str, str], controller: Chooses
) -> None:
    state.put("a", 0.0)
    assert state.send(0.1) is None
    assert drops(state) == {"stale": 1}
    assert controller.views == []


def test_a_controller_holds_a_frame_back(state: StreamState[str, str], controller: Chooses) -> None:
    controller.choice = None
    state.put("a", 0.0)
    assert state.send(0.0) is None
    assert drops(state) == {"controller": 1}


@pytest.mark.parametrize("choice", [FrameChoice(2), FrameChoice(-1), FrameChoice(0.5), 5])
def test_an_option_that_there_is_not_is_refused_with_the_controllers_name(
    state: StreamState[str, str], controller: Chooses, choice: Any
) -> None:
    controller.choice = choice
    state.put("a", 0.0)
    with pytest.raises(DelenError, match="chooses"):
        state.send(0.0)


def test_a_frame_that_is_not_newer_than_the_last_is_a_repetition(
    state: StreamState[str, str],
) -> None:
    for captured in (5.0, 5.0, 4.0, 6.0):
        state.put("a", 10.0, captured)
    assert drops(state) == {"repeated": 2, "replaced": 1}


def test_a_time_of_capture_in_the_future_is_now(state: StreamState[str, str]) -> None:
    state.put("a", 10.0, 3600.0)
    assert sent(state, 10.0).captured == 10.0


def test_answers_leave_in_order_of_capture(state: StreamState[str, str]) -> None:
    state.put("a", 0.0)
    sent(state, 0.0)
    state.put("b", 0.03)
    sent(state, 0.03)
    state.answered(1, 0.05, 0.0, "B")
    assert state.take(0.05) is None
    assert state.due() == pytest.approx(0.1)
    state.answered(0, 0.06, 0.0, "A")
    taken = [state.take(0.06), state.take(0.06), state.take(0.06)]
    assert [answer and answer.answer for answer in taken] == ["A", "B", None]


def test_an_answer_waits_for_an_earlier_one_until_its_deadline(
    state: StreamState[str, str], controller: Chooses
) -> None:
    state.put("a", 0.0)
    sent(state, 0.0)
    state.put("b", 0.03)
    sent(state, 0.03)
    state.answered(1, 0.05, 0.0, "B")
    answer = state.take(0.1)
    assert answer is not None
    assert (answer.answer, answer.late) == ("B", False)
    state.answered(0, 0.5, 0.0, "A")
    assert state.take(0.5) is None
    assert drops(state) == {"overtaken": 1}
    assert [report.frame for report in controller.reports] == [1, 0]


def test_a_late_answer_that_nothing_overtook_is_given_as_late(
    state: StreamState[str, str],
) -> None:
    state.put("a", 0.0)
    sent(state, 0.0)
    state.answered(0, 0.2, 0.0, "A")
    answer = state.take(0.2)
    assert answer is not None
    assert answer.late


def test_an_ended_stream_is_finished_once_nothing_is_left(state: StreamState[str, str]) -> None:
    state.put("a", 0.0)
    state.end()
    assert not state.is_drained
    sent(state, 0.0)
    assert state.is_drained
    state.answered(0, 0.05, 0.0, "A")
    assert not state.is_finished
    state.take(0.05)
    assert state.is_finished


def test_nothing_is_sent_before_it_is_known_what_can_be(controller: Chooses) -> None:
    state: StreamState[str, str] = StreamState(controller, deadline=1, period=1, in_flight=1)
    state.put("a", 0.0)
    assert state.send(0.0) is None
    state.begin((SMALL,))
    controller.choice = FrameChoice(0)
    assert sent(state, 0.0).option == SMALL


@given(st.lists(st.tuples(st.sampled_from("pstafx"), st.floats(0, 0.2)), max_size=60))
def test_every_frame_ends_once_and_answers_ascend(steps: list[tuple[str, float]]) -> None:
    state = make_state(Chooses(), in_flight=3)
    now, under_way, given = 0.0, [], []
    for step, seconds in steps:
        now += seconds
        if step == "p":
            state.put("frame", now)
        elif step == "s" and (sending := state.send(now)) is not None:
            under_way.append(sending.frame)
        elif step in "ax" and under_way:
            state.answered(under_way.pop(0 if step == "a" else -1), now, 0.0, "answer")
        elif step == "f" and under_way:
            state.failed(under_way.pop(), now, "refused")
        elif step == "t" and (answer := state.take(now)) is not None:
            given.append(answer.frame)
    state.end()
    while not state.is_drained:
        if (sending := state.send(now)) is not None:
            under_way.append(sending.frame)
        elif under_way:
            state.answered(under_way.pop(), now, 0.0, "answer")
    for frame in reversed(under_way):
        state.answered(frame, now, 0.0, "answer")
    while (answer := state.take(now)) is not None:
        given.append(answer.frame)
    assert state.is_finished
    assert given == sorted(set(given))
    assert len(given) + sum(state.dropped.values()) == state.frames
