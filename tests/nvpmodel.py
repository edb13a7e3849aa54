"""Power modes of a Jetson as a folder of files, and an ``nvpmodel`` that really switches them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

CORES = 4
MODES: Mapping[int, tuple[str, int, int, int, int]] = {
    # id: name, cores, CPU kHz, GPU Hz (-1 for no limit), mask of the GPU's parts without power
    0: ("MAXN", 4, -1, -1, 240),
    1: ("MODE_15W", 4, 1497600, 612000000, 240),
    2: ("MODE_7W", 2, 960000, 408000000, 240),
    3: ("MODE_10W_1TPC", 4, 1497600, 612000000, 254),
}
CPU_LIMIT, GPU_LIMIT = 1984000, 1020000000
CPU_LEAST, GPU_LEAST = 729600, 306000000

Behaviour = Literal["works", "is slow", "sets nothing", "asks to reboot", "fails", "hangs"]

_GPU = "sys/class/devfreq/17000000.ga10b"
_HEAD = f"""\
# The modes of a made-up board.
< PARAM TYPE=FILE NAME=CPU_ONLINE >
{"".join(f"CORE_{n} /sys/devices/system/cpu/cpu{n}/online{chr(10)}" for n in range(CORES))}
< PARAM TYPE=FILE NAME=TPC_POWER_GATING >
TPC_PG_MASK /sys/devices/gpu.0/tpc_pg_mask

< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
FREQ_TABLE /sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies
MAX_FREQ /sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq
MIN_FREQ /sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq

< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/17000000.gv11b/devfreq/17000000.gv11b/max_freq
MAX_FREQ_KNEXT /{_GPU}/max_freq

< PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_emc_cap/emc_iso_cap

"""


class ModeTree:
    """nvpmodel's files under ``root``, in ``mode``: its configuration and status, the clock
    limits and cores that it sets, and the program that switches it (a shell script)."""

    def __init__(self, root: Path, mode: int = 1) -> None:
        self.root = root
        blocks = [_block(number, *mode) for number, mode in MODES.items()]
        conf = _HEAD + "".join(blocks) + "< PM_CONFIG DEFAULT=1 >\n"
        self.write("etc/nvpmodel/nvpmodel_p3767_0000.conf", conf)
        # a link as on the device, where it is from /
        (root / "etc/nvpmodel.conf").symlink_to("/etc/nvpmodel/nvpmodel_p3767_0000.conf")
        self.set(mode)
        self.install("works")

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def set(self, mode: int) -> None:
        """Be in ``mode``, as if somebody had switched."""
        for path, value in _files(mode).items():
            self.write(path, value)

    def pin(self) -> None:
        """Hold every clock at its limit, as jetson_clocks does."""
        _, _, cpu, gpu, _ = MODES[self.mode]
        self.write(
            "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq", _limit(cpu, CPU_LIMIT)
        )
        self.write(f"{_GPU}/min_freq", _limit(gpu, GPU_LIMIT))

    @property
    def mode(self) -> int:
        return int((self.root / "var/lib/nvpmodel/status").read_text().split()[0][6:])

    def install(self, behaviour: Behaviour) -> None:
        """Let nvpmodel behave so from now on."""
        program = self.root / "usr/sbin/nvpmodel"
        cases = "".join(
            f"{mode}) {'; '.join(_commands(mode, only_status=behaviour == 'sets nothing'))} ;;\n"
            for mode in MODES
        )
        switch = f'case "$2" in\n{cases}esac'
        slowly = f"( sleep 0.1\n{switch} ) </dev/null >/dev/null 2>&1 &"
        asking = (
            "echo 'NVPM WARN: Reboot required for changing to this power mode'; read a || exit 1"
        )
        bodies: dict[Behaviour, str] = {
            "works": switch,
            "sets nothing": switch,
            "is slow": slowly,
            "asks to reboot": asking,
            "fails": "echo 'NVPM ERROR: Error opening a file: 13' >&2; exit 255",
            "hangs": "exec sleep 60",
        }
        self.write(
            "usr/sbin/nvpmodel", f'#!/bin/sh\ncd "$(dirname "$0")/../.."\n{bodies[behaviour]}'
        )
        program.chmod(0o755)


def _files(mode: int) -> dict[str, object]:
    _, cores, cpu, gpu, _ = MODES[mode]
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    online = {f"sys/devices/system/cpu/cpu{n}/online": int(n < cores) for n in range(CORES)}
    return {
        **online,
        f"{policy}/scaling_min_freq": CPU_LEAST,
        f"{policy}/scaling_max_freq": _limit(cpu, CPU_LIMIT),
        f"{_GPU}/min_freq": GPU_LEAST,
        f"{_GPU}/max_freq": _limit(gpu, GPU_LIMIT),
        "var/lib/nvpmodel/status": f"pmode:{mode:04d} fmode:fan_mode_quiet",
    }


def _commands(mode: int, only_status: bool) -> list[str]:
    return [
        f"echo '{value}' > {path}"
        for path, value in _files(mode).items()
        if not only_status or path.endswith("status")
    ]


def _block(number: int, name: str, cores: int, cpu: int, gpu: int, mask: int) -> str:
    online = "".join(f"CPU_ONLINE CORE_{n} {int(n < cores)}\n" for n in range(CORES))
    return (
        f"< POWER_MODEL ID={number} NAME={name} >\n{online}TPC_POWER_GATING TPC_PG_MASK {mask}\n"
        f"CPU_A78_0 MIN_FREQ {CPU_LEAST}\nCPU_A78_0 MAX_FREQ {cpu}\n"
        f"GPU MIN_FREQ 0\nGPU MAX_FREQ {gpu}\nEMC MAX_FREQ 0\n\n"
    )


def _limit(asked: int, highest: int) -> int:
    return highest if asked < 0 else min(asked, highest)
