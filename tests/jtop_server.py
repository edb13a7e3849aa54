"""jetson-stats' real server over a sensor tree instead of a Jetson, as a process of its own.

As a program (``python tests/jtop_server.py ROOT``) it is that process: it reads the sensors under
ROOT and listens at ROOT/run/jtop.sock, as root's service does on a Jetson.
"""

from __future__ import annotations

import grp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PIPE = "run/jtop.sock"
DEADLINE = 20.0


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    """Ask again and again until ``holds`` gives something true, which is returned."""
    end = time.monotonic() + DEADLINE
    while not (found := holds()):
        assert time.monotonic() < end, f"after {DEADLINE:g} s there is still not: {what}"
        time.sleep(0.02)
    return found


class Server:
    """A process with the real server, over the tree at ``root``; its log is root/jtop.log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.start()

    def start(self) -> None:
        with (self.root / "jtop.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self.root],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: (self.root / PIPE).is_socket(), "the socket of the jtop server")

    def kill(self) -> None:
        """Nothing of it is left but its socket, as after a crash."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait()

    def restart(self) -> None:
        self.kill()
        (self.root / PIPE).unlink(missing_ok=True)
        self.start()

    def signal_part(self, part: int, number: int) -> None:
        """Signal the manager (0), which has the data, or the reader (1), which fills them in."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[part]), number)


def main(root: Path) -> None:
    import jtop.core.config as config
    import jtop.core.gpu as gpu
    import jtop.core.power as power
    import jtop.service as service

    find = power.find_all_i2c_power_monitor
    (root / "run").mkdir(exist_ok=True)
    os.getuid = lambda: 0  # it asks for root, of which it needs nothing here
    os.chown = lambda *arguments: None
    service.JTOP_PIPE = str(root / PIPE)
    service.getgrnam = lambda name: grp.getgrgid(os.getgid())
    service.get_hardware = dict
    config.get_config_service = lambda folder=None: str(root / "jtop")
    gpu.DEFAULT_IGPU_PATH = f"{root}/sys/class/devfreq/"
    power.find_all_i2c_power_monitor = lambda path: find(str(root / "sys/bus/i2c/devices"))
    power.find_all_system_monitor = lambda path: {}
    service.JtopServer(force=True).loop_for_ever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
