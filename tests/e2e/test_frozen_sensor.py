"""A sensor whose value stays while the load does not: another process writes its files."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BURST, PAUSE = 64, 0.2
WRITER = """
import sys, time
from pathlib import Path
from tests.sensors import make_tree
root, still = map(Path, sys.argv[1:])
tree = make_tree(root, "orin-nx", {"VDD_IN": 6.0})
print("ready", flush=True)
for number in range(10**6):
    if not still.exists():
        tree.write({"VDD_IN": 6.0 + 0.02 * (number % 3)})
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Device:
    """A daemon, and the file while which exists its sensor is frozen."""

    daemon: Any
    still: Path
    encode: Callable[..., bytes]

    def power(self) -> dict[str, Any]:
        document: dict[str, Any] = self.daemon.api.get("/v1/power").json()
        return document

    def limit(self, name: str) -> str:
        return next(
            str(each["explanation"]) for each in self.power()["constraints"] if each["name"] == name
        )

    @contextmanager
    def work(self) -> Iterator[list[str]]:
        """Batches with pauses between them meanwhile, and the answers' ids."""
        body = self.encode(np.zeros((BURST, 32, 32, 3), np.uint8))
        done, ids = threading.Event(), list[str]()

        def ask() -> None:
            while not done.wait(PAUSE):
                answer = self.daemon.api.post(
                    "/v1/infer",
                    body=body,
                    content_type="application/x-npy",
                    query={"max_latency_ms": 60_000},
                )
                ids.extend(result["request_id"] for result in answer.json()["results"])

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield ids
        finally:
            done.set()
            thread.join()


@pytest.fixture
def device(
    launcher: Any, npy: Callable[..., bytes], own_state: Callable[[], Path], tmp_path: Path
) -> Iterator[Device]:
    root, still = tmp_path / "root", tmp_path / "still"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(still)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    daemon = launcher.start(
        {
            "server": {"max_backlog_seconds": 1000.0},
            "power": {"root": str(root)},
            "energy": {"watt_cap_w": 50.0, "battery_wh": 9.0, "battery_minutes": 60.0},
            "state": {"path": str(own_state())},
        }
    )
    yield Device(daemon, still, npy)
    launcher.stop(daemon)
    writer.terminate()
    writer.wait()


def test_a_sensor_that_stays_while_the_load_moves_is_degraded_until_it_moves(
    device: Device,
    until: Callable[..., Any],
    metric: Callable[..., float],
    environment: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "DELEN_URL": device.daemon.url,
            "DELEN_POWER__ROOT": str(tmp_path / "root"),
            "DELEN_STATE__PATH": str(tmp_path / "none"),
        }
        program = str(Path(sys.executable).parent / "delen")
        return subprocess.run(
            [program, *words], env=environment(**variables), capture_output=True, text=True
        )

    until(lambda: device.power()["state"] == "ok", "readings")
    device.still.touch()
    with device.work() as ids:
        power = until(
            lambda: (found := device.power())["state"] == "degraded" and found, "a frozen sensor"
        )
        assert (power["watts"], power["rails"]) == (None, {})
        assert "stays at 6" in power["problem"]
        assert metric(device.daemon.api, "delen_power_source_state", state="degraded") == 1
        assert "delen_power_watts{" not in device.daemon.api.get("/metrics").body.decode()
        until(
            lambda: "the sensor does not answer now" in device.limit("watt_cap")
            and "by predicted energy" in device.limit("battery"),
            "limits that go by predicted energy",
        )
        shown = command("power").stdout
        assert "degraded" in shown
        assert power["problem"] in shown
        told = command("doctor")
        assert told.returncode == 1
        assert f"DEGRADED: ina3221: {power['problem']}" in told.stdout
        seen = len(ids)
        until(lambda: len(ids) > seen, "answers of a blind daemon")
        receipt = f"/v1/requests/{ids[-1]}"
        settled = until(
            lambda: (found := device.daemon.api.get(receipt).json())["settled"] and found, "settled"
        )
        assert settled["receipt"]["energy_mj"]["kind"] == "estimated"
        window = device.power()["window"]
        assert (window["watts"], window["kind"]) == (None, "estimated")
        device.still.unlink()
        power = until(
            lambda: (found := device.power())["state"] == "ok" and found, "a sensor that moves"
        )
        assert power["watts"] == pytest.approx(6.0, abs=0.1)
    assert device.daemon.log().count("is degraded, so energy is estimated") == 1
    assert "ina3221 reads again after: its total stays" in device.daemon.log()
    assert command("doctor").returncode == 0
