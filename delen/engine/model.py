"""A loaded model: its bundle, its network on a backend, and what it is known to cost here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.engine.guarantee_monitor import GuaranteeMonitor
from delen.profile.cost_model import CostModel
from delen.residency.lease import ALWAYS_RESIDENT, ModelResidency
from delen.scheduler.batch_plans import BatchPlans
from delen.scheduler.exit_view import ExitViewBuilder
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import Plans
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import Planner

_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """``plans``, ``batch_plans``, ``exit_view`` and ``view`` are what requests, batches, exit
    policies and dispatch policies are given of it; all follow ``costs``. ``residency`` knows which
    segments are in memory."""

    bundle: Bundle
    network: Network
    planner: Planner
    policy: ExitPolicy
    costs: CostModel
    monitor: GuaranteeMonitor = field(default_factory=GuaranteeMonitor)
    residency: ModelResidency = ALWAYS_RESIDENT
    plans: Plans = field(init=False)
    batch_plans: BatchPlans = field(init=False)
    exit_view: ExitViewBuilder = field(init=False)
    view: ScheduledModel = field(init=False)

    def __post_init__(self) -> None:
        planner, costs, bundle = self.planner, self.costs, self.bundle
        macs = tuple(exit.macs for exit in bundle.exits)
        view = ScheduledModel(costs, planner.calibration, bundle.manifest.max_batch)
        plans = Plans(planner, costs)
        object.__setattr__(self, "plans", plans)
        object.__setattr__(self, "batch_plans", BatchPlans(plans, view))
        object.__setattr__(self, "exit_view", ExitViewBuilder(planner, costs, macs))
        object.__setattr__(self, "view", view)

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def exits(self) -> int:
        return len(self.bundle.exits)

    @property
    def accuracies(self) -> Sequence[float]:
        """Expected ones of the exits."""
        return self.planner.accuracies


ModelMaker: TypeAlias = Callable[[Bundle, Network, ModelResidency, bool], Model | None]


@dataclass(frozen=True, slots=True, eq=False)
class OpenedBundle:
    """A bundle on a backend, whose segments are loaded one by one (residency's OpenBundle)."""

    bundle: Bundle
    network: Network
    make_model: ModelMaker

    def load(self, segment: int) -> None:
        """Load ``segment`` and run it a few times, for first runs are slow."""
        self.network.load(segment)
        for _ in range(_WARM_UP_RUNS):
            self.network.run(segment, [self.network.blank(segment)])

    def drop(self, segment: int) -> None:
        self.network.drop(segment)

    def complete(self, residency: ModelResidency, is_whole: bool) -> Model | None:
        """The model; None while it has no profile and ``is_whole`` is false: not all its segments
        are loaded for one to be measured."""
        return self.make_model(self.bundle, self.network, residency, is_whole)
