from __future__ import annotations

from pathlib import Path

from benchmarks.bcedge import DEVICES, simulated, write_profiles
from delen.profile.reader import load_profile
from delen.simulate.device import DeviceSettings
from delen.simulate.learning.bcedge import highest_rate, whole_seconds


def test_no_device_that_is_tested_was_trained_on(tmp_path: Path) -> None:
    write_profiles(tmp_path)
    trained = [load_profile(file) for file in sorted(tmp_path.iterdir())]
    assert len(trained) == 45
    for tested in DEVICES.values():
        for each in trained:
            assert (each.segments, each.interference) != (tested.segments, tested.interference)


def test_batches_and_lanes_pay_where_the_names_say_so() -> None:
    gains = {}
    for name, profile in DEVICES.items():
        model, lanes = simulated(profile), profile.interference or (1.0,)
        one = 1 / whole_seconds(model)
        alone = highest_rate(model, DeviceSettings())
        gains[name] = alone / one, highest_rate(model, DeviceSettings(len(lanes), lanes)) / alone
    assert gains["batches pay"][0] > 3
    assert gains["lanes pay"][0] < 1.1 < 2 < gains["lanes pay"][1]
    assert max(gains["nothing pays"]) < 1.1
