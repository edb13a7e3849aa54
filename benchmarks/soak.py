"""Requests in between loads, unloads and reloads of bundles that change, drawn at random.

Three models are copies of the shipped one. Threads play the steps of each round in any order they
come to, on one daemon. A reload is a SIGHUP; before it a bundle gets a new version, or its folder
goes away or comes back. Versions only rise, so an answer between two lists of ``/v1/models`` that
name the same one must name it, too. After each round all is quiet, and the daemon has to list what
is on disk. Memory, threads and open files are counted after each round, with the three unloaded.
What the allocator keeps then varies by 20 MB from round to round. So the median of the later rounds
is compared with the median of the earlier ones, without the first tenth.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Daemon, Figure, daemon, report
from benchmarks.footprint import resident_mb
from delen.bundle.manifest import MANIFEST, PROFILES, read_manifest
from delen.core.atomic_file import write_atomically
from delen.core.variant import size_of, variant_name
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.profile.reader import load_profile

SHIPPED = "cifar10-resnet"
MODELS = ("soak-a", "soak-b", "soak-c")
OPERATIONS, REQUESTS, ROUNDS, SEED = 1000, 20_000, 20, 0
CAP_MB = 24.0
"""The first segments of all four models, and one or two more: most loads evict."""
MOST_MB = 15.0
PAUSE = 0.01
"""Seconds that a client waits where a model is not loaded, so that not all requests meet that."""
CLIENTS = 6
COMPARED = 10
"""Of so many requests one is compared with ``/v1/models``."""
BOUNDS = ("", "?max_latency_ms=60000", "?max_latency_ms=8", "?min_accuracy=0.8", "?tenant=cam")
SETTLES = 30.0
"""Seconds in which the daemon has to list what is on disk after a SIGHUP."""


class Step(NamedTuple):
    """``do`` is infer, load, unload or reload; ``draw``, from 0 to 1, decides what of it is
    open."""

    do: str
    model: str
    draw: float


class Resources(NamedTuple):
    memory_mb: float
    threads: int
    files: int


_COUNTED = ("task", "fd")
_UNREADABLE = ("bundle_invalid", "backend_failed")
"""What a load may fail with while the bundle's folder is moved."""


@dataclass
class Outcome:
    """What happened: answers by status and code, and sentences about all that must not be."""

    answers: Counter[str] = field(default_factory=Counter)
    undocumented: list[str] = field(default_factory=list)
    other_versions: list[str] = field(default_factory=list)
    compared: int = 0
    tracebacks: int = 0
    rests: list[Resources] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def earlier(self) -> Resources:
        return _median(self._counted[: len(self._counted) // 2])

    @property
    def later(self) -> Resources:
        return _median(self._counted[len(self._counted) // 2 :])

    @property
    def _counted(self) -> list[Resources]:
        return self.rests[len(self.rests) // 10 :]


def _median(of: Sequence[Resources]) -> Resources:
    memory, threads, files = np.median(np.array(of), axis=0)
    return Resources(float(memory), int(threads), int(files))


def lend_profiles(state: Path, name: str, digest: str) -> None:
    """The copy ``name`` of the shipped bundle, whose manifest has this ``digest``, has the profiles
    of that under ``state``, as if they had been measured of it."""
    _, shipped = read_manifest(SHIPPED_BUNDLES / SHIPPED)
    for file in (state / PROFILES / f"{SHIPPED}-{shipped[:12]}").glob("*.json"):
        sizes = [
            replace(each, model=variant_name(name, size_of(each.model)), bundle=digest)
            for each in load_profile(file).sizes
        ]
        profile = replace(sizes[0], smaller=tuple(sizes[1:]))
        kept = state / PROFILES / f"{name}-{digest[:12]}" / file.name
        write_atomically(kept, profile.to_json())


class Bundles:
    """Copies of the shipped bundle in the folder ``path``. Each new version finds the profile of
    the shipped one under ``state``, as if it had been measured, so that none is."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self.versions = dict.fromkeys(MODELS, 0)
        self._state = state
        self._aside = path.with_name("aside")
        self._aside.mkdir()
        self._moves = dict.fromkeys(MODELS, 0)
        self._lock = threading.Lock()
        for name in MODELS:
            ignored = shutil.ignore_patterns(PROFILES)
            shutil.copytree(SHIPPED_BUNDLES / SHIPPED, path / name, ignore=ignored)
            self._write_version(path / name)

    def change(self, name: str, draw: float) -> None:
        """Write a new version, or in one case of four move the folder away or back."""
        with self._lock:
            there, aside = self.path / name, self._aside / name
            if draw < 0.25 or not there.exists():
                source, target = (there, aside) if there.exists() else (aside, there)
                self._moves[name] += 1
                source.rename(target)
            else:
                self._write_version(there)

    def moves(self, name: str) -> int:
        """How often the folder moved; odd while it is away."""
        with self._lock:
            return self._moves[name]

    def _write_version(self, folder: Path) -> None:
        name = folder.name
        self.versions[name] += 1
        manifest = json.loads((folder / MANIFEST).read_text())
        text = json.dumps(manifest | {"name": name, "version": str(self.versions[name])})
        fresh = folder.with_name(f".{name}")
        fresh.mkdir()
        (fresh / MANIFEST).write_text(text)
        _, digest = read_manifest(fresh)
        shutil.rmtree(fresh)
        lend_profiles(self._state, name, digest)
        write_atomically(folder / MANIFEST, text)


class Client:
    """One connection that is kept."""

    def __init__(self, server: Daemon) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        kind = "application/json" if body is None else "application/octet-stream"
        headers = {"Content-Type": kind}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def models(self) -> dict[str, tuple[str, str]]:
        """State and version of each model."""
        _, listed = self.call("GET", "/v1/models")
        return {model["name"]: (model["state"], model["version"]) for model in listed["models"]}

    def close(self) -> None:
        self._connection.close()


class Soak:
    """Plays steps on ``server`` and notes what comes of them."""

    def __init__(self, server: Daemon, bundles: Bundles) -> None:
        self.outcome = Outcome()
        self._server = server
        self._bundles = bundles
        self._body = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8).tobytes()
        self._lock = threading.Lock()

    def play(self, steps: Sequence[Step]) -> None:
        """All ``steps``, and then the comparison with what is on disk."""
        waiting: queue.SimpleQueue[Step] = queue.SimpleQueue()
        for step in steps:
            waiting.put(step)
        threads = [threading.Thread(target=self._work, args=(waiting,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._client() as client:
            self._settle(client)

    def rest(self) -> Resources:
        """What the daemon takes while none of the three is loaded."""
        with self._client() as client:
            for name in MODELS:
                while client.call("POST", f"/v1/models/{name}/unload")[0] == 503:
                    time.sleep(0.01)
        process, read = self._server.process.pid, []
        for _ in range(10):
            time.sleep(0.1)
            tasks, files = (len(list(Path(f"/proc/{process}/{of}").iterdir())) for of in _COUNTED)
            read.append(Resources(resident_mb(process), tasks, files))
        return min(read)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        client = Client(self._server)
        try:
            yield client
        finally:
            client.close()

    def _work(self, waiting: queue.SimpleQueue[Step]) -> None:
        with self._client() as client, contextlib.suppress(queue.Empty):
            while True:
                step = waiting.get_nowait()
                try:
                    self._follow(client, step)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self._note(self.outcome.undocumented, f"{step.do} {step.model}: {error!r}")
                    return

    def _follow(self, client: Client, step: Step) -> None:
        if step.do == "reload":
            self._bundles.change(step.model, step.draw)
            self._server.process.send_signal(signal.SIGHUP)
        elif step.do == "infer":
            self._infer(client, step)
        else:
            self._load_or_unload(client, step)

    def _infer(self, client: Client, step: Step) -> None:
        choice = int(step.draw * len(BOUNDS) * COMPARED)
        is_compared = choice % COMPARED == 0
        before = client.models().get(step.model) if is_compared else None
        path = f"/v1/models/{step.model}/infer{BOUNDS[choice // COMPARED]}"
        moves = self._bundles.moves(step.model)
        status, answer = client.call("POST", path, self._body)
        was_away = moves % 2 == 1 or self._bundles.moves(step.model) != moves
        after = client.models().get(step.model) if is_compared else None
        self._count(step, status, answer, was_away)
        if answer.get("code") == "model_loading":
            time.sleep(PAUSE)
        if before == after and before is not None and before[0] == "ready" and status == 200:
            self._compare(step.model, before[1], answer)

    def _load_or_unload(self, client: Client, step: Step) -> None:
        moves = self._bundles.moves(step.model)
        status, answer = client.call("POST", f"/v1/models/{step.model}/{step.do}")
        was_away = moves % 2 == 1 or self._bundles.moves(step.model) != moves
        self._count(step, status, answer, was_away)

    def _count(
        self, step: Step, status: int, answer: dict[str, Any], was_away: bool = False
    ) -> None:
        code = answer.get("code", "")
        is_documented = status < 500 or code in ("model_loading", "overloaded", "no_room")
        with self._lock:
            self.outcome.answers[f"{step.do} {status} {code}".rstrip()] += 1
            if not is_documented and not (was_away and code in _UNREADABLE):
                self.outcome.undocumented.append(f"{step.do} {step.model}: {status} {answer}")

    def _compare(self, model: str, listed: str, answer: dict[str, Any]) -> None:
        with self._lock:
            self.outcome.compared += 1
        if answer["version"] != listed:
            what = f"{model}: {answer['version']}, where /v1/models says {listed}"
            self._note(self.outcome.other_versions, what)

    def _note(self, where: list[str], what: str) -> None:
        with self._lock:
            where.append(what)

    def _settle(self, client: Client) -> None:
        """Once it has looked again, the daemon lists what is on disk, and loads and answers it."""
        self._server.process.send_signal(signal.SIGHUP)
        for name in MODELS:
            deadline = time.monotonic() + SETTLES
            while not self._is_as_on_disk(name, found := client.models().get(name)):
                if time.monotonic() > deadline:
                    wanted = f"{self._bundles.versions[name]} on disk"
                    self._note(self.outcome.other_versions, f"{name}: {found}, where {wanted}")
                    return
                time.sleep(0.01)
        for name in MODELS:
            is_away = self._bundles.moves(name) % 2 == 1
            if not is_away and self._call(client, name, "load") is None:
                self._note(self.outcome.undocumented, f"{name} cannot be loaded")
            elif not is_away:
                answer = self._call(client, name, "infer", self._body)
                if answer is None:
                    self._note(self.outcome.undocumented, f"{name} does not answer")
                else:
                    self._compare(name, client.models()[name][1], answer)

    def _is_as_on_disk(self, name: str, found: tuple[str, str] | None) -> bool:
        if found is not None and found[0] == "ready":
            return True
        if self._bundles.moves(name) % 2 == 1:
            return found is None
        return found is not None and found[1] == str(self._bundles.versions[name])

    def _call(
        self, client: Client, name: str, do: str, body: bytes | None = None
    ) -> dict[str, Any] | None:
        status, answer = client.call("POST", f"/v1/models/{name}/{do}", body)
        return answer if status == 200 else None


def make_steps(operations: int, requests: int, seed: int) -> list[Step]:
    """In random order: as many loads as unloads as reloads, and requests."""
    rng = np.random.default_rng(seed)
    kinds = [("load", "unload", "reload")[k % 3] for k in range(operations)]
    kinds += ["infer"] * requests
    models, draws = rng.choice(MODELS, len(kinds)), rng.random(len(kinds))
    steps = [Step(*step) for step in zip(kinds, map(str, models), map(float, draws), strict=True)]
    return [steps[k] for k in rng.permutation(len(steps))]


def soak(
    state: Path, operations: int, requests: int, rounds: int, seed: int, cap_mb: float = 0.0
) -> Outcome:
    """One daemon's run; with ``cap_mb`` its models come and go on demand, too."""
    steps = make_steps(operations, requests, seed)
    with daemon(state):
        """It measures the profile of the shipped bundle, if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundles"
        path.mkdir()
        bundles = Bundles(path, state)
        settings = {
            "DELEN_MODELS__PATH": str(path),
            "DELEN_MODELS__MEMORY_MB": str(cap_mb),
            "DELEN_POWER__RECEIPTS": "500",
            "DELEN_SERVER__THREADS": "2",  # which all run soon; more would start one by one
        }
        with daemon(state, **settings) as server:
            player, began = Soak(server, bundles), time.monotonic()
            outcome = player.outcome
            for part in np.array_split(np.arange(len(steps)), rounds):
                player.play([steps[k] for k in part])
                outcome.rests.append(player.rest())
            outcome.seconds = time.monotonic() - began
            outcome.tracebacks = server.log.read_text().count("Traceback")
    return outcome


def main() -> list[Figure]:
    figures: list[Figure] = []
    for name, cap in (("no cap", 0.0), (f"{CAP_MB:g} MB", CAP_MB)):
        with tempfile.TemporaryDirectory() as state:
            outcome = soak(Path(state), OPERATIONS, REQUESTS, ROUNDS, SEED, cap)
        for sentence in (*outcome.undocumented[:5], *outcome.other_versions[:5]):
            print(sentence, file=sys.stderr)
        print(f"\n{name}: {dict(sorted(outcome.answers.items()))}")
        start, end = outcome.earlier, outcome.later
        wrong = {
            "5xx that are not documented": len(outcome.undocumented),
            "answers of another version than /v1/models": len(outcome.other_versions),
            "tracebacks in the log": outcome.tracebacks,
            "threads that stay": end.threads - start.threads,
            "files that stay open": end.files - start.files,
        }
        figures += [Figure(f"{name}: {what}", (count,), "", 0) for what, count in wrong.items()]
        figures += [
            Figure(f"{name}: answers compared with /v1/models", (outcome.compared,), ""),
            Figure(f"{name}: memory at rest in the earlier rounds", (start.memory_mb,), "MB"),
            Figure(
                f"{name}: more in the later ones", (end.memory_mb - start.memory_mb,), "MB", MOST_MB
            ),
            Figure(f"{name}: time", (outcome.seconds,), "s"),
        ]
    title = f"{OPERATIONS} loads, unloads and reloads in between {REQUESTS} requests"
    return report(title, figures)


if __name__ == "__main__":
    main()
