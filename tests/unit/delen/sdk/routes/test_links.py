"""What a client knows of a link, from the times of its own answers."""

from __future__ import annotations

import pytest

from delen.core.result import AccuracyOutcome, EnergyOutcome, LatencyOutcome, Receipt
from delen.sdk.routes.links import BELIEVED, LEAST_PAYLOAD, LinkView

LARGE = 10 * LEAST_PAYLOAD


def served(value: float, receiving: float | None) -> Receipt:
    return Receipt(
        LatencyOutcome(None, value, 0.0, value, None),
        AccuracyOutcome(None, None, None, None, None),
        EnergyOutcome(None, None, None, "unknown", None, None, None),
        receiving=receiving,
    )


def test_the_round_trip_is_what_the_daemon_did_not_need() -> None:
    view = LinkView()
    assert view.round_trip(0.0) is None
    assert view.message(0.0) is None
    for now in range(5):
        view.learn(1000, 0.030, served(0.010, 0.002), now)
    assert view.round_trip(5.0) == pytest.approx(0.020)
    link = view.message(5.0)
    assert link is not None
    assert link.delay == pytest.approx(0.010)
    assert link.bandwidth is None


def test_a_node_that_is_slow_to_read_does_not_make_a_link_slow() -> None:
    view = LinkView()
    for now, receiving in enumerate((0.5, 0.1, 0.7, 0.1, 0.9)):
        view.learn(LARGE, receiving + 0.030, served(receiving + 0.010, receiving), now)
    link = view.message(5.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(LARGE / 0.1, rel=0.05)


def test_a_link_that_got_slower_shows_after_a_few_answers() -> None:
    view = LinkView()
    for now in range(20):
        receiving = 0.1 if now < 10 else 0.4
        view.learn(LARGE, receiving + 0.030, served(receiving + 0.010, receiving), now)
    link = view.message(20.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(LARGE / 0.4, rel=0.05)


def test_a_link_without_an_answer_for_a_while_is_unknown_and_learnt_anew() -> None:
    view = LinkView()
    view.learn(LARGE, 5.1, served(5.0, 4.9), 0.0)
    assert view.message(BELIEVED + 0.1) is None
    view.learn(1000, 0.012, served(0.010, 0.0), BELIEVED + 1.0)
    link = view.message(BELIEVED + 1.0)
    assert link is not None
    assert (link.delay, link.bandwidth) == (pytest.approx(0.001), None)


def test_an_answer_that_took_no_time_at_all_is_no_error() -> None:
    view = LinkView()
    view.learn(LARGE, 0.001, served(0.002, 0.0), 0.0)
    link = view.message(0.0)
    assert link is not None
    assert link.delay == 0
    assert link.bandwidth is not None


def test_work_that_waits_at_the_node_counts_for_no_link() -> None:
    view = LinkView()
    for now in range(5):
        view.learn(LARGE, 2.030, served(2.010, 0.1), now)
    link = view.message(5.0)
    assert link is not None
    assert link.bandwidth == pytest.approx(LARGE / 0.1, rel=0.05)


def test_a_bandwidth_that_no_receipt_shows_is_unknown() -> None:
    view = LinkView()
    view.learn(LARGE, 0.030, served(0.010, None), 0.0)
    link = view.message(0.0)
    assert link is not None
    assert link.bandwidth is None
