"""The grid: what a device, its sensor, its load and other programs may do to attribution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.plants.device import Arrival, Block, Energy, Floats, Network, Served, serve
from benchmarks.plants.sensor import Sensor, polls

SECONDS = 150.0
IDLE = 4.5
STARTS = 5.0

FAST, HELD, SLOW = Sensor(), Sensor(window=0.42), Sensor(window=1.0)
COARSE = Sensor(quantum=0.4)
RAILS = Sensor(rails=(0.35, 0.25, 0.15, 0.1, 0.1, 0.05))
DELAYS = (0.006, 0.012, 0.025, 0.06)

SHORT = Network(
    (0.00065, 0.00036, 0.00063, 0.0005, 0.0009),
    (0.012, 0.003, 0.020, 0.004, 0.030),
    (0.27, 0.15, 0.06, 0.08, 0.44),
)
MEDIUM = Network(
    (0.0030, 0.0025, 0.0040, 0.0045, 0.0035),
    (0.0180, 0.0125, 0.0300, 0.0270, 0.0175),
    (0.35, 0.20, 0.20, 0.10, 0.15),
)
LONG = Network(
    (0.020, 0.035, 0.060, 0.045, 0.025),
    (0.120, 0.175, 0.450, 0.270, 0.125),
    (0.35, 0.20, 0.20, 0.10, 0.15),
)

Load = Literal["poisson", "even", "bursts", "saturated", "tenants", "phases"]
Ratio = Literal["30", "spread", "0.3", "30x", "60x", "profile"]
Other = Literal["none", "steps", "sine", "with us"]
Fault = Literal["none", "stall", "glitch", "frozen"]
Clock = Literal["steady", "seen", "unseen"]


@dataclass(frozen=True)
class Scene:
    """One cell of the grid.

    ``ratio`` is what true joules are of predicted ones: 30 % more or less by segment, a
    ``spread`` of 1.1 to 4.4, on top of a scale of 0.3, 30 or 60, or those of a measured
    ``profile`` (3 %). Clocks that step are ``seen`` by who watches the mode, or not.
    """

    name: str
    sensor: Sensor = FAST
    network: Network = MEDIUM
    load: Load = "poisson"
    rate: float = 20.0
    ratio: Ratio = "30"
    other: Other = "none"
    fault: Fault = "none"
    clocks: Clock = "steady"
    drifting: bool = False
    starts: float = STARTS

    @property
    def profiled(self) -> bool:
        return self.ratio == "profile"


@dataclass(frozen=True)
class Played:
    """What happened in a scene: all that ran, the readings, and when a change of clocks was
    noticed."""

    served: Served
    times: Floats
    watts: Floats
    changes: tuple[float, ...]


def play(scene: Scene, seed: int) -> Played:
    rng = np.random.default_rng([seed, 11])
    network = scene.network
    predicted = np.asarray(network.joules) / _ratios(scene, rng)
    steps = _clock_steps(rng) if scene.clocks != "steady" else ()

    def clocks(now: float) -> tuple[float, float]:
        return (1.0, 1.0) if np.searchsorted(steps, now) % 2 == 0 else (1.6, 0.7)

    served = serve(
        network,
        _arrivals(scene, rng),
        predicted.tolist(),
        rng,
        clocks=clocks,
        until=SECONDS - 1,
    )
    energy = Energy(served.blocks() + _others(scene, rng, served))

    def drawn(moments: Floats) -> Floats:
        return energy.upto(moments) + IDLE * moments + (_drift(moments) if scene.drifting else 0.0)

    times = polls(SECONDS + 0.5, rng)
    watts = scene.sensor.read(drawn, times, rng)
    times, watts = _broken(scene, times, watts, rng)
    changes = (
        tuple(step + float(rng.uniform(0, 1)) for step in steps) if scene.clocks == "seen" else ()
    )
    return Played(served, times, watts, changes)


def _ratios(scene: Scene, rng: np.random.Generator) -> Floats:
    count = len(scene.network.joules)
    if scene.ratio == "profile":
        return np.asarray(1 + 0.03 * rng.normal(size=count))
    if scene.ratio == "spread":
        return np.asarray(np.exp(rng.uniform(np.log(1.1), np.log(4.4), count)))
    scale = {"30": 1.0, "0.3": 0.3, "30x": 30.0, "60x": 60.0}[scene.ratio]
    return np.asarray(scale * (1 + 0.3 * rng.choice([-1.0, 1.0], count)))


def _arrivals(scene: Scene, rng: np.random.Generator) -> list[Arrival]:
    began, span = scene.starts, SECONDS - 1 - scene.starts
    if scene.load == "saturated":
        return [Arrival(began)] * int(2.5 * span / min(scene.network.seconds))
    if scene.load == "even":
        return [Arrival(float(t)) for t in np.arange(began, SECONDS - 1, 1 / scene.rate)]
    times = np.sort(rng.uniform(began, SECONDS - 1, rng.poisson(scene.rate * span)))
    if scene.load == "tenants":
        tenants = [("camera", 1), ("phone", 4)]
        return [Arrival(t, *tenants[int(rng.integers(2))]) for t in times.tolist()]
    if scene.load == "bursts":
        starts = np.sort(rng.uniform(began, SECONDS - 2, int(span / 3)))
        return [Arrival(t) for t in np.sort(np.repeat(starts, int(3 * scene.rate))).tolist()]
    if scene.load == "phases":
        return [Arrival(t) for t in times.tolist() if int(t // 10) % 2 == 0]
    return [Arrival(t) for t in times.tolist()]


def _others(scene: Scene, rng: np.random.Generator, served: Served) -> list[Block]:
    """Other programs: steps of 3 W, a sine of 1 W, or one of 2 W that runs while we do."""
    if scene.other == "steps":
        edges = np.cumsum(rng.exponential(6.0, 60))
        return [(a, b, 3.0 * (b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if scene.other == "sine":
        times = np.arange(0, SECONDS + 1, 0.05)
        watts = 1.0 * np.sin(2 * np.pi * times / 3.1)
        return [
            (t, t + 0.05, 0.05 * w) for t, w in zip(times.tolist(), watts.tolist(), strict=True)
        ]
    if scene.other == "with us":
        began = np.arange(0, SECONDS, 20)
        return [(t - rng.uniform(0, 1), t + 10 + rng.uniform(0, 1), 22.0) for t in began.tolist()]
    return []


def _drift(moments: Floats) -> Floats:
    """Joules of an idle power that rises by 1.2 W in all and swings by 0.3 W."""
    slow = 2 * np.pi / 40
    return np.asarray(0.6 * moments**2 / SECONDS - 0.3 / slow * np.cos(slow * moments))


def _clock_steps(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(np.cumsum(rng.uniform(30, 45, 4)).tolist())


def _broken(
    scene: Scene, times: Floats, watts: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    if scene.fault == "stall":
        kept = (times < 60) | (times > 80)
        return times[kept], watts[kept]
    if scene.fault == "glitch":
        watts = watts.copy()
        watts[rng.choice(len(watts), 5, replace=False)] += rng.choice([-20.0, 60.0, 400.0], 5)
    if scene.fault == "frozen":
        frozen = int(np.searchsorted(times, 60.0))
        watts = np.where(np.arange(len(watts)) < frozen, watts, watts[frozen])
    return times, watts


def _grid() -> list[Scene]:
    cells = [Scene("fast sensor")]
    cells += [Scene(f"{1000 * d:.0f} ms late", Sensor(delay=d)) for d in DELAYS]
    cells += [
        Scene("six rails in turn", RAILS),
        Scene("six rails, 12 ms late", replace(RAILS, delay=0.012)),
        Scene("steps of 0.4 W", COARSE),
        Scene("a low-pass of 0.42 s", Sensor(window=1e-3, lag=0.42)),
        Scene("held 0.42 s", HELD),
        Scene("held 0.42 s, even load", HELD, load="even"),
        Scene("held 0.42 s, saturated", HELD, load="saturated"),
        Scene("held 0.42 s, 60 a second", HELD, rate=60),
        Scene("held 1 s", SLOW),
        Scene("held 1 s, even load", SLOW, load="even"),
        Scene("held 1 s, long segments", SLOW, LONG, rate=3),
        Scene("5 a second", rate=5),
        Scene("60 a second", rate=60),
        Scene("60 a second, 25 ms late", Sensor(delay=0.025), rate=60),
        Scene("even load", load="even", rate=50),
        Scene("bursts", load="bursts"),
        Scene("bursts, held 0.42 s", HELD, load="bursts"),
        Scene("saturated", load="saturated"),
        Scene("two tenants", load="tenants"),
        Scene("two tenants, 25 ms late", Sensor(delay=0.025), load="tenants"),
        Scene("two tenants, held 0.42 s", HELD, load="tenants"),
    ]
    for name, sensor in (("", FAST), (", 12 ms late", Sensor(delay=0.012)), (", six rails", RAILS)):
        cells.append(Scene(f"short segments{name}", sensor, SHORT, rate=60))
    cells += [
        Scene("long segments", FAST, LONG, rate=3),
        Scene("long segments, 60 ms late", Sensor(delay=0.06), LONG, rate=3),
        Scene("long segments, 5 a second", FAST, LONG, rate=5),
    ]
    for ratio in ("spread", "0.3", "30x", "60x"):
        cells.append(Scene(f"true/predicted {ratio}", ratio=ratio, rate=50))
    cells += [
        Scene("spread, 12 ms late", Sensor(delay=0.012), ratio="spread", rate=50),
        Scene("spread, short segments, six rails", RAILS, SHORT, ratio="spread", rate=60),
        Scene("spread, held 0.42 s", HELD, ratio="spread", rate=50),
        Scene("measured profile", ratio="profile"),
        Scene("measured profile, 25 ms late", Sensor(delay=0.025), ratio="profile"),
        Scene("measured profile, short segments", FAST, SHORT, ratio="profile", rate=60),
        Scene("measured profile, held 0.42 s", HELD, ratio="profile"),
        Scene("idle drifts", drifting=True),
        Scene("clocks step, seen", clocks="seen", rate=50),
        Scene("clocks step, unseen", clocks="unseen", rate=50),
        Scene("others' steps of 3 W", other="steps", rate=50),
        Scene("others' steps, held 0.42 s", HELD, other="steps", rate=50),
        Scene("others' sine of 1 W", other="sine", rate=50),
        Scene("another runs when we do", other="with us", load="phases", rate=50),
        Scene("never idle at start", starts=0.0, rate=50),
        Scene("never idle, held 0.42 s", HELD, starts=0.0, rate=50),
        Scene("a stall of 20 s", fault="stall"),
        Scene("glitches", fault="glitch"),
        Scene("frozen at 60 s", fault="frozen"),
        Scene("frozen, held 0.42 s", HELD, fault="frozen"),
    ]
    return cells


GRID = _grid()
