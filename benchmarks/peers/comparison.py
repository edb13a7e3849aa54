"""The network alone, delen and other servers on the same images, a round at a time."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import bodies, find_test_images
from benchmarks.peers.load import Answer, Answers, Request, ask, drive
from benchmarks.peers.network import open_network
from benchmarks.peers.peer import MAX_BATCH, Installed
from benchmarks.peers.process import Cores, Running, on_core, running
from benchmarks.peers.table import ALONE, BOUNDED, EARLY, FIRST, FULL, Results
from benchmarks.state import wait_measured
from delen.bundle.manifest import load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.onnx import OnnxBackend

BUNDLE = SHIPPED_BUNDLES / "cifar10-resnet"
CROWDS = (8, 64)
BOUND = 0.1
"""Seconds."""
_IMAGES = 10_000
_WARM = 0.25
"""Of the seconds that a load lasts."""
_LEAST_AGREEMENT = 0.99
_LONGER = 2.5
"""Times as long as others: most images take little, and some take all."""
_ALL_SECONDS = 30.0
"""In which every image has its turn."""
_DEEPEST = "/v1/infer?max_latency_ms=60000"
"""A cap alone plans the last exit, without a threshold."""
_DAEMON = {
    "DELEN_SERVER__PORT": "{port}",
    "DELEN_SERVER__SOCKET": "",
    "DELEN_SERVER__GRPC_PORT": "-1",
    "DELEN_DEVICE__THREADS": "1",
    "DELEN_POWER__SOURCE": "model",
}
_Index = Callable[[bytes], int]
"""Reads the class in an answer."""


@dataclass(frozen=True)
class Images:
    """What is sent, what the whole network answers, and the labels where they are known."""

    inputs: Any
    predicted: Any
    labels: Any | None

    @classmethod
    def load(cls, network: Path) -> Images:
        """Test images, or noise where there are none."""
        found = find_test_images(_IMAGES)
        noise = np.random.default_rng(0).integers(0, 256, (_IMAGES, 32, 32, 3), np.uint8)
        inputs = noise if found is None else found.inputs
        logits = open_network(str(network))
        parts = np.array_split(inputs, max(1, len(inputs) // MAX_BATCH))
        predicted = np.concatenate([logits(part) for part in parts]).argmax(axis=1)
        return cls(inputs, predicted, None if found is None else found.labels)

    def wires(self, request: Callable[[bytes], Request]) -> list[bytes]:
        return [request(body).wire() for body in bodies(self.inputs)]

    def share_right(self, answers: Sequence[Answer], index_of: _Index, right: Any) -> float:
        """Percent of ``answers`` that say what ``right`` says of their image."""
        good = [index_of(answer.body) == right[answer.number % len(right)] for answer in answers]
        return 100 * float(np.mean(good)) if good else 0.0


class Comparison:
    """Loads last ``seconds`` each. ``state`` is the folder of delen's profiles."""

    def __init__(self, network: Path, state: Path, seconds: float) -> None:
        self.results = Results()
        self.images = Images.load(network)
        self._network = network
        self._state = state
        self._seconds = seconds
        self._cores = Cores.of_this_process()
        self._processor = {"all": 0.0, "first": 0.0}
        self._p50 = 0.0

    def measure_alone(self) -> None:
        """To be called first in each round: the others are compared with it."""
        logits, inputs = open_network(str(self._network)), self.images.inputs
        segments = OnnxBackend("cpu", 1).load(load_bundle(BUNDLE))
        with on_core(self._cores.server):
            taken, self._processor["all"] = self._time(lambda k: logits(inputs[k : k + 1]))
            eights, _ = self._time(lambda k: logits(inputs[k : k + 8]))
            full, _ = self._time(lambda k: logits(inputs[k : k + MAX_BATCH]))
            _, self._processor["first"] = self._time(lambda k: segments.run(0, [inputs[k]]))
        self._p50 = 1e3 * float(np.median(taken))
        values = {"p50": self._p50, "mean": 1e3 * float(np.mean(taken))}
        values |= {"at 8": 8 / float(np.mean(eights)), "at 64": MAX_BATCH / float(np.mean(full))}
        if self.images.labels is not None:
            values["right"] = 100 * float((self.images.predicted == self.images.labels).mean())
        self.results.add(ALONE, values)

    def _time(self, run: Callable[[int], object]) -> tuple[list[float], float]:
        """The seconds of each run on an image's number, and the processor seconds of one."""
        taken: list[float] = []
        begin, processor = time.perf_counter(), time.process_time()
        now = begin
        while now - begin < self._seconds / 2:
            before = now
            run(len(taken) % (len(self.images.inputs) - MAX_BATCH))
            now = time.perf_counter()
            taken.append(now - before)
        return taken, (time.process_time() - processor) / len(taken)

    def measure_peer(self, installed: Installed) -> None:
        peer = installed.peer
        wires = self.images.wires(peer.request)

        def index_of(body: bytes) -> int:
            return int(np.argmax(peer.logits(body)))

        variables = installed.variables(self._network)
        with self._started(installed.command, variables, wires[0], index_of, installed) as server:
            one = self._ask_alone(peer.name, server, wires, "all")
            self._check(one, index_of)
            self._ask_crowd(peer.name, server, wires, CROWDS[0])
            crowd = self._ask_crowd(peer.name, server, wires, CROWDS[1])
            self.results.add(peer.name, {"in bound": crowd.goodput(BOUND)})
            self._note_size(peer.name, server)

    def prepare(self) -> None:
        """To be called once: the daemon's first start profiles the device."""
        with self._daemon(self.images.wires(_raw(_DEEPEST))):
            pass

    def measure_delen(self) -> None:
        wires = self.images.wires(_raw(_DEEPEST))
        with self._daemon(wires) as server:
            one = self._ask_alone(FULL, server, wires, "all")
            self._check(one, _index_of)
            crowds = [self._ask_crowd(FULL, server, wires, crowd) for crowd in CROWDS]
            answers = [*one.good, *(answer for crowd in crowds for answer in crowd.good)]
            self._note_size(FULL, server)
            path = _path_to_first(server)
            self._ask_alone(FIRST, server, self.images.wires(_raw(path)), "first")
            if self.images.labels is not None:
                self._measure_early(server, self.images.labels)
            self._measure_bounded(server)
        deepest = [_is_deepest(answer.body) for answer in answers]
        self.results.add(FULL, {"deepest": 100 * float(np.mean(deepest))})

    @contextmanager
    def _daemon(self, wires: Sequence[bytes]) -> Iterator[Running]:
        command = [str(Path(sys.executable).with_name("delen-daemon"))]
        variables = {**_DAEMON, "DELEN_STATE__PATH": str(self._state)}
        with self._started(command, variables, wires[0], _index_of) as server:
            wait_measured("http://{}:{}".format(*server.address))
            yield server

    def _measure_early(self, server: Running, labels: Any) -> None:
        """Without bounds."""
        wires = self.images.wires(_raw("/v1/infer"))
        self._ask_alone(EARLY, server, wires, None, _LONGER)
        for connections in CROWDS:
            self._ask_crowd(EARLY, server, wires, connections)
        if not self.results.of(EARLY, "lost"):
            self._measure_loss(server, wires, labels)

    def _measure_loss(self, server: Running, wires: Sequence[bytes], labels: Any) -> None:
        """Once, over all images: of 2,000, chance alone makes 0.3 points."""
        answers = drive(server.address, wires, CROWDS[0], _ALL_SECONDS).good
        numbers = [answer.number % len(labels) for answer in answers]
        whole = 100 * float((self.images.predicted[numbers] == labels[numbers]).mean())
        right = self.images.share_right(answers, _index_of, labels)
        self.results.add(EARLY, {"right": right, "lost": whole - right})

    def _measure_bounded(self, server: Running) -> None:
        wires = self.images.wires(_raw(f"/v1/infer?max_latency_ms={1e3 * BOUND:g}"))
        crowd = drive(server.address, wires, CROWDS[-1], self._seconds)
        values = {"at 64": crowd.rate, "in bound": crowd.goodput(BOUND)}
        if self.images.labels is not None:
            answers = [answer for answer in crowd.good if answer.seconds <= BOUND]
            values["right"] = self.images.share_right(answers, _index_of, self.images.labels)
        self.results.add(BOUNDED, values)

    @contextmanager
    def _started(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        wire: bytes,
        index_of: _Index,
        installed: Installed | None = None,
    ) -> Iterator[Running]:
        def answers(address: tuple[str, int]) -> bool:
            answer = ask(address, wire)
            return answer.status == 200 and index_of(answer.body) == self.images.predicted[0]

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if installed is not None:
                installed.write_files(folder)
            with running(command, variables, folder, self._cores.server, answers) as server:
                for connections in (1, CROWDS[-1]):
                    drive(server.address, [wire], connections, _WARM * self._seconds)
                yield server

    def _ask_alone(
        self,
        name: str,
        server: Running,
        wires: Sequence[bytes],
        part: str | None,
        times: float = 1.0,
    ) -> Answers:
        """Over one connection; ``part`` of the network is taken off the processor time."""
        before = server.processor_seconds()
        answers = drive(server.address, wires, 1, times * self._seconds)
        spent = (server.processor_seconds() - before) / len(answers.answers)
        values = {"p50": 1e3 * answers.p50, "mean": 1e3 * answers.mean}
        if part is not None:
            values["processor"] = 1e3 * (spent - self._processor[part])
        if part == "all":
            values["added"] = values["p50"] - self._p50
        self.results.add(name, values)
        return answers

    def _ask_crowd(
        self, name: str, server: Running, wires: Sequence[bytes], connections: int
    ) -> Answers:
        answers = drive(server.address, wires, connections, self._seconds)
        self.results.add(name, {f"at {connections}": answers.rate})
        return answers

    def _check(self, answers: Answers, index_of: _Index) -> None:
        """RuntimeError unless the answers are those of the whole network."""
        agreeing = self.images.share_right(answers.good, index_of, self.images.predicted)
        if agreeing < 100 * _LEAST_AGREEMENT:
            raise RuntimeError(f"{agreeing:.1f} % of its answers are the network's")

    def _note_size(self, name: str, server: Running) -> None:
        self.results.add(name, {"memory": server.resident_mb(), "ready": server.seconds_to_ready})


def _raw(path: str) -> Callable[[bytes], Request]:
    return lambda body: Request(path, body, ("Content-Type: application/octet-stream",))


def _index_of(body: bytes) -> int:
    index: int = json.loads(body)["predictions"][0]["index"]
    return index


def _is_deepest(body: bytes) -> bool:
    answer = json.loads(body)
    return bool(answer["exit"] == answer["exits"] - 1)


def _path_to_first(server: Running) -> str:
    """The address that answers at exit 0: a cap on energy that exit 1 exceeds."""
    answer = json.loads(ask(server.address, Request("/v1/plan", b"").wire()).body)
    first, second = (point["energy_mj"] for point in answer["pareto"][:2])
    return f"{_DEEPEST}&max_energy_mj={(first + second) / 2:g}"
