"""Power sensors of Jetsons as folders of files, laid out as their kernels do, and their writer.

The layouts are those of the kernel's ``ina3221`` and ``ina238`` drivers (JetPack 5 and later) and
of NVIDIA's ``ina3221x`` (JetPack 4), with the files that readers must not take for rails.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

NOT_CONNECTED = "NC"
_MILLIVOLTS = (5000, 4000, 2000)
"""Of the three channels of a chip, unlike each other so that mixed-up channels show."""
_VIN_MILLIVOLTS = 20000


@dataclass(frozen=True, slots=True)
class Chip:
    """A sensor at ``place`` (I2C bus and address) with a label per channel, None for none."""

    place: str
    labels: tuple[str | None, ...]
    driver: str = "ina3221"

    @property
    def rails(self) -> tuple[str, ...]:
        return tuple(label for label in self.labels if label not in (None, NOT_CONNECTED))


@dataclass(frozen=True, slots=True)
class Layout:
    """A family: what its device tree says, its chips, and the rails whose sum is its total."""

    model: str
    compatible: tuple[str, ...]
    chips: tuple[Chip, ...]
    total: tuple[str, ...]


LAYOUTS = {
    "tx1": Layout(
        "NVIDIA Jetson TX1 Developer Kit",
        ("nvidia,p2371-2180", "nvidia,tegra210"),
        (Chip("1-0040", ("VDD_IN", "VDD_GPU", "VDD_CPU"), "ina3221x"),),
        ("VDD_IN",),
    ),
    "nano": Layout(
        "NVIDIA Jetson Nano Developer Kit",
        ("nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"),
        (Chip("6-0040", ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"), "ina3221x"),),
        ("POM_5V_IN",),
    ),
    "nano-2gb": Layout(
        "NVIDIA Jetson Nano 2GB Developer Kit",
        (
            "nvidia,p3542-0000+p3448-0003",
            "nvidia,jetson-nano-2gb",
            "nvidia,jetson-nano",
            "nvidia,tegra210",
        ),
        (),
        (),
    ),
    "tx2": Layout(
        "quill",
        ("nvidia,p2597-0000+p3310-1000", "nvidia,quill", "nvidia,tegra186"),
        (
            Chip("0-0040", ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"), "ina3221x"),
            Chip("0-0041", ("VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"), "ina3221x"),
        ),
        ("VDD_IN",),
    ),
    "tx2-nx": Layout(
        "NVIDIA Jetson TX2 NX",
        ("nvidia,p3509-0000+p3636-0001", "nvidia,p3636-0001", "nvidia,tegra186"),
        (Chip("7-0040", ("VDD_IN", "VDD_CPU_GPU", "VDD_SOC"), "ina3221x"),),
        ("VDD_IN",),
    ),
    "xavier-nx": Layout(
        "NVIDIA Jetson Xavier NX Developer Kit",
        ("nvidia,p3509-0000+p3668-0000", "nvidia,p3668-0000", "nvidia,tegra194"),
        (Chip("7-0040", ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")),),
        ("VDD_IN",),
    ),
    "agx-xavier": Layout(
        "Jetson-AGX",
        ("nvidia,p2972-0000", "nvidia,jetson-xavier", "nvidia,tegra194"),
        (
            Chip("1-0040", ("GPU", "CPU", "SOC")),
            Chip("1-0041", ("CV", "VDDRQ", "SYS5V")),
        ),
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ),
    "orin-nano": Layout(
        "NVIDIA Jetson Orin Nano Developer Kit",
        ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"),
        (Chip("1-0040", ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")),),
        ("VDD_IN",),
    ),
    "orin-nx": Layout(
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        ("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"),
        (Chip("1-0040", ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")),),
        ("VDD_IN",),
    ),
    "agx-orin": Layout(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        (
            Chip("1-0040", ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
            Chip("1-0041", (NOT_CONNECTED, "VDDQ_VDD2_1V8AO", NOT_CONNECTED)),
        ),
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ),
    "thor": Layout(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        (
            Chip("2-0040", ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")),
            Chip("2-0044", ("VIN",), "ina238"),
        ),
        ("VIN",),
    ),
    "unknown": Layout(
        "Acme Carrier",
        ("acme,carrier", "nvidia,tegra234"),
        (Chip("1-0040", ("MAIN_IN", "AUX", None)),),
        ("MAIN_IN",),
    ),
}


class SensorTree:
    """The files of one family's sensors under ``root``; every rail reads what was last written.

    Files are replaced in one step, so that a reader never sees half of a number. Watts are exact
    in steps of 20 mW.
    """

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root = root
        self.total_rails = layout.total
        self.rails = tuple(rail for chip in layout.chips for rail in chip.rails)
        self.watts: dict[str, float] = {}
        self._chips = layout.chips
        self._staging = root / ".staging"
        self._numbers = count()
        self._lock = threading.RLock()
        self._broken: set[Path] = set()
        self._folders: dict[str, Path] = {}
        self._hidden = False
        self._staging.mkdir(parents=True)
        device_tree = root / "proc" / "device-tree"
        device_tree.mkdir(parents=True)
        (device_tree / "model").write_bytes(layout.model.encode() + b"\0")
        compatible = b"".join(name.encode() + b"\0" for name in layout.compatible)
        (device_tree / "compatible").write_bytes(compatible)
        for chip in layout.chips:
            self._make_chip(chip)

    @property
    def total(self) -> float:
        """What a right reader says the device's total is, in watts."""
        return sum(self.watts[rail] for rail in self.total_rails)

    def spread(self, total: float) -> dict[str, float]:
        """Watts of every rail that make up ``total``: the rails of the total bear it alike."""
        share = total / max(len(self.total_rails), 1)
        return {rail: share if rail in self.total_rails else total / 5 for rail in self.rails}

    def write(self, watts: Mapping[str, float]) -> None:
        """Let the rails of ``watts`` show it. Broken files stay broken, a hidden tree hidden."""
        with self._lock:
            self.watts |= watts
            if not self._hidden:
                for rail, value in watts.items():
                    self._write_rail(rail, value)

    def path(self, rail: str, quantity: str) -> Path:
        """The file of a rail's ``voltage``, ``current`` or (not hwmon's ina3221) ``power``."""
        chip, channel = self._channel(rail)
        folder = self._folders[chip.place]
        if chip.driver == "ina3221x":
            return folder / f"in_{quantity}{channel}_input"
        if chip.driver == "ina238":
            return folder / {
                "voltage": "in1_input",
                "current": "curr1_input",
                "power": "power1_input",
            }.get(quantity, quantity)
        return folder / f"{'in' if quantity == 'voltage' else 'curr'}{channel + 1}_input"

    def folder(self, rail: str) -> Path:
        """The folder (``hwmonN`` or ``iio:deviceN``) that has the files of ``rail``."""
        return self._folders[self._channel(rail)[0].place]

    def put(self, path: Path, text: str) -> None:
        """Let ``path`` have ``text``, in one step."""
        staged = self._staging / str(next(self._numbers))
        staged.write_text(text)
        staged.replace(path)

    def spoil(self, path: Path, text: str) -> None:
        """Let ``path`` keep ``text``, whatever is written, until it is healed."""
        with self._lock:
            self._broken.add(path)
            path.unlink(missing_ok=True)
            self.put(path, text)

    def fail(self, path: Path) -> None:
        """Let every read of ``path`` fail with a genuine EIO, until it is healed."""
        with self._lock:
            self._broken.add(path)
            path.unlink(missing_ok=True)
            path.symlink_to("/proc/self/mem")

    def remove(self, path: Path) -> None:
        """Let ``path`` be gone until it is healed."""
        with self._lock:
            self._broken.add(path)
            path.unlink(missing_ok=True)

    def heal(self) -> None:
        """Let every file show the last watts again."""
        with self._lock:
            self._broken.clear()
            for chip in self._chips:
                self._write_constants(chip)
            self.write(self.watts)

    def vanish(self) -> None:
        """Take every chip away, as an unbound driver does."""
        with self._lock:
            self._hidden = True
            for chip in self._chips:
                shutil.rmtree(self._folders[chip.place])

    def come_back(self, shift: int = 0) -> None:
        """Put every chip back, its hwmon or iio number greater by ``shift``."""
        with self._lock:
            for chip in self._chips:
                folder = self._folders[chip.place]
                stem = folder.name.rstrip("0123456789")
                number = int(folder.name.removeprefix(stem)) + shift
                self._folders[chip.place] = folder.with_name(f"{stem}{number}")
                self._write_constants(chip)
            self._hidden = False
            self.write(self.watts)

    def _channel(self, rail: str) -> tuple[Chip, int]:
        for chip in self._chips:
            if rail in chip.labels:
                return chip, chip.labels.index(rail)
        raise KeyError(f"{rail} is none of {', '.join(self.rails)}")

    def _make_chip(self, chip: Chip) -> None:
        device = self.root / "sys/bus/i2c/devices" / chip.place
        device.mkdir(parents=True)
        (device / "name").write_text(f"{chip.driver}\n")
        driver = self.root / "sys/bus/i2c/drivers" / chip.driver
        driver.mkdir(parents=True, exist_ok=True)
        (driver / chip.place).symlink_to(f"../../devices/{chip.place}")
        number = len(self._folders)
        inner = f"iio:device{number}" if chip.driver == "ina3221x" else f"hwmon/hwmon{number + 2}"
        self._folders[chip.place] = device / inner
        self._write_constants(chip)

    def _write_constants(self, chip: Chip) -> None:
        """Everything but the watts: names, voltages, limits, and the files that are no rails."""
        folder = self._folders[chip.place]
        folder.mkdir(parents=True, exist_ok=True)
        constants = {
            "ina3221": _hwmon_constants,
            "ina3221x": _iio_constants,
            "ina238": _ina238_constants,
        }[chip.driver](chip)
        for name, text in constants.items():
            if folder / name not in self._broken:
                self.put(folder / name, f"{text}\n")

    def _write_rail(self, rail: str, watts: float) -> None:
        chip, channel = self._channel(rail)
        millivolts = _VIN_MILLIVOLTS if chip.driver == "ina238" else _MILLIVOLTS[channel]
        milliamperes = round(watts * 1e6 / millivolts)
        figures = {"current": milliamperes}
        if chip.driver == "ina3221x":
            figures["power"] = round(millivolts * milliamperes / 1000)
        elif chip.driver == "ina238":
            figures["power"] = millivolts * milliamperes
        for quantity, figure in figures.items():
            path = self.path(rail, quantity)
            if path not in self._broken:
                self.put(path, f"{figure}\n")


def _hwmon_constants(chip: Chip) -> dict[str, object]:
    files: dict[str, object] = {"name": "ina3221", "samples": 1, "update_interval": 7}
    for channel, label in enumerate(chip.labels, 1):
        if label is not None:
            files[f"in{channel}_label"] = label
        files |= {
            f"in{channel}_enable": 1,
            f"in{channel}_input": _MILLIVOLTS[channel - 1],
            f"curr{channel}_max": 32760,
            f"curr{channel}_crit": 32760,
            f"curr{channel}_max_alarm": 0,
            f"curr{channel}_crit_alarm": 0,
            f"in{channel + 3}_input": 9000,
        }
        if label in (None, NOT_CONNECTED):
            files[f"curr{channel}_input"] = 0
    files |= {"in7_label": "sum of shunt voltages", "in7_input": 27000, "curr4_input": 88000}
    return files


def _iio_constants(chip: Chip) -> dict[str, object]:
    files: dict[str, object] = {"name": "ina3221x"}
    for channel, label in enumerate(chip.labels):
        files |= {
            f"rail_name_{channel}": label or NOT_CONNECTED,
            f"in_voltage{channel}_input": _MILLIVOLTS[channel],
            f"warn_current_limit_{channel}": "32760 ma",
            f"crit_current_limit_{channel}": "32760 ma",
        }
    return files


def _ina238_constants(chip: Chip) -> dict[str, object]:
    return {
        "name": "ina238",
        "label": chip.labels[0],
        "in0_input": 12,
        "in1_input": _VIN_MILLIVOLTS,
        "temp1_input": 41000,
    }


def make_tree(root: Path, family: str, watts: Mapping[str, float] | None = None) -> SensorTree:
    """The sensors of ``family`` (a key of LAYOUTS) under ``root``, an absent or empty folder.

    The rails show ``watts``; those not named show 1 W, 2 W and so on in their order.
    """
    tree = SensorTree(root, LAYOUTS[family])
    tree.write({rail: float(nth) for nth, rail in enumerate(tree.rails, 1)} | dict(watts or {}))
    return tree


@contextmanager
def play(
    tree: SensorTree, trace: Callable[[float], Mapping[str, float]], interval: float = 0.005
) -> Iterator[None]:
    """Write ``trace`` (the rails' watts, by seconds since the start) from a thread meanwhile.

    The first value is there on entry, the last one written stays.
    """
    stop = threading.Event()
    failures: list[Exception] = []
    began = time.monotonic()
    tree.write(trace(0.0))

    def write() -> None:
        try:
            while not stop.wait(interval):
                with suppress(PermissionError):  # a test has another user's rights for a moment
                    tree.write(trace(time.monotonic() - began))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=write, name="sensor-writer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
