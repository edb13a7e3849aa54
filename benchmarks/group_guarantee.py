"""Does the guarantee hold on data that come in groups? Calibration groups are drawn again and
again, and the floor that each draw certifies is judged on the groups that were not drawn.

Two populations: one that is made up, of groups of 5 to 35 samples; and the shipped bundle's answers
to CIFAR-10's test images, each a track of frames that are moved, lit and noisy in other ways. A
floor over groups is judged by the mean accuracy of the groups held out, one over images, which
takes frames for independent, by the accuracy of their images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from benchmarks.common import Figure
from delen.bundle.calibration import Calibration
from multiexit_models.data.dataset import Labelled
from policies.plan.thresholds import LTT, UCB, highest_floor

DRAWS = 500
GROUPS = (100, 200)
DELTAS = (0.01, 0.05, 0.1, 0.15, 0.2)
BY_IMAGES = "images"
_SHARED_DIFFICULTY = 0.42
"""The share of samples that are as difficult as their group: the design effect is then about 5."""
_SHIFT, _LIGHT, _NOISE = 2, 25, 5


@dataclass(frozen=True)
class Outcome:
    """What one way to certify did over all draws: the share of draws in which the floor was above
    the accuracy of the groups held out, and the mean floor."""

    study: str
    groups: int
    delta: float
    rule: str
    draws: int
    violated: float
    floor: float

    @property
    def limit(self) -> float | None:
        """delta and two standard errors of a rate of delta; taken for independent images, grouped
        ones are not what the theorem is about."""
        if self.rule == BY_IMAGES:
            return None
        return self.delta + 2 * sqrt(self.delta * (1 - self.delta) / self.draws)


def synthetic(groups: int, seed: int = 0) -> Calibration:
    """A network that is right on 90 % of inputs, which come in ``groups`` of 5 to 35."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), rng.integers(5, 36, groups)).astype(np.int32)
    shares = rng.random(len(numbers)) < _SHARED_DIFFICULTY
    difficulty = np.where(shares, rng.random(groups)[numbers], rng.random(len(numbers)))
    right = difficulty[:, None] < 0.9
    confidence = np.full(right.shape, 0.5, np.float32)
    return Calibration(confidence, right, (~right).astype(np.int32), numbers)


def tracks(images: Labelled, frames: int, seed: int = 0) -> Labelled:
    """Each image as a track of ``frames``: moved by up to 2 pixels, darker or lighter, noisy."""
    rng, count = np.random.default_rng(seed), len(images) * frames
    pictures = np.repeat(images.inputs, frames, axis=0).astype(np.float32)
    pictures += rng.uniform(-_LIGHT, _LIGHT, (count, 1, 1, 1)).astype(np.float32)
    for picture in pictures:
        moves = rng.integers(-_SHIFT, _SHIFT + 1, 2)
        picture[:] = np.roll(picture, moves, axis=(0, 1))
        picture += rng.normal(0, _NOISE, picture.shape).astype(np.float32)
    groups = np.repeat(np.arange(len(images)), frames).astype(np.int32)
    return Labelled(
        np.clip(pictures, 0, 255).astype(np.uint8), np.repeat(images.labels, frames), groups
    )


def design_effect(table: Calibration) -> float:
    """How many times the variance of the mean is that of as many independent samples."""
    right = table.correct[:, -1].astype(np.float64)
    residuals = np.bincount(table.groups, right - right.mean())
    return float((residuals**2).sum() / (len(right) * right.var()))


def draws(
    population: Calibration, groups: int, count: int, seed: int
) -> Iterator[tuple[Calibration, float, float]]:
    """Tables of ``groups`` that are drawn, with the accuracy over the groups left and the images
    in them. The last exit alone is kept, at which all inputs end."""
    assert population.groups is not None
    rng, right = np.random.default_rng(seed), population.correct[:, -1:]
    of_group = np.bincount(population.groups, right[:, 0]) / population.group_sizes
    for _ in range(count):
        is_drawn = np.zeros(population.units, bool)
        is_drawn[rng.choice(population.units, groups, replace=False)] = True
        rows = is_drawn[population.groups]
        table = Calibration(
            population.confidence[rows, -1:],
            right[rows],
            population.predictions[rows, -1:],
            population.groups[rows],
        )
        yield table, float(of_group[~is_drawn].mean()), float(right[~rows].mean())


def run(
    study: str,
    population: Calibration,
    sizes: Sequence[int] = GROUPS,
    count: int = DRAWS,
    deltas: Sequence[float] = DELTAS,
    seed: int = 0,
) -> list[Outcome]:
    """Every rule at every level and number of groups, over the same draws."""
    made = []
    for groups in sizes:
        floors: dict[tuple[float, str], list[float]] = {}
        missed: dict[tuple[float, str], int] = {}
        for table, over_groups, over_images in draws(population, groups, count, seed):
            pooled = Calibration(table.confidence, table.correct, table.predictions)
            for delta in deltas:
                for rule, of, procedure, truth in (
                    ("betting", table, LTT, over_groups),
                    ("hoeffding-bentkus", table, UCB, over_groups),
                    (BY_IMAGES, pooled, LTT, over_images),
                ):
                    floor, key = highest_floor(of, 0, 1 - delta, procedure), (delta, rule)
                    floors.setdefault(key, []).append(floor)
                    missed[key] = missed.get(key, 0) + (floor > truth)
        made += [
            Outcome(
                study,
                groups,
                delta,
                rule,
                count,
                missed[delta, rule] / count,
                float(np.mean(found)),
            )
            for (delta, rule), found in floors.items()
        ]
    return made


def print_table(made: Sequence[Outcome], out: Callable[[str], None] = print) -> None:
    """One line a setting, the rules side by side: violated, mean floor."""
    rules = list(dict.fromkeys(outcome.rule for outcome in made))
    settings: dict[tuple[str, int, float], dict[str, Outcome]] = {}
    for outcome in made:
        settings.setdefault((outcome.study, outcome.groups, outcome.delta), {})[outcome.rule] = (
            outcome
        )
    header = "".join(f"   {rule:>17}: violated  floor" for rule in rules)
    out(f"{'study':<12} {'groups':>6} {'delta':>5} {'limit':>6}{header}")
    for (study, groups, delta), by_rule in settings.items():
        cells = ""
        for rule in rules:
            outcome = by_rule[rule]
            is_missed = outcome.limit is not None and outcome.violated > outcome.limit
            cells += f"{outcome.violated:30.3f}{'!' if is_missed else ' '} {outcome.floor:5.3f}"
        limit = next(o.limit for o in by_rule.values() if o.limit is not None)
        out(f"{study:<12} {groups:>6} {delta:>5g} {limit:>6.3f}{cells}")


def figures(made: Sequence[Outcome]) -> list[Figure]:
    """The violation rates with what is claimed of them, and the floors."""
    result = []
    for o in made:
        name = f"{o.study} {o.rule}, {o.groups} groups, delta {o.delta:g}"
        result.append(Figure(f"{name}: violated", (o.violated,), "", o.limit))
        result.append(Figure(f"{name}: floor", (o.floor,), ""))
    return result


def study(name: str, population: Calibration) -> list[Figure]:
    """Run, print and return one population's figures."""
    assert population.groups is not None
    print(
        f"\n{name}: floors over {DRAWS} draws of groups out of {population.units} with "
        f"{population.samples} samples, accuracy {population.accuracy(population.exits - 1):.4f}, "
        f"design effect {design_effect(population):.1f}"
    )
    made = run(name, population)
    print_table(made)
    return figures(made)
