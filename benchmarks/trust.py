"""``python -m benchmarks trust``: faults of every kind under load, and what becomes of requests.

Clients load a daemon with two models, over connections that they make again once they break. It
runs as under systemd: its supervisor holds the listening socket and starts it again half a second
after it ended. Each fault is caused for real, some times. A request is lost where its connection
holds and no answer comes. An answer that came whole is wrong where its class is not that of the
exit that answered, its receipt does not fit it, or its code is not documented. A request whose
connection broke, because the daemon was killed, is known to its client as such: ``broken`` counts
those. The time to recover is from the end of the fault, of a kill from the kill itself, until each
model answers a new connection; half a second of a kill's is the supervisor's.

``trust_kills`` is the same with 200 kills. ``trust_soak`` loads one daemon for an hour in which
tenants come and go, the configuration is reloaded every minute, and faults that kill nothing come
at random. Its memory, descriptors and shared memory at the end are compared with those after ten
minutes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.broken_backend import BrokenBackend
from benchmarks.common import Figure, daemon, report
from benchmarks.footprint import resident_mb
from benchmarks.soak import lend_profiles
from benchmarks.supervised import RESTARTS_AFTER, Supervised, descriptors, shared_memory
from benchmarks.trust_faults import (
    FAULTS,
    FIRST,
    HARMLESS,
    MODELS,
    SECOND,
    Fault,
    Trial,
    killed,
)
from benchmarks.trust_load import Judge, Load
from delen.bundle.manifest import MANIFEST, PROFILES, read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from tests.sensors import make_tree, play

HANG_SECONDS = 0.5
MOST_TO_RECOVER = 2.0
MOST_GROWTH = 2.0
"""Percent of the memory after ten minutes."""
_KILLS = 200
_SOAK_MINUTES = 60.0
_WARM_SHARE = 1 / 6
_RELOADS_EVERY = 60.0
_TENANTS_EVERY = 0.5
_FAULTS_EVERY = (5.0, 20.0)


@dataclass
class Row:
    name: str
    times: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    recovered: list[float] = field(default_factory=list)

    def line(self) -> str:
        of = [self.counts[what] for what in _COUNTED]
        numbers = "".join(f"{each:>9}" for each in (self.times, *of))
        times = ""
        if self.recovered:
            times = f"{np.median(self.recovered):>9.2f} s{max(self.recovered):>9.2f} s"
        return f"{self.name:<31}{numbers}{times}"


_COUNTED = ("answered", "refused", "broken", "lost", "wrong")
_HEADS = "fault".ljust(31) + "".join(f"{head:>9}" for head in ("times", *_COUNTED))
_HEADS += f"{'median':>11}{'worst':>11}"


def _cause(trial: Trial, fault: Fault, times: int, row: Row) -> None:
    for _ in range(times):
        row.recovered.append(fault.cause(trial))
        row.times += 1
    _count(trial, row)


def _count(trial: Trial, row: Row) -> None:
    taken = trial.load.take()
    row.counts.update(taken.counts)
    for example in taken.examples[:3]:
        print(example, file=sys.stderr)


@contextmanager
def trial(seed: int) -> Iterator[Trial]:
    """A daemon under load, whose two models have been measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in ("state", "backend", "bundles"):
            (folder / made).mkdir()
        state, second = folder / "state", folder / "bundles" / SECOND
        sensors = make_tree(folder / "root", "orin-nx")
        with daemon(state, DELEN_POWER__ROOT=str(sensors.root)):
            """It measures the profile of the shipped bundle."""
        shutil.copytree(SHIPPED_BUNDLES / FIRST, second, ignore=shutil.ignore_patterns(PROFILES))
        manifest = json.loads((second / MANIFEST).read_text())
        (second / MANIFEST).write_text(json.dumps(manifest | {"name": SECOND}))
        lend_profiles(state, SECOND, read_manifest(second)[1])
        config = folder / "delen.toml"
        config.write_text(
            f'[models]\npath = "{folder / "bundles"}"\nload = ["{FIRST}", "{SECOND}"]\n'
            f'[device]\nhang_seconds = {HANG_SECONDS}\n[state]\npath = "{state}"\n'
            f'[power]\nroot = "{sensors.root}"\n'
        )
        backend = BrokenBackend(folder / "backend")
        environment = {**os.environ, **backend.environment, "DELEN_CONFIG": str(config)}
        chance = random.Random(seed)
        with (
            play(sensors, lambda passed: {"VDD_IN": chance.uniform(7.0, 9.0)}, 0.05),
            Supervised(environment, folder / "log") as server,
        ):
            load = Load(server.address, Judge(), MODELS)
            load.recovers(MODELS, 120.0)
            load.start()
            try:
                yield Trial(server, backend, load, state, config, sensors, chance)
            except BaseException:
                print(server.log.read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                backend.mend()
                load.stop()


def cause_all(kills: int | None = None) -> list[Row]:
    """Each fault, as often as it says, or ``kills`` times ``kill -9``; the table is printed."""
    print(f"\n{_HEADS}")
    rows = []
    with trial(seed=1) as on:
        for fault in FAULTS:
            times = kills if kills is not None and fault.cause is killed else fault.times
            rows.append(row := Row(fault.name))
            _cause(on, fault, times, row)
            print(row.line(), flush=True)
    return rows


@dataclass
class Soaked:
    """What a daemon took: MB of memory, open files and mapped files of memory, after a sixth of the
    time and at its end."""

    row: Row
    early: tuple[float, int, int]
    late: tuple[float, int, int]

    @property
    def growth(self) -> float:
        return 100 * (self.late[0] / self.early[0] - 1)


def soak(minutes: float) -> Soaked:
    """One daemon under load, faults that do not kill it, reloads, and tenants that come and go."""
    row, end = Row(f"soak, {minutes:g} minutes"), 60 * minutes
    with trial(seed=2) as on:
        began, early, faults_at, reload_at = (
            time.monotonic(),
            None,
            _FAULTS_EVERY[0],
            _RELOADS_EVERY,
        )
        over = threading.Event()
        tenants = threading.Thread(target=_tenants, args=(on, over), daemon=True)
        tenants.start()
        starts = on.server.starts
        for fault in HARMLESS:  # what each needs once is not growth
            _cause(on, fault, 1, row)
        while (passed := time.monotonic() - began) < end:
            if passed > faults_at:
                _cause(on, on.chance.choice(HARMLESS), 1, row)
                faults_at = time.monotonic() - began + on.chance.uniform(*_FAULTS_EVERY)
            if passed > reload_at:
                on.server.signal(signal.SIGHUP)
                reload_at = passed + _RELOADS_EVERY
            if early is None and passed > _WARM_SHARE * end:
                early = _taken(on)
            time.sleep(0.1)
        late = _taken(on)
        over.set()
        tenants.join()
        _count(on, row)
        if on.server.starts != starts:
            raise RuntimeError("the daemon was started again during the soak")
    assert early is not None
    print(f"\n{_HEADS}\n{row.line()}")
    return Soaked(row, early, late)


def _tenants(on: Trial, over: threading.Event) -> None:
    chance = random.Random(3)
    while not over.wait(_TENANTS_EVERY):
        name = f"guest{chance.randrange(30)}"
        budget = {"budget": {"energy_j": 1000.0, "period_s": 60.0}, "weight": 2.0}
        on.call(
            "PUT", f"/v1/tenants/{name}", chance.choice([budget, {"budget": None, "weight": None}])
        )


def _taken(on: Trial) -> tuple[float, int, int]:
    """The least of some readings: requests come and go meanwhile."""
    read = []
    for _ in range(20):
        time.sleep(0.1)
        pid = on.server.pid
        read.append((resident_mb(pid), descriptors(pid), shared_memory(pid)))
    memory, files, shared = (min(column) for column in zip(*read, strict=True))
    return float(memory), int(files), int(shared)


def figures_of(rows: Sequence[Row]) -> list[Figure]:
    figures = [
        Figure(f"{row.name}: {what}", (row.counts[what],), "", 0)
        for row in rows
        for what in ("lost", "wrong")
        if row.counts[what]
    ]
    total = sum((row.counts for row in rows), Counter[str]())
    figures += [
        Figure("requests lost", (total["lost"],), "", 0),
        Figure("answers or receipts wrong", (total["wrong"],), "", 0),
        Figure("requests", (total.total(),), ""),
        Figure("times that a fault was caused", (sum(row.times for row in rows),), ""),
    ]
    killed = [
        each
        for row in rows
        if row.name in ("kill -9", "native code crashes")
        for each in row.recovered
    ]
    if killed:
        name = f"recovery from a killed daemon, worst of {len(killed)}"
        figures.append(Figure(name, (max(killed),), "s", MOST_TO_RECOVER))
        figures.append(Figure("recovery from a killed daemon", tuple(killed), "s"))
    return figures


def main() -> list[Figure]:
    return report(
        f"Faults under load (a supervisor restarts after {RESTARTS_AFTER:g} s)",
        figures_of(cause_all()),
    )


def main_kills() -> list[Figure]:
    return report(f"{_KILLS} kills, and all other faults", figures_of(cause_all(_KILLS)))


def main_soak() -> list[Figure]:
    soaked = soak(_SOAK_MINUTES)
    figures = [
        *figures_of([soaked.row]),
        Figure("memory after ten minutes", (soaked.early[0],), "MB"),
        Figure("memory that grew since", (soaked.growth,), "%", MOST_GROWTH),
        Figure("files that stay open", (soaked.late[1] - soaked.early[1],), "", 0),
        Figure("shared memory that stays", (soaked.late[2] - soaked.early[2],), "", 0),
    ]
    return report(f"{_SOAK_MINUTES:g} minutes of soak", figures)
