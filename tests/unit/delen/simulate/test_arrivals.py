from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from delen.simulate.arrivals import Arrivals, Bursts, Camera, Poisson, Recorded, Window

KINDS: tuple[Arrivals, ...] = (
    Poisson(50.0),
    Bursts(50.0, peak=3.0, share=0.2, dwell=0.5),
    Bursts(50.0, peak=5.0, share=0.2, dwell=0.5),
    Camera(50.0, jitter=0.01),
    Recorded(50.0, (1.0, 0.0, 5.0), step=2.0),
)


def draw(arrivals: Arrivals, duration: float, seed: int = 0) -> Any:
    return arrivals.times(duration, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_times_ascend_below_the_end_at_the_mean_rate(kind: Arrivals) -> None:
    times = draw(kind, 2000.0)
    assert times.min() >= 0 and times.max() < 2000.0
    assert (np.diff(times) >= 0).all()
    assert len(times) / 2000.0 == pytest.approx(kind.rate, rel=0.05)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_seed_gives_the_same_times_and_another_gives_others(kind: Arrivals) -> None:
    assert (draw(kind, 20.0) == draw(kind, 20.0)).all()
    other = draw(kind, 20.0, seed=1)
    assert len(other) != len(draw(kind, 20.0)) or (other != draw(kind, 20.0)).any()


def dispersion(times: Any, duration: float) -> float:
    """Variance over mean of the counts in half seconds: 1 for Poisson."""
    counts = np.histogram(times, int(2 * duration), (0, duration))[0]
    return float(counts.var() / counts.mean())


def test_bursts_are_burstier_than_poisson_and_cameras_less() -> None:
    assert dispersion(draw(Poisson(50.0), 1000.0), 1000.0) == pytest.approx(1, abs=0.15)
    assert dispersion(draw(Bursts(50.0), 1000.0), 1000.0) > 10
    assert dispersion(draw(Camera(50.0), 1000.0), 1000.0) < 0.1


def test_bursts_that_take_all_leave_no_calm_requests() -> None:
    assert Bursts(10.0, peak=5.0, share=0.2).calm_rate == pytest.approx(0)
    assert Bursts(10.0, peak=1.0, share=0.2).calm_rate == pytest.approx(10)


def test_a_camera_has_its_phase_and_is_late_by_its_jitter() -> None:
    assert draw(Camera(4.0, phase=0.1), 1.0).tolist() == pytest.approx([0.1, 0.35, 0.6, 0.85])
    late = draw(Camera(4.0, phase=0.1, jitter=0.2), 100.0) - draw(Camera(4.0, phase=0.1), 100.0)
    assert 0 <= late.min() < 0.01 and 0.19 < late.max() <= 0.2
    assert len(draw(Camera(4.0, phase=2.0), 1.0)) == 0
    phases = {float(draw(Camera(4.0), 1.0, seed)[0]) for seed in range(5)}
    assert len(phases) == 5 and max(phases) < 0.25


def test_a_recording_is_followed_scaled_and_repeated() -> None:
    times = draw(Recorded(40.0, (1.0, 0.0, 3.0), step=10.0), 60.0)
    counts = np.histogram(times, 6, (0, 60))[0]
    assert counts[1] == counts[4] == 0
    expected = np.array([300, 0, 900, 300, 0, 900])
    assert (abs(counts - expected) <= 4 * np.sqrt(expected)).all()


def test_an_app_comes_and_goes() -> None:
    visit = Window(Poisson(100.0), 5.0, 8.0)
    times = draw(visit, 100.0)
    assert times.min() >= 5.0 and times.max() < 8.0
    assert len(times) == pytest.approx(300, abs=60)
    assert len(draw(visit, 5.0)) == 0
    assert draw(visit, 6.0).max() < 6.0
    assert visit.rate == 100.0


@pytest.mark.parametrize(
    ("make", "given", "named"),
    [
        (Poisson, {"rate": 0.0}, "rate"),
        (Poisson, {"rate": math.inf}, "rate"),
        (Bursts, {"rate": 1.0, "share": 1.0}, "share"),
        (Bursts, {"rate": 1.0, "peak": 6.0, "share": 0.2}, "1 to 5 times"),
        (Bursts, {"rate": 1.0, "dwell": 0.0}, "dwell"),
        (Camera, {"fps": -1.0}, "fps"),
        (Camera, {"fps": 1.0, "phase": -0.1}, "phase"),
        (Camera, {"fps": 1.0, "jitter": math.nan}, "jitter"),
        (Recorded, {"rate": 1.0, "record": ()}, "record"),
        (Recorded, {"rate": 1.0, "record": (0.0,)}, "record"),
        (Recorded, {"rate": 1.0, "record": (1.0, -1.0)}, "record"),
        (Recorded, {"rate": 1.0, "record": (1.0,), "step": 0.0}, "step"),
        (Window, {"inner": Poisson(1.0), "start": 2.0, "end": 2.0}, "window"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make(**given)
