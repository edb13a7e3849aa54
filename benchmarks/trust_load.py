"""Clients that load a daemon whatever becomes of it, and judge every answer that they get."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import find_test_images
from delen.bundle.manifest import load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.onnx import OnnxBackend

CLIENTS = 4
PATIENCE = 30.0
"""Seconds after which a request that has neither an answer nor a broken connection is lost."""
_TRIED = 64
_CLEAR = 0.05
"""Least difference of the two greatest logits, that no order of additions turns round."""
_QUERIES = ("", "max_latency_ms=1000", "min_accuracy=0.8", "max_latency_ms=5000&min_accuracy=0.9")
_REFUSALS = ("overloaded", "model_loading", "draining", "infeasible_bound", "no_room")
_PAUSE = 0.005
"""Seconds that a client waits after a refusal."""


class Judge:
    """Images, and the class that each exit at each size gives each of them."""

    def __init__(self) -> None:
        bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
        found = find_test_images(_TRIED)
        images = np.random.default_rng(0).integers(0, 256, (_TRIED, 32, 32, 3), np.uint8)
        if found is not None:
            images = np.asarray(found.inputs)
        network = OnnxBackend("cpu", 1).load(bundle)
        self._right: dict[tuple[int, ...], list[list[int]]] = {}
        is_clear = np.ones(len(images), bool)
        for at_size, runs_on in zip(bundle.sizes, (network, *network.smaller), strict=True):
            size = at_size.size or images.shape[1:3]
            rows = [_logits(runs_on, image, len(bundle.exits)) for image in images]
            self._right[tuple(size)] = [[int(each.argmax()) for each in row] for row in rows]
            for index, row in enumerate(rows):
                first_two = [np.sort(logits)[-2:] for logits in row]
                is_clear[index] &= all(high - low > _CLEAR for low, high in first_two)
        self._used = [int(index) for index in np.flatnonzero(is_clear)]
        self._bodies = [images[index].tobytes() for index in self._used]

    def draw(self, chance: random.Random) -> tuple[int, bytes]:
        """An image, and its number."""
        place = chance.randrange(len(self._used))
        return self._used[place], self._bodies[place]

    def is_right(self, image: int, model: str, answer: dict[str, Any], seconds: float) -> bool:
        """Whether the class is that of the exit that answered, and the receipt fits it."""
        receipt = answer["receipt"]
        latency = receipt["latency_ms"]
        size = tuple(receipt.get("size") or answer.get("size") or (32, 32))
        bound, value = latency.get("bound"), latency["value"]
        return (
            answer["model"] == model
            and answer["predictions"][0]["index"] == self._right[size][image][answer["exit"]]
            and 0 <= latency["queue"] <= value <= 1e3 * seconds + 20.0
            and (bound is None or latency["met"] == (value <= bound))
        )


def _logits(network: Any, image: NDArray[np.uint8], exits: int) -> list[NDArray[np.float32]]:
    sample, found = image, []
    for segment in range(exits):
        run = network.run(segment, [sample])
        found.append(run.logits[0].copy())
        sample = run.features[0] if run.features else None
    return found


@dataclass
class Tally:
    """What became of requests: ``answered``, ``refused`` as documented, ``broken`` connections, of
    which the client knows, ``lost``, and ``wrong``."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Load:
    """``CLIENTS`` threads, each with one connection that it makes again once it is broken. With
    ``fails`` set, answers of an engine that failed are refusals."""

    def __init__(self, address: tuple[str, int], judge: Judge, models: Sequence[str]) -> None:
        self.fails = False
        self._address = address
        self._judge = judge
        self._models = models
        self._tally = Tally()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True)
            for number in range(CLIENTS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> Tally:
        """What became of requests since the last call."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
            return taken

    def recovers(self, models: Sequence[str], most: float = 60.0) -> float:
        """Seconds until each of ``models`` answers."""
        began, chance = time.monotonic(), random.Random(0)
        for model in models:
            while True:
                client = http.client.HTTPConnection(*self._address, timeout=PATIENCE)
                image, body = self._judge.draw(chance)
                what, _ = self._request(client, model, "", image, body)
                client.close()
                if what == "answered":
                    break
                if time.monotonic() - began > most:
                    raise RuntimeError(f"{model} does not answer again: {what}")
                time.sleep(_PAUSE)
        return time.monotonic() - began

    def _ask(self, number: int) -> None:
        chance, client = random.Random(number), None
        while not self._is_over.is_set():
            if client is None:
                client = http.client.HTTPConnection(*self._address, timeout=PATIENCE)
            query = chance.choice(_QUERIES)
            query += f"{'&' if query else ''}tenant=app{chance.randrange(40)}"
            model = chance.choice(self._models)
            image, body = self._judge.draw(chance)
            what, about = self._request(client, model, f"?{query}", image, body)
            with self._lock:
                self._tally.counts[what] += 1
                if what in ("wrong", "lost"):
                    self._tally.examples.append(f"{what}: {model} {query}: {about}")
            if what in ("broken", "lost"):
                client.close()
                client = None
            if what != "answered":
                time.sleep(_PAUSE)

    def _request(
        self, client: http.client.HTTPConnection, model: str, query: str, image: int, body: bytes
    ) -> tuple[str, str]:
        began = time.monotonic()
        try:
            headers = {"Content-Type": "application/octet-stream"}
            client.request("POST", f"/v1/models/{model}/infer{query}", body, headers)
            response = client.getresponse()
            answer = json.loads(response.read())
        except TimeoutError as error:
            return "lost", repr(error)
        except (OSError, http.client.HTTPException) as error:
            return "broken", repr(error)
        if response.status == 200:
            is_right = self._judge.is_right(image, model, answer, time.monotonic() - began)
            return ("answered" if is_right else "wrong"), json.dumps(answer)
        code = answer.get("code")
        is_known = code in _REFUSALS or (self.fails and code == "backend_failed")
        return ("refused" if is_known else "wrong"), f"{response.status} {answer}"
