"""Bytes on their way: changing bandwidth, outages, one after the other, losses, giving up."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from delen.simulate.streams.bandwidth import Bandwidth, constant
from delen.simulate.streams.link import OVERHEAD, TIMEOUT, FrameDraws, Link, LinkSettings

PLAIN = FrameDraws(1.0, 0.0, 0.0, (0.0, 0.0))
UNLUCKY = FrameDraws(1.0, 0.0, 0.0, (1.0, 0.0))
WHOLE = 100_000 - OVERHEAD
"""Bytes of a frame that takes a tenth of a second at 8 Mbit/s."""


def steps(*mbps: float) -> Bandwidth:
    """A value a second."""
    return Bandwidth(np.arange(len(mbps)) * 1.0, np.array(mbps) * 125_000, float(len(mbps)))


def test_a_frame_takes_its_bytes_over_the_bandwidth_and_the_delay() -> None:
    link = Link(LinkSettings(constant(8.0), delay=0.005), 10.0, 0)
    assert link.send(1.0, WHOLE, inf, PLAIN) == pytest.approx(1.105)
    assert link.back(PLAIN) == 0.005


def test_jitter_comes_on_top() -> None:
    link = Link(LinkSettings(constant(8.0), jitter=0.002), 10.0, 0)
    draws = FrameDraws(1.0, 1.5, 3.0, (0.0, 0.0))
    assert link.send(1.0, WHOLE, inf, draws) == pytest.approx(1.103)
    assert link.back(draws) == pytest.approx(0.006)


def test_frames_go_one_after_the_other() -> None:
    link = Link(LinkSettings(constant(8.0)), 10.0, 0)
    assert link.send(1.0, WHOLE, inf, PLAIN) == pytest.approx(1.1)
    assert link.send(1.05, WHOLE, inf, PLAIN) == pytest.approx(1.2)
    assert link.send(5.0, WHOLE, inf, PLAIN) == pytest.approx(5.1)


def test_the_bandwidth_changes_on_the_way() -> None:
    link = Link(LinkSettings(steps(8, 4)), 10.0, 0)
    # 50 kB until 1 s, and as many at half the rate
    assert link.send(0.95, WHOLE, inf, PLAIN) == pytest.approx(1.1)


def test_an_outage_of_30_seconds_holds_a_frame_up() -> None:
    link = Link(LinkSettings(steps(8, *(0,) * 30, 8)), 40.0, 0)
    assert link.send(0.95, WHOLE, inf, PLAIN) == pytest.approx(31.05)


def test_what_is_given_up_frees_the_link() -> None:
    link = Link(LinkSettings(steps(8, *(0,) * 30, 8)), 40.0, 0)
    assert link.send(0.95, WHOLE, 1.95, PLAIN) == inf
    assert link.send(1.0, WHOLE, 2.0, PLAIN) == inf
    assert link.send(31.0, WHOLE, inf, PLAIN) == pytest.approx(31.1)


def test_a_link_of_nothing_carries_nothing() -> None:
    assert Link(LinkSettings(constant(0.0)), 10.0, 0).send(1.0, 1, inf, PLAIN) == inf


def test_lost_packets_are_sent_again() -> None:
    settings = LinkSettings(constant(8.0), delay=0.02, loss=0.5, burst=100.0)
    link = Link(settings, 10.0, 0)
    assert link.send(1.0, WHOLE, inf, PLAIN) == pytest.approx(1.12)
    assert link.send(2.0, WHOLE, inf, UNLUCKY) == pytest.approx(2.12 + 0.04)
    tail = FrameDraws(1.0, 0.0, 0.0, (1.0, 1.0))
    assert link.send(3.0, WHOLE, inf, tail) == pytest.approx(3.12 + TIMEOUT)


def test_the_share_of_lost_packets_is_about_that_asked_for() -> None:
    link = Link(LinkSettings(constant(100.0), delay=0.01, loss=0.05), 2000.0, 1)
    starts = np.arange(0.0, 1990.0, 0.1)
    touched = link.pass_through_all(starts, np.full(len(starts), 1.0), UNLUCKY)[1]
    # half of all packets are lost in a burst, which lasts a tenth of the time then
    waits = touched - starts > 0.02
    assert waits.mean() == pytest.approx(0.1, rel=0.15)


def test_variation_keeps_the_mean_and_fades_cut_it() -> None:
    plain = Link(LinkSettings(constant(8.0)), 500.0, 3).course
    varied = Link(LinkSettings(constant(8.0), variation=0.3), 500.0, 3).course
    faded = Link(LinkSettings(constant(8.0), fades=0.5), 500.0, 3).course
    much = 400 * 1e6
    assert plain.finish(0, much) == pytest.approx(400)
    assert varied.finish(0, much) == pytest.approx(400, rel=0.05)
    assert faded.finish(0, much) > 410
    short = [varied.finish(start, 1e5) - start for start in range(100)]
    assert np.std(short) > 0.02


def test_many_at_once_are_as_one_by_one() -> None:
    settings = LinkSettings(
        steps(8, 0, 4, 0.5), delay=0.003, jitter=0.001, loss=0.1, variation=0.2, fades=0.2
    )
    link = Link(settings, 60.0, 5)
    draws = FrameDraws(1.0, 0.7, 0.2, (0.3, 0.6))
    starts = np.linspace(0.0, 61.0, 200)
    ends, arrived = link.pass_through_all(starts, np.full(200, 30_000.0), draws)
    single = [link.pass_through(start, 30_000.0, draws) for start in starts.tolist()]
    assert ends.tolist() == pytest.approx([end for end, _ in single])
    assert arrived.tolist() == pytest.approx([there for _, there in single])


@pytest.mark.parametrize(
    "given", [{"delay": -1.0}, {"jitter": inf}, {"loss": 0.6}, {"loss": 0.1, "burst": 0.0}]
)
def test_wrong_settings_are_named(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(reversed(given))):
        LinkSettings(constant(1.0), **given)
