"""A loaded model: its bundle, its network on a backend, and what it is known to cost here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Lock
from typing import TypeAlias

from delen.bundle.confidence import PATIENCE
from delen.bundle.manifest import Bundle
from delen.core.variant import Size
from delen.engine.backends.base import Network
from delen.engine.guarantee_monitor import GuaranteeMonitor
from delen.errors import InvalidInput
from delen.profile.cost_model import CostModel
from delen.residency.lease import ALWAYS_RESIDENT, ModelResidency
from delen.scheduler.batch_plans import BatchPlans, BestSizeBatches
from delen.scheduler.exit_view import ExitViewBuilder
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import BestSize, Plans, PlanSource
from policies.exit.bounds import ExitPolicy
from policies.exit.learning import LearningPolicy, does_learn
from policies.plan.planner import Planner
from policies.plan.promises import Terms

_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network at one input size. ``plans``, ``batch_plans``, ``exit_view`` and ``view`` are what
    requests, batches, exit policies and dispatch policies are given of it; all follow ``costs``.
    ``residency`` knows which segments are in memory. ``learner`` is the exit policy where full runs
    are reported to it; under the criterion ``patience`` they are not. Who calls the exit policy
    holds ``deciding``, since it may keep state.

    ``smaller`` is the same network at the smaller sizes to which its inputs may be scaled down,
    largest first: ``plans`` and ``batch_plans`` choose among all of them. Each size has its own
    calibration, costs and queue; segments, ``residency`` and ``monitor`` are those of all.
    """

    bundle: Bundle
    network: Network
    planner: Planner
    policy: ExitPolicy
    costs: CostModel
    monitor: GuaranteeMonitor = field(default_factory=GuaranteeMonitor)
    residency: ModelResidency = ALWAYS_RESIDENT
    smaller: tuple[Model, ...] = ()
    own_plans: Plans = field(init=False)
    own_batches: BatchPlans = field(init=False)
    plans: PlanSource = field(init=False)
    batch_plans: BatchPlans = field(init=False)
    exit_view: ExitViewBuilder = field(init=False)
    view: ScheduledModel = field(init=False)
    variant: str = field(init=False)
    """Its name and size, by which the scheduler knows it."""
    learner: LearningPolicy | None = field(init=False)
    deciding: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        planner, costs, bundle = self.planner, self.costs, self.bundle
        learner: LearningPolicy | None = None
        if does_learn(self.policy) and bundle.manifest.criterion != PATIENCE:
            learner = self.policy
        object.__setattr__(self, "learner", learner)
        macs = tuple(exit.macs for exit in bundle.exits)
        view = ScheduledModel(costs, planner.calibration, bundle.manifest.max_batch)
        own = Plans(planner, costs, partial(_lowest, learner, self.monitor))
        plans: PlanSource = own
        object.__setattr__(self, "own_plans", own)
        object.__setattr__(self, "own_batches", batches := BatchPlans(own, view))
        if self.smaller:
            plans = best = BestSize([size.own_plans for size in self.sizes])
            batches = BestSizeBatches(best, [size.own_batches for size in self.sizes])
        object.__setattr__(self, "plans", plans)
        object.__setattr__(self, "batch_plans", batches)
        object.__setattr__(self, "exit_view", ExitViewBuilder(planner, costs, macs))
        object.__setattr__(self, "view", view)
        object.__setattr__(self, "variant", bundle.variant)

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def sizes(self) -> tuple[Model, ...]:
        """It and the smaller ones."""
        return (self, *self.smaller)

    def accepting(self, shapes: Sequence[tuple[int, ...]]) -> Model:
        """The model at the size of inputs of these ``shapes``, which it accepts. InvalidInput
        unless all are the same."""
        if len(set(shapes)) > 1:
            raise InvalidInput("the samples of a batch must all be of one size", "input")
        return next(m for m in self.sizes if m.bundle.manifest.input.shape == shapes[0])

    def at(self, size: Size | None) -> Model:
        """The model at ``size``, which is one of its sizes, or None where it has one alone."""
        return next(model for model in self.sizes if model.bundle.size == size)

    @property
    def exits(self) -> int:
        return len(self.bundle.exits)

    def relax(self, now: float) -> None:
        """Let what was learnt of its costs, at all sizes, fade for the time since the last call."""
        self.costs.relax(now)
        for model in self.smaller:
            model.costs.relax(now)

    def promised_error(self, terms: Terms) -> float:
        """The greatest share of wrong answers among those with these terms."""
        return self.at(terms.size).planner.promises.error(terms)

    @property
    def accuracies(self) -> Sequence[float]:
        """Expected ones of the exits."""
        return self.planner.accuracies


def _lowest(learner: LearningPolicy | None, monitor: GuaranteeMonitor) -> float | None:
    """As ``Plans`` has it. Where inputs have changed at another size, nothing is known of them at
    this one. A function of these two: with the model in it, ``Plans`` would keep it in memory."""
    if learner is None or not monitor.has_departed:
        return None
    return learner.raised if learner.has_departed else inf


ModelMaker: TypeAlias = Callable[[Bundle, Network, ModelResidency, bool], Model | None]


@dataclass(frozen=True, slots=True, eq=False)
class OpenedBundle:
    """A bundle on a backend, whose segments are loaded one by one (residency's OpenBundle)."""

    bundle: Bundle
    network: Network
    make_model: ModelMaker

    def load(self, segment: int) -> None:
        """Load ``segment`` and run it a few times at each size, for first runs are slow."""
        self.network.load(segment)
        for network in (self.network, *self.network.smaller):
            for _ in range(_WARM_UP_RUNS):
                network.run(segment, [network.blank(segment)])

    def drop(self, segment: int) -> None:
        self.network.drop(segment)

    def complete(self, residency: ModelResidency, is_whole: bool) -> Model | None:
        """The model; None while it has no profile and ``is_whole`` is false: not all its segments
        are loaded for one to be measured."""
        return self.make_model(self.bundle, self.network, residency, is_whole)
