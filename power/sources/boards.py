"""The rails of every Jetson family, and which of them make up the device's total."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from delen.errors import SensorFailed


@dataclass(frozen=True, slots=True)
class Board:
    """A family's rails, and those whose sum is its total: none where it has no sensor.

    ``most_watts`` is more than its total ever is: about twice the dearest power mode.
    """

    family: str
    rails: tuple[str, ...]
    total: tuple[str, ...]
    most_watts: float


def _one_in_all(family: str, most_watts: float, *rails: str) -> Board:
    """A board whose first rail feeds the others."""
    return Board(family, rails, rails[:1], most_watts)


_AGX_XAVIER = ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
_AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")

BOARDS = {
    board.family: board
    for board in (
        _one_in_all("TX1", 40, "VDD_IN", "VDD_GPU", "VDD_CPU"),
        _one_in_all("Nano", 30, "POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"),
        Board("Nano 2GB", (), (), 30),
        _one_in_all(
            "TX2",
            50,
            "VDD_IN",
            "VDD_SYS_GPU",
            "VDD_SYS_SOC",
            "VDD_4V0_WIFI",
            "VDD_SYS_CPU",
            "VDD_SYS_DDR",
        ),
        _one_in_all("TX2 NX", 50, "VDD_IN", "VDD_CPU_GPU", "VDD_SOC"),
        _one_in_all("Xavier NX", 50, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        Board("AGX Xavier", _AGX_XAVIER, _AGX_XAVIER, 120),
        _one_in_all("Orin Nano", 60, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        _one_in_all("Orin NX", 90, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
        # VDDQ_VDD2_1V8AO hangs off VIN_SYS_5V0: adding it would count it twice.
        Board("AGX Orin", (*_AGX_ORIN, "VDDQ_VDD2_1V8AO"), _AGX_ORIN, 160),
        _one_in_all("Thor", 400, "VIN", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    )
}

_MODULES = {
    "p2180": "TX1",
    "p2180-1000": "TX1",
    "p2371-2180": "TX1",
    "p3448-0000": "Nano",
    "p3448-0002": "Nano",
    "p3448-0003": "Nano 2GB",
    "p3450-0000": "Nano",
    "p2771-0000": "TX2",
    "p3310-1000": "TX2",
    "p3489-0000": "TX2",
    "p3489-0888": "TX2",
    "p3636-0001": "TX2 NX",
    "p3668-0000": "Xavier NX",
    "p3668-0001": "Xavier NX",
    "p3668-0003": "Xavier NX",
    "p2888-0001": "AGX Xavier",
    "p2888-0003": "AGX Xavier",
    "p2888-0004": "AGX Xavier",
    "p2888-0005": "AGX Xavier",
    "p2888-0006": "AGX Xavier",
    "p2888-0008": "AGX Xavier",
    "p2972-0000": "AGX Xavier",
    "p2972-0006": "AGX Xavier",
    "p3767-0000": "Orin NX",
    "p3767-0001": "Orin NX",
    "p3767-0003": "Orin Nano",
    "p3767-0004": "Orin Nano",
    "p3767-0005": "Orin Nano",
    "p3701-0000": "AGX Orin",
    "p3701-0002": "AGX Orin",  # IGX Orin
    "p3701-0004": "AGX Orin",
    "p3701-0005": "AGX Orin",
    "p3701-0008": "AGX Orin",
    "p3834-0008": "Thor",
}
"""The part numbers of modules, and of kits that have one module, in ``compatible``."""

_MODELS = {
    "NVIDIA Jetson TX1": "TX1",
    "NVIDIA Jetson Nano 2GB": "Nano 2GB",
    "NVIDIA Jetson Nano": "Nano",
    "NVIDIA Jetson TX2 NX": "TX2 NX",
    "NVIDIA Jetson TX2": "TX2",
    "quill": "TX2",
    "NVIDIA Jetson Xavier NX": "Xavier NX",
    "NVIDIA Jetson AGX Xavier": "AGX Xavier",
    "Jetson-AGX": "AGX Xavier",
    "NVIDIA Jetson Orin Nano": "Orin Nano",
    "NVIDIA Orin Nano": "Orin Nano",
    "NVIDIA Jetson Orin NX": "Orin NX",
    "NVIDIA Orin NX": "Orin NX",
    "NVIDIA Jetson AGX Orin": "AGX Orin",
    "Jetson AGX Orin": "AGX Orin",
    "NVIDIA IGX Orin": "AGX Orin",
    "NVIDIA Jetson AGX Thor": "Thor",
}
"""How the device tree's ``model`` begins; the first that fits counts."""


def identify_board(root: Path) -> Board | None:
    """The board under ``root`` by its device tree: its module's part number, else its model.

    None where there is no device tree, or it names no board of the table.
    """
    device_tree = root / "proc" / "device-tree"
    for name in _strings(device_tree / "compatible"):
        for part in name.removeprefix("nvidia,").split("+"):
            family = _MODULES.get("-".join(part.split("-")[:2]))
            if family is not None:
                return BOARDS[family]
    for model in _strings(device_tree / "model"):
        for beginning, family in _MODELS.items():
            if model.startswith(beginning):
                return BOARDS[family]
    return None


def total_rails(board: Board | None, configured: Sequence[str]) -> tuple[str, ...]:
    """The rails that make up the total: the configured ones, else the board's; none if unknown."""
    if configured:
        return tuple(configured)
    return () if board is None else board.total


def total_of(
    rails: Mapping[str, float], board: Board | None, configured: Sequence[str] = ()
) -> float | None:
    """Watts of the device from the watts of its rails; None where nothing says which count.

    Raises SensorFailed where a rail of the total is missing: the others' sum is not the total.
    """
    counted = total_rails(board, configured)
    check_total(rails, counted)
    return sum(rails[rail] for rail in counted) if counted else None


def check_total(rails: Mapping[str, float], counted: Collection[str]) -> None:
    """SensorFailed where ``rails`` lack some of those that are ``counted``."""
    missing = [rail for rail in counted if rail not in rails]
    if missing:
        raise SensorFailed(
            f"the total is {' + '.join(counted)}, but {', '.join(missing)} gives no reading"
        )


def _strings(path: Path) -> list[str]:
    """The NUL-terminated strings of a device tree property, none where it cannot be read."""
    with suppress(OSError):
        return [text for text in path.read_bytes().decode("ascii", "replace").split("\0") if text]
    return []
