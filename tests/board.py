"""What a Jetson's kernel shows of load, clocks, fans and temperatures, as a folder of files."""

from __future__ import annotations

from pathlib import Path

CORES = 8
_POLICIES = {0: "0 1 2 3", 4: "4 5 6 7"}


class Board:
    """The files of an Orin NX (JetPack 6) under ``root``, readable by all as for root: idle, cool,
    its fan off."""

    gpu = "sys/class/devfreq/17000000.gpu"
    emc_clock = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
    emc_activity = "sys/kernel/debug/cactmon/mc_all"
    fan = "sys/class/hwmon/hwmon1/pwm1"
    tach = "sys/class/hwmon/hwmon2/rpm"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ticks = {core: [0, 0] for core in range(CORES)}
        self.put(f"{self.gpu}/device/load", 0)
        self.put(f"{self.gpu}/cur_freq", 306_000_000)
        self.put(self.emc_clock, 2_133_000_000)
        self.put(self.emc_activity, 0)
        self.put("sys/class/hwmon/hwmon1/name", "pwmfan")
        self.put(self.fan, 0)
        self.put("sys/class/hwmon/hwmon2/name", "pwm_tach")
        self.put(self.tach, 0)
        for number, cores in _POLICIES.items():
            policy = f"sys/devices/system/cpu/cpufreq/policy{number}"
            self.put(f"{policy}/related_cpus", cores)
            self.put(f"{policy}/scaling_cur_freq", 729_600)
        for number, name in enumerate(("cpu", "gpu", "soc0", "tj")):
            self.zone(number, f"{name}-thermal", 45.0)
        self.run({})

    def put(self, path: str, text: object) -> None:
        """Let ``path`` have ``text``, in one step."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(f".{file.name}.staged")
        staged.write_text(f"{text}\n")
        staged.replace(file)

    def fail(self, path: str) -> None:
        """Let every read of ``path`` fail with a genuine EIO."""
        (self.root / path).unlink()
        (self.root / path).symlink_to("/proc/self/mem")

    def zone(self, number: int, name: str, celsius: float, passive: float = 99.0) -> None:
        """A thermal zone that slows the device at ``passive`` degrees."""
        folder = f"sys/class/thermal/thermal_zone{number}"
        self.put(f"{folder}/type", name)
        self.put(f"{folder}/temp", round(1e3 * celsius))
        self.put(f"{folder}/trip_point_0_type", "passive")
        self.put(f"{folder}/trip_point_0_temp", round(1e3 * passive))

    def clock(self, policy: int, kilohertz: int) -> None:
        path = f"sys/devices/system/cpu/cpufreq/policy{policy}/scaling_cur_freq"
        self.put(path, kilohertz)

    def run(self, loads: dict[int, float], online: int = CORES) -> None:
        """Let a second pass in which cores have been busy for so much of it, and others idle."""
        for core, ticks in self._ticks.items():
            busy = round(100 * loads.get(core, 0.0))
            ticks[0] += busy
            ticks[1] += 100 - busy
        rows = {f"cpu{core}": self._ticks[core] for core in range(online)}
        total = [sum(ticks[n] for ticks in rows.values()) for n in (0, 1)]
        lines = [
            f"{name} {b} 0 0 {i} 0 0 0 0 0 0" for name, (b, i) in {"cpu ": total, **rows}.items()
        ]
        self.put("proc/stat", "\n".join([*lines, "intr 1 2 3", "ctxt 5"]))
