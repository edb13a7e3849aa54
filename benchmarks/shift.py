"""Inputs change and change back: what tuned thresholds keep, and what they cost.

Real test images of the shipped network come as they are, then a third of them changed (darker,
noisier, or cats and dogs alone), then as before. Requests without bounds may differ from the
deepest exit for 1 % of the inputs, which is what the calibration certifies of the static threshold.
Simulated on this machine's profile at a load of 0.3:

- *static*: the threshold that was certified, whatever comes;
- *tuned*: ``policies.exit = "tuned"``, which raises it;
- *Apparate*: its rule on every answer run on to the deepest exit, as in its paper;
- *Apparate, audits*: its rule on one early answer in twenty, as a daemon can afford it;
- *full*: no early answer.

A rule is within its budget at an answer if the thresholds in force there differ for at most 1 % of
all images of that time, which is known exactly; so no luck of the draw counts. Latencies include
queueing. *Back* is how many requests after the end of the change thresholds are the static ones
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, report, test_images
from benchmarks.dispatch_cells import BUNDLE, DEFAULT, HERE, full_seconds, model_of
from benchmarks.guarantee import answers
from delen.bundle.calibration import Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.simulate.arrival_stream import ArrivalStream
from delen.simulate.job import Job
from delen.simulate.model import SimulatedModel
from delen.simulate.outcome import Fate
from delen.simulate.run import RunSettings, SimulatedDaemon
from delen.simulate.trace import Arrival
from multiexit_models.data.dataset import Labelled
from policies.exit.apparate import Ramps, apparate_policy
from policies.exit.bounds import BoundsPolicy, ExitPolicy
from policies.exit.tuned import ModelThresholds, tuned_policy
from policies.plan.planner import AGREEMENT, Planner, PlannerSettings
from policies.plugins import DISPATCH_POLICIES, find_plugin

IMAGES = 4000
PHASE = 10_000
"""Requests before, in and after the change."""
SEEDS = 5
LOAD = 0.3
BUDGET, LEVEL = 0.01, 0.95
DARKER, NOISE = 0.4, 16.0
ANIMALS = (3, 5)
"""The classes cat and dog."""


class NeverEarly(BoundsPolicy):
    """Plans have no thresholds, so nothing stops early."""

    by_threshold = False


STATIC, TUNED, APPARATE, AUDITS, FULL = "static", "tuned", "Apparate", "Apparate, audits", "full"
RULES: dict[str, tuple[Callable[[int], ExitPolicy], float]] = {
    STATIC: (lambda exits: BoundsPolicy(), 0.0),
    TUNED: (lambda exits: tuned_policy(exits, BUDGET, LEVEL), 0.0),
    APPARATE: (lambda exits: apparate_policy(exits, BUDGET), 1.0),
    AUDITS: (lambda exits: apparate_policy(exits, BUDGET), 0.05),
    FULL: (lambda exits: NeverEarly(), 0.0),
}
"""The exit policy of each, and the part of early answers that is audited."""

LEAST_WITHIN = 0.99
MOST_COST = 1.01
MOST_BACK = 400.0


@dataclass(frozen=True)
class Change:
    """``normal`` images and the ``others``, as one table of answers: rows from ``first`` on are of
    the others."""

    table: Calibration
    first: int

    def rows(self, phase: int) -> NDArray[np.int64]:
        """Those that come in ``phase`` 0, 1 or 2."""
        if phase == 1:
            return np.arange(self.first, self.table.samples)
        return np.arange(self.first)

    def disagreement(self, phase: int, limits: Sequence[float]) -> float:
        """The share of all images of ``phase`` that differ from the deepest exit where one stops
        at the first exit whose confidence is at its limit."""
        rows = self.rows(phase)
        stops = self.table.confidence[rows].astype(np.float64) >= np.array([*limits, -inf])
        taken = stops.argmax(axis=1)
        predictions = self.table.predictions[rows]
        return float((predictions[np.arange(len(rows)), taken] != predictions[:, -1]).mean())


def changes(bundle: Bundle) -> dict[str, Change]:
    images, rng = test_images(IMAGES), np.random.default_rng(0)
    darker = np.rint(DARKER * images.inputs)
    noisier = images.inputs + rng.normal(0, NOISE, images.inputs.shape)
    normal = answers(bundle, images)
    are_animals = np.isin(images.labels, ANIMALS)
    made = {}
    for name, pixels in (("darker", darker), ("noisier", noisier)):
        others = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        made[name] = _joined(normal, answers(bundle, Labelled(others, images.labels)))
    parts = (normal.confidence, normal.correct, normal.predictions)
    made["cats and dogs"] = _joined(normal, Calibration(*(part[are_animals] for part in parts)))
    return made


def _joined(normal: Calibration, others: Calibration) -> Change:
    table = Calibration(
        np.concatenate([normal.confidence, others.confidence]),
        np.concatenate([normal.correct, others.correct]),
        np.concatenate([normal.predictions, others.predictions]),
    )
    return Change(table, normal.samples)


@dataclass
class Log:
    """What each answer took, and what the thresholds in force then differ for (RequestLog)."""

    change: Change
    phase: int
    latencies: dict[int, list[float]] = field(default_factory=lambda: {0: [], 1: [], 2: []})
    differ: dict[int, list[float]] = field(default_factory=lambda: {0: [], 1: [], 2: []})
    raised_after: int = 0
    _known: dict[tuple[int, tuple[float, ...]], float] = field(default_factory=dict)

    def decided(self, seconds: float) -> None:
        """Not looked at."""

    def ran(self, slowdown: float) -> None:
        """Not looked at."""

    def refuse(self, row: int, now: float, fate: Fate) -> None:
        raise RuntimeError(f"request {row}, which has no bounds, was refused: {fate}")

    def answer(
        self, row: int, now: float, job: Job, exit: int, confidence: float, latency: float
    ) -> None:
        phase, limits = row // self.phase, limits_of(job)
        self.latencies[phase].append(latency)
        key = (phase, limits)
        if key not in self._known:
            self._known[key] = self.change.disagreement(*key)
        self.differ[phase].append(self._known[key])
        if phase == 2 and getattr(job.model.policy, "raised", 0.0):
            self.raised_after = row - 2 * self.phase + 1

    def within(self, phases: Sequence[int]) -> float:
        """The part of the answers of ``phases`` at which thresholds were within the budget."""
        differ = np.concatenate([self.differ[phase] for phase in phases])
        return float((differ <= BUDGET).mean())


def limits_of(job: Job) -> tuple[float, ...]:
    """The confidence at which each exit but the last stops ``job``."""
    policy, early = job.model.policy, range(job.model.exits - 1)
    if isinstance(policy, Ramps):
        thresholds = [policy.thresholds.get(exit, 0.0) for exit in early]
        return tuple(float(np.nextafter(1 - t, 2)) if t else inf for t in thresholds)
    planned = inf if job.plan.threshold is None else job.plan.threshold
    raised = policy.raised if isinstance(policy, ModelThresholds) else 0.0
    return (max(planned, raised),) * len(early)


def play(model: SimulatedModel, change: Change, rule: str, seed: int, phase: int = PHASE) -> Log:
    """The same requests for every rule."""
    make_policy, fraction = RULES[rule]
    policy = make_policy(model.calibration.exits)
    settings = PlannerSettings(LEVEL, BUDGET, lossless=AGREEMENT)
    planner = Planner(model.calibration, settings, policy.by_threshold)
    played = replace(model, planner=planner, policy=policy, calibration=change.table)
    rng = np.random.default_rng(seed)
    samples = np.concatenate([rng.choice(change.rows(each), phase) for each in range(3)])
    seconds = full_seconds(model) / LOAD
    times = np.cumsum(rng.exponential(seconds, 3 * phase))
    arrivals = [Arrival(time) for time in times.tolist()]
    log = Log(change, phase)
    dispatch, fallback = (find_plugin(DISPATCH_POLICIES, DEFAULT)() for _ in range(2))
    run = RunSettings(seed=seed, audit_fraction=fraction)
    stream = ArrivalStream(arrivals, samples.tolist(), 0.0)
    failures, _ = SimulatedDaemon({"m": played}, dispatch, fallback, run, stream, log).play()
    if failures:
        raise RuntimeError(f"{rule} failed {failures} times")
    return log


def study(name: str, model: SimulatedModel, change: Change) -> list[Figure]:
    """All rules on one change, and what is claimed of the tuned one."""
    logs = {rule: [play(model, change, rule, seed) for seed in range(SEEDS)] for rule in RULES}
    made = []
    for rule, of_rule in logs.items():
        is_ours = rule == TUNED
        within = tuple(log.within((0, 1, 2)) for log in of_rule)
        limit = LEAST_WITHIN if is_ours else None
        made.append(Figure(f"{name}, {rule}: time within budget", within, "", limit, False))
        for phase, when in ((1, "changed"), (2, "after")):
            differ = tuple(float(np.mean(log.differ[phase])) for log in of_rule)
            made.append(Figure(f"{name}, {rule}: {when}, answers that differ", differ, ""))
            pairs = zip(of_rule, logs[FULL], strict=True)
            of_full = tuple(
                float(np.mean(log.latencies[phase]) / np.mean(full.latencies[phase]))
                for log, full in pairs
            )
            made.append(Figure(f"{name}, {rule}: {when}, latency of full", of_full, ""))
    calm = tuple(
        float(np.mean(log.latencies[0]) / np.mean(static.latencies[0]))
        for log, static in zip(logs[TUNED], logs[STATIC], strict=True)
    )
    back = tuple(float(log.raised_after) for log in logs[TUNED])
    return [
        *made,
        Figure(f"{name}, {TUNED}: before, latency of static", calm, "", MOST_COST),
        Figure(f"{name}, {TUNED}: back after", back, "asked", MOST_BACK),
    ]


def main() -> list[Figure]:
    model = model_of(HERE)
    made = []
    for name, change in changes(load_bundle(SHIPPED_BUNDLES / BUNDLE)).items():
        title = f"{name}: {SEEDS} seeds of {3 * PHASE} requests, {PHASE} of them changed"
        made += report(title, study(name, model, change))
    return made


if __name__ == "__main__":
    main()
