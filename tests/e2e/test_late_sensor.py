"""A board whose joules are known: another process draws what batches are said to take, and writes
its sensor files late."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.builders.daemon import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
DELAYS_MS = (25,)
WATTS = {"cifar10-resnet": 5.0, "second": 1.5}
BATCH = 16
SECONDS, MOST_SECONDS = 10.0, 30.0
PLANT = """
import sys, threading, time
from collections import deque
from pathlib import Path
from tests.sensors import make_tree
root, delay = Path(sys.argv[1]), float(sys.argv[2]) / 1e3
IDLE, WINDOW = 4.5, 0.0066
tree = make_tree(root, "orin-nx", {"VDD_IN": IDLE})
steps = deque([(time.monotonic(), 0.0)], maxlen=64)

def draw():
    for line in sys.stdin:
        steps.append((time.monotonic(), float(line)))

def joules(moment):
    past = list(steps)
    ends = [began for began, _ in past[1:]] + [float("inf")]
    return sum(w * max(min(e, moment) - b, 0.0) for (b, w), e in zip(past, ends))

threading.Thread(target=draw, daemon=True).start()
print("ready", flush=True)
number = 0
while True:
    number += 1
    seen = time.monotonic() - delay
    watts = IDLE + (joules(seen) - joules(seen - WINDOW)) / WINDOW
    tree.write({"VDD_IN": watts + 0.02 * (number % 3)})
    time.sleep(0.005)
"""


class Batch(NamedTuple):
    """What a batch of ``model`` drew in truth, and the ids of its answers."""

    model: str
    joules: float
    ids: list[str]


class Board:
    """A plant whose sensor is ``delay_ms`` late, and a daemon on it."""

    def __init__(self, launcher: Any, bundles: Path, root: Path, delay_ms: int, state: Path):
        self.plant = subprocess.Popen(
            [sys.executable, "-c", PLANT, str(root), str(delay_ms)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.plant.stdout is not None
        assert self.plant.stdout.readline() == "ready\n"
        self.daemon = launcher.start(
            {
                "models": {"path": str(bundles), "load": list(WATTS)},
                "power": {"root": str(root)},
                "state": {"path": str(state)},
                "server": {"max_backlog_seconds": 1000.0},
            }
        )

    def draw(self, watts: float) -> None:
        assert self.plant.stdin is not None
        self.plant.stdin.write(f"{watts}\n")

    def play(self, body: bytes, rng: np.random.Generator) -> list[Batch]:
        """Batches of both models in random order for a while."""
        played, until = [], time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(rng.uniform(0.05, 0.2))
            model = str(rng.choice(list(WATTS)))
            began = time.monotonic()
            self.draw(WATTS[model])
            answer = self.daemon.api.post(
                f"/v1/models/{model}/infer",
                body=body,
                content_type="application/x-npy",
                query={"max_latency_ms": 60_000},
            )
            self.draw(0.0)
            joules = WATTS[model] * (time.monotonic() - began)
            ids = [result["request_id"] for result in answer.json()["results"]]
            played.append(Batch(model, joules, ids))
        return played

    def attributed(self, batch: Batch) -> float | None:
        """Its joules, where all of them are attributed."""
        joules = 0.0
        for request_id in batch.ids:
            energy = wait_until(lambda name=request_id: self._final(name), "a settled receipt")
            if energy["kind"] != "attributed":
                return None
            joules += energy["value"] / 1e3
        return joules

    def _final(self, request_id: str) -> dict[str, Any] | None:
        found = self.daemon.api.get(f"/v1/requests/{request_id}").json()
        return dict(found["receipt"]["energy_mj"]) if found["settled"] else None

    def stop(self) -> None:
        self.plant.kill()
        self.plant.wait()


def errors(board: Board, body: bytes) -> dict[str, float]:
    """By model, how far off the joules of its attributed batches are in total. Batches go on until
    some of both are, or for long enough."""
    sums, rng = {model: np.zeros(2) for model in WATTS}, np.random.default_rng(0)
    began = time.monotonic()
    while not all(map(np.any, sums.values())) and time.monotonic() - began < MOST_SECONDS:
        for batch in board.play(body, rng):
            if (joules := board.attributed(batch)) is not None:
                sums[batch.model] += (joules, batch.joules)
    return {model: float(got / drawn - 1) for model, (got, drawn) in sums.items() if drawn}


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_joules_called_attributed_are_those_drawn_though_readings_are_late(
    launcher: Any,
    bundles: Path,
    npy: Callable[..., bytes],
    own_state: Callable[[], Path],
    tmp_path: Path,
    delay_ms: int,
) -> None:
    body = npy(np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), np.uint8))
    board = Board(launcher, bundles, tmp_path / "root", delay_ms, own_state())
    try:
        found = errors(board, body)
    finally:
        launcher.stop(board.daemon)
        board.stop()
    assert [each for each in found.items() if abs(each[1]) > 0.15] == []
    if not found:
        pytest.skip("this machine was too busy for joules to be explained: nothing was attributed")
