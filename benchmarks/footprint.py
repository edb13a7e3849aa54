"""How soon, how large: the daemon's start and memory, and what the two installs weigh."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Connection, Figure, daemon, report
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.daemon.in_process import Engine

STARTS = 9
PROJECT = Path(__file__).resolve().parents[1]


def resident_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1e3


def start(state: Path, body: bytes, index: int) -> tuple[float, float, bool]:
    """Seconds from exec to the first correct answer, MB resident then, and whether torch is in."""
    began = time.perf_counter()
    with daemon(state) as server:
        connection = Connection(server.host, server.port)
        answer = connection.post("/v1/infer?max_latency_ms=60000", body)
        seconds = time.perf_counter() - began
        if answer["predictions"][0]["index"] != index:
            raise RuntimeError("the daemon's first answer is not the engine's")
        for _ in range(200):
            connection.post("/v1/infer?max_latency_ms=60000", body)
        connection.close()
        has_torch = "torch" in Path(f"/proc/{server.process.pid}/maps").read_text()
        return seconds, resident_mb(server.process.pid), has_torch


def folder_mb(folder: Path) -> float:
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def install_mb(requirement: str) -> float:
    """What installing ``requirement`` adds to an empty virtual environment, byte code included."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        empty = folder_mb(Path(folder))
        pip = [f"{folder}/bin/pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, requirement], check=True, cwd=PROJECT, stderr=subprocess.DEVNULL)
        return folder_mb(Path(folder)) - empty


def import_ms() -> float:
    code = "import time; t = time.perf_counter(); import delen; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return 1e3 * float(run.stdout)


def main() -> list[Figure]:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as state, Engine(state=state) as engine:
        index = engine.infer(image, max_latency=60.0).index
    first, seconds, resident = [], [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as state:
            first.append(start(Path(state), image.tobytes(), index)[0])
    with tempfile.TemporaryDirectory() as state:
        start(Path(state), image.tobytes(), index)
        for _ in range(STARTS):
            took, memory, has_torch = start(Path(state), image.tobytes(), index)
            if has_torch:
                raise RuntimeError("the daemon has loaded torch")
            seconds.append(took)
            resident.append(memory)
    profiling = tuple(value - float(np.median(seconds)) for value in first)
    bundle_mb = folder_mb(SHIPPED_BUNDLES / "cifar10-resnet")
    return report(
        "Start, memory and size",
        [
            Figure("import delen", tuple(import_ms() for _ in range(STARTS)), "ms", 150),
            Figure("exec to first correct answer", tuple(seconds), "s", 1.5),
            Figure("added by a first start's quick profile", profiling, "s", 5.0),
            Figure("resident after 201 answers", tuple(resident), "MB", 150),
            Figure("shipped bundle", (bundle_mb,), "MB"),
            Figure("SDK install", (install_mb("."),), "MB", 90),
            Figure("daemon install", (install_mb(".[daemon]"),), "MB", 200),
        ],
    )


if __name__ == "__main__":
    main()
