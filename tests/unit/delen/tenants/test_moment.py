"""However the wall clock starts and jumps, no more time is counted than has passed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.tenants.moment import EARLIEST, Moment, read_moment

TODAY = EARLIEST + 3e7
SECONDS = st.floats(0.0, 1e6)


@dataclass(frozen=True)
class Machine:
    """A machine whose boots start at the true times ``boots``. Its clock starts each boot at 0 if
    it has no battery, and is right from ``sync`` seconds after the boot on."""

    boots: list[float]
    sync: list[float]
    has_battery: list[bool]
    knows_boot: bool

    def at(self, boot: int, uptime: float) -> Moment:
        true = self.boots[boot] + uptime
        is_right = self.has_battery[boot] or uptime >= self.sync[boot]
        wall = true if is_right else uptime
        return Moment(wall, f"boot {boot}", uptime) if self.knows_boot else Moment(wall)


@given(st.data())
def test_no_more_is_counted_than_has_passed(data: st.DataObject) -> None:
    up, off = data.draw(st.tuples(SECONDS, SECONDS)), data.draw(SECONDS)
    boots = [TODAY, TODAY + up[0] + off]
    pair = st.lists(st.booleans(), min_size=2, max_size=2)
    sync = data.draw(st.lists(SECONDS, min_size=2, max_size=2))
    machine = Machine(boots, sync, data.draw(pair), data.draw(st.booleans()))
    saved_in, read_in = data.draw(st.sampled_from([(0, 0), (0, 1), (1, 1)]))
    saved = data.draw(st.floats(0.0, up[saved_in]))
    read = data.draw(st.floats(saved if saved_in == read_in else 0.0, up[read_in]))
    passed = boots[read_in] + read - boots[saved_in] - saved
    earlier, now = machine.at(saved_in, saved), machine.at(read_in, read)
    counted = now.since(earlier)
    assert 0.0 <= counted <= passed + 1e-3
    if machine.knows_boot and saved_in == read_in:
        assert counted == pytest.approx(passed)
    if machine.knows_boot and saved_in != read_in:
        assert counted >= read
    if earlier.wall >= EARLIEST and now.wall >= EARLIEST:
        assert counted == pytest.approx(passed, abs=1e-3)


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), SECONDS, SECONDS)
def test_within_one_boot_the_wall_clock_does_not_matter(
    before: float, after: float, uptime: float, passed: float
) -> None:
    earlier = Moment(before, "boot", uptime)
    now = Moment(after, "boot", uptime + passed)
    assert now.since(earlier) == pytest.approx(passed, abs=1e-6)
    assert earlier.since(now) == 0.0


def test_the_present_moment_goes_on() -> None:
    one = read_moment()
    other = read_moment()
    assert abs(one.wall - time.time()) < 3600
    assert other.boot == one.boot
    assert 0.0 <= other.since(one) < 3600
