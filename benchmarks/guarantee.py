"""Does the guarantee hold? Calibration sets are drawn again and again from real answers, and the
thresholds chosen on each are judged by the truth.

The population is the shipped bundle's own calibration images and all test images of CIFAR-10: of
each, every exit's confidence and answer. Calibration sets are drawn from it with replacement, so
that they are independent samples of a population whose accuracy at every threshold is known
exactly; nothing has to be estimated, and the claim tested is the one that is made: P(risk of the
chosen threshold > what is allowed) <= delta over the draw of the calibration set. Then the same of
samples that come in groups (group_guarantee.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from benchmarks import group_guarantee
from benchmarks.common import Figure, test_images
from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.choose import BundleBackends
from multiexit_models.data.dataset import Labelled
from policies.plan.thresholds import PROCEDURES
from policies.plan.useful_exits import UsefulExits

DRAWS = 500
SIZES = (500, 1000, 5000)
DELTAS = (0.05, 0.1, 0.2)
POINTS = (0.005, 0.01, 0.02)
"""Floors lie this much below the deepest exit's accuracy; disagreement may be this much."""

NAIVE = "naive"
TEST_IMAGES = 10_000
TRACKS, FRAMES = 1500, 8
SYNTHETIC_GROUPS = 5_000

Rates = NDArray[np.float32]


@dataclass(frozen=True)
class Study:
    """One risk over the population: 0/1 ``losses`` [samples, thresholds], the share of the
    deepest exit's multiply-adds that each threshold ``costs``, and the ``allowed`` risks."""

    name: str
    losses: Rates
    costs: NDArray[np.float64]
    allowed: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """What one way of choosing did over all draws: the share of draws in which the risk chosen is
    above what is allowed, or in which a threshold was ``issued``, and the mean cost of those."""

    study: str
    samples: int
    delta: float
    allowed: float
    rule: str
    draws: int
    violated: float
    issued: float
    cost: float | None

    @property
    def limit(self) -> float | None:
        """delta and two standard errors of a rate of delta; the naive rule claims nothing."""
        if self.rule == NAIVE:
            return None
        return self.delta + 2 * sqrt(self.delta * (1 - self.delta) / self.draws)


def answers(bundle: Bundle, images: Labelled) -> Calibration:
    """The table of what the bundle's exits answer to ``images``."""
    network = BundleBackends("cpu", 1).load(bundle)
    exits, classes = len(bundle.exits), bundle.manifest.classes
    confidence = np.empty((len(images), exits), np.float32)
    logits = np.empty((len(images), exits, classes), np.float32)
    for first in range(0, len(images), bundle.manifest.max_batch):
        rows = slice(first, first + bundle.manifest.max_batch)
        features = list(images.inputs[rows])
        for exit in range(exits):
            run = network.run(exit, features)
            confidence[rows, exit], logits[rows, exit] = run.confidence, run.logits
            features = list(run.features)
    predictions = logits.argmax(axis=2).astype(np.int32)
    return Calibration(
        confidence, predictions == images.labels[:, None], predictions, images.groups
    )


def population(bundle: Bundle, images: Labelled) -> Calibration:
    """The bundle's calibration table, and below it the same of ``images``."""
    table, more = bundle.calibration, answers(bundle, images)
    return Calibration(
        np.concatenate([table.confidence, more.confidence]),
        np.concatenate([table.correct, more.correct]),
        np.concatenate([table.predictions, more.predictions]),
    )


def studies(table: Calibration, macs: Sequence[int]) -> list[Study]:
    """Accuracy with labels and agreement without, for the network up to its deepest useful exit."""
    deepest = UsefulExits([table.accuracy(exit) for exit in range(table.exits)]).deepest
    rows = np.arange(table.samples)
    share = np.asarray(macs[: deepest + 1]) / macs[deepest]
    wrong, differing = (np.empty((table.samples, len(THRESHOLDS)), np.float32) for _ in range(2))
    costs = np.empty(len(THRESHOLDS))
    for index, threshold in enumerate(THRESHOLDS.tolist()):
        taken = table.exits_taken(threshold, deepest)
        wrong[:, index] = ~table.correct[rows, taken]
        differing[:, index] = table.predictions[rows, taken] != table.predictions[:, deepest]
        costs[index] = share[taken].mean()
    error = 1 - table.accuracy(deepest)
    return [
        Study("accuracy", wrong, costs, tuple(error + points for points in POINTS)),
        Study("agreement", differing, costs, POINTS),
    ]


def draw_errors(
    losses: Sequence[Rates], samples: int, draws: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The errors ``[draws, thresholds]`` of each study in calibration sets of ``samples``."""
    size = len(losses[0])
    counts = np.empty((draws, size), np.float32)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, size, samples), minlength=size)
    return [np.rint(counts @ loss).astype(np.int64) for loss in losses]


def last_before_failure(passed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each draw, the index of the last threshold up to which all pass; -1 if none does."""
    return np.logical_and.accumulate(passed, axis=1).sum(axis=1) - 1


def lowest_passing(passed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each draw, the index of the lowest threshold that passes, whatever others do."""
    lowest = passed.shape[1] - 1 - passed[:, ::-1].argmax(axis=1)
    return np.where(passed.any(axis=1), lowest, -1)


def outcomes(
    study: Study, errors: NDArray[np.int64], samples: int, deltas: Sequence[float]
) -> list[Outcome]:
    """Every rule at every level and allowed risk, over the same draws."""
    truth, draws = study.losses.mean(axis=0, dtype=np.float64), len(errors)

    def judge(rule: str, delta: float, allowed: float, chosen: NDArray[np.int64]) -> Outcome:
        issued = chosen >= 0
        violated = issued & (truth[chosen] > allowed + 1e-9)
        cost = float(study.costs[chosen[issued]].mean()) if issued.any() else None
        return Outcome(
            study.name, samples, delta, allowed, rule, draws,
            float(violated.mean()), float(issued.mean()), cost,
        )  # fmt: skip

    made = []
    for delta in deltas:
        for allowed in study.allowed:
            for rule, most_errors in PROCEDURES.items():
                passed = errors <= most_errors(samples, allowed, delta)
                made.append(judge(rule, delta, allowed, last_before_failure(passed)))
            naive = lowest_passing(errors <= samples * allowed + 1e-9)
            made.append(judge(NAIVE, delta, allowed, naive))
    return made


def run(
    table: Calibration,
    macs: Sequence[int],
    draws: int = DRAWS,
    sizes: Sequence[int] = SIZES,
    deltas: Sequence[float] = DELTAS,
    seed: int = 0,
) -> list[Outcome]:
    """The whole study on one population."""
    rng, made = np.random.default_rng(seed), []
    both = studies(table, macs)
    for samples in sizes:
        drawn = draw_errors([study.losses for study in both], samples, draws, rng)
        for study, errors in zip(both, drawn, strict=True):
            made += outcomes(study, errors, samples, deltas)
    return made


def print_table(made: Sequence[Outcome], out: Callable[[str], None] = print) -> None:
    """One line a setting, the rules side by side: violated, issued, share of the full cost."""
    rules = list(dict.fromkeys(outcome.rule for outcome in made))
    groups: dict[tuple[str, int, float, float], dict[str, Outcome]] = {}
    for outcome in made:
        key = (outcome.study, outcome.samples, outcome.delta, outcome.allowed)
        groups.setdefault(key, {})[outcome.rule] = outcome
    header = "".join(f"   {rule:>6}: violated issued  cost" for rule in rules)
    out(f"{'risk':<10} {'samples':>7} {'delta':>5} {'allowed':>8} {'limit':>6}{header}")
    for (study, samples, delta, allowed), by_rule in groups.items():
        cells = ""
        for rule in rules:
            outcome = by_rule[rule]
            cost = "   --" if outcome.cost is None else f"{outcome.cost:5.3f}"
            missed = outcome.limit is not None and outcome.violated > outcome.limit
            mark = "!" if missed else " "
            cells += f"          {outcome.violated:8.3f}{mark}{outcome.issued:6.3f} {cost}"
        limit = next(o.limit for o in by_rule.values() if o.limit is not None)
        out(f"{study:<10} {samples:>7} {delta:>5g} {allowed:>8.4f} {limit:>6.3f}{cells}")


def figures(made: Sequence[Outcome]) -> list[Figure]:
    """The violation rates with what is claimed of them, the costs, and how often one was issued."""
    result = []
    for o in made:
        name = f"{o.study} {o.rule}, n {o.samples}, delta {o.delta:g}, allowed {o.allowed:.4f}"
        result.append(Figure(f"{name}: violated", (o.violated,), "", o.limit))
        result.append(Figure(f"{name}: issued", (o.issued,), ""))
        if o.cost is not None:
            result.append(Figure(f"{name}: cost", (o.cost,), ""))
    return result


def main() -> list[Figure]:
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    table = population(bundle, test_images(TEST_IMAGES))
    accuracies = ", ".join(f"{table.accuracy(exit):.4f}" for exit in range(table.exits))
    print(f"\nthe guarantee over {DRAWS} draws from {table.samples} images; exits: {accuracies}")
    made = run(table, [exit.macs for exit in bundle.exits])
    print_table(made)
    by_tracks = answers(bundle, group_guarantee.tracks(test_images(TRACKS), FRAMES))
    return [
        *figures(made),
        *group_guarantee.study("synthetic", group_guarantee.synthetic(SYNTHETIC_GROUPS)),
        *group_guarantee.study("tracks", by_tracks),
    ]


if __name__ == "__main__":
    main()
