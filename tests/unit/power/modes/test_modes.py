from __future__ import annotations

from pathlib import Path

import pytest

from power.modes.modes import PowerMode, Throttling, read_mode, steady_key, throttling
from power.modes.nvpmodel import parse_conf
from tests.nvpmodel import ModeTree
from tests.sensors import make_tree


def put(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def cool(root: Path, number: int, name: str, state: int) -> None:
    put(root, f"sys/class/thermal/cooling_device{number}/type", name)
    put(root, f"sys/class/thermal/cooling_device{number}/cur_state", state)


def test_a_machine_without_modes_is_in_the_default_one(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq", 800000)
    put(tmp_path, "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", 3600000)
    put(tmp_path, "sys/class/devfreq/0000:00:02.0/max_freq", 1)
    assert read_mode(tmp_path) == PowerMode(None, "default")
    assert read_mode(tmp_path).key == "default"
    assert read_mode(tmp_path / "nowhere").key == "default"


def test_the_mode_is_nvpmodels_with_the_clocks_in_force(tmp_path: Path) -> None:
    tree = ModeTree(tmp_path, mode=1)
    mode = read_mode(tmp_path)
    assert mode == PowerMode(1, "MODE_15W", "cpu725-1500+gpu300-600")
    assert mode.key == "1-MODE_15W@cpu725-1500+gpu300-600"
    tree.set(0)
    assert read_mode(tmp_path).key == "0-MAXN@cpu725-1975+gpu300-1025"


def test_a_clock_limit_of_ones_own_is_another_key(tmp_path: Path) -> None:
    tree = ModeTree(tmp_path)
    before = read_mode(tmp_path)
    tree.write("sys/class/devfreq/17000000.ga10b/max_freq", 510000000)
    assert read_mode(tmp_path).id == before.id
    assert read_mode(tmp_path).key != before.key


def test_jetson_clocks_shows(tmp_path: Path) -> None:
    tree = ModeTree(tmp_path)
    assert not read_mode(tmp_path).jetson_clocks
    tree.pin()
    assert read_mode(tmp_path).jetson_clocks
    assert read_mode(tmp_path).clocks == "cpu1500-1500+gpu600-600"


def test_a_mode_that_pins_clocks_itself_is_not_taken_for_jetson_clocks(tmp_path: Path) -> None:
    conf = "< POWER_MODEL ID=0 NAME=STEADY >\nGPU MIN_FREQ 714000000\nGPU MAX_FREQ 714000000\n"
    put(tmp_path, "etc/nvpmodel.conf", conf)
    put(tmp_path, "var/lib/nvpmodel/status", "pmode:0000")
    put(tmp_path, "sys/class/devfreq/gpu-gpc-0/min_freq", 714000000)
    put(tmp_path, "sys/class/devfreq/gpu-gpc-0/max_freq", 714000000)
    assert read_mode(tmp_path) == PowerMode(0, "STEADY", "gpu725-725", jetson_clocks=False)


def test_before_the_first_switch_the_mode_is_the_default_of_the_configuration(
    tmp_path: Path,
) -> None:
    tree = ModeTree(tmp_path, mode=2)
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    assert read_mode(tmp_path).name == "MODE_15W"
    tree.write("var/lib/nvpmodel/status", "rubbish")
    assert read_mode(tmp_path).name == "unknown"
    assert read_mode(tmp_path).id is None
    tree.write("var/lib/nvpmodel/status", "pmode:0009")
    assert read_mode(tmp_path).key.startswith("9-unknown@")


@pytest.mark.parametrize(
    "text",
    ["", "\0\0\n<", "< POWER_MODEL ID=x NAME=A >\nGPU MAX_FREQ 1", "< PM_CONFIG DEFAULT=2 >"],
)
def test_a_configuration_that_names_no_mode_is_none(tmp_path: Path, text: str) -> None:
    assert parse_conf(text).models == ()
    put(tmp_path, "etc/nvpmodel.conf", text)
    assert read_mode(tmp_path).key == "default"


def test_masks_are_compared_as_numbers() -> None:
    conf = parse_conf(
        "< POWER_MODEL ID=0 NAME=A >\nTPC_POWER_GATING TPC_PG_MASK 240\nGPU MAX_FREQ -1\n"
        "< POWER_MODEL NAME=B ID=1 > # in another order\nTPC_POWER_GATING TPC_PG_MASK 0xf0\n"
    )
    first, second = conf.models
    assert first.gating == second.gating == {("TPC_POWER_GATING", "TPC_PG_MASK"): 240}
    assert second.name == "B"


def test_what_slows_the_device_is_told_in_sentences(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "orin-nx")
    put(tmp_path, "sys/class/hwmon/hwmon7/name", "soctherm_oc")
    put(tmp_path, "sys/class/hwmon/hwmon7/oc1_event_cnt", 0)
    put(tmp_path, "sys/class/hwmon/hwmon7/oc3_event_cnt", 12)
    cool(tmp_path, 0, "pwm-fan", 3)
    cool(tmp_path, 1, "gpu-throttle-alert", 0)
    before = throttling(tmp_path)
    assert before == Throttling((), (("oc1", 0), ("oc3", 12)))
    assert before.since(before) == ()

    cool(tmp_path, 1, "gpu-throttle-alert", 1)
    cool(tmp_path, 2, "hot-surface-alert", 1)
    tree.put(tree.folder("VDD_IN") / "curr1_crit_alarm", "1\n")
    put(tmp_path, "sys/class/hwmon/hwmon7/oc3_event_cnt", 15)
    after = throttling(tmp_path)
    assert after.now == (
        "gpu-throttle-alert slows the device",
        "VDD_IN is over its critical current limit",
    )
    assert after.since(before) == (
        *after.now,
        "oc3 (over-current or low voltage) was counted 3 times",
    )


def test_an_alarm_of_a_sensor_listed_twice_is_told_once(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "orin-nx")
    folder = tree.folder("VDD_IN")
    tree.put(folder / "curr1_max_alarm", "1\n")
    listed = tmp_path / "sys/class/hwmon"
    listed.mkdir(parents=True)
    (listed / folder.name).symlink_to(folder)
    assert throttling(tmp_path).now == ("VDD_IN is over its average current limit",)


def test_the_steady_key_changes_with_mode_clocks_and_throttling(tmp_path: Path) -> None:
    tree = ModeTree(tmp_path)
    put(tmp_path, "sys/class/hwmon/hwmon7/oc3_event_cnt", 0)
    cool(tmp_path, 0, "cpufreq-cpu0", 0)
    keys = [steady_key(tmp_path)]
    assert steady_key(tmp_path) == keys[0]
    put(tmp_path, "sys/class/hwmon/hwmon7/oc3_event_cnt", 1)
    keys.append(steady_key(tmp_path))
    cool(tmp_path, 0, "cpufreq-cpu0", 2)
    keys.append(steady_key(tmp_path))
    tree.set(2)
    keys.append(steady_key(tmp_path))
    assert len(set(keys)) == 4
