from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from delen.profile.profile import Profile, Quantiles
from delen.simulate.device import GRID, Device, DeviceSettings, SlowSpan, durations

MakeProfile = Callable[..., Profile]


def test_durations_have_the_quantiles_of_the_profile() -> None:
    drawn = durations(Quantiles(1.0, 1.2, 1.5, 2.5))
    assert len(drawn) == GRID
    assert (np.diff(drawn) >= 0).all()
    assert (drawn > 0).all()
    found = np.quantile(drawn, (0.5, 0.9, 0.95, 0.99))
    assert found == pytest.approx([1.0, 1.2, 1.5, 2.5], rel=0.01)


def test_durations_that_are_always_0_stay_0() -> None:
    assert not durations(Quantiles(0.0, 0.0, 0.0, 0.0)).any()


def test_without_noise_everything_takes_its_median(make_profile: MakeProfile) -> None:
    device = Device({"m": make_profile(0.01)}, DeviceSettings(noise=False), seed=0)
    assert {device.takes(0.0, "m", 0, 1) for _ in range(10)} == {0.01}


def test_noise_is_the_same_for_the_same_seed(make_profile: MakeProfile) -> None:
    profiles = {"m": make_profile(0.01, spread=0.2)}

    def drawn(seed: int) -> list[float]:
        device = Device(profiles, DeviceSettings(), seed)
        return [device.takes(0.0, "m", 0, 1) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert np.median(drawn(1)) == pytest.approx(0.01, rel=0.1)
    assert len(set(drawn(1))) > 20


def test_slow_spans_make_a_batch_longer(make_profile: MakeProfile) -> None:
    settings = DeviceSettings(slow=(SlowSpan(1.0, 2.0, 3.0),), noise=False)
    device = Device({"m": make_profile(0.01, growth=0.5)}, settings, seed=0)
    assert device.takes(0.0, "m", 0, 1) == pytest.approx(0.01)
    assert device.takes(0.0, "m", 0, 3) == pytest.approx(0.02)
    assert device.takes(1.0, "m", 0, 1) == pytest.approx(0.03)
    assert device.takes(2.0, "m", 0, 1) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lanes": 0},
        {"interference": ()},
        {"interference": (0.5,)},
        {"network": -1.0},
        {"front": (0.0, -1.0)},
        {"readers": 0},
    ],
)
def test_devices_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeviceSettings(**wrong)  # type: ignore[arg-type]
