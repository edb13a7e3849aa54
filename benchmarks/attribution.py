"""Live attribution against a plant whose true energies are known, in simulated time.

A network serves five minutes of load on a device with a sensor; the model of its energies is off by
30 % up or down on every segment, and in some scenes by a factor on top. The energies reported to
requests are compared with the true ones. Readings come at the daemon's default of 50 ms, windows at
its default of one second.

Exits: the mean error of requests that began after the first minute, for the worst exit. Total:
all requests of the five minutes, the first seconds' ignorance included. Nothing is claimed for
five requests a second and the fast sensor: of work that takes 4 % of the time, readings of
6.6 ms every 50 ms catch too little in a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.plant import Floats, Network, Sensor, Served, serve
from delen.core.work import Share, Work
from power.attribution.attribution import LONGEST_WORK, Attributor
from power.sources.series import Samples

SEEDS = 5
SECONDS = 300
IDLE = 5.0
LEARNT = 60.0
WINDOW = 1.0
LATE = 0.1
STATIC = 3.0
WRONG = 0.3
RATE = 50.0

NETWORK = Network(
    "net",
    seconds=(0.0030, 0.0025, 0.0040, 0.0045, 0.0035),
    joules=(0.0180, 0.0125, 0.0300, 0.0270, 0.0175),
    leaves=(0.35, 0.20, 0.20, 0.10, 0.15),
)
CAMERA = Network("net", seconds=(0.04,) * 5, joules=(0.24,) * 5, leaves=(0.0, 0.0, 0.0, 0.0, 1.0))
FAST, SLOW = Sensor(window=0.0066), Sensor(window=0.42)
COARSE = Sensor(window=0.0066, quantum=0.5)
LAG = 1e-4
Arrivals = Callable[[int], Floats]


def steady(rate: float, began: float = IDLE) -> Arrivals:
    """A request every 1 / ``rate`` seconds."""
    return lambda seed: np.arange(began, SECONDS - 1, 1 / rate)


def poisson(rate: float, began: float = IDLE) -> Arrivals:
    def draw(seed: int) -> Floats:
        return _poisson(np.random.default_rng([seed, 5]), rate, began, SECONDS - 1)

    return draw


def varying(rate: float, began: float = IDLE) -> Arrivals:
    """Poisson, at a rate that is another every few seconds: 0.2 to 1.8 times ``rate``."""

    def draw(seed: int) -> Floats:
        rng, now, parts = np.random.default_rng([seed, 6]), began, []
        while now < SECONDS - 1:
            until = min(now + rng.exponential(8.0), SECONDS - 1)
            parts.append(_poisson(rng, rate * rng.uniform(0.2, 1.8), now, until))
            now = until
        return np.concatenate(parts)

    return draw


def _poisson(rng: np.random.Generator, rate: float, began: float, ended: float) -> Floats:
    return np.sort(rng.uniform(began, ended, rng.poisson(rate * (ended - began))))


@dataclass(frozen=True)
class Scene:
    """What the device goes through. ``factor`` is by how much its true energies exceed the
    model's; ``others`` are other programs' blocks of power (began, ended, watts). ``spread`` is by
    how much of themselves the seconds and joules of a work scatter."""

    name: str
    arrivals: Arrivals
    factor: float = 1.0
    others: tuple[tuple[float, float, float], ...] = ()
    network: Network = NETWORK
    spread: float = 0.05


@dataclass
class Outcome:
    """What was reported to requests and what was true, in joules."""

    served: Served
    reported: dict[str, float] = field(default_factory=dict)
    estimated: int = 0
    seconds: float = 0.0

    def errors(self) -> tuple[float, float]:
        """In percent: the worst exit's, and of the total (absolute both)."""
        true: dict[str, float] = {}
        began: dict[str, float] = {}
        for work, joules in zip(self.served.works, self.served.joules, strict=True):
            for share in work.shares:
                began.setdefault(share.request_id, work.began)
                true[share.request_id] = true.get(share.request_id, 0.0) + joules / work.batch
        exits = []
        for number in sorted(set(self.served.exits.values())):
            chosen = [r for r, e in self.served.exits.items() if e == number and began[r] > LEARNT]
            exits.append(_error(self.reported, true, chosen))
        return max(exits), _error(self.reported, true, list(true))


def _error(
    reported: Mapping[str, float], true: Mapping[str, float], requests: Sequence[str]
) -> float:
    total = sum(true[request] for request in requests)
    return 100 * abs(sum(reported.get(request, 0.0) for request in requests) / total - 1)


def run(scene: Scene, sensor: Sensor, seed: int) -> Outcome:
    rng = np.random.default_rng([seed, 9])
    network = scene.network
    off = scene.factor * (1 + WRONG * rng.choice([-1.0, 1.0], len(network.joules)))
    predicted = tuple(float(value) for value in np.asarray(network.joules) / off)
    served = serve(network, scene.arrivals(seed), predicted, seed, spread=scene.spread)
    samples = sensor.poll(served.power(STATIC, scene.others), 0, SECONDS + 1, seed)
    outcome, attributor, added = Outcome(served), Attributor(), 0
    for window in range(SECONDS):
        began, ended = window * WINDOW, (window + 1) * WINDOW
        first = added
        while added < len(served.works) and served.works[added].ended <= ended + LATE:
            added += 1
        chosen = samples.between(began - LONGEST_WORK, ended)
        clock = time.process_time()
        for work in served.works[first:added]:
            attributor.add(work)
        split = attributor.close(began, ended, chosen)
        outcome.seconds += time.process_time() - clock
        outcome.estimated += split.kind == "estimated"
        for share, joules in split.by_share.items():
            outcome.reported[share.request_id] = (
                outcome.reported.get(share.request_id, 0.0) + joules
            )
    return outcome


def busy_seconds(works_per_second: int, windows: int = 180) -> float:
    """Processor seconds that one second of that many works costs, over three minutes of them."""
    rng = np.random.default_rng(0)
    length = 0.8 / works_per_second
    attributor, spent = Attributor(), 0.0
    watts = rng.uniform(5, 7, windows * 20)
    samples = Samples(np.arange(1, windows * 20 + 1) / 20, watts)
    for window in range(windows):
        works = [
            Work(
                "net",
                i % 5,
                1,
                window + i / works_per_second,
                window + i / works_per_second + length,
                0.001,
                (Share(f"r{window}-{i // 3}", "default"),),
            )
            for i in range(works_per_second)
        ]
        chosen = samples.between(window - LONGEST_WORK, window + 1)
        clock = time.process_time()
        for work in works:
            attributor.add(work)
        attributor.close(float(window), float(window + 1), chosen)
        spent += time.process_time() - clock
    return spent / windows


def figures(
    name: str, scene: Scene, sensor: Sensor, exits: float | None = 5.0, total: float | None = 1.0
) -> list[Figure]:
    """The errors of ``scene`` over the seeds; None: not claimed."""
    errors = [run(scene, sensor, seed).errors() for seed in range(SEEDS)]
    return [
        Figure(f"{scene.name}, {name}: worst exit", tuple(e for e, _ in errors), "%", exits),
        Figure(f"{scene.name}, {name}: total", tuple(t for _, t in errors), "%", total),
    ]


SENSORS = {"6.6 ms": FAST, "0.42 s": SLOW}
LAGS = {
    "lag of 6.6 ms": Sensor(window=LAG, lag=0.0066),
    "lag of 0.42 s": Sensor(window=LAG, lag=0.42),
}
SCENES = (
    Scene("varying load", varying(RATE)),
    Scene("even load", steady(RATE)),
    Scene(
        "bursts of another program",
        varying(RATE),
        others=((30, 40, 3.0), (100, 101, 6.0), (150, 180, 2.0)),
    ),
    Scene("model off by 2 as well", varying(RATE), factor=2.0),
    Scene("model off by 1/2 as well", varying(RATE), factor=0.5),
    Scene("another program stays", poisson(RATE), others=((120, SECONDS + 1, 3.0),)),
    Scene("busy from the start", varying(RATE, began=0.0)),
)
LAGGED = 3
RHYTHM = Scene("a load in rhythm", steady(2.5), network=CAMERA, spread=0.0)
LOW = Scene("5 requests a second", poisson(5.0))


def main() -> list[Figure]:
    made = []
    for scene in SCENES:
        sensors = {**SENSORS, **LAGS} if scene in SCENES[:LAGGED] else SENSORS
        for name, sensor in sensors.items():
            made += figures(name, scene, sensor)
    for name, sensor in {"0.42 s": SLOW, "6.6 ms in steps of 0.5 W": COARSE}.items():
        made += figures(name, RHYTHM, sensor)
    made += figures("0.42 s", LOW, SLOW)
    made += figures("6.6 ms", LOW, FAST, None, None)
    costs = tuple(100 * busy_seconds(2000) for _ in range(3))
    made.append(Figure("a core's time at 2,000 works a second", costs, "%", 1.0))
    return report("Live attribution against a plant of known energies", made)


if __name__ == "__main__":
    main()
