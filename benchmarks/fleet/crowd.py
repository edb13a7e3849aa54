"""Clients of a hub that ask for answers all the time, and what each of them got."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import delen
from benchmarks.common import find_test_images
from benchmarks.fleet.members import MODEL, Address

_REFUSED = (delen.Overloaded, delen.InfeasibleBound)
"""What says that nothing was accepted."""
_IMAGES = 64


@dataclass
class ClientLog:
    """What one client got of ``calls`` in ``seconds``. ``lost`` are when and why nobody answered
    one, ``refused`` counts the refused ones by code, ``taken`` the answers by origin and node.
    ``answered`` are the times of the answers. Times are in seconds since the crowd began."""

    seconds: float = 0.0
    calls: int = 0
    answered: list[float] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[tuple[float, str]] = field(default_factory=list)

    @property
    def longest_gap(self) -> float:
        """The longest time without an answer, in seconds."""
        times = np.array([0.0, *self.answered, self.seconds])
        return float(np.diff(times).max())

    @property
    def duplicates(self) -> int:
        """Answers to a request that had one already."""
        return len(self.request_ids) - len(set(self.request_ids))


class Crowd:
    """``enters`` has a function for each client, which its thread calls first: it may lead to a
    place of its own on the network."""

    def __init__(
        self,
        hub: Address,
        enters: Sequence[Callable[[], None]],
        *,
        fps: float,
        deadline: float,
    ) -> None:
        self._hub = f"hub://{hub.host}:{hub.port}"
        self._images = _images()
        self._fps = fps
        self._deadline = deadline
        self._ends = threading.Event()
        self._begun = threading.Barrier(len(enters) + 1, self._note_begin)
        self._began = 0.0
        self.logs = [ClientLog() for _ in enters]
        self._threads = [
            threading.Thread(target=self._run, args=(number, enter), daemon=True)
            for number, enter in enumerate(enters)
        ]

    def begin(self) -> None:
        """Returns when each client had its first answer."""
        for thread in self._threads:
            thread.start()
        self._begun.wait(60.0)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _note_begin(self) -> None:
        self._began = time.monotonic()

    def _run(self, number: int, enter: Callable[[], None]) -> None:
        enter()
        log, period = self.logs[number], 1 / self._fps
        with delen.Client(self._hub, model=MODEL, timeout=10.0) as client:
            client.infer(self._images[number])
            self._begun.wait(60.0)
            due = self._began
            while not self._ends.wait(max(0.0, due - time.monotonic())):
                due = max(due + period, time.monotonic())
                self._ask(client, log, self._images[log.calls % len(self._images)])
            log.seconds = time.monotonic() - self._began

    def _ask(self, client: delen.Client, log: ClientLog, image: NDArray[np.uint8]) -> None:
        log.calls += 1
        began = time.monotonic()
        try:
            result = client.infer(image, max_latency=self._deadline, on_infeasible="best_effort")
        except _REFUSED as error:
            log.refused[error.code] += 1
        except delen.DelenError as error:
            log.lost.append((began - self._began, f"{type(error).__name__}: {error}"))
        else:
            now = time.monotonic()
            log.answered.append(now - self._began)
            log.latencies.append(now - began)
            log.request_ids.append(result.request_id)
            route = client.route
            assert route is not None
            log.taken[f"{route.origin} {route.node}"] += 1


def _images() -> NDArray[np.uint8]:
    """Test images, or noise where there are none: what they show does not matter here."""
    if (found := find_test_images(_IMAGES)) is not None:
        return found.inputs
    return np.random.default_rng(0).integers(0, 256, (_IMAGES, 32, 32, 3), dtype=np.uint8)
