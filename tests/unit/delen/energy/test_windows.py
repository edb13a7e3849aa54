"""Window accounting over a real sampler whose clock and readings a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from delen.core.work import Share, Work
from delen.energy.accounts import Accounts
from delen.energy.admission import Ended
from delen.energy.power_view import PowerViewBuilder
from delen.energy.windows import WindowAccounting
from delen.profile.profile import Profile
from power.attribution.attribution import Attributor
from power.sources.sampler import Sampler
from power.sources.source import PowerReading
from tests.unit.delen.answers import answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Dial:
    """A source that shows ``watts``, or fails."""

    name, scope, interval = "dial", "module_input", 0.1

    def __init__(self, clock: Clock, kind: Literal["measured", "estimated"] = "measured") -> None:
        self.kind = kind
        self.watts: float | None = 6.0
        self._clock = clock

    def read(self) -> PowerReading:
        return PowerReading(self._clock.now, {}, self.watts)

    def close(self) -> None:
        """Nothing is held."""


class Rig:
    """Accounting, power view and sampler of one dial; time goes on by reading it."""

    def __init__(self, profile: Profile, kind: Literal["measured", "estimated"]) -> None:
        self.clock = Clock()
        self.dial = Dial(self.clock, kind)
        self.sampler = Sampler(self.dial, 0.1, clock=self.clock)
        self.accounts = Accounts("dial", 4.0)
        self.accounting = WindowAccounting(self.sampler, self.accounts, 1.0, 100, clock=self.clock)
        self.accounting.add_model(profile)
        self.power_view = PowerViewBuilder(self.sampler, self.clock.now)
        self.sampler._poll(self.clock.now)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.clock.now += 0.1
            self.sampler._poll(self.clock.now)

    def work(self, seconds: float, joules: float) -> Work:
        now = self.clock.now
        return Work("tiny", 0, 1, now - seconds, now, joules, (Share("r", "cam"),))


@pytest.fixture
def rig(make_profile: Callable[..., Profile]) -> Rig:
    return Rig(make_profile(0.01), "measured")


def test_a_window_is_closed_when_its_readings_are_there(rig: Rig) -> None:
    rig.wait(1.0)
    rig.accounting.close_due(0.0, "ok")
    assert rig.accounting.history.count == 0  # what ended just now may not have been told yet
    rig.wait(0.2)
    rig.accounting.note({"VDD_IN": 5.0})
    rig.accounting.note({"VDD_IN": 7.0})
    rig.accounting.close_due(0.5, "ok")
    window = rig.accounting.history.latest
    assert window is not None
    assert (window.watts, window.seconds, window.price) == (pytest.approx(6.0), 1.0, 0.5)
    assert window.rails == {"VDD_IN": 6.0}
    assert window.idle is not None
    assert window.attributed + window.idle + (window.other or 0.0) == pytest.approx(6.0)
    rig.wait(3.0)
    rig.accounting.close_due(0.0, "ok")
    assert rig.accounting.history.count == 4
    assert rig.accounting.status().other == pytest.approx(0.0, abs=0.1)


def test_a_window_whose_readings_do_not_come_is_estimated(rig: Rig) -> None:
    rig.wait(0.5)
    rig.accounting.enter([rig.work(0.1, 0.4)])
    rig.clock.now += 0.7
    rig.accounting.close_due(0.0, "ok")
    assert rig.accounting.history.count == 0
    rig.clock.now += 1.0
    rig.accounting.close_due(0.0, "ok")
    window = rig.accounting.history.latest
    assert window is not None
    assert (window.kind, window.watts, window.idle) == ("estimated", None, None)
    assert window.attributed == pytest.approx(0.4, rel=0.2)
    assert rig.accounting.status().other is None


def test_an_event_that_cannot_be_entered_takes_no_other_with_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, failed: Callable[[str], int]
) -> None:
    def add(work: Work) -> None:
        raise ArithmeticError("no such batch")

    monkeypatch.setattr(rig.accounting.attributor, "add", add)
    answered = answer("a", tenant="cam")
    events = [rig.work(0.1, 0.4), rig.work(0.1, 0.4), Ended(Share("a", "cam"), answered)]
    rig.accounting.enter(events)
    assert rig.accounting.receipt("a") is not None
    assert failed("attribution") == 2


def test_a_degraded_source_is_not_waited_for(rig: Rig) -> None:
    rig.clock.now += 1.2
    rig.accounting.close_due(0.0, "degraded")
    window = rig.accounting.history.latest
    assert window is not None
    assert (window.state, window.kind) == ("degraded", "estimated")


def test_what_is_only_estimated_is_not_shared_out_as_measured(
    make_profile: Callable[..., Profile],
) -> None:
    rig = Rig(make_profile(0.01), "estimated")
    rig.wait(1.2)
    rig.accounting.close_due(0.0, "ok")
    window = rig.accounting.history.latest
    assert window is not None
    assert (window.kind, window.idle) == ("estimated", None)
    assert window.watts == pytest.approx(6.0)


def test_the_power_view_shows_the_mean_since_it_was_last_read(rig: Rig) -> None:
    attributor = Attributor(static=5.0)
    rig.wait(1.0)
    rig.dial.watts = 10.0
    rig.wait(1.0)
    view = rig.power_view.view(rig.clock.now, attributor, 40.0)
    assert view.watts == pytest.approx(8.0, abs=0.3)
    assert view.joules == pytest.approx(16.0, abs=0.6)
    assert (view.static, view.other, view.headroom) == (5.0, 0.0, 40.0)
    rig.wait(0.5)
    again = rig.power_view.view(rig.clock.now, attributor, None)
    assert again.watts == pytest.approx(10.0)
    assert again.joules == pytest.approx(21.0, abs=0.6)


def test_the_power_view_counts_over_a_gap_by_the_reading_at_its_end(rig: Rig) -> None:
    attributor = Attributor(static=5.0)
    rig.wait(1.0)
    before = rig.power_view.view(rig.clock.now, attributor, None)
    rig.clock.now += 0.8  # too long to interpolate over, too short to be called a stall
    rig.sampler._poll(rig.clock.now)
    after = rig.power_view.view(rig.clock.now, attributor, None)
    assert before.joules is not None
    assert after.joules == pytest.approx(before.joules + 0.8 * 6.0)
    assert after.watts == pytest.approx(6.0)


def test_the_power_view_knows_nothing_of_a_degraded_source(rig: Rig) -> None:
    attributor = Attributor(static=5.0)
    rig.wait(1.0)
    rig.dial.watts = None
    rig.wait(0.1)
    view = rig.power_view.view(rig.clock.now, attributor, 40.0)
    assert (view.watts, view.static, view.joules, view.headroom) == (None, None, None, 40.0)
    assert rig.power_view.check() == "degraded"
    assert PowerViewBuilder(None, 0.0).check() == "none"
    assert PowerViewBuilder(None, 0.0).view(1.0, attributor, None).watts is None


def test_a_model_knows_of_requests_alone(make_profile: Callable[..., Profile]) -> None:
    rig = Rig(make_profile(0.01), "estimated")
    rig.wait(1.0)
    view = rig.power_view.view(rig.clock.now, Attributor(static=5.0), None)
    assert (view.watts, view.static, view.other) == (pytest.approx(6.0), None, None)
    assert view.estimated


def test_a_profile_of_this_sensor_says_what_the_device_draws_idle(
    make_profile: Callable[..., Profile],
) -> None:
    metered = make_profile(0.01, energy=(0.05,))
    assert metered.energy is not None
    own = replace(metered, energy=replace(metered.energy, source="dial"))
    assert Rig(own, "measured").accounting.attributor.static_watts == own.energy.idle_watts
    assert Rig(metered, "measured").accounting.attributor.static_watts is None  # another sensor's


def test_works_that_outlast_a_window_are_learnt_from(rig: Rig) -> None:
    """Readings wait for works that still run, which here takes them into a later window."""
    for _ in range(20):
        rig.wait(0.5)
        rig.dial.watts = 10.0
        rig.wait(1.5)
        rig.dial.watts = 6.0
        rig.accounting.enter([rig.work(1.5, 3.0)])
        rig.accounting.close_due(0.0, "ok")
    assert rig.accounting.attributor.factor("tiny", 0) == pytest.approx(2.0, rel=0.1)


def test_readings_of_a_window_that_a_change_falls_in_are_never_learnt_from(rig: Rig) -> None:
    for _ in range(10):
        rig.wait(1.0)
        rig.accounting.close_due(0.0, "ok")
    rig.dial.watts = 60.0
    rig.wait(1.0)
    rig.accounting.invalidate("the power mode changed")
    rig.dial.watts = 6.0
    for _ in range(5):
        rig.wait(1.0)
        rig.accounting.close_due(0.0, "ok")
    assert rig.accounting.attributor.beside_watts == pytest.approx(6.0, rel=0.05)


def test_a_new_profile_is_not_corrected_by_what_the_old_one_taught(
    make_profile: Callable[..., Profile],
) -> None:
    profile = make_profile(0.01)
    rig = Rig(profile, "measured")
    account = rig.accounts.open(profile)
    for _ in range(20):
        rig.wait(0.8)
        rig.dial.watts = 10.0
        rig.wait(0.2)
        rig.dial.watts = 6.0
        rig.accounting.enter([rig.work(0.2, 0.4)])
        rig.accounting.close_due(0.0, "ok")
    assert account.factor(0) > 1.5
    rig.accounting.add_model(profile)
    assert account.factor(0) == 1.0
