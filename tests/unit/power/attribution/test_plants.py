"""Attribution on plants that know nothing of it: late sensors, wrong predictions, faults."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.attribution import Outcome, run
from benchmarks.plants.device import Energy
from benchmarks.plants.scenes import FAST, HELD, LONG, RAILS, SHORT, Scene
from benchmarks.plants.sensor import Sensor, polls
from delen.core.work import Share, Work
from power.attribution.attribution import Attributor
from power.sources.series import Samples

LATE = [FAST, *(Sensor(delay=delay) for delay in (0.006, 0.012, 0.025, 0.06)), RAILS]
NAMES = ["on time", "6 ms late", "12 ms late", "25 ms late", "60 ms late", "six rails in turn"]


def check(outcome: Outcome, total: float) -> None:
    assert outcome.off <= 0.01
    assert outcome.total <= total


@pytest.mark.parametrize("sensor", LATE, ids=NAMES)
def test_late_readings_are_found_late(sensor: Sensor) -> None:
    outcome = run(Scene("late", sensor, rate=60), 1)
    check(outcome, 0.03)
    assert outcome.attributed >= 0.6
    assert outcome.first <= 40


@pytest.mark.parametrize("sensor", [LATE[2], RAILS], ids=["12 ms late", "six rails in turn"])
def test_short_segments_are_not_called_attributed_before_they_are_known(sensor: Sensor) -> None:
    check(run(Scene("short", sensor, SHORT, rate=60), 1), 0.08)


@pytest.mark.parametrize("ratio", ["spread", "60x"])
def test_predictions_may_be_wrong_by_any_factor(ratio: str) -> None:
    outcome = run(Scene("wrong", ratio=ratio, rate=50), 2)  # type: ignore[arg-type]
    check(outcome, 0.03)
    assert outcome.attributed >= 0.6


@pytest.mark.parametrize("load", ["even", "saturated"])
def test_a_sensor_that_holds_long_averages_gives_totals(load: str) -> None:
    check(run(Scene("held", HELD, load=load), 1), 0.06)  # type: ignore[arg-type]


def test_a_sensor_behind_a_low_pass_filter_gives_totals() -> None:
    check(run(Scene("low-pass", Sensor(window=1e-3, lag=0.42)), 0), 0.06)


def test_what_ran_while_unseen_clocks_stepped_is_not_called_attributed() -> None:
    outcome = run(Scene("clocks", clocks="unseen", rate=50), 0)
    assert outcome.off <= 0.01
    assert outcome.total <= 0.06


@pytest.mark.parametrize("other", ["steps", "sine"])
def test_another_program_is_not_taken_for_requests(other: str) -> None:
    check(run(Scene("other", other=other, rate=50), 1), 0.05)  # type: ignore[arg-type]


def test_a_frozen_sensor_attributes_nothing() -> None:
    scene = Scene("frozen", rate=60)
    whole, frozen = run(scene, 3), run(replace(scene, fault="frozen"), 3)
    check(frozen, 0.05)
    assert frozen.attributed < whole.attributed / 2


def test_glitches_change_nothing_and_a_stall_only_what_nobody_measured() -> None:
    scene = Scene("whole", network=LONG, rate=3)
    whole, glitches, stall = (
        run(replace(scene, fault=fault), 0)  # type: ignore[arg-type]
        for fault in ("none", "glitch", "stall")
    )
    check(glitches, 0.02)
    check(stall, 0.02)
    assert glitches.attributed > whole.attributed - 0.1
    assert stall.attributed < whole.attributed - 0.1


def test_a_measured_profile_raises_what_can_be_attributed() -> None:
    guessed = run(Scene("guessed"), 4)
    profiled = run(Scene("profiled", ratio="profile"), 4)
    check(profiled, 0.04)
    assert profiled.attributed > guessed.attributed


@pytest.mark.parametrize("late", [0.012, 0.025, 0.06])
@pytest.mark.parametrize("noise", [0.0, 0.02], ids=["exact", "noisy"])
def test_two_kinds_of_batches_get_what_each_draws(late: float, noise: float) -> None:
    """Batches of 16 of two models, predicted alike, that draw 5 and 1.5 W."""
    rng = np.random.default_rng(5)
    works: list[Work] = []
    drawn = {"deep": 5.0, "shallow": 1.5}
    now = 3.0
    while now < 88:
        model, seconds = str(rng.choice(list(drawn))), float(rng.uniform(0.05, 0.12))
        shares = tuple(Share(f"{len(works)}-{nth}", model) for nth in range(16))
        works.append(Work(model, 0, 16, now, now + seconds, 2.0 * seconds, shares))
        now += seconds + float(rng.uniform(0.02, 0.3))
    energy = Energy([(w.began, w.ended, drawn[w.model] * w.seconds) for w in works])
    times = polls(90, rng)
    sensor = Sensor(window=0.001, delay=late, quantum=0.001, noise=noise)
    watts = sensor.read(lambda moments: energy.upto(moments) + 6 * moments, times, rng)
    attributor, added = Attributor(), 0
    got, true, known = (defaultdict[str, float](float) for _ in range(3))
    for window in range(88):
        while added < len(works) and works[added].ended < window + 1.1:
            attributor.add(works[added])
            added += 1
        samples = Samples(times, watts).between(window - 2, window + 1)
        split = attributor.close(window, window + 1, samples)
        for share, joules in split.by_share.items():
            got[share.request_id] += joules
        for work in works:
            for share in work.shares if window > 45 else ():
                if share.request_id in split.known:
                    known[work.model] += got[share.request_id]
                    true[work.model] += drawn[work.model] * work.seconds / 16
    assert set(known) == set(drawn)
    for model in drawn:
        assert known[model] == pytest.approx(true[model], rel=0.15)


def test_a_request_that_goes_on_while_its_readings_are_checked_is_known_as_a_whole() -> None:
    """Every fourth request runs its second segment seconds after its first."""
    rng = np.random.default_rng(1)
    works: list[Work] = []
    later: list[tuple[float, str]] = []
    now, count = 3.0, 0

    def run(segment: int, name: str) -> None:
        nonlocal now
        seconds = float(rng.uniform(0.05, 0.12))
        shares = (Share(name, "default"),)
        works.append(Work("m", segment, 1, now, now + seconds, 2.0 * seconds, shares))
        now += seconds + float(rng.uniform(0.02, 0.2))

    while now < 118:
        run(0, f"r{count}")
        if count % 4 == 0:
            later.append((now + float(rng.uniform(2.5, 3.5)), f"r{count}"))
        while later and later[0][0] < now:
            run(1, later.pop(0)[1])
        count += 1
    energy = Energy([(work.began, work.ended, 5.0 * work.seconds) for work in works])
    times = polls(120, rng)
    watts = FAST.read(lambda moments: energy.upto(moments) + 5 * moments, times, rng)
    attributor, added, unknown, known = Attributor(), 0, set[str](), set[str]()
    for window in range(118):
        while added < len(works) and works[added].ended < window + 1.1:
            attributor.add(works[added])
            added += 1
        samples = Samples(times, watts).between(window - 2, window + 1)
        split = attributor.close(window, window + 1, samples)
        if window > 60:
            unknown |= split.complete - split.known
            known |= split.known
    assert len(known) > 100
    assert unknown == set()
