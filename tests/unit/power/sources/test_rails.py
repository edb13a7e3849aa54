"""The readers of rails over the files of every family, whole and damaged."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delen.errors import PowerError, SensorAbsent, SensorDenied, SensorFailed
from power.sources.hwmon import INA238, INA3221
from power.sources.iio import INA3221X
from power.sources.rails import Driver, RailSource
from power.sources.sysfs import read_file
from tests.other_user import as_other_user, open_folder
from tests.sensors import LAYOUTS, SensorTree, make_tree, play

DRIVERS: dict[str, Driver] = {
    family: INA238
    if family == "thor"
    else {"ina3221": INA3221, "ina3221x": INA3221X}[layout.chips[0].driver]
    for family, layout in LAYOUTS.items()
    if family not in ("nano-2gb", "unknown")
}
ONE_OF_EACH = ("nano", "orin-nx", "thor")

MakeTree = Callable[..., SensorTree]


@pytest.fixture
def make(tmp_path: Path) -> MakeTree:
    def make(family: str, **watts: float) -> SensorTree:
        return make_tree(tmp_path / "root", family, watts)

    return make


@pytest.mark.parametrize(("family", "driver"), DRIVERS.items())
def test_every_family_shows_its_rails_and_their_total(
    family: str, driver: Driver, make: MakeTree
) -> None:
    tree = make(family)
    before = time.monotonic()
    reading = RailSource(driver, tree.root).read()
    assert reading.rails == pytest.approx(tree.watts)
    assert reading.total == pytest.approx(tree.total)
    assert before <= reading.time <= time.monotonic()
    assert reading.joules is None


@pytest.mark.parametrize(("family", "driver"), DRIVERS.items())
def test_a_played_trace_is_followed(family: str, driver: Driver, make: MakeTree) -> None:
    tree = make(family)
    source = RailSource(driver, tree.root)
    low, high = (sum(tree.spread(total)[rail] for rail in tree.total_rails) for total in (6, 12))
    seen = set()
    deadline = time.monotonic() + 20
    with play(tree, lambda elapsed: tree.spread(12 if int(elapsed * 100) % 2 else 6), 0.001):
        while len(seen) < 2 and time.monotonic() < deadline:
            total = source.read().total
            assert total is not None
            assert low - 0.1 < total < high + 0.1
            seen |= {nearest for nearest in (6, 12) if total == pytest.approx(nearest, abs=0.05)}
    assert seen == {6, 12}


def test_agx_orin_counts_the_memory_once(make: MakeTree) -> None:
    tree = make("agx-orin", VDD_GPU_SOC=10.0, VDD_CPU_CV=3.0, VIN_SYS_5V0=5.0, VDDQ_VDD2_1V8AO=2.0)
    assert RailSource(INA3221, tree.root).read().total == pytest.approx(18.0)


def test_what_is_no_rail_is_left_out(make: MakeTree) -> None:
    """Shunt voltages, their sum with its label, the summed current, and unconnected channels."""
    tree = make("agx-orin")
    assert set(RailSource(INA3221, tree.root).read().rails) == set(tree.rails)
    folder = tree.folder("VDD_CPU_CV")
    assert (folder / "in7_label").read_text() == "sum of shunt voltages\n"
    assert (folder / "curr4_input").exists()


def test_negative_currents_are_legal(make: MakeTree) -> None:
    tree = make("agx-xavier", GPU=-0.2, CPU=-0.4, SOC=0.9, CV=-0.02, VDDRQ=0.0, SYS5V=0.0)
    reading = RailSource(INA3221, tree.root).read()
    assert reading.rails["GPU"] == pytest.approx(-0.2)
    assert reading.total == pytest.approx(0.28)


def test_a_disabled_channel_is_left_out(make: MakeTree) -> None:
    tree = make("orin-nx")
    tree.spoil(tree.folder("VDD_SOC") / "in3_enable", "0\n")
    assert set(RailSource(INA3221, tree.root).read().rails) == {"VDD_IN", "VDD_CPU_GPU_CV"}


def test_the_limits_of_the_old_driver_do_not_disturb_it(make: MakeTree) -> None:
    tree = make("nano")
    limit = tree.folder("POM_5V_IN") / "crit_current_limit_0"
    assert limit.read_text() == "32760 ma\n"
    assert RailSource(INA3221X, tree.root).read().total == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("family", "driver", "scope"),
    [
        ("orin-nx", INA3221, "module_input"),
        ("nano", INA3221X, "module_input"),
        ("thor", INA238, "carrier_input"),
    ],
)
def test_a_source_says_what_it_is(family: str, driver: Driver, scope: str, make: MakeTree) -> None:
    source = RailSource(driver, make(family).root)
    assert (source.name, source.kind, source.scope) == (
        driver.name,
        "measured",
        scope,
    )


def test_the_interval_is_the_conversion_time_of_the_slowest_chip(make: MakeTree) -> None:
    tree = make("agx-orin")
    tree.spoil(tree.folder("VDDQ_VDD2_1V8AO") / "update_interval", "141\n")
    assert RailSource(INA3221, tree.root).interval == 0.141


@pytest.mark.parametrize("text", ["", "soon"])
def test_an_unreadable_interval_is_that_of_the_chip_after_reset(text: str, make: MakeTree) -> None:
    tree = make("orin-nx")
    tree.spoil(tree.folder("VDD_IN") / "update_interval", text)
    assert RailSource(INA3221, tree.root).interval == 0.0066


def test_the_old_driver_averages_over_much_longer(make: MakeTree) -> None:
    assert RailSource(INA3221X, make("nano").root).interval == pytest.approx(0.42, abs=0.01)


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_rail_of_the_total_that_errs_fails_the_reading_until_it_is_well(
    family: str, make: MakeTree
) -> None:
    tree = make(family)
    source = RailSource(DRIVERS[family], tree.root)
    quantity = "current" if family == "orin-nx" else "power"
    broken = tree.path(tree.total_rails[0], quantity)
    tree.fail(broken)
    for _ in range(2):
        with pytest.raises(SensorFailed, match=f"{broken.name} failed: Input/output error"):
            source.read()
    tree.heal()
    assert source.read().total == pytest.approx(tree.total)


def test_another_rail_that_errs_is_left_out_until_it_is_well(make: MakeTree) -> None:
    tree = make("orin-nx")
    source = RailSource(INA3221, tree.root)
    tree.fail(tree.path("VDD_SOC", "current"))
    for _ in range(2):
        reading = source.read()
        assert set(reading.rails) == {"VDD_IN", "VDD_CPU_GPU_CV"}
        assert reading.total == pytest.approx(tree.total)
    tree.heal()
    assert set(source.read().rails) == set(tree.rails)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ENODEV])
def test_a_chip_that_does_not_answer(number: int, make: MakeTree) -> None:
    """No file can be made to time out, so the error is injected at the function that reads."""
    tree = make("orin-nx")
    answers = True

    def read(path: Path) -> str:
        if path.name == "curr1_input" and not answers:
            raise OSError(number, os.strerror(number), path)
        return read_file(path)

    source = RailSource(INA3221, tree.root, read_file=read)
    answers = False
    with pytest.raises(SensorFailed, match=f"curr1_input failed: {os.strerror(number)}"):
        source.read()
    answers = True
    assert source.read().total == pytest.approx(tree.total)


@pytest.mark.parametrize("text", ["", "n/a", "12 34"])
def test_content_that_is_no_number(text: str, make: MakeTree) -> None:
    tree = make("orin-nx")
    source = RailSource(INA3221, tree.root)
    tree.spoil(tree.path("VDD_IN", "voltage"), text)
    with pytest.raises(SensorFailed, match="in1_input"):
        source.read()


def test_a_file_that_may_not_be_read() -> None:
    with open_folder() as folder:
        tree = make_tree(folder, "orin-nx")
        with as_other_user():
            source = RailSource(INA3221, tree.root)
            assert source.read().total == pytest.approx(tree.total)
        tree.path("VDD_IN", "current").chmod(0)
        with as_other_user(), pytest.raises(SensorDenied, match="curr1_input"):
            source.read()


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_sensor_that_vanishes_is_absent_and_works_again_under_another_number(
    family: str, make: MakeTree
) -> None:
    tree = make(family)
    source = RailSource(DRIVERS[family], tree.root)
    tree.vanish()
    with pytest.raises(SensorAbsent, match=f"no {source.name} with a named rail"):
        source.read()
    tree.come_back(shift=3)
    tree.write(dict.fromkeys(tree.rails, 4.0))
    assert source.read().total == pytest.approx(4.0)


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_sensor_that_was_bound_anew_between_readings_is_found_at_once(
    family: str, make: MakeTree
) -> None:
    tree = make(family)
    source = RailSource(DRIVERS[family], tree.root)
    source.read()
    tree.vanish()
    tree.come_back(shift=1)
    assert source.read().rails == pytest.approx(tree.watts)


def test_half_of_the_rails_is_not_the_total(make: MakeTree) -> None:
    tree = make("agx-xavier")
    source = RailSource(INA3221, tree.root)
    folder = tree.folder("CV")
    folder.rename(tree.root / "unbound")
    with pytest.raises(SensorFailed, match="CV, VDDRQ, SYS5V gives no reading"):
        source.read()
    with pytest.raises(PowerError, match="total of AGX Xavier needs CV, VDDRQ, SYS5V") as raised:
        RailSource(INA3221, tree.root)
    assert type(raised.value) is PowerError
    (tree.root / "unbound").rename(folder)
    assert source.read().total == pytest.approx(tree.total)


def test_a_rail_that_is_gone_and_not_counted_is_not_missed(make: MakeTree) -> None:
    tree = make("tx2")
    source = RailSource(INA3221X, tree.root)
    tree.folder("VDD_SYS_GPU").rename(tree.root / "unbound")
    reading = source.read()
    assert set(reading.rails) == {"VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"}
    assert reading.total == pytest.approx(tree.total)


def test_an_unknown_board_lists_its_rails_and_asks_for_the_total(make: MakeTree) -> None:
    tree = make("unknown")
    with pytest.raises(PowerError, match="MAIN_IN, AUX") as raised:
        RailSource(INA3221, tree.root)
    assert type(raised.value) is PowerError
    assert "power.total_rails" in str(raised.value.remedy)


def test_the_configuration_names_the_total_of_an_unknown_board(make: MakeTree) -> None:
    tree = make("unknown", MAIN_IN=9.0, AUX=2.0)
    assert RailSource(INA3221, tree.root, ["MAIN_IN"]).read().total == pytest.approx(9.0)
    assert RailSource(INA3221, tree.root, ["MAIN_IN", "AUX"]).read().total == pytest.approx(11.0)
    with pytest.raises(PowerError, match=r"MAIN, .*MAIN_IN, AUX") as raised:
        RailSource(INA3221, tree.root, ["MAIN"])
    assert type(raised.value) is PowerError
    assert "power.total_rails" in str(raised.value.remedy)


def other_chip(tree: SensorTree, place: str, *labels: str) -> Path:
    """Another ina3221 beside the module's: 5 V and 3 A on each channel."""
    folder = tree.root / "sys/bus/i2c/devices" / place / "hwmon/hwmon9"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221\n")
    for number, label in enumerate(labels, 1):
        (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text("5000\n")
        (folder / f"curr{number}_input").write_text("3000\n")
    return folder


@pytest.mark.parametrize("place", ["0-0040", "10-0040", "1-0041"])
def test_a_total_on_two_chips_is_refused_with_both_and_may_be_chosen(
    place: str, make: MakeTree
) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    other_chip(tree, place, "VDD_IN", "A", "B")
    with pytest.raises(PowerError, match="2 chips have a rail VDD_IN") as raised:
        RailSource(INA3221, tree.root)
    assert type(raised.value) is PowerError
    assert f"VDD_IN@{place}" in str(raised.value)
    assert "VDD_IN@1-0040" in str(raised.value)
    assert "power.total_rails" in str(raised.value.remedy)
    chosen = RailSource(INA3221, tree.root, ["VDD_IN@1-0040"]).read()
    assert chosen.total == pytest.approx(5.0)
    assert chosen.rails[f"VDD_IN@{place}"] == pytest.approx(15.0)


def test_a_rail_may_be_named_with_its_place(make: MakeTree) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    assert RailSource(INA3221, tree.root, ["VDD_IN@1-0040"]).read().total == pytest.approx(5.0)


def test_two_chips_with_one_label_beside_the_total_stay_apart(make: MakeTree) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    other_chip(tree, "2-0040", "VDD_SOC")
    reading = RailSource(INA3221, tree.root).read()
    assert reading.total == pytest.approx(5.0)
    assert {rail for rail in reading.rails if rail.startswith("VDD_SOC")} == {
        "VDD_SOC@1-0040",
        "VDD_SOC@2-0040",
    }


def test_a_broken_chip_drops_only_itself(make: MakeTree) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    folder = other_chip(tree, "2-0040", "CAMERA")
    (folder / "in1_label").unlink()
    (folder / "in1_label").symlink_to("/proc/self/mem")
    reading = RailSource(INA3221, tree.root).read()
    assert reading.total == pytest.approx(5.0)
    assert len(reading.rails) == 3


def test_a_broken_chip_of_the_total_is_named(make: MakeTree) -> None:
    tree = make("orin-nx")
    label = tree.folder("VDD_IN") / "in1_label"
    other_chip(tree, "2-0040", "CAMERA")
    label.unlink()
    label.symlink_to("/proc/self/mem")
    with pytest.raises(SensorFailed, match="in1_label"):
        RailSource(INA3221, tree.root)


def test_an_ina238_with_a_label_of_its_own_is_no_input(make: MakeTree) -> None:
    tree = make("thor", VIN=20.0)
    folder = tree.root / "sys/bus/i2c/devices/1-0040/hwmon/hwmon9"
    folder.mkdir(parents=True)
    for file, text in (("name", "ina238"), ("label", "CAMERA"), ("power1_input", "3000000")):
        (folder / file).write_text(f"{text}\n")
    reading = RailSource(INA238, tree.root).read()
    assert reading.total == pytest.approx(20.0)
    assert reading.rails["CAMERA"] == pytest.approx(3.0)
    (folder / "label").unlink()
    with pytest.raises(PowerError, match="2 chips have a rail VIN"):
        RailSource(INA238, tree.root)


@pytest.mark.parametrize(
    ("unit", "good"), [("mw", True), ("mW", True), ("uW", False), ("W", False)]
)
def test_the_unit_of_a_number_is_looked_at(unit: str, good: bool, make: MakeTree) -> None:
    tree = make("nano", POM_5V_IN=5.0)
    file = tree.folder("POM_5V_IN") / "in_power0_input"
    file.write_text(f"5000 {unit}\n")
    source = RailSource(INA3221X, tree.root)
    if good:
        assert source.read().total == pytest.approx(5.0)
    else:
        with pytest.raises(SensorFailed, match="its unit is mW"):
            source.read()


@pytest.mark.parametrize("end", ["\0", "\n\0", "\r\n"])
def test_labels_and_names_are_stripped(end: str, make: MakeTree) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    folder = tree.folder("VDD_IN")
    (folder / "name").write_text(f"ina3221{end}")
    (folder / "in1_label").write_text(f"VDD_IN{end}")
    assert RailSource(INA3221, tree.root).read().total == pytest.approx(5.0)


def test_watts_that_the_board_cannot_draw_are_refused(make: MakeTree) -> None:
    tree = make("orin-nx", VDD_IN=5.0)
    source = RailSource(INA3221, tree.root)
    tree.write({"VDD_IN": 500.0})
    with pytest.raises(SensorFailed, match="500 W, and Orin NX cannot draw more than 90 W"):
        source.read()
    tree.write({"VDD_IN": 40.0})
    assert source.read().total == pytest.approx(40.0)


def test_rails_read_in_turn_make_the_total_of_one_moment(make: MakeTree) -> None:
    """The load rises by 1 W on each of six rails while they are read, 10 ms each."""
    tree = make("agx-xavier")
    began = time.monotonic()

    def rising(path: Path) -> str:
        if not path.name.startswith("curr"):
            return read_file(path)
        time.sleep(0.01)
        millivolts = int(read_file(path.with_name(path.name.replace("curr", "in"))))
        return f"{round(1e6 * (time.monotonic() - began) / millivolts)}\n"

    source = RailSource(INA3221, tree.root, read_file=rising)
    for _ in range(5):
        reading = source.read()
        time.sleep(0.02)
    assert reading.total == pytest.approx(6 * (reading.time - began), abs=0.05)


def test_the_module_rails_of_thor_are_not_its_total(make: MakeTree) -> None:
    tree = make("thor")
    with pytest.raises(SensorAbsent, match=r"Thor needs VIN, .*VDD_GPU") as raised:
        RailSource(INA3221, tree.root)
    assert "another power.source" in str(raised.value.remedy)


def test_the_smallest_nano_has_no_sensor(make: MakeTree) -> None:
    tree = make("nano-2gb")
    for driver in (INA3221, INA3221X, INA238):
        with pytest.raises(SensorAbsent, match="Nano 2GB has no power sensor"):
            RailSource(driver, tree.root)


@pytest.mark.parametrize("driver", [INA3221, INA3221X, INA238])
def test_a_machine_without_sensors(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(SensorAbsent, match=f"no {driver.name} with a named rail"):
        RailSource(driver, tmp_path)


def test_a_reader_takes_only_its_own_driver(make: MakeTree) -> None:
    hwmon, iio = make("orin-nx").root, "nano"
    for driver in (INA3221X, INA238):
        with pytest.raises(SensorAbsent):
            RailSource(driver, hwmon)
    other = make_tree(hwmon / "other", iio).root
    with pytest.raises(SensorAbsent):
        RailSource(INA3221, other)


@pytest.mark.parametrize("watts", [0.0, -6.0])
def test_a_board_that_draws_nothing_is_not_believed(make: MakeTree, watts: float) -> None:
    tree = make("orin-nx", VDD_IN=watts)
    with pytest.raises(SensorFailed, match="no device draws that"):
        RailSource(INA3221, tree.root).read()
