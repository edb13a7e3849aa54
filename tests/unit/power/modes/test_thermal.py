from __future__ import annotations

from pathlib import Path

from power.modes.thermal import Headroom, Trip, Zone, headroom, read_zones, slowed_by


class Thermal:
    """The thermal folder of a device."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "sys/class/thermal"

    def zone(self, number: int, name: str, temperature: object, *trips: tuple[str, int]) -> Path:
        """A zone in thousandths of a degree, with the types and temperatures of its trips."""
        folder = self.folder / f"thermal_zone{number}"
        put(folder / "type", name)
        put(folder / "temp", temperature)
        for nth, (kind, celsius) in enumerate(trips):
            put(folder / f"trip_point_{nth}_type", kind)
            put(folder / f"trip_point_{nth}_temp", celsius)
        return folder

    def bind(self, zone: Path, number: int, name: str, trip: int) -> None:
        """A cooling device that a trip of the zone sets off."""
        put(zone / f"cdev{number}" / "type", name)
        put(zone / f"cdev{number}_trip_point", trip)


def put(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_zones_have_degrees_and_trips_in_their_order(tmp_path: Path) -> None:
    thermal = Thermal(tmp_path)
    thermal.zone(10, "tj-thermal", 52750, ("active", 51000))
    thermal.zone(2, "cpu-thermal", 51500, ("passive", 99000), ("critical", 104500))
    assert read_zones(tmp_path) == (
        Zone("cpu-thermal", 51.5, (Trip("passive", 99.0), Trip("critical", 104.5))),
        Zone("tj-thermal", 52.75, (Trip("active", 51.0),)),
    )
    assert read_zones(tmp_path / "nowhere") == ()


def test_zones_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    thermal = Thermal(tmp_path)
    thermal.zone(0, "cpu-thermal", 40000, ("critical", 104500), ("hot", -274000))
    off = thermal.zone(1, "cv0-thermal", 0)
    (off / "temp").unlink()
    (off / "temp").symlink_to("/proc/self/mem")  # a read fails with EIO; an engine's, EAGAIN
    thermal.zone(2, "gpu-thermal", -256000, ("critical", 104500))
    thermal.zone(3, "soc0-thermal", "N/A", ("critical", 104500))
    zone = thermal.zone(4, "soc1-thermal", 41000, ("critical", 104500), ("passive", 99000))
    put(zone / "trip_point_1_temp", "none")
    assert read_zones(tmp_path) == (
        Zone("cpu-thermal", 40.0, (Trip("critical", 104.5),)),
        Zone("soc1-thermal", 41.0, (Trip("critical", 104.5),)),
    )


def test_headroom_is_the_least_distance_to_what_limits() -> None:
    cpu = Zone("cpu", 60.0, (Trip("active", 51.0), Trip("critical", 104.5), Trip("passive", 99.0)))
    gpu = Zone("gpu", 70.0, (Trip("hot", 103.0),))
    assert headroom([cpu, gpu]) == Headroom("gpu", 33.0, Trip("hot", 103.0))
    hot = Zone("cpu", 101.0, cpu.trips)
    assert headroom([gpu, hot]) == Headroom("cpu", -2.0, Trip("passive", 99.0))


def test_without_limiting_trips_there_is_no_headroom() -> None:
    fan = Zone("tj", 60.0, (Trip("active", 51.0),))
    power_chip = Zone("PMIC-Die", 100.0, (Trip("critical", 120.0),))
    assert headroom([]) is None
    assert headroom([fan, power_chip]) is None


def test_a_passive_trip_that_only_warns_of_a_hot_case_does_not_limit(tmp_path: Path) -> None:
    thermal = Thermal(tmp_path)
    zone = thermal.zone(0, "tj-thermal", 72000, ("passive", 70000), ("passive", 99000))
    thermal.bind(zone, 0, "hot-surface-alert", 0)
    thermal.bind(zone, 1, "cpu-throttle-alert", 1)
    thermal.bind(zone, 2, "pwm-fan", 1)
    assert headroom(read_zones(tmp_path)) == Headroom("tj-thermal", 27.0, Trip("passive", 99.0))


def test_only_cooling_devices_that_slow_are_told(tmp_path: Path) -> None:
    states = {
        "pwm-fan": 4,
        "hot-surface-alert": 1,
        "TCC Offset": 3,
        "intel_powerclamp": -1,
        "gpu-throttle-alert": 1,
        "thermal-cpufreq-0": 2,
        "devfreq-17000000.gpu": 0,
        "CPU-balanced": 1,
    }
    for number, (name, state) in enumerate(states.items()):
        folder = tmp_path / f"sys/class/thermal/cooling_device{number}"
        put(folder / "type", name)
        put(folder / "cur_state", state)
    assert slowed_by(tmp_path) == ("gpu-throttle-alert", "thermal-cpufreq-0", "CPU-balanced")
