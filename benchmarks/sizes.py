"""Three input sizes beside one, on the device alone: the shipped network by this machine's profile.

- What is there to choose: the exits of all sizes that no other one dominates, and the most accurate
  answer within a cap on latency.
- Under load, simulated: the same requests of three apps with mixed bounds, played with three sizes
  and with the largest alone. Loads are of what the device runs a second to the deepest exit at the
  largest size. Floors are kept at the least energy, which is at smaller sizes, so three sizes give
  some accuracy for energy; their median over all cells is judged.
- The guarantee of each (size, exit), and of the size that a floor chooses: calibration tables are
  drawn again and again from the answers to the calibration and test images (as in guarantee.py, the
  same images at every size), and the certified threshold is judged by all of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import sqrt

import numpy as np

from benchmarks.common import Figure, report, test_images
from benchmarks.dispatch_cells import DEFAULT, HERE, Cell, Size, apps_of, full_seconds, model_of
from benchmarks.guarantee import TEST_IMAGES, Rates, draw_errors, last_before_failure, population
from benchmarks.standard_apps import make_trace
from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from multiexit_models.data.dataset import Labelled
from multiexit_models.export.scaled import scaled_to
from policies.plan.planner import Planner
from policies.plan.sizes import level_of_each, pareto
from policies.plan.thresholds import LTT, PROCEDURES
from policies.plugins import DISPATCH_POLICIES, find_plugin

KINDS = ("poisson", "bursts")
LOADS = (0.9, 1.2, 1.5, 2.0, 3.0)
SEEDS = 5
TRACE = Size(500, 5.0)
TENANTS = 3
CAPS = (0.3, 0.5, 0.7, 1.0)
"""Of the time that the largest size takes to its deepest exit."""

LEVEL = 0.95
DRAWS = 300
SAMPLES = 4000
POINTS = (0.005, 0.01, 0.02)
"""Floors lie this much below an exit's accuracy."""


def alone(model: SimulatedModel) -> SimulatedModel:
    """``model`` at its largest size, planned as one that has no other."""
    return replace(model, planner=Planner(model.calibration, model.planner.settings), smaller=())


def choices(model: SimulatedModel) -> list[Figure]:
    """The table of what is not dominated, and what caps on latency buy of three sizes and one."""
    several = [p for each in model.sizes for p in each.planner.points(each.costs())]
    shown = [point for point in pareto(several) if not point.dominated]
    print(f"\n{'size':>7} {'exit':>4} {'accuracy':>9} {'ms':>7} {'mJ':>7}")
    for point in sorted(shown, key=lambda point: point.latency):
        size = "x".join(map(str, point.size or ()))
        joules = "" if point.energy is None else f"{1e3 * point.energy:7.2f}"
        print(
            f"{size:>7} {point.exit:>4} {point.accuracy:9.4f} {1e3 * point.latency:7.2f} {joules}"
        )
    one = [point for point in several if point.size == model.planner.size]
    longest = max(point.latency for point in one)
    made = []
    for part in CAPS:
        cap = part * longest
        best = [
            max((p.accuracy for p in points if p.latency <= cap), default=0.0)
            for points in (several, one)
        ]
        name = f"accuracy within {part:g} of the deepest exit's time"
        made += [
            Figure(f"{name}: three sizes", (best[0],), ""),
            Figure(f"{name}: one", (best[1],), ""),
            Figure(f"{name}: gained", (best[0] - best[1],), "", 0.0, at_most=False),
        ]
    return made


def overload(model: SimulatedModel) -> list[Figure]:
    """Effective accuracy and joules an answer of three sizes and one, for the same requests."""
    one, made = alone(model), []
    all_gained: list[float] = []
    all_joules: list[float] = []
    for kind, load in product(KINDS, LOADS):
        cell = Cell(HERE, kind, TENANTS, load)
        duration = max(TRACE.seconds, TRACE.requests * full_seconds(one) / load)
        gained, effective, joules = [], [], []
        for seed in range(SEEDS):
            trace = make_trace(apps_of(cell, one, duration), duration, seed)
            both = []
            for played in (model, one):
                policy, fallback = (find_plugin(DISPATCH_POLICIES, DEFAULT)() for _ in range(2))
                done = run(trace, {"m": played}, policy, fallback, RunSettings(seed=seed))
                both.append(summarise(done, None))
            right = [float(each["effective_accuracy"]) for each in both]
            gained.append(right[0] - right[1])
            effective.append(right[0])
            each = [s["energy_j"] / max(1, s["answered"]) for s in both]
            joules.append(each[0] / each[1])
        name = f"{kind} {load:g}"
        made += [
            Figure(f"{name}: effective accuracy, three sizes", tuple(effective), ""),
            Figure(f"{name}: gained on one size", tuple(gained), ""),
            Figure(f"{name}: joules an answer, of one size's", tuple(joules), ""),
        ]
        all_gained += gained
        all_joules += joules
    made += [
        Figure("all cells: gained on one size", tuple(all_gained), "", 0.0, at_most=False),
        Figure("all cells: joules an answer, of one size's", tuple(all_joules), "", 1.0),
    ]
    return made


def losses(table: Calibration, deepest: int) -> Rates:
    """Whether each sample is answered wrongly at each threshold: float32 [samples, thresholds]."""
    rows, wrong = np.arange(table.samples), np.empty((table.samples, len(THRESHOLDS)), np.float32)
    for index, threshold in enumerate(THRESHOLDS.tolist()):
        wrong[:, index] = ~table.correct[rows, table.exits_taken(threshold, deepest)]
    return wrong


def guarantees(bundle: Bundle, images: Labelled) -> list[Figure]:
    """How often a certified threshold breaks its floor, for each (size, exit) and for the size that
    costs least of those certified."""
    delta = 1 - level_of_each(LEVEL, len(bundle.sizes))
    tables = []
    for each in bundle.sizes:
        assert each.size is not None
        inputs = scaled_to(bundle.manifest.input, images.inputs, each.size)
        tables.append(population(each, Labelled(inputs, images.labels)))
    wrong = {
        (size, exit): losses(table, exit)
        for size, table in enumerate(tables)
        for exit in range(table.exits)
    }
    drawn = draw_errors(list(wrong.values()), SAMPLES, DRAWS, np.random.default_rng(0))
    errors = dict(zip(wrong, drawn, strict=True))
    made = []
    for (size, exit), of_draws in errors.items():
        truth = wrong[size, exit].mean(axis=0, dtype=np.float64)
        worst = max(
            float(_violates(of_draws, truth, tables[size].accuracy(exit) - points, delta).mean())
            for points in POINTS
        )
        name = "x".join(map(str, bundle.sizes[size].size or ()))
        limit = delta + 2 * sqrt(delta * (1 - delta) / DRAWS)
        made.append(Figure(f"{name} exit {exit}: floors broken, at worst", (worst,), "", limit))
    deepest = max(exit for _, exit in errors)
    for points in POINTS:
        floor = max(table.accuracy(deepest) for table in tables) - 0.05 - points
        broken = _chosen_breaks(bundle, errors, wrong, deepest, floor, delta)
        limit = 1 - LEVEL + 2 * sqrt(LEVEL * (1 - LEVEL) / DRAWS)
        name = f"floor {floor:.3f} at the cheapest size: broken"
        made.append(Figure(name, (float(broken.mean()),), "", limit))
    return made


def _certified(errors: np.ndarray, floor: float, delta: float) -> np.ndarray:
    """Of each draw, the index of the threshold that is certified for ``floor``; -1 if none is."""
    return last_before_failure(errors <= PROCEDURES[LTT](SAMPLES, 1 - floor, delta))


def _violates(errors: np.ndarray, truth: np.ndarray, floor: float, delta: float) -> np.ndarray:
    chosen = _certified(errors, floor, delta)
    return (chosen >= 0) & (truth[chosen] > 1 - floor + 1e-9)


def _chosen_breaks(
    bundle: Bundle,
    errors: dict[tuple[int, int], np.ndarray],
    wrong: dict[tuple[int, int], Rates],
    deepest: int,
    floor: float,
    delta: float,
) -> np.ndarray:
    """Of each draw, whether the floor is broken at the size that keeps it, as the draw has it, with
    the fewest multiply-adds."""
    costs, breaks = [], []
    for size, each in enumerate(bundle.sizes):
        chosen = _certified(errors[size, deepest], floor, delta)
        macs = np.array([exit.macs for exit in each.exits])
        shares = each.calibration.share_curve(deepest) @ macs
        costs.append(np.where(chosen >= 0, shares[chosen], np.inf))
        truth = wrong[size, deepest].mean(axis=0, dtype=np.float64)
        breaks.append((chosen >= 0) & (truth[chosen] > 1 - floor + 1e-9))
    best = np.argmin(costs, axis=0)
    return np.array(breaks)[best, np.arange(len(best))]


def main() -> list[Figure]:
    model = model_of(HERE, sizes=True)
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    return [
        *report("What there is to choose", choices(model)),
        *report(f"Under load, {SEEDS} seeds a cell", overload(model)),
        *report(
            f"The guarantee at {LEVEL:g}, {DRAWS} draws",
            guarantees(bundle, test_images(TEST_IMAGES)),
        ),
    ]


if __name__ == "__main__":
    main()
